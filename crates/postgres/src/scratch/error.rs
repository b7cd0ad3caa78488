//! What can go wrong with a scratch server.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use lifeboat_core::local::ScratchPlaceError;
use lifeboat_core::{ErrorKind, Failure};

/// Why there is no scratch server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScratchError {
    /// The snapshot does not say of which version its server was.
    #[error("the snapshot does not say the version of its server")]
    NoVersion,
    /// The programs of that version are not on this host.
    #[error("there is no PostgreSQL {major} on this host{}", looked(looked_in))]
    NoPrograms {
        /// The major version.
        major: u32,
        /// Where they were looked for.
        looked_in: Vec<PathBuf>,
    },
    /// Root cannot run a server, and the account that should does not exist.
    #[error("no server runs as root, and there is no account {name} to run it")]
    NoAccount {
        /// The account.
        name: String,
    },
    /// There is no place for it.
    #[error(transparent)]
    Place(#[from] ScratchPlaceError),
    /// The server did not come up.
    #[error("the scratch server {what}; it said: {said}")]
    Server {
        /// What it did.
        what: String,
        /// The end of its log.
        said: String,
    },
    /// A file or directory of its own could not be worked with.
    #[error("{what} {}", path.display())]
    File {
        /// What was being done.
        what: &'static str,
        /// To which one.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn looked(directories: &[PathBuf]) -> String {
    let shown: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
    if shown.is_empty() { String::new() } else { format!(": not in {}", shown.join(", ")) }
}

impl Failure for ScratchError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoVersion => ErrorKind::InvalidInput,
            Self::NoPrograms { .. } | Self::NoAccount { .. } => ErrorKind::NotFound,
            Self::Place(error) => error.kind(),
            Self::Server { .. } => ErrorKind::Other,
            Self::File { source, .. } => ErrorKind::of_io(source),
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::NoVersion => "take a snapshot with this version of the program".into(),
            Self::NoPrograms { major, .. } => format!(
                "install the server of PostgreSQL {major}, or say where its programs are with --programs"
            )
            .into(),
            Self::NoAccount { .. } => "name another account with --account, or run as one".into(),
            Self::Place(error) => return error.hint(),
            Self::Server { .. } => {
                "what it said is the reason; production was not touched".into()
            }
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => "name a directory with more room with --scratch".into(),
                _ => "name another directory with --scratch".into(),
            },
        })
    }
}
