//! The words of a point-in-time recovery, and of what can be recovered.

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use lifeboat_postgres::{Bound, Lsn, RecoveryTarget, TargetAction, TargetTimeline};

use super::which::{StoreName, store};

/// To which moment a PostgreSQL cluster is recovered, or a Redis server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Recovery of a PostgreSQL cluster")]
pub(crate) struct Target {
    /// Recover to this moment, with its time zone: '2026-11-22 03:00:00+01', 2026-11-22T02:00:00Z.
    /// Also for Redis
    #[arg(long, value_name = "TIME", value_parser = moment, group = "target")]
    to_time: Option<Timestamp>,
    /// Recover to this position in the WAL, such as 1/6B374D48
    #[arg(long, value_name = "LSN", value_parser = lsn, group = "target")]
    to_lsn: Option<Lsn>,
    /// Recover to the end of this transaction, as pg_current_xact_id() or xmin names it
    #[arg(long, value_name = "XID", group = "target")]
    to_xid: Option<u64>,
    /// Recover to this restore point, as pg_create_restore_point() named it
    #[arg(long, value_name = "NAME", group = "target")]
    to_name: Option<String>,
    /// Recover to the end of the snapshot, and tell the server so
    #[arg(long, group = "target")]
    to_immediate: bool,
    /// Recover to the end of all WAL in the repository. Of Redis, to the end of its journal
    #[arg(long, group = "target")]
    to_latest: bool,
    /// Recover along this timeline; without it, along the newest that the snapshots lead to
    #[arg(long, value_name = "NUMBER", requires = "target")]
    timeline: Option<u32>,
    /// Stop just before the target, not just after it
    #[arg(long, requires = "target")]
    exclusive: bool,
}

/// How a PostgreSQL cluster is recovered.
#[derive(Debug, Args)]
#[command(next_help_heading = "Recovery of a PostgreSQL cluster")]
pub(crate) struct Recovery {
    #[command(flatten)]
    pub(crate) target: Target,
    /// What the server does at the target
    #[arg(long, value_enum, default_value_t = Action::Promote, requires = "target")]
    action: Action,
    /// Whence the server takes the WAL
    #[arg(long, value_enum, default_value_t = Supply::Fetch, requires = "target")]
    pub(crate) wal: Supply,
    /// Say what would be restored, from which snapshot and with which WAL, see whether the target
    /// can take it, and touch nothing. For every kind of store
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Let the cluster come up as a standby: with --primary, with the WAL in the repository, or with
    /// both
    #[arg(long, conflicts_with = "target")]
    pub(crate) as_standby: bool,
    /// How the standby reaches its primary, as primary_conninfo has it; without a password, which
    /// belongs into the file that passfile= names
    #[arg(long, value_name = "CONNINFO", requires = "as_standby")]
    pub(crate) primary: Option<String>,
    /// The slot at the primary that the standby uses
    #[arg(long, value_name = "NAME", requires = "primary")]
    pub(crate) primary_slot: Option<String>,
    /// Turn archive_mode off: for a copy beside the original, which must not write into its archive
    #[arg(long)]
    pub(crate) no_archiving: bool,
}

/// What the server does at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Begin a new timeline, and take writes
    Promote,
    /// Answer queries, and wait for `SELECT pg_wal_replay_resume()`
    Pause,
    /// Shut down
    Shutdown,
}

/// Whence the server takes the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Supply {
    /// From beside its data: all of it is fetched and checked now
    Fetch,
    /// From the repository, by `lifeboat wal get` as restore_command
    Command,
}

impl Target {
    /// The target, if there is one.
    pub(crate) fn get(&self) -> Option<RecoveryTarget> {
        let time = self.to_time.map(RecoveryTarget::Time);
        // The server counts transactions in 32 bits, and calls the rest their epoch.
        let xid = self.to_xid.map(|xid| RecoveryTarget::Xid(xid as u32));
        let name = self.to_name.clone().map(RecoveryTarget::Name);
        let word = |given: bool, target| given.then_some(target);
        time.or(self.to_lsn.map(RecoveryTarget::Lsn))
            .or(xid)
            .or(name)
            .or(word(self.to_immediate, RecoveryTarget::Immediate))
            .or(word(self.to_latest, RecoveryTarget::Latest))
    }

    /// One of its words that is for a cluster alone.
    pub(crate) fn word_for_clusters(&self) -> Option<&'static str> {
        let said = [
            (self.to_lsn.is_some(), "--to-lsn"),
            (self.to_xid.is_some(), "--to-xid"),
            (self.to_name.is_some(), "--to-name"),
            (self.to_immediate, "--to-immediate"),
            (self.timeline.is_some(), "--timeline"),
            (self.exclusive, "--exclusive"),
        ];
        said.into_iter().find_map(|(is_said, word)| is_said.then_some(word))
    }

    pub(crate) fn bound(&self) -> Bound {
        if self.exclusive { Bound::Exclusive } else { Bound::Inclusive }
    }

    pub(crate) fn timeline(&self) -> TargetTimeline {
        self.timeline.map_or(TargetTimeline::Newest, TargetTimeline::Number)
    }
}

impl Recovery {
    pub(crate) fn action(&self) -> TargetAction {
        match self.action {
            Action::Promote => TargetAction::Promote,
            Action::Pause => TargetAction::Pause,
            Action::Shutdown => TargetAction::Shutdown,
        }
    }

    /// A word beside a target that is only for a cluster.
    pub(crate) fn word_for_clusters(&self) -> Option<&'static str> {
        let Target { to_time: _, to_lsn, to_xid, to_name, to_immediate, to_latest: _, .. } =
            &self.target;
        let said = [
            (to_lsn.is_some(), "--to-lsn"),
            (to_xid.is_some(), "--to-xid"),
            (to_name.is_some(), "--to-name"),
            (*to_immediate, "--to-immediate"),
            (self.target.timeline.is_some(), "--timeline"),
            (self.target.exclusive, "--exclusive"),
            (self.action != Action::Promote, "--action"),
            (self.wal != Supply::Fetch, "--wal"),
            (self.no_archiving, "--no-archiving"),
        ];
        said.into_iter().find_map(|(is_said, word)| is_said.then_some(word))
    }

    /// The first word that is only for a cluster.
    pub(crate) fn word(&self) -> Option<&'static str> {
        if self.target.get().is_some() {
            Some("a recovery target")
        } else if self.as_standby {
            Some("--as-standby")
        } else {
            self.no_archiving.then_some("--no-archiving")
        }
    }
}

/// A moment. One without its zone could be an hour off, so it is refused.
fn moment(text: &str) -> Result<Timestamp, String> {
    let text = text.trim();
    let timestamp = || text.parse::<Timestamp>().ok();
    let zoned = || text.parse::<jiff::Zoned>().ok().map(|zoned| zoned.timestamp());
    timestamp().or_else(zoned).ok_or_else(|| {
        "write the moment with its time zone: '2026-11-22 03:00:00+01', 2026-11-22T02:00:00Z, or \
         2026-11-22T03:00:00[Europe/Berlin]"
            .to_owned()
    })
}

fn lsn(text: &str) -> Result<Lsn, String> {
    text.parse().map_err(|why: String| format!("{why}: it looks like 1/6B374D48"))
}

#[derive(Debug, Args)]
pub(crate) struct Window {
    /// Only this store, such as postgres/shop; its name alone when no other has it
    #[arg(long, value_name = "KIND/NAME", value_parser = store)]
    pub(crate) store: Option<StoreName>,
}

pub(super) const WINDOW: &str = "\
For each PostgreSQL cluster and each Redis server with snapshots: from when to when it can be
recovered, along which timeline or replication id, from how many snapshots, and what is missing of its
journal. A cluster whose WAL is not archived, and a server that is not followed, can be recovered to
the moments of its snapshots alone. See docs/postgres-recovery.md and docs/redis.md.

Exit codes:
  0  no gap is known in a journal; between two windows, nothing can be recovered
  3  something is missing

Examples:
  lifeboat window
  lifeboat window --store postgres/shop --json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_a_zone() {
        let utc: Timestamp = "2026-11-22T02:00:00Z".parse().unwrap();
        for text in [
            "2026-11-22T02:00:00Z",
            "2026-11-22 02:00:00Z",
            "2026-11-22 03:00:00+01",
            "2026-11-22 03:00:00+01:00",
            "2026-11-22T03:00:00[Europe/Berlin]",
        ] {
            assert_eq!(moment(text), Ok(utc), "{text}");
        }
        for bad in ["", "2026-11-22", "2026-11-22 02:00:00", "yesterday", "02:00Z"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
