//! Lifeboat's repository: where snapshots live.
//!
//! A repository is a prefix on any object store. It holds snapshots of any number of stores, from
//! any number of hosts, deduplicated against each other, compressed, encrypted, and checked on
//! every read. Every snapshot is complete: what is incremental is its cost.
//!
//! | what | where |
//! |---|---|
//! | make one, open one | [`Repository::init`], [`Repository::open`], [`Secret`] |
//! | take a snapshot | [`Repository::sink`] and [`transfer`](lifeboat_core::transfer()) |
//! | look at snapshots | [`Repository::snapshots`], [`Repository::find`], [`Snapshot`] |
//! | look into snapshots | [`Snapshot::list`], [`Snapshot::members`], [`Snapshot::file`], [`Repository::search`], [`Repository::diff`], [`Repository::stats`] |
//! | restore | [`Snapshot::source`] and [`transfer`](lifeboat_core::transfer()) |
//! | forget snapshots, hold them | [`ForgetPlan`], [`Repository::forget`], [`Repository::pin`] |
//! | who can open it | [`Repository::keys`], [`Repository::add_key`], [`Repository::rotate_key`] |
//! | keep the history of a store | [`Repository::journal`], [`Repository::journals`] |
//! | look for damage | [`Repository::check`], [`check_without_key`], [`survey_without_key`] |
//! | keep data in an archive | [`Repository::set_data_class`], [`Repository::thaw_plan`], [`Repository::thaw`] |
//! | keep the index small and near | [`Repository::compact_index`], [`Cache`] |
//!
//! # How it works
//!
//! Content is cut into chunks: where the content says so for streams, on a fixed grid for files
//! that consist of pages, of which only those that changed are stored again. A chunk's name is a
//! keyed hash of what it holds; one that is there is not stored again. New chunks are compressed,
//! sealed and gathered into packs. The entries of a snapshot form a sorted tree whose pages are
//! chunks too, so that two snapshots share all that is the same in both. The format is described
//! in `docs/format.md`, down to the byte.
//!
//! # What can be relied on
//!
//! - **Order of writing.** Packs are stored first, then the index object that names their chunks,
//!   then the snapshot's root. A snapshot exists when its root does. A process that is killed at
//!   any instant leaves packs that nothing names, never a snapshot that lacks something; and what
//!   its index objects name already, the next run does not store again.
//! - **No locks.** Objects are never changed and are made only where none is, so that any number
//!   of hosts can write at once, also while somebody deletes what is not needed any more.
//! - **Nothing is trusted.** Whatever comes from the store is bounded before memory is taken for
//!   it, authenticated before it is decoded, and hashed before it is believed.
//! - **Memory** is bounded by the size of packs and chunks (about 200 MiB by default), whatever
//!   the size of the store. Only the index grows with the repository: 32 bytes a chunk, or one
//!   byte with a local [`Cache`], and about 130 bytes a pack.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use lifeboat_core::memory::MemoryStore;
//! use lifeboat_core::{Attributes, Context, Entry, EntryPath, TransferOptions, transfer};
//! use lifeboat_repository::{
//!     CheckOptions, InitOptions, Repository, Secret, Selection, WriteOptions,
//! };
//!
//! # #[tokio::main] async fn main() -> lifeboat_core::Result<()> {
//! let place = Arc::new(object_store::memory::InMemory::new());
//! let secret = Secret::passphrase("correct horse battery staple");
//! let repository = Repository::init(place, &secret, &InitOptions::default()).await?;
//!
//! // Any source will do: this one is in memory.
//! let store = MemoryStore::new("settings");
//! store.insert(Entry::file(EntryPath::new("greeting")?, Attributes::new(), "hello")).await?;
//!
//! let context = Context::silent();
//! let options = TransferOptions::default();
//! transfer(&store, &repository.sink(&WriteOptions::default()), &options, &context).await?;
//!
//! let newest = repository.find("latest", None).await?;
//! let snapshot = repository.snapshot(&newest.id).await?;
//! let restored = MemoryStore::new("restored");
//! transfer(&snapshot.source(&Selection::all()), &restored, &options, &context).await?;
//! assert_eq!(restored.image(), store.image());
//!
//! let report = repository.check(&CheckOptions::every_byte(), &context).await?;
//! assert!(report.is_sound());
//! # Ok(()) }
//! ```

mod browse;
mod check;
mod chunk;
mod config;
mod content;
mod copy;
mod crypto;
mod error;
mod forget;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod id;
mod index;
mod journal;
mod keyring;
mod maintenance;
mod objects;
mod pack;
mod pins;
mod pool;
mod probe;
mod read;
mod repair;
mod repository;
mod sealed;
mod snapshot;
mod storage;
mod tree;
mod write;

pub use browse::{
    AreaStats, Change, ChangeKind, ChunkTotals, Diff, DiffOptions, Found, Member, Members, Query,
    RepositoryStats, Search, SnapshotFile, SnapshotStats,
};
pub use check::{
    Budget, CheckOptions, CheckReport, Damage, Depth, Remedy, Rolling, Sample, SampleSize,
    check_without_key,
};
pub use config::Parameters;
pub use copy::{
    Copied, CopiedTimeline, CopyOptions, CopyPlan, CopyReport, CopySelection, MissingJournals,
    MissingPin, MissingPins, MissingTimeline, Verification,
};
pub use crypto::{Access, Holder, KdfCost, KeyCommand, Secret};
pub use error::{Error, Result};
pub use forget::{ForgetOptions, ForgetPlan, Forgotten, PlannedGroup, PlannedTrim, Trimmed};
pub use id::{ChunkId, ObjectId, RepositoryId};
pub use index::{Cache, CompactReport, PackSurvey, survey_without_key};
pub use journal::{
    Exclusivity, JournalGap, JournalList, JournalOptions, JournalReport, JournalSurvey,
    TimelineSurvey,
};
pub use keyring::{
    AddKeyOptions, KeyInfo, KeyKind, RemoveKeyOptions, RotateOptions, Rotation, Standing,
};
pub use maintenance::{Alone, PackCount, PruneMode, PruneOptions, PruneReport, Reseal};
pub use pins::{PinList, PinOptions};
pub use read::{Selection, SnapshotCopies};
pub use repair::{
    IndexRepair, Originals, PackRepair, PacksRepair, RepairMode, RepairOptions, SnapshotRepair,
    SnapshotsRepair, repaired_original,
};
pub use repository::{
    Compression, InitOptions, OpenOptions, Promise, Repository, SnapshotList, WriteOptions,
    id_without_key,
};
pub use snapshot::{Listing, Snapshot};
pub use storage::{ThawNeed, ThawOptions, ThawPlan};
