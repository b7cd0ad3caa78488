//! What keeps snapshots from being mounted.

use std::borrow::Cow;
use std::io;

use lifeboat_core::{ErrorKind, Failure};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What keeps snapshots from being mounted, or from being unmounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The place is no directory.
    #[error("mount on {place}: it is no directory")]
    NoDirectory {
        /// The place.
        place: String,
    },
    /// The system refused.
    #[error("mount on {place}")]
    Mount {
        /// The place.
        place: String,
        /// What it said.
        source: io::Error,
    },
    /// The mount could not be taken away.
    #[error("unmount {place}")]
    Unmount {
        /// The place.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// Serving the mount ended with an error.
    #[error("serve the mount on {place}")]
    Serve {
        /// The place.
        place: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The snapshots cannot be listed.
    #[error(transparent)]
    Repository(#[from] lifeboat_repository::Error),
}

impl Failure for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoDirectory { .. } => ErrorKind::NotFound,
            Self::Mount { source, .. }
            | Self::Unmount { source, .. }
            | Self::Serve { source, .. } => ErrorKind::of_io(source),
            Self::Repository(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        let text = match self {
            Self::NoDirectory { .. } => "make an empty directory there",
            Self::Mount { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "install the package fuse3, and see that the kernel has /dev/fuse (modprobe fuse)"
            }
            Self::Mount { .. } => {
                "see that this user owns the directory and may open /dev/fuse; for other users to \
                 be let in, /etc/fuse.conf must say user_allow_other"
            }
            Self::Unmount { .. } => {
                "close what is open beneath it, then run `fusermount3 -u` on it"
            }
            Self::Serve { .. } => return None,
            Self::Repository(error) => return error.hint(),
        };
        Some(text.into())
    }
}
