//! What changed from one snapshot to another.

use std::sync::Arc;

use lifeboat_core::{EntryInfo, EntryPath, SnapshotId, names};

use super::same::same_content;
use crate::error::Result;
use crate::read::{ChunkReader, decode};
use crate::repository::Repository;
use crate::tree::{EntryRecord, PageReader, TreeMerge, Version};

/// What two snapshots are compared in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiffOptions {
    /// Only this entry and what is beneath it. Without one, all entries.
    pub beneath: Option<EntryPath>,
}

/// How an entry changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// Only the later snapshot has it.
    Added,
    /// Only the earlier snapshot has it.
    Removed,
    /// It is of another kind: a file became a directory.
    Replaced,
    /// Its content is another; its attributes may be others too.
    Content,
    /// Its content is the same, its attributes are not.
    Attributes,
}

impl ChangeKind {
    /// A stable lower-case word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Replaced => "replaced",
            Self::Content => "content",
            Self::Attributes => "attributes",
        }
    }
}

/// An entry that is not the same in two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// How it changed.
    pub kind: ChangeKind,
    /// What it was in the earlier snapshot; nothing when it was added.
    pub before: Option<EntryInfo>,
    /// What it is in the later snapshot; nothing when it was removed.
    pub after: Option<EntryInfo>,
}

impl Change {
    fn new(before: Option<EntryInfo>, after: Option<EntryInfo>, kind: ChangeKind) -> Self {
        Self { kind, before, after }
    }

    /// The entry as it is, or as it last was.
    pub fn entry(&self) -> Option<&EntryInfo> {
        self.after.as_ref().or(self.before.as_ref())
    }

    /// The names of the attributes that are not the same, in order. Empty for what was added or
    /// removed.
    pub fn attributes(&self) -> Vec<&str> {
        let (Some(before), Some(after)) = (&self.before, &self.after) else {
            return Vec::new();
        };
        let (before, after) = (&before.attributes, &after.attributes);
        let gone = before.iter().filter(|(name, _)| after.get(name).is_none());
        let other = after.iter().filter(|(name, value)| before.get(name) != Some(value));
        let mut names: Vec<_> = gone.chain(other).map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    }
}

impl Repository {
    /// What changed from the snapshot `before` to the snapshot `after`, in the order of paths.
    ///
    /// Pages that both trees have are not read, so that the cost follows the difference. Content
    /// is the same when it has the same bytes, however they are stored; where names alone do not
    /// prove it either way, both are read up to the first difference.
    ///
    /// Of a hard link, the entry that it names shows what changed.
    ///
    /// # Errors
    /// When one of the snapshots does not exist or cannot be read.
    pub async fn diff(
        &self,
        before: &SnapshotId,
        after: &SnapshotId,
        options: &DiffOptions,
    ) -> Result<Diff> {
        let (before, after) = (self.snapshot(before).await?, self.snapshot(after).await?);
        let chunks = Arc::clone(after.chunks());
        let pages = PageReader::new(Arc::clone(&chunks));
        let roots = [before.tree().root(), after.tree().root()];
        let merge = TreeMerge::new(pages, &roots, options.beneath.clone());
        Ok(Diff { merge, chunks })
    }
}

/// The changes between two snapshots, one after the other.
pub struct Diff {
    merge: TreeMerge,
    chunks: Arc<ChunkReader>,
}

impl Diff {
    /// The next change, or `None` after the last one.
    ///
    /// # Errors
    /// When a page of a tree cannot be read.
    pub async fn next(&mut self) -> Result<Option<Change>> {
        while let Some(versions) = self.merge.next(|_, trees| trees.len() < 2).await? {
            if let Some(change) = compare(&self.chunks, &versions).await? {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }
}

impl std::fmt::Debug for Diff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Diff")
    }
}

/// Compares what the trees 0 and 1 have at a path.
async fn compare(chunks: &Arc<ChunkReader>, versions: &[Version]) -> Result<Option<Change>> {
    let of = |tree: u32| versions.iter().find(|it| it.trees.contains(&tree)).map(Version::entry);
    let change = match (of(0), of(1)) {
        (Some(before), None) => Change::new(Some(decode(before)?), None, ChangeKind::Removed),
        (None, Some(after)) => Change::new(None, Some(decode(after)?), ChangeKind::Added),
        (Some(before), Some(after)) if versions.len() > 1 => {
            let (was, is) = (decode(before)?, decode(after)?);
            let Some(kind) = kind_of(chunks, before, after, &was, &is).await? else {
                return Ok(None);
            };
            Change::new(Some(was), Some(is), kind)
        }
        _ => return Ok(None),
    };
    Ok(Some(change))
}

async fn kind_of(
    chunks: &Arc<ChunkReader>,
    before: &EntryRecord,
    after: &EntryRecord,
    was: &EntryInfo,
    is: &EntryInfo,
) -> Result<Option<ChangeKind>> {
    if was.kind != is.kind {
        return Ok(Some(ChangeKind::Replaced));
    }
    // Where a symbolic link points is all that it holds.
    let target = |info: &EntryInfo| info.attributes.get(names::TARGET).cloned();
    let same = was.size == is.size
        && target(was) == target(is)
        && same_content(chunks, &before.content, &after.content).await?;
    Ok(match (same, was.attributes == is.attributes) {
        (false, _) => Some(ChangeKind::Content),
        (true, false) => Some(ChangeKind::Attributes),
        // Only how it is stored is another.
        (true, true) => None,
    })
}

#[cfg(test)]
mod tests {
    use lifeboat_core::{Attributes, EntryKind, Layout};

    use super::*;

    #[test]
    fn the_attributes_that_differ_are_named() {
        let info = |attributes| EntryInfo {
            path: EntryPath::new("a").unwrap(),
            kind: EntryKind::File,
            attributes,
            layout: Layout::Stream,
            size: 0,
        };
        let before = Attributes::new().with("mode", 1_u32).with("uid", 7_u32).with("old", "x");
        let after = Attributes::new().with("mode", 2_u32).with("uid", 7_u32).with("new", "x");
        let (before, after) = (info(before), info(after));
        let change = Change::new(Some(before), Some(after.clone()), ChangeKind::Attributes);
        assert_eq!(change.attributes(), ["mode", "new", "old"]);
        let added = Change::new(None, Some(after), ChangeKind::Added);
        assert!(added.attributes().is_empty());
    }
}
