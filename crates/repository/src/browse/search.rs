//! Entries by what is known of them, in any number of snapshots.

use std::sync::Arc;

use lifeboat_core::{EntryInfo, EntryKind, EntryPath, Pattern, SnapshotId, Timestamp};

use crate::error::Result;
use crate::id::ChunkId;
use crate::read::{ChunkReader, decode};
use crate::repository::Repository;
use crate::tree::{Child, EntryRecord, PageReader, TreeMerge, Version};

/// So many snapshots are searched at once: memory has to hold a page of each, where all differ.
const AT_ONCE: usize = 64;

/// What is looked for: entries to which all of this applies.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Query {
    /// One of these matches. Empty: any path will do.
    pub patterns: Vec<Pattern>,
    /// It is of one of these kinds. Empty: of any.
    pub kinds: Vec<EntryKind>,
    /// It is this entry or lies beneath it. What lies elsewhere is not read.
    pub beneath: Option<EntryPath>,
    /// It is a file of so many bytes at least.
    pub min_size: Option<u64>,
    /// It is a file of so many bytes at most.
    pub max_size: Option<u64>,
    /// It was last changed at this moment or later.
    pub modified_from: Option<Timestamp>,
    /// It was last changed before this moment.
    pub modified_before: Option<Timestamp>,
}

impl Query {
    /// The entry, if it is one that is looked for.
    fn test(&self, record: &EntryRecord) -> Result<Option<EntryInfo>> {
        // What costs little first: most entries are not looked for.
        let of_kind = |kind| self.kinds.is_empty() || self.kinds.contains(&kind);
        let sized = self.min_size.is_some() || self.max_size.is_some();
        let fits = self.min_size.is_none_or(|least| record.size >= least)
            && self.max_size.is_none_or(|most| record.size <= most)
            && (!sized || record.kind() == Some(EntryKind::File));
        if !fits || !record.kind().is_none_or(of_kind) {
            return Ok(None);
        }
        let info = decode(record)?;
        let named = || self.patterns.iter().any(|pattern| pattern.matches(&info.path));
        let is_meant = (self.patterns.is_empty() || named()) && self.in_time(&info);
        Ok(is_meant.then_some(info))
    }

    fn in_time(&self, info: &EntryInfo) -> bool {
        if self.modified_from.is_none() && self.modified_before.is_none() {
            return true;
        }
        info.attributes.modified().is_some_and(|time| {
            self.modified_from.is_none_or(|from| time >= from)
                && self.modified_before.is_none_or(|before| time < before)
        })
    }

    /// Whether a page can have an entry that is looked for.
    fn may_hold(&self, child: &Child) -> bool {
        self.min_size.is_none_or(|least| child.bytes >= least)
    }
}

/// An entry that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The entry.
    pub entry: EntryInfo,
    /// The snapshots that have just this one, in the order in which they were given. One of the
    /// same path that differs in anything is found by itself.
    pub snapshots: Vec<SnapshotId>,
}

impl Repository {
    /// Looks for entries in some snapshots.
    ///
    /// What snapshots share is read once for 64 of them. So with more than 64 the answers come in
    /// several turns, for the first 64 first. Within a turn they have the order of paths, and at
    /// one path that of the snapshots.
    ///
    /// # Errors
    /// When one of the snapshots does not exist or cannot be read.
    pub async fn search(&self, snapshots: &[SnapshotId], query: &Query) -> Result<Search> {
        let roots = self.top_pages(snapshots).await?;
        let mut roots: Vec<_> = snapshots.iter().copied().zip(roots).collect();
        let shared = self.shared();
        // After the snapshots: what they need was indexed before they came to be.
        shared.refresh_index().await?;
        roots.reverse();
        let chunks = Arc::new(ChunkReader::new(Arc::clone(shared)));
        Ok(Search { query: query.clone(), chunks, left: roots, turn: None, found: Vec::new() })
    }
}

/// Entries that were found, one after the other.
pub struct Search {
    query: Query,
    chunks: Arc<ChunkReader>,
    /// The snapshots of later turns, the next one last.
    left: Vec<(SnapshotId, ChunkId)>,
    turn: Option<Turn>,
    /// Found at the last path, and not given out yet.
    found: Vec<Found>,
}

struct Turn {
    merge: TreeMerge,
    snapshots: Vec<SnapshotId>,
}

impl Search {
    /// The next entry, or `None` after the last one.
    ///
    /// # Errors
    /// When a page of a tree cannot be read.
    pub async fn next(&mut self) -> Result<Option<Found>> {
        loop {
            if let Some(found) = self.found.pop() {
                return Ok(Some(found));
            }
            let Some(turn) = &mut self.turn else {
                if self.left.is_empty() {
                    return Ok(None);
                }
                self.turn = Some(self.next_turn());
                continue;
            };
            let query = &self.query;
            match turn.merge.next(|child, _| query.may_hold(child)).await? {
                None => self.turn = None,
                Some(versions) => {
                    for version in versions.iter().rev() {
                        self.found.extend(turn.found(version, query)?);
                    }
                }
            }
        }
    }

    fn next_turn(&mut self) -> Turn {
        let rest = self.left.len().saturating_sub(AT_ONCE);
        let (snapshots, roots): (Vec<_>, Vec<_>) = self.left.drain(rest..).rev().unzip();
        let pages = PageReader::new(Arc::clone(&self.chunks));
        Turn { merge: TreeMerge::new(pages, &roots, self.query.beneath.clone()), snapshots }
    }
}

impl Turn {
    fn found(&self, version: &Version, query: &Query) -> Result<Option<Found>> {
        let of = |tree: &u32| self.snapshots.get(*tree as usize).copied();
        let found =
            |entry| Found { entry, snapshots: version.trees.iter().filter_map(of).collect() };
        Ok(query.test(version.entry())?.map(found))
    }
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Search").field(&self.query).finish()
    }
}
