//! What can go wrong with a scratch server.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use lifeboat_core::local::ScratchPlaceError;
use lifeboat_core::{ErrorKind, Failure};

/// Why there is no scratch server, or why it could not be examined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScratchError {
    /// There is no server on this host.
    #[error("there is no redis-server or valkey-server {}", looked(named.as_ref()))]
    NoProgram {
        /// Where it should be, if that was said.
        named: Option<PathBuf>,
    },
    /// The servers on this host are older than the snapshot.
    #[error("the snapshot is of version {needed}, and the newest server here is {}: {found}", program.display())]
    TooOld {
        /// The version of the snapshot's server.
        needed: String,
        /// The newest that there is.
        found: String,
        /// Which one.
        program: PathBuf,
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

fn looked(named: Option<&PathBuf>) -> String {
    match named {
        Some(path) => format!("at {}", path.display()),
        None => "on this host: none is on the PATH".to_owned(),
    }
}

impl Failure for ScratchError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoProgram { .. } => ErrorKind::NotFound,
            Self::TooOld { .. } => ErrorKind::Unsupported,
            Self::Place(error) => error.kind(),
            Self::Server { .. } => ErrorKind::Other,
            Self::File { source, .. } => ErrorKind::of_io(source),
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::NoProgram { .. } => {
                "install the server, or say in which directory its program is with --programs"
                    .into()
            }
            Self::TooOld { needed, .. } => {
                format!("say with --programs where a server of version {needed} or later is").into()
            }
            Self::Place(error) => return error.hint(),
            Self::Server { said, .. } if said.contains("module") => {
                "give it the modules that wrote the data with --module FILE; production was not \
                 touched"
                    .into()
            }
            Self::Server { said, .. } if said.contains("RDB format version") => {
                "say with --programs where a server of the version and family of the snapshot's \
                 is (Valkey does not read what Redis 7.4 and later write); production was not \
                 touched"
                    .into()
            }
            Self::Server { .. } => "what it said is the reason; production was not touched".into(),
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => {
                    "name a directory with more room with --scratch".into()
                }
                _ => "name another directory with --scratch".into(),
            },
        })
    }
}
