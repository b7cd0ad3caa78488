//! The choice of a base and of the WAL for a target, before anything is touched.

use std::ops::ControlFlow;

use lifeboat_core::journal::TimelineInfo;
use lifeboat_core::{Result, SnapshotId, Timestamp};

use super::records::{Event, What};
use super::way::Way;
use super::window::{lines, way_to};
use super::{BaseBackup, Bound, RecoveryError, RecoveryTarget, TargetAction, TargetTimeline};
use crate::archive::{WalArchive, WalLine};
use crate::lsn::Lsn;

/// What a recovery shall lead to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecoveryOptions {
    /// Where it ends.
    pub target: RecoveryTarget,
    /// Whether what stands just there is part of it.
    pub bound: Bound,
    /// What the server does then.
    pub action: TargetAction,
    /// To which timeline it goes.
    pub timeline: TargetTimeline,
    /// The snapshot from which it begins; without one, the best is chosen.
    pub base: Option<SnapshotId>,
}

impl RecoveryOptions {
    /// To `target`; everything else as usual.
    pub fn new(target: RecoveryTarget) -> Self {
        Self {
            target,
            bound: Bound::default(),
            action: TargetAction::default(),
            timeline: TargetTimeline::default(),
            base: None,
        }
    }

    /// Sets whether what stands just at the target is part of the result.
    #[must_use]
    pub fn with_bound(mut self, bound: Bound) -> Self {
        self.bound = bound;
        self
    }

    /// Sets what the server does at the target.
    #[must_use]
    pub fn with_action(mut self, action: TargetAction) -> Self {
        self.action = action;
        self
    }

    /// Sets to which timeline it goes.
    #[must_use]
    pub fn with_timeline(mut self, timeline: TargetTimeline) -> Self {
        self.timeline = timeline;
        self
    }

    /// Sets the snapshot from which it begins.
    #[must_use]
    pub fn with_base(mut self, base: SnapshotId) -> Self {
        self.base = Some(base);
        self
    }
}

/// A recovery that can be done: all that it needs was found.
pub struct RecoveryPlan {
    /// The snapshot from which it begins.
    pub base: BaseBackup,
    /// The timeline to which it goes.
    pub line: WalLine,
    /// Up to where WAL is needed.
    pub to: Lsn,
    /// When the last thing that will be there was done, where that is known.
    pub to_time: Option<Timestamp>,
    /// What a person should know of the choice, in words.
    pub notes: Vec<String>,
    pub(crate) way: Way,
    pub(crate) settings: Vec<(&'static str, String)>,
}

impl std::fmt::Debug for RecoveryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("RecoveryPlan");
        shown.field("base", &self.base).field("line", &self.line).field("to", &self.to);
        shown.field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Where recovery is made to stop, and up to where it reads WAL.
struct Stop {
    base: BaseBackup,
    to: Lsn,
    time: Option<Timestamp>,
    settings: Vec<(&'static str, String)>,
    notes: Vec<String>,
}

impl RecoveryPlan {
    /// Chooses. `bases` are of one store, and `archive` is that store's.
    ///
    /// A target is looked for in the WAL itself: a plan says that the server will find it.
    ///
    /// # Errors
    /// [`RecoveryError`] when the target cannot be reached, with what can be; when the archive
    /// cannot be read.
    pub async fn make(
        archive: &WalArchive,
        bases: &[BaseBackup],
        options: &RecoveryOptions,
    ) -> Result<Self> {
        let known = archive.log().timelines().await?;
        let (way, bases) = Self::choose_way(archive, &known, bases, options).await?;
        let on = On { way: &way, bases: &bases, options };
        let stop = match &options.target {
            RecoveryTarget::Immediate => on.immediate()?,
            RecoveryTarget::Latest => on.latest().await?,
            RecoveryTarget::Time(time) => on.time(*time).await?,
            RecoveryTarget::Lsn(lsn) => on.lsn(*lsn).await?,
            RecoveryTarget::Xid(_) | RecoveryTarget::Name(_) => on.named().await?,
        };
        let passed = elsewhere(archive, &way, &stop).await?;
        let (mut notes, mut settings) = (stop.notes, stop.settings);
        notes.extend(passed);
        let system = stop.base.line.system_id;
        if let Some(other) = bases.iter().find(|base| base.line.system_id != system) {
            notes.push(format!(
                "snapshots of two clusters have this name: this is the system {system}, and {} is of {}; name a snapshot of the other to recover that",
                other.snapshot.short(),
                other.line.system_id
            ));
        }
        if options.target != RecoveryTarget::Latest {
            settings.push(("recovery_target_action", options.action.word().to_owned()));
        }
        // A timeline without a history is the base's own.
        let line = way.line;
        let timeline = match options.target {
            RecoveryTarget::Immediate => "current".to_owned(),
            _ if line == stop.base.line => "current".to_owned(),
            _ => line.timeline.to_string(),
        };
        settings.push(("recovery_target_timeline", timeline));
        Ok(Self { base: stop.base, line, to: stop.to, to_time: stop.time, notes, way, settings })
    }

    /// The way to go, and the bases on it that may be taken, the oldest first.
    async fn choose_way(
        archive: &WalArchive,
        known: &[TimelineInfo],
        bases: &[BaseBackup],
        options: &RecoveryOptions,
    ) -> Result<(Way, Vec<BaseBackup>)> {
        let allowed = |base: &&BaseBackup| options.base.is_none_or(|id| id == base.snapshot);
        let mut allowed: Vec<_> = bases.iter().filter(allowed).collect();
        let newest = allowed.iter().max_by_key(|base| base.taken);
        let Some(system) = newest.map(|base| base.line.system_id) else {
            return Err(RecoveryError::NoBase { chosen: options.base }.into());
        };
        allowed.retain(|base| base.line.system_id == system);
        allowed.sort_by_key(|base| (base.stop, base.taken));
        let mut candidates = lines(known, system, &allowed);
        if let TargetTimeline::Number(number) = options.timeline {
            let all: Vec<_> = candidates.iter().map(|line| line.timeline).collect();
            candidates.retain(|line| line.timeline == number);
            if candidates.is_empty() {
                return Err(RecoveryError::NoTimeline { number, known: all }.into());
            }
        }
        let from = allowed.iter().map(|base| base.start).min().unwrap_or(Lsn(0));
        for line in candidates.into_iter().rev() {
            let way = way_to(archive, known, line, from).await?;
            let on_it: Vec<_> = allowed
                .iter()
                .filter(|base| way.passes(base))
                .map(|base| (*base).clone())
                .collect();
            if !on_it.is_empty() {
                return Ok((way, on_it));
            }
        }
        let TargetTimeline::Number(number) = options.timeline else {
            return Err(RecoveryError::NoBase { chosen: options.base }.into());
        };
        Err(RecoveryError::NotOnTimeline { number }.into())
    }
}

/// What the timelines on the way have that this recovery will not bring: a note for each. A few
/// more bytes than the next timeline took over are usual after a crash.
async fn elsewhere(archive: &WalArchive, way: &Way, stop: &Stop) -> Result<Vec<String>> {
    let size = stop.base.segment_size;
    let mut notes = Vec::new();
    for (line, span) in way.stretches.iter().filter(|(line, _)| *line != way.line) {
        let fork = Lsn(span.to().0);
        let usual = size.start_of(size.holding(fork) + 1);
        if fork > stop.to {
            continue;
        }
        if let Some(end) = archive.end(*line).await?.filter(|end| *end > usual) {
            let number = line.timeline;
            notes.push(format!(
                "timeline {number} was left at {fork}, and went on to {end}: what it has after that is not in this recovery; --timeline {number} goes there"
            ));
        }
    }
    Ok(notes)
}

struct On<'a> {
    way: &'a Way,
    bases: &'a [BaseBackup],
    options: &'a RecoveryOptions,
}

impl On<'_> {
    fn newest(&self) -> Result<&BaseBackup> {
        let newest = self.bases.last();
        newest.ok_or_else(|| RecoveryError::NoBase { chosen: self.options.base }.into())
    }

    /// Up to where a base can be recovered.
    fn reach(&self, base: &BaseBackup) -> Lsn {
        let reach = self.way.reach(base.held());
        if reach > base.held() { reach } else { base.stop }
    }

    /// The newest base of those that end at `at` or before.
    fn before(&self, at: Lsn) -> Result<&BaseBackup> {
        let fitting = self.bases.iter().rev().find(|base| base.stop <= at);
        fitting.ok_or_else(|| self.too_early())
    }

    fn too_early(&self) -> lifeboat_core::Error {
        let oldest = self.bases.first();
        RecoveryError::TooEarly {
            target: self.options.target.to_string(),
            from: oldest.map_or(Lsn(0), |base| base.stop),
            time: oldest.map_or(Timestamp::UNIX_EPOCH, |base| base.taken),
        }
        .into()
    }

    async fn too_late(&self, base: &BaseBackup) -> Result<lifeboat_core::Error> {
        let reach = self.reach(base);
        let time = self.way.time_of(reach).await?.max(Some(base.taken));
        let next = self.way.next(reach);
        let target = self.options.target.to_string();
        Ok(RecoveryError::TooLate { target, reach, time, next }.into())
    }

    fn inclusive(&self) -> (&'static str, String) {
        let word = if self.options.bound == Bound::Inclusive { "on" } else { "off" };
        ("recovery_target_inclusive", word.to_owned())
    }

    fn immediate(&self) -> Result<Stop> {
        let base = self.newest()?;
        Ok(Stop {
            base: base.clone(),
            to: base.stop,
            time: Some(base.taken),
            settings: vec![("recovery_target", "immediate".to_owned())],
            notes: Vec::new(),
        })
    }

    async fn latest(&self) -> Result<Stop> {
        let base = self.newest()?;
        let reach = self.reach(base);
        if let Some(next) = self.way.next(reach.max(base.held())) {
            let (target, next) = (self.options.target.to_string(), Some(next));
            let time = self.way.time_of(reach).await?.max(Some(base.taken));
            return Err(RecoveryError::TooLate { target, reach, time, next }.into());
        }
        let time = self.way.time_of(reach).await?.max(Some(base.taken));
        Ok(Stop { base: base.clone(), to: reach, time, settings: Vec::new(), notes: Vec::new() })
    }

    async fn time(&self, time: Timestamp) -> Result<Stop> {
        let base = self.bases.iter().rev().find(|base| base.taken < time);
        let base = base.ok_or_else(|| self.too_early())?;
        let reach = self.reach(base);
        let from = self.way.before(base.stop, time).await?;
        let inclusive = self.options.bound == Bound::Inclusive;
        let mut after = None;
        let mut before = None;
        let see = |event: &Event| {
            if let What::Ended { time: ended, .. } = event.what {
                if ended > time || (!inclusive && ended == time) {
                    after = Some(event.end);
                    return ControlFlow::Break(());
                }
                before = Some(ended);
            }
            ControlFlow::Continue(())
        };
        let last = self.way.scan(base, (from, reach), None, see).await?;
        if let Some(after) = after {
            return Ok(Stop {
                base: base.clone(),
                to: after,
                time: before,
                settings: vec![("recovery_target_time", spelled(time)), self.inclusive()],
                notes: Vec::new(),
            });
        }
        // Nothing ended after that moment. If the WAL of that moment is there, its last record is
        // where the cluster stood; the server itself would miss a transaction that ended later.
        let written = self.way.time_of(reach).await?;
        match last {
            Some(last) if written.is_some_and(|written| written >= time) => Ok(Stop {
                base: base.clone(),
                to: reach,
                time: before,
                settings: lsn_settings(last),
                notes: vec![format!(
                    "no transaction ended between that moment and the end of the WAL, {reach}: all of it is recovered"
                )],
            }),
            _ => Err(self.too_late(base).await?),
        }
    }

    async fn lsn(&self, lsn: Lsn) -> Result<Stop> {
        let base = self.before(lsn)?;
        let reach = self.reach(base);
        if reach < lsn {
            return Err(self.too_late(base).await?);
        }
        // The server stops at the first record that begins there or later. At the very end of the
        // WAL there is none, and the last one before is what is meant.
        let size = base.segment_size;
        let near = size.start_of(size.ending_at(lsn)).max(base.stop);
        let mut reached = None;
        let mut last = None;
        // A record may be longer than a segment, and none begin in the one that is looked at.
        for from in [near, base.stop] {
            let see = |event: &Event| match event.what {
                What::Reached => {
                    reached = Some(event.end);
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            };
            last = self.way.scan(base, (from, reach), Some(lsn), see).await?;
            if last.is_some() {
                break;
            }
        }
        let (to, settings) = match (reached, last) {
            (Some(end), _) => {
                (end, vec![("recovery_target_lsn", lsn.to_string()), self.inclusive()])
            }
            (None, Some(last)) => (reach, lsn_settings(last)),
            // What the base holds is all.
            (None, None) => (base.stop, vec![("recovery_target", "immediate".to_owned())]),
        };
        Ok(Stop { base: base.clone(), to, time: None, settings, notes: Vec::new() })
    }

    /// A transaction or a restore point: nothing says where it is but the WAL itself, of which the
    /// newest is read first.
    async fn named(&self) -> Result<Stop> {
        let mut end = None;
        for base in self.bases.iter().rev() {
            let reach = self.reach(base);
            let to = end.map_or(reach, |end: Lsn| end.min(reach));
            end = Some(base.stop);
            let mut found: Vec<(Event, Timestamp)> = Vec::new();
            let see = |event: &Event| {
                found.extend(self.meant(event).map(|time| (event.clone(), time)));
                ControlFlow::Continue(())
            };
            self.way.scan(base, (base.stop, to), None, see).await?;
            let Some((Event { at, end, .. }, time)) = found.last().cloned() else { continue };
            let mut notes = Vec::new();
            let settings = match &self.options.target {
                RecoveryTarget::Xid(xid) => {
                    vec![("recovery_target_xid", xid.to_string()), self.inclusive()]
                }
                RecoveryTarget::Name(name) if found.len() == 1 => {
                    vec![("recovery_target_name", name.clone())]
                }
                // The server would stop at the first of several of one name.
                _ => {
                    notes.push(format!(
                        "{} points have that name after this base: the last one, at {at}, is taken",
                        found.len()
                    ));
                    lsn_settings(at)
                }
            };
            return Ok(Stop { base: base.clone(), to: end, time: Some(time), settings, notes });
        }
        let target = self.options.target.to_string();
        let from = self.bases.first().map_or(Lsn(0), |base| base.stop);
        let to = self.bases.iter().map(|base| self.reach(base)).max().unwrap_or(from);
        Err(RecoveryError::NotInWal { target, from, to }.into())
    }

    fn meant(&self, event: &Event) -> Option<Timestamp> {
        match (&event.what, &self.options.target) {
            (What::Ended { xid, time }, RecoveryTarget::Xid(wanted)) if xid == wanted => {
                Some(*time)
            }
            (What::Named { name, time }, RecoveryTarget::Name(wanted)) if name == wanted => {
                Some(*time)
            }
            _ => None,
        }
    }
}

/// To stop after the record that begins at `at`.
fn lsn_settings(at: Lsn) -> Vec<(&'static str, String)> {
    vec![("recovery_target_lsn", at.to_string()), ("recovery_target_inclusive", "on".to_owned())]
}

/// A moment as the server reads it whatever its settings are.
fn spelled(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string()
}
