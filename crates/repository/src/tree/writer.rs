//! Making a tree, entry by entry.

use std::sync::Arc;

use minicbor::Encode;

use super::entry::EntryRecord;
use super::page::{Child, Page};
use super::reader::EntryRef;
use crate::chunk::ChunkKind;
use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::write::ChunkWriter;

/// A leaf ends at one in so many names; an inner page too.
const LEAF: u32 = 256;
const INNER: u32 = 256;
/// A page never has more, so that it can be read into memory without a second thought.
const MAX_ITEMS: usize = 2048;
/// A page is closed when it has this many bytes, whatever the names say.
const MAX_BYTES: usize = 1 << 20;
/// No entry is larger. A page therefore fits into the largest chunk.
const MAX_ENTRY: usize = 4 << 20;

/// Takes entries in ascending order of their paths, and stores pages as they fill. A clone goes on
/// from where it was made.
#[derive(Clone)]
pub(crate) struct TreeWriter {
    chunks: Arc<ChunkWriter>,
    keys: Arc<Keys>,
    leaf: Leaf,
    levels: Vec<Vec<Child>>,
    entries: u64,
    bytes: u64,
    /// Where entries are encoded, one after the other.
    scratch: Vec<u8>,
}

impl TreeWriter {
    pub(crate) fn new(chunks: Arc<ChunkWriter>, keys: Arc<Keys>) -> Self {
        let leaf = Leaf::default();
        let (levels, scratch) = (Vec::new(), Vec::new());
        Self { chunks, keys, leaf, levels, entries: 0, bytes: 0, scratch }
    }

    /// Appends an entry, whose path must come after all before.
    pub(crate) async fn push(&mut self, entry: &EntryRecord) -> Result<()> {
        let mut encoded = std::mem::take(&mut self.scratch);
        encoded.clear();
        minicbor::encode(entry, &mut encoded).map_err(|_| unencodable())?;
        let pushed = self.push_encoded(entry.raw_path(), entry.size, &encoded).await;
        self.scratch = encoded;
        pushed
    }

    /// Appends an entry as another snapshot has it.
    pub(crate) async fn push_kept(&mut self, entry: &EntryRef) -> Result<()> {
        match entry.encoded() {
            Some(encoded) => self.push_encoded(entry.raw_path(), entry.size, encoded).await,
            None => self.push(entry).await,
        }
    }

    /// Appends an entry that is encoded already, with the size of its content.
    pub(crate) async fn push_encoded(
        &mut self,
        path: &[u8],
        size: u64,
        encoded: &[u8],
    ) -> Result<()> {
        if encoded.len() > MAX_ENTRY {
            let path = path.escape_ascii().to_string();
            return Err(Error::TooLarge { path, part: "attributes" });
        }
        if self.leaf.encoded.len() + encoded.len() > MAX_BYTES {
            self.close_leaf().await?;
        }
        if self.leaf.count == 0 {
            self.leaf.first = path.to_vec();
        }
        self.leaf.encoded.extend_from_slice(encoded);
        self.leaf.count += 1;
        self.leaf.bytes += size;
        let ends = self.keys.boundary(path).is_multiple_of(LEAF);
        if ends || self.leaf.count >= MAX_ITEMS {
            self.close_leaf().await?;
        }
        Ok(())
    }

    async fn close_leaf(&mut self) -> Result<()> {
        let leaf = std::mem::take(&mut self.leaf);
        if leaf.count == 0 {
            return Ok(());
        }
        let (entries, bytes) = (leaf.count as u64, leaf.bytes);
        self.entries += entries;
        self.bytes += bytes;
        let page = store(&self.chunks, &self.keys, leaf.page()?).await?;
        self.add_child(0, Child { first: leaf.first.into(), page, entries, bytes }).await
    }

    /// Adds a page to the level above it, and closes pages there as names demand.
    async fn add_child(&mut self, level: usize, child: Child) -> Result<()> {
        let mut carried = Some(child);
        let mut level = level;
        while let Some(child) = carried.take() {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            // Seen from above, a boundary of the names below must be rare: other bits decide.
            let bits = self.keys.boundary(&child.first) >> (8 + 2 * level).min(24);
            let open = &self.levels[level];
            let room = open.iter().map(size_of_child).sum::<usize>() + size_of_child(&child);
            if open.len() > 1 && room > MAX_BYTES {
                carried = Some(self.close_inner(level).await?);
                self.levels[level].push(child);
            } else {
                self.levels[level].push(child);
                let count = self.levels[level].len();
                if count > 1 && (bits.is_multiple_of(INNER) || count >= MAX_ITEMS) {
                    carried = Some(self.close_inner(level).await?);
                }
            }
            level += 1;
        }
        Ok(())
    }

    async fn close_inner(&mut self, level: usize) -> Result<Child> {
        let children = std::mem::take(&mut self.levels[level]);
        let first = children.first().map_or_else(|| Vec::new().into(), |child| child.first.clone());
        let entries = children.iter().map(|child| child.entries).sum();
        let bytes = children.iter().map(|child| child.bytes).sum();
        let page = Page { level: level as u8 + 1, entries: Vec::new(), children };
        let page = store(&self.chunks, &self.keys, encode(&page)?).await?;
        Ok(Child { first, page, entries, bytes })
    }

    /// Closes everything; the result is the top page, the number of entries, and their bytes.
    pub(crate) async fn finish(mut self) -> Result<(ChunkId, u64, u64)> {
        self.close_leaf().await?;
        let mut level = 0;
        while level < self.levels.len() {
            let is_top = level + 1 == self.levels.len();
            if is_top && self.levels[level].len() == 1 {
                let root = self.levels[level][0].page;
                return Ok((root, self.entries, self.bytes));
            }
            if !self.levels[level].is_empty() {
                let child = self.close_inner(level).await?;
                if self.levels.len() == level + 1 {
                    self.levels.push(Vec::new());
                }
                self.levels[level + 1].push(child);
            }
            level += 1;
        }
        let root = store(&self.chunks, &self.keys, encode(&Page::default())?).await?;
        Ok((root, 0, 0))
    }
}

/// An inner page is measured by the names in it and 64 bytes for the rest of each child.
fn size_of_child(child: &Child) -> usize {
    child.first.len() + 64
}

/// A leaf that is being filled, its entries encoded already.
#[derive(Clone, Default)]
struct Leaf {
    first: Vec<u8>,
    encoded: Vec<u8>,
    count: usize,
    bytes: u64,
}

impl Leaf {
    /// The encoding of the [`Page`] with these entries.
    fn page(&self) -> Result<Vec<u8>> {
        let mut page = minicbor::Encoder::new(Vec::with_capacity(self.encoded.len() + 16));
        let begun = page.array(3).and_then(|page| page.u8(0)?.array(self.count as u64));
        begun.map_err(|_| unencodable())?;
        let mut page = page.into_writer();
        page.extend_from_slice(&self.encoded);
        let mut page = minicbor::Encoder::new(page);
        page.array(0).map_err(|_| unencodable())?;
        Ok(page.into_writer())
    }
}

fn encode<T: Encode<()>>(item: &T) -> Result<Vec<u8>> {
    minicbor::to_vec(item).map_err(|_| unencodable())
}

fn unencodable() -> Error {
    Error::Crypto { doing: "encode a page of the tree" }
}

async fn store(chunks: &Arc<ChunkWriter>, keys: &Keys, page: Vec<u8>) -> Result<ChunkId> {
    let id = keys.chunk_id(ChunkKind::Tree, &page);
    chunks.store(ChunkKind::Tree, id, page.into()).await?;
    Ok(id)
}
