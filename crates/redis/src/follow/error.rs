//! What can go wrong while a server is followed.

use std::borrow::Cow;

use lifeboat_core::{ErrorKind, Failure};

/// The situations in which following a server fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The journal holds something else in the place of what was received.
    #[error(
        "{journal} holds other changes from {from} to {to} of the history {replication_id} than the server sent"
    )]
    Differs {
        /// The journal.
        journal: String,
        /// The history, by its replication id.
        replication_id: String,
        /// From where on, in bytes.
        from: u64,
        /// Up to where.
        to: u64,
    },
    /// The name is that of another server.
    #[error(
        "{store} has the changes of the server {known}, and this is {found}, which does not go on from them"
    )]
    OtherServer {
        /// The store.
        store: String,
        /// Where the other one was reached.
        known: String,
        /// Where this one is.
        found: String,
    },
    /// The server's history ends before what the journal has of it.
    #[error(
        "the server is at {offset} of its history {replication_id}, and the journal has it up to {kept}"
    )]
    Behind {
        /// The history, by its replication id.
        replication_id: String,
        /// Where the server is, in bytes.
        offset: u64,
        /// Where the journal ends.
        kept: u64,
    },
    /// The server goes on as a history that the journal has from elsewhere.
    #[error("the server went on as the history {replication_id}, which the journal has already")]
    KnownHistory {
        /// The history, by its replication id.
        replication_id: String,
    },
    /// The snapshot from which the journal counts was not finished.
    #[error("the snapshot with which the journal begins ended before all of it had come")]
    BaseEnded,
}

impl Failure for FollowError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Differs { .. } => ErrorKind::AlreadyExists,
            Self::OtherServer { .. } => ErrorKind::Refused,
            Self::Behind { .. } | Self::KnownHistory { .. } | Self::BaseEnded => {
                ErrorKind::Unavailable
            }
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::Differs { .. } => {
                "two servers are followed under one name, or one was set back without getting a \
                 new replication id: follow each under a name of its own"
                    .into()
            }
            Self::OtherServer { .. } => {
                "follow it under a --name of its own; if it has taken the other one's place, say \
                 --adopt"
                    .into()
            }
            Self::Behind { .. } => {
                "a replica that lags behind catches up; of two servers, name the one that is ahead"
                    .into()
            }
            Self::KnownHistory { .. } => "a new snapshot is taken".into(),
            Self::BaseEnded => "it is taken once more".into(),
        })
    }
}
