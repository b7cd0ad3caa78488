//! What a repository holds, and what each snapshot alone holds.
//!
//! For each chunk the snapshots that have it are counted. The pages of all trees are gone through
//! level by level, from the top: what the pages of a level refer to is sorted by name, with the set
//! of snapshots for which it was met, so that on the next level each page is read once, for all
//! the snapshots that share it. Pages of lists follow in the same way, and what is left in the end
//! is every chunk with all the snapshots that need it. Sorting goes through temporary files when
//! there is more than memory should hold.

mod census;
mod members;
mod sorter;

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use lifeboat_core::{Context, SnapshotInfo};

use crate::error::Result;
use crate::objects::PACKS;
use crate::repository::Repository;
use census::Census;

/// Chunks, each counted once, and what they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChunkTotals {
    /// How many there are.
    pub chunks: u64,
    /// Bytes in them.
    pub plain: u64,
    /// Bytes that they take in the repository, compressed and sealed. A chunk that is stored
    /// together with others counts with its share.
    pub stored: u64,
}

impl ChunkTotals {
    /// How many bytes one stored byte stands for; nothing where nothing is stored.
    pub fn compression_ratio(&self) -> Option<f64> {
        (self.stored > 0).then(|| self.plain as f64 / self.stored as f64)
    }

    fn add(&mut self, other: &Self) {
        self.chunks += other.chunks;
        self.plain += other.plain;
        self.stored += other.stored;
    }
}

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotStats {
    /// The snapshot; its logical size is [`SnapshotInfo::bytes`].
    pub snapshot: SnapshotInfo,
    /// The chunks that it refers to.
    pub referenced: ChunkTotals,
    /// Those to which no other snapshot refers: what is freed when only this one is forgotten.
    pub alone: ChunkTotals,
}

/// The objects in one area of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AreaStats {
    /// The first part of their names: `packs`, `index`.
    pub name: String,
    /// How many there are.
    pub objects: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// What a repository holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositoryStats {
    /// Bytes of content in all snapshots together, as if each were by itself.
    pub logical: u64,
    /// Chunks of content to which snapshots refer.
    pub data: ChunkTotals,
    /// Pages of trees.
    pub trees: ChunkTotals,
    /// Pages of lists of pieces.
    pub lists: ChunkTotals,
    /// Fingerprints of pages.
    pub fingerprints: ChunkTotals,
    /// Bytes of further copies of these chunks.
    pub copies: u64,
    /// Bytes in packs to which no snapshot refers: what pruning can free, what backups hold that
    /// are under way or were interrupted, and the directories of the packs themselves.
    pub unreferenced: u64,
    /// Chunks that no index knows, and pages that cannot be read. Where there are any, all other
    /// counts are too low.
    pub missing: u64,
    /// The objects, by area, in the order of their names.
    pub areas: Vec<AreaStats>,
    /// The snapshots, by store, and the oldest first.
    pub snapshots: Vec<SnapshotStats>,
}

impl RepositoryStats {
    /// How many bytes of content one byte of a chunk stands for; nothing where there is none.
    pub fn deduplication_ratio(&self) -> Option<f64> {
        (self.data.plain > 0).then(|| self.logical as f64 / self.data.plain as f64)
    }

    /// All chunks to which snapshots refer.
    pub fn referenced(&self) -> ChunkTotals {
        let mut all = ChunkTotals::default();
        for totals in [&self.data, &self.trees, &self.lists, &self.fingerprints] {
            all.add(totals);
        }
        all
    }

    /// Bytes of all objects.
    pub fn stored(&self) -> u64 {
        self.areas.iter().map(|area| area.bytes).sum()
    }
}

impl Repository {
    /// Counts what the repository holds, by kind, and of each snapshot what it refers to and what
    /// it alone holds.
    ///
    /// It reads every page of every tree once, however many snapshots share it, and lists the
    /// objects. Content is not read. Memory is bounded: what is sorted goes through temporary
    /// files.
    ///
    /// # Errors
    /// When the store cannot be read, a temporary file cannot be written, or the context is
    /// cancelled. What is damaged is a warning in `context`, and counted as missing.
    pub async fn stats(&self, context: &Context) -> Result<RepositoryStats> {
        let shared = self.shared();
        context.phase("count what the snapshots refer to");
        let mut snapshots = self.snapshots().await?.snapshots;
        snapshots.sort_by(|a, b| (&a.store, a.taken, a.id).cmp(&(&b.store, b.taken, b.id)));
        let ids: Vec<_> = snapshots.iter().map(|info| info.id).collect();
        let roots = self.top_pages(&ids).await?;
        // After the snapshots: what they need was indexed before they came to be.
        shared.index.refresh(&shared.objects, &shared.keys).await?;
        let census = Census::new(shared, context);
        let mut stats = census.count(&roots, snapshots).await?;

        context.phase("count the objects");
        let mut areas: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut listed = shared.objects.list_all();
        while let Some(object) = listed.try_next().await? {
            context.check()?;
            let area = object.name.split('/').next().unwrap_or_default();
            let (objects, bytes) = areas.entry(area.to_owned()).or_default();
            (*objects, *bytes) = (*objects + 1, *bytes + object.size);
        }
        let packs = areas.get(PACKS).map_or(0, |(_, bytes)| *bytes);
        let of_area = |(name, (objects, bytes))| AreaStats { name, objects, bytes };
        stats.areas = areas.into_iter().map(of_area).collect();
        let used = stats.referenced().stored + stats.copies;
        stats.unreferenced = packs.saturating_sub(used);
        Ok(stats)
    }
}
