//! The verbs, one file each.

mod backup;
mod cat;
mod copy;
mod count;
mod data_class;
mod database;
mod diff;
mod doctor;
mod dry_run;
mod elsewhere;
mod export;
mod find;
mod follow;
mod follow_redis;
mod forget;
mod init;
mod journals;
mod key;
mod ls;
mod moment;
#[cfg(feature = "mount")]
mod mount;
mod newer;
mod pin;
mod prune;
mod recovery;
mod redis;
mod redis_keys;
mod rehearse;
mod rehearse_redis;
mod repair;
mod replica;
mod restore;
mod scratch;
mod shown;
mod snapshots;
mod stats;
mod table;
mod thaw;
mod trims;
mod two;
mod verify;
mod wal;
mod which;
mod window;

pub(crate) use self::wal::{WalService, told};
use crate::args::{Command, Redis};
use crate::exit::Exit;
use crate::failure::Failed;
use crate::session::Session;

/// Does what the command line says.
pub(crate) async fn run(command: Command, session: &Session) -> Result<Exit, Failed> {
    match command {
        Command::Init(arguments) => init::run(&arguments, session).await,
        Command::Backup(store) => backup::run(store, session).await,
        Command::Follow(store) => follow::run(store, session).await,
        Command::Snapshots(arguments) => snapshots::run(&arguments, session).await,
        Command::Ls(arguments) => ls::run(&arguments, session).await,
        Command::Find(arguments) => find::run(&arguments, session).await,
        Command::Cat(arguments) => cat::run(&arguments, session).await,
        Command::Diff(arguments) => diff::run(&arguments, session).await,
        Command::Stats(arguments) => stats::run(&arguments, session).await,
        #[cfg(feature = "mount")]
        Command::Mount(arguments) => mount::run(&arguments, session).await,
        Command::Restore(arguments) => restore::run(*arguments, session).await,
        Command::Window(arguments) => window::run(&arguments, session).await,
        Command::Export(arguments) => export::run(arguments, session).await,
        Command::Forget(arguments) => forget::run(&arguments, session).await,
        Command::Pin(arguments) => pin::pin(&arguments, session).await,
        Command::Unpin(arguments) => pin::unpin(&arguments, session).await,
        Command::Pins => pin::list(session).await,
        Command::Journals(arguments) => journals::run(&arguments, session).await,
        Command::Wal(command) => wal::run(command, session).await,
        Command::Replica(what) => replica::run(what, session).await,
        Command::Redis(Redis::Keys(arguments)) => redis_keys::run(&arguments, session).await,
        Command::Verify(arguments) => verify::run(&arguments, session).await,
        Command::Prune(arguments) => prune::run(&arguments, session).await,
        Command::DataClass(arguments) => data_class::run(&arguments, session).await,
        Command::Key(key) => key::run(key, session).await,
        Command::Copy(arguments) => copy::run(&arguments, session).await,
        Command::Repair(subject) => repair::run(subject, session).await,
        Command::Doctor { subject } => doctor::run(subject, session).await,
    }
}
