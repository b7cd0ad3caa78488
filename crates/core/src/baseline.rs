//! What the last snapshot of a store held.

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::content::Content;
use crate::entry::EntryInfo;
use crate::error::Result;
use crate::path::EntryPath;
use crate::snapshot::SnapshotInfo;

/// The snapshot with which a source compares its store, so that it need not read again what did
/// not change.
///
/// It stands for the repository before a store crate that does not know one.
#[async_trait]
pub trait Baseline: Send + Sync {
    /// The snapshot itself, with the facts that the source recorded in it.
    fn snapshot(&self) -> &SnapshotInfo;

    /// What the snapshot holds at `path`. Asking in ascending order of paths is cheap.
    ///
    /// # Errors
    /// When the snapshot cannot be read. A source may then go on without it: a baseline saves
    /// work, nothing depends on it.
    async fn entry(&self, path: &EntryPath) -> Result<Option<EntryInfo>>;

    /// The content at `path`, for a source that keeps small notes for itself in its snapshots.
    ///
    /// # Errors
    /// As for [`Baseline::entry`].
    async fn content(&self, path: &EntryPath) -> Result<Option<Content>>;

    /// All entries that can be compared with, in ascending order of their paths; `None` where they
    /// cannot be listed, or are not of one snapshot only.
    fn entries(&self) -> Option<BoxStream<'_, Result<EntryInfo>>> {
        None
    }
}
