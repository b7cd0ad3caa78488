//! The demo: a PostgreSQL cluster is backed up, lost, restored and proved equal.
//!
//! `cargo xtask demo` builds this program and the `lifeboat` command and runs it; that is how to
//! start it. It types real command lines, and everything it makes lies in one temporary directory
//! that goes at the end, however the end comes.
//!
//! ```text
//! demo LIFEBOAT MEGABYTES LOG [--tamper]
//! ```

mod command;
mod page;
mod story;
mod tables;

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use command::Log;
use story::Wish;

/// As a shell says of a program that was ended by SIGINT.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let (wish, log) = arguments(std::env::args_os().skip(1))?;
    let log = Log::create(log)?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let told = runtime.block_on(unless_stopped(story::tell(&wish, &log)));
    Ok(match told {
        Ok(Some(proof)) => {
            log.remove();
            page::line(&format!("\nIt worked: {proof}"));
            ExitCode::SUCCESS
        }
        Ok(None) => {
            log.remove();
            page::line("\nStopped. Nothing is left behind.");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            log.write(&format!("It failed: {error:#}\n"));
            page::line(&format!("\nIt FAILED: {error:#}"));
            let log = log.path().display();
            page::line(&format!("All that was said is in {log}; nothing else is left behind."));
            ExitCode::FAILURE
        }
    })
}

fn arguments(mut words: impl Iterator<Item = OsString>) -> Result<(Wish, PathBuf)> {
    const USAGE: &str = "run `cargo xtask demo`, which starts this program as it must be";
    let (lifeboat, megabytes, log) = (words.next(), words.next(), words.next());
    let (Some(lifeboat), Some(megabytes), Some(log)) = (lifeboat, megabytes, log) else {
        bail!(USAGE);
    };
    let megabytes = megabytes.to_str().and_then(|text| text.parse().ok());
    let tamper = words.next().is_some_and(|word| word == "--tamper");
    let wish = Wish { lifeboat: lifeboat.into(), megabytes: megabytes.context(USAGE)?, tamper };
    Ok((wish, log.into()))
}

/// Does the work, unless somebody stops the program. Then the work is dropped, and what it started
/// and made goes with it.
async fn unless_stopped<T>(work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    let listen = |kind| signal(kind).context("listen for signals");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
        _ = hangup.recv() => Ok(None),
        done = work => done.map(Some),
    }
}
