//! What can go wrong with a base backup over the network.

use std::borrow::Cow;
use std::sync::Arc;

use lifeboat_core::{ErrorKind, Failure};

use crate::lsn::Lsn;
use crate::replication::ReplicationError;

/// A result whose error is [`BaseBackupError`].
pub(super) type Result<T, E = BaseBackupError> = std::result::Result<T, E>;

/// The situations in which a base backup over the network fails. None of them leaves a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaseBackupError {
    /// The connection, or what the server answered.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// A version of which no base backup is known to be right.
    #[error("PostgreSQL {found} cannot be backed up over the network: it must be 15 to 18")]
    Version {
        /// What the server calls itself.
        found: String,
    },
    /// An archive that the server sent is none of its own.
    #[error("receive the base backup: the archive {archive} cannot be understood: {why}")]
    Archive {
        /// Which one.
        archive: String,
        /// What is wrong with it.
        why: String,
    },
    /// What arrived is not what the server says that it sent.
    #[error("check the base backup: the server's manifest does not agree with what arrived: {why}")]
    Manifest {
        /// What is wrong.
        why: String,
    },
    /// A file without which no cluster can be restored did not come, or cannot be understood.
    #[error("check the base backup: {file} {why}")]
    File {
        /// Which one.
        file: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// WAL that the backup needs did not come.
    #[error("check the base backup: the WAL segment {segment} did not come")]
    WalMissing {
        /// The segment's file name.
        segment: String,
    },
    /// A WAL segment is not what its name says.
    #[error("check the base backup: the WAL segment {segment} is not what its name says: {why}")]
    WalDamaged {
        /// The segment's file name.
        segment: String,
        /// What is wrong with it.
        why: String,
    },
    /// The checkpoint with which the backup begins is not where it should be.
    #[error("check the base backup: its WAL has no checkpoint at {at}: {why}")]
    Checkpoint {
        /// Where it should be.
        at: Lsn,
        /// What is there.
        why: String,
    },
    /// The server followed another timeline at the end than at the beginning.
    #[error("the server's timeline changed during the backup, from {from} to {to}")]
    TimelineChanged {
        /// At the beginning.
        from: u32,
        /// At the end.
        to: u32,
    },
    /// The server's position moved backwards.
    #[error("the backup ends at {stop}, and not after its start at {start}")]
    Backwards {
        /// Where it started.
        start: Lsn,
        /// Where it stopped.
        stop: Lsn,
    },
    /// The reading was finished before all of it was read.
    #[error("the backup was ended before everything was read")]
    Unfinished,
    /// What ended the stream, for everybody who waits for something of it.
    #[error(transparent)]
    Earlier(Arc<BaseBackupError>),
}

impl BaseBackupError {
    /// Whether it is the server that refused what it was asked.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Replication(error) if error.code().is_some())
    }
}

impl Failure for BaseBackupError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Replication(error) => error.kind(),
            Self::Version { .. } => ErrorKind::Unsupported,
            Self::Archive { .. }
            | Self::Manifest { .. }
            | Self::File { .. }
            | Self::WalDamaged { .. }
            | Self::Checkpoint { .. }
            | Self::Backwards { .. } => ErrorKind::Corrupt,
            Self::WalMissing { .. } | Self::TimelineChanged { .. } => ErrorKind::Unavailable,
            Self::Unfinished => ErrorKind::Other,
            Self::Earlier(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::Replication(error) => return error.hint(),
            Self::Version { .. } => {
                "run the backup on the server's own host, or use a release of Lifeboat that knows this version".into()
            }
            Self::Archive { .. } | Self::Manifest { .. } => {
                "no snapshot was made; see that nothing between here and the server changes what it sends, and run the backup again".into()
            }
            Self::File { .. } | Self::Checkpoint { .. } | Self::Backwards { .. } => {
                "no snapshot was made; see the server's log, and run the backup again".into()
            }
            Self::WalMissing { .. } => {
                "leave a replication slot free, so that the server keeps its WAL during a backup; or raise wal_keep_size or max_slot_wal_keep_size".into()
            }
            Self::WalDamaged { .. } => {
                "no snapshot was made; check the server's disk, and run the backup again".into()
            }
            Self::TimelineChanged { .. } => {
                "no snapshot was made, since another server was promoted meanwhile; run the backup again".into()
            }
            Self::Unfinished => return None,
            Self::Earlier(error) => return error.hint(),
        })
    }
}
