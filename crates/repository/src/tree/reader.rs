//! Reading a tree: one entry, or all in order.

use std::collections::HashMap;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;
use lifeboat_core::EntryPath;
use parking_lot::Mutex;

use super::entry::EntryRecord;
use super::page::{MAX_LEVEL, Page, compare};
use crate::chunk::ChunkKind;
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::read::ChunkReader;

/// What a page consists of.
const FIELDS: u64 = 3;
/// What is read of a leaf makes room for no more entries than so many in advance.
const USUAL: u64 = 512;
/// How many decoded pages are kept.
const KEPT: usize = 32;

/// A page, and the bytes from which it was decoded.
pub(crate) struct KeptPage {
    page: Page,
    bytes: Bytes,
    /// Where in the bytes each entry stands, where that is known.
    places: Vec<Range<usize>>,
}

impl Deref for KeptPage {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.page
    }
}

/// One that is stored nowhere.
impl From<Page> for KeptPage {
    fn from(page: Page) -> Self {
        Self { page, bytes: Bytes::new(), places: Vec::new() }
    }
}

impl KeptPage {
    fn decode(bytes: Bytes) -> Result<Self, minicbor::decode::Error> {
        if let Some(leaf) = Self::decode_leaf(&bytes)? {
            return Ok(leaf);
        }
        Ok(Self { page: minicbor::decode(&bytes)?, bytes, places: Vec::new() })
    }

    /// A leaf; `None` of what is written in another way than ours.
    fn decode_leaf(bytes: &Bytes) -> Result<Option<Self>, minicbor::decode::Error> {
        let mut decoder = minicbor::Decoder::new(bytes);
        if decoder.array()? != Some(FIELDS) || decoder.u8()? != 0 {
            return Ok(None);
        }
        let Some(count) = decoder.array()? else {
            return Ok(None);
        };
        let room = count.min(USUAL) as usize;
        let mut page = Page { entries: Vec::with_capacity(room), ..Page::default() };
        let mut places = Vec::with_capacity(room);
        for _ in 0..count {
            let from = decoder.position();
            page.entries.push(decoder.decode()?);
            places.push(from..decoder.position());
        }
        page.children = decoder.decode()?;
        Ok(Some(Self { page, bytes: bytes.clone(), places }))
    }

    /// The bytes of one entry.
    fn encoded(&self, at: usize) -> Option<&[u8]> {
        self.bytes.get(self.places.get(at)?.clone())
    }
}

/// Reads pages, and keeps the last ones.
pub(crate) struct PageReader {
    chunks: Arc<ChunkReader>,
    kept: Mutex<HashMap<ChunkId, Arc<KeptPage>>>,
}

impl PageReader {
    pub(crate) fn new(chunks: Arc<ChunkReader>) -> Self {
        Self { chunks, kept: Mutex::default() }
    }

    /// A page, which must be of `level` when that is known.
    pub(crate) async fn page(&self, id: ChunkId, level: Option<u8>) -> Result<Arc<KeptPage>> {
        let kept = self.kept.lock().get(&id).cloned();
        let page = match kept {
            Some(page) => page,
            None => {
                let bytes = self.chunks.read(ChunkKind::Tree, id).await?;
                let page = KeptPage::decode(bytes)
                    .map_err(|error| damaged(id, &format!("it does not decode: {error}")))?;
                let page = Arc::new(page);
                let mut kept = self.kept.lock();
                if kept.len() >= KEPT {
                    kept.clear();
                }
                kept.insert(id, Arc::clone(&page));
                page
            }
        };
        // Levels that fall strictly make every walk end.
        if page.level > MAX_LEVEL || level.is_some_and(|level| level != page.level) {
            return Err(damaged(id, "its level is wrong"));
        }
        Ok(page)
    }
}

/// The tree of one snapshot. Clones share the pages that they keep.
pub(crate) struct TreeReader {
    pages: Arc<PageReader>,
    root: ChunkId,
    /// The leaf of the last lookup: who asks for one path after the other finds most of them here.
    last: Mutex<Option<Arc<KeptPage>>>,
}

impl Clone for TreeReader {
    fn clone(&self) -> Self {
        Self { pages: Arc::clone(&self.pages), root: self.root, last: Mutex::default() }
    }
}

/// An entry in a page, without a copy of it.
pub(crate) struct EntryRef {
    page: Arc<KeptPage>,
    at: usize,
}

impl EntryRef {
    /// As it is stored.
    pub(crate) fn encoded(&self) -> Option<&[u8]> {
        self.page.encoded(self.at)
    }
}

impl Deref for EntryRef {
    type Target = EntryRecord;

    fn deref(&self) -> &EntryRecord {
        &self.page.entries[self.at]
    }
}

impl TreeReader {
    pub(crate) fn new(chunks: Arc<ChunkReader>, root: ChunkId) -> Self {
        Self { pages: Arc::new(PageReader::new(chunks)), root, last: Mutex::default() }
    }

    /// Another tree of the same repository. What both share is read once.
    pub(crate) fn beside(&self, other: &Self) -> Self {
        Self { root: other.root, ..self.clone() }
    }

    /// As [`PageReader::page`].
    pub(crate) async fn page(&self, id: ChunkId, level: Option<u8>) -> Result<Arc<KeptPage>> {
        self.pages.page(id, level).await
    }

    /// The top page's id.
    pub(crate) fn root(&self) -> ChunkId {
        self.root
    }

    /// The entry at `path`.
    pub(crate) async fn get(&self, path: &EntryPath) -> Result<Option<EntryRef>> {
        let path = path.as_bytes();
        let last = self.last.lock().clone();
        let page = match last.filter(|page| covers(page, path)) {
            Some(page) => page,
            None => match self.leaf(path).await? {
                Some(page) => page,
                None => return Ok(None),
            },
        };
        let found = page.entries.binary_search_by(|entry| compare(entry.raw_path(), path));
        Ok(found.ok().map(|at| EntryRef { page, at }))
    }

    /// The leaf in which `path` is, if it is anywhere.
    async fn leaf(&self, path: &[u8]) -> Result<Option<Arc<KeptPage>>> {
        let mut page = self.page(self.root, None).await?;
        while page.level > 0 {
            let after = page.children.partition_point(|child| compare(&child.first, path).is_le());
            let Some(at) = after.checked_sub(1) else {
                return Ok(None);
            };
            page = self.page(page.children[at].page, Some(page.level - 1)).await?;
        }
        *self.last.lock() = Some(Arc::clone(&page));
        Ok(Some(page))
    }

    /// The entry with this number, the first being 0.
    pub(crate) async fn nth(&self, number: u64) -> Result<Option<EntryRecord>> {
        let mut left = number;
        let mut page = self.page(self.root, None).await?;
        while page.level > 0 {
            let beneath = page.children.iter().find(|child| match left < child.entries {
                true => true,
                false => {
                    left -= child.entries;
                    false
                }
            });
            let Some(child) = beneath else { return Ok(None) };
            page = self.page(child.page, Some(page.level - 1)).await?;
        }
        Ok(usize::try_from(left).ok().and_then(|at| page.entries.get(at)).cloned())
    }

    /// All entries from the first one that is not before `from`.
    pub(crate) fn entries(&self, from: Option<EntryPath>) -> TreeCursor {
        self.entries_from(from.map(|path| path.as_bytes().to_vec()))
    }

    /// As [`TreeReader::entries`]; `from` need not be a path that an entry can have.
    pub(crate) fn entries_from(&self, from: Option<Vec<u8>>) -> TreeCursor {
        TreeCursor { tree: self.clone(), from, stack: Vec::new(), started: false, number: 0 }
    }
}

/// Whether `path` can be nowhere but in this leaf.
fn covers(leaf: &Page, path: &[u8]) -> bool {
    let ends = leaf.entries.first().zip(leaf.entries.last());
    ends.is_some_and(|(first, last)| {
        compare(first.raw_path(), path).is_le() && compare(path, last.raw_path()).is_le()
    })
}

pub(super) fn damaged(id: ChunkId, what: &str) -> Error {
    Error::damaged(format!("tree page {id}"), what)
}

/// Entries in order.
pub(crate) struct TreeCursor {
    tree: TreeReader,
    from: Option<Vec<u8>>,
    /// From the top page down: the page, and what of it comes next.
    stack: Vec<(Arc<KeptPage>, usize)>,
    started: bool,
    /// How many entries come before the next one.
    number: u64,
}

impl TreeCursor {
    /// The next entry.
    pub(crate) async fn next(&mut self) -> Result<Option<EntryRecord>> {
        if !self.started {
            self.started = true;
            let root = self.tree.page(self.tree.root, None).await?;
            self.enter(root);
        }
        while let Some((page, at)) = self.stack.last_mut() {
            if let Some(entry) = page.entries.get(*at) {
                *at += 1;
                self.number += 1;
                return Ok(Some(entry.clone()));
            }
            if let Some(child) = page.children.get(*at) {
                *at += 1;
                let below = page.level.checked_sub(1);
                let below = below.ok_or_else(|| damaged(child.page, "its level is wrong"))?;
                let page = self.tree.page(child.page, Some(below)).await?;
                self.enter(page);
            } else {
                self.stack.pop();
            }
        }
        Ok(None)
    }

    /// The number of the entry that came last.
    pub(crate) fn number(&self) -> u64 {
        self.number.saturating_sub(1)
    }

    fn enter(&mut self, page: Arc<KeptPage>) {
        let at = self.from.as_ref().map_or(0, |from| page.first_from(from));
        let passed = match page.level {
            0 => at as u64,
            _ => page.children.iter().take(at).fold(0, |sum, it| it.entries.saturating_add(sum)),
        };
        self.number = self.number.saturating_add(passed);
        self.stack.push((page, at));
    }
}
