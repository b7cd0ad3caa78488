//! The repository as a sink: one write makes one snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{
    Baseline, Completion, Context, Entry, EntryInfo, EntryKind, Extent, Header, Layout, Receipt,
    Sink, StoreRef, Timestamp, Writing,
};
use parking_lot::Mutex as SyncMutex;
use tokio::sync::Mutex;

use super::chunks::ChunkWriter;
use super::pages::{PageBaseline, PageStorer};
use super::peeked::Peeked;
use super::stream;
use crate::content::ContentRecord;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::objects::{SNAPSHOTS, name_in};
use crate::read::{ChunkReader, FingerprintCursor, PieceCursor};
use crate::repository::{Repository, WriteOptions};
use crate::snapshot::{BaselineSnapshot, Snapshot, SnapshotRecord};
use crate::tree::{EntryRecord, TreeReader, TreeWriter};

/// Takes snapshots into a repository.
pub(crate) struct RepositorySink {
    repository: Repository,
    options: WriteOptions,
    /// The snapshot that was given as baseline: the write that follows needs the same pages of it.
    baseline: SyncMutex<Option<Snapshot>>,
}

impl RepositorySink {
    pub(crate) fn new(repository: Repository, options: WriteOptions) -> Self {
        Self { repository, options, baseline: SyncMutex::default() }
    }
}

#[async_trait]
impl Sink for RepositorySink {
    async fn baseline(&self, store: &StoreRef) -> lifeboat_core::Result<Option<Arc<dyn Baseline>>> {
        let listed = self.repository.snapshots().await?;
        let newest = listed
            .snapshots
            .into_iter()
            .filter(|snapshot| snapshot.store == *store)
            .max_by_key(|snapshot| (snapshot.committed, snapshot.id));
        let Some(newest) = newest else {
            return Ok(None);
        };
        let snapshot = self.repository.snapshot(&newest.id).await?;
        *self.baseline.lock() = Some(snapshot.clone());
        Ok(Some(Arc::new(BaselineSnapshot::new(snapshot))))
    }

    async fn write(
        &self,
        header: &Header,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Writing>> {
        let shared = Arc::clone(self.repository.shared());
        let level = self.options.compression.level();
        let what = format!("a backup of {}", header.store);
        let chunks = ChunkWriter::begin(Arc::clone(&shared), context.clone(), level, &what).await?;
        let known = self.baseline.lock().take();
        let baseline = match (header.baseline, known) {
            (Some(id), Some(known)) if known.info().id == id => Some(known),
            (Some(id), _) => Some(self.repository.snapshot(&id).await?),
            (None, _) => None,
        };
        let baseline = baseline.map(|snapshot| snapshot.tree().clone());
        for (name, what) in shared.index.damaged() {
            context.warn(&name, format!("this index object is damaged and is not used: {what}"));
        }
        let tree = TreeWriter::new(Arc::clone(&chunks), Arc::clone(&shared.keys));
        Ok(Box::new(SnapshotWriting {
            reader: Arc::new(ChunkReader::new(Arc::clone(&shared))),
            repository: self.repository.clone(),
            header: header.clone(),
            context: context.clone(),
            chunks,
            baseline,
            tree: Mutex::new(Ordered { tree: Some(tree), next: 0, early: BTreeMap::new() }),
            committed: SyncMutex::new(false),
        }))
    }
}

/// A snapshot being taken.
struct SnapshotWriting {
    repository: Repository,
    header: Header,
    context: Context,
    chunks: Arc<ChunkWriter>,
    reader: Arc<ChunkReader>,
    baseline: Option<TreeReader>,
    tree: Mutex<Ordered>,
    committed: SyncMutex<bool>,
}

/// Brings entries that were finished out of order back into it.
struct Ordered {
    tree: Option<TreeWriter>,
    next: u64,
    early: BTreeMap<u64, EntryRecord>,
}

impl Ordered {
    async fn push(&mut self, ordinal: u64, entry: EntryRecord) -> Result<()> {
        self.early.insert(ordinal, entry);
        while let Some(entry) = self.early.remove(&self.next) {
            self.next += 1;
            let tree = self.tree.as_mut().ok_or(Error::Worker { doing: "store an entry" })?;
            tree.push(&entry).await?;
        }
        Ok(())
    }
}

impl SnapshotWriting {
    async fn put_entry(&self, ordinal: u64, entry: Entry) -> Result<()> {
        let Entry { path, kind, attributes, layout, content, .. } = entry;
        let mut info = EntryInfo { path, kind, attributes, layout, size: 0 };
        let mut record = ContentRecord::default();
        if kind == EntryKind::File {
            let old = match &self.baseline {
                Some(tree) => tree.get(&info.path).await?,
                None => None,
            };
            let content = Peeked::new(content).await?;
            (record, info.size) = self.content(&info, content, old).await?;
        }
        let entry = EntryRecord::new(&info, record);
        self.tree.lock().await.push(ordinal, entry).await
    }

    async fn content(
        &self,
        info: &EntryInfo,
        content: Peeked,
        old: Option<EntryRecord>,
    ) -> Result<(ContentRecord, u64)> {
        if let (Some(Extent::Unchanged(size)), Some(old)) = (content.only(), &old)
            && *size == old.size
            && info.layout == old.layout()
            && self.has_all(&old.content).await
        {
            return Ok((old.content.clone(), old.size));
        }
        let pieces = |record: &ContentRecord| PieceCursor::new(Arc::clone(&self.reader), record);
        match info.layout {
            Layout::Pages(page) if page.is_power_of_two() && (512..=1 << 20).contains(&page) => {
                let baseline = old.map(|old| PageBaseline {
                    pieces: pieces(&old.content),
                    fingerprints: (old.content.fingerprints.as_deref())
                        .filter(|_| info.layout == old.layout())
                        .map(|record| FingerprintCursor::new(Arc::clone(&self.reader), record)),
                });
                let page = page as usize;
                PageStorer::new(&self.chunks, &info.path, page, baseline).store(content).await
            }
            _ => {
                let baseline = old.map(|old| pieces(&old.content));
                stream::store(&self.chunks, &info.path, content, baseline).await
            }
        }
    }

    /// Whether the repository has all that the content of an earlier snapshot consists of.
    ///
    /// The pages of a long list are read for it, a few KiB for a GiB: what was lost beneath them
    /// must not be inherited. Where one cannot be read, there is nothing to rely on.
    async fn has_all(&self, record: &ContentRecord) -> bool {
        let chunks = record.list.chunks();
        if !chunks.iter().all(|chunk| self.chunks.has(chunk)) {
            return false;
        }
        if record.depth == 0 {
            return true;
        }
        let mut pieces = PieceCursor::new(Arc::clone(&self.reader), record);
        loop {
            match pieces.next(u64::MAX).await {
                Ok(Some(piece)) if self.chunks.has_all(&[piece]) => {}
                Ok(None) => return true,
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    }

    async fn finish(&self, completion: Completion) -> Result<Receipt> {
        let tree = {
            let mut ordered = self.tree.lock().await;
            if !ordered.early.is_empty() {
                return Err(Error::Worker { doing: "put the entries into order" });
            }
            ordered.tree.take().ok_or(Error::Worker { doing: "commit" })?
        };
        let (root, entries, bytes) = tree.finish().await?;
        self.chunks.settle().await?;
        let record = SnapshotRecord::new(&self.header, &completion, root)
            .counted(entries, bytes, self.chunks.written(), self.context.warnings())
            .committed_at(Timestamp::now());
        let shared = self.repository.shared();
        let (id, size) = record.write(&shared.objects, &shared.keys).await?;
        if let Err(error) = self.chunks.confirm().await {
            // Nobody was told of it, and it may lack something.
            let name = name_in(SNAPSHOTS, ObjectId::from_bytes(*id.as_bytes()));
            shared.objects.delete(&name).await?;
            return Err(error);
        }
        self.context.count_stored(size);
        *self.committed.lock() = true;
        Ok(Receipt { snapshot: Some(id), ..Receipt::default() })
    }
}

#[async_trait]
impl Writing for SnapshotWriting {
    async fn put(&self, ordinal: u64, entry: Entry) -> lifeboat_core::Result<()> {
        Ok(self.put_entry(ordinal, entry).await?)
    }

    async fn commit(self: Arc<Self>, completion: Completion) -> lifeboat_core::Result<Receipt> {
        Ok(self.finish(completion).await?)
    }

    async fn abort(self: Arc<Self>) {
        self.chunks.give_up();
    }
}

impl Drop for SnapshotWriting {
    fn drop(&mut self) {
        if !*self.committed.lock() {
            self.chunks.give_up();
        }
    }
}
