//! SIGINT and SIGTERM: the first asks to stop, the second does not ask.

use std::io;
use std::process;

use lifeboat_core::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;
use crate::output::Output;

/// Cancels `context` at the first signal, and ends the process at the second.
///
/// Both are safe for the repository: what is not committed counts as not there. The first lets a
/// server leave its backup mode in order, and removes what a restore has begun.
pub(crate) fn watch(context: Context, output: Output) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut first = true;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if !first {
                process::exit(Exit::Interrupted.code().into());
            }
            first = false;
            output.note("stopping; once more to stop at once");
            context.cancel();
        }
    });
    Ok(())
}
