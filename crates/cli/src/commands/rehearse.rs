//! `lifeboat verify --restore`: a restore into a scratch server, examined and removed.

use std::path::Path;
use std::time::{Duration, Instant};

use lifeboat_core::SnapshotInfo;
use lifeboat_postgres::{
    Counted, Examination, ExamineOptions, ExpectedResult, TargetAction, examine,
};
use serde::Serialize;
use serde_json::Value;

use super::recovery::{Planned, planned, store_of};
use super::rehearse_redis;
use super::scratch::{Raised, raise};
use super::two::open;
use super::which::find;
use crate::args::{Verify, Which};
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{duration, number, one_line};
use crate::session::Session;

/// As many problems are shown to people; programs get all that are kept.
const SHOWN: usize = 50;
/// No file of checks is longer.
const MAX_CHECKS: u64 = 16 << 20;

/// The event `count`.
#[derive(Serialize)]
struct Count<'a> {
    database: &'a str,
    table: &'a str,
    rows: u64,
}

/// The event `problem`.
#[derive(Serialize)]
struct Wrong<'a> {
    database: &'a str,
    object: &'a str,
    what: &'a str,
}

#[derive(Serialize)]
struct Summary<'a> {
    sound: bool,
    snapshot: String,
    store: String,
    target: Option<String>,
    databases: u64,
    tables: u64,
    rows: u64,
    indexes: u64,
    foreign_keys: u64,
    queries: u64,
    problems: u64,
    unchecked: &'a [String],
    bytes: u64,
    restore_seconds: f64,
    recovery_seconds: f64,
    examination_seconds: f64,
    exit: u8,
}

pub(super) async fn run(
    snapshot: &str,
    arguments: &Verify,
    session: &Session,
) -> Result<Exit, Failed> {
    let rehearsal = &arguments.rehearsal;
    let which = Which { snapshot: snapshot.to_owned(), store: rehearsal.store.clone() };
    let opened = session.repository().await?;
    let store = match rehearsal.target.get() {
        Some(_) => store_of(&which, &opened.listed(session).await?, &opened, session)?,
        None => find(&which, &opened, session).await?.store,
    };
    if store.kind() == lifeboat_redis::KIND {
        return rehearse_redis::run(&which, &store, opened, arguments, session).await;
    }
    if let Some(word) = rehearsal.redis.word() {
        let message = format!("{word} is for Redis, and {store} is not");
        return Err(Failed::usage(message, "leave it out"));
    }
    let queries = match &rehearsal.checks {
        Some(path) => checks(path)?,
        None => Vec::new(),
    };
    let action = TargetAction::Promote;
    let plan = planned(&which, &rehearsal.target, action, &opened, session).await?;
    let info = match &plan {
        Some(plan) => plan.base.clone(),
        None => find(&which, &opened, session).await?,
    };
    if info.store.kind() != "postgres" {
        let message = format!("{} cannot be restored into a scratch server", info.store);
        let hint = "a snapshot of files is tried by restoring it into a new directory";
        return Err(Failed::usage(message, hint));
    }
    let place = &rehearsal.place;
    let found = open(opened, &info, session).await?;
    let Raised { server, bytes, restored } =
        raise(place, &found, plan.as_ref(), &arguments.thawing, session).await?;
    session.context.phase("examine");
    let begun = Instant::now();
    let mut options = ExamineOptions::default();
    options.queries = queries;
    let examining = Box::pin(examine(&server, &options, &session.context));
    let examined = session.unless_cancelled(examining).await?;
    let (recovered, took) = (server.recovered_in(), begun.elapsed());
    let examined = match examined {
        Ok(examined) => examined,
        Err(error) => {
            // Of a server that died, its log knows more.
            let said = server.said().await;
            let hint = format!("the server said: {}", one_line(&said));
            return Err(error.with_hint(hint).into());
        }
    };
    server.stop().await?;
    session.output.finish();
    let times = Times { restored, recovered, examined: took };
    Ok(tell(&info, plan.as_ref(), &examined, bytes, &times, session))
}

struct Times {
    restored: Duration,
    recovered: Duration,
    examined: Duration,
}

fn tell(
    info: &SnapshotInfo,
    plan: Option<&Planned>,
    found: &Examination,
    bytes: u64,
    times: &Times,
    session: &Session,
) -> Exit {
    if session.output.is_json() {
        for Counted { database, table, rows } in &found.counts {
            session.output.event("count", &Count { database, table, rows: *rows });
        }
    }
    for (at, problem) in found.problems.iter().enumerate() {
        let (database, object, what) = (&problem.database, &problem.object, &problem.what);
        session.output.event("problem", &Wrong { database, object, what });
        if at < SHOWN {
            session.output.warn(&one_line(&format!("{database}: {object}: {what}")));
        }
    }
    let more = found.problem_count.saturating_sub(SHOWN as u64);
    if more > 0 {
        session.output.warn(&format!("and {more} more"));
    }
    for what in &found.unchecked {
        session.context.warn("not checked", what.clone());
    }
    let sound = found.problem_count == 0;
    let exit = if sound { Exit::with_warnings(session.context.warnings()) } else { Exit::Failed };
    session.output.event(
        "summary",
        &Summary {
            sound,
            snapshot: info.id.to_string(),
            store: info.store.to_string(),
            target: plan.map(|plan| plan.plan.to.to_string()),
            databases: found.databases,
            tables: found.tables,
            rows: found.rows,
            indexes: found.indexes,
            foreign_keys: found.foreign_keys,
            queries: found.queries,
            problems: found.problem_count,
            unchecked: &found.unchecked,
            bytes,
            restore_seconds: times.restored.as_secs_f64(),
            recovery_seconds: times.recovered.as_secs_f64(),
            examination_seconds: times.examined.as_secs_f64(),
            exit: exit.code(),
        },
    );
    session.output.say(&format!(
        "{}: {}, {}, {}, {}, {}, {}",
        if sound { "the restored cluster is sound" } else { "the restored cluster is NOT sound" },
        number(found.databases, "database", "databases"),
        number(found.tables, "table", "tables"),
        number(found.rows, "row", "rows"),
        number(found.indexes, "index", "indexes"),
        number(found.foreign_keys, "foreign key", "foreign keys"),
        number(found.queries, "query", "queries"),
    ));
    session.output.say(&format!(
        "  restored in {}, recovered in {}, examined in {}",
        duration(times.restored),
        duration(times.recovered),
        duration(times.examined)
    ));
    if !sound {
        session.output.say(
            "  next: restore an older snapshot the same way to see since when; \
             `lifeboat verify --every-byte` tells whether the repository is the cause",
        );
    }
    exit
}

/// Reads the file of checks.
fn checks(path: &Path) -> Result<Vec<ExpectedResult>, Failed> {
    let wrong = |what: String| {
        let message = format!("the checks in {}: {what}", path.display());
        let hint =
            "a check is {\"database\": \"shop\", \"sql\": \"SELECT …\", \"expect\": [[\"1\"]]}";
        Failed::usage(message, hint)
    };
    let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if length > MAX_CHECKS {
        return Err(wrong(format!("the file has {length} bytes")));
    }
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let list = value.as_array().ok_or_else(|| wrong("they are no list".to_owned()))?;
    let mut checks = Vec::new();
    for (at, one) in list.iter().enumerate() {
        let place = at + 1;
        let word = |name: &str| {
            let found = one.get(name).and_then(Value::as_str).map(str::to_owned);
            found.ok_or_else(|| wrong(format!("number {place} has no \"{name}\"")))
        };
        let rows = one.get("expect").and_then(expected);
        let rows = rows.ok_or_else(|| {
            wrong(format!("number {place} has no \"expect\" that is a value or a list of rows"))
        })?;
        checks.push(ExpectedResult { database: word("database")?, sql: word("sql")?, rows });
    }
    Ok(checks)
}

/// Rows of values, or one value.
fn expected(value: &Value) -> Option<Vec<Vec<Option<String>>>> {
    match value {
        Value::Array(rows) => {
            rows.iter().map(|row| row.as_array()?.iter().map(single).collect()).collect()
        }
        one => Some(vec![vec![single(one)?]]),
    }
}

/// A value as `psql` shows it.
fn single(value: &Value) -> Option<Option<String>> {
    match value {
        Value::Null => Some(None),
        Value::Bool(true) => Some(Some("t".to_owned())),
        Value::Bool(false) => Some(Some("f".to_owned())),
        Value::Number(number) => Some(Some(number.to_string())),
        Value::String(text) => Some(Some(text.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_written_as_rows_or_as_one_value() {
        let read = |text: &str| expected(&serde_json::from_str(text).unwrap());
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("42"), Some(vec![vec![some("42")]]));
        assert_eq!(read("true"), Some(vec![vec![some("t")]]));
        assert_eq!(read("[]"), Some(vec![]));
        assert_eq!(
            read(r#"[["a", null], [1.5, false]]"#),
            Some(vec![vec![some("a"), None], vec![some("1.5"), some("f")],])
        );
        for bad in ["{}", "[1]", "[[{}]]"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
