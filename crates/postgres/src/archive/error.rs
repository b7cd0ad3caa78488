//! What can go wrong with an archive of WAL.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use lifeboat_core::{ErrorKind, Failure};

use super::WalLine;
use crate::lsn::Lsn;

/// The situations in which WAL cannot be archived, or not be given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The file that is to be archived, or that is asked for, has a name that the server never
    /// gives.
    #[error("\"{name}\" is not the name of a file that PostgreSQL archives")]
    Name {
        /// The name, escaped.
        name: String,
    },
    /// The content is of another segment, or of another cluster, than the name says.
    #[error("{} is not what its name says: {why}", path.display())]
    NotItsName {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The journal belongs to another cluster.
    #[error(
        "the journal {journal} holds the WAL of the system {known}, and this is the system {found}"
    )]
    OtherSystem {
        /// The journal.
        journal: String,
        /// The system identifiers that it knows.
        known: String,
        /// The one that is new to it.
        found: u64,
    },
    /// Nothing of this cluster was ever archived here.
    #[error("the journal {journal} holds no WAL of the system {system_id}")]
    Unknown {
        /// The journal.
        journal: String,
        /// The system identifier.
        system_id: u64,
    },
    /// Nobody could tell where the timeline comes from.
    #[error("archive WAL of the timeline {line}: its history is not known")]
    NoHistory {
        /// The timeline.
        line: WalLine,
    },
    /// A history file makes no sense.
    #[error("the history file {name} cannot be understood: {why}")]
    History {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The timeline is known with another history.
    #[error("the history file {name} is archived with another content")]
    HistoryDiffers {
        /// Its name.
        name: String,
    },
    /// There is later WAL, and this is missing.
    #[error("the archive has no {name}, but WAL that comes after it, from {next} on")]
    Gap {
        /// The file that is missing.
        name: String,
        /// Where the later WAL begins.
        next: Lsn,
    },
    /// What was given back is shorter or longer than it must be.
    #[error("{name} has {found} bytes in the archive, and must have {expected}")]
    Length {
        /// Its name.
        name: String,
        /// What it must have.
        expected: u64,
        /// What it has.
        found: u64,
    },
    /// A file cannot be read or written.
    #[error("{what} {}", path.display())]
    File {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A thread of ours panicked.
    #[error("work on the archive panicked")]
    Panicked {
        /// With what.
        source: tokio::task::JoinError,
    },
}

impl ArchiveError {
    pub(crate) fn name(name: &str) -> Self {
        Self::Name { name: name.chars().take(100).flat_map(char::escape_debug).collect() }
    }
}

impl Failure for ArchiveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Name { .. } => ErrorKind::InvalidInput,
            Self::NotItsName { .. } | Self::History { .. } | Self::Length { .. } => {
                ErrorKind::Corrupt
            }
            Self::OtherSystem { .. } | Self::Unknown { .. } | Self::NoHistory { .. } => {
                ErrorKind::Refused
            }
            Self::Gap { .. } => ErrorKind::Refused,
            Self::HistoryDiffers { .. } => ErrorKind::AlreadyExists,
            Self::File { source, .. } => ErrorKind::of_io(source),
            Self::Panicked { .. } => ErrorKind::Other,
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::Name { .. } => {
                "give the command %p and %f as PostgreSQL fills them in, without quotes of its own".into()
            }
            Self::NotItsName { .. } => {
                "nothing was archived; see that it comes from the data directory of this server, and check its disk".into()
            }
            Self::OtherSystem { .. } => {
                "give this cluster a --name of its own; or, when it takes the other one's place (after pg_upgrade, say), run `lifeboat wal adopt` once in its data directory".into()
            }
            Self::Unknown { .. } => {
                "see that --name and --repo are those with which its WAL was archived".into()
            }
            Self::NoHistory { line } => format!(
                "put the history file {} into pg_wal of the server, from any server that has it, and let it try again",
                super::TimelineHistory::name_of(line.timeline)
            )
            .into(),
            Self::History { .. } => {
                "take the file from another server of the same cluster; the reason stands in its log".into()
            }
            Self::HistoryDiffers { .. } => {
                "two servers were promoted to the same timeline: archive the WAL of one of them under a --name of its own".into()
            }
            Self::Gap { .. } => {
                "recovery would end here and lose what comes later: choose a later snapshot to restore, or a recovery target before this; or give --at-gap end to end here on purpose".into()
            }
            Self::Length { .. } => "run `lifeboat verify`; another copy of the repository may have it".into(),
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => "free some space; it is tried again".into(),
                io::ErrorKind::PermissionDenied => {
                    "run as the account that the server runs under".into()
                }
                io::ErrorKind::NotFound => {
                    "PostgreSQL runs the command in the data directory: name that with --data-directory when running it elsewhere".into()
                }
                _ => return None,
            },
            Self::Panicked { .. } => return None,
        })
    }
}
