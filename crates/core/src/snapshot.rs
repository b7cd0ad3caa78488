//! What is known of a snapshot without opening it.

use jiff::Timestamp;

use crate::attributes::Attributes;
use crate::id::SnapshotId;
use crate::pin::Pin;
use crate::store::StoreRef;

/// The snapshot that a copy was made of. A copy of a copy names the first of them all, so that
/// every copy of one snapshot is known as such, wherever it lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// What tells its repository from every other, as that writes it.
    pub repository: String,
    /// Its name there.
    pub snapshot: SnapshotId,
}

/// A snapshot, as listings and retention policies see it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Its name.
    pub id: SnapshotId,
    /// What it is a snapshot of.
    pub store: StoreRef,
    /// The host that took it.
    pub host: String,
    /// Words that its owner gave it.
    pub tags: Vec<String>,
    /// When the backup began.
    pub started: Timestamp,
    /// The moment that the snapshot shows.
    pub taken: Timestamp,
    /// When it was committed.
    pub committed: Timestamp,
    /// How many entries it has.
    pub entries: u64,
    /// How many bytes of content it has.
    pub bytes: u64,
    /// How many bytes it added to the repository.
    pub stored: u64,
    /// How many things in it need a person's attention.
    pub warnings: u64,
    /// Where in the store's own history it stands, in the store's own words.
    pub position: String,
    /// What the source recorded: versions, identities, counts, digests.
    pub facts: Attributes,
    /// The snapshot that it was compared with while it was taken.
    pub parent: Option<SnapshotId>,
    /// What holds it, whatever a policy says; also what held it once and has run out.
    pub pins: Vec<Pin>,
    /// Whether it is all that the source gave.
    pub completeness: Completeness,
    /// The snapshot of which it is a copy, when it is one.
    pub origin: Option<Origin>,
}

/// Whether an image is all that its source gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Completeness {
    /// It is.
    #[default]
    Whole,
    /// It is what a backup had stored when it was last seen; the first entries, in their order.
    Incomplete,
}

impl SnapshotInfo {
    /// A snapshot of `store` called `id` that shows the moment `taken`; all else is empty.
    pub fn new(id: SnapshotId, store: StoreRef, taken: Timestamp) -> Self {
        Self {
            id,
            store,
            host: String::new(),
            tags: Vec::new(),
            started: taken,
            taken,
            committed: taken,
            entries: 0,
            bytes: 0,
            stored: 0,
            warnings: 0,
            position: String::new(),
            facts: Attributes::new(),
            parent: None,
            pins: Vec::new(),
            completeness: Completeness::Whole,
            origin: None,
        }
    }
}
