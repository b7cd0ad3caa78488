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
    let told = runtime.block_on(async { unless_stopped(story::tell(&wish, &log)).await });
    Ok(match told {
        None => {
            log.remove();
            page::line("\nStopped. Nothing is left behind.");
            ExitCode::from(INTERRUPTED)
        }
        Some(Ok(proof)) => {
            log.remove();
            page::line(&format!("\nIt worked: {proof}"));
            ExitCode::SUCCESS
        }
        Some(Err(error)) => {
            log.write(&format!("\n{error:?}\n"));
            page::line(&format!("\nIt FAILED: {error:#}"));
            page::line(&format!(
                "Everything that was said is in {}; nothing else is left behind.",
                log.path().display()
            ));
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
    let wish = Wish {
        lifeboat: lifeboat.into(),
        megabytes: megabytes.context(USAGE)?,
        tamper,
    };
    Ok((wish, log.into()))
}

/// Does the work, unless somebody stops the program. Then the work is dropped, and what it started
/// and made goes with it.
async fn unless_stopped<T>(work: impl Future<Output = Result<T>>) -> Option<Result<T>> {
    let listen = || {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        kinds
            .map(signal)
            .into_iter()
            .collect::<std::io::Result<Vec<_>>>()
    };
    let mut signals = match listen().context("listen for signals") {
        Ok(signals) => signals,
        Err(error) => return Some(Err(error)),
    };
    let [interrupt, terminate, hangup] = signals.as_mut_slice() else {
        return None;
    };
    tokio::select! {
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        _ = hangup.recv() => None,
        done = work => Some(done),
    }
}
