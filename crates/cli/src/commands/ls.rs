//! `lifeboat ls`: lists what is in a snapshot.

use lifeboat_core::{EntryInfo, EntryKind, EntryPath, Error, ErrorKind};
use lifeboat_repository::Snapshot;
use serde::Serialize;

use super::shown::Shown;
use super::which::{find_any, note_reach};
use crate::args::Ls;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::long_entry;
use crate::session::{Opened, Session};

#[derive(Serialize)]
struct Summary {
    snapshot: String,
    entries: u64,
    exit: u8,
}

pub(super) async fn run(arguments: &Ls, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let info = find_any(&arguments.which, &opened, session).await?;
    let opening = opened.repository.snapshot(&info.id);
    let opening = session.unless_cancelled(opening).await?;
    let snapshot = opening.map_err(|error| opened.failed(error))?;
    note_reach(&snapshot, session).await;
    let top = arguments.path.as_ref();
    let one = match top {
        None => None,
        Some(path) => {
            let member = session.unless_cancelled(snapshot.member(path)).await?;
            let member = member.map_err(|error| opened.failed(error))?;
            Some(member.ok_or_else(|| no_such_entry(path, &snapshot))?.entry)
        }
    };
    let count = match one {
        Some(entry) if entry.kind != EntryKind::Directory => {
            show(&entry, arguments, session);
            1
        }
        _ if arguments.recursive => beneath(&snapshot, arguments, &opened, session).await?,
        _ => directly(&snapshot, arguments, &opened, session).await?,
    };
    let exit = Exit::with_warnings(session.context.warnings());
    let snapshot = info.id.to_string();
    session.output.event("summary", &Summary { snapshot, entries: count, exit: exit.code() });
    Ok(exit)
}

/// Shows what lies beneath the top of the listing, at any depth.
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
        if Some(&entry.path) != top {
            show(&entry, arguments, session);
            count += 1;
        }
    }
    Ok(count)
}

/// Shows what lies directly in the top of the listing. What lies deeper is not read.
async fn directly(
    snapshot: &Snapshot,
    arguments: &Ls,
    opened: &Opened,
    session: &Session,
) -> Result<u64, Failed> {
    let mut members = snapshot.members(arguments.path.as_ref());
    let mut count = 0;
    while !session.output.is_unread() {
        let next = session.unless_cancelled(members.next()).await?;
        let Some(member) = next.map_err(|error| opened.failed(error))? else {
            break;
        };
        show(&member.entry, arguments, session);
        count += 1;
    }
    Ok(count)
}

fn no_such_entry(path: &EntryPath, snapshot: &Snapshot) -> Failed {
    let name = snapshot.info().id.short();
    let message = format!("list \"{path}\" in snapshot {name}: there is no such entry");
    let hint = "list the directory above it";
    Error::new(ErrorKind::NotFound, message).with_hint(hint).into()
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
