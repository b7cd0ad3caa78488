//! `lifeboat copy`: copies snapshots into another repository.

use jiff::Timestamp;
use lifeboat_core::{Comparison, Error, ErrorKind, Failure, SnapshotInfo};
use lifeboat_repository::{Copied, CopyOptions, CopyPlan, CopySelection, Verification};
use serde::Serialize;

use super::which::resolve;
use crate::args::{Copy, Since};
use crate::exit::Exit;
use crate::failure::{Failed, place};
use crate::output::{duration, number, size, time};
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
    warnings: u64,
    exit: u8,
}

pub(super) async fn run(arguments: &Copy, session: &Session) -> Result<Exit, Failed> {
    // One after the other: both may have to ask a person.
    let from = session.repository().await?;
    let to = session.other(&arguments.to, &arguments.other).await?;
    let options = options(arguments, &from, session).await?;
    let planning = Box::pin(from.repository.plan_copy(&to.repository, &options));
    let plan =
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
        let told = number(plan.missing().len() as u64, "snapshot", "snapshots");
        session.output.begin(&format!("copy {told} to {}", summary.to));
        summary.verified = arguments.verify;
        all(plan, (&from, &to), &mut summary, session).await?;
    }
    session.output.finish();
    summary.warnings = session.context.warnings();
    let exit = match (summary.copied, summary.failed) {
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
    mut plan: CopyPlan,
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
        return;
    }
    let (read, stored) = (size(summary.read), size(summary.stored));
    let verified = if summary.verified { ", each read back and compared" } else { "" };
    say(format!(
        "copied {count} to {}, {read} read, {stored} stored{verified}{present}",
        summary.to
    ));
    if summary.failed > 0 {
        let failed = number(summary.failed, "snapshot was", "snapshots were");
        session.output.warn(&format!("{failed} not copied: see the warnings above"));
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
