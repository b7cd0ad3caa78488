//! The verbs, one file each.

mod backup;
mod doctor;
mod init;
mod ls;
mod restore;
mod snapshots;
mod verify;
mod which;

use crate::args::Command;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::session::Session;

/// Does what the command line says.
pub(crate) async fn run(command: Command, session: &Session) -> Result<Exit, Failed> {
    match command {
        Command::Init => init::run(session).await,
        Command::Backup(store) => backup::run(store, session).await,
        Command::Snapshots(arguments) => snapshots::run(&arguments, session).await,
        Command::Ls(arguments) => ls::run(&arguments, session).await,
        Command::Restore(arguments) => restore::run(arguments, session).await,
        Command::Verify(arguments) => verify::run(&arguments, session).await,
        Command::Doctor { subject } => doctor::run(subject, session).await,
    }
}
