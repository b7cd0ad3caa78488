//! What replication slots and WAL senders mean for the server's disk, and for following it.

use lifeboat_core::{Finding, Severity};

use crate::connect::Session;
use crate::error::{Error, Result};

const WHAT: &str = "ask the server about its replication slots";

/// So much WAL for nobody is worth a warning.
const MUCH: i64 = 1 << 30;

/// A slot that outlives its session.
#[derive(Debug, Clone)]
struct Slot {
    name: String,
    active: bool,
    /// Its WAL has been removed.
    lost: bool,
    /// Bytes of WAL that the server keeps for it.
    kept: i64,
}

/// What was asked.
#[derive(Debug, Clone)]
struct Slots {
    slots: Vec<Slot>,
    unlimited: bool,
    senders_left: i64,
    senders_limit: i64,
}

/// What is to be said of slots and senders.
pub(super) async fn findings(session: &Session) -> Result<Vec<Finding>> {
    Ok(Slots::ask(session).await?.judge())
}

impl Slots {
    async fn ask(session: &Session) -> Result<Self> {
        let bad =
            |error: tokio_postgres::Error| Error::Answer { what: WHAT, why: error.to_string() };
        let statement = "SELECT current_setting('max_slot_wal_keep_size') = '-1',
                current_setting('max_wal_senders')::bigint
                    - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'),
                current_setting('max_wal_senders')::bigint";
        let row = session.one(WHAT, statement, &[]).await?;
        let mut all = Self {
            slots: Vec::new(),
            unlimited: row.try_get(0).map_err(bad)?,
            senders_left: row.try_get(1).map_err(bad)?,
            senders_limit: row.try_get(2).map_err(bad)?,
        };
        let statement = "SELECT slot_name::text, active, coalesce(wal_status = 'lost', false),
                coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery()
                    THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                    restart_lsn), 0)::bigint
            FROM pg_replication_slots WHERE NOT temporary ORDER BY slot_name";
        for row in session.all(WHAT, statement, &[]).await? {
            all.slots.push(Slot {
                name: row.try_get(0).map_err(bad)?,
                active: row.try_get(1).map_err(bad)?,
                lost: row.try_get(2).map_err(bad)?,
                kept: row.try_get(3).map_err(bad)?,
            });
        }
        Ok(all)
    }

    fn judge(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut find = |severity, code: &str, what: String, remedy: String| {
            found.push(Finding::new(severity, code, what, remedy));
        };
        for Slot { name, active, lost, kept } in &self.slots {
            let drop = format!("SELECT pg_drop_replication_slot('{name}');");
            if *lost {
                let what = format!(
                    "the replication slot {name} was too far behind, and the server has removed its WAL"
                );
                find(
                    Severity::Warning,
                    "slot_lost",
                    what,
                    format!("{drop} and take a new base backup"),
                );
            } else if !active && *kept > MUCH {
                let what = format!(
                    "the replication slot {name}, which nobody uses now, makes the server keep {} MiB of WAL",
                    kept >> 20
                );
                let remedy = format!("start what uses it (lifeboat follow postgres), or {drop}");
                find(Severity::Warning, "slot_unused", what, remedy);
            }
        }
        if self.unlimited && !self.slots.is_empty() {
            let what =
                "a replication slot can fill the server's disk with WAL while what uses it is away";
            let remedy = "ALTER SYSTEM SET max_slot_wal_keep_size = '…'; SELECT pg_reload_conf();";
            find(Severity::Note, "slots_unlimited", what.to_owned(), remedy.to_owned());
        }
        if self.senders_left < 1 {
            let what =
                "no WAL sender is free: the server cannot be followed (lifeboat follow postgres)";
            let remedy = format!(
                "ALTER SYSTEM SET max_wal_senders = {}; then restart the server",
                self.senders_limit + 5
            );
            find(Severity::Note, "wal_senders_taken", what.to_owned(), remedy);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(slots: &[(bool, bool, i64)], unlimited: bool, senders_left: i64) -> Vec<String> {
        let slot = |(number, (active, lost, kept)): (usize, &(bool, bool, i64))| Slot {
            name: format!("slot{number}"),
            active: *active,
            lost: *lost,
            kept: *kept,
        };
        let slots = slots.iter().enumerate().map(slot).collect();
        let all = Slots { slots, unlimited, senders_left, senders_limit: 10 };
        all.judge().into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn only_what_is_wrong_is_said() {
        assert!(codes(&[], true, 10).is_empty());
        assert!(codes(&[(true, false, 2 << 30), (false, false, 1000)], false, 1).is_empty());
        assert_eq!(codes(&[(false, false, 2 << 30)], false, 1), ["slot_unused"]);
        assert_eq!(codes(&[(false, true, 0)], false, 1), ["slot_lost"]);
        assert_eq!(codes(&[(true, false, 0)], true, 0), ["slots_unlimited", "wal_senders_taken"]);
    }
}
