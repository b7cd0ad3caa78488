//! `lifeboat restore --dry-run`: whether the target can take what would be restored.

use std::path::Path;

use lifeboat_core::{Header, Sink, SnapshotInfo};
use lifeboat_postgres::DatabaseSource;
use serde::Serialize;

use crate::args::Restore;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::size;
use crate::session::Session;

/// The event `summary` of a dry run.
#[derive(Serialize)]
struct Looked<'a> {
    snapshot: String,
    store: String,
    target: Option<&'a str>,
    dry_run: bool,
    bytes: Option<u64>,
    room: Option<u64>,
    warnings: u64,
    exit: u8,
}

/// Says whether the target can take the snapshot, as far as that is seen without touching it.
pub(super) async fn look(
    info: &SnapshotInfo,
    arguments: &Restore,
    sink: &dyn Sink,
    session: &Session,
) -> Result<Exit, Failed> {
    let is_server = arguments.live.into.is_some();
    let is_named = is_server || !arguments.to().as_os_str().is_empty();
    let target = is_named.then(|| arguments.target());
    let mut room = None;
    // What a part of it takes, or what differs in a directory that is used again, is not known.
    let is_part = !arguments.paths.is_empty() || arguments.database.table.is_some();
    let bytes = (!is_part && !arguments.delta).then_some(info.bytes);
    if target.is_some() {
        let header = Header::new(info.store.clone());
        session.unless_cancelled(sink.look(&header, &session.context)).await??;
        let is_directory = !is_server
            && info.store.kind() != DatabaseSource::KIND
            && arguments.database.table.is_none();
        if is_directory {
            room = room_at(arguments.to());
        }
    }
    if let (Some(bytes), Some(room)) = (bytes, room)
        && bytes > room
    {
        let told =
            format!("the snapshot has {}, and there is room for {}", size(bytes), size(room));
        session.context.warn(&arguments.to().display().to_string(), told);
    }
    let exit = Exit::with_warnings(session.context.warnings());
    session.output.event(
        "summary",
        &Looked {
            snapshot: info.id.to_string(),
            store: info.store.to_string(),
            target: target.as_deref(),
            dry_run: true,
            bytes,
            room,
            warnings: session.context.warnings(),
            exit: exit.code(),
        },
    );
    let part = if is_part { "a part of " } else { "" };
    let what = format!("{part}snapshot {} of {}", info.id.short(), info.store);
    let much = bytes.map(|bytes| format!(", {}", size(bytes))).unwrap_or_default();
    let free = room.map(|room| format!(" ({} are free)", size(room))).unwrap_or_default();
    session.output.say(&match target {
        Some(target) => {
            format!("nothing was touched: {what}{much}, would be restored into {target}{free}")
        }
        None => format!("nothing was touched: {what}{much}, would be restored; --to says where to"),
    });
    Ok(exit)
}

/// How much room there is where a path is, or will be.
fn room_at(path: &Path) -> Option<u64> {
    let there = std::path::absolute(path).ok()?;
    let there = there.ancestors().find(|above| above.exists())?.to_owned();
    let found = rustix::fs::statvfs(&there).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}
