//! One directory at a time.

use lifeboat_core::{Attributes, EntryInfo, EntryKind, EntryPath, Layout};

use crate::error::Result;
use crate::read::decode;
use crate::snapshot::Snapshot;
use crate::tree::{TreeCursor, TreeReader};

/// What a directory holds, or what was found at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The entry. Where a snapshot has entries beneath a directory and none for the directory
    /// itself, it is a directory without attributes.
    pub entry: EntryInfo,
    /// The number of the entry in the snapshot, the first being 0; for a directory without an
    /// entry that of the first entry beneath it.
    pub number: u64,
    /// Whether the snapshot has no entry for this directory.
    pub implied: bool,
}

impl Member {
    fn of(entry: EntryInfo, number: u64) -> Self {
        Self { entry, number, implied: false }
    }

    /// The directory that must be there since `first` is beneath it.
    fn implied(path: EntryPath, first: u64) -> Self {
        let (kind, attributes, layout) = (EntryKind::Directory, Attributes::new(), Layout::Stream);
        let entry = EntryInfo { path, kind, attributes, layout, size: 0 };
        Self { entry, number: first, implied: true }
    }
}

impl Snapshot {
    /// What lies directly in the directory `path`, in order; at the top without a path. What lies
    /// deeper is passed over without being read.
    pub fn members(&self, path: Option<&EntryPath>) -> Members {
        let cursor = self.tree().entries(path.cloned());
        Members { tree: self.tree().clone(), of: path.cloned(), cursor, last: None }
    }

    /// What is at `path`: an entry, or a directory that only others lead to.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn member(&self, path: &EntryPath) -> Result<Option<Member>> {
        let mut cursor = self.tree().entries(Some(path.clone()));
        let Some(record) = cursor.next().await? else { return Ok(None) };
        let (entry, number) = (decode(&record)?, cursor.number());
        Ok(if entry.path == *path {
            Some(Member::of(entry, number))
        } else {
            entry.path.starts_with(path).then(|| Member::implied(path.clone(), number))
        })
    }

    /// The entry with this number, the first being 0: see [`Member::number`].
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn nth(&self, number: u64) -> Result<Option<EntryInfo>> {
        self.tree().nth(number).await?.map(|record| decode(&record)).transpose()
    }
}

/// What a directory holds, one after the other.
pub struct Members {
    tree: TreeReader,
    of: Option<EntryPath>,
    cursor: TreeCursor,
    last: Option<EntryPath>,
}

impl Members {
    /// The next one, or `None` after the last one.
    ///
    /// # Errors
    /// When a page of the tree cannot be read.
    pub async fn next(&mut self) -> Result<Option<Member>> {
        while let Some(record) = self.cursor.next().await? {
            let (entry, number) = (decode(&record)?, self.cursor.number());
            if self.of.as_ref() == Some(&entry.path) {
                continue;
            }
            let Some(path) = self.member_above(&entry.path) else { return Ok(None) };
            if path == entry.path {
                self.last = Some(path);
                return Ok(Some(Member::of(entry, number)));
            }
            if self.last.as_ref() == Some(&path) {
                // The byte after the separator: whatever lies beneath the path comes before this,
                // and whatever else begins like it does not.
                let beyond = [path.as_bytes(), &[1]].concat();
                self.cursor = self.tree.entries_from(Some(beyond));
                continue;
            }
            self.last = Some(path.clone());
            return Ok(Some(Member::implied(path, number)));
        }
        Ok(None)
    }

    /// The member of this directory that leads to `path`; none when that lies elsewhere.
    fn member_above(&self, path: &EntryPath) -> Option<EntryPath> {
        let depth = self.of.as_ref().map_or(0, |of| of.as_bytes().len() + 1);
        if self.of.as_ref().is_some_and(|of| !path.starts_with(of)) {
            return None;
        }
        let bytes = path.as_bytes();
        let name = bytes.get(depth..)?.split(|byte| *byte == b'/').next()?;
        EntryPath::new(&bytes[..depth + name.len()]).ok()
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Members").field(&self.of).finish()
    }
}
