//! Lifeboat and its peers, measured side by side as whole processes.
//!
//! `cargo xtask bench` builds this program and the `lifeboat` command, and runs it; that is how to
//! start it. What is measured, and how to read it, is in docs/performance.md. The report is
//! Markdown on standard output; what goes on meanwhile is on standard error. Everything it makes
//! lies in one temporary directory, which goes at the end.
//!
//! ```text
//! peers LIFEBOAT postgres|tree|all RUNS MEGABYTES [--large]
//! ```
//!
//! | Module | What it does |
//! | --- | --- |
//! | `tree` | makes a tree of files |
//! | `tool` | a program to measure, as the command lines that one would type |
//! | `files`, `cluster` | the programs for trees and for PostgreSQL |
//! | `measure` | one process: its time, memory, and what else the machine did |
//! | `rounds` | all programs in turn, several times over |
//! | `machine`, `report` | where it was measured, and what came out |

mod cluster;
mod files;
mod machine;
mod measure;
mod report;
mod rounds;
mod tool;
mod tree;

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use lifeboat_testbed::Scratch;
use tokio::signal::unix::{SignalKind, signal};

use machine::Machine;
use rounds::Outcome;

/// As a shell says of a program that was ended by SIGINT.
const INTERRUPTED: u8 = 130;

static STOPPED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if STOPPED.load(Ordering::Relaxed) => {
            eprintln!("stopped; nothing is left behind");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is to be measured.
struct Wish {
    lifeboat: PathBuf,
    postgres: bool,
    tree: bool,
    runs: usize,
    /// Zero for the usual sizes.
    megabytes: u32,
    large: bool,
}

fn wish() -> Result<Wish> {
    const USAGE: &str = "run `cargo xtask bench`, which starts this program as it must be";
    let mut words = env::args().skip(1);
    let mut next = || words.next().context(USAGE);
    let (lifeboat, what, runs, megabytes) = (next()?, next()?, next()?, next()?);
    let all = what == "all";
    let wish = Wish {
        lifeboat: lifeboat.into(),
        postgres: all || what == "postgres",
        tree: all || what == "tree",
        runs: runs.parse().context(USAGE)?,
        megabytes: megabytes.parse().context(USAGE)?,
        large: words.next().is_some_and(|word| word == "--large"),
    };
    ensure!((wish.postgres || wish.tree) && wish.runs > 0, USAGE);
    Ok(wish)
}

fn run() -> Result<()> {
    let wish = wish()?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.spawn(listen());
    let scratch = Scratch::new()?;
    let lifeboat = install(&wish.lifeboat, &scratch)?;
    let mut machine = Machine::look(scratch.path());
    let mut outcomes: Vec<Outcome> = Vec::new();
    let size = |usual| if wish.megabytes == 0 { usual } else { wish.megabytes };
    if wish.postgres {
        outcomes.extend(cluster::compare(
            &runtime,
            &scratch,
            &lifeboat,
            size(cluster::USUAL_MEGABYTES),
            wish.runs,
        )?);
    }
    if wish.tree {
        outcomes.push(files::compare(&scratch, &lifeboat, size(tree::USUAL_MEGABYTES), wish.runs)?);
    }
    if wish.large {
        outcomes.push(files::large(&scratch, &lifeboat)?);
    }
    machine.look_again();
    print!("{}", report::markdown(&machine, &outcomes));
    Ok(())
}

/// Copies the command to where the account of the servers gets at it.
fn install(lifeboat: &Path, scratch: &Scratch) -> Result<PathBuf> {
    let copy = scratch.path().join("lifeboat-itself");
    fs::copy(lifeboat, &copy).with_context(|| format!("copy {}", lifeboat.display()))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).context("let it be run")?;
    Ok(copy)
}

/// Programs run in process groups of their own, so Ctrl-C in a terminal comes to us alone.
async fn listen() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
    eprintln!("stopping as soon as what runs now has ended");
    STOPPED.store(true, Ordering::Relaxed);
}

/// An error when somebody wants the program to stop. To be asked between any two runs.
fn go_on() -> Result<()> {
    if STOPPED.load(Ordering::Relaxed) {
        bail!("stopped");
    }
    Ok(())
}
