//! Deleting what was marked.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::{Failure, SnapshotId, Timestamp};

use super::plan::Plan;
use super::{MARGIN, PackSet, Prune, PruneMode, PruneReport};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId};
use crate::index::IndexObject;
use crate::maintenance::lease::REQUEST;
use crate::maintenance::session::Sessions;
use crate::maintenance::trash::{Mark, Marks};
use crate::objects::{INDEX, name_in, pack_name};
use crate::storage::Shelf;

/// How many packs are deleted at once.
const AT_ONCE: usize = 16;
/// An index object is stored when it names so many chunks; it then has about 20 MB.
const CHUNKS: usize = 300_000;

impl Prune<'_> {
    /// Takes back the marks of what is needed, and deletes what has waited long enough. The result
    /// is what is gone.
    pub(super) async fn sweep(
        &self,
        plan: &Plan,
        shelf: &Shelf,
        marks: &Marks,
        sessions: &Sessions,
        roots: &HashMap<SnapshotId, ChunkId>,
        report: &mut PruneReport,
    ) -> Result<PackSet> {
        let mut due = PackSet::new();
        let mut rescued = PackSet::new();
        for mark in &marks.marks {
            for pack in &mark.packs {
                if plan.needs(pack) {
                    rescued.insert(*pack);
                }
            }
            match self.waits(mark, sessions) {
                Some(why) => {
                    report.waits_for.push(why);
                    let waiting = mark.packs.iter().filter(|pack| !plan.needs(pack));
                    waiting.for_each(|pack| report.waiting.add(plan.size(pack)));
                }
                None => {
                    due.extend(mark.packs.iter().filter(|pack| self.may_go(plan, shelf, pack)));
                }
            }
        }
        report.waits_for.sort();
        report.waits_for.dedup();
        rescued.iter().for_each(|pack| report.rescued.add(plan.size(pack)));
        // What is named by two marks, of which one still waits, waits.
        let waiting = marks.marks.iter().filter(|mark| self.waits(mark, sessions).is_some());
        waiting.flat_map(|mark| &mark.packs).for_each(|pack| {
            due.remove(pack);
        });
        if self.options.mode == PruneMode::DryRun {
            due.iter().for_each(|pack| report.deleted.add(plan.size(pack)));
            return Ok(due);
        }
        // Once more, in case the first listing was behind: what came meanwhile is seen by the next
        // run, before it deletes.
        let now = self.repository.needed_roots().await?;
        if now.iter().any(|(id, _)| !roots.contains_key(id)) {
            report.waits_for.push("a snapshot that was committed meanwhile".to_owned());
            due.iter().for_each(|pack| report.waiting.add(plan.size(pack)));
            due.clear();
        }
        if let Some(why) = self.is_behind(plan, marks, &due).await? {
            report.waits_for.push(why);
            due.iter().for_each(|pack| report.waiting.add(plan.size(pack)));
            due.clear();
        }
        let gone = self.delete(plan, due, report).await?;
        self.tidy(marks, &rescued, &gone).await?;
        Ok(gone)
    }

    /// Whether a listing turns out to be behind on which the deletion of packs relies. All of this
    /// is asked of single objects, whose absence no store is wrong about.
    ///
    /// What is also elsewhere must be there: a pack that an earlier run has just deleted may still
    /// be listed. And a mark must stand: whoever took it back found out that the pack is needed.
    async fn is_behind(&self, plan: &Plan, marks: &Marks, due: &PackSet) -> Result<Option<String>> {
        if due.is_empty() {
            return Ok(None);
        }
        if let Some(pack) = self.absent(plan.relied_on()).await?.into_iter().next() {
            return Ok(Some(format!("a listing of packs that is behind: {pack} is gone")));
        }
        let objects = &self.repository.shared().objects;
        for mark in marks.marks.iter().filter(|mark| mark.packs.iter().any(|it| due.contains(it))) {
            if objects.head(&mark.name).await?.is_none() {
                return Ok(Some(format!(
                    "a listing of marks that is behind: {} is gone",
                    mark.name
                )));
            }
        }
        Ok(None)
    }

    /// Why what was marked has to wait, if it has to.
    fn waits(&self, mark: &Mark, sessions: &Sessions) -> Option<String> {
        let left = self.options.keep_marked.saturating_sub(self.clock.age(mark.since));
        if !left.is_zero() {
            return Some(format!(
                "{} minutes, since it was marked only now",
                left.as_secs() / 60 + 1
            ));
        }
        let oldest = sessions.oldest().filter(|begun| *begun <= mark.since + MARGIN)?;
        Some(format!("the backup that began at {oldest} and is under way"))
    }

    fn may_go(&self, plan: &Plan, shelf: &Shelf, pack: &ObjectId) -> bool {
        let modified = plan.modified(pack);
        let young =
            modified.is_some_and(|modified| self.young_until(shelf, pack, modified).is_some());
        !plan.needs(pack) && !young
    }

    /// Takes packs out of the index, and then deletes them.
    async fn delete(&self, plan: &Plan, due: PackSet, report: &mut PruneReport) -> Result<PackSet> {
        let vanished = self.absent(plan.vanished()).await?;
        let unnamed: PackSet = due.iter().copied().chain(vanished).collect();
        if unnamed.is_empty() {
            return Ok(due);
        }
        self.lease.check().await?;
        // In this order: whoever finds a pack in the index must find the pack.
        if let Err(error) = self.drop_from_index(&unnamed).await {
            if error.is_retryable() || !matches!(error, Error::Store { doing: "delete", .. }) {
                return Err(error);
            }
            // The index still names them, so they must stay.
            due.iter().for_each(|pack| report.refused.add(plan.size(pack)));
            report.refusal = Some(lifeboat_core::Error::from(error).one_line());
            return Ok(PackSet::new());
        }
        self.lease.check().await?;
        let mut gone = PackSet::new();
        let mut deletions = stream::iter(due)
            .map(|pack| async move { (pack, self.delete_pack(pack).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((pack, result)) = deletions.next().await {
            match result {
                Ok(()) => {
                    gone.insert(pack);
                    // One that a mark outlived is gone already.
                    let Some(modified) = plan.modified(&pack) else {
                        continue;
                    };
                    report.deleted.add(plan.size(&pack));
                    if let Some(retention) = report.keeping.and_then(|keeping| keeping.retention) {
                        let days = Duration::from_hours(24 * u64::from(retention.days));
                        let until = modified.saturating_add(days).unwrap_or(Timestamp::MAX);
                        report.locked_until = report.locked_until.max(Some(until));
                    }
                }
                Err(Error::LeaseLost) => return Err(Error::LeaseLost),
                // Under object lock, or for who may not: it stays marked, and a later run tries it.
                Err(error) if !error.is_retryable() => {
                    report.refused.add(plan.size(&pack));
                    report.refusal.get_or_insert(lifeboat_core::Error::from(error).one_line());
                    let until = self.locked_until(&pack_name(pack)).await;
                    report.locked_until = report.locked_until.max(until);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    /// Until when the store keeps an object from being deleted, if it says so.
    async fn locked_until(&self, name: &str) -> Option<Timestamp> {
        let warehouse = self.repository.shared().warehouse.as_ref()?;
        match warehouse.standing(name).await {
            Ok(standing) => standing?.locked_until,
            Err(error) => {
                tracing::debug!(%error, "the store does not say until when");
                None
            }
        }
    }

    /// Those of some packs that are not there. A listing that lacks one is no proof of that, and one
    /// that shows it none of the contrary.
    async fn absent(&self, packs: impl Iterator<Item = ObjectId>) -> Result<PackSet> {
        let objects = &self.repository.shared().objects;
        let asked = stream::iter(packs.collect::<Vec<_>>()).map(|pack| {
            let objects = objects.clone();
            async move { Ok::<_, Error>((pack, objects.head(&pack_name(pack)).await?.is_none())) }
        });
        let asked: Vec<(ObjectId, bool)> = asked.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(asked.into_iter().filter_map(|(pack, absent)| absent.then_some(pack)).collect())
    }

    /// Deletes one pack, as long as it is ours to delete.
    async fn delete_pack(&self, pack: ObjectId) -> Result<()> {
        self.lease.still().await?;
        let name = pack_name(pack);
        let deleting = self.repository.shared().objects.delete(&name);
        tokio::time::timeout(REQUEST, deleting).await.unwrap_or_else(|_| {
            let source = format!("it took more than {} seconds", REQUEST.as_secs()).into();
            let error = object_store::Error::Generic { store: "the store", source };
            Err(Error::store("delete", &name, error))
        })
    }

    /// Writes index objects without these packs in place of those that name them.
    async fn drop_from_index(&self, packs: &PackSet) -> Result<()> {
        let shared = self.repository.shared();
        let sources = shared.index.sources(packs);
        let mut left = Vec::new();
        let mut chunks = 0;
        for source in &sources {
            let object = IndexObject::read(&shared.objects, &shared.keys, *source).await?;
            let Some(object) = object else {
                continue;
            };
            for pack in object.packs.into_iter().filter(|pack| !packs.contains(&pack.id)) {
                chunks += pack.chunks.len();
                left.push(pack);
                if chunks >= CHUNKS {
                    chunks = 0;
                    let packs = std::mem::take(&mut left);
                    IndexObject { packs }.write(&shared.objects, &shared.keys).await?;
                }
            }
        }
        if !left.is_empty() {
            IndexObject { packs: left }.write(&shared.objects, &shared.keys).await?;
        }
        self.lease.check().await?;
        for source in &sources {
            shared.objects.delete(&name_in(INDEX, *source)).await?;
        }
        shared.refresh_index().await
    }

    /// Brings the marks to where the packs are: those of rescued and deleted ones go.
    async fn tidy(&self, marks: &Marks, rescued: &PackSet, gone: &PackSet) -> Result<()> {
        let shared = self.repository.shared();
        for mark in &marks.marks {
            let settled = |pack: &&ObjectId| rescued.contains(*pack) || gone.contains(*pack);
            if !mark.packs.iter().any(|pack| settled(&pack)) {
                continue;
            }
            let left: Vec<_> = mark.packs.iter().filter(|pack| !settled(pack)).copied().collect();
            self.lease.check().await?;
            if !left.is_empty() {
                Marks::add(&shared.objects, &shared.keys, &left).await?;
            }
            shared.objects.delete_if_allowed(&mark.name).await?;
        }
        Ok(())
    }
}
