//! `lifeboat repair`: mends what is damaged.

use lifeboat_core::SnapshotId;
use lifeboat_repository::{Originals, RepairMode, RepairOptions};
use serde::Serialize;

use crate::args::{Mending, Repair};
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{number, one_line, size};
use crate::session::Session;

/// As many lost entries of a snapshot are shown to people; programs get all that are known.
const SHOWN: usize = 20;

pub(super) async fn run(subject: Repair, session: &Session) -> Result<Exit, Failed> {
    match subject {
        Repair::Index(mending) => index(mending, session).await,
        Repair::Packs(mending) => packs(mending, session).await,
        Repair::Snapshots { mending, forget } => {
            let originals = if forget { Originals::Forget } else { Originals::Keep };
            snapshots(mending, originals, session).await
        }
    }
}

fn options(mending: Mending, originals: Originals) -> RepairOptions {
    let mut options = RepairOptions::default();
    options.mode = if mending.dry_run { RepairMode::DryRun } else { RepairMode::Apply };
    options.originals = originals;
    options
}

/// The event `repair`: one object that is, or would be, mended or given up.
#[derive(Serialize)]
struct Object<'a> {
    object: &'a str,
    what: &'a str,
}

#[derive(Serialize)]
struct IndexSummary {
    dry_run: bool,
    damaged: usize,
    packs: u64,
    chunks: u64,
    unreadable: usize,
    exit: u8,
}

async fn index(mending: Mending, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let options = options(mending, Originals::Keep);
    let repairing = Box::pin(opened.repository.repair_index(&options, &session.context));
    let done = session.unless_cancelled(repairing).await?.map_err(|error| opened.failed(error))?;
    session.output.finish();
    for (object, what) in done.damaged.iter().chain(&done.unreadable) {
        session.output.event("repair", &Object { object, what });
        session.output.warn(&format!("damaged: {}: {}", one_line(object), one_line(what)));
    }
    let exit = match (done.is_idle(), mending.dry_run, done.unreadable.is_empty()) {
        (true, _, _) | (_, false, true) => Exit::with_warnings(session.context.warnings()),
        _ => Exit::Attention,
    };
    let summary = IndexSummary {
        dry_run: mending.dry_run,
        damaged: done.damaged.len(),
        packs: done.packs,
        chunks: done.chunks,
        unreadable: done.unreadable.len(),
        exit: exit.code(),
    };
    session.output.event("summary", &summary);
    if done.is_idle() {
        session.output.say("the index is whole: nothing to do");
        return Ok(exit);
    }
    let packs = number(done.packs, "pack", "packs");
    let aside = number(done.damaged.len() as u64, "damaged index object", "damaged index objects");
    session.output.say(&if mending.dry_run {
        format!(
            "{packs} would be indexed anew and {aside} set aside; `lifeboat repair index` does it"
        )
    } else {
        format!("{packs} indexed anew, {aside} set aside; `lifeboat verify` says what is left")
    });
    if !done.unreadable.is_empty() {
        session.output.warn(
            "the packs named above cannot say what is in them; what only they hold is lost unless \
             they come back from a copy of the repository",
        );
    }
    Ok(exit)
}

/// The event `repair` of a pack.
#[derive(Serialize)]
struct Pack<'a> {
    object: &'a str,
    what: &'a str,
    elsewhere: u64,
    saved: u64,
    lost: u64,
}

#[derive(Serialize)]
struct PacksSummary {
    dry_run: bool,
    packs: usize,
    lost: u64,
    exit: u8,
}

async fn packs(mending: Mending, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let options = options(mending, Originals::Keep);
    let repairing = Box::pin(opened.repository.repair_packs(&options, &session.context));
    let done = session.unless_cancelled(repairing).await?.map_err(|error| opened.failed(error))?;
    session.output.finish();
    for pack in &done.packs {
        let (object, what) = (pack.object.as_str(), pack.what.as_str());
        let (elsewhere, saved, lost) = (pack.elsewhere, pack.saved, pack.lost);
        session.output.event("repair", &Pack { object, what, elsewhere, saved, lost });
        session.output.warn(&format!(
            "damaged: {}: {}; {elsewhere} chunks are elsewhere, {saved} still open, {lost} are lost",
            one_line(object),
            one_line(what)
        ));
    }
    let exit = match (done.is_idle(), mending.dry_run, done.lost()) {
        (true, _, _) | (_, false, 0) => Exit::with_warnings(session.context.warnings()),
        _ => Exit::Attention,
    };
    let (packs, lost) = (done.packs.len(), done.lost());
    let summary = PacksSummary { dry_run: mending.dry_run, packs, lost, exit: exit.code() };
    session.output.event("summary", &summary);
    let packs = number(packs as u64, "damaged pack", "damaged packs");
    session.output.say(&match (done.is_idle(), mending.dry_run, lost) {
        (true, _, _) => {
            "no pack is known to be damaged: `lifeboat verify --every-byte` looks".into()
        }
        (_, true, _) => format!(
            "{packs} would be taken out of the index, and what still opens stored again; `lifeboat \
             repair packs` does it"
        ),
        (_, _, 0) => format!("{packs} taken out of the index; nothing is lost"),
        _ => format!(
            "{packs} taken out of the index, {lost} chunks are lost; a backup of the same stores \
             brings back what they still have; `lifeboat verify` says who is hurt; for good: \
             `lifeboat repair snapshots --dry-run`"
        ),
    });
    Ok(exit)
}

/// The event `repair` of a snapshot.
#[derive(Serialize)]
struct Hurt<'a> {
    snapshot: String,
    sibling: Option<String>,
    lost_entries: u64,
    lost_bytes: u64,
    lost: &'a [String],
}

#[derive(Serialize)]
struct SnapshotsSummary {
    dry_run: bool,
    snapshots: usize,
    beyond_repair: usize,
    exit: u8,
}

async fn snapshots(
    mending: Mending,
    originals: Originals,
    session: &Session,
) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let options = options(mending, originals);
    let repairing = Box::pin(opened.repository.repair_snapshots(&options, &session.context));
    let done = session.unless_cancelled(repairing).await?.map_err(|error| opened.failed(error))?;
    session.output.finish();
    let warn = |line: String| session.output.warn(&line);
    for hurt in &done.snapshots {
        session.output.event(
            "repair",
            &Hurt {
                snapshot: hurt.snapshot.to_string(),
                sibling: hurt.sibling.as_ref().map(ToString::to_string),
                lost_entries: hurt.lost_entries,
                lost_bytes: hurt.lost_bytes,
                lost: &hurt.lost,
            },
        );
        let lost = number(hurt.lost_entries, "entry", "entries");
        warn(format!(
            "snapshot {} lacks {lost}, {} of content",
            hurt.snapshot.short(),
            size(hurt.lost_bytes)
        ));
        for what in hurt.lost.iter().take(SHOWN) {
            warn(format!("  lost: {}", one_line(what)));
        }
        match hurt.lost.len().saturating_sub(SHOWN) as u64 {
            0 => {}
            more => warn(format!("  and {more} more; --json tells all")),
        }
        if let Some(sibling) = &hurt.sibling {
            let name = SnapshotId::short(sibling);
            session.output.say(&format!("  its sibling {name} has all that is left"));
        }
    }
    for (object, what) in &done.beyond_repair {
        session.output.event("repair", &Object { object, what });
        warn(format!("beyond repair: {}: {}", one_line(object), one_line(what)));
        warn("  next: bring it back from a copy of the repository".to_owned());
    }
    let exit = match (done.is_idle(), done.beyond_repair.is_empty()) {
        (true, _) => Exit::with_warnings(session.context.warnings()),
        (_, true) => Exit::Attention,
        (_, false) => Exit::Failed,
    };
    let summary = SnapshotsSummary {
        dry_run: mending.dry_run,
        snapshots: done.snapshots.len(),
        beyond_repair: done.beyond_repair.len(),
        exit: exit.code(),
    };
    session.output.event("summary", &summary);
    if done.is_idle() {
        session.output.say("no snapshot lacks anything");
    } else if mending.dry_run && !done.snapshots.is_empty() {
        let hurt = number(done.snapshots.len() as u64, "snapshot", "snapshots");
        session.output.say(&format!(
            "a sibling of {hurt} would be made; before that, a backup of the same stores may still \
             make them whole; `lifeboat repair snapshots` does it"
        ));
    }
    Ok(exit)
}
