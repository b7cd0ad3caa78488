//! Reading a tree: one entry, or all in order.

use std::collections::HashMap;
use std::sync::Arc;

use lifeboat_core::EntryPath;
use parking_lot::Mutex;

use super::entry::EntryRecord;
use super::page::{MAX_LEVEL, Page, compare};
use crate::chunk::ChunkKind;
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::read::ChunkReader;

/// How many decoded pages are kept.
const KEPT: usize = 32;

/// The tree of one snapshot. Clones share the pages that they keep.
#[derive(Clone)]
pub(crate) struct TreeReader {
    chunks: Arc<ChunkReader>,
    root: ChunkId,
    kept: Arc<Mutex<HashMap<ChunkId, Arc<Page>>>>,
}

impl TreeReader {
    pub(crate) fn new(chunks: Arc<ChunkReader>, root: ChunkId) -> Self {
        Self { chunks, root, kept: Arc::default() }
    }

    /// A page, which must be of `level` when that is known.
    pub(crate) async fn page(&self, id: ChunkId, level: Option<u8>) -> Result<Arc<Page>> {
        let kept = self.kept.lock().get(&id).cloned();
        let page = match kept {
            Some(page) => page,
            None => {
                let bytes = self.chunks.read(ChunkKind::Tree, id).await?;
                let page: Page = minicbor::decode(&bytes)
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

    /// The entry at `path`.
    pub(crate) async fn get(&self, path: &EntryPath) -> Result<Option<EntryRecord>> {
        let path = path.as_bytes();
        let mut page = self.page(self.root, None).await?;
        while page.level > 0 {
            let after = page.children.partition_point(|child| compare(&child.first, path).is_le());
            let Some(at) = after.checked_sub(1) else {
                return Ok(None);
            };
            page = self.page(page.children[at].page, Some(page.level - 1)).await?;
        }
        let found = page.entries.binary_search_by(|entry| compare(entry.raw_path(), path));
        Ok(found.ok().map(|at| page.entries[at].clone()))
    }

    /// All entries from the first one that is not before `from`.
    pub(crate) fn entries(&self, from: Option<EntryPath>) -> TreeCursor {
        TreeCursor { tree: self.clone(), from, stack: Vec::new(), started: false }
    }
}

fn damaged(id: ChunkId, what: &str) -> Error {
    Error::damaged(format!("tree page {id}"), what)
}

/// Entries in order.
pub(crate) struct TreeCursor {
    tree: TreeReader,
    from: Option<EntryPath>,
    /// From the top page down: the page, and what of it comes next.
    stack: Vec<(Arc<Page>, usize)>,
    started: bool,
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

    fn enter(&mut self, page: Arc<Page>) {
        let at = self.from.as_ref().map_or(0, |from| {
            let from = from.as_bytes();
            if page.level == 0 {
                page.entries.partition_point(|entry| compare(entry.raw_path(), from).is_lt())
            } else {
                let after =
                    page.children.partition_point(|child| compare(&child.first, from).is_le());
                after.saturating_sub(1)
            }
        });
        self.stack.push((page, at));
    }
}
