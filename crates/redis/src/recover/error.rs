//! Why a moment cannot be restored.

use std::borrow::Cow;

use lifeboat_core::{ErrorKind, Failure, Timestamp};

/// The situations in which a moment cannot be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// There is no snapshot to begin with.
    #[error("no snapshot of {store} says where in the journal it is")]
    NoBase {
        /// The store.
        store: String,
    },
    /// It is before the first snapshot.
    #[error("{asked} cannot be restored: the first moment that can is {first}")]
    TooEarly {
        /// The moment.
        asked: Timestamp,
        /// The first one.
        first: Timestamp,
    },
    /// It is after the end of the journal.
    #[error("{asked} cannot be restored: the journal ends at {last}")]
    TooLate {
        /// The moment.
        asked: Timestamp,
        /// The last one.
        last: Timestamp,
    },
    /// The journal has nothing of it.
    #[error(
        "{asked} cannot be restored: the journal has nothing from {before} on until the snapshot of {after}"
    )]
    InGap {
        /// The moment.
        asked: Timestamp,
        /// The last one before it that can be.
        before: Timestamp,
        /// The first one after it.
        after: Timestamp,
    },
    /// A part of the journal is not there any more.
    #[error("read the journal: its segment {place} is gone")]
    Gone {
        /// Which one.
        place: String,
    },
    /// What the journal says does not fit what it has.
    #[error("restore the changes from {from} to {to}: they do not end with a command")]
    NoBoundary {
        /// From where on, in bytes.
        from: u64,
        /// Up to where.
        to: u64,
    },
}

impl Failure for RecoveryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoBase { .. }
            | Self::TooEarly { .. }
            | Self::TooLate { .. }
            | Self::InGap { .. } => ErrorKind::NotFound,
            Self::Gone { .. } | Self::NoBoundary { .. } => ErrorKind::Corrupt,
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::NoBase { .. } => {
                "take one with `lifeboat backup redis`, or let `lifeboat follow redis` take it".into()
            }
            Self::TooEarly { first, .. } => {
                format!("name a moment from {first} on; `lifeboat window` lists them").into()
            }
            Self::TooLate { last, .. } => format!(
                "--to-latest restores all there is, up to {last}; `lifeboat window` lists the moments"
            )
            .into(),
            Self::InGap { before, after, .. } => {
                format!("name a moment up to {before}, or from {after} on").into()
            }
            Self::Gone { .. } => "see whether something trims the journal meanwhile, and try again".into(),
            Self::NoBoundary { .. } => {
                "name an earlier moment; `lifeboat verify --every-byte` looks for damage".into()
            }
        })
    }
}
