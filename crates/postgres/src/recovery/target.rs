//! Where a recovery ends.

use std::fmt;

use lifeboat_core::Timestamp;

use crate::lsn::Lsn;

/// Where a recovery ends. The names are those of PostgreSQL's `recovery_target…` settings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryTarget {
    /// At the end of all WAL that there is.
    Latest,
    /// As soon as the cluster is consistent: at the end of the base backup.
    Immediate,
    /// At a moment, by the server's clock.
    Time(Timestamp),
    /// At a position in the WAL.
    Lsn(Lsn),
    /// At the end of a transaction, by its number without the epoch.
    Xid(u32),
    /// At a point that `pg_create_restore_point` named.
    Name(String),
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the end of the WAL"),
            Self::Immediate => f.write_str("the end of the base backup"),
            Self::Time(time) => write!(f, "{time}"),
            Self::Lsn(lsn) => write!(f, "position {lsn}"),
            Self::Xid(xid) => write!(f, "transaction {xid}"),
            Self::Name(name) => write!(f, "restore point \"{}\"", name.escape_debug()),
        }
    }
}

/// Whether what stands just at the target is part of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Bound {
    /// It is: recovery stops after it.
    #[default]
    Inclusive,
    /// It is not: recovery stops before it.
    Exclusive,
}

/// What the server does when it has reached the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TargetAction {
    /// It begins a new timeline and takes writes.
    #[default]
    Promote,
    /// It answers queries and waits: `SELECT pg_wal_replay_resume()` lets it promote.
    Pause,
    /// It shuts down, so that it can be looked at or be recovered further.
    Shutdown,
}

impl TargetAction {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Pause => "pause",
            Self::Shutdown => "shutdown",
        }
    }
}

/// To which timeline a recovery goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TargetTimeline {
    /// The newest one that a base can reach.
    #[default]
    Newest,
    /// This one.
    Number(u32),
}
