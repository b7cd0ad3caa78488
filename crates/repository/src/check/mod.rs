//! Finding damage, and telling whom it hurts.
//!
//! A check goes through four things: keys and snapshot roots, index objects, packs, and the
//! trees of all snapshots and checkpoints. Every object's name is the hash of its content, so damage is found
//! without a key; with the key, every chunk is opened as a restore would open it. What is found is
//! told as objects, and of each the snapshots and entries that cannot be restored because of it.
//!
//! What no index knows is no damage: an interrupted backup leaves it behind.

mod health;
mod keyless;
mod ledger;
mod named;
mod packs;
mod plan;
mod report;
mod walk;

pub(crate) use health::Health;
pub use keyless::check_without_key;
#[cfg(feature = "fuzzing")]
pub(crate) use ledger::fuzzing;
pub(crate) use ledger::{Ledger, Part};
pub use report::{
    Budget, CheckOptions, CheckReport, Damage, Depth, Remedy, Rolling, Sample, SampleSize,
};

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::{Context, ErrorKind, Failure, SnapshotId, Timestamp};

use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::index::Pack;
use crate::journal;
use crate::objects::{INDEX, KEYS, PACKS, PINS, id_of, pack_name};
use crate::repository::{Repository, Shared};
use crate::sealed::SealedKind;
use crate::snapshot::RootArea;
use crate::storage::{Shelf, ThawNeed};
use packs::Limits;
use plan::{Candidate, Round};
use report::Damages;
use walk::Walk;

impl Repository {
    /// Looks for damage.
    ///
    /// Others may back up, forget and prune meanwhile. Which packs were read, and which are
    /// damaged, is noted in the repository, so that no backup relies on the latter. Where the store
    /// refuses it, as with credentials that may only read, that is a notice; it is a warning where
    /// the store fails, and of a rolling check, which does not come round without its notes.
    ///
    /// # Errors
    /// When the store cannot be read or the context is cancelled. Damage is no error: it is in
    /// the report.
    pub async fn check(&self, options: &CheckOptions, context: &Context) -> Result<CheckReport> {
        let shared = self.shared();
        let mut damages = Damages::default();
        let mut report = CheckReport::default();

        context.phase("check keys and snapshots");
        named::check(&shared.objects, KEYS, 64 << 10, &mut report, &mut damages).await?;
        let limit = SealedKind::Pin.limit();
        named::check(&shared.objects, PINS, limit, &mut report, &mut damages).await?;
        let listed = self.roots().await?;
        for (name, what) in &listed.damaged {
            // It may have been forgotten since it was listed.
            if shared.objects.head(name).await?.is_some() {
                let damage = damages.of(name, what);
                let id = id_of(name).map(|id| SnapshotId::from_bytes(*id.as_bytes()));
                damage.snapshots.extend(id);
            }
        }
        report.snapshots = (listed.snapshots.len() + listed.damaged.len()) as u64;
        report.objects += report.snapshots + 1;
        named::check_passing(shared, &mut report, &mut damages).await?;

        context.phase("check the index");
        let limit = SealedKind::Index.limit();
        named::check(&shared.objects, INDEX, limit, &mut report, &mut damages).await?;
        shared.refresh_index().await?;
        for (name, what) in shared.index.damaged() {
            damages.of(&name, &what);
        }

        context.phase("check the packs");
        let ledger = Ledger::read_or_default(shared, Part::Damaged).await;
        let known = shared.index.packs();
        let mut health = Health::look(shared, &known, &ledger, &mut report, &mut damages).await?;
        if options.depth.reads_packs() {
            self.read(options.depth, known, &mut health, &mut report, &mut damages, context)
                .await?;
        }

        // Unless it was found to be sound again just now.
        for (id, what) in ledger.damaged().filter(|(id, _)| health.frayed.contains(id)) {
            damages.of(&pack_name(id), what);
        }

        context.phase("check the journals");
        report.journals = journal::check(self, options.depth, context).await?;
        report.objects += report.journals.segments;
        report.bytes += report.journals.bytes;
        for (name, what) in &report.journals.damage {
            damages.of(name, what);
        }

        context.phase("check the snapshots' trees");
        // What cannot be opened of them was found among what comes and goes.
        let checkpoints = self.checkpoints().await?.snapshots;
        report.checkpoints = checkpoints.len() as u64;
        let mut walk = Walk::new(self, &health, &mut damages, context);
        walk.all(RootArea::Snapshots, &listed.snapshots).await?;
        walk.all(RootArea::Checkpoints, &checkpoints).await?;
        report.damage = damages.finish();
        if let Err(error) = remember(shared, &ledger, &health, &report).await {
            not_noted("what was found", &error, Progress::Nothing, context);
        }
        Ok(report)
    }

    /// Leaves out what lies in an archive, where not every byte was asked for; where it was, all must
    /// be thawed before anything is read.
    async fn leave_archived(
        &self,
        depth: Depth,
        packs: &mut Vec<Candidate>,
        report: &mut CheckReport,
        context: &Context,
    ) -> Result<()> {
        let shared = self.shared();
        if shared.warehouse.is_none() {
            return Ok(());
        }
        if depth == Depth::EveryByte {
            let plan = self.thaw_plan(&ThawNeed::Everything, context).await?;
            return if plan.is_ready() { Ok(()) } else { Err(plan.refusal()) };
        }
        let shelf = Shelf::ask(shared, context).await?;
        let before = packs.len();
        packs.retain(|pack| !shelf.is_archived(shared, &pack.id));
        report.archived = (before - packs.len()) as u64;
        Ok(())
    }

    /// Reads the content of packs, of all or of some.
    async fn read(
        &self,
        depth: Depth,
        known: HashMap<ObjectId, Arc<Pack>>,
        health: &mut Health,
        report: &mut CheckReport,
        damages: &mut Damages,
        context: &Context,
    ) -> Result<()> {
        let shared = self.shared();
        let whole = known
            .values()
            .filter(|pack| !health.lost.contains(&pack.id) && !health.cut.contains(&pack.id));
        let mut all: Vec<_> =
            whole.map(|pack| Candidate { id: pack.id, size: pack.size }).collect();
        self.leave_archived(depth, &mut all, report, context).await?;
        let before = Ledger::read_or_default(shared, Part::Verified).await;
        let mut limits = Limits::default();
        let mut round = None;
        let mut chosen = match depth {
            Depth::Structure | Depth::EveryByte => all,
            Depth::Sample(sample) => {
                let seed = sample.seed.unwrap_or_else(rand::random);
                report.seed = Some(seed);
                plan::draw(all, &sample, seed)
            }
            Depth::Rolling(budget) => {
                let elapsed = before.last.map(|last| Timestamp::now().duration_since(last));
                let interval = elapsed.map(|time| Duration::try_from(time).unwrap_or_default());
                let planned = Round::plan(all, &budget, |id| before.verified(id), interval);
                limits = Limits::of(planned.bytes, budget.duration);
                let packs = planned.packs.clone();
                round = Some((planned, budget));
                packs
            }
        };
        if depth != Depth::EveryByte {
            // What was found damaged is looked at each time: it may be sound again.
            chosen.sort_by_key(|pack| !health.frayed.contains(&pack.id));
        }
        // Only reading tells anew what is wrong with them.
        let packs = chosen.iter().filter_map(|pack| known.get(&pack.id).cloned()).collect();
        let unread = health.sound.len();
        let noted =
            packs::read_all(shared, packs, limits, health, report, damages, context).await?;
        if let Some(error) = noted {
            let progress = if round.is_some() { Progress::Needed } else { Progress::Nothing };
            not_noted("which packs were read", &error, progress, context);
        }
        if let Some((round, budget)) = round {
            let read: HashSet<_> = health.sound[unread..].iter().collect();
            let never = round.packs[..round.never as usize].iter();
            let rolling = Rolling {
                bytes: health.sound[unread..].iter().map(|id| known[id].size).sum(),
                share: round.share,
                never_read: never.filter(|pack| !read.contains(&pack.id)).count() as u64,
                full_round: None,
            };
            let all_read = read.len() == round.packs.len();
            let full_round =
                if all_read { Some(round.interval) } else { round.pace(rolling.bytes) };
            warn_of_pace(full_round, all_read, &round, &budget, context);
            report.rolling = Some(Rolling { full_round, ..rolling });
        }
        let ledger = Ledger::read_or_default(shared, Part::Verified).await;
        let (objects, keys) = (&shared.objects, &shared.keys);
        let merged = ledger.merge(objects, keys, Part::Verified, |id| known.contains_key(id)).await;
        if let Err(error) = merged {
            tracing::debug!(%error, "what checks noted could not be merged");
        }
        Ok(())
    }
}

/// What a check loses when its notes cannot be stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing that was asked for.
    Nothing,
    /// Its way round: the next run would read the same again.
    Needed,
}

/// Says that something could not be noted. Where the store or a later version only refuses it, as
/// with credentials that may only read, nothing is amiss but that nobody takes note.
fn not_noted(what: &str, error: &Error, progress: Progress, context: &Context) {
    let refused = matches!(error.kind(), ErrorKind::Refused | ErrorKind::Unsupported);
    match (refused, progress) {
        (true, Progress::Nothing) => {
            context.note(
                "checks",
                format!("{what} is not noted, since nothing may be written there: {error}"),
            );
        }
        (_, Progress::Nothing) => {
            context.warn("checks", format!("{what} could not be noted: {error}"));
        }
        (_, Progress::Needed) => context.warn(
            "checks",
            format!(
                "{what} could not be noted, so that the next run reads the same again: {error}"
            ),
        ),
    }
}

/// Says so when a rolling check does not come round in the time asked for.
fn warn_of_pace(
    full_round: Option<Duration>,
    all_read: bool,
    round: &Round,
    budget: &Budget,
    context: &Context,
) {
    let Some(within) = budget.within.filter(|_| !all_read && !round.packs.is_empty()) else {
        return;
    };
    // What is one pack short tonight is made good tomorrow.
    let slack = round.interval.max(within / 50);
    let asked = days(within);
    let share = round.share.unwrap_or_default();
    let message = match full_round {
        Some(time) if time <= within + slack => return,
        Some(time) => format!(
            "at this pace everything is read in {}, and {asked} were asked for: {share} bytes a \
             run would do",
            days(time)
        ),
        None => format!("nothing was read, and everything within {asked} was asked for"),
    };
    context.warn("packs", message);
}

fn days(time: Duration) -> String {
    let days = time.as_secs_f64() / 86_400.0;
    if days < 3.0 {
        format!("{:.0} hours", (24.0 * days).ceil())
    } else {
        format!("{:.0} days", days.ceil())
    }
}

/// Takes note of what is damaged, so that no backup relies on it, and of what is sound again.
async fn remember(
    shared: &Shared,
    ledger: &Ledger,
    health: &Health,
    report: &CheckReport,
) -> Result<()> {
    let packs = report.damage.iter().filter(|damage| damage.object.starts_with(PACKS));
    let named = packs.filter_map(|damage| Some((id_of(&damage.object)?, damage.what.clone())));
    let damaged: Vec<_> = named.filter(|(id, _)| ledger.damage_of(id).is_none()).collect();
    let again = |id: &&ObjectId| ledger.damage_of(id).is_some();
    let sound: Vec<_> = health.sound.iter().filter(again).copied().collect();
    let (objects, keys) = (&shared.objects, &shared.keys);
    shared.features().may_write()?;
    Ledger::append(objects, keys, Part::Damaged, &sound, &damaged).await?;
    let known = shared.index.packs();
    ledger.merge(objects, keys, Part::Damaged, |id| known.contains_key(id)).await
}
