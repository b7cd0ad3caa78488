//! `lifeboat find`: looks for entries in one snapshot, or in all.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_core::{Completeness, SnapshotId, SnapshotInfo, StoreRef};
use lifeboat_repository::{Found, Query};
use serde::Serialize;

use super::shown::Shown;
use super::which::{candidates, choose, note_reach, resolve};
use crate::args::Find;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{long_entry, number, one_line};
use crate::session::{Opened, Session};

/// The event `found`.
#[derive(Serialize)]
struct Shows<'a> {
    store: String,
    #[serde(flatten)]
    entry: Shown<'a>,
    snapshots: Vec<String>,
}

#[derive(Serialize)]
struct Summary {
    found: u64,
    snapshots: usize,
    exit: u8,
}

pub(super) async fn run(arguments: &Find, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let snapshots = snapshots(arguments, &opened, session).await?;
    // Stores share next to nothing: each by itself, so that each has its entries together.
    let mut stores: BTreeMap<&StoreRef, Vec<SnapshotId>> = BTreeMap::new();
    for info in &snapshots {
        stores.entry(&info.store).or_default().push(info.id);
    }
    let query = query(arguments);
    let lines = Lines { several: snapshots.len() > 1, stores: stores.len() > 1, arguments };
    let mut count = 0;
    for (store, ids) in &stores {
        let starting = session.unless_cancelled(opened.repository.search(ids, &query)).await?;
        let mut search = starting.map_err(|error| opened.failed(error))?;
        while !session.output.is_unread() {
            let next = session.unless_cancelled(search.next()).await?;
            let Some(found) = next.map_err(|error| opened.failed(error))? else { break };
            count += 1;
            lines.show(&found, store, session);
        }
    }
    let exit = Exit::with_warnings(session.context.warnings());
    let searched = snapshots.len();
    session
        .output
        .event("summary", &Summary { found: count, snapshots: searched, exit: exit.code() });
    let found = number(count, "entry", "entries");
    let searched = number(searched as u64, "snapshot", "snapshots");
    session.output.say(&format!("{found} found in {searched}"));
    Ok(exit)
}

/// The snapshots to look in, the newest first.
async fn snapshots(
    arguments: &Find,
    opened: &Opened,
    session: &Session,
) -> Result<Vec<SnapshotInfo>, Failed> {
    let store = arguments.store.as_ref();
    let mut chosen = if arguments.snapshots.is_empty() {
        let list = opened.snapshots(session).await?;
        let store = store.map(|name| resolve(name, &list)).transpose()?;
        let mut all = list.snapshots;
        all.retain(|info| store.as_ref().is_none_or(|store| info.store == *store));
        all
    } else {
        let list = opened.listed(session).await?;
        let mut chosen = Vec::new();
        for name in &arguments.snapshots {
            let list = candidates(list.clone(), name, opened, session).await?;
            let info = choose(name, store, &list, opened, session)?;
            if info.completeness == Completeness::Incomplete {
                let opening = opened.repository.snapshot(&info.id);
                let snapshot = session.unless_cancelled(opening).await?;
                let snapshot = snapshot.map_err(|error| opened.failed(error))?;
                note_reach(&snapshot, session).await;
            }
            chosen.push(info);
        }
        let mut met = BTreeSet::new();
        chosen.retain(|info| met.insert(info.id));
        chosen
    };
    chosen.sort_by_key(|info| std::cmp::Reverse((info.taken, info.id)));
    Ok(chosen)
}

fn query(arguments: &Find) -> Query {
    let mut query = Query::default();
    query.patterns.clone_from(&arguments.patterns);
    query.kinds = arguments.kinds.iter().copied().map(Into::into).collect();
    query.beneath.clone_from(&arguments.beneath);
    (query.min_size, query.max_size) = (arguments.min_size, arguments.max_size);
    query.modified_from = arguments.changed_since;
    query.modified_before = arguments.changed_before;
    query
}

/// How what was found is shown to people.
struct Lines<'a> {
    /// Several snapshots were searched.
    several: bool,
    /// They are of several stores.
    stores: bool,
    arguments: &'a Find,
}

impl Lines<'_> {
    fn show(&self, found: &Found, store: &StoreRef, session: &Session) {
        let entry = &found.entry;
        session.output.event(
            "found",
            &Shows {
                store: store.to_string(),
                entry: Shown::from(entry),
                snapshots: found.snapshots.iter().map(ToString::to_string).collect(),
            },
        );
        if session.output.is_json() {
            return;
        }
        let mut line = String::new();
        if self.several {
            let newest = found.snapshots.first().map(SnapshotId::short).unwrap_or_default();
            let more = match found.snapshots.len().saturating_sub(1) {
                0 => String::new(),
                more => format!("+{more}"),
            };
            line = format!("{newest} {more:<5} ");
        }
        if self.stores {
            line += &format!("{:<16} ", one_line(&store.to_string()));
        }
        line += &match self.arguments.long {
            true => long_entry(entry, &entry.path),
            false => entry.path.to_string(),
        };
        session.output.listed(&line);
    }
}
