//! What must be thawed before something can be read, and thawing it.
//!
//! A plan needs no thaw to be made: which chunks an entry has is in the trees, and where they are is
//! in the index. Whoever asked for a thaw and was stopped finds it under way, or done: how a pack
//! stands is kept by the store and nowhere else.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::{Access, Context, SnapshotId, StorageClass, ThawTier, Warehouse};

use super::Shelf;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId};
use crate::maintenance::PackCount;
use crate::objects::pack_name;
use crate::read::{PieceCursor, Selection, decode};
use crate::repository::{Repository, Shared};

/// How many packs are asked about, or asked for, at once.
const AT_ONCE: usize = 16;

/// What is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThawNeed {
    /// The content of snapshots, of each as far as it is selected.
    Content(Vec<(SnapshotId, Selection)>),
    /// Every pack.
    Everything,
}

/// How archived packs are thawed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThawOptions {
    /// With how much haste.
    pub tier: ThawTier,
    /// For how many days they can be read then: 1 or more. They must last for the whole restore.
    pub days: u16,
    /// How long is waited for them at most. With zero they are asked for, and not waited for.
    pub wait: Duration,
    /// How often it is looked whether they are ready.
    pub poll: Duration,
}

impl Default for ThawOptions {
    /// The usual tier, readable for a week; two days are waited, and every five minutes it is
    /// looked.
    fn default() -> Self {
        Self {
            tier: ThawTier::Standard,
            days: 7,
            wait: Duration::from_hours(48),
            poll: Duration::from_mins(5),
        }
    }
}

/// What must be thawed before something can be read.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ThawPlan {
    /// The packs that are needed and lie in an archive.
    pub needed: PackCount,
    /// Those of them that are thawed.
    pub thawed: PackCount,
    /// Those of them whose thaw is under way.
    pub thawing: PackCount,
    /// Those of them for which nobody has asked.
    pub archived: PackCount,
    /// The classes in which they lie.
    pub classes: Vec<StorageClass>,
    frozen: Vec<Frozen>,
}

#[derive(Debug, Clone, Copy)]
struct Frozen {
    id: ObjectId,
    size: u64,
    access: Access,
}

impl ThawPlan {
    /// Whether all that is needed can be read now.
    pub fn is_ready(&self) -> bool {
        self.frozen.is_empty()
    }

    /// How long a thaw takes at most, as the provider says; `None` when there is no such tier for
    /// one of the classes.
    pub fn takes(&self, tier: ThawTier) -> Option<Duration> {
        let each: Option<Vec<_>> = self.classes.iter().map(|class| class.thaw(tier)).collect();
        Some(each?.into_iter().max().unwrap_or_default())
    }

    /// The error of who wants to read what is not thawed.
    pub fn refusal(&self) -> Error {
        let packs = self.thawing.packs + self.archived.packs;
        Error::NotThawed { packs, bytes: self.thawing.bytes + self.archived.bytes }
    }

    /// The tiers that all of the classes have, the cheapest first.
    pub fn tiers(&self) -> Vec<ThawTier> {
        ThawTier::ALL.into_iter().filter(|tier| self.takes(*tier).is_some()).collect()
    }
}

impl Repository {
    /// Finds out which packs are needed, and which of them must be thawed.
    ///
    /// Reads trees and index, lists the packs, and asks how each stands that is needed and lies in
    /// an archive. Where the store has no archives, nothing is read.
    ///
    /// # Errors
    /// When a snapshot does not exist or its tree cannot be read, the store cannot be asked, or the
    /// repository was opened without a [`Warehouse`] and has its data in a class of its own.
    pub async fn thaw_plan(&self, need: &ThawNeed, context: &Context) -> Result<ThawPlan> {
        let shared = self.shared();
        let Some(warehouse) = &shared.warehouse else {
            return match self.data_class() {
                Some(name) => Err(Error::NoWarehouse { name }),
                None => Ok(ThawPlan::default()),
            };
        };
        context.phase("look which packs lie in an archive");
        shared.refresh_index().await?;
        let shelf = Shelf::ask(shared, context).await?;
        if !shelf.has_archived() {
            return Ok(ThawPlan::default());
        }
        let packs = match need {
            ThawNeed::Everything => {
                let known = shared.index.packs().into_keys();
                known.filter(|pack| shelf.is_archived(shared, pack)).collect()
            }
            ThawNeed::Content(snapshots) => {
                let mut needed = Needed { shared, shelf: &shelf, packs: HashSet::new() };
                for (id, selection) in snapshots {
                    needed.add(self, id, selection, context).await?;
                }
                needed.packs
            }
        };
        let mut plan = ThawPlan::default();
        for pack in &packs {
            if let Some(class) = shelf.of(shared, pack)
                && !plan.classes.contains(class)
            {
                plan.classes.push(class.clone());
            }
        }
        context.phase("look how the archived packs stand");
        let sizes = shared.index.packs();
        let all = packs.into_iter().map(|id| {
            let size = sizes.get(&id).map_or(0, |pack| pack.size);
            Frozen { id, size, access: Access::Archived }
        });
        for pack in look(warehouse, all.collect(), context).await? {
            plan.needed.add(pack.size);
            match pack.access {
                Access::AtOnce | Access::Thawed { .. } => {
                    plan.thawed.add(pack.size);
                    continue;
                }
                Access::Thawing => plan.thawing.add(pack.size),
                Access::Archived => plan.archived.add(pack.size),
            }
            plan.frozen.push(pack);
        }
        Ok(plan)
    }

    /// Asks for all packs of a plan that nobody has asked for, and waits until they can be read.
    ///
    /// # Errors
    /// When the class has no such tier (then nothing was asked for), the store refuses, or not all
    /// are ready when the time is over: they go on being thawed, and the same call finds them so.
    pub async fn thaw(
        &self,
        plan: &ThawPlan,
        options: &ThawOptions,
        context: &Context,
    ) -> Result<()> {
        let Some(warehouse) = &self.shared().warehouse else {
            return Ok(());
        };
        if plan.is_ready() {
            return Ok(());
        }
        if plan.takes(options.tier).is_none() {
            let tiers: Vec<_> = plan.tiers().into_iter().map(ThawTier::as_str).collect();
            let (tier, tiers) = (options.tier.as_str(), tiers.join(", "));
            return Err(Error::NoSuchTier { tier, tiers });
        }
        let began = Instant::now();
        context.phase("ask for the archived packs");
        let (tier, days) = (options.tier, options.days.max(1));
        let archived = plan.frozen.iter().filter(|pack| pack.access == Access::Archived);
        stream::iter(archived.map(|pack| pack_name(pack.id)).collect::<Vec<_>>())
            .map(|name| async move {
                context.check()?;
                warehouse.thaw(&name, tier, days).await.map_err(Error::from)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        let mut left = plan.frozen.clone();
        loop {
            left = look(warehouse, left, context).await?;
            left.retain(|pack| !pack.access.is_readable());
            if left.is_empty() {
                return Ok(());
            }
            let rest = options.wait.saturating_sub(began.elapsed());
            if rest.is_zero() {
                return Err(Error::StillThawing { packs: left.len() as u64 });
            }
            context.phase(format!("wait until {} packs are thawed", left.len()));
            tokio::select! {
                () = context.cancelled() => return Err(lifeboat_core::Error::cancelled().into()),
                () = tokio::time::sleep(options.poll.min(rest)) => {}
            }
        }
    }
}

/// How packs stand now. One that is gone counts as readable: whoever reads it learns that.
async fn look(
    warehouse: &Arc<dyn Warehouse>,
    packs: Vec<Frozen>,
    context: &Context,
) -> Result<Vec<Frozen>> {
    stream::iter(packs)
        .map(|pack| async move {
            context.check()?;
            let standing = warehouse.standing(&pack_name(pack.id)).await?;
            let access = standing.map_or(Access::AtOnce, |standing| standing.access);
            Ok::<_, Error>(Frozen { access, ..pack })
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// The archived packs that some content needs.
struct Needed<'a> {
    shared: &'a Arc<Shared>,
    shelf: &'a Shelf,
    packs: HashSet<ObjectId>,
}

impl Needed<'_> {
    async fn add(
        &mut self,
        repository: &Repository,
        snapshot: &SnapshotId,
        selection: &Selection,
        context: &Context,
    ) -> Result<()> {
        let snapshot = repository.snapshot(snapshot).await?;
        let mut entries = snapshot.tree().entries(None);
        while let Some(record) = entries.next().await? {
            context.check()?;
            if !selection.selects(&decode(&record)?.path) {
                continue;
            }
            let mut pieces = PieceCursor::new(Arc::clone(snapshot.chunks()), &record.content);
            while let Some(piece) = pieces.next(u64::MAX).await? {
                if let Some(chunk) = piece.chunk {
                    self.need(&chunk);
                }
            }
        }
        Ok(())
    }

    /// Takes note of the pack of a chunk, unless another copy of it can be read at once.
    fn need(&mut self, chunk: &ChunkId) {
        let locations = self.shared.index.locations(chunk);
        let archived = |pack: &ObjectId| self.shelf.is_archived(self.shared, pack);
        if locations.iter().any(|location| !archived(&location.pack.id)) {
            return;
        }
        let known = locations.iter().any(|location| self.packs.contains(&location.pack.id));
        if let (false, Some(first)) = (known, locations.first()) {
            self.packs.insert(first.pack.id);
        }
    }
}
