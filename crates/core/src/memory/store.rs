//! A store in memory, as source and as sink.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::baseline::Baseline;
use crate::content::{Content, Extent};
use crate::context::Context;
use crate::entry::{Entry, EntryInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::path::EntryPath;
use crate::sink::{Header, Receipt, Sink, Writing};
use crate::snapshot::SnapshotInfo;
use crate::source::{Completion, Order, Reading, Source};
use crate::store::{Inspection, StoreRef};

/// The entries of an image, with their content; holes are zeros.
pub type Image = BTreeMap<EntryPath, (EntryInfo, Bytes)>;

/// A store whose entries live in memory. Clones share them.
///
/// As a source it gives its entries; with a baseline, files whose attributes and size are those
/// of the baseline are given as unchanged. As a sink it replaces its entries at commit, and keeps
/// what it had as the baseline of the next transfer.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    store: StoreRef,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    image: Arc<Image>,
    /// The snapshot that the image was committed as, when it came through the sink.
    snapshot: Option<SnapshotInfo>,
    commits: u8,
}

impl MemoryStore {
    /// An empty store called `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { store: StoreRef::new("memory", name), state: Arc::default() }
    }

    /// Adds or replaces one entry.
    ///
    /// # Errors
    /// When the content cannot be read, or refers to a baseline.
    pub async fn insert(&self, entry: Entry) -> Result<()> {
        let (info, bytes) = collect(entry, None).await?;
        Arc::make_mut(&mut self.state.lock().image).insert(info.path.clone(), (info, bytes));
        Ok(())
    }

    /// Removes one entry, and says whether it was there.
    pub fn remove(&self, path: &EntryPath) -> bool {
        Arc::make_mut(&mut self.state.lock().image).remove(path).is_some()
    }

    /// All entries.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.state.lock().image)
    }

    /// The content of one entry.
    pub fn content(&self, path: &EntryPath) -> Option<Bytes> {
        self.image().get(path).map(|(_, bytes)| bytes.clone())
    }

    /// How many writes were committed (at most 255).
    pub fn commits(&self) -> u8 {
        self.state.lock().commits
    }
}

/// Reads an entry's content into memory. `Unchanged` is taken from `baseline`.
///
/// # Errors
/// When the content cannot be read, or refers to a baseline that has no such bytes.
pub async fn collect(mut entry: Entry, baseline: Option<&Image>) -> Result<(EntryInfo, Bytes)> {
    let old = baseline.and_then(|image| image.get(&entry.path)).map(|(_, bytes)| bytes);
    let mut bytes = Vec::new();
    while let Some(extent) = entry.content.next().await? {
        let end = bytes.len() + usize::try_from(extent.len()).unwrap_or(usize::MAX);
        match extent {
            Extent::Data(data) => bytes.extend_from_slice(&data),
            Extent::Hole(_) => bytes.resize(end, 0),
            Extent::Unchanged(_) => {
                let same = old.and_then(|old| old.get(bytes.len()..end)).ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidInput,
                        format!("{} says unchanged where the baseline has nothing", entry.path),
                    )
                })?;
                bytes.extend_from_slice(same);
            }
        }
    }
    let info = EntryInfo {
        path: entry.path,
        kind: entry.kind,
        attributes: entry.attributes,
        layout: entry.layout,
        size: bytes.len() as u64,
    };
    Ok((info, bytes.into()))
}

#[async_trait]
impl Source for MemoryStore {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    async fn inspect(&self) -> Result<Inspection> {
        let size = self.image().values().map(|(_, bytes)| bytes.len() as u64).sum();
        Ok(Inspection { version: "1".into(), size: Some(size), ..Inspection::default() })
    }

    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> Result<Box<dyn Reading>> {
        let image = self.image();
        let rest = image.keys().cloned().collect::<Vec<_>>().into_iter();
        Ok(Box::new(MemoryReading { image, rest, since, context: context.clone() }))
    }
}

struct MemoryReading {
    image: Arc<Image>,
    rest: std::vec::IntoIter<EntryPath>,
    since: Option<Arc<dyn Baseline>>,
    context: Context,
}

/// Contents are given in pieces of this size, so that sinks meet content of several extents.
const PIECE: usize = 64 * 1024;

#[async_trait]
impl Reading for MemoryReading {
    async fn next(&mut self) -> Result<Option<Entry>> {
        self.context.check()?;
        let Some((info, bytes)) = self.rest.next().and_then(|path| self.image.get(&path)) else {
            return Ok(None);
        };
        let old = match &self.since {
            Some(since) => since.entry(&info.path).await?,
            None => None,
        };
        let content = if old.is_some_and(|old| old == *info) {
            self.context.count_unchanged(info.size);
            Content::unchanged(info.size)
        } else {
            self.context.count_read(info.size);
            let pieces = (0..bytes.len()).step_by(PIECE);
            Content::extents(pieces.map(|at| {
                let end = (at + PIECE).min(bytes.len());
                Extent::Data(bytes.slice(at..end))
            }))
        };
        let entry = Entry::new(info.path.clone(), info.kind, info.attributes.clone());
        Ok(Some(entry.with_layout(info.layout).with_content(info.size, content)))
    }

    async fn finish(self: Box<Self>) -> Result<Completion> {
        Ok(Completion::at(Timestamp::now()))
    }
}

#[async_trait]
impl Sink for MemoryStore {
    async fn baseline(&self, _: &StoreRef) -> Result<Option<Arc<dyn Baseline>>> {
        let state = self.state.lock();
        Ok(state.snapshot.clone().map(|snapshot| {
            Arc::new(MemoryBaseline { snapshot, image: Arc::clone(&state.image) }) as _
        }))
    }

    fn takes(&self, _: Order) -> bool {
        true
    }

    async fn write(&self, header: &Header, _: &Context) -> Result<Box<dyn Writing>> {
        Ok(Box::new(MemoryWriting {
            target: self.clone(),
            header: header.clone(),
            baseline: self.image(),
            image: Mutex::default(),
        }))
    }
}

struct MemoryWriting {
    target: MemoryStore,
    header: Header,
    baseline: Arc<Image>,
    image: Mutex<Image>,
}

#[async_trait]
impl Writing for MemoryWriting {
    async fn put(&self, _: u64, entry: Entry) -> Result<()> {
        let baseline = self.header.baseline.is_some().then_some(self.baseline.as_ref());
        let (info, bytes) = collect(entry, baseline).await?;
        let path = info.path.clone();
        let before = self.image.lock().insert(path.clone(), (info, bytes));
        if before.is_some() {
            return Err(Error::new(ErrorKind::Other, format!("the source gave {path} twice"))
                .with_hint("this is a defect of the source; please report it"));
        }
        Ok(())
    }

    async fn commit(self: Arc<Self>, completion: Completion) -> Result<Receipt> {
        let mut state = self.target.state.lock();
        state.image = Arc::new(std::mem::take(&mut *self.image.lock()));
        state.commits = state.commits.saturating_add(1);
        let id = SnapshotId::from_bytes([state.commits; 32]);
        let mut snapshot = SnapshotInfo::new(id, self.header.store.clone(), completion.taken);
        snapshot.facts = completion.facts;
        snapshot.position = completion.position;
        snapshot.entries = state.image.len() as u64;
        snapshot.bytes = state.image.values().map(|(_, bytes)| bytes.len() as u64).sum();
        state.snapshot = Some(snapshot);
        Ok(Receipt { snapshot: Some(id), ..Receipt::default() })
    }

    async fn abort(self: Arc<Self>) {}
}

struct MemoryBaseline {
    snapshot: SnapshotInfo,
    image: Arc<Image>,
}

#[async_trait]
impl Baseline for MemoryBaseline {
    fn snapshot(&self) -> &SnapshotInfo {
        &self.snapshot
    }

    async fn entry(&self, path: &EntryPath) -> Result<Option<EntryInfo>> {
        Ok(self.image.get(path).map(|(info, _)| info.clone()))
    }

    async fn content(&self, path: &EntryPath) -> Result<Option<Content>> {
        Ok(self.image.get(path).map(|(_, bytes)| Content::bytes(bytes.clone())))
    }

    fn entries(&self) -> Option<BoxStream<'_, Result<EntryInfo>>> {
        Some(stream::iter(self.image.values().map(|(info, _)| Ok(info.clone()))).boxed())
    }
}
