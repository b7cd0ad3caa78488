//! From damage to the snapshots and entries that it hurts.

use std::collections::HashSet;
use std::sync::Arc;

use lifeboat_core::{Context, EntryPath, SnapshotId, SnapshotInfo};

use super::health::Health;
use super::report::Damages;
use crate::chunk::ChunkKind;
use crate::content::ContentRecord;
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::objects::{INDEX, PACKS, pack_name};
use crate::read::{ChunkReader, PieceCursor};
use crate::repository::Repository;
use crate::snapshot::RootArea;
use crate::tree::{EntryRecord, Page, TreeReader, compare};

/// The trees of all snapshots, or of all checkpoints, one after the other.
pub(super) struct Walk<'a> {
    area: RootArea,
    repository: &'a Repository,
    health: &'a Health,
    damages: &'a mut Damages,
    /// What was found in the snapshot that is looked at.
    found: Damages,
    /// Objects that were to blame although the index was read again.
    confirmed: HashSet<String>,
    context: &'a Context,
    chunks: Arc<ChunkReader>,
    /// Pages beneath which all is well. Snapshots share most pages, so that many cost little more
    /// than one.
    sound: HashSet<ChunkId>,
}

/// Why a chunk cannot be read: the objects to blame, and what is wrong.
struct Blame {
    objects: Vec<String>,
    what: String,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        health: &'a Health,
        damages: &'a mut Damages,
        context: &'a Context,
    ) -> Self {
        let chunks = Arc::new(ChunkReader::new(Arc::clone(repository.shared())));
        Self {
            area: RootArea::Snapshots,
            repository,
            health,
            damages,
            found: Damages::default(),
            confirmed: HashSet::new(),
            context,
            chunks,
            sound: HashSet::new(),
        }
    }

    /// Walks the trees of all whose roots are in `area`.
    pub(super) async fn all(&mut self, area: RootArea, snapshots: &[SnapshotInfo]) -> Result<()> {
        self.area = area;
        for info in snapshots {
            let whole = self.snapshot(info.id).await;
            let found = std::mem::take(&mut self.found);
            if matches!(whole, Ok(true)) {
                self.damages.add(found);
                continue;
            }
            // It may have been forgotten meanwhile, and what it needed deleted.
            let name = area.name_of(&info.id);
            if self.repository.shared().objects.head(&name).await?.is_some() {
                whole?;
                self.damages.add(found);
            }
        }
        Ok(())
    }

    async fn snapshot(&mut self, id: SnapshotId) -> Result<bool> {
        self.confirmed.retain(|object| !object.starts_with(INDEX));
        let root = self.repository.root(&id).await?;
        let tree = TreeReader::new(Arc::clone(&self.chunks), root);
        self.page(&tree, id, root, None).await
    }

    /// Reads the index again unless that was done for the same objects before; whether what could
    /// not be read may be found now. Somebody may have moved it to other packs.
    async fn look_again(&mut self, blame: &Blame) -> Result<bool> {
        if blame.objects.iter().all(|object| self.confirmed.contains(object)) {
            return Ok(false);
        }
        self.confirmed.extend(blame.objects.iter().cloned());
        let shared = self.repository.shared();
        shared.refresh_index().await?;
        Ok(true)
    }

    /// Walks a page; whether all is well beneath it.
    async fn page(
        &mut self,
        tree: &TreeReader,
        snapshot: SnapshotId,
        id: ChunkId,
        level: Option<u8>,
    ) -> Result<bool> {
        self.context.check()?;
        if self.sound.contains(&id) {
            return Ok(true);
        }
        let page = match tree.page(id, level).await {
            Ok(page) => page,
            Err(error) => {
                let blame = self.blame_for(id, error)?;
                if self.look_again(&blame).await? {
                    return Box::pin(self.page(tree, snapshot, id, level)).await;
                }
                self.record(snapshot, &blame, None);
                return Ok(false);
            }
        };
        let mut sound = true;
        if let Some(what) = disorder(&page) {
            let error = Error::damaged(format!("tree page {id}"), what);
            let blame = self.blame_for(id, error)?;
            self.record(snapshot, &blame, None);
            sound = false;
        }
        for entry in &page.entries {
            sound &= self.entry(snapshot, entry).await?;
        }
        for child in &page.children {
            let below = page.level.saturating_sub(1);
            sound &= Box::pin(self.page(tree, snapshot, child.page, Some(below))).await?;
        }
        if sound {
            self.sound.insert(id);
        }
        Ok(sound)
    }

    async fn entry(&mut self, snapshot: SnapshotId, entry: &EntryRecord) -> Result<bool> {
        let name = EntryPath::new(entry.raw_path())
            .map_or_else(|_| entry.raw_path().escape_ascii().to_string(), |path| path.to_string());
        let blame = match entry.info() {
            Ok(_) => self.content(&entry.content, entry.size, ChunkKind::Data).await?,
            Err(what) => Some(Blame { objects: vec![self.area.name_of(&snapshot)], what }),
        };
        if let Some(blame) = &blame {
            self.record(snapshot, blame, Some(&name));
        }
        if let Some(fingerprints) = &entry.content.fingerprints {
            let size = fingerprints.list.length().unwrap_or(u64::MAX);
            let lost = self.content(fingerprints, size, ChunkKind::Fingerprints).await?;
            // They save the next backup work; a restore does not need them.
            for object in lost.iter().flat_map(|blame| &blame.objects) {
                self.found.of(object, "fingerprints of pages cannot be read from it");
            }
        }
        Ok(blame.is_none())
    }

    /// Whether the content can be read: every piece of it, and `size` bytes together.
    async fn content(
        &mut self,
        record: &ContentRecord,
        size: u64,
        kind: ChunkKind,
    ) -> Result<Option<Blame>> {
        loop {
            match self.pieces(record, size, kind).await? {
                Some(blame) if self.look_again(&blame).await? => {}
                found => return Ok(found),
            }
        }
    }

    async fn pieces(
        &mut self,
        record: &ContentRecord,
        size: u64,
        kind: ChunkKind,
    ) -> Result<Option<Blame>> {
        let mut pieces = PieceCursor::new(Arc::clone(&self.chunks), record);
        let mut length = 0_u64;
        loop {
            let piece = match pieces.next(u64::MAX).await {
                Ok(Some(piece)) => piece,
                Ok(None) if length == size => return Ok(None),
                Ok(None) => {
                    let what = format!("its pieces have {length} bytes, the entry {size}");
                    return Ok(Some(Blame { objects: vec!["a list of pieces".into()], what }));
                }
                Err(error) => return self.blame_for(chunk_of(&error), error).map(Some),
            };
            length = length.saturating_add(piece.length);
            let Some(chunk) = piece.chunk else { continue };
            let end = u64::from(piece.offset).saturating_add(piece.length);
            if let Some(blame) = self.chunk(kind, chunk, end).await? {
                return Ok(Some(blame));
            }
        }
    }

    /// Whether the first `end` bytes of a chunk can be read.
    async fn chunk(&mut self, kind: ChunkKind, id: ChunkId, end: u64) -> Result<Option<Blame>> {
        match self.health.trouble(&self.chunks, kind, id, end).await? {
            Some(error) => self.blame_for(id, error).map(Some),
            None => Ok(None),
        }
    }

    /// The objects to blame that a chunk cannot be read. What is no damage is an error still.
    fn blame_for(&self, id: ChunkId, error: Error) -> Result<Blame> {
        let packs: Vec<_> = self.repository.shared().index.locations(&id);
        let packs: Vec<_> = packs.iter().map(|at| pack_name(at.pack.id)).collect();
        match error {
            Error::Damaged { object, what } if packs.is_empty() => {
                Ok(Blame { objects: vec![object], what })
            }
            Error::Damaged { what, .. } => Ok(Blame { objects: packs, what }),
            Error::MissingChunk { .. } if !packs.is_empty() => {
                Ok(Blame { objects: packs, what: format!("chunk {id} cannot be read from it") })
            }
            Error::MissingChunk { .. } => {
                // Where index objects are damaged, one of them knew it.
                let objects = self.damages.in_area(INDEX);
                let what = format!("chunk {id} is in no pack that an index knows");
                let objects = if objects.is_empty() { vec![INDEX.into()] } else { objects };
                Ok(Blame { objects, what })
            }
            error => Err(error),
        }
    }

    fn record(&mut self, snapshot: SnapshotId, blame: &Blame, entry: Option<&str>) {
        for object in &blame.objects {
            if self.area == RootArea::Snapshots {
                self.found.of(object, &blame.what).hurts(snapshot, entry);
                continue;
            }
            // Nothing is to be mended for the sake of a checkpoint alone: it can go.
            let own = self.area.name_of(&snapshot);
            let known = object.starts_with(PACKS) || self.damages.knows(object);
            let object = if known { object } else { &own };
            self.found.of(object, &blame.what).checkpoints.insert(snapshot);
        }
    }
}

/// What breaks the order of a page, if anything does.
fn disorder(page: &Page) -> Option<&'static str> {
    let ascend = page.entries.is_sorted_by(|a, b| compare(a.raw_path(), b.raw_path()).is_lt())
        && page.children.is_sorted_by(|a, b| compare(&a.first, &b.first).is_lt());
    let mixed = !page.entries.is_empty() && !page.children.is_empty();
    match (ascend, mixed || (page.level == 0) != page.children.is_empty()) {
        (false, _) => Some("its entries are not in order"),
        (true, true) => Some("it is neither a leaf nor an inner page"),
        (true, false) => None,
    }
}

/// The chunk that an error names; for other errors an id that no chunk has.
fn chunk_of(error: &Error) -> ChunkId {
    let named = match error {
        Error::MissingChunk { id } => ChunkId::from_hex(id),
        _ => None,
    };
    named.unwrap_or(ChunkId::from_bytes([0; 32]))
}
