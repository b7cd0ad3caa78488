//! Giving back the room that nothing needs any more.
//!
//! One run goes through one cycle: it learns what the snapshots refer to, joins that with the
//! index, both in the order of ids and as streams, and so knows of each pack how much of it is
//! needed. Then
//!
//! - marked packs that are needed again are *rescued*: their mark is taken back;
//! - marked packs that have waited long enough, and for every session that is older than the mark,
//!   are *deleted*;
//! - packs of which too much is waste are *repacked*: what is needed of them is stored again;
//! - packs that are not needed, those that were just repacked among them, are *marked*.
//!
//! A chunk that is in several packs counts for one of them, so that copies go as well. A run that
//! is killed leaves a repository in which the next one goes on: every step is either marks, which
//! are judged anew each time, or copies, or the deletion of what the index does not name any more.
//!
//! What is not known is not waste. A snapshot or a page of a tree that cannot be read, or a chunk
//! that no pack has, end the run before anything is marked.

mod plan;
mod repack;
mod sweep;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use lifeboat_core::{Context, Keeping, SnapshotId, Timestamp};

use super::clock::StoreClock;
use super::lease::Lease;
use super::references::{Keep, referenced};
use super::session::Sessions;
use super::trash::Marks;
use crate::config::{Features, MARKS, SESSIONS};
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::repository::Repository;
use crate::snapshot::{RootArea, SnapshotRecord};
use crate::storage::Shelf;
use plan::{Plan, Stored};

/// How a prune is done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PruneOptions {
    /// Whether it is done, or only told what would be.
    pub mode: PruneMode,
    /// How much waste may stay in packs that are needed in part, as a share of all that is stored:
    /// 0 to 1. Less waste costs more copying.
    pub max_waste: f64,
    /// How many bytes of packs are repacked at most. `None` is no limit.
    pub max_repack: Option<u64>,
    /// After so long, no further pack is repacked. `None` is no limit.
    pub max_duration: Option<Duration>,
    /// How long marked packs wait before they are deleted, by the store's clock.
    pub keep_marked: Duration,
    /// Packs younger than this are neither repacked nor deleted. `None` is what the class of storage
    /// in which each lies is billed for at least: to delete earlier saves nothing.
    pub least_age: Option<Duration>,
    /// Whether packs that are sealed with the key of an earlier epoch are sealed anew.
    pub reseal: Reseal,
    /// Who sees to it that only one prunes at a time.
    pub alone: Alone,
}

/// Who sees to it that only one process at a time deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Alone {
    /// The store, by a lease.
    #[default]
    ByLease,
    /// The caller, who promises it: for stores without conditional puts.
    Promised,
}

/// Whether a prune changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PruneMode {
    /// It does.
    #[default]
    Apply,
    /// It only tells what it would do.
    DryRun,
}

/// Whether packs are sealed anew that have a key of an earlier epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reseal {
    /// Where they are repacked anyway.
    #[default]
    WhenRepacked,
    /// All of them, within the limits on repacking.
    All,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            mode: PruneMode::Apply,
            max_waste: 0.05,
            max_repack: None,
            max_duration: None,
            keep_marked: Duration::from_hours(24),
            least_age: None,
            reseal: Reseal::WhenRepacked,
            alone: Alone::ByLease,
        }
    }
}

/// A number of packs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackCount {
    /// How many.
    pub packs: u64,
    /// Their bytes in the store.
    pub bytes: u64,
}

impl PackCount {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }
}

/// What a prune did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneReport {
    /// How many snapshots were kept in view.
    pub snapshots: u64,
    /// Checkpoints that a later snapshot of their store made idle, and that were removed.
    pub checkpoints: u64,
    /// All packs before.
    pub before: PackCount,
    /// Packs that were deleted.
    pub deleted: PackCount,
    /// Packs that were marked, to be deleted by a later run.
    pub marked: PackCount,
    /// Marked packs that are needed again.
    pub rescued: PackCount,
    /// Packs that were repacked; they are among the marked ones as well.
    pub repacked: PackCount,
    /// Bytes that were stored for it.
    pub rewritten: u64,
    /// Marked packs that still wait.
    pub waiting: PackCount,
    /// Why they wait: until when by their age, or for which sessions.
    pub waits_for: Vec<String>,
    /// Packs that nothing needs, or that are marked, and that stay until they are old enough: see
    /// [`PruneOptions::least_age`].
    pub young: PackCount,
    /// When the first of them is, and when the last.
    pub young_until: Option<(Timestamp, Timestamp)>,
    /// Packs in an archive of which a part is waste. They are never repacked, since that takes
    /// reading them: they go as a whole when nothing needs them.
    pub frozen: PackCount,
    /// About how many bytes of them are waste.
    pub frozen_waste: u64,
    /// What becomes of deleted objects, as far as the store says so.
    pub keeping: Option<Keeping>,
    /// When the last of the packs that were deleted, or were not since the store refused, can go for
    /// good, where they are locked.
    pub locked_until: Option<Timestamp>,
    /// Packs whose deletion the store refused.
    pub refused: PackCount,
    /// What the store said to it.
    pub refusal: Option<String>,
    /// Bytes of waste in packs that are needed in part.
    pub waste: u64,
    /// Whether a limit ended the repacking early: another run has more to do.
    pub limited: bool,
}

impl Repository {
    /// Gives back the room that no snapshot needs.
    ///
    /// Safe beside any number of writers, readers and checks, on any number of hosts. What is not
    /// needed is marked by one run, and deleted by a later one.
    ///
    /// # Errors
    /// When somebody else prunes, the clocks do not agree, or something is damaged: then nothing
    /// was marked.
    pub async fn prune(&self, options: &PruneOptions, context: &Context) -> Result<PruneReport> {
        let shared = self.shared();
        let features = shared.refresh_features().await?;
        features.may_delete()?;
        if features.has_weak_puts() && options.alone == Alone::ByLease {
            return Err(Error::NotAlone);
        }
        let clock = StoreClock::ask(&shared.objects).await?;
        clock.agree()?;
        let lease = Lease::take(&shared.objects, &shared.keys, &clock, "prune").await?;
        let done = Prune { repository: self, options, context, clock, lease: &lease };
        let result = done.run().await;
        lease.give_back().await;
        result
    }

    /// The roots of all trees that somebody may want to read.
    async fn needed_roots(&self) -> Result<Vec<(SnapshotId, SnapshotRecord)>> {
        let mut all = self.sound_records(RootArea::Snapshots).await?;
        all.extend(self.sound_records(RootArea::Checkpoints).await?);
        Ok(all)
    }

    async fn sound_records(&self, area: RootArea) -> Result<Vec<(SnapshotId, SnapshotRecord)>> {
        let (records, damaged) = self.records(area).await?;
        match damaged.first() {
            Some((name, what)) => {
                Err(Error::NotKnown { what: format!("{name} cannot be read: {what}") })
            }
            None => Ok(records),
        }
    }

    /// The checkpoints of backups that a whole snapshot has followed.
    async fn idle_checkpoints(&self) -> Result<Vec<SnapshotId>> {
        let whole = self.sound_records(RootArea::Snapshots).await?;
        let mut newest = HashMap::new();
        for (id, record) in whole {
            let info = record.info(id);
            let committed = newest.entry(info.store).or_insert(info.committed);
            *committed = info.committed.max(*committed);
        }
        let checkpoints = self.sound_records(RootArea::Checkpoints).await?;
        let infos = checkpoints.into_iter().map(|(id, record)| record.info(id));
        let idle =
            infos.filter(|info| newest.get(&info.store).is_some_and(|last| *last > info.started));
        Ok(idle.map(|info| info.id).collect())
    }
}

struct Prune<'a> {
    repository: &'a Repository,
    options: &'a PruneOptions,
    context: &'a Context,
    clock: StoreClock,
    lease: &'a Lease,
}

impl Prune<'_> {
    async fn run(&self) -> Result<PruneReport> {
        let shared = self.repository.shared();
        if self.options.mode == PruneMode::Apply {
            let words = |word: &str| vec![word.to_owned()];
            let (write, delete) = (words(SESSIONS), words(MARKS));
            shared.demand(&Features { read: Vec::new(), write, delete }).await?;
        }
        let started = Instant::now();
        let mut report = self.cycle(started).await?;
        if self.options.keep_marked.is_zero()
            && self.options.mode == PruneMode::Apply
            && report.marked.packs > 0
        {
            // Nobody wants to wait: what was marked may go at once, where no session forbids it.
            let second = self.cycle(started).await?;
            report.deleted.packs += second.deleted.packs;
            report.deleted.bytes += second.deleted.bytes;
            report.rescued.packs += second.rescued.packs;
            report.rescued.bytes += second.rescued.bytes;
            report.locked_until = report.locked_until.max(second.locked_until);
            report.waiting = second.waiting;
            report.waits_for = second.waits_for;
            report.refused = second.refused;
            report.refusal = second.refusal;
        }
        Ok(report)
    }

    async fn cycle(&self, started: Instant) -> Result<PruneReport> {
        let shared = self.repository.shared();
        let apply = self.options.mode == PruneMode::Apply;

        self.context.phase("read what the snapshots refer to");
        // In this order: see the argument in the documentation of the module above.
        let marks = Marks::read(&shared.objects, &shared.keys).await?;
        let sessions = Sessions::sweep(&shared.objects, &self.clock).await?;
        let idle = self.repository.idle_checkpoints().await?;
        if apply {
            for id in &idle {
                shared.objects.delete_if_allowed(&RootArea::Checkpoints.name_of(id)).await?;
            }
        }
        let mut roots = self.repository.needed_roots().await?;
        roots.retain(|(id, _)| !idle.contains(id));
        let snapshots = roots.len() as u64;
        let roots: HashMap<_, _> =
            roots.into_iter().map(|(id, record)| (id, record.root())).collect();
        shared.refresh_index().await?;
        if let Some((name, what)) = shared.index.damaged().first() {
            return Err(Error::NotKnown { what: format!("{name} is damaged: {what}") });
        }
        let keep = if apply { Keep::Yes } else { Keep::No };
        let needed = referenced(shared, roots.values().copied(), keep, self.context).await?;

        self.context.phase("compare it with the packs");
        let stored = Stored::list(shared).await?;
        let plan = Plan::make(shared, stored, needed, &marks).await?;
        let checkpoints = idle.len() as u64;
        let shelf = Shelf::ask(shared, self.context).await?;
        let keeping = self.keeping().await;
        let mut report = PruneReport {
            snapshots,
            checkpoints,
            before: plan.all(),
            keeping,
            ..PruneReport::default()
        };
        self.tell_young(&plan, &shelf, &marks, &mut report);

        self.context.phase("delete what has waited long enough");
        let swept = self.sweep(&plan, &shelf, &marks, &sessions, &roots, &mut report).await?;

        self.context.phase("repack what is mostly waste");
        let chosen = self.choose(&plan, &shelf, &sessions, &mut report);
        let mut to_mark = self.unneeded(&plan, &shelf, &sessions);
        let emptied = self.repack(&plan, &chosen, started, &mut report).await?;
        to_mark.extend(emptied);
        to_mark.retain(|pack| !swept.contains(pack));

        self.context.phase("mark what is not needed");
        for pack in &to_mark {
            report.marked.add(plan.size(pack));
        }
        if apply && !to_mark.is_empty() {
            self.lease.check().await?;
            Marks::add(&shared.objects, &shared.keys, &to_mark).await?;
        }
        Ok(report)
    }

    /// The packs that nothing needs and that are not marked yet.
    fn unneeded(&self, plan: &Plan, shelf: &Shelf, sessions: &Sessions) -> Vec<ObjectId> {
        plan.unneeded()
            .filter(|(id, modified)| self.is_settled(shelf, id, *modified, sessions))
            .map(|(id, _)| id)
            .collect()
    }

    /// Whether a pack may go as far as its age tells: it is not of a write that is under way, and
    /// as old as its class of storage wants it.
    fn is_settled(
        &self,
        shelf: &Shelf,
        pack: &ObjectId,
        modified: Timestamp,
        sessions: &Sessions,
    ) -> bool {
        let before_all = sessions.oldest().is_none_or(|begun| modified + MARGIN < begun);
        before_all && self.young_until(shelf, pack, modified).is_none()
    }

    /// When a pack is old enough to go, if it is not yet.
    fn young_until(
        &self,
        shelf: &Shelf,
        pack: &ObjectId,
        modified: Timestamp,
    ) -> Option<Timestamp> {
        let shared = self.repository.shared();
        let of_class = || shelf.of(shared, pack).map_or(Duration::ZERO, |class| class.least);
        let least = self.options.least_age.unwrap_or_else(of_class);
        let young = self.clock.age(modified) < least;
        young.then(|| modified.saturating_add(least).unwrap_or(Timestamp::MAX))
    }

    /// Counts what would go if it were older.
    fn tell_young(&self, plan: &Plan, shelf: &Shelf, marks: &Marks, report: &mut PruneReport) {
        let marked = marks.packs().into_iter().filter(|pack| !plan.needs(pack));
        let marked = marked.filter_map(|pack| Some((pack, plan.modified(&pack)?)));
        for (pack, modified) in plan.unneeded().chain(marked) {
            let Some(until) = self.young_until(shelf, &pack, modified) else {
                continue;
            };
            report.young.add(plan.size(&pack));
            let (first, last) = report.young_until.unwrap_or((until, until));
            report.young_until = Some((first.min(until), last.max(until)));
        }
    }

    /// What becomes of what is deleted. That the store does not say so is no reason to stop.
    async fn keeping(&self) -> Option<Keeping> {
        match self.repository.keeping().await {
            Ok(keeping) => keeping,
            Err(error) => {
                tracing::debug!(%error, "the store does not say what becomes of deleted objects");
                None
            }
        }
    }
}

/// Times of a store come from several machines, and some have only full seconds: what is closer
/// together than this counts as the same moment.
const MARGIN: Duration = Duration::from_mins(1);

/// Packs by name.
type PackSet = HashSet<ObjectId>;
