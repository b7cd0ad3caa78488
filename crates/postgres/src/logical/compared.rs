//! How what was restored differs from the database whose place it takes.
//!
//! The snapshot is what was asked for, and is compared by digests. This tells what the change means:
//! which tables are only on one side, and where the numbers of rows differ. It refuses nothing: the
//! database that is there may be the one that is broken. So each table is counted by itself, as of
//! its own moment, and one that cannot be counted is told of.

use std::collections::BTreeMap;

use lifeboat_core::{Attributes, Context};

use super::catalog::{self, Extension};
use super::error::Result;
use super::moment::SETTINGS;
use super::name::TableName;
use super::restore::DatabaseRestoreOptions;
use crate::connect::{Session, failed};

/// So many tables are named; the others are counted.
const NAMED: usize = 50;

/// How long to wait for a table that somebody has locked.
const LOCK_LIMIT: &str = "SET lock_timeout = '10s'; SET default_transaction_read_only = on;";

/// What was found of a table in the one database and in the other.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Alike,
    Differ { restored: u64, live: u64 },
    OnlyRestored(u64),
    OnlyLive(u64),
    NotCounted(String),
}

impl Found {
    fn of(restored: Option<u64>, live: Option<Result<u64, String>>) -> Self {
        match (restored, live) {
            (_, Some(Err(why))) => Self::NotCounted(why),
            (Some(restored), Some(Ok(live))) if restored == live => Self::Alike,
            (Some(restored), Some(Ok(live))) => Self::Differ { restored, live },
            (Some(restored), None) => Self::OnlyRestored(restored),
            (None, Some(Ok(live))) => Self::OnlyLive(live),
            (None, None) => Self::Alike,
        }
    }

    /// For people; `None` when there is nothing to say.
    fn told(&self) -> Option<String> {
        Some(match self {
            Self::Alike => return None,
            Self::Differ { restored, live } => {
                format!("{restored} rows restored, and {live} in the database that is there")
            }
            Self::OnlyRestored(rows) => {
                format!("{rows} rows restored; the database that is there has no such table")
            }
            Self::OnlyLive(rows) => {
                format!("{rows} rows in the database that is there; the snapshot has none of them")
            }
            Self::NotCounted(why) => {
                format!("it cannot be counted in the database that is there: {why}")
            }
        })
    }
}

/// Compares rows that were restored, by table, with the database that is there; tells what differs,
/// and gives the numbers as facts.
pub(super) async fn with_live(
    options: &DatabaseRestoreOptions,
    restored: &BTreeMap<TableName, u64>,
    context: &Context,
) -> Result<Attributes> {
    context.phase("compare with the database that is there");
    let session = Session::open(&options.connection.with_database(&options.into)).await?;
    session.run("prepare the session", &format!("{SETTINGS} {LOCK_LIMIT}")).await?;
    let live = counted(&session, context).await?;
    // The name of a database changes when nobody is in it, this session included.
    leave(&session).await;
    let names = restored.keys().chain(live.keys());
    let found: BTreeMap<_, _> = names
        .map(|name| (name, Found::of(restored.get(name).copied(), live.get(name).cloned())))
        .collect();
    let told: Vec<_> =
        found.iter().filter_map(|(name, found)| Some((name, found.told()?))).collect();
    for (name, words) in told.iter().take(NAMED) {
        context.note(&format!("table {name}"), words);
    }
    if told.len() > NAMED {
        let more = format!("{} more tables differ", told.len() - NAMED);
        context.note(&format!("database {}", options.into), more);
    }
    let count =
        |fits: fn(&Found) -> bool| found.values().filter(|found| fits(found)).count() as u64;
    Ok(Attributes::new()
        .with("database.compared.alike", count(|it| matches!(it, Found::Alike)))
        .with("database.compared.differ", count(|it| matches!(it, Found::Differ { .. })))
        .with("database.compared.only_restored", count(|it| matches!(it, Found::OnlyRestored(_))))
        .with("database.compared.only_live", count(|it| matches!(it, Found::OnlyLive(_))))
        .with("database.compared.not_counted", count(|it| matches!(it, Found::NotCounted(_)))))
}

/// How many rows each table has, or why that is not known.
async fn counted(
    session: &Session,
    context: &Context,
) -> Result<BTreeMap<TableName, Result<u64, String>>> {
    let mut counted = BTreeMap::new();
    for relation in catalog::relations(session).await? {
        if !relation.has_rows() {
            continue;
        }
        context.check()?;
        let condition = match &relation.extension {
            Extension::Settings(condition) => condition.as_str(),
            Extension::None | Extension::Owned => "",
        };
        let query = format!("SELECT count(*) FROM ONLY {} {condition}", relation.name.quoted());
        let cancel = session.cancel_on_drop();
        let row = session.client().query_one(&query, &[]).await;
        cancel.disarm();
        session.check()?;
        let rows = row.and_then(|row| row.try_get::<_, i64>(0));
        let rows = rows.map(|rows| rows.max(0) as u64).map_err(|error| {
            let error = failed("count the rows", error);
            lifeboat_core::Error::from(error).one_line()
        });
        counted.insert(relation.name, rows);
    }
    Ok(counted)
}

/// Ends a session for whose end others wait.
pub(super) async fn leave(session: &Session) {
    let end = "SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())";
    // The answer is the end of the session, which is an error to it.
    let _ = session.run("leave the database", end).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        assert_eq!(Found::of(Some(3), Some(Ok(3))).told(), None);
        let cases = [
            (Some(3), Some(Ok(4)), "3 rows restored, and 4 in the database that is there"),
            (Some(3), None, "3 rows restored; the database that is there has no such table"),
            (
                None,
                Some(Ok(4)),
                "4 rows in the database that is there; the snapshot has none of them",
            ),
            (
                Some(3),
                Some(Err("why".to_owned())),
                "it cannot be counted in the database that is there: why",
            ),
        ];
        for (restored, live, words) in cases {
            assert_eq!(Found::of(restored, live).told().as_deref(), Some(words));
        }
    }
}
