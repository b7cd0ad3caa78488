//! `lifeboat window`: from when to when a cluster or a server can be recovered.

use std::collections::BTreeSet;

use comfy_table::{CellAlignment, Table, presets};
use lifeboat_core::StoreRef;
use lifeboat_core::journal::JournalName;
use lifeboat_postgres::Windows;
use lifeboat_redis::{Window as RedisWindow, Windows as RedisWindows};
use serde::Serialize;

use super::journals::{Hole, told};
use super::moment;
use super::recovery::{archive, bases};
use super::which::resolve;
use crate::args::Window;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{moment_at, number, one_line};
use crate::session::Session;

/// The event `window`.
#[derive(Serialize)]
struct Row {
    store: String,
    system_id: String,
    timeline: u32,
    from: String,
    from_time: String,
    to: String,
    to_time: Option<String>,
    bases: Vec<String>,
}

/// The event `window` of a Redis server.
#[derive(Serialize)]
struct RedisRow<'a> {
    store: String,
    replication_id: &'a str,
    from: String,
    from_time: String,
    to: String,
    to_time: String,
    bases: Vec<String>,
}

#[derive(Serialize)]
struct Summary {
    stores: usize,
    windows: usize,
    gaps: usize,
    exit: u8,
}

/// A row for a Redis server.
fn add(table: &mut Table, store: &StoreRef, window: &RedisWindow, session: &Session) {
    let (from, to) = (window.from.to_string(), window.to.to_string());
    let id = window.replication_id.get(..8).unwrap_or(&window.replication_id);
    table.add_row([
        one_line(&store.to_string()),
        one_line(id),
        moment_at(window.from_time),
        from.clone(),
        moment_at(window.to_time),
        to.clone(),
        window.bases.len().to_string(),
    ]);
    session.output.event(
        "window",
        &RedisRow {
            store: store.to_string(),
            replication_id: &window.replication_id,
            from,
            from_time: window.from_time.to_string(),
            to,
            to_time: window.to_time.to_string(),
            bases: window.bases.iter().map(|base| base.snapshot.to_string()).collect(),
        },
    );
}

pub(super) async fn run(arguments: &Window, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let list = opened.snapshots(session).await?;
    let stores: BTreeSet<StoreRef> = match &arguments.store {
        Some(name) => BTreeSet::from([resolve(name, &list)?]),
        None => list.snapshots.iter().map(|info| info.store.clone()).collect(),
    };
    if let (Some(_), Some(store)) = (&arguments.store, stores.first())
        && !matches!(store.kind(), "postgres" | "redis")
    {
        let message = format!("{store} has no window: no journal is kept of its kind");
        return Err(Failed::usage(message, "list its moments with `lifeboat snapshots`"));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["store", "timeline", "from", "", "to", "", "snapshots"]);
    let mut summary = Summary { stores: 0, windows: 0, gaps: 0, exit: 0 };
    let mut missing = Vec::new();
    for store in &stores {
        match store.kind() {
            "postgres" => {}
            "redis" => {
                let journal = moment::journal(&opened, store)?;
                let bases = moment::bases(&list, store);
                let looking = Box::pin(RedisWindows::of(&journal, &bases));
                let found = session.unless_cancelled(looking).await?;
                let found = found.map_err(|error| opened.of_store(error))?;
                summary.stores += 1;
                summary.windows += found.windows.len();
                summary.gaps += found.gaps.len();
                for window in &found.windows {
                    add(&mut table, store, window, session);
                }
                for gap in &found.gaps {
                    session.output.event("gap", &Hole::new(journal.name(), gap));
                    missing.push(told(journal.name(), gap));
                }
                continue;
            }
            _ => continue,
        }
        let archive = archive(&opened, store)?;
        let bases = bases(&list, store);
        let looking = Box::pin(Windows::of(&archive, &bases));
        let found = session.unless_cancelled(looking).await?;
        let found = found.map_err(|error| opened.of_store(error))?;
        summary.stores += 1;
        summary.windows += found.windows.len();
        summary.gaps += found.gaps.len();
        for window in &found.windows {
            session.output.event(
                "window",
                &Row {
                    store: store.to_string(),
                    system_id: window.line.system_id.to_string(),
                    timeline: window.line.timeline,
                    from: window.from.to_string(),
                    from_time: window.from_time.to_string(),
                    to: window.to.to_string(),
                    to_time: window.to_time.map(|at| at.to_string()),
                    bases: window.bases.iter().map(|base| base.snapshot.to_string()).collect(),
                },
            );
            table.add_row([
                one_line(&store.to_string()),
                window.line.timeline.to_string(),
                moment_at(window.from_time),
                window.from.to_string(),
                window.to_time.map_or("-".to_owned(), moment_at),
                window.to.to_string(),
                window.bases.len().to_string(),
            ]);
        }
        let name = JournalName::new(store.clone(), "wal")?;
        for gap in &found.gaps {
            session.output.event("gap", &Hole::new(&name, gap));
            missing.push(told(&name, gap));
        }
    }
    if let Some(column) = table.column_mut(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    if summary.windows > 0 {
        session.output.listed(&table.trim_fmt());
    }
    for line in &missing {
        session.output.listed(&format!("  {line}"));
    }
    let exit = Exit::with_warnings(session.context.warnings() + missing.len() as u64);
    summary.exit = exit.code();
    session.output.event("summary", &summary);
    session.output.say(&format!(
        "{}, {}, {}",
        number(summary.stores as u64, "store", "stores"),
        number(summary.windows as u64, "window", "windows"),
        number(summary.gaps as u64, "gap", "gaps")
    ));
    Ok(exit)
}
