//! Why a standby is not promoted.

use std::borrow::Cow;

use lifeboat_core::{ErrorKind, Failure};

use crate::lsn::Lsn;

/// Why a standby is not promoted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// It is a primary already.
    #[error("promote {server}: it is no standby, it takes writes")]
    NoStandby {
        /// Which server.
        server: String,
    },
    /// Nothing was replayed on it yet.
    #[error(
        "promote {server}: it has received WAL up to {received}, and replayed up to {replayed}"
    )]
    Replaying {
        /// Which server.
        server: String,
        /// What it has.
        received: Lsn,
        /// What it has replayed.
        replayed: Lsn,
    },
    /// The primary has WAL that the standby does not have.
    #[error(
        "promote {server}: the primary {primary} has WAL up to {current}, the standby up to {replayed}"
    )]
    Behind {
        /// Which server.
        server: String,
        /// The primary.
        primary: String,
        /// The end of its WAL.
        current: Lsn,
        /// What the standby has replayed.
        replayed: Lsn,
    },
    /// The primary still takes writes.
    #[error("promote {server}: the primary {primary} still takes writes")]
    PrimaryLives {
        /// Which server.
        server: String,
        /// The primary.
        primary: String,
    },
    /// Nobody knows whether the primary takes writes.
    #[error("promote {server}: nobody says that the primary takes no writes any more")]
    NotFenced {
        /// Which server.
        server: String,
        /// Why it could not be asked; empty when it was not named.
        why: String,
    },
    /// The two are not of one cluster.
    #[error("promote {server}: it is of the system {own}, and {primary} of the system {other}")]
    OtherSystem {
        /// Which server.
        server: String,
        /// Its system identifier.
        own: u64,
        /// The other server.
        primary: String,
        /// Its system identifier.
        other: u64,
    },
    /// It was told to, and did not.
    #[error("promote {server}: it was told to, and still recovers after {seconds} s")]
    NotPromoted {
        /// Which server.
        server: String,
        /// How long was waited.
        seconds: u64,
    },
}

impl Failure for ReplicaError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotPromoted { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::Refused,
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::NoStandby { .. } => "connect to the standby".into(),
            Self::Replaying { .. } => {
                "wait until it has replayed the rest, and try again; SELECT pg_wal_replay_resume() if it is paused".into()
            }
            Self::Behind { .. } => {
                "stop writes at the primary, let the standby catch up, and try again; or, to lose what it lacks, stop the primary and leave --primary out".into()
            }
            Self::PrimaryLives { .. } => {
                "stop the primary, or keep everybody away from it, and try again; two primaries are two histories".into()
            }
            Self::NotFenced { why, .. } if why.is_empty() => {
                "name the primary with --primary, so that it can be asked; or make sure that it is off, and say so with --fenced".into()
            }
            Self::NotFenced { why, .. } => format!(
                "it could not be asked ({why}), which proves nothing: make sure that it is off, and say so with --fenced"
            )
            .into(),
            Self::OtherSystem { .. } => "one of the two connections is wrong".into(),
            Self::NotPromoted { .. } => "see its log; it may be at it still".into(),
        })
    }
}
