//! What the snapshots refer to.
//!
//! The trees of all snapshots are walked, each page that they share once. What a page refers to is
//! kept in the repository, in objects `references/<id>`: pages never change, so the next walk reads
//! from the trees only the pages that are new, and its requests follow what changed. These objects
//! may always be deleted. They are sealed with the key of trees: who may not read these must not be
//! able to tell a sweeper what they refer to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt};
use lifeboat_core::Context;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use object_store::PutPayload;

use super::runs::{IdSorter, SortedIds};
use crate::chunk::ChunkKind;
use crate::content::{ContentRecord, MAX_DEPTH, PieceList};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::index::{PREFIX, Prefix, prefix};
use crate::objects::{REFERENCES, id_of, name_in};
use crate::read::ChunkReader;
use crate::repository::Shared;
use crate::sealed::{SealedKind, open, seal};
use crate::tree::{MAX_LEVEL, Page};

/// How many pages are read at once.
const FETCHES: usize = 16;
/// An object is stored when it has about so many bytes.
const OBJECT: usize = 8 << 20;
/// Objects of which less than this share is of use are written anew.
const LEAST_USE: f64 = 0.5;
/// More objects than this are gathered into larger ones.
const MOST_OBJECTS: usize = 32;

/// A page, and how it is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(array)]
struct PageRef {
    #[n(0)]
    id: ChunkId,
    /// How many levels of lists are below a page of a list; [`TREE`] for a page of a tree.
    #[n(1)]
    depth: u8,
}

const TREE: u8 = 0xff;

/// What one page refers to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct PageReferences {
    #[n(0)]
    page: PageRef,
    /// The pages below it.
    #[n(1)]
    pages: Vec<PageRef>,
    /// The first halves of the names of the other chunks, one after the other.
    #[n(2)]
    chunks: ByteVec,
}

impl PageReferences {
    fn ids(&self) -> impl Iterator<Item = Prefix> {
        let chunks = self.chunks.as_chunks::<PREFIX>().0;
        chunks.iter().copied().chain([prefix(&self.page.id)])
    }

    fn size(&self) -> usize {
        self.chunks.len() + 40 * (self.pages.len() + 1)
    }
}

/// The content of an object `references/<id>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct ReferencesRecord {
    #[n(0)]
    pages: Vec<PageReferences>,
}

/// Whether what was learnt is kept for the next walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It is: for who may write.
    Yes,
    No,
}

/// All chunks to which these trees refer, pages included.
///
/// # Errors
/// When a page cannot be read: then it is not known to what it refers.
pub(crate) async fn referenced(
    shared: &Arc<Shared>,
    roots: impl IntoIterator<Item = ChunkId>,
    keep: Keep,
    context: &Context,
) -> Result<SortedIds> {
    let mut walk = Walk {
        shared: Arc::clone(shared),
        reader: Arc::new(ChunkReader::new(Arc::clone(shared))),
        sorter: IdSorter::new(&shared.pool),
        known: HashMap::new(),
        met: HashSet::new(),
        fresh: ReferencesRecord::default(),
        fresh_size: 0,
        keep,
    };
    let kept = walk.load().await?;
    walk.walk(roots, context).await?;
    walk.collect(kept, context).await?;
    walk.store().await?;
    walk.sorter.finish().await
}

struct Walk {
    shared: Arc<Shared>,
    reader: Arc<ChunkReader>,
    sorter: IdSorter,
    /// The pages of which the repository keeps what they refer to, and the pages below each.
    known: HashMap<PageRef, Vec<PageRef>>,
    met: HashSet<PageRef>,
    /// What was learnt and is not stored yet.
    fresh: ReferencesRecord,
    fresh_size: usize,
    keep: Keep,
}

impl Walk {
    /// Reads how the known pages hang together.
    async fn load(&mut self) -> Result<Vec<String>> {
        let listed = self.shared.objects.list(REFERENCES);
        let names: Vec<_> = listed.map_ok(|listed| listed.name).try_collect().await?;
        let mut kept = Vec::new();
        for name in names.into_iter().filter(|name| id_of(name).is_some()) {
            // One that cannot be read is only not of use.
            if let Some(record) = self.read(&name).await? {
                let pages = record.pages.into_iter().map(|page| (page.page, page.pages));
                self.known.extend(pages);
                kept.push(name);
            }
        }
        Ok(kept)
    }

    async fn read(&self, name: &str) -> Result<Option<ReferencesRecord>> {
        let limit = SealedKind::References.limit();
        let bytes = match self.shared.objects.read_named(name, limit).await {
            Ok(bytes) => bytes,
            Err(Error::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        match open(&self.shared.keys, SealedKind::References, name, &bytes) {
            Ok(record) => Ok(Some(record)),
            Err(Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Meets every page once, and reads those that are not known.
    async fn walk(
        &mut self,
        roots: impl IntoIterator<Item = ChunkId>,
        context: &Context,
    ) -> Result<()> {
        let mut waiting: Vec<_> = roots.into_iter().map(|id| PageRef { id, depth: TREE }).collect();
        let mut reading = FuturesUnordered::new();
        loop {
            context.check()?;
            while reading.len() < FETCHES
                && let Some(page) = waiting.pop()
            {
                if !self.met.insert(page) {
                    continue;
                }
                match self.known.get(&page) {
                    Some(below) => waiting.extend(below),
                    None => reading.push(read_page(Arc::clone(&self.reader), page)),
                }
            }
            let Some(page) = reading.next().await else {
                return Ok(());
            };
            let page = page?;
            waiting.extend(&page.pages);
            self.sorter.extend(page.ids()).await?;
            self.learn(page).await?;
        }
    }

    async fn learn(&mut self, page: PageReferences) -> Result<()> {
        self.fresh_size += page.size();
        self.fresh.pages.push(page);
        if self.fresh_size >= OBJECT { self.store().await } else { Ok(()) }
    }

    async fn store(&mut self) -> Result<()> {
        let fresh = std::mem::take(&mut self.fresh);
        self.fresh_size = 0;
        if self.keep == Keep::No || fresh.pages.is_empty() {
            return Ok(());
        }
        let (id, bytes) = seal(&self.shared.keys, SealedKind::References, &fresh)?;
        self.shared.objects.create(&name_in(REFERENCES, id), PutPayload::from(bytes)).await
    }

    /// Goes through what is kept once more, for the chunks of the pages that were met; what is of
    /// little use, or in many small objects, is written anew.
    async fn collect(&mut self, kept: Vec<String>, context: &Context) -> Result<()> {
        let gather = kept.len() > MOST_OBJECTS;
        for name in kept {
            context.check()?;
            let Some(record) = self.read(&name).await? else {
                return Err(Error::damaged(name, "it changed while it was read"));
            };
            let all = record.pages.len();
            let used: Vec<_> =
                record.pages.into_iter().filter(|page| self.met.contains(&page.page)).collect();
            for page in &used {
                self.sorter.extend(page.ids()).await?;
            }
            let small = used.iter().map(PageReferences::size).sum::<usize>() < OBJECT / 2;
            let waste = (used.len() as f64) < LEAST_USE * all as f64;
            if self.keep == Keep::Yes && (waste || gather && small) {
                for page in used {
                    self.learn(page).await?;
                }
                self.store().await?;
                self.shared.objects.delete_if_allowed(&name).await?;
            }
        }
        Ok(())
    }
}

async fn read_page(reader: Arc<ChunkReader>, page: PageRef) -> Result<PageReferences> {
    let (mut pages, mut chunks) = (Vec::new(), Vec::new());
    if page.depth == TREE {
        let bytes = reader.read(ChunkKind::Tree, page.id).await?;
        let read: Page = minicbor::decode(&bytes).map_err(|_| damaged(page.id))?;
        if read.level > MAX_LEVEL {
            return Err(damaged(page.id));
        }
        pages.extend(read.children.iter().map(|child| PageRef { id: child.page, depth: TREE }));
        for entry in &read.entries {
            let fingerprints = entry.content.fingerprints.as_deref();
            for content in [Some(&entry.content), fingerprints].into_iter().flatten() {
                of_content(content, &mut pages, &mut chunks).ok_or_else(|| damaged(page.id))?;
            }
        }
    } else {
        let bytes = reader.read(ChunkKind::List, page.id).await?;
        let list: PieceList = minicbor::decode(&bytes).map_err(|_| damaged(page.id))?;
        of_list(&list, page.depth, &mut pages, &mut chunks);
    }
    Ok(PageReferences { page, pages, chunks: chunks.into() })
}

fn of_content(
    content: &ContentRecord,
    pages: &mut Vec<PageRef>,
    chunks: &mut Vec<u8>,
) -> Option<()> {
    if content.depth > MAX_DEPTH {
        return None;
    }
    of_list(&content.list, content.depth, pages, chunks);
    Some(())
}

fn of_list(list: &PieceList, depth: u8, pages: &mut Vec<PageRef>, chunks: &mut Vec<u8>) {
    match depth.checked_sub(1) {
        Some(depth) => pages.extend(list.chunks().iter().map(|id| PageRef { id: *id, depth })),
        None => list.chunks().iter().for_each(|id| chunks.extend_from_slice(&prefix(id))),
    }
}

fn damaged(id: ChunkId) -> Error {
    Error::damaged(format!("page {id}"), "it does not decode")
}

/// What a holder of the key with a faulty program may have written, for the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::{PageRef, PageReferences, ReferencesRecord, TREE};
    use crate::fuzzing::{Outcome, encoded, unsealed};
    use crate::id::ChunkId;
    use crate::sealed::SealedKind;

    pub(crate) fn seeds() -> Vec<Vec<u8>> {
        let page = |byte, depth| PageRef { id: ChunkId::from_bytes([byte; 32]), depth };
        let tree = PageReferences {
            page: page(1, TREE),
            pages: vec![page(2, TREE), page(3, 0)],
            chunks: vec![7; 32].into(),
        };
        let list = PageReferences { page: page(3, 0), pages: Vec::new(), chunks: vec![].into() };
        encoded(&[ReferencesRecord::default(), ReferencesRecord { pages: vec![tree, list] }])
    }

    pub(crate) fn references(bytes: &[u8]) -> Outcome {
        let record: ReferencesRecord =
            unsealed(SealedKind::References, bytes).map_err(|error| error.to_string())?;
        let ids: usize = record.pages.iter().map(|page| page.ids().count()).sum();
        if ids > bytes.len() { Err("more chunks than bytes".to_owned()) } else { Ok(()) }
    }
}
