//! `cargo xtask bench`: Lifeboat and its peers, measured side by side.
//!
//! The measuring itself is a benchmark of the facade, since it needs what tests need; this task
//! only builds it, with the `lifeboat` command that it measures, and hands over.

use std::{
    env,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::cargo;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to back up
    #[arg(value_enum, default_value_t = What::All)]
    what: What,
    /// How often everything is run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: u32,
    /// About how many megabytes each kind of data has, in place of the usual 1400 of PostgreSQL and
    /// 1030 of files
    #[arg(long, value_parser = clap::value_parser!(u32).range(10..=10000))]
    size_mb: Option<u32>,
    /// Also back up and restore one file of 4 GB, to see what memory it takes
    #[arg(long)]
    large: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    Postgres,
    Tree,
    /// An index of 10^8 chunks, or of as many as LIFEBOAT_INDEX_CHUNKS says
    Index,
    /// The stages of a backup, each alone and all together, with 512 MB or LIFEBOAT_STAGES_MB
    Stages,
    All,
}

/// Measures an index of as many chunks as 100 TB has. A test does it, with fewer, in every run.
fn index() -> Result<ExitCode> {
    in_test("index::simulated", "LIFEBOAT_INDEX_CHUNKS", "100000000")
}

/// Measures the stages of a backup, each alone and all together. A test does it, with less.
fn stages() -> Result<ExitCode> {
    in_test("write::stages", "LIFEBOAT_STAGES_MB", "512")
}

/// Has a test of the repository measure, at the size that the environment or else `usual` says.
fn in_test(test: &str, variable: &str, usual: &str) -> Result<ExitCode> {
    let size = env::var(variable).unwrap_or_else(|_| usual.to_owned());
    let mut run = cargo(&["test", "--release", "-p", "lifeboat-repository", "--lib", test]);
    let status = run.args(["--", "--nocapture"]).env(variable, size).status();
    let status = status.context("run cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    match arguments.what {
        What::Index => return index(),
        What::Stages => return stages(),
        What::Postgres | What::Tree | What::All => {}
    }
    let own = env::current_exe().context("find this program")?;
    // Its report is for people; standard output is for ours, which is to be pasted.
    let setup = Command::new(&own)
        .args(["setup", "--peers"])
        .stdout(std::io::stderr())
        .status()
        .context("run the task `setup`")?;
    if !setup.success() {
        eprintln!("warning: something could not be installed; what can be measured, will be");
    }
    let programs = build()?;
    let mut bench = Command::new(&programs.peers);
    let what = match arguments.what {
        What::Postgres => "postgres",
        What::Tree => "tree",
        What::All | What::Index | What::Stages => "all",
    };
    bench
        .arg(&programs.lifeboat)
        .args([what, &arguments.runs.to_string()])
        .arg(arguments.size_mb.unwrap_or(0).to_string())
        .args(arguments.large.then_some("--large"));
    // In our place: so Ctrl-C reaches it alone, and the shell waits until it has cleaned up.
    let error = bench.exec();
    bail!("run {}: {error}", programs.peers.display());
}

struct Programs {
    lifeboat: PathBuf,
    peers: PathBuf,
}

/// Builds as people are told to build what they run, and asks cargo where it has put it: a
/// benchmark's file has another name after each change.
fn build() -> Result<Programs> {
    eprintln!("Building the command and the benchmark; the first time, this takes minutes.");
    let output = cargo(&["build", "--release", "--message-format=json-render-diagnostics"])
        .args(["-p", "lifeboat-cli", "--bin", "lifeboat", "-p", "lifeboat", "--bench", "peers"])
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo build")?;
    ensure!(output.status.success(), "the programs could not be built: see above");
    let messages = String::from_utf8_lossy(&output.stdout);
    let find = |name: &str| {
        executables(&messages)
            .find(|path| file_name(path).starts_with(name))
            .with_context(|| format!("cargo did not say where it has put `{name}`"))
    };
    Ok(Programs { lifeboat: find("lifeboat")?, peers: find("peers")? })
}

/// The programs that cargo's messages name, one message a line.
fn executables(messages: &str) -> impl Iterator<Item = PathBuf> {
    let named = messages.lines().filter_map(|line| line.split_once("\"executable\":\""));
    named.filter_map(|(_, rest)| rest.split_once('"')).map(|(path, _)| PathBuf::from(path))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_what_cargo_says() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null,\"fresh\":true}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/release/lifeboat\",\"fresh\":true}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/release/deps/peers-0f\"}\n";
        let found: Vec<PathBuf> = executables(messages).collect();
        let expected = [PathBuf::from("/t/release/lifeboat"), "/t/release/deps/peers-0f".into()];
        assert_eq!(found, expected);
    }
}
