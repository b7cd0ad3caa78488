//! `lifeboat verify`: looks for damage in the repository.

use std::time::Duration;

use lifeboat_core::{Error, ErrorKind, SnapshotId};
use lifeboat_objstore::Intent;
use lifeboat_repository::{
    Budget, CheckOptions, CheckReport, Damage, Depth, Remedy, Rolling, Sample, ThawNeed,
    check_without_key,
};
use object_store::ObjectStore;
use object_store::path::Path;
use serde::Serialize;

use super::journals::{Hole, told};
use super::{rehearse, thaw};
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
    next: String,
    snapshots: Vec<String>,
    checkpoints: Vec<String>,
    entries: Vec<&'a str>,
}

impl<'a> From<&'a Damage> for Found<'a> {
    fn from(damage: &'a Damage) -> Self {
        Self {
            object: &damage.object,
            what: &damage.what,
            next: next_step(damage),
            snapshots: damage.snapshots.iter().map(ToString::to_string).collect(),
            checkpoints: damage.checkpoints.iter().map(ToString::to_string).collect(),
            entries: damage.entries.iter().map(String::as_str).collect(),
        }
    }
}

#[derive(Serialize)]
struct Summary {
    sound: bool,
    every_byte: bool,
    snapshots: u64,
    checkpoints: u64,
    objects: u64,
    bytes: u64,
    journals: u64,
    segments: u64,
    gaps: usize,
    unreferenced: u64,
    packs_read: u64,
    packs_bytes: u64,
    archived: u64,
    seed: Option<u64>,
    rolling: Option<Progress>,
    damaged: usize,
    exit: u8,
}

/// How far a rolling check has come.
#[derive(Serialize)]
struct Progress {
    bytes: u64,
    share: Option<u64>,
    never_read: u64,
    full_round_seconds: Option<u64>,
}

impl From<&Rolling> for Progress {
    fn from(rolling: &Rolling) -> Self {
        Self {
            bytes: rolling.bytes,
            share: rolling.share,
            never_read: rolling.never_read,
            full_round_seconds: rolling.full_round.map(|time| time.as_secs()),
        }
    }
}

fn options(arguments: &Verify) -> CheckOptions {
    let mut budget = Budget::default();
    (budget.bytes, budget.duration) = (arguments.budget, arguments.max_duration);
    budget.within = arguments.within;
    let mut options = CheckOptions::default();
    options.depth = match arguments.sample {
        Some(size) => Depth::Sample(Sample { size, seed: arguments.seed }),
        None if arguments.every_byte => Depth::EveryByte,
        None if budget == Budget::default() => Depth::Structure,
        None => Depth::Rolling(budget),
    };
    options
}

pub(super) async fn run(arguments: &Verify, session: &Session) -> Result<Exit, Failed> {
    if let Some(snapshot) = &arguments.rehearsal.restore {
        return rehearse::run(snapshot, arguments, session).await;
    }
    if arguments.rehearsal.target.get().is_some() {
        let hint = "say which snapshot is restored, as in --restore latest";
        return Err(Failed::usage("a recovery target is for --restore", hint));
    }
    let options = options(arguments);
    let report = if arguments.without_key {
        keyless(&options, session).await?
    } else {
        match session.repository().await {
            Ok(opened) => {
                if options.depth == Depth::EveryByte {
                    thaw::see(&opened, &ThawNeed::Everything, &arguments.thawing, session).await?;
                }
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
    gaps(&report, session);
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
            checkpoints: report.checkpoints,
            objects: report.objects,
            bytes: report.bytes,
            journals: report.journals.journals,
            segments: report.journals.segments,
            gaps: report.journals.gaps.len(),
            unreferenced: report.unreferenced,
            packs_read: report.packs_read,
            packs_bytes: report.packs_bytes,
            archived: report.archived,
            seed: report.seed,
            rolling: report.rolling.as_ref().map(Progress::from),
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
    if !damage.checkpoints.is_empty() {
        let names: Vec<_> = damage.checkpoints.iter().map(SnapshotId::short).collect();
        let names = names.join(", ");
        note(format!("  checkpoints of unfinished backups that lack something: {names}"));
    }
    for entry in damage.entries.iter().take(SHOWN) {
        note(format!("  entry: {}", one_line(entry)));
    }
    match damage.entries.len().saturating_sub(SHOWN) as u64 {
        0 => {}
        more => note(format!("  and {} more", number(more, "entry", "entries"))),
    }
    note(format!("  next: {}", next_step(damage)));
}

/// Tells what is missing of journals. That nobody recorded why needs attention: it may still be
/// where the journal comes from.
fn gaps(report: &CheckReport, session: &Session) {
    let gaps = &report.journals.gaps;
    for found in gaps {
        session.output.event("gap", &Hole::new(&found.journal, &found.gap));
    }
    let (recorded, unknown): (Vec<_>, Vec<_>) =
        gaps.iter().partition(|found| found.gap.record.is_some());
    for found in recorded.iter().take(SHOWN) {
        session.context.note("", told(&found.journal, &found.gap));
    }
    for found in unknown.iter().take(SHOWN) {
        session.context.warn("", told(&found.journal, &found.gap));
    }
    let more = gaps.len() - recorded.len().min(SHOWN) - unknown.len().min(SHOWN);
    if more > 0 {
        let more = number(more as u64, "more gap", "more gaps");
        session.output.warn(&format!("  and {more}: `lifeboat journals` shows them all"));
    }
    if !gaps.is_empty() {
        session.output.say(
            "a moment in a gap or after it is recovered from a snapshot that was taken after the \
             gap: where there is none yet, take one",
        );
    }
}

fn conclude(report: &CheckReport, arguments: &Verify, session: &Session) {
    let journals = match report.journals.journals {
        0 => String::new(),
        some => format!(" {},", number(some, "journal", "journals")),
    };
    let looked = format!(
        "{},{journals} {}, {} read",
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
            "{damaged} ({looked}); bring back what is damaged from a copy of the repository, if \
             there is one; else take a backup of each store that is hurt, which makes whole what \
             the store still has, and go on as docs/repair.md says; what is not named above can \
             still be restored"
        ));
        return;
    }
    session.output.say(&format!("no damage found ({looked})"));
    if report.archived > 0 {
        let packs = number(report.archived, "pack", "packs");
        session.output.say(&format!(
            "{packs} in an archive were left out: `lifeboat verify --every-byte --thaw` reads them"
        ));
    }
    if let Some(seed) = report.seed {
        let packs = number(report.packs_read, "pack", "packs");
        session.output.say(&format!("the sample had {packs}; `--seed {seed}` draws it again"));
    } else if let Some(rolling) = &report.rolling {
        let never = match rolling.never_read {
            0 => "every pack was read before".to_owned(),
            more => format!("{} never read so far", number(more, "pack was", "packs were")),
        };
        let of = format!("{} of {}", size(rolling.bytes), size(report.packs_bytes));
        let round = rolling.full_round.map_or_else(String::new, |time| {
            format!("; at this pace everything is read in {}", days(time))
        });
        session.output.say(&format!("{of} read in this run{round}; {never}"));
    } else if !arguments.every_byte && report.packs_read == 0 {
        session.output.say("the content itself was not read: `lifeboat verify --every-byte` does");
    }
}

fn days(time: Duration) -> String {
    match time.as_secs().div_ceil(3600) {
        hours @ 0..72 => number(hours, "hour", "hours"),
        hours => number(hours.div_ceil(24), "day", "days"),
    }
}

/// What to do about a damaged object, on one line.
fn next_step(damage: &Damage) -> String {
    let step = match damage.remedy() {
        Remedy::RepairIndex => "`lifeboat repair index --dry-run`, then without --dry-run",
        Remedy::RepairPacks if damage.snapshots.is_empty() => {
            "no snapshot needs it to be whole: `lifeboat repair packs --dry-run`, then without \
             --dry-run"
        }
        Remedy::RepairPacks => {
            "back up the stores that are hurt (`lifeboat backup …`), then `lifeboat repair packs \
             --dry-run`, then without --dry-run"
        }
        Remedy::Delete => {
            let object = one_line(&damage.object);
            return format!("nothing depends on it: delete the object {object} from the store");
        }
        _ => {
            let object = one_line(&damage.object);
            return format!("bring the object {object} back from a copy of the repository");
        }
    };
    step.to_owned()
}
