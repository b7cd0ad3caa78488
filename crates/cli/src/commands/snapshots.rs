//! `lifeboat snapshots`: lists the snapshots.

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use lifeboat_core::{Pin, SnapshotInfo};
use serde::Serialize;

use crate::args::Snapshots;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{facts_to_json, number, one_line, size, time};
use crate::session::Session;

/// A pin that holds the snapshot.
#[derive(Serialize)]
struct Held<'a> {
    id: String,
    reason: &'a str,
    until: Option<Timestamp>,
}

/// The event `snapshot`.
#[derive(Serialize)]
struct Shown<'a> {
    id: String,
    store: String,
    kind: &'a str,
    name: &'a str,
    host: &'a str,
    tags: &'a [String],
    started: Timestamp,
    taken: Timestamp,
    committed: Timestamp,
    entries: u64,
    bytes: u64,
    stored: u64,
    warnings: u64,
    position: &'a str,
    parent: Option<String>,
    pins: Vec<Held<'a>>,
    origin: Option<Original>,
    facts: serde_json::Value,
}

/// Where a copy is from.
#[derive(Serialize)]
struct Original {
    repository: String,
    snapshot: String,
}

impl<'a> From<&'a SnapshotInfo> for Shown<'a> {
    fn from(info: &'a SnapshotInfo) -> Self {
        Self {
            id: info.id.to_string(),
            store: info.store.to_string(),
            kind: info.store.kind(),
            name: info.store.name(),
            host: &info.host,
            tags: &info.tags,
            started: info.started,
            taken: info.taken,
            committed: info.committed,
            entries: info.entries,
            bytes: info.bytes,
            stored: info.stored,
            warnings: info.warnings,
            position: &info.position,
            parent: info.parent.map(|id| id.to_string()),
            pins: live(info).map(Held::from).collect(),
            origin: info.origin.as_ref().map(|origin| Original {
                repository: origin.repository.clone(),
                snapshot: origin.snapshot.to_string(),
            }),
            facts: facts_to_json(&info.facts),
        }
    }
}

/// The pins that still hold.
fn live(info: &SnapshotInfo) -> impl Iterator<Item = &Pin> {
    let now = Timestamp::now();
    info.pins.iter().filter(move |pin| pin.is_live(now))
}

impl<'a> From<&'a Pin> for Held<'a> {
    fn from(pin: &'a Pin) -> Self {
        Self { id: pin.id.to_string(), reason: &pin.reason, until: pin.until }
    }
}

#[derive(Serialize)]
struct Summary {
    snapshots: usize,
    checkpoints: usize,
    damaged: usize,
    exit: u8,
}

pub(super) async fn run(arguments: &Snapshots, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let list = opened.snapshots(session).await?;
    let wanted = |info: &&SnapshotInfo| {
        arguments.store.as_ref().is_none_or(|store| store.means(&info.store))
            && arguments.tags.iter().all(|tag| info.tags.contains(tag))
    };
    let snapshots: Vec<_> = list.snapshots.iter().filter(wanted).collect();
    for info in &snapshots {
        session.output.event("snapshot", &Shown::from(*info));
    }
    if !snapshots.is_empty() {
        session.output.listed(&table(&snapshots));
    }
    let unfinished = opened.checkpoints(session).await?;
    let checkpoints: Vec<_> = unfinished.snapshots.iter().filter(wanted).collect();
    for info in &checkpoints {
        session.output.event("checkpoint", &Shown::from(*info));
    }
    if !checkpoints.is_empty() {
        session.output.listed(&format!("\n{INCOMPLETE}"));
        session.output.listed(&table_of_checkpoints(&checkpoints));
    }
    for (object, what) in &unfinished.damaged {
        let told = format!("this checkpoint cannot be read, and nothing needs it: {what}");
        session.context.note(object, told);
    }
    let exit = Exit::with_warnings(session.context.warnings());
    let (count, damaged) = (snapshots.len(), list.damaged.len());
    let summary =
        Summary { snapshots: count, checkpoints: checkpoints.len(), damaged, exit: exit.code() };
    session.output.event("summary", &summary);
    let told = number(count as u64, "snapshot", "snapshots");
    match damaged as u64 {
        0 => session.output.say(&told),
        some => {
            let damaged = number(some, "damaged one that cannot", "damaged ones that cannot");
            session.output.say(&format!("{told}, and {damaged} be read: run `lifeboat verify`"));
        }
    }
    Ok(exit)
}

const INCOMPLETE: &str = "\
Incomplete: what backups had stored that are under way or did not finish. The next backup of the same
store goes on from there. `latest` never means one of these.";

fn table_of_checkpoints(checkpoints: &[&SnapshotInfo]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["id", "store", "begun", "stored by", "entries", "size", "host", "remarks"]);
    for info in checkpoints {
        let mut remarks = vec!["incomplete".to_owned()];
        remarks.extend(info.tags.iter().cloned());
        table.add_row([
            info.id.short(),
            one_line(&info.store.to_string()),
            time(info.started),
            time(info.committed),
            info.entries.to_string(),
            size(info.bytes),
            one_line(&info.host),
            one_line(&remarks.join(", ")),
        ]);
    }
    for column in 4..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

fn table(snapshots: &[&SnapshotInfo]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["id", "store", "as of", "entries", "size", "added", "host", "remarks"]);
    for info in snapshots {
        let mut remarks = info.tags.clone();
        remarks.extend(live(info).map(|pin| format!("pinned: {}", pin.reason)));
        if info.origin.is_some() {
            remarks.push("a copy".to_owned());
        }
        if info.facts.text(lifeboat_redis::facts::CONSISTENCY).is_some() {
            remarks.push("not of one moment".to_owned());
        }
        if info.warnings > 0 {
            remarks.push(number(info.warnings, "warning", "warnings"));
        }
        table.add_row([
            info.id.short(),
            one_line(&info.store.to_string()),
            time(info.taken),
            info.entries.to_string(),
            size(info.bytes),
            size(info.stored),
            one_line(&info.host),
            one_line(&remarks.join(", ")),
        ]);
    }
    for column in 3..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}
