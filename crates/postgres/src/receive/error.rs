//! What can go wrong with WAL that is received.

use std::borrow::Cow;

use lifeboat_core::{ErrorKind, Failure};

use crate::archive::WalLine;
use crate::lsn::Lsn;

/// The situations in which received WAL cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The server left something out, or sent something twice.
    #[error("receive WAL: the server sends {found} where {expected} must follow")]
    NotContiguous {
        /// What must follow.
        expected: Lsn,
        /// What came.
        found: Lsn,
    },
    /// A page says that it is another one.
    #[error("receive WAL of the timeline {line}: {why}")]
    NotItsPlace {
        /// The timeline.
        line: WalLine,
        /// What is wrong with it.
        why: String,
    },
    /// The server has other WAL in a place that was archived already.
    #[error(
        "receive WAL of the timeline {line}: what the server has from {from} to {to} is not what was archived there"
    )]
    Differs {
        /// The timeline.
        line: WalLine,
        /// From where on it was compared.
        from: Lsn,
        /// Up to where.
        to: Lsn,
    },
    /// The repository took too long for one piece.
    #[error("append WAL from {from} to {to}: not durable within {seconds} s")]
    Slow {
        /// From where.
        from: Lsn,
        /// To where.
        to: Lsn,
        /// How long was waited.
        seconds: u64,
    },
    /// The server goes on from another position than it ended at.
    #[error("the timeline {line} ended at {end}, and the server goes on from {next}")]
    Fork {
        /// The timeline that ended.
        line: WalLine,
        /// Where it ended.
        end: Lsn,
        /// Where the next one begins.
        next: Lsn,
    },
    /// The server's slot cannot be used.
    #[error("the replication slot {slot} cannot be read: there is none although it was made")]
    NoSlot {
        /// The slot.
        slot: String,
    },
}

impl Failure for ReceiveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Slow { .. } | Self::NoSlot { .. } => ErrorKind::Unavailable,
            Self::Differs { .. } => ErrorKind::AlreadyExists,
            Self::NotContiguous { .. } | Self::NotItsPlace { .. } | Self::Fork { .. } => {
                ErrorKind::Corrupt
            }
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::Slow { .. } => "nothing was acknowledged; see that the repository answers".into(),
            Self::Differs { .. } => {
                "two servers write the same timeline: see which one is right, and follow the other under a --name of its own".into()
            }
            Self::NoSlot { .. } => "see who drops the slot".into(),
            Self::NotContiguous { .. } | Self::NotItsPlace { .. } | Self::Fork { .. } => {
                "nothing of it was acknowledged; it is received again from the last durable position".into()
            }
        })
    }
}
