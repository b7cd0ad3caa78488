//! `lifeboat copy`: copies snapshots into another repository; with `--all` pins and journals, too.

use jiff::Timestamp;
use lifeboat_core::{Comparison, Error, ErrorKind, Failure, SnapshotInfo};
use lifeboat_repository::{
    Copied, CopyOptions, CopyPlan, CopySelection, Selection, ThawNeed, Verification,
};
use serde::Serialize;

use super::thaw;
use super::which::resolve;
use crate::args::{Copy, Since};
use crate::exit::Exit;
use crate::failure::{Failed, place};
use crate::output::{duration, number, one_line, size, time};
use crate::session::{Opened, Session};

/// The event `planned`: a snapshot that would be copied.
#[derive(Serialize)]
struct Planned {
    snapshot: String,
    store: String,
    taken: Timestamp,
    entries: u64,
    bytes: u64,
    read: u64,
}

/// The event `copied`: a snapshot that was.
#[derive(Serialize)]
struct Made {
    snapshot: String,
    copy: String,
    store: String,
    taken: Timestamp,
    entries: u64,
    bytes: u64,
    read: u64,
    unchanged: u64,
    new: u64,
    stored: u64,
    seconds: f64,
}

/// The events `pin_planned` and `pin_copied`: a pin that holds the copy of a snapshot as well.
#[derive(Serialize)]
struct Held<'a> {
    pin: String,
    snapshot: String,
    copy: Option<String>,
    reason: &'a str,
    until: Option<Timestamp>,
}

/// The events `journal_planned` and `journal_copied`: what the other repository lacks of a timeline.
#[derive(Serialize)]
struct Stretch<'a> {
    journal: String,
    timeline: &'a str,
    segments: u64,
    gaps: u64,
    stored: u64,
    failed: usize,
}

#[derive(Serialize, Default)]
struct Summary {
    to: String,
    dry_run: bool,
    verified: bool,
    copied: u64,
    present: u64,
    failed: u64,
    read: u64,
    unchanged: u64,
    new: u64,
    stored: u64,
    pins: u64,
    segments: u64,
    gaps: u64,
    journal_bytes: u64,
    journal_failed: u64,
    warnings: u64,
    exit: u8,
}

pub(super) async fn run(arguments: &Copy, session: &Session) -> Result<Exit, Failed> {
    // One after the other: both may have to ask a person.
    let from = session.repository().await?;
    let to = session.other(&arguments.to, &arguments.other).await?;
    let options = options(arguments, &from, session).await?;
    let planning = Box::pin(from.repository.plan_copy(&to.repository, &options));
    let mut plan =
        session.unless_cancelled(planning).await?.map_err(|error| between(error, &from, &to))?;
    for (object, what) in plan.damaged() {
        let told = format!("this snapshot cannot be read, and is not copied: {what}");
        session.context.warn(object, told);
    }
    let mut summary = Summary {
        to: place(&to.location),
        dry_run: arguments.dry_run,
        present: plan.present().len() as u64,
        ..Summary::default()
    };
    if arguments.dry_run {
        let estimating = Box::pin(plan.estimate(&session.context));
        let reads = session.unless_cancelled(estimating).await?;
        let reads = reads.map_err(|error| between(error, &from, &to))?;
        tell_plan(&plan, &reads, &mut summary, session);
    } else {
        let missing = plan.missing().iter().map(|info| (info.id, Selection::all()));
        let need = ThawNeed::Content(missing.collect());
        thaw::see(&from, &need, &arguments.thawing, session).await?;
        let told = number(plan.missing().len() as u64, "snapshot", "snapshots");
        session.output.begin(&format!("copy {told} to {}", summary.to));
        summary.verified = arguments.verify;
        all(&mut plan, (&from, &to), &mut summary, session).await?;
    }
    if arguments.all {
        pins(&plan, (&from, &to), &mut summary, session).await?;
        journals(&plan, (&from, &to), &mut summary, session).await?;
    }
    session.output.finish();
    summary.warnings = session.context.warnings();
    let failed = summary.failed + summary.journal_failed;
    let exit = match (summary.copied + summary.segments, failed) {
        (0, 1..) => Exit::Failed,
        _ => Exit::with_warnings(summary.warnings),
    };
    summary.exit = exit.code();
    session.output.event("summary", &summary);
    conclude(&summary, session);
    Ok(exit)
}

async fn options(
    arguments: &Copy,
    from: &Opened,
    session: &Session,
) -> Result<CopyOptions, Failed> {
    let mut options = CopyOptions::default();
    let list = from.listed(session).await?;
    let store = arguments.store.as_ref().map(|name| resolve(name, &list)).transpose()?;
    options.selection = match &arguments.since {
        _ if !arguments.snapshots.is_empty() => {
            let find = |name: &String| list.find(name, store.as_ref()).map(|info| info.id);
            let found: Result<Vec<_>, _> = arguments.snapshots.iter().map(find).collect();
            CopySelection::Snapshots(found.map_err(|error| from.failed(error))?)
        }
        Some(Since::At(moment)) => CopySelection::Since(*moment),
        Some(Since::Ago(ago)) => {
            let moment = Timestamp::now().checked_sub(*ago).unwrap_or(Timestamp::MIN);
            CopySelection::Since(moment)
        }
        None => CopySelection::All,
    };
    options.store = store;
    if arguments.full {
        options.comparison = Comparison::Nothing;
    }
    if arguments.verify {
        options.verification = Verification::EveryByte;
    }
    Ok(options)
}

/// Copies what is missing. A snapshot that is damaged does not keep the others from it.
async fn all(
    plan: &mut CopyPlan,
    (from, to): (&Opened, &Opened),
    summary: &mut Summary,
    session: &Session,
) -> Result<(), Failed> {
    for original in plan.missing().to_vec() {
        let copying = Box::pin(plan.copy(&original, &session.context));
        match session.unless_cancelled(copying).await? {
            Ok(copied) => {
                tell(&copied, session);
                summary.copied += 1;
                summary.read += copied.read;
                summary.unchanged += copied.unchanged;
                summary.new += copied.new;
                summary.stored += copied.copy.stored;
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                summary.failed += 1;
                let told = Failed::from(Error::from(error));
                session.context.warn(&named(&original), format!("it was not copied: {told}"));
            }
            Err(error) => return Err(between(error, from, to)),
        }
    }
    Ok(())
}

/// Holds the copies as their originals are held.
async fn pins(
    plan: &CopyPlan,
    (from, to): (&Opened, &Opened),
    summary: &mut Summary,
    session: &Session,
) -> Result<(), Failed> {
    let looking = Box::pin(plan.missing_pins());
    let missing = session.unless_cancelled(looking).await?;
    let missing = missing.map_err(|error| between(error, from, to))?;
    for (pin, what) in &missing.damaged {
        let told = format!("it cannot be read, and is not copied: {what}");
        session.context.warn(&format!("pin {pin}"), told);
    }
    for one in &missing.pins {
        let mut held = Held {
            pin: one.pin.id.to_string(),
            snapshot: one.pin.snapshot.to_string(),
            copy: one.copy.map(|copy| copy.to_string()),
            reason: &one.pin.reason,
            until: one.pin.until,
        };
        let what = format!("pin of snapshot {} ({})", one.pin.snapshot.short(), one.pin.reason);
        if summary.dry_run {
            session.output.event("pin_planned", &held);
            session.output.listed(&one_line(&what));
            summary.pins += 1;
            continue;
        }
        // Not dropped in the middle: a pin that was made must be reported.
        let made = Box::pin(plan.copy_pin(one)).await.map_err(|error| between(error, from, to))?;
        // Why there is no copy of the snapshot was told already.
        let Some(made) = made else { continue };
        held.pin = made.id.to_string();
        session.output.event("pin_copied", &held);
        session.output.note(&one_line(&format!("{what}: copied as {}", made.id.short())));
        summary.pins += 1;
    }
    Ok(())
}

/// Copies what is missing of journals. What is damaged does not keep the rest from it.
async fn journals(
    plan: &CopyPlan,
    (from, to): (&Opened, &Opened),
    summary: &mut Summary,
    session: &Session,
) -> Result<(), Failed> {
    let looking = Box::pin(plan.missing_journals());
    let missing = session.unless_cancelled(looking).await?;
    let missing = missing.map_err(|error| between(error, from, to))?;
    for (what, why) in &missing.damaged {
        summary.journal_failed += 1;
        session
            .context
            .warn(what, format!("this journal cannot be read, and is not copied: {why}"));
    }
    for one in &missing.timelines {
        let mut stretch = Stretch {
            journal: one.journal.to_string(),
            timeline: one.timeline.timeline.as_str(),
            segments: one.segments(),
            gaps: one.gaps(),
            stored: one.stored(),
            failed: 0,
        };
        let name = format!("journal {}, timeline {}", stretch.journal, stretch.timeline);
        if summary.dry_run {
            session.output.event("journal_planned", &stretch);
            session.output.listed(&one_line(&format!("{name}: {} would be read", of(&stretch))));
        } else {
            let copying = Box::pin(plan.copy_timeline(one, &session.context));
            match session.unless_cancelled(copying).await? {
                Ok(copied) => {
                    (stretch.segments, stretch.gaps) = (copied.segments, copied.gaps);
                    (stretch.stored, stretch.failed) = (copied.stored, copied.failed.len());
                    for (place, error) in copied.failed {
                        let told = format!("it was not copied: {}", Failed::from(error));
                        session.context.warn(&place, told);
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::AlreadyExists
                    ) =>
                {
                    stretch = Stretch { segments: 0, gaps: 0, stored: 0, failed: 1, ..stretch };
                    let told = format!("it was not copied: {}", Failed::from(error));
                    session.context.warn(&name, told);
                }
                Err(error) => return Err(between(error, from, to)),
            }
            session.output.event("journal_copied", &stretch);
            session.output.note(&one_line(&format!("{name}: {} copied", of(&stretch))));
        }
        summary.segments += stretch.segments;
        summary.gaps += stretch.gaps;
        summary.journal_bytes += stretch.stored;
        summary.journal_failed += stretch.failed as u64;
    }
    Ok(())
}

fn of(stretch: &Stretch<'_>) -> String {
    format!("{}, {}", number(stretch.segments, "segment", "segments"), size(stretch.stored))
}

fn tell(copied: &Copied, session: &Session) {
    let (original, copy) = (&copied.original, &copied.copy);
    let made = Made {
        snapshot: original.id.to_string(),
        copy: copy.id.to_string(),
        store: original.store.to_string(),
        taken: original.taken,
        entries: original.entries,
        bytes: original.bytes,
        read: copied.read,
        unchanged: copied.unchanged,
        new: copied.new,
        stored: copy.stored,
        seconds: copied.elapsed.as_secs_f64(),
    };
    session.output.event("copied", &made);
    session.output.note(&format!(
        "{}: copied as {}, {} read, {} stored, in {}",
        named(original),
        copy.id.short(),
        size(copied.read),
        size(copy.stored),
        duration(copied.elapsed)
    ));
}

fn tell_plan(plan: &CopyPlan, reads: &[u64], summary: &mut Summary, session: &Session) {
    for (info, read) in plan.missing().iter().zip(reads) {
        summary.copied += 1;
        summary.read += read;
        let planned = Planned {
            snapshot: info.id.to_string(),
            store: info.store.to_string(),
            taken: info.taken,
            entries: info.entries,
            bytes: info.bytes,
            read: *read,
        };
        session.output.event("planned", &planned);
        session.output.listed(&format!(
            "{}: {} of {} would be read",
            named(info),
            size(*read),
            size(info.bytes)
        ));
    }
}

fn conclude(summary: &Summary, session: &Session) {
    let say = |line: String| session.output.say(&line);
    let present = match summary.present {
        0 => String::new(),
        some => format!("; {} there already", number(some, "snapshot was", "snapshots were")),
    };
    let count = number(summary.copied, "snapshot", "snapshots");
    if summary.dry_run {
        let read = size(summary.read);
        say(format!("would copy {count} to {}, {read} to be read{present}", summary.to));
        return besides("would copy", summary, session);
    }
    let (read, stored) = (size(summary.read), size(summary.stored));
    let verified = if summary.verified { ", each read back and compared" } else { "" };
    say(format!(
        "copied {count} to {}, {read} read, {stored} stored{verified}{present}",
        summary.to
    ));
    besides("copied", summary, session);
    if summary.failed > 0 {
        let failed = number(summary.failed, "snapshot was", "snapshots were");
        session.output.warn(&format!("{failed} not copied: see the warnings above"));
    }
    if summary.journal_failed > 0 {
        let failed =
            number(summary.journal_failed, "part of a journal was", "parts of journals were");
        session.output.warn(&format!("{failed} not copied: see the warnings above"));
    }
}

/// What there is besides snapshots.
fn besides(verb: &str, summary: &Summary, session: &Session) {
    if summary.pins > 0 {
        session.output.say(&format!("{verb} {}", number(summary.pins, "pin", "pins")));
    }
    if summary.segments + summary.gaps > 0 {
        let segments = number(summary.segments, "segment", "segments");
        let bytes = size(summary.journal_bytes);
        session.output.say(&format!("{verb} {segments} of journals, {bytes}"));
    }
}

fn named(info: &SnapshotInfo) -> String {
    format!("snapshot {} of {}, as of {}", info.id.short(), info.store, time(info.taken))
}

/// An error of one of the two; which one, its text tells as far as anybody knows.
fn between(error: impl Into<Error>, from: &Opened, to: &Opened) -> Failed {
    let error = error.into();
    if error.kind() == ErrorKind::Cancelled {
        return error.into();
    }
    let (from, to) = (place(&from.location), place(&to.location));
    error.context(format!("copy from {from} to {to}")).into()
}
