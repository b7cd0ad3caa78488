//! `lifeboat forget`: takes snapshots out of the list, by rules or by name.

use comfy_table::{Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use lifeboat_core::{
    Decision, Error, ErrorKind, Failure, GroupBy, KeepRules, SnapshotId, SnapshotInfo, Verdict,
    time_zone_name,
};
use lifeboat_repository::{
    ForgetOptions, ForgetPlan, Forgotten, PlannedGroup, PlannedTrim, SnapshotList,
};
use serde::Serialize;

use super::trims;
use super::which::resolve;
use crate::args::{Forget, Grouping, Rules};
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{number, one_line, size};
use crate::session::{Opened, Session};

/// The event `decision`.
#[derive(Serialize)]
struct Decided<'a> {
    snapshot: String,
    store: String,
    group: String,
    taken: Timestamp,
    verdict: &'a str,
    reasons: Vec<Why<'a>>,
}

#[derive(Serialize)]
struct Why<'a> {
    rule: &'a str,
    words: &'a str,
}

/// The event `journal`.
#[derive(Serialize)]
struct Journal<'a> {
    group: String,
    base: String,
    from: Timestamp,
    position: &'a str,
    recoverable: Timestamp,
    journals: usize,
}

/// The event `outcome`.
#[derive(Serialize)]
struct Outcome<'a> {
    snapshot: String,
    outcome: &'a str,
    why: String,
}

#[derive(Serialize)]
struct Summary {
    policy: Option<String>,
    time_zone: Option<String>,
    dry_run: bool,
    kept: usize,
    planned: usize,
    removed: usize,
    absent: usize,
    spared: usize,
    failed: usize,
    segments: u64,
    journal_bytes: u64,
    exit: u8,
}

/// A plan, and by which rules it was made.
struct Planned {
    plan: ForgetPlan,
    /// Snapshots that were named by all their digits, and are gone already.
    gone: Vec<SnapshotId>,
    policy: Option<String>,
    zone: Option<TimeZone>,
}

impl Planned {
    /// In which times are told.
    fn zone(&self) -> TimeZone {
        self.zone.clone().unwrap_or_else(TimeZone::system)
    }
}

pub(super) async fn run(arguments: &Forget, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let list = opened.snapshots(session).await?;
    let planned = plan(arguments, &list, &opened)?;
    // Somebody who names snapshots says nothing of moments.
    let trims = match planned.policy {
        Some(_) => trims::plan(&planned.plan, &opened, session).await?,
        None => Vec::new(),
    };
    show(&planned, &trims, arguments, session);
    trims::show(&trims, &planned.zone(), arguments, session);
    let (kept, removals) = counts(&planned.plan);
    let mut done = Forgotten::default();
    if !arguments.dry_run {
        // It looks at the context itself: stopped between two steps, it leaves nothing half done.
        let forgetting = Box::pin(opened.repository.forget(&planned.plan, &session.context));
        done = forgetting.await.map_err(|error| opened.failed(error))?;
        session.output.finish();
        done.absent.extend(&planned.gone);
    }
    tell(&done, session);
    if done.removed.is_empty() && !done.failed.is_empty() {
        let (_, error) = done.failed.swap_remove(0);
        let error = Error::from(error).context("forget snapshots: none could be forgotten");
        return Err(opened.failed(match error.kind() {
            ErrorKind::Refused => error.with_hint(REFUSED),
            _ => error,
        }));
    }
    let cut = match arguments.dry_run {
        true => (trims.iter().map(PlannedTrim::segments).sum(), trims::total(&trims)),
        false => trims::trim(&trims, &opened, session).await?,
    };
    let exit = Exit::with_warnings(session.context.warnings());
    session.output.event(
        "summary",
        &Summary {
            policy: planned.policy.clone(),
            time_zone: planned.zone.as_ref().map(time_zone_name),
            dry_run: arguments.dry_run,
            kept,
            planned: removals,
            removed: done.removed.len(),
            absent: done.absent.len(),
            spared: done.spared.len(),
            failed: done.failed.len(),
            segments: cut.0,
            journal_bytes: cut.1,
            exit: exit.code(),
        },
    );
    conclude(&done, kept, removals, arguments, session);
    if cut.0 > 0 {
        let (segments, bytes) = (number(cut.0, "segment", "segments"), size(cut.1));
        let verb = if arguments.dry_run { "would be removed" } else { "removed" };
        session.output.say(&format!("{segments} of journals, {bytes}, {verb}"));
    }
    Ok(exit)
}

pub(super) const REFUSED: &str = "run it with credentials that may delete, or when the store's lock on them has \
                       run out";

fn plan(arguments: &Forget, list: &SnapshotList, opened: &Opened) -> Result<Planned, Failed> {
    let now = Timestamp::now();
    let mut options = ForgetOptions::default();
    options.may_lose_all.clone_from(&arguments.allow_remove_last);
    if !arguments.snapshots.is_empty() {
        let (ids, gone) = named(&arguments.snapshots, list, opened)?;
        let plan = ForgetPlan::of_snapshots(list, &ids, &options, now);
        let plan = plan.map_err(|error| opened.failed(error))?;
        return Ok(Planned { plan, gone, policy: None, zone: None });
    }
    let policy = rules(&arguments.rules).policy().map_err(|error| {
        let hint = "say what to keep, such as --keep-within 14d --keep-weekly 8; or name snapshots";
        Failed::usage(error.to_string(), hint)
    })?;
    for name in &arguments.store {
        options.stores.push(resolve(name, list)?);
    }
    options.group_by = arguments.group_by.iter().filter_map(|by| group_by(*by)).collect();
    let plan = ForgetPlan::of_policy(list, &policy, &options, now);
    let plan = plan.map_err(|error| opened.failed(error))?;
    let zone = Some(policy.time_zone().clone());
    Ok(Planned { plan, gone: Vec::new(), policy: Some(policy.to_string()), zone })
}

fn rules(arguments: &Rules) -> KeepRules {
    let mut rules = KeepRules::default();
    rules.last = arguments.keep_last;
    rules.within = arguments.keep_within;
    rules.hourly = arguments.keep_hourly;
    rules.daily = arguments.keep_daily;
    rules.weekly = arguments.keep_weekly;
    rules.monthly = arguments.keep_monthly;
    rules.quarterly = arguments.keep_quarterly;
    rules.yearly = arguments.keep_yearly;
    rules.tags = arguments.keep_tag.iter().map(|list| list.0.clone()).collect();
    rules.recoverable = arguments.recoverable;
    if let Some(zone) = &arguments.time_zone {
        rules.time_zone = zone.clone();
    }
    rules
}

fn group_by(by: Grouping) -> Option<GroupBy> {
    match by {
        Grouping::Store => None,
        Grouping::Host => Some(GroupBy::Host),
        Grouping::Tags => Some(GroupBy::Tags),
    }
}

/// The snapshots that are meant, and those that were and are gone.
fn named(
    names: &[String],
    list: &SnapshotList,
    opened: &Opened,
) -> Result<(Vec<SnapshotId>, Vec<SnapshotId>), Failed> {
    let (mut ids, mut gone) = (Vec::new(), Vec::new());
    for name in names {
        match (list.find(name, None), name.parse()) {
            (Ok(info), _) => ids.push(info.id),
            // All its digits mean one snapshot only, and that it is gone is what was wanted.
            (Err(lifeboat_repository::Error::NoSuchSnapshot { .. }), Ok(id)) => gone.push(id),
            (Err(error), _) => return Err(opened.failed(error)),
        }
    }
    Ok((ids, gone))
}

fn counts(plan: &ForgetPlan) -> (usize, usize) {
    let decisions = plan.groups.iter().flat_map(|group| &group.decisions);
    let (kept, removed): (Vec<_>, Vec<_>) =
        decisions.partition(|decision| decision.verdict == Verdict::Keep);
    (kept.len(), removed.len())
}

/// Shows each snapshot with what was decided of it: all of them in a dry run, and else to people
/// only those that go.
fn show(planned: &Planned, trims: &[PlannedTrim], arguments: &Forget, session: &Session) {
    if let Some(policy) = &planned.policy {
        session.output.say(&format!("to keep: {policy}"));
    }
    let zone = planned.zone();
    for group in &planned.plan.groups {
        for (info, decision) in group.rows() {
            session.output.event("decision", &decided(group, info, decision));
        }
        let of_store = |trim: &&PlannedTrim| *trim.journal.store() == group.group.store;
        let journals = trims.iter().filter(of_store).count();
        if let Some(need) = &group.journal {
            let (base, from) = (need.base.to_string(), need.from);
            let (position, recoverable) = (need.position.as_str(), need.recoverable);
            let group = group.group.to_string();
            let event = Journal { group, base, from, position, recoverable, journals };
            session.output.event("journal", &event);
        }
        let shown = |decision: &Decision| arguments.dry_run || decision.verdict == Verdict::Remove;
        if group.decisions.iter().any(shown) {
            session.output.listed(&format!("{}:", one_line(&group.group.to_string())));
            session.output.listed(&table(group, &zone, shown));
        }
        if let (true, Some(need)) = (arguments.dry_run, &group.journal) {
            let (base, from) = (need.base.short(), local(need.from, &zone));
            let since = local(need.recoverable, &zone);
            session.output.listed(&match journals {
                0 => {
                    "  no journal of it is kept: only the moments of its snapshots come back".into()
                }
                _ => format!(
                    "  every moment from {since} on is recoverable with the journal from {from} on \
                     (snapshot {base})"
                ),
            });
        }
    }
}

fn decided<'a>(group: &PlannedGroup, info: &SnapshotInfo, decision: &'a Decision) -> Decided<'a> {
    let why = decision.reasons.iter();
    Decided {
        snapshot: info.id.to_string(),
        store: info.store.to_string(),
        group: group.group.to_string(),
        taken: info.taken,
        verdict: decision.verdict.as_str(),
        reasons: why.map(|why| Why { rule: why.rule.as_str(), words: &why.words }).collect(),
    }
}

fn table(group: &PlannedGroup, zone: &TimeZone, shown: impl Fn(&Decision) -> bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "id", "as of", "tags", "reason"]);
    for (info, decision) in group.rows().filter(|(_, decision)| shown(decision)) {
        table.add_row([
            decision.verdict.as_str().to_owned(),
            info.id.short(),
            local(info.taken, zone),
            one_line(&info.tags.join(", ")),
            one_line(&decision.words()),
        ]);
    }
    table.trim_fmt()
}

/// A moment in the policy's time zone, which alone explains its days and weeks.
pub(super) fn local(moment: Timestamp, zone: &TimeZone) -> String {
    moment.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Tells what became of each snapshot.
fn tell(done: &Forgotten, session: &Session) {
    let event = |id: &SnapshotId, outcome: &str, why: String| {
        session.output.event("outcome", &Outcome { snapshot: id.to_string(), outcome, why });
    };
    for id in &done.removed {
        event(id, "removed", String::new());
    }
    for id in &done.absent {
        event(id, "absent", String::new());
    }
    for (id, why) in &done.spared {
        event(id, "spared", why.clone());
        session.output.say(&format!("snapshot {} stays: {why}", id.short()));
    }
    for (id, error) in &done.failed {
        let why = crate::failure::words_of(error);
        event(id, "failed", why.clone());
        session.context.warn(&format!("snapshot {}", id.short()), format!("it stays: {why}"));
    }
}

fn conclude(done: &Forgotten, kept: usize, removals: usize, arguments: &Forget, session: &Session) {
    let snapshots = |count: usize| number(count as u64, "snapshot", "snapshots");
    let stay = |count: usize| {
        let verb = if count == 1 { "stays" } else { "stay" };
        if arguments.snapshots.is_empty() { format!(", {count} {verb}") } else { String::new() }
    };
    if arguments.dry_run {
        let line = format!("{} would be forgotten{}", snapshots(removals), stay(kept));
        return session.output.say(&line);
    }
    let removed = done.removed.len();
    let left = kept + done.spared.len() + done.failed.len();
    session.output.say(&format!("{} forgotten{}", snapshots(removed), stay(left)));
    if !done.absent.is_empty() {
        session.output.say(&format!("{} gone already", snapshots(done.absent.len())));
    }
    if !done.failed.is_empty() {
        let failed = snapshots(done.failed.len());
        let refused = done.failed.iter().any(|(_, error)| error.kind() == ErrorKind::Refused);
        let advice = if refused { REFUSED } else { "run it again" };
        session.output.warn(&format!("{failed} could not be forgotten; {advice}"));
    }
    if removed > 0 {
        session.output.say("no room is free yet: `lifeboat prune` deletes what only they needed");
    }
}
