//! What is known of the packs.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures_util::TryStreamExt;
use lifeboat_core::{Context, SnapshotId, SnapshotInfo};

use super::ledger::{Ledger, Part};
use super::packs::is_gone;
use super::report::{CheckReport, Damages};
use super::walk::Walk;
use crate::chunk::ChunkKind;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId};
use crate::index::{Location, Pack};
use crate::objects::{PACKS, id_of, pack_name};
use crate::read::ChunkReader;
use crate::repository::{Repository, Shared};
use crate::snapshot::RootArea;

/// So many packs are looked for one by one when a listing lacks them.
const CONFIRMED: u32 = 1000;

/// Which packs are not whole, and which chunks do not open.
#[derive(Default)]
pub(crate) struct Health {
    /// Packs that are missing: nothing in them counts.
    pub(super) lost: HashSet<ObjectId>,
    /// Chunks that do not open where they are.
    pub(super) bad: HashSet<(ObjectId, ChunkId)>,
    /// Packs of which every byte was read and is as it must be.
    pub(super) sound: Vec<ObjectId>,
    /// Packs that have another size than they must have; they are frayed as well.
    pub(super) cut: HashSet<ObjectId>,
    /// Packs that are damaged outside of their chunks, or cut off, or of which nobody knows where
    /// they are damaged: each chunk that is needed from them has to be tried.
    pub(super) frayed: HashSet<ObjectId>,
}

impl Health {
    /// As a check without reading finds it.
    pub(crate) async fn of(repository: &Repository) -> Result<Self> {
        let shared = repository.shared();
        shared.refresh_index().await?;
        let ledger = Ledger::read_or_default(shared, Part::Damaged).await;
        let (mut report, mut damages) = (CheckReport::default(), Damages::default());
        let known = shared.index.packs();
        Self::look(shared, &known, &ledger, &mut report, &mut damages).await
    }

    /// Compares what the index says of packs with what is there, and with what earlier checks
    /// found.
    pub(super) async fn look(
        shared: &Shared,
        known: &HashMap<ObjectId, Arc<Pack>>,
        ledger: &Ledger,
        report: &mut CheckReport,
        damages: &mut Damages,
    ) -> Result<Self> {
        let mut missing = known.clone();
        let mut health = Self::default();
        let mut listing = shared.objects.list(PACKS);
        while let Some(listed) = listing.try_next().await? {
            let Some(id) = id_of(&listed.name) else { continue };
            match missing.remove(&id) {
                None => report.unreferenced += u64::from(!known.contains_key(&id)),
                Some(pack) if pack.size != listed.size => {
                    let what = format!("it has {} bytes instead of {}", listed.size, pack.size);
                    damages.of(&pack_name(id), &what);
                    health.frayed.insert(id);
                    health.cut.insert(id);
                }
                Some(_) => {}
            }
        }
        let mut confirmed = 0;
        for id in missing.into_keys() {
            // Somebody may have deleted it since the index was read, or the listing lacks
            // something; where very many are missing, neither is the reason.
            if confirmed < CONFIRMED {
                let there = shared.objects.head(&pack_name(id)).await?.is_some();
                if there || is_gone(shared, id).await? {
                    continue;
                }
                confirmed += 1;
            }
            damages.of(&pack_name(id), "it is missing");
            health.lost.insert(id);
        }
        let damaged = ledger.damaged().map(|(id, _)| id).filter(|id| known.contains_key(id));
        let there: Vec<_> = damaged.filter(|id| !health.lost.contains(id)).collect();
        health.frayed.extend(there);
        report.objects += known.len() as u64;
        report.packs_bytes = known.values().map(|pack| pack.size).sum();
        Ok(health)
    }

    /// The packs on which nothing new may rely.
    pub(crate) fn unreliable(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.lost.iter().chain(&self.frayed).copied()
    }

    /// Why the first `end` bytes of a chunk cannot be read, if they cannot.
    pub(crate) async fn trouble(
        &self,
        chunks: &ChunkReader,
        kind: ChunkKind,
        id: ChunkId,
        end: u64,
    ) -> Result<Option<Error>> {
        let locations = chunks.locations(&id);
        let usable = |at: &&Location| {
            !self.lost.contains(&at.pack.id)
                && !self.bad.contains(&(at.pack.id, id))
                && u64::from(at.plain) >= end
        };
        let found: Vec<_> = locations.iter().filter(usable).collect();
        if found.is_empty() {
            return Ok(Some(Error::MissingChunk { id: id.to_string() }));
        }
        // A pack that cannot tell its chunks must be asked for this one.
        let asked = found.iter().all(|at| self.frayed.contains(&at.pack.id));
        match if asked { chunks.read(kind, id).await.err() } else { None } {
            Some(error) if !error.is_damage() => Err(error),
            trouble => Ok(trouble),
        }
    }

    /// The snapshots that cannot be restored in full.
    pub(crate) async fn hurt(
        &self,
        repository: &Repository,
        snapshots: &[SnapshotInfo],
        context: &Context,
    ) -> Result<BTreeSet<SnapshotId>> {
        let mut damages = Damages::default();
        Walk::new(repository, self, &mut damages, context)
            .all(RootArea::Snapshots, snapshots)
            .await?;
        Ok(damages.finish().into_iter().flat_map(|damage| damage.snapshots).collect())
    }
}
