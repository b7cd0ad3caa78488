//! A snapshot as a source: what a restore reads.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::{
    Baseline, Completion, Content, Context, Entry, EntryInfo, EntryPath, Extent, Inspection,
    Layout, Reading, Source, StoreRef, local::FormerFiles,
};
use tokio_util::task::AbortOnDropHandle;

use super::ahead::fetched_ahead;
use super::chunks::ChunkReader;
use super::pieces::PieceCursor;
use super::sparing::read_sparing;
use crate::chunk::ChunkKind;
use crate::content::{ContentRecord, Piece};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::snapshot::Snapshot;
use crate::tree::{EntryRecord, TreeCursor};

/// How many small entries are fetched side by side.
const AHEAD: usize = 4;

/// Entries of up to so many bytes are read ahead, so that whoever takes them finds their content at
/// hand: most of them lie in blocks with their neighbours.
const SMALL: u64 = 256 << 10;
/// So many of them at most are read together, or as many as have so many bytes; and so many of
/// these groups are on their way.
const GROUP: usize = 32;
const GROUP_BYTES: u64 = 1 << 20;
const GROUPS: usize = 6;

/// Which entries of a snapshot are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selection {
    /// These paths and everything beneath them, and the directories that lead to them. Empty
    /// means everything.
    pub paths: Vec<EntryPath>,
}

impl Selection {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// These paths and everything beneath them.
    pub fn paths(paths: impl IntoIterator<Item = EntryPath>) -> Self {
        Self { paths: paths.into_iter().collect() }
    }

    /// Whether an entry is meant.
    pub fn selects(&self, path: &EntryPath) -> bool {
        self.paths.is_empty()
            || self.paths.iter().any(|wanted| path.starts_with(wanted) || wanted.starts_with(path))
    }
}

/// Reads a snapshot.
pub(crate) struct SnapshotSource {
    snapshot: Snapshot,
    selection: Selection,
    former: Option<Arc<dyn FormerFiles>>,
}

impl SnapshotSource {
    pub(crate) fn new(
        snapshot: Snapshot,
        selection: Selection,
        former: Option<Arc<dyn FormerFiles>>,
    ) -> Self {
        Self { snapshot, selection, former }
    }
}

#[async_trait]
impl Source for SnapshotSource {
    fn store(&self) -> &StoreRef {
        &self.snapshot.info().store
    }

    async fn inspect(&self) -> lifeboat_core::Result<Inspection> {
        let info = self.snapshot.info();
        Ok(Inspection {
            version: "1".into(),
            identity: info.id.to_string(),
            size: Some(info.bytes),
            facts: info.facts.clone(),
            findings: Vec::new(),
        })
    }

    async fn read(
        &self,
        _: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Reading>> {
        if self.selection.paths.is_empty() {
            context.expect(self.snapshot.info().bytes);
        }
        for path in &self.selection.paths {
            if !contains(&self.snapshot, path).await? {
                let (path, snapshot) = (path.to_string(), self.snapshot.info().id.short());
                return Err(Error::NoSuchEntry { path, snapshot }.into());
            }
        }
        Ok(Box::new(SnapshotReading {
            entries: self.snapshot.tree().entries(None),
            snapshot: self.snapshot.clone(),
            selection: self.selection.clone(),
            former: self.former.clone(),
            context: context.clone(),
            ahead: VecDeque::new(),
            ready: VecDeque::new(),
            next: None,
        }))
    }
}

/// Whether a snapshot has something at or beneath `path`.
pub(super) async fn contains(snapshot: &Snapshot, path: &EntryPath) -> Result<bool> {
    let found = snapshot.tree().entries(Some(path.clone())).next().await?;
    Ok(found.is_some_and(|entry| {
        EntryPath::new(entry.raw_path()).is_ok_and(|found| found.starts_with(path))
    }))
}

struct SnapshotReading {
    snapshot: Snapshot,
    entries: TreeCursor,
    selection: Selection,
    former: Option<Arc<dyn FormerFiles>>,
    context: Context,
    /// What is read ahead, in order.
    ahead: VecDeque<Ahead>,
    /// Entries that are next.
    ready: VecDeque<Entry>,
    /// An entry that came after those of the last group, and is not one of them.
    next: Option<(EntryInfo, ContentRecord)>,
}

/// What was read ahead.
enum Ahead {
    /// Small entries, with their content.
    Group(AbortOnDropHandle<Result<Vec<Entry>>>),
    /// One entry whose content comes as it is asked for.
    Large(Box<Entry>),
}

impl SnapshotReading {
    /// The next entry that is meant.
    async fn selected(&mut self) -> Result<Option<(EntryInfo, ContentRecord)>> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        while let Some(record) = self.entries.next().await? {
            let info = decode(&record)?;
            if self.selection.selects(&info.path) {
                return Ok(Some((info, record.content.clone())));
            }
        }
        Ok(None)
    }

    /// Reads ahead what comes next: a group of small entries, or a large one. The result is whether
    /// there was anything.
    async fn reach_out(&mut self) -> Result<bool> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < GROUP && bytes < GROUP_BYTES {
            let Some((info, record)) = self.selected().await? else { break };
            if info.size > SMALL || record.depth > 0 {
                if group.is_empty() {
                    let chunks = Arc::clone(self.snapshot.chunks());
                    let context = self.context.clone();
                    let content = match (&self.former, info.layout) {
                        (Some(former), Layout::Pages(page)) => {
                            let former = (Arc::clone(former), info.path.clone());
                            read_sparing(chunks, &record, (info.size, page), former, context)
                        }
                        _ => read(chunks, &record, info.size, context),
                    };
                    self.ahead.push_back(Ahead::Large(Box::new(entry(info, content))));
                    return Ok(true);
                }
                self.next = Some((info, record));
                break;
            }
            bytes += info.size;
            group.push((info, record));
        }
        if group.is_empty() {
            return Ok(false);
        }
        let (chunks, context) = (Arc::clone(self.snapshot.chunks()), self.context.clone());
        let reading = tokio::spawn(read_group(chunks, group, context));
        self.ahead.push_back(Ahead::Group(AbortOnDropHandle::new(reading)));
        Ok(true)
    }
}

/// Small entries, with their content in memory.
async fn read_group(
    chunks: Arc<ChunkReader>,
    group: Vec<(EntryInfo, ContentRecord)>,
    context: Context,
) -> Result<Vec<Entry>> {
    let read = |(info, record): (EntryInfo, ContentRecord)| {
        let mut content = read(Arc::clone(&chunks), &record, info.size, context.clone());
        async move {
            let mut extents = Vec::new();
            while let Some(extent) = content.next().await? {
                extents.push(extent);
            }
            Ok::<_, Error>(entry(info, Content::extents(extents)))
        }
    };
    stream::iter(group).map(read).buffered(AHEAD).try_collect().await
}

fn entry(info: EntryInfo, content: Content) -> Entry {
    let entry = Entry::new(info.path, info.kind, info.attributes);
    entry.with_layout(info.layout).with_content(info.size, content)
}

#[async_trait]
impl Reading for SnapshotReading {
    async fn next(&mut self) -> lifeboat_core::Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            while self.ahead.len() < GROUPS && self.reach_out().await? {}
            match self.ahead.pop_front() {
                None => return Ok(None),
                Some(Ahead::Large(entry)) => return Ok(Some(*entry)),
                Some(Ahead::Group(group)) => {
                    let stopped = |_| Error::Worker { doing: "read small entries" };
                    self.ready = group.await.map_err(stopped)??.into();
                }
            }
        }
    }

    async fn finish(self: Box<Self>) -> lifeboat_core::Result<Completion> {
        let info = self.snapshot.info();
        Ok(Completion {
            taken: info.taken,
            position: info.position.clone(),
            facts: info.facts.clone(),
        })
    }
}

pub(crate) fn decode(record: &EntryRecord) -> Result<lifeboat_core::EntryInfo> {
    record.info().map_err(|what| Error::damaged("an entry of the snapshot", what))
}

/// The content that a record stands for: exactly `size` bytes, or an error.
pub(crate) fn read(
    chunks: Arc<ChunkReader>,
    record: &ContentRecord,
    size: u64,
    context: Context,
) -> Content {
    read_range(chunks, record, size, 0..size, context)
}

/// As [`read`], but only the bytes in `range`, which must be within `size`. Lists of pieces and
/// chunks that lie before it are not read.
pub(crate) fn read_range(
    chunks: Arc<ChunkReader>,
    record: &ContentRecord,
    size: u64,
    range: Range<u64>,
    context: Context,
) -> Content {
    if range.is_empty() && (size > 0 || record.list.len() == 0) {
        return Content::empty();
    }
    let cursor = PieceCursor::new(Arc::clone(&chunks), record);
    let start = range.start;
    // Whoever reads to the end learns as well when there is more than there should be.
    let until = if range.end == size { u64::MAX } else { range.end };
    let pieces = stream::unfold((Some(cursor), 0_u64), move |(cursor, done)| async move {
        let mut cursor = cursor?;
        let done = match done.max(start) {
            end if end == until => return None,
            at if at > done => match cursor.skip(at - done).await {
                Ok(()) => at,
                Err(error) => return Some((Err(error), (None, done))),
            },
            at => at,
        };
        match cursor.next(until - done).await {
            Ok(Some(piece)) => {
                let done = done.saturating_add(piece.length);
                Some((Ok(piece), (Some(cursor), done)))
            }
            Ok(None) if done == size => None,
            Ok(None) => {
                let what = format!("its pieces have {done} bytes, the entry {size}");
                Some((Err(Error::damaged("a list of pieces", what)), (None, done)))
            }
            Err(error) => Some((Err(error), (None, done))),
        }
    });
    Content::stream(fetched_ahead(chunks, pieces, context))
}

/// The bytes of one piece.
pub(crate) async fn fetch(chunks: &ChunkReader, piece: Piece) -> Result<Extent> {
    let Some(id) = piece.chunk else {
        return Ok(Extent::Hole(piece.length));
    };
    let bytes = chunks.read(ChunkKind::Data, id).await?;
    let start = piece.offset as usize;
    let end = usize::try_from(piece.length).ok().and_then(|length| start.checked_add(length));
    match end {
        Some(end) if end <= bytes.len() => Ok(Extent::Data(bytes.slice(start..end))),
        _ => Err(out_of_range(id)),
    }
}

fn out_of_range(id: ChunkId) -> Error {
    Error::damaged(format!("chunk {id}"), "a piece of it lies beyond its end")
}
