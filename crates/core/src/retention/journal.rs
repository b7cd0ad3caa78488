//! How much of a journal the kept snapshots need.

use jiff::Timestamp;

use crate::id::SnapshotId;

/// The beginning of what must stay of a store's journal.
///
/// A base and the journal after it are one unit: from the base alone one moment comes back, and
/// from the journal alone none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalNeed {
    /// The oldest snapshot from which a promised moment is recovered.
    pub base: SnapshotId,
    /// When the backup of that snapshot began: all of the journal from here on must stay.
    pub from: Timestamp,
    /// Where that snapshot stands in the store's own history, in the store's own words. The
    /// journal must also reach back to what this snapshot itself needs to become consistent,
    /// where the snapshot does not hold it.
    pub position: String,
    /// The earliest moment that can be recovered with them: the beginning of the window, or the
    /// oldest snapshot where the store has none that is as old.
    pub recoverable: Timestamp,
}
