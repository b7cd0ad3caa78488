//! The repository as a sink: one write makes one snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lifeboat_core::{
    Baseline, Completion, Context, Entry, EntryInfo, EntryKind, EntryPath, Extent, Header, Layout,
    Order, Receipt, Sink, SnapshotId, SnapshotInfo, StoreRef, Timestamp, Writing,
};
use parking_lot::Mutex as SyncMutex;
use tokio::sync::Mutex;

use super::baseline::Baselines;
use super::chunks::ChunkWriter;
use super::inventory::{self, Thoroughness};
use super::pages::{PageBaseline, PageStorer};
use super::peeked::Peeked;
use super::sorter::Sorter;
use super::stream::{self, Grain};
use crate::content::ContentRecord;
use crate::crypto::Access;
use crate::error::{Error, Result};
use crate::read::{ChunkReader, FingerprintCursor, PieceCursor, is_there};
use crate::repository::{Repository, SnapshotList, WriteOptions};
use crate::snapshot::{RootArea, Snapshot, SnapshotRecord};
use crate::tree::{EntryRecord, EntryRef, TreeWriter};

/// Takes snapshots into a repository.
pub(crate) struct RepositorySink {
    repository: Repository,
    options: WriteOptions,
    /// The baseline, when it is chosen by the caller, and not the newest of the store.
    chosen: Option<Snapshot>,
    /// What was given as baseline: the write that follows needs the same pages of it.
    baseline: SyncMutex<Option<Baselines>>,
}

impl RepositorySink {
    pub(crate) fn new(repository: Repository, options: WriteOptions) -> Self {
        Self { repository, options, chosen: None, baseline: SyncMutex::default() }
    }

    /// Compares with this snapshot, whatever else there is of the store.
    pub(crate) fn comparing_with(mut self, baseline: Option<Snapshot>) -> Self {
        self.chosen = baseline;
        self
    }
}

#[async_trait]
impl Sink for RepositorySink {
    async fn baseline(&self, store: &StoreRef) -> lifeboat_core::Result<Option<Arc<dyn Baseline>>> {
        if let Some(chosen) = &self.chosen {
            let chosen = Baselines::new(Some(chosen.clone()), None);
            self.baseline.lock().clone_from(&chosen);
            return Ok(chosen.map(|chosen| Arc::new(chosen) as Arc<dyn Baseline>));
        }
        // Who may only write cannot read the last snapshot. What is in the repository is not
        // stored again all the same: the index tells.
        if self.repository.access() == Access::WriteOnly {
            return Ok(None);
        }
        let of_store = |list: SnapshotList| {
            let infos = list.snapshots.into_iter();
            let mut infos: Vec<_> = infos.filter(|info| info.store == *store).collect();
            infos.sort_by_key(|info| (info.committed, info.id));
            infos
        };
        let whole = of_store(self.repository.roots().await?);
        let latest = whole.last().map(|latest| latest.committed);
        let mut checkpoints = of_store(self.repository.checkpoints().await?);
        checkpoints.retain(|checkpoint| latest.is_none_or(|latest| latest < checkpoint.started));
        // The newest one that is still there: somebody may forget it at this moment.
        let open = async |mut infos: Vec<SnapshotInfo>| {
            while let Some(info) = infos.pop() {
                match self.repository.snapshot(&info.id).await {
                    Err(Error::NoSuchSnapshot { .. }) => {}
                    opened => return opened.map(Some),
                }
            }
            Ok(None)
        };
        let baselines = Baselines::new(open(whole).await?, open(checkpoints).await?);
        self.baseline.lock().clone_from(&baselines);
        Ok(baselines.map(|baselines| Arc::new(baselines) as Arc<dyn Baseline>))
    }

    fn takes(&self, _: Order) -> bool {
        true
    }

    async fn write(
        &self,
        header: &Header,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Writing>> {
        let warned = context.warnings();
        let shared = Arc::clone(self.repository.shared());
        let level = self.options.compression.level();
        let what = format!("a backup of {}", header.store);
        let chunks = ChunkWriter::begin(Arc::clone(&shared), context.clone(), level, &what).await?;
        let known = self.baseline.lock().take();
        let baseline = match (header.baseline, known) {
            (Some(id), Some(known)) if known.id() == id => Some(known),
            (Some(id), _) => Baselines::new(Some(self.repository.snapshot(&id).await?), None),
            (None, _) => None,
        };
        let thoroughness = match baseline {
            Some(_) => Thoroughness::Usual,
            None => Thoroughness::Full,
        };
        inventory::take(&shared, thoroughness, context).await?;
        // It has the pages already that the source asks for.
        let reader = baseline.as_ref().and_then(Baselines::chunks).cloned();
        for (name, what) in shared.index.damaged() {
            context.warn(&name, format!("this index object is damaged and is not used: {what}"));
        }
        let tree = TreeWriter::new(Arc::clone(&chunks), Arc::clone(&shared.keys));
        let (arranging, checkpoint_every) = match header.order {
            Order::Sorted => {
                let ordered = Ordered { tree, next: 0, early: BTreeMap::new() };
                (Arranging::ByOrdinal(ordered), self.options.checkpoint_every)
            }
            Order::AsTheyCome => (Arranging::ByPath(Sorter::new(&shared.pool), tree), None),
        };
        Ok(Box::new(SnapshotWriting {
            reader: reader.unwrap_or_else(|| Arc::new(ChunkReader::new(Arc::clone(&shared)))),
            repository: self.repository.clone(),
            header: header.clone(),
            warned,
            context: context.clone(),
            chunks,
            baseline,
            arranging: Mutex::new(Some(arranging)),
            checkpoint_every,
            checkpoint: Mutex::new(Checkpoint { since: Instant::now(), id: None }),
            changed: AtomicBool::new(false),
            committed: SyncMutex::new(false),
            degraded: SyncMutex::new(false),
        }))
    }
}

/// A snapshot being taken.
struct SnapshotWriting {
    repository: Repository,
    header: Header,
    /// How many warnings there were before this write: not of this snapshot.
    warned: u64,
    context: Context,
    chunks: Arc<ChunkWriter>,
    reader: Arc<ChunkReader>,
    baseline: Option<Baselines>,
    /// `None` once the commit began.
    arranging: Mutex<Option<Arranging>>,
    checkpoint_every: Option<Duration>,
    checkpoint: Mutex<Checkpoint>,
    /// Whether an entry came after the last checkpoint began.
    changed: AtomicBool,
    committed: SyncMutex<bool>,
    /// Whether it was said that a part of the baseline cannot be read.
    degraded: SyncMutex<bool>,
}

/// The last checkpoint of this write.
struct Checkpoint {
    since: Instant,
    id: Option<SnapshotId>,
}

/// How entries get into the order of the tree.
enum Arranging {
    /// They come in it, and are finished beside each other.
    ByOrdinal(Ordered),
    /// They come in another one.
    ByPath(Sorter, TreeWriter),
}

/// Brings entries that were finished out of order back into it.
struct Ordered {
    tree: TreeWriter,
    next: u64,
    early: BTreeMap<u64, Finished>,
}

/// An entry whose content is stored.
enum Finished {
    New(EntryRecord),
    /// It is what the baseline has, to the last attribute.
    Kept(EntryRef),
}

impl Ordered {
    async fn push(&mut self, ordinal: u64, entry: Finished) -> Result<()> {
        self.early.insert(ordinal, entry);
        while let Some(entry) = self.early.remove(&self.next) {
            self.next += 1;
            match entry {
                Finished::New(entry) => self.tree.push(&entry).await?,
                Finished::Kept(entry) => self.tree.push_kept(&entry).await?,
            }
        }
        Ok(())
    }
}

impl Arranging {
    async fn push(&mut self, ordinal: u64, path: EntryPath, entry: Finished) -> Result<()> {
        let sorter = match self {
            Self::ByOrdinal(ordered) => return ordered.push(ordinal, entry).await,
            Self::ByPath(sorter, _) => sorter,
        };
        let (size, encoded) = match &entry {
            Finished::New(entry) => (entry.size, encoded(entry)?),
            Finished::Kept(entry) => {
                let kept = entry.encoded().map(<[u8]>::to_vec);
                (entry.size, kept.map_or_else(|| encoded(entry), Ok)?)
            }
        };
        sorter.push(path, size, encoded).await
    }

    /// The tree of what was pushed so far; none before the first entry, and where they are sorted
    /// at the end.
    fn so_far(&self) -> Option<TreeWriter> {
        match self {
            Self::ByOrdinal(ordered) if ordered.next > 0 => Some(ordered.tree.clone()),
            _ => None,
        }
    }

    /// The tree of all that was pushed.
    async fn into_tree(self) -> Result<TreeWriter> {
        match self {
            Self::ByOrdinal(ordered) if ordered.early.is_empty() => Ok(ordered.tree),
            Self::ByOrdinal(_) => Err(Error::Worker { doing: "put the entries into order" }),
            Self::ByPath(sorter, mut tree) => {
                sorter.finish(&mut tree).await?;
                Ok(tree)
            }
        }
    }
}

fn encoded(entry: &EntryRecord) -> Result<Vec<u8>> {
    minicbor::to_vec(entry).map_err(|_| Error::Crypto { doing: "encode an entry" })
}

impl SnapshotWriting {
    async fn put_entry(&self, ordinal: u64, entry: Entry) -> Result<()> {
        let path = entry.path.clone();
        let entry = self.finished(entry).await?;
        let mut arranging = self.arranging.lock().await;
        let arranged = arranging.as_mut().ok_or(Error::Worker { doing: "store an entry" })?;
        arranged.push(ordinal, path, entry).await?;
        drop(arranging);
        self.checkpoint().await;
        Ok(())
    }

    /// Stores the content of an entry.
    async fn finished(&self, entry: Entry) -> Result<Finished> {
        let Entry { path, kind, attributes, layout, content, .. } = entry;
        let mut info = EntryInfo { path, kind, attributes, layout, size: 0 };
        if kind != EntryKind::File {
            return Ok(Finished::New(EntryRecord::new(&info, ContentRecord::default())));
        }
        let old = self.old(&info.path).await?;
        let content = Peeked::new(content).await?;
        let old = match (content.only(), old) {
            (Some(Extent::Unchanged(size)), Some(old))
                if *size == old.size
                    && info.layout == old.layout()
                    && self.has_all(&old.content).await =>
            {
                return Ok(self.unchanged(info, old).await);
            }
            (_, old) => old,
        };
        let (record, size) = self.content(&info, content, old).await?;
        info.size = size;
        Ok(Finished::New(EntryRecord::new(&info, record)))
    }

    /// An entry with the content that the baseline has, all of which the repository has too.
    async fn unchanged(&self, mut info: EntryInfo, old: EntryRef) -> Finished {
        let fingerprints = match &old.content.fingerprints {
            Some(fingerprints) => self.has_all(fingerprints).await,
            None => true,
        };
        if fingerprints && old.kind() == Some(info.kind) && *old.attributes() == info.attributes {
            return Finished::Kept(old);
        }
        info.size = old.size;
        let mut content = old.content.clone();
        content.fingerprints = content.fingerprints.filter(|_| fingerprints);
        Finished::New(EntryRecord::new(&info, content))
    }

    /// Commits what is stored so far as an incomplete snapshot, when it is time. That this fails
    /// costs only what a later run would have saved.
    async fn checkpoint(&self) {
        let Some(every) = self.checkpoint_every else {
            return;
        };
        self.changed.store(true, Ordering::Release);
        // One at a time; the others go on with their entries, and whoever is at it looks again
        // whether they left it something to do.
        while let Ok(mut last) = self.checkpoint.try_lock() {
            if last.since.elapsed() < every || !self.changed.swap(false, Ordering::AcqRel) {
                return;
            }
            match self.write_checkpoint().await {
                Ok(Some(id)) => {
                    let before = last.id.replace(id);
                    self.drop_checkpoints(before).await;
                }
                // The first entry is still on its way.
                Ok(None) => continue,
                Err(error) => tracing::warn!(%error, "no checkpoint could be committed"),
            }
            last.since = Instant::now();
        }
    }

    async fn write_checkpoint(&self) -> Result<Option<SnapshotId>> {
        let so_far = self.arranging.lock().await.as_ref().and_then(Arranging::so_far);
        let Some(so_far) = so_far else {
            return Ok(None);
        };
        let (root, entries, bytes) = so_far.finish().await?;
        self.chunks.settle().await?;
        let completion = Completion::at(self.header.started);
        let record = SnapshotRecord::new(&self.header, &completion, root)
            .counted(entries, bytes, self.chunks.written(), self.warnings())
            .committed_at(Timestamp::now())
            .incomplete();
        let shared = self.repository.shared();
        let (id, size) = record.write(&shared.objects, &shared.keys).await?;
        self.context.count_stored(size);
        Ok(Some(id))
    }

    /// Removes checkpoints that another one or a whole snapshot has made idle. Where this is
    /// refused, a prune does it.
    async fn drop_checkpoints(&self, ids: impl IntoIterator<Item = SnapshotId>) {
        for id in ids {
            let name = RootArea::Checkpoints.name_of(&id);
            if let Err(error) = self.repository.shared().objects.delete(&name).await {
                tracing::debug!(%error, "a checkpoint could not be removed");
            }
        }
    }

    /// What the baseline has at `path`. Where it is damaged it has nothing: it saves work, and
    /// nothing depends on it.
    async fn old(&self, path: &EntryPath) -> Result<Option<EntryRef>> {
        let Some(baseline) = &self.baseline else {
            return Ok(None);
        };
        match baseline.get(path).await {
            Err(error) if error.is_damage() => {
                if !std::mem::replace(&mut *self.degraded.lock(), true) {
                    let message = "a part of the last snapshot cannot be read, so what is in it \
                                   is not compared with it";
                    self.context.warn("", format!("{message}: {error}"));
                }
                Ok(None)
            }
            found => found,
        }
    }

    async fn content(
        &self,
        info: &EntryInfo,
        content: Peeked,
        old: Option<EntryRef>,
    ) -> Result<(ContentRecord, u64)> {
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
                let grain = match info.layout {
                    Layout::Records => Grain::Fine,
                    Layout::Stream | Layout::Pages(_) => Grain::Coarse,
                };
                let baseline = old.map(|old| pieces(&old.content));
                stream::store(&self.chunks, &info.path, grain, content, baseline).await
            }
        }
    }

    /// How many things need attention in what is written.
    fn warnings(&self) -> u64 {
        let mine = self.context.warnings().saturating_sub(self.warned);
        self.header.warnings.saturating_add(mine)
    }

    /// Whether the repository has all that the content of an earlier snapshot consists of: what was
    /// lost of it must not be inherited.
    async fn has_all(&self, record: &ContentRecord) -> bool {
        is_there(&self.reader, record, |chunk| self.chunks.has(chunk)).await
    }

    async fn finish(&self, completion: Completion) -> Result<Receipt> {
        let arranging = self.arranging.lock().await.take();
        let tree = arranging.ok_or(Error::Worker { doing: "commit" })?.into_tree().await?;
        let (root, entries, bytes) = tree.finish().await?;
        self.chunks.settle().await?;
        let record = SnapshotRecord::new(&self.header, &completion, root)
            .counted(entries, bytes, self.chunks.written(), self.warnings())
            .committed_at(Timestamp::now());
        let shared = self.repository.shared();
        let (id, size) = record.write(&shared.objects, &shared.keys).await?;
        if let Err(error) = self.chunks.confirm().await {
            // Nobody was told of it, and it may lack something.
            shared.objects.delete(&RootArea::Snapshots.name_of(&id)).await?;
            return Err(error);
        }
        self.drop_checkpoints(self.checkpoint.lock().await.id.take()).await;
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
