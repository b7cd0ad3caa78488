//! Where entries go.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::attributes::Attributes;
use crate::baseline::Baseline;
use crate::context::Context;
use crate::entry::Entry;
use crate::error::Result;
use crate::id::SnapshotId;
use crate::path::EntryPath;
use crate::snapshot::{Origin, SnapshotInfo};
use crate::source::{Completion, Order};
use crate::store::StoreRef;

/// Something that can be written as a whole: a repository that takes a snapshot, or a store that
/// is restored.
#[async_trait]
pub trait Sink: Send + Sync {
    /// The newest image of `store` that this sink has, to compare with. Most sinks have none.
    ///
    /// # Errors
    /// When that cannot be found out.
    async fn baseline(&self, store: &StoreRef) -> Result<Option<Arc<dyn Baseline>>> {
        let _ = store;
        Ok(None)
    }

    /// Whether a write can take entries in this order. Sorted ones every sink takes; others a
    /// transfer gives only to a sink that says so here, and refuses them in its place otherwise.
    fn takes(&self, order: Order) -> bool {
        order == Order::Sorted
    }

    /// Checks that the write may begin, and touches nothing: for whoever wants to know before it is
    /// time. What can only be seen by writing is not seen.
    ///
    /// # Errors
    /// Those of [`Sink::write`], as far as they can be told.
    async fn look(&self, header: &Header, context: &Context) -> Result<()> {
        let _ = (header, context);
        Ok(())
    }

    /// Checks that the write may begin, and begins it.
    ///
    /// # Errors
    /// When the target refuses: it is not empty, a server runs in it, rights are missing. Nothing
    /// has been touched then.
    async fn write(&self, header: &Header, context: &Context) -> Result<Box<dyn Writing>>;
}

/// What is known when a write begins.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// What the entries are an image of.
    pub store: StoreRef,
    /// The host that does the work.
    pub host: String,
    /// Words that the owner gives the snapshot.
    pub tags: Vec<String>,
    /// When the work began.
    pub started: Timestamp,
    /// The snapshot to which [`Extent::Unchanged`](crate::Extent::Unchanged) refers.
    pub baseline: Option<SnapshotId>,
    /// How many things already needed attention in what is written, before this write: those of
    /// the original, when it is a copy.
    pub warnings: u64,
    /// The snapshot of which a copy is written.
    pub origin: Option<Origin>,
    /// In which order the entries will come.
    pub order: Order,
}

impl Header {
    /// An image of `store`, begun now on this host, without a baseline.
    pub fn new(store: StoreRef) -> Self {
        Self {
            store,
            host: host(),
            tags: Vec::new(),
            started: Timestamp::now(),
            baseline: None,
            warnings: 0,
            origin: None,
            order: Order::Sorted,
        }
    }

    /// A copy of `original`, which says of itself what that says: who took it, when, and of what.
    /// Its origin is the one that `original` names.
    pub fn of_copy(original: &SnapshotInfo) -> Self {
        Self {
            store: original.store.clone(),
            host: original.host.clone(),
            tags: original.tags.clone(),
            started: original.started,
            baseline: None,
            warnings: original.warnings,
            origin: original.origin.clone(),
            order: Order::Sorted,
        }
    }
}

/// The name of this host; empty where it cannot be told.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// Entries of one lane are put one after the other, in the order in which they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(pub u64);

/// One write.
///
/// # Contract
/// - Nothing is visible as whole before [`Writing::commit`] returned; when it returned, all of it
///   is durable.
/// - Puts run side by side, except those of one [`Lane`].
/// - After an error, or when it is dropped without commit, nothing remains that could be taken
///   for the whole.
#[async_trait]
pub trait Writing: Send + Sync {
    /// The lane of an entry, or `None` when it depends on no other. Asked once for each entry,
    /// in the order in which they come, before it is put.
    fn lane(&self, path: &EntryPath) -> Option<Lane> {
        let _ = path;
        None
    }

    /// Takes one entry and all of its content. `ordinal` is its place in the reading, counted
    /// from 0 without gaps.
    ///
    /// # Errors
    /// When the content cannot be read or cannot be kept. The write can then only be aborted.
    async fn put(&self, ordinal: u64, entry: Entry) -> Result<()>;

    /// Takes entries of no lane that follow one another, and whose content is at hand
    /// ([`Content::is_ready`](crate::Content::is_ready)). For a sink that hands its work to other
    /// threads, which costs more than a small entry is worth; the others need not have it.
    ///
    /// # Errors
    /// As for [`Writing::put`].
    async fn put_all(&self, entries: Vec<(u64, Entry)>) -> Result<()> {
        for (ordinal, entry) in entries {
            self.put(ordinal, entry).await?;
        }
        Ok(())
    }

    /// Makes everything durable, and then visible. Called after the last put returned.
    ///
    /// # Errors
    /// When that did not succeed: then nothing is visible.
    async fn commit(self: Arc<Self>, completion: Completion) -> Result<Receipt>;

    /// Gives up, and removes what can be removed without harm. Called when no put is running any
    /// more; what a put left to other threads may be.
    async fn abort(self: Arc<Self>);
}

/// What a sink says of a committed write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The snapshot that was made, where the sink makes snapshots.
    pub snapshot: Option<SnapshotId>,
    /// What else there is to say: a directory, a database, the next step.
    pub facts: Attributes,
}
