//! What can stand in the way of a recovery.

use std::borrow::Cow;

use lifeboat_core::{ErrorKind, Failure, SnapshotId, Timestamp};

use crate::lsn::Lsn;

/// Why a target cannot be reached. Nothing has been touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// There is no snapshot to begin with.
    #[error("{}", no_base(chosen.as_ref()))]
    NoBase {
        /// The one that was asked for.
        chosen: Option<SnapshotId>,
    },
    /// No such timeline is known.
    #[error("the archive has no timeline {number}")]
    NoTimeline {
        /// Its number.
        number: u32,
        /// Those that there are.
        known: Vec<u32>,
    },
    /// No base lies on the way to the timeline.
    #[error("no snapshot lies on the way to timeline {number}")]
    NotOnTimeline {
        /// Its number.
        number: u32,
    },
    /// The target lies before every base.
    #[error("{target} lies before the first moment that can be recovered: {time}, {from}")]
    TooEarly {
        /// The target, in words.
        target: String,
        /// The end of the oldest base.
        from: Lsn,
        /// The same by the server's clock.
        time: Timestamp,
    },
    /// The WAL ends before the target.
    #[error("{target} cannot be reached: the WAL {}", ends(*reach, *time, *next))]
    TooLate {
        /// The target, in words.
        target: String,
        /// The end of the WAL that there is without a gap.
        reach: Lsn,
        /// When that had been written, where that is known.
        time: Option<Timestamp>,
        /// Where WAL goes on after a gap.
        next: Option<Lsn>,
    },
    /// All of the WAL was read, and the target is not in it.
    #[error("{target} is not in the WAL from {from} to {to}")]
    NotInWal {
        /// The target, in words.
        target: String,
        /// From where on it was looked for.
        from: Lsn,
        /// Up to where.
        to: Lsn,
    },
    /// A timeline came about without a word of how.
    #[error("the history file of timeline {number} is not in the archive")]
    NoHistory {
        /// Its number.
        number: u32,
    },
    /// The snapshot and the archive are of two histories with one name.
    #[error(
        "the archive has another content for {segment} than the snapshot: they are of two histories"
    )]
    OtherHistory {
        /// The segment, as the snapshot names it.
        segment: String,
    },
    /// WAL that was there when the plan was made is gone.
    #[error("the WAL from {from} to {to} is not there any more")]
    Gone {
        /// From where.
        from: Lsn,
        /// To where.
        to: Lsn,
    },
}

fn no_base(chosen: Option<&SnapshotId>) -> String {
    match chosen {
        Some(id) => format!(
            "a recovery cannot begin from snapshot {}: it is no whole backup of a cluster that says where its WAL begins",
            id.short()
        ),
        None => "there is no snapshot of the cluster from which a recovery can begin".to_owned(),
    }
}

fn ends(reach: Lsn, time: Option<Timestamp>, next: Option<Lsn>) -> String {
    let written = time.map_or(String::new(), |time| format!(", written up to {time}"));
    match next {
        None => format!("ends at {reach}{written}"),
        Some(next) => format!("has a gap from {reach}{written}, to {next}"),
    }
}

impl Failure for RecoveryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoBase { .. } | Self::NoTimeline { .. } | Self::NotOnTimeline { .. } => {
                ErrorKind::NotFound
            }
            Self::TooEarly { .. } | Self::TooLate { .. } | Self::NotInWal { .. } => {
                ErrorKind::Refused
            }
            Self::OtherHistory { .. } => ErrorKind::Refused,
            Self::NoHistory { .. } => ErrorKind::Corrupt,
            Self::Gone { .. } => ErrorKind::Unavailable,
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::NoBase { .. } => "list the snapshots with `lifeboat snapshots`".into(),
            Self::NoTimeline { known, .. } => {
                let known: Vec<_> = known.iter().map(ToString::to_string).collect();
                format!("it knows {}", known.join(", ")).into()
            }
            Self::NotOnTimeline { .. } => {
                "leave --timeline out, or see what each can be recovered to with `lifeboat window`"
                    .into()
            }
            Self::TooEarly { .. } => "choose a later moment: see `lifeboat window`".into(),
            Self::TooLate { reach, next: Some(_), .. } => format!(
                "what lies before the gap comes back with --to-lsn {reach}; see `lifeboat window`"
            )
            .into(),
            Self::TooLate { .. } => {
                "all that there is comes back with --to-latest; see `lifeboat window`".into()
            }
            Self::NotInWal { .. } => {
                "see that it is of this cluster; a moment or a position can be named instead".into()
            }
            Self::NoHistory { number } => format!(
                "bring the file in with `lifeboat wal push` from pg_wal of any server that has {number:08X}.history"
            )
            .into(),
            Self::OtherHistory { .. } => {
                "the cluster was restored in place and went on in its old timeline: this snapshot comes back by itself, without a target; name a snapshot from before that for the WAL in the archive"
                    .into()
            }
            Self::Gone { .. } => "somebody trims the journal meanwhile: try again".into(),
        })
    }
}
