//! What can go wrong with a file tree.

use std::borrow::Cow;

use lifeboat_core::{EntryPath, ErrorKind, Failure};

use crate::marker::MARKER;

/// What stands in the way of reading or restoring a file tree. Errors of the operating system
/// come as [`lifeboat_core::Error`], with the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tree to be read is what an unfinished restore left.
    #[error("{path} holds an unfinished restore")]
    SourceUnfinished {
        /// The tree.
        path: String,
    },
    /// The target of a restore holds something.
    #[error("restore into {path}: it is not empty, \"{found}\" is in it")]
    NotEmpty {
        /// The target.
        path: String,
        /// One of the things in it.
        found: String,
    },
    /// The target of a restore holds what an earlier restore left unfinished.
    #[error("restore into {path}: an earlier restore into it did not finish")]
    TargetUnfinished {
        /// The target.
        path: String,
    },
    /// Another restore into the same target is running.
    #[error("restore into {path}: another restore into it is running")]
    Busy {
        /// The target.
        path: String,
    },
    /// A snapshot has an entry with a name that restores need for themselves.
    #[error("restore {path}: this name is reserved for unfinished restores")]
    Reserved {
        /// The entry.
        path: EntryPath,
    },
    /// An entry lacks what its kind needs.
    #[error("restore {path}: the snapshot does not say where the link points")]
    NoTarget {
        /// The entry.
        path: EntryPath,
    },
    /// A hard link names something that cannot be a path.
    #[error("restore {path}: the hard link's target is no path of an entry")]
    BadTarget {
        /// The entry.
        path: EntryPath,
        /// What is wrong with it.
        source: lifeboat_core::Error,
    },
    /// A hard link cannot be made.
    #[error("restore {path}, a hard link to {target}")]
    Link {
        /// The entry.
        path: EntryPath,
        /// What it is to be another name of.
        target: EntryPath,
        /// Why not.
        source: lifeboat_core::Error,
    },
    /// An entry of a kind that a file system does not have.
    #[error("restore {path}: a file system has no {kind}")]
    Kind {
        /// The entry.
        path: EntryPath,
        /// Its kind.
        kind: &'static str,
    },
    /// The notes on what is left to be done at the end of a restore are damaged.
    #[error("finish the restore into {path}: its notes in {MARKER} were changed by somebody else")]
    Notes {
        /// The target.
        path: String,
    },
    /// The restore was given up already.
    #[error("restore into {path}: it was given up")]
    Ended {
        /// The target.
        path: String,
    },
}

impl Failure for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Reserved { .. } => ErrorKind::InvalidInput,
            Self::SourceUnfinished { .. }
            | Self::NotEmpty { .. }
            | Self::TargetUnfinished { .. }
            | Self::Busy { .. } => ErrorKind::Refused,
            Self::NoTarget { .. } | Self::BadTarget { .. } | Self::Notes { .. } => {
                ErrorKind::Corrupt
            }
            Self::Link { source, .. } => match source.kind() {
                ErrorKind::NotFound => ErrorKind::Corrupt,
                other => other,
            },
            Self::Kind { .. } => ErrorKind::Unsupported,
            Self::Ended { .. } => ErrorKind::Cancelled,
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        let text = match self {
            Self::SourceUnfinished { .. } => {
                "run the restore again until it succeeds; a backup of half a tree would look whole"
            }
            Self::NotEmpty { .. } => {
                "restore into an empty directory, or replace what is there (`Existing::Replace`)"
            }
            Self::TargetUnfinished { .. } => {
                "remove what it left, or replace what is there (`Existing::Replace`)"
            }
            Self::Busy { .. } => "wait for it, or restore into another directory",
            Self::Reserved { .. } => "restore the entries beside it by themselves",
            Self::NoTarget { .. } | Self::BadTarget { .. } => {
                "the snapshot was not made by this program, or was damaged before it was sealed; verify it"
            }
            Self::Link { source, .. } if source.kind() == ErrorKind::NotFound => {
                "restore the entry that it names as well"
            }
            Self::Link { source, .. } => return source.hint().map(|hint| hint.to_owned().into()),
            Self::Notes { .. } => "run the restore again, into an empty directory",
            Self::Kind { .. } | Self::Ended { .. } => return None,
        };
        Some(text.into())
    }
}
