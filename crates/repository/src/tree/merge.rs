//! Several trees, walked as one.
//!
//! Pages are cut where names say so, and a page's name is the hash of what it holds: what two
//! trees have in common is, for the greatest part, the same pages at the same paths. So the trees
//! are walked side by side, in the order of paths, and where several of them come to the same
//! page, it is one page from there on: it is read once, or passed over.
//!
//! That equal pages always meet follows from the order: of all that is open, what begins first
//! is taken first, and of what begins at the same path the page of the highest level. When a page
//! is taken, every tree that has it has been opened down to it, since what is above it begins
//! earlier, or at the same path on a higher level. Trees of different heights need nothing more.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::EntryPath;

use super::entry::EntryRecord;
use super::page::{Child, Page, compare};
use super::reader::{KeptPage, PageReader, damaged};
use crate::error::Result;
use crate::id::ChunkId;

/// How many top pages are read at once.
const FETCHES: usize = 8;

/// Numbers of trees, ascending.
pub(crate) type Trees = Arc<[u32]>;

/// One of the entries that the trees have at a path, and the trees that have just this one.
pub(crate) struct Version {
    page: Arc<KeptPage>,
    at: usize,
    pub(crate) trees: Trees,
}

impl Version {
    pub(crate) fn entry(&self) -> &EntryRecord {
        &self.page.entries[self.at]
    }
}

/// The walk. Memory holds a page for each level of each tree, as far as the trees differ there.
pub(crate) struct TreeMerge {
    pages: PageReader,
    /// Only this and what is beneath it counts.
    beneath: Option<EntryPath>,
    /// The top pages, and whose they are; until the walk begins.
    roots: Vec<(ChunkId, Trees)>,
    /// Top pages that were read to learn their levels, and are not entered yet.
    read: HashMap<ChunkId, Arc<KeptPage>>,
    /// A page that is to be entered next.
    pending: Option<(Child, u8, Trees)>,
    open: BinaryHeap<Front>,
}

impl TreeMerge {
    /// A walk of the trees with these top pages: the first is tree 0.
    pub(crate) fn new(pages: PageReader, roots: &[ChunkId], beneath: Option<EntryPath>) -> Self {
        let mut owners: HashMap<ChunkId, Vec<u32>> = HashMap::new();
        for (number, root) in roots.iter().enumerate() {
            owners.entry(*root).or_default().push(number as u32);
        }
        let roots = owners.into_iter().map(|(root, trees)| (root, trees.into())).collect();
        let (read, open) = (HashMap::new(), BinaryHeap::new());
        Self { pages, beneath, roots, read, pending: None, open }
    }

    /// All the entries at the next path at which any tree has one; that of the first tree first.
    ///
    /// `enter` is asked once of every page that is met, with the trees that have it; a page that
    /// it declines is not read, and nothing that lies beneath is seen.
    pub(crate) async fn next(
        &mut self,
        mut enter: impl FnMut(&Child, &Trees) -> bool,
    ) -> Result<Option<Vec<Version>>> {
        self.begin().await?;
        loop {
            // It stays pending until it is read: a caller may give up waiting, and come again.
            if let Some((child, level, trees)) = &self.pending {
                let page = match self.read.remove(&child.page) {
                    Some(page) => page,
                    None => self.pages.page(child.page, Some(*level)).await?,
                };
                let trees = Arc::clone(trees);
                self.pending = None;
                self.push(page, trees);
            }
            let Some(first) = self.open.pop() else { return Ok(None) };
            let mut same = vec![first];
            while self.open.peek() == Some(&same[0]) {
                same.extend(self.open.pop());
            }
            if same[0].page.level == 0 {
                return Ok(Some(self.versions(same)));
            }
            let (child, level) = (same[0].page.children[same[0].at].clone(), same[0].page.level);
            let trees = union(&same);
            for front in same {
                self.advance(front);
            }
            if enter(&child, &trees) {
                let below = level.checked_sub(1);
                let below = below.ok_or_else(|| damaged(child.page, "its level is wrong"))?;
                self.pending = Some((child, below, trees));
            }
        }
    }

    /// Reads the top pages, since only they know how high the trees are.
    async fn begin(&mut self) -> Result<()> {
        if self.roots.is_empty() {
            return Ok(());
        }
        let pages = &self.pages;
        let ids: Vec<_> = self.roots.iter().map(|(root, _)| *root).collect();
        let read: Vec<_> = stream::iter(ids)
            .map(async |root| pages.page(root, None).await)
            .buffered(FETCHES)
            .try_collect()
            .await?;
        for ((root, trees), page) in std::mem::take(&mut self.roots).into_iter().zip(read) {
            // As if there were a page above it.
            let above = Page {
                level: page.level + 1,
                entries: Vec::new(),
                children: page.as_child(root).into_iter().collect(),
            };
            self.read.insert(root, page);
            self.push(Arc::new(above.into()), trees);
        }
        Ok(())
    }

    fn versions(&mut self, same: Vec<Front>) -> Vec<Version> {
        let mut groups: Vec<Vec<Front>> = Vec::new();
        for front in same {
            match groups.iter_mut().find(|group| group[0].entry() == front.entry()) {
                Some(group) => group.push(front),
                None => groups.push(vec![front]),
            }
        }
        let mut versions = Vec::with_capacity(groups.len());
        for group in groups {
            let trees = union(&group);
            versions.push(Version { page: Arc::clone(&group[0].page), at: group[0].at, trees });
            for front in group {
                self.advance(front);
            }
        }
        versions.sort_by(|one, two| one.trees.cmp(&two.trees));
        versions
    }

    fn push(&mut self, page: Arc<KeptPage>, trees: Trees) {
        let from = self.beneath.as_ref();
        let at = from.map_or(0, |from| page.first_from(from.as_bytes()));
        self.keep(Front { page, at, trees });
    }

    fn advance(&mut self, mut front: Front) {
        front.at += 1;
        self.keep(front);
    }

    fn keep(&mut self, front: Front) {
        let Some(path) = front.path() else { return };
        let beyond = self.beneath.as_ref().is_some_and(|from| {
            let rest = path.strip_prefix(from.as_bytes());
            let is_beneath = rest.is_some_and(|rest| matches!(rest, [] | [b'/', ..]));
            !is_beneath && compare(path, from.as_bytes()).is_gt()
        });
        if !beyond {
            self.open.push(front);
        }
    }
}

/// All the trees of some fronts.
fn union(fronts: &[Front]) -> Trees {
    if let [only] = fronts {
        return Arc::clone(&only.trees);
    }
    let mut trees: Vec<u32> = fronts.iter().flat_map(|front| front.trees.iter().copied()).collect();
    trees.sort_unstable();
    trees.dedup();
    trees.into()
}

/// How far an open page has been walked.
struct Front {
    page: Arc<KeptPage>,
    at: usize,
    trees: Trees,
}

impl Front {
    fn entry(&self) -> Option<&EntryRecord> {
        self.page.entries.get(self.at)
    }

    /// The path that comes next; none when the page is done.
    fn path(&self) -> Option<&[u8]> {
        if self.page.level == 0 {
            self.page.entries.get(self.at).map(EntryRecord::raw_path)
        } else {
            self.page.children.get(self.at).map(|child| child.first.as_slice())
        }
    }

    /// The page that comes next, in an inner page.
    fn child(&self) -> Option<ChunkId> {
        self.page.children.get(self.at).filter(|_| self.page.level > 0).map(|child| child.page)
    }
}

impl Ord for Front {
    /// What comes first is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        compare(other.path().unwrap_or_default(), self.path().unwrap_or_default())
            .then_with(|| self.page.level.cmp(&other.page.level))
            .then_with(|| self.child().cmp(&other.child()))
    }
}

impl PartialOrd for Front {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Front {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Front {}
