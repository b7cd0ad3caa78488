//! `lifeboat prune`: gives back the room that no snapshot needs.

use jiff::Timestamp;
use lifeboat_repository::{Alone, PackCount, PruneMode, PruneOptions, PruneReport, Reseal};
use serde::Serialize;

use super::count::Count;
use crate::args::Prune;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{number, size, time};
use crate::session::Session;

#[derive(Serialize)]
struct Summary<'a> {
    dry_run: bool,
    snapshots: u64,
    checkpoints: u64,
    before: Count,
    deleted: Count,
    marked: Count,
    rescued: Count,
    repacked: Count,
    rewritten: u64,
    waiting: Count,
    waits_for: &'a [String],
    young: Count,
    young_from: Option<Timestamp>,
    young_until: Option<Timestamp>,
    frozen: Count,
    frozen_waste: u64,
    versions: Option<bool>,
    locked_until: Option<Timestamp>,
    refused: Count,
    refusal: Option<&'a str>,
    waste: u64,
    limited: bool,
    exit: u8,
}

pub(super) async fn run(arguments: &Prune, session: &Session) -> Result<Exit, Failed> {
    let mut options = PruneOptions::default();
    if arguments.dry_run {
        options.mode = PruneMode::DryRun;
    }
    if arguments.reseal {
        options.reseal = Reseal::All;
    }
    if arguments.alone {
        options.alone = Alone::Promised;
    }
    options.max_waste = arguments.max_waste / 100.0;
    options.max_repack = arguments.max_repack.map(|most| most.as_u64());
    options.max_duration = arguments.max_duration;
    options.keep_marked = arguments.keep_marked;
    options.least_age = arguments.least_age;

    let opened = session.repository().await?;
    let pruning = Box::pin(opened.repository.prune(&options, &session.context));
    let report = session.unless_cancelled(pruning).await?;
    let report = report.map_err(|error| opened.failed(error))?;
    session.output.finish();
    let exit = match report.refused.packs {
        0 => Exit::with_warnings(session.context.warnings()),
        _ => Exit::Attention,
    };
    let summary = Summary {
        dry_run: arguments.dry_run,
        snapshots: report.snapshots,
        checkpoints: report.checkpoints,
        before: report.before.into(),
        deleted: report.deleted.into(),
        marked: report.marked.into(),
        rescued: report.rescued.into(),
        repacked: report.repacked.into(),
        rewritten: report.rewritten,
        waiting: report.waiting.into(),
        waits_for: &report.waits_for,
        young: report.young.into(),
        young_from: report.young_until.map(|(first, _)| first),
        young_until: report.young_until.map(|(_, last)| last),
        frozen: report.frozen.into(),
        frozen_waste: report.frozen_waste,
        versions: report.keeping.map(|keeping| keeping.versions),
        locked_until: report.locked_until,
        refused: report.refused.into(),
        refusal: report.refusal.as_deref(),
        waste: report.waste,
        limited: report.limited,
        exit: exit.code(),
    };
    session.output.event("summary", &summary);
    tell(&report, arguments, session);
    Ok(exit)
}

/// The day of a moment, in this host's time zone.
fn date(moment: Timestamp) -> String {
    time(moment).split(' ').next().unwrap_or_default().to_owned()
}

fn tell(report: &PruneReport, arguments: &Prune, session: &Session) {
    let packs = |count: PackCount| {
        format!("{} ({})", number(count.packs, "pack", "packs"), size(count.bytes))
    };
    let say = |line: String| session.output.say(&line);
    let (would, will) = if arguments.dry_run { ("would be ", "would ") } else { ("", "will ") };
    say(format!("{} were looked at", packs(report.before)));
    if report.repacked.packs > 0 {
        let rewritten = match arguments.dry_run {
            true => String::new(),
            false => format!("; what is needed of them took {}", size(report.rewritten)),
        };
        say(format!("{would}repacked: {}{rewritten}", packs(report.repacked)));
    }
    if report.rescued.packs > 0 {
        say(format!("{would}rescued, since they are needed again: {}", packs(report.rescued)));
    }
    if report.deleted.packs > 0 {
        say(format!("{would}deleted: {}", packs(report.deleted)));
    }
    let later = PackCount {
        packs: report.marked.packs.saturating_sub(report.deleted.packs),
        bytes: report.marked.bytes.saturating_sub(report.deleted.bytes),
    };
    if later.packs > 0 {
        say(format!("marked: {}; a later prune {will}delete them", packs(later)));
    }
    if report.waiting.packs > 0 {
        let why = report.waits_for.join("; ");
        say(format!("still waiting: {}, for {why}", packs(report.waiting)));
    }
    if let (1.., Some((first, last))) = (report.young.packs, report.young_until) {
        say(format!(
            "not old enough: {}; their class of storage is billed until then in any case: the first \
             can go on {}, the last on {}; --least-age 0s does not wait",
            packs(report.young),
            date(first),
            date(last)
        ));
    }
    if report.frozen.packs > 0 {
        say(format!(
            "left as they are, since they lie in an archive: {} with about {} of waste; they go as \
             a whole when no snapshot needs them",
            packs(report.frozen),
            size(report.frozen_waste)
        ));
    }
    if report.deleted.packs > 0 && report.keeping.is_some_and(|keeping| keeping.versions) {
        let lock = report.locked_until.map_or_else(String::new, |until| {
            format!("; they are locked until {} at the latest", date(until))
        });
        say(format!(
            "the bucket keeps former versions: what is deleted is hidden, and takes room until a \
             lifecycle rule for noncurrent versions removes it{lock}; see docs/storage-classes.md"
        ));
    }
    if report.limited {
        say("a limit ended the repacking early: another prune has more to do".to_owned());
    }
    if report.refused.packs > 0 {
        let why = report.refusal.as_deref().unwrap_or_default();
        let until = report.locked_until.map_or_else(
            || "under object lock they go when their time has passed".to_owned(),
            |until| format!("they are locked until {} at the latest", date(until)),
        );
        session.output.warn(&format!(
            "the store refused to delete {}: {why}; they stay marked, and every later prune tries \
             again; {until}",
            packs(report.refused)
        ));
    }
    let idle = [
        report.repacked,
        report.deleted,
        report.marked,
        report.waiting,
        report.young,
        report.refused,
    ];
    if idle.iter().all(|count| count.packs == 0) {
        say("nothing is to be done".to_owned());
    }
}
