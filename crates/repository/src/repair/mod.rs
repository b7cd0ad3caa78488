//! Mending what is damaged.
//!
//! Each repair does one thing, says beforehand what it would do (that is what it does unless told
//! otherwise), and takes nothing away before what takes its place is durable: one that is killed
//! leaves a repository that is no worse, and the next one goes on.
//!
//! | what | mends |
//! |---|---|
//! | [`Repository::repair_index`] | index objects that are damaged or lost: made anew from the packs' directories |
//! | [`Repository::repair_packs`] | damaged packs: what still opens is stored again, and the index forgets the rest |
//! | [`Repository::repair_snapshots`] | snapshots that lack something for good: a sibling has all that is left |
//!
//! In this order. Between the second and the third a backup of the same data makes whole what its
//! source still has: a chunk that no sound pack has is stored again, and serves old snapshots too.

mod index;
mod packs;
mod snapshots;

use lifeboat_core::{Context, SnapshotId};

use crate::error::Result;
use crate::maintenance::{Lease, StoreClock};
use crate::repository::{Repository, Shared};

pub use index::IndexRepair;
pub use packs::{PackRepair, PacksRepair};
pub use snapshots::{SnapshotRepair, SnapshotsRepair, repaired_original};

/// How a repair is done.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct RepairOptions {
    /// Whether anything is changed.
    pub mode: RepairMode,
    /// What becomes of hurt snapshots that have a sibling.
    pub originals: Originals,
}

impl RepairOptions {
    /// Repairs, and keeps the hurt snapshots.
    pub fn apply() -> Self {
        Self { mode: RepairMode::Apply, ..Self::default() }
    }
}

/// Whether a repair changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RepairMode {
    /// It looks, and says what it would do.
    #[default]
    DryRun,
    /// It does it.
    Apply,
}

/// What becomes of a hurt snapshot when its sibling is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Originals {
    /// It stays: what it lacks may come back.
    #[default]
    Keep,
    /// It is deleted.
    Forget,
}

/// The right to change what is there; none is needed to look.
struct Right(Option<Lease>);

impl Right {
    /// Nobody else may delete or replace objects meanwhile.
    async fn take(shared: &Shared, mode: RepairMode, what: &str) -> Result<Self> {
        if mode == RepairMode::DryRun {
            return Ok(Self(None));
        }
        let features = shared.refresh_features().await?;
        features.may_write()?;
        features.may_delete()?;
        let clock = StoreClock::ask(&shared.objects).await?;
        Lease::take(&shared.objects, &shared.keys, &clock, what)
            .await
            .map(|lease| Self(Some(lease)))
    }

    /// Sees that it still holds. Before every step that takes something away.
    async fn check(&self) -> Result<()> {
        match &self.0 {
            Some(lease) => lease.check().await,
            None => Ok(()),
        }
    }

    async fn give_back(self) {
        if let Some(lease) = self.0 {
            lease.give_back().await;
        }
    }
}

impl Repository {
    /// Makes index objects anew from the packs' directories: for packs that no readable index
    /// object names. Damaged index objects are set aside afterwards, as `index/<id>.damaged`.
    ///
    /// # Errors
    /// When the store cannot be read or written, another one keeps the repository in order, or the
    /// context is cancelled.
    pub async fn repair_index(
        &self,
        options: &RepairOptions,
        context: &Context,
    ) -> Result<IndexRepair> {
        let right = Right::take(self.shared(), options.mode, "a repair of the index").await?;
        let done = index::repair(self.shared(), options.mode, &right, context).await;
        right.give_back().await;
        done
    }

    /// Stores again what still opens of packs that are damaged, takes them and those that are
    /// missing out of the index, and marks them: the next prune deletes them.
    ///
    /// Which packs are damaged is known from their sizes and from earlier checks: it takes a check
    /// that has read them. Where neither the index nor a pack's own directory tells where its
    /// chunks lie, nothing of it can be found.
    ///
    /// # Errors
    /// As for [`Repository::repair_index`].
    pub async fn repair_packs(
        &self,
        options: &RepairOptions,
        context: &Context,
    ) -> Result<PacksRepair> {
        let right = Right::take(self.shared(), options.mode, "a repair of packs").await?;
        let done = packs::repair(self, options.mode, &right, context).await;
        right.give_back().await;
        done
    }

    /// Makes a sibling of every snapshot that lacks something: a snapshot of the same store and
    /// moment, whose parent is the hurt one, with everything that is left.
    ///
    /// A file of which a part is lost is in it as `<name>.lifeboat-damaged`, with zeros where
    /// bytes are lost, so that nobody takes it for whole. What is lost is told in the facts
    /// `repair.of`, `repair.lost_entries`, `repair.lost_bytes` and `repair.lost`.
    ///
    /// # Errors
    /// As for [`Repository::repair_index`].
    pub async fn repair_snapshots(
        &self,
        options: &RepairOptions,
        context: &Context,
    ) -> Result<SnapshotsRepair> {
        let right = Right::take(self.shared(), options.mode, "a repair of snapshots").await?;
        let done = snapshots::repair(self, options, &right, context).await;
        right.give_back().await;
        done
    }
}

/// The object of a snapshot.
fn snapshot_name(id: &SnapshotId) -> String {
    format!("{}/{id}", crate::objects::SNAPSHOTS)
}
