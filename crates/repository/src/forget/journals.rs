//! Journals of which no promised moment needs all.
//!
//! A base and the journal after it are one unit: while a policy promises moments, the journal stays
//! from the oldest base on that it keeps for them. What lies before goes with the bases that were
//! forgotten. Pieces that were sealed while a segment was still being written go, too, a day after
//! the whole of it was there: whoever listed them before, to read them, is done by then. Nothing
//! goes where that cannot be told for sure: when a policy promises no moments,
//! when a base does not say where in the journal it begins, when anything of the journal or a
//! snapshot cannot be read; and of timelines that do not lead to a base nothing goes at all.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::SignedDuration;
use lifeboat_core::journal::{
    JournalLog, JournalName, ListedSegment, Need, SegmentKind, Span, TimelineInfo, current,
    outlived,
};
use lifeboat_core::{
    Context, ErrorKind, JournalNeed, SnapshotId, SnapshotInfo, Timestamp, Verdict,
};

use super::ForgetPlan;
use crate::error::{Error, Result};
use crate::journal::{JournalOptions, object_of};
use crate::maintenance::{Lease, StoreClock};
use crate::objects::{SNAPSHOTS, id_of};
use crate::repository::Repository;

/// How long a whole segment has been there before the pieces go that it supersedes.
const SETTLED: SignedDuration = SignedDuration::from_hours(24);
/// So many are deleted between two looks at the lease.
const STEP: usize = 64;
/// How many are deleted at once.
const AT_ONCE: usize = 8;

/// What may go of a journal, and what stays because of which base.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlannedTrim {
    /// Which journal.
    pub journal: JournalName,
    /// What the policy needs of it; of several groups what begins first. `None` when all of it
    /// stays for another reason.
    pub need: Option<JournalNeed>,
    /// Where that base begins in the journal.
    pub from: Option<Need>,
    /// What may go, the oldest first; also records of gaps.
    pub goes: Vec<ListedSegment>,
    /// How many segments stay.
    pub stays: u64,
    /// Bytes that these take.
    pub stays_stored: u64,
    /// Why all of it stays, when it is not that all of it is needed.
    pub held: Option<String>,
    /// The bases that were counted on.
    bases: Vec<SnapshotId>,
}

impl PlannedTrim {
    /// How many segments may go.
    pub fn segments(&self) -> u64 {
        self.goes.iter().filter(|one| one.place.kind == SegmentKind::Sealed).count() as u64
    }

    /// Bytes that what may go takes.
    pub fn stored(&self) -> u64 {
        self.goes.iter().map(|one| one.stored).sum()
    }
}

/// What became of a journal of which a part was to go.
#[derive(Debug)]
#[non_exhaustive]
pub struct Trimmed {
    /// Which journal.
    pub journal: JournalName,
    /// How many segments went, or were gone already.
    pub segments: u64,
    /// Bytes that they took, with those of records of gaps.
    pub stored: u64,
    /// Why all of it stays, because of what others did meanwhile.
    pub spared: Option<String>,
    /// The objects that the store did not delete, and why. The others went all the same.
    pub failed: Vec<(String, Error)>,
}

impl Repository {
    /// What `plan` means for the journals of the stores that it judges. It touches nothing.
    ///
    /// # Errors
    /// When the store cannot be listed or read. What is damaged is no error: then all stays.
    pub async fn plan_trims(&self, plan: &ForgetPlan) -> Result<Vec<PlannedTrim>> {
        let list = self.journals().await?;
        let mut trims = Vec::new();
        for journal in list.journals {
            if !plan.groups.iter().any(|group| group.group.store == *journal.store()) {
                continue;
            }
            let mut trim = self.plan_trim(journal, plan).await?;
            if let Some((object, what)) = list.damaged.first() {
                trim.hold(format!("{object}, which may belong to it, cannot be read: {what}"));
            }
            trims.push(trim);
        }
        Ok(trims)
    }

    async fn plan_trim(&self, journal: JournalName, plan: &ForgetPlan) -> Result<PlannedTrim> {
        let log = self.journal(&journal, &JournalOptions::default());
        let mut trim = PlannedTrim {
            journal,
            need: None,
            from: None,
            goes: Vec::new(),
            stays: 0,
            stays_stored: 0,
            held: None,
            bases: Vec::new(),
        };
        let timelines = match log.timelines().await {
            Ok(timelines) => timelines,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                trim.hold(format!("what tells of its timelines cannot be read: {error}"));
                return Ok(trim);
            }
            Err(error) => return Err(error.into()),
        };
        let mut segments = Vec::new();
        for info in &timelines {
            segments.extend(log.list(&info.timeline, Span::ALL).await?);
        }
        match trim.needs(plan, &timelines) {
            Ok(_) if self.shared().features().has_weak_puts() => {
                trim.hold("the store cannot tell whether another process deletes, too".to_owned());
            }
            Ok(needs) => match outlived(&timelines, &segments, &needs) {
                Ok(goes) => {
                    trim.goes = goes;
                    for info in &timelines {
                        let of_it =
                            segments.iter().filter(|one| one.place.timeline == info.timeline);
                        let listed: Vec<_> = of_it.cloned().collect();
                        trim.goes.extend(superseded(&log, &listed).await?);
                    }
                }
                Err(error) => trim.hold(error.to_string()),
            },
            Err(why) => trim.hold(why),
        }
        trim.goes.sort_by_key(|one| (one.place.span, one.place.timeline.clone()));
        trim.goes.dedup();
        let goes: BTreeSet<_> = trim.goes.iter().map(|one| &one.place).collect();
        let stays = segments.iter().filter(|one| !goes.contains(&one.place));
        let (stays, bytes): (Vec<_>, Vec<_>) = stays.map(|one| (&one.place, one.stored)).unzip();
        let sealed = stays.iter().filter(|place| place.kind == SegmentKind::Sealed);
        (trim.stays, trim.stays_stored) = (sealed.count() as u64, bytes.iter().sum());
        Ok(trim)
    }

    /// Deletes what `trims` say may go, the oldest first, and tells of each journal what became of
    /// it. Doing it again does no harm.
    ///
    /// # Errors
    /// When nothing may be deleted at all: the repository asks for more than this program knows,
    /// the clocks are too far apart, or somebody else keeps the repository in order; and when
    /// the context is cancelled. That the store refuses to delete some is no error: it is in the
    /// result.
    pub async fn trim(&self, trims: &[PlannedTrim], context: &Context) -> Result<Vec<Trimmed>> {
        if trims.iter().all(|trim| trim.goes.is_empty()) {
            return Ok(Vec::new());
        }
        let shared = self.shared();
        shared.refresh_features().await?.may_delete()?;
        let clock = StoreClock::ask(&shared.objects).await?;
        clock.agree()?;
        context.phase("trim journals");
        let lease = Lease::take(&shared.objects, &shared.keys, &clock, "trim journals").await?;
        let mut done = Vec::new();
        let mut result = Ok(());
        for trim in trims.iter().filter(|trim| !trim.goes.is_empty()) {
            match self.trim_one(trim, &lease, context).await {
                Ok(trimmed) => done.push(trimmed),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        lease.give_back().await;
        result.map(|()| done)
    }

    async fn trim_one(
        &self,
        trim: &PlannedTrim,
        lease: &Lease,
        context: &Context,
    ) -> Result<Trimmed> {
        let shared = self.shared();
        let journal = trim.journal.clone();
        let mut done =
            Trimmed { journal, segments: 0, stored: 0, spared: None, failed: Vec::new() };
        let there: BTreeSet<_> = shared
            .objects
            .list(SNAPSHOTS)
            .try_filter_map(async |listed| Ok(id_of(&listed.name)))
            .map_ok(|id| SnapshotId::from_bytes(*id.as_bytes()))
            .try_collect()
            .await?;
        if let Some(gone) = trim.bases.iter().find(|base| !there.contains(base)) {
            let gone = gone.short();
            done.spared = Some(format!("snapshot {gone}, which was counted on, is gone meanwhile"));
            return Ok(done);
        }
        for step in trim.goes.chunks(STEP) {
            context.check()?;
            lease.check().await?;
            let mut named = Vec::with_capacity(step.len());
            for one in step {
                named.push((object_of(shared, &trim.journal, &one.place)?, one));
            }
            let mut deletions = stream::iter(named)
                .map(async |(name, one)| (shared.objects.delete(&name).await, name, one))
                .buffered(AT_ONCE);
            while let Some((deleted, name, one)) = deletions.next().await {
                match deleted {
                    Ok(()) => {
                        done.segments += u64::from(one.place.kind == SegmentKind::Sealed);
                        done.stored += one.stored;
                    }
                    Err(error) => done.failed.push((name, error)),
                }
            }
        }
        Ok(done)
    }
}

/// What of a timeline lies within longer segments that have been there for [`SETTLED`]. The last
/// time in the timeline is the clock: that of who wrote both.
async fn superseded(
    log: &impl JournalLog,
    listed: &[ListedSegment],
) -> lifeboat_core::Result<Vec<ListedSegment>> {
    let wholes = current(listed);
    let within = |one: &ListedSegment| {
        let span = one.place.span;
        let at = wholes.partition_point(|whole| whole.place.span.to() < span.to());
        let whole = wholes.get(at).filter(|whole| whole.place.span.from() <= span.from());
        whole.filter(|whole| whole.place != one.place).map(|_| at)
    };
    let sealed = listed.iter().filter(|one| one.place.kind == SegmentKind::Sealed);
    let pieces: Vec<_> = sealed.filter_map(|one| Some((within(one)?, one))).collect();
    let (Some(_), Some(newest)) = (pieces.first(), wholes.last()) else {
        return Ok(Vec::new());
    };
    let time = async |one: &ListedSegment| -> lifeboat_core::Result<Option<Timestamp>> {
        Ok(log.segment(&one.place).await?.and_then(|known| known.info.last_time))
    };
    let Some(now) = time(newest).await? else {
        return Ok(Vec::new());
    };
    // Times ascend with positions, so that a handful is read.
    let (mut low, mut high) = (0, wholes.len());
    while low < high {
        let middle = low.midpoint(high);
        match time(&wholes[middle]).await? {
            Some(then) if now.duration_since(then) >= SETTLED => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(pieces.into_iter().filter(|(at, _)| *at < low).map(|(_, one)| one.clone()).collect())
}

impl PlannedTrim {
    /// All of it stays.
    fn hold(&mut self, why: String) {
        self.stays += self.segments();
        self.stays_stored += self.stored();
        self.goes.clear();
        self.held.get_or_insert(why);
    }

    /// From where on the bases need it that the plan keeps for moments that it promises; or why
    /// that cannot be told.
    fn needs(
        &mut self,
        plan: &ForgetPlan,
        timelines: &[TimelineInfo],
    ) -> std::result::Result<Vec<Need>, String> {
        if let Some(object) = plan.unreadable.first() {
            return Err(format!("{object}, which may be a base, cannot be read"));
        }
        let store = self.journal.store();
        let groups = plan.groups.iter().filter(|group| group.group.store == *store);
        let mut bases: Vec<(&SnapshotInfo, JournalNeed)> = Vec::new();
        for group in groups {
            let need = group.journal.as_ref();
            let need = need.ok_or("no rule says which of its moments must be recoverable")?;
            let kept = group.rows().filter(|(info, decision)| {
                decision.verdict == Verdict::Keep && info.started >= need.from
            });
            // All of them, not the first alone: clocks of hosts may not agree on which that is.
            bases.extend(kept.map(|(info, _)| (info, need.clone())));
        }
        let mut needs = Vec::new();
        for (info, _) in &bases {
            let id = info.id.short();
            let need = Need::of(info, self.journal.stream())
                .ok_or_else(|| format!("snapshot {id} does not say where in it it begins"))?;
            if !timelines.iter().any(|known| known.timeline == need.timeline) {
                let timeline = need.timeline;
                return Err(format!("snapshot {id} begins on timeline {timeline}, which it lacks"));
            }
            needs.push(need);
        }
        let first = bases.iter().min_by_key(|(_, need)| need.from);
        if let Some((_, need)) = first {
            self.from = bases
                .iter()
                .zip(&needs)
                .find(|((info, _), _)| info.id == need.base)
                .map(|(_, from)| from.clone());
            self.need = Some(need.clone());
        }
        self.bases = bases.iter().map(|(info, _)| info.id).collect();
        Ok(needs)
    }
}
