//! `lifeboat window`: from when to when a cluster can be recovered.

use std::collections::BTreeSet;

use comfy_table::{CellAlignment, Table, presets};
use lifeboat_core::StoreRef;
use lifeboat_core::journal::JournalName;
use lifeboat_postgres::Windows;
use serde::Serialize;

use super::journals::{Hole, told};
use super::recovery::{archive, bases};
use super::which::resolve;
use crate::args::Window;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{number, one_line, time};
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

#[derive(Serialize)]
struct Summary {
    stores: usize,
    windows: usize,
    gaps: usize,
    exit: u8,
}

pub(super) async fn run(arguments: &Window, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let list = opened.snapshots(session).await?;
    let stores: BTreeSet<StoreRef> = match &arguments.store {
        Some(name) => BTreeSet::from([resolve(name, &list)?]),
        None => list.snapshots.iter().map(|info| info.store.clone()).collect(),
    };
    if let (Some(_), Some(store)) = (&arguments.store, stores.first())
        && store.kind() != "postgres"
    {
        let message = format!("{store} has no window: no journal is kept of its kind");
        return Err(Failed::usage(message, "list its moments with `lifeboat snapshots`"));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["store", "timeline", "from", "", "to", "", "snapshots"]);
    let mut summary = Summary { stores: 0, windows: 0, gaps: 0, exit: 0 };
    let mut missing = Vec::new();
    for store in stores.iter().filter(|store| store.kind() == "postgres") {
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
                time(window.from_time),
                window.from.to_string(),
                window.to_time.map_or("-".to_owned(), time),
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
        number(summary.stores as u64, "cluster", "clusters"),
        number(summary.windows as u64, "window", "windows"),
        number(summary.gaps as u64, "gap", "gaps")
    ));
    Ok(exit)
}
