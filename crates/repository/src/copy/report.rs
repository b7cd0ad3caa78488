//! What is asked of a copy, and what it did.

use std::time::Duration;

use lifeboat_core::{Comparison, Pin, SnapshotId, SnapshotInfo, StoreRef, Timestamp};

use crate::error::Error;
use crate::repository::Compression;

/// What is copied, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CopyOptions {
    /// Which snapshots.
    pub selection: CopySelection,
    /// Only those of this store.
    pub store: Option<StoreRef>,
    /// Whether content is left unread that the destination has from an earlier copy of the store.
    pub comparison: Comparison,
    /// How hard chunks are compressed in the destination.
    pub compression: Compression,
    /// How a copy is checked after it was committed.
    pub verification: Verification,
}

impl Default for CopyOptions {
    /// All snapshots of all stores, compared with what is there.
    fn default() -> Self {
        Self {
            selection: CopySelection::default(),
            store: None,
            comparison: Comparison::Newest,
            compression: Compression::default(),
            verification: Verification::default(),
        }
    }
}

/// Which snapshots are copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopySelection {
    /// All.
    #[default]
    All,
    /// Those that show this moment or a later one.
    Since(Timestamp),
    /// Just these.
    Snapshots(Vec<SnapshotId>),
}

/// How a copy is checked after it was committed. What is read on the way is authenticated and
/// hashed always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Verification {
    /// The copy is read back as far as it tells of itself: which store, which moment, how many
    /// entries and bytes.
    #[default]
    Summary,
    /// All of the copy is read back, and compared with the original byte by byte. Both are read in
    /// full.
    EveryByte,
}

/// One snapshot that was copied.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Copied {
    /// The snapshot that was copied.
    pub original: SnapshotInfo,
    /// The copy, as the destination lists it.
    pub copy: SnapshotInfo,
    /// Bytes of content that were read.
    pub read: u64,
    /// Bytes of content that did not have to be read, since the destination's copy of an earlier
    /// snapshot has them.
    pub unchanged: u64,
    /// Bytes of content that the destination did not have, before compression.
    pub new: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// What became of the snapshots that were to be copied.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CopyReport {
    /// Those that were copied, in this order.
    pub copied: Vec<Copied>,
    /// Those that the destination had already, and what they are called there.
    pub present: Vec<(SnapshotInfo, SnapshotId)>,
    /// Those that are damaged and were not copied, and why.
    pub failed: Vec<(SnapshotInfo, Error)>,
    /// The pins that were made.
    pub pins: Vec<Pin>,
    /// How many segments of journals were copied.
    pub segments: u64,
    /// Segments that are damaged, or that the destination has with another content, and why.
    pub failed_segments: Vec<(String, lifeboat_core::Error)>,
}
