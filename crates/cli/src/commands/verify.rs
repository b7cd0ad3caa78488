//! `lifeboat verify`: looks for damage in the repository.

use lifeboat_core::{Error, ErrorKind, SnapshotId};
use lifeboat_objstore::Intent;
use lifeboat_repository::{CheckOptions, CheckReport, Damage, check_without_key};
use object_store::ObjectStore;
use object_store::path::Path;
use serde::Serialize;

use crate::args::Verify;
use crate::exit::Exit;
use crate::failure::{Failed, in_repository};
use crate::output::{number, one_line, size};
use crate::session::Session;

/// As many entries of a damaged object are shown to people; programs get all that are known.
const SHOWN: usize = 10;

/// Where the keys and the snapshots are in a repository.
const KEYS: &str = "keys/";
const SNAPSHOTS: &str = "snapshots";

/// The event `damage`.
#[derive(Serialize)]
struct Found<'a> {
    object: &'a str,
    what: &'a str,
    snapshots: Vec<String>,
    entries: Vec<&'a str>,
}

impl<'a> From<&'a Damage> for Found<'a> {
    fn from(damage: &'a Damage) -> Self {
        Self {
            object: &damage.object,
            what: &damage.what,
            snapshots: damage.snapshots.iter().map(ToString::to_string).collect(),
            entries: damage.entries.iter().map(String::as_str).collect(),
        }
    }
}

#[derive(Serialize)]
struct Summary {
    sound: bool,
    every_byte: bool,
    snapshots: u64,
    objects: u64,
    bytes: u64,
    unreferenced: u64,
    damaged: usize,
    exit: u8,
}

pub(super) async fn run(arguments: &Verify, session: &Session) -> Result<Exit, Failed> {
    let options = match arguments.every_byte {
        true => CheckOptions::every_byte(),
        false => CheckOptions::default(),
    };
    let report = if arguments.without_key {
        keyless(&options, session).await?
    } else {
        match session.repository().await {
            Ok(opened) => {
                let checking = Box::pin(opened.repository.check(&options, &session.context));
                let checked = session.unless_cancelled(checking).await?;
                checked.map_err(|error| opened.failed(error))?
            }
            // What keeps it from being opened is damage too, and has to be told like the rest.
            Err(Failed::Error(error)) if error.kind() == ErrorKind::Corrupt => {
                session.output.warn(&Failed::from(error).message());
                session.output.warn("it cannot be opened, so it is looked through without the key");
                let mut report = keyless(&options, session).await?;
                let all = all_snapshots(session).await?;
                // A key says nothing of whom it served; but with this one nothing opened.
                for damage in report.damage.iter_mut().filter(|it| it.object.starts_with(KEYS)) {
                    damage.snapshots.extend(&all);
                }
                report
            }
            Err(failed) => return Err(failed),
        }
    };
    session.output.finish();
    for damage in &report.damage {
        session.output.event("damage", &Found::from(damage));
        tell(damage, session);
    }
    let exit = if report.is_sound() {
        Exit::with_warnings(session.context.warnings())
    } else {
        Exit::Failed
    };
    session.output.event(
        "summary",
        &Summary {
            sound: report.is_sound(),
            every_byte: arguments.every_byte,
            snapshots: report.snapshots,
            objects: report.objects,
            bytes: report.bytes,
            unreferenced: report.unreferenced,
            damaged: report.damage.len(),
            exit: exit.code(),
        },
    );
    conclude(&report, arguments, session);
    Ok(exit)
}

async fn keyless(options: &CheckOptions, session: &Session) -> Result<CheckReport, Failed> {
    let location = session.location()?;
    let store = session.store(&location, Intent::Existing)?;
    let checking = Box::pin(check_without_key(store, options, &session.context));
    let checked = session.unless_cancelled(checking).await?;
    Ok(checked.map_err(|error| in_repository(error, &location))?)
}

/// The snapshots by their names: without a key nothing else is known of them.
async fn all_snapshots(session: &Session) -> Result<Vec<SnapshotId>, Failed> {
    let location = session.location()?;
    let store = session.store(&location, Intent::Existing)?;
    let area = Path::from(SNAPSHOTS);
    let listing = store.list_with_delimiter(Some(&area));
    let listed = session.unless_cancelled(listing).await?.map_err(|source| {
        let kind = lifeboat_objstore::classify(&source);
        in_repository(Error::new(kind, "list the snapshots").with_source(source), &location)
    })?;
    let names = listed.objects.iter().filter_map(|object| object.location.filename());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

fn tell(damage: &Damage, session: &Session) {
    let note = |line: String| session.output.warn(&line);
    note(format!("damaged: {}: {}", one_line(&damage.object), one_line(&damage.what)));
    if !damage.snapshots.is_empty() {
        let names: Vec<_> = damage.snapshots.iter().map(SnapshotId::short).collect();
        note(format!("  snapshots that cannot be restored in full: {}", names.join(", ")));
    }
    for entry in damage.entries.iter().take(SHOWN) {
        note(format!("  entry: {}", one_line(entry)));
    }
    match damage.entries.len().saturating_sub(SHOWN) as u64 {
        0 => {}
        more => note(format!("  and {} more", number(more, "entry", "entries"))),
    }
}

fn conclude(report: &CheckReport, arguments: &Verify, session: &Session) {
    let looked = format!(
        "{}, {}, {} read",
        number(report.snapshots, "snapshot", "snapshots"),
        number(report.objects, "object", "objects"),
        size(report.bytes)
    );
    // Where an index object is damaged, its packs look as if nobody needed them.
    if report.unreferenced > 0 && report.is_sound() {
        let packs = number(
            report.unreferenced,
            "pack of an interrupted backup takes",
            "packs of interrupted backups take",
        );
        session.output.say(&format!("{packs} room; no harm is done"));
    }
    if !report.is_sound() {
        let damaged = number(report.damage.len() as u64, "damaged object", "damaged objects");
        session.output.warn(&format!(
            "{damaged} ({looked}); bring back what is damaged from a copy of the repository, \
             if there is one; what is not named above can still be restored; until then take new \
             backups into a new repository, since a backup into this one relies on what it \
             believes to have"
        ));
        return;
    }
    session.output.say(&format!("no damage found ({looked})"));
    if !arguments.every_byte {
        session.output.say("the content itself was not read: `lifeboat verify --every-byte` does");
    }
}
