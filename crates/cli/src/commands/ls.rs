//! `lifeboat ls`: lists what is in a snapshot.

use lifeboat_core::{EntryInfo, EntryKind, EntryPath, Error, ErrorKind};
use lifeboat_repository::Snapshot;
use serde::Serialize;

use super::which::find;
use crate::args::Ls;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{facts_to_json, long_entry};
use crate::session::{Opened, Session};

/// The event `entry`.
#[derive(Serialize)]
struct Shown<'a> {
    path: String,
    /// The exact bytes, where the path is not UTF-8 or holds control characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    kind: &'a str,
    size: u64,
    attributes: serde_json::Value,
}

impl<'a> From<&'a EntryInfo> for Shown<'a> {
    fn from(entry: &'a EntryInfo) -> Self {
        let path = entry.path.to_string();
        let exact = path.as_bytes() == entry.path.as_bytes();
        let hex = || entry.path.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            path,
            path_hex: (!exact).then(hex),
            kind: entry.kind.as_str(),
            size: entry.size,
            attributes: facts_to_json(&entry.attributes),
        }
    }
}

#[derive(Serialize)]
struct Summary {
    snapshot: String,
    entries: u64,
    exit: u8,
}

pub(super) async fn run(arguments: &Ls, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let info = find(&arguments.which, &opened, session).await?;
    let opening = opened.repository.snapshot(&info.id);
    let opening = session.unless_cancelled(opening).await?;
    let snapshot = opening.map_err(|error| opened.failed(error))?;
    let top = arguments.path.as_ref();
    let one = match top {
        None => None,
        Some(path) => {
            let entry = snapshot.entry(path).await.map_err(|error| opened.failed(error))?;
            Some(entry.ok_or_else(|| no_such_entry(path, &snapshot))?)
        }
    };
    let count = match one {
        Some(entry) if entry.kind != EntryKind::Directory => {
            show(&entry, arguments, session);
            1
        }
        _ => beneath(&snapshot, arguments, &opened, session).await?,
    };
    let exit = Exit::with_warnings(session.context.warnings());
    let snapshot = info.id.to_string();
    session.output.event("summary", &Summary { snapshot, entries: count, exit: exit.code() });
    Ok(exit)
}

/// Shows what lies beneath the top of the listing.
async fn beneath(
    snapshot: &Snapshot,
    arguments: &Ls,
    opened: &Opened,
    session: &Session,
) -> Result<u64, Failed> {
    let top = arguments.path.as_ref();
    let mut listing = snapshot.list(top);
    let mut count = 0;
    while !session.output.is_unread() {
        let next = session.unless_cancelled(listing.next()).await?;
        let Some(entry) = next.map_err(|error| opened.failed(error))? else {
            break;
        };
        let depth = depth_below(&entry.path, top);
        if depth > 0 && (arguments.recursive || depth == 1) {
            show(&entry, arguments, session);
            count += 1;
        }
    }
    Ok(count)
}

fn no_such_entry(path: &EntryPath, snapshot: &Snapshot) -> Failed {
    let name = snapshot.info().id.short();
    let message = format!("list \"{path}\" in snapshot {name}: there is no such entry");
    let hint = "list the directory above it";
    Error::new(ErrorKind::NotFound, message).with_hint(hint).into()
}

/// How many components a path has below the top of the listing.
fn depth_below(path: &EntryPath, top: Option<&EntryPath>) -> usize {
    path.components().count() - top.map_or(0, |top| top.components().count())
}

fn show(entry: &EntryInfo, arguments: &Ls, session: &Session) {
    session.output.event("entry", &Shown::from(entry));
    if session.output.is_json() {
        return;
    }
    if arguments.long {
        session.output.listed(&long_entry(entry, &entry.path));
    } else {
        session.output.listed(&entry.path.to_string());
    }
}
