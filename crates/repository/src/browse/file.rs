//! The content of one file.

use std::ops::Range;
use std::sync::Arc;

use lifeboat_core::{Content, Context, EntryInfo, EntryKind, EntryPath, names};

use crate::content::ContentRecord;
use crate::error::{Error, Result};
use crate::read::{ChunkReader, decode, read_range};
use crate::snapshot::Snapshot;
use crate::tree::EntryRecord;

impl Snapshot {
    /// The file at `path`, to be read in whole or in part. A hard link is the file that it names.
    ///
    /// # Errors
    /// When there is no such entry, it is no file, or the tree cannot be read.
    pub async fn file(&self, path: &EntryPath) -> Result<SnapshotFile> {
        let mut record = self.named(path).await?;
        let mut info = decode(&record)?;
        if info.kind == EntryKind::HardLink {
            let target = info.attributes.bytes(names::TARGET).unwrap_or_default();
            let target = EntryPath::new(target)
                .map_err(|error| Error::damaged("an entry of the snapshot", error.to_string()))?;
            record = self.named(&target).await?;
            info = decode(&record)?;
        }
        if info.kind != EntryKind::File {
            return Err(Error::NotAFile { path: path.to_string(), kind: info.kind.as_str() });
        }
        Ok(SnapshotFile { info, content: record.content, chunks: Arc::clone(self.chunks()) })
    }

    async fn named(&self, path: &EntryPath) -> Result<EntryRecord> {
        let found = self.tree().get(path).await?;
        let found = found.map(|found| EntryRecord::clone(&found));
        found.ok_or_else(|| Error::NoSuchEntry {
            path: path.to_string(),
            snapshot: self.info().id.short(),
        })
    }
}

/// A file of a snapshot. Nothing of its content is read before it is asked for.
#[derive(Clone)]
pub struct SnapshotFile {
    info: EntryInfo,
    content: ContentRecord,
    chunks: Arc<ChunkReader>,
}

impl SnapshotFile {
    /// What is known of it.
    pub fn info(&self) -> &EntryInfo {
        &self.info
    }

    /// These bytes of its content, as far as it has them. What lies before them is not read.
    pub fn read(&self, range: Range<u64>) -> Content {
        let end = range.end.min(self.info.size);
        let range = range.start.min(end)..end;
        let chunks = Arc::clone(&self.chunks);
        read_range(chunks, &self.content, self.info.size, range, Context::silent())
    }
}

impl std::fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SnapshotFile").field(&self.info.path).finish()
    }
}
