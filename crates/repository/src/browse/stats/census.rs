//! Which chunk is needed by which snapshots.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use lifeboat_core::{Context, SnapshotInfo};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::members::{SetId, Sets};
use super::sorter::{Sorted, Sorter};
use super::{ChunkTotals, RepositoryStats, SnapshotStats};
use crate::chunk::ChunkKind;
use crate::content::{ContentRecord, MAX_DEPTH, PieceList};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::index::Location;
use crate::read::ChunkReader;
use crate::repository::Shared;
use crate::tree::{MAX_LEVEL, Page, PageReader};

/// How many pages are read at once.
const FETCHES: usize = 16;
/// So many chunks go through memory at a time.
const BATCH: usize = 1024;

/// Something that a page refers to: its id, a tag, and the set of snapshots for which it was met.
/// In this form they are sorted, so that all about one chunk comes together.
type Met = [u8; MET];
const MET: usize = 32 + 1 + 4;

fn met(id: &ChunkId, tag: u8, set: SetId) -> Met {
    let mut met = [0; MET];
    met[..32].copy_from_slice(id.as_bytes());
    met[32] = tag;
    met[33..].copy_from_slice(&set.to_be_bytes());
    met
}

/// A chunk with all the sets for which it was met.
struct Group {
    id: ChunkId,
    /// What it is, or for a page of a list what its list leads to: the number of a [`ChunkKind`].
    tag: u8,
    sets: Vec<SetId>,
}

/// What is counted for a set of snapshots.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    totals: ChunkTotals,
    /// Bytes of further copies: they go when the chunk goes.
    copies: u64,
}

/// The count.
pub(super) struct Census<'a> {
    shared: &'a Arc<Shared>,
    context: &'a Context,
    chunks: Arc<ChunkReader>,
    sets: Sets,
    sums: Vec<Sum>,
    stats: RepositoryStats,
}

impl<'a> Census<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, context: &'a Context) -> Self {
        let chunks = Arc::new(ChunkReader::new(Arc::clone(shared)));
        let (sets, sums, stats) = (Sets::default(), Vec::new(), RepositoryStats::default());
        Self { shared, context, chunks, sets, sums, stats }
    }

    /// Counts what the trees with these top pages refer to.
    pub(super) async fn count(
        mut self,
        roots: &[ChunkId],
        snapshots: Vec<SnapshotInfo>,
    ) -> Result<RepositoryStats> {
        let mut chunks = self.sorter();
        let mut lists: Vec<_> = (0..MAX_DEPTH).map(|_| self.sorter()).collect();
        self.trees(roots, &mut lists, &mut chunks).await?;
        // What a list page leads to is a list page of lower depth, or a leaf.
        while let Some(pages) = lists.pop() {
            self.lists(pages.finish().await?, lists.last_mut(), &mut chunks).await?;
        }
        self.all(chunks.finish().await?).await?;
        Ok(self.finish(snapshots))
    }

    fn sorter(&self) -> Sorter<MET> {
        Sorter::new(&self.shared.pool)
    }

    /// Goes through the trees, level by level.
    async fn trees(
        &mut self,
        roots: &[ChunkId],
        lists: &mut [Sorter<MET>],
        chunks: &mut Sorter<MET>,
    ) -> Result<()> {
        let pages = Arc::new(PageReader::new(Arc::clone(&self.chunks)));
        let mut levels: Vec<_> = (0..=MAX_LEVEL).map(|_| self.sorter()).collect();
        // Only the top pages themselves know how high they are.
        let mut reading = stream::iter(roots.iter().copied().enumerate())
            .map(|(number, root)| {
                let pages = Arc::clone(&pages);
                async move { (number, root, pages.page(root, None).await) }
            })
            .buffered(FETCHES);
        while let Some((number, root, page)) = reading.next().await {
            self.context.check()?;
            let set = self.sets.one(number as u32);
            if let Some(page) = self.readable(&root, page)? {
                let level = usize::from(page.level);
                levels[level].extend([met(&root, 0, set)]).await?;
            }
        }
        while let Some(level) = levels.pop() {
            let height = levels.len() as u8;
            let mut groups = Groups::of(level.finish().await?);
            while let Some(batch) = groups.next().await? {
                self.context.check()?;
                let batch = self.united(batch);
                let mut reading = stream::iter(batch)
                    .map(|(id, _, set)| {
                        let pages = Arc::clone(&pages);
                        async move { (id, set, pages.page(id, Some(height)).await) }
                    })
                    .buffer_unordered(FETCHES);
                while let Some((id, set, page)) = reading.next().await {
                    let Some(page) = self.readable(&id, page)? else { continue };
                    chunks.extend([met(&id, ChunkKind::Tree as u8, set)]).await?;
                    if let Some(below) = levels.last_mut() {
                        let children = page.children.iter().map(|child| met(&child.page, 0, set));
                        below.extend(children).await?;
                    }
                    entries(&page, set, lists, chunks).await?;
                }
            }
        }
        Ok(())
    }

    /// Goes through pages of lists that are all of one depth.
    async fn lists(
        &mut self,
        pages: Sorted<MET>,
        mut below: Option<&mut Sorter<MET>>,
        chunks: &mut Sorter<MET>,
    ) -> Result<()> {
        let mut groups = Groups::of(pages);
        while let Some(batch) = groups.next().await? {
            self.context.check()?;
            let batch = self.united(batch);
            let mut reading = stream::iter(batch)
                .map(|(id, tag, set)| {
                    let reader = Arc::clone(&self.chunks);
                    async move { (id, tag, set, list(&reader, id).await) }
                })
                .buffer_unordered(FETCHES);
            let mut read = Vec::new();
            while let Some(page) = reading.next().await {
                read.push(page);
            }
            drop(reading);
            for (id, tag, set, page) in read {
                let Some(page) = self.readable(&id, page)? else { continue };
                chunks.extend([met(&id, ChunkKind::List as u8, set)]).await?;
                let sorter = match &mut below {
                    Some(below) => &mut **below,
                    None => &mut *chunks,
                };
                sorter.extend(page.chunks().iter().map(|chunk| met(chunk, tag, set))).await?;
            }
        }
        Ok(())
    }

    /// Counts all chunks.
    async fn all(&mut self, chunks: Sorted<MET>) -> Result<()> {
        let shares = Arc::clone(self.shared);
        let shares = self.shared.pool.run("go through the index", move || Shares::of(&shares));
        let shares = shares.await??;
        let mut groups = Groups::of(chunks);
        while let Some(batch) = groups.next().await? {
            self.context.check()?;
            for (id, tag, set) in self.united(batch) {
                if let Some(kind) = ChunkKind::from_number(tag) {
                    self.add(&id, kind, set, &shares);
                }
            }
        }
        Ok(())
    }

    /// One set for each chunk.
    fn united(&mut self, batch: Vec<Group>) -> Vec<(ChunkId, u8, SetId)> {
        let mut unite = |group: Group| {
            let mut sets = group.sets.into_iter();
            let first = sets.next()?;
            let set = sets.fold(first, |one, two| self.sets.union(one, two));
            Some((group.id, group.tag, set))
        };
        batch.into_iter().filter_map(&mut unite).collect()
    }

    /// Adds a chunk to what a set of snapshots has.
    fn add(&mut self, id: &ChunkId, kind: ChunkKind, set: SetId, shares: &Shares) {
        let locations = self.shared.index.locations(id);
        let Some(first) = locations.first() else {
            self.stats.missing += 1;
            return;
        };
        let totals =
            ChunkTotals { chunks: 1, plain: first.plain.into(), stored: shares.share(first) };
        let copies: u64 = locations[1..].iter().map(|at| shares.share(at)).sum();
        if self.sums.len() <= set as usize {
            self.sums.resize(set as usize + 1, Sum::default());
        }
        let sum = &mut self.sums[set as usize];
        sum.totals.add(&totals);
        sum.copies += copies;
        self.stats.copies += copies;
        let by_kind = match kind {
            ChunkKind::Data => &mut self.stats.data,
            ChunkKind::Tree => &mut self.stats.trees,
            ChunkKind::List => &mut self.stats.lists,
            ChunkKind::Fingerprints => &mut self.stats.fingerprints,
        };
        by_kind.add(&totals);
    }

    /// What was read, unless it is damaged: that is told, and counted.
    fn readable<T>(&mut self, id: &ChunkId, read: Result<T>) -> Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error @ (Error::Damaged { .. } | Error::MissingChunk { .. })) => {
                self.stats.missing += 1;
                self.context.warn(&format!("page {id}"), error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives each snapshot its part of what was counted for the sets.
    fn finish(mut self, snapshots: Vec<SnapshotInfo>) -> RepositoryStats {
        let mut stats = Vec::with_capacity(snapshots.len());
        for snapshot in snapshots {
            self.stats.logical = self.stats.logical.saturating_add(snapshot.bytes);
            let (referenced, alone) = Default::default();
            stats.push(SnapshotStats { snapshot, referenced, alone });
        }
        for (set, sum) in self.sums.iter().enumerate() {
            let set = set as SetId;
            for member in self.sets.ranges(set).flatten() {
                if let Some(snapshot) = stats.get_mut(member) {
                    snapshot.referenced.add(&sum.totals);
                }
            }
            if let Some(snapshot) = self.sets.only(set).and_then(|only| stats.get_mut(only)) {
                snapshot.alone.add(&sum.totals);
                snapshot.alone.stored += sum.copies;
            }
        }
        self.stats.snapshots = stats;
        self.stats
    }
}

/// What the chunks of blocks take of their packs: as much of what the blocks of the pack take as
/// they have of the plain bytes there. So a chunk's share does not depend on what else is needed.
struct Shares(Vec<Blocks>);

/// The blocks of one pack.
#[derive(Debug, Clone, Copy, Default)]
struct Blocks {
    stored: u64,
    plain: u64,
}

impl Shares {
    /// Blocks: for the pool.
    fn of(shared: &Shared) -> Result<Self> {
        let mut packs = vec![Blocks::default(); shared.index.numbers() as usize];
        for found in shared.index.scan() {
            let (_, place) = found?;
            let blocks = packs.get_mut(place.pack as usize).filter(|_| place.is_in_block());
            let Some(blocks) = blocks.filter(|_| place.plain > 0) else { continue };
            blocks.plain += u64::from(place.plain);
            // Once for all chunks of a block.
            blocks.stored += if place.inner == 0 { u64::from(place.stored) } else { 0 };
        }
        Ok(Self(packs))
    }

    fn share(&self, at: &Location) -> u64 {
        if !at.is_in_block() {
            return at.stored.into();
        }
        let blocks = self.0.get(at.pack.number as usize).copied().unwrap_or_default();
        let share = u128::from(blocks.stored) * u128::from(at.plain);
        (share / u128::from(blocks.plain.max(1))) as u64
    }
}

/// What the entries of a leaf refer to.
async fn entries(
    page: &Page,
    set: SetId,
    lists: &mut [Sorter<MET>],
    chunks: &mut Sorter<MET>,
) -> Result<()> {
    for entry in &page.entries {
        let content = &entry.content;
        refer(content, ChunkKind::Data, set, lists, chunks).await?;
        if let Some(fingerprints) = &content.fingerprints {
            refer(fingerprints, ChunkKind::Fingerprints, set, lists, chunks).await?;
        }
    }
    Ok(())
}

async fn refer(
    content: &ContentRecord,
    kind: ChunkKind,
    set: SetId,
    lists: &mut [Sorter<MET>],
    chunks: &mut Sorter<MET>,
) -> Result<()> {
    let sorter = match content.depth.checked_sub(1) {
        None => chunks,
        Some(depth) => lists.get_mut(usize::from(depth)).ok_or_else(|| {
            Error::damaged("an entry of the snapshot", "its list of pieces is too deep")
        })?,
    };
    sorter.extend(content.list.chunks().iter().map(|id| met(id, kind as u8, set))).await
}

async fn list(chunks: &ChunkReader, id: ChunkId) -> Result<PieceList> {
    let bytes = chunks.read(ChunkKind::List, id).await?;
    minicbor::decode(&bytes)
        .map_err(|_| Error::damaged(format!("page {id} of a list"), "it does not decode"))
}

/// What was sorted, a batch at a time.
struct Groups {
    batches: mpsc::Receiver<Result<Vec<Group>>>,
    /// Reads on a thread that may wait for the disk: those of the pool are needed for the pages.
    reading: Option<JoinHandle<()>>,
}

impl Groups {
    fn of(mut sorted: Sorted<MET>) -> Self {
        let (send, batches) = mpsc::channel(1);
        let reading = tokio::task::spawn_blocking(move || {
            if let Err(error) = gather(&mut sorted, &send) {
                // Whoever counted may have given up.
                let _ = send.blocking_send(Err(error));
            }
        });
        Self { batches, reading: Some(reading) }
    }

    async fn next(&mut self) -> Result<Option<Vec<Group>>> {
        if let Some(batch) = self.batches.recv().await {
            return batch.map(Some);
        }
        if let Some(reading) = self.reading.take() {
            let stopped = |_| Error::Worker { doing: "go through what was sorted" };
            reading.await.map_err(stopped)?;
        }
        Ok(None)
    }
}

fn gather(sorted: &mut Sorted<MET>, send: &mpsc::Sender<Result<Vec<Group>>>) -> Result<()> {
    let mut all = sorted.iter()?;
    let mut batch: Vec<Group> = Vec::with_capacity(BATCH);
    while let Some(met) = all.next()? {
        let (id, rest) = met.split_at(32);
        let (tag, set) = rest.split_at(1);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(id);
        let (id, tag) = (ChunkId::from_bytes(bytes), tag[0]);
        let set = set.iter().fold(0, |set, byte| set << 8 | SetId::from(*byte));
        if let Some(group) = batch.last_mut().filter(|group| (group.id, group.tag) == (id, tag)) {
            group.sets.push(set);
            continue;
        }
        if batch.len() == BATCH {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            if send.blocking_send(Ok(full)).is_err() {
                // Whoever counted has given up.
                return Ok(());
            }
        }
        batch.push(Group { id, tag, sets: vec![set] });
    }
    if !batch.is_empty() {
        let _ = send.blocking_send(Ok(batch));
    }
    Ok(())
}
