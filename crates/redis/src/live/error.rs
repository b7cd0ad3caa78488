//! Why a snapshot does not go into a running server.

use std::borrow::Cow;

use lifeboat_core::{ErrorKind, Failure};

use super::{Doing, LiveCounts};

/// The situations in which a restore into a running server fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// The server is older than the snapshot, or of another family.
    #[error(
        "restore into {target}: it takes no values of RDB version {version} ({system}), which those of the snapshot are; {}",
        so_far(counts)
    )]
    TooNew {
        /// The server.
        target: String,
        /// The version of the snapshot's format.
        version: u32,
        /// `Redis` or `Valkey`.
        system: &'static str,
        /// What had been done: shards of a cluster may be of several versions.
        counts: Box<LiveCounts>,
    },
    /// The server is a node of a cluster, but does not say so when it is asked.
    #[error(
        "restore into {target}: it is a node of a cluster that does not let itself be known as one (HELLO); nothing was written"
    )]
    Cluster {
        /// The server.
        target: String,
    },
    /// A cluster has one database.
    #[error(
        "restore into {target}: it is a cluster, which has database 0 alone, and keys would go into database {database}; nothing was written"
    )]
    ClusterDatabase {
        /// The server.
        target: String,
        /// The number of the database.
        database: u64,
    },
    /// The server does not let one of the databases be selected that keys would go to.
    #[error("restore into {target}: nothing was written")]
    NotBegun {
        /// The server.
        target: String,
        /// Why.
        source: Box<crate::Error>,
    },
    /// It ended before all of it was done.
    #[error("restore into {target}: it ended early; {}", until(*doing, counts))]
    Stopped {
        /// The server.
        target: String,
        /// Whether anything was to be written.
        doing: Doing,
        /// What had been done.
        counts: Box<LiveCounts>,
        /// Why.
        source: Box<crate::Error>,
    },
    /// Single keys could not be written.
    #[error(
        "restore into {target}: {keys} keys were refused, the first is \"{first}\": {answer}; {}",
        besides(*doing, counts)
    )]
    Refused {
        /// The server.
        target: String,
        /// How many.
        keys: u64,
        /// The first one, escaped.
        first: String,
        /// What the server said to it.
        answer: String,
        /// Whether anything was to be written.
        doing: Doing,
        /// What was done.
        counts: Box<LiveCounts>,
    },
}

/// How far it came, and whether anything was written.
pub(super) fn until(doing: Doing, counts: &LiveCounts) -> String {
    match doing {
        Doing::Write => format!("until then: {counts}"),
        Doing::Look => format!("nothing was written; looked through until then: {}", counts.seen()),
    }
}

fn so_far(counts: &LiveCounts) -> String {
    match counts.written + counts.functions {
        0 => "nothing was written".to_owned(),
        _ => format!("until then: {counts}"),
    }
}

fn besides(doing: Doing, counts: &LiveCounts) -> String {
    match doing {
        Doing::Write => format!("besides: {counts}"),
        Doing::Look => format!("nothing was written; besides: {}", counts.seen()),
    }
}

impl Failure for LiveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TooNew { .. } | Self::Cluster { .. } | Self::ClusterDatabase { .. } => {
                ErrorKind::Unsupported
            }
            Self::NotBegun { source, .. } | Self::Stopped { source, .. } => source.kind(),
            Self::Refused { .. } => ErrorKind::Refused,
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::TooNew { .. } => {
                "name a server of the snapshot's version or a newer one, of the same family".into()
            }
            Self::Cluster { .. } => {
                "restore to a file, and start a server from it that belongs to no cluster".into()
            }
            Self::ClusterDatabase { database, .. } => {
                format!("restore database 0 alone with --db 0, or this one with --db {database}=0")
                    .into()
            }
            Self::NotBegun { source, .. } | Self::Stopped { source, doing: Doing::Look, .. } => {
                return source.hint();
            }
            Self::Stopped { source, .. } => {
                let why = source.hint().unwrap_or_default();
                format!("{why}; run it again then: what is there already stays").into()
            }
            Self::Refused { .. } => {
                "see that the server has the modules of the one that was backed up, and that its \
                 proto-max-bulk-len is as large; then run it again: what is there already stays"
                    .into()
            }
        })
    }
}
