//! `cargo xtask test`: all tests, on real servers, with a summary that a person and a script can
//! read.

mod tally;

use std::{
    io::{self, BufRead, BufReader, IsTerminal, Write},
    process::{ExitCode, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lifeboat_testbed::postgres::Installation;

use self::tally::Tally;
use crate::{cargo::cargo, setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the tests whose names contain this
    filter: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let servers = setup::ensure()?;
    let start = Instant::now();
    let (tally, status) = run_tests(arguments.filter.as_deref())?;
    summarize(&tally, &servers, start.elapsed());
    if !status.success() && tally.failed() == 0 {
        eprintln!("cargo test ended early ({status}): see above");
    }
    // The last line, whatever happened: it is what scripts look for.
    println!("\n{} passed, {} failed", tally.passed(), tally.failed());
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs them and shows what they say while they run.
fn run_tests(filter: Option<&str>) -> Result<(Tally, ExitStatus)> {
    let threads = format!("--test-threads={}", threads());
    let terminal = io::stdout().is_terminal();
    let color = if terminal { "always" } else { "never" };
    let mut command = cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"]);
    command.args(["--color", color]).args(filter).args(["--", "--color", color, &threads]);
    // One pipe for both streams keeps the lines in order: cargo says on one which test program
    // runs, and that says on the other how it went.
    let (reader, writer) = io::pipe().context("make a pipe")?;
    command.stdout(writer.try_clone().context("share the pipe")?).stderr(writer);
    let mut child = command.spawn().context("run cargo test")?;
    // The command holds the pipe's other end, which would keep us reading for ever.
    drop(command);
    let mut tally = Tally::default();
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    let mut out = io::stdout().lock();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).context("read what cargo test says")? == 0 {
            break;
        }
        out.write_all(&line).and_then(|()| out.flush()).context("show what cargo test says")?;
        tally.read(&String::from_utf8_lossy(&line));
    }
    drop(out);
    let status = child.wait().context("wait for cargo test")?;
    tally.end();
    Ok((tally, status))
}

/// Most tests wait for a server, so a small machine takes more of them than it has processors; on
/// a big one, memory for the servers is the limit.
fn threads() -> usize {
    thread::available_parallelism().map_or(4, usize::from).clamp(4, 12)
}

fn summarize(tally: &Tally, servers: &[Installation], wall: Duration) {
    println!(
        "\n{:<44} {:>6} {:>6} {:>7} {:>8}",
        "Summary", "passed", "failed", "ignored", "seconds"
    );
    for suite in tally.suites() {
        let marker = if suite.failed > 0 { "  <- failed" } else { "" };
        println!(
            "{:<44} {:>6} {:>6} {:>7} {:>8.1}{marker}",
            suite.name, suite.passed, suite.failed, suite.ignored, suite.seconds
        );
    }
    let ignored = tally.ignored();
    let total = format!("all, with compiling {:.0} s", wall.as_secs_f64());
    let seconds: f64 = tally.suites().map(|suite| suite.seconds).sum();
    let (passed, failed) = (tally.passed(), tally.failed());
    println!("{total:<44} {passed:>6} {failed:>6} {ignored:>7} {seconds:>8.1}");
    for name in tally.failures() {
        println!("failed: {name}");
    }
    let versions: Vec<&str> = servers.iter().map(|server| server.version.as_str()).collect();
    println!("servers: PostgreSQL {}", versions.join(", "));
}
