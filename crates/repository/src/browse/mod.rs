//! Looking into snapshots without restoring them.
//!
//! Snapshots share the pages of their trees, and what looks at several of them walks the trees
//! [as one](crate::tree::TreeMerge): what is the same in all of them is read once, or not at all.
//!
//! - [`Repository::diff`](crate::Repository::diff): what changed from one snapshot to another. The
//!   cost follows the difference.
//! - [`Repository::search`](crate::Repository::search): entries by name, kind, size and time, in
//!   any number of snapshots.
//! - [`Snapshot::file`](crate::Snapshot::file): the content of a file, whole or in part. Nothing
//!   before the part is read.
//! - [`Snapshot::members`](crate::Snapshot::members): what lies in one directory. What lies deeper
//!   is passed over.
//! - [`Repository::stats`](crate::Repository::stats): what the repository holds, and what each
//!   snapshot alone holds.

mod diff;
mod directory;
mod file;
mod same;
mod search;
mod stats;

pub use diff::{Change, ChangeKind, Diff, DiffOptions};
pub use directory::{Member, Members};
pub use file::SnapshotFile;
pub use search::{Found, Query, Search};
pub use stats::{AreaStats, ChunkTotals, RepositoryStats, SnapshotStats};
