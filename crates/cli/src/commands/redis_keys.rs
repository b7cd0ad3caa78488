//! `lifeboat redis keys`: lists the keys in a snapshot of Redis.

use jiff::Timestamp;
use lifeboat_core::{EntryPath, Error, ErrorKind};
use lifeboat_redis::rdb::Record;
use lifeboat_redis::{AppendOnlyForm, KIND, KeyListing};
use lifeboat_repository::Snapshot;
use serde::Serialize;

use super::redis::selection;
use super::which::{find, note_reach};
use crate::args::RedisKeys;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{number, one_line, size, time};
use crate::session::{Opened, Session};

/// The event `key`.
#[derive(Serialize)]
struct Key {
    database: u64,
    key: String,
    /// The exact bytes, where `key` is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    bytes: u64,
    expires: Option<Timestamp>,
}

impl From<&Record> for Key {
    fn from(record: &Record) -> Self {
        let shown = shown(&record.name);
        let exact = shown.as_bytes() == record.name;
        let hex = || record.name.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            database: record.database,
            key_hex: (!exact).then(hex),
            key: shown,
            kind: record.kind.as_str(),
            bytes: record.end - record.start,
            expires: record.expires.and_then(|at| Timestamp::from_millisecond(at).ok()),
        }
    }
}

#[derive(Serialize)]
struct Summary {
    snapshot: String,
    store: String,
    keys: u64,
    bytes: u64,
    of: u64,
    exit: u8,
}

pub(super) async fn run(arguments: &RedisKeys, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let info = find(&arguments.which, &opened, session).await?;
    if info.store.kind() != KIND {
        let message = format!("this is a snapshot of {}, not of Redis", info.store);
        return Err(Failed::usage(message, "`lifeboat ls` lists what is in it"));
    }
    if AppendOnlyForm::of(&info.facts).is_some() {
        let message = "keys of append-only files are not listed: what they hold shows when a server \
                       has read them";
        let hint = "restore them with --to, and start a server from that directory";
        return Err(Failed::usage(message, hint));
    }
    let same = arguments.databases.iter().map(|number| (*number, *number));
    let selection = selection(&arguments.keys, &same.collect::<Vec<_>>())?;
    let opening = session.unless_cancelled(opened.repository.snapshot(&info.id)).await?;
    let snapshot = opening.map_err(|error| opened.failed(error))?;
    note_reach(&snapshot, session).await;
    let (mut keys, mut bytes, mut of) = (0, 0, 0);
    for path in rdbs(&snapshot, &opened, session).await? {
        let file = session.unless_cancelled(snapshot.file(&path)).await?;
        let file = file.map_err(|error| opened.failed(error))?;
        let target = format!("{path} in snapshot {}", info.id.short());
        let mut listing = KeyListing::new(target, file.read(0..u64::MAX), selection.clone());
        while !session.output.is_unread() {
            let next = session.unless_cancelled(listing.next()).await?;
            let Some(record) = next.map_err(|error| opened.of_store(error))? else { break };
            keys += 1;
            bytes += record.end - record.start;
            show(&record, session);
        }
        of += listing.keys().unwrap_or(0);
    }
    let exit = Exit::with_warnings(session.context.warnings());
    let (snapshot, store) = (info.id.to_string(), info.store.to_string());
    session
        .output
        .event("summary", &Summary { snapshot, store, keys, bytes, of, exit: exit.code() });
    if !session.output.is_unread() {
        let shown = number(keys, "key", "keys");
        session.output.say(&format!("{shown} of {of}, {}", size(bytes)));
    }
    Ok(exit)
}

/// The RDBs of a snapshot: one of a server, and one for each shard of a cluster.
pub(super) async fn rdbs(
    snapshot: &Snapshot,
    opened: &Opened,
    session: &Session,
) -> Result<Vec<EntryPath>, Failed> {
    let mut members = snapshot.members(None);
    let mut found = Vec::new();
    loop {
        let next = session.unless_cancelled(members.next()).await?;
        let Some(member) = next.map_err(|error| opened.failed(error))? else { break };
        if member.entry.path.as_bytes().ends_with(b".rdb") {
            found.push(member.entry.path);
        }
    }
    if found.is_empty() {
        let message = format!("snapshot {} holds no RDB", snapshot.info().id.short());
        let hint = "name another snapshot; `lifeboat snapshots` lists them";
        return Err(Error::new(ErrorKind::NotFound, message).with_hint(hint).into());
    }
    Ok(found)
}

fn show(record: &Record, session: &Session) {
    if session.output.is_json() {
        session.output.event("key", &Key::from(record));
        return;
    }
    let expires = record.expires.and_then(|at| Timestamp::from_millisecond(at).ok());
    let expires = expires.map_or_else(|| "-".to_owned(), time);
    session.output.listed(&format!(
        "{:>3}  {:<6}  {:>10}  {expires:<20}  {}",
        record.database,
        record.kind.as_str(),
        size(record.end - record.start),
        shown(&record.name),
    ));
}

/// A name on one line, without tricks for terminals.
fn shown(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if !text.chars().any(char::is_control) => one_line(text),
        _ => name.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_they_are_unless_that_does_harm() {
        assert_eq!(shown("Größe:1".as_bytes()), "Größe:1");
        assert_eq!(shown(b"a\x1b[31m\n"), "a\\x1b[31m\\n");
        assert_eq!(shown(b"\xff1"), "\\xff1");
    }
}
