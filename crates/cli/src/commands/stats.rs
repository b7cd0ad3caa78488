//! `lifeboat stats`: what the repository holds, and what each snapshot alone holds.

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use lifeboat_repository::{AreaStats, ChunkTotals, RepositoryStats, SnapshotStats};
use serde::Serialize;

use super::which::resolve;
use crate::args::Stats;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{number, one_line, size, time};
use crate::session::Session;

#[derive(Serialize)]
struct Totals {
    chunks: u64,
    plain: u64,
    stored: u64,
}

impl From<&ChunkTotals> for Totals {
    fn from(totals: &ChunkTotals) -> Self {
        Self { chunks: totals.chunks, plain: totals.plain, stored: totals.stored }
    }
}

/// The event `snapshot_stats`.
#[derive(Serialize)]
struct OfSnapshot {
    id: String,
    store: String,
    taken: Timestamp,
    bytes: u64,
    referenced: Totals,
    alone: Totals,
}

impl From<&SnapshotStats> for OfSnapshot {
    fn from(stats: &SnapshotStats) -> Self {
        Self {
            id: stats.snapshot.id.to_string(),
            store: stats.snapshot.store.to_string(),
            taken: stats.snapshot.taken,
            bytes: stats.snapshot.bytes,
            referenced: Totals::from(&stats.referenced),
            alone: Totals::from(&stats.alone),
        }
    }
}

#[derive(Serialize)]
struct Area<'a> {
    name: &'a str,
    objects: u64,
    bytes: u64,
}

impl<'a> From<&'a AreaStats> for Area<'a> {
    fn from(area: &'a AreaStats) -> Self {
        Self { name: &area.name, objects: area.objects, bytes: area.bytes }
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    snapshots: usize,
    logical: u64,
    data: Totals,
    trees: Totals,
    lists: Totals,
    fingerprints: Totals,
    copies: u64,
    unreferenced: u64,
    missing: u64,
    stored: u64,
    deduplication_ratio: Option<f64>,
    compression_ratio: Option<f64>,
    areas: Vec<Area<'a>>,
    exit: u8,
}

impl<'a> Summary<'a> {
    fn new(stats: &'a RepositoryStats, exit: Exit) -> Self {
        Self {
            snapshots: stats.snapshots.len(),
            logical: stats.logical,
            data: Totals::from(&stats.data),
            trees: Totals::from(&stats.trees),
            lists: Totals::from(&stats.lists),
            fingerprints: Totals::from(&stats.fingerprints),
            copies: stats.copies,
            unreferenced: stats.unreferenced,
            missing: stats.missing,
            stored: stats.stored(),
            deduplication_ratio: stats.deduplication_ratio(),
            compression_ratio: stats.data.compression_ratio(),
            areas: stats.areas.iter().map(Area::from).collect(),
            exit: exit.code(),
        }
    }
}

pub(super) async fn run(arguments: &Stats, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let list = opened.snapshots(session).await?;
    let store = arguments.store.as_ref().map(|name| resolve(name, &list)).transpose()?;
    let counting = Box::pin(opened.repository.stats(&session.context));
    let counted = session.unless_cancelled(counting).await?;
    session.output.finish();
    let stats = counted.map_err(|error| opened.failed(error))?;
    let is_meant =
        |of: &&SnapshotStats| store.as_ref().is_none_or(|store| of.snapshot.store == *store);
    let shown: Vec<_> = stats.snapshots.iter().filter(is_meant).collect();
    for of in &shown {
        session.output.event("snapshot_stats", &OfSnapshot::from(*of));
    }
    if !session.output.is_json() {
        if !shown.is_empty() {
            session.output.listed(&table(&shown));
            session.output.listed("");
        }
        for line in lines(&stats) {
            session.output.listed(&line);
        }
    }
    let exit = Exit::with_warnings(session.context.warnings());
    session.output.event("summary", &Summary::new(&stats, exit));
    if stats.missing > 0 {
        let missing = number(stats.missing, "chunk is", "chunks are");
        let told = format!("{missing} missing, and not counted: run `lifeboat verify`");
        session.output.warn(&told);
    }
    Ok(exit)
}

fn table(snapshots: &[&SnapshotStats]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["id", "store", "as of", "size", "stored", "alone"]);
    for of in snapshots {
        table.add_row([
            of.snapshot.id.short(),
            one_line(&of.snapshot.store.to_string()),
            time(of.snapshot.taken),
            size(of.snapshot.bytes),
            size(of.referenced.stored),
            size(of.alone.stored),
        ]);
    }
    for column in 3..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

fn lines(stats: &RepositoryStats) -> Vec<String> {
    let line = |name: &str, bytes: u64, note: String| {
        format!("{name:<28} {:>12}  {note}", size(bytes)).trim_end().to_owned()
    };
    let ratio = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{ratio:.2} : 1"));
    let chunks = |totals: &ChunkTotals| number(totals.chunks, "chunk", "chunks");
    let referenced = stats.referenced();
    let mut lines = vec![
        line("content of all snapshots", stats.logical, String::new()),
        line("without repetitions", stats.data.plain, ratio(stats.deduplication_ratio())),
        line("compressed", stats.data.stored, ratio(stats.data.compression_ratio())),
    ];
    let described = referenced.stored - stats.data.stored;
    let pages = stats.trees.chunks + stats.lists.chunks + stats.fingerprints.chunks;
    let pages = number(pages, "page", "pages");
    lines.push(line("what describes it", described, pages));
    if stats.copies > 0 {
        lines.push(line("stored more than once", stats.copies, String::new()));
    }
    lines.push(line("needed by no snapshot", stats.unreferenced, String::new()));
    let objects = stats.areas.iter().map(|area| area.objects).sum();
    let objects = number(objects, "object", "objects");
    let all = format!("{objects}, {} of content", chunks(&stats.data));
    lines.push(line("the whole repository", stats.stored(), all));
    for area in &stats.areas {
        let objects = number(area.objects, "object", "objects");
        lines.push(line(&format!("  {}", one_line(&area.name)), area.bytes, objects));
    }
    lines
}
