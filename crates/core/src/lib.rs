//! The model and the traits of Lifeboat.
//!
//! Everything that Lifeboat does is a transfer from a [`Source`] to a [`Sink`]: a backup goes
//! from a store to a snapshot, a restore from a snapshot to a store, a copy from repository to
//! repository. This crate holds those two traits, what travels between them, and
//! [`transfer()`], the one pipeline with progress, limits, cancellation and back-pressure. It
//! knows no store, no encryption and no network.
//!
//! | what | where |
//! |---|---|
//! | a live system, and what an inspection finds | [`StoreRef`], [`Inspection`], [`Finding`] |
//! | a named item and its content | [`Entry`], [`EntryPath`], [`Attributes`], [`Content`], [`Extent`] |
//! | reading and writing as a whole | [`Source`], [`Reading`], [`Sink`], [`Writing`] |
//! | what the last snapshot held | [`Baseline`] |
//! | the history of a store, as sealed segments | [`journal`] |
//! | which snapshots stay | [`RetentionPolicy`], [`KeepRules`], [`Pin`] |
//! | classes, archives and locks of an object store | [`Warehouse`], [`StorageClass`], [`Keeping`] |
//! | what accompanies an operation | [`Context`], [`Observer`], [`ByteBudget`] |
//! | errors | [`Error`], [`ErrorKind`], [`Failure`] |
//! | files and directories of this machine | `local` (Linux) |
//! | for tests | [`memory`], [`conformance`] |
//!
//! # How a transfer flows
//!
//! The source names entries in ascending order of their paths, cheaply. Each is handed to the
//! sink as a task of its own; the sink pulls the content, extent by extent. Buffers are taken
//! from one [`ByteBudget`], so that a slow sink holds back a fast source. A source that was given
//! a [`Baseline`] answers [`Extent::Unchanged`] for what it knows to be the same, and the cost of
//! a backup follows the change while every snapshot stays complete.
//!
//! # Example
//!
//! ```
//! use lifeboat_core::memory::MemoryStore;
//! use lifeboat_core::{Context, Entry, EntryPath, Attributes, TransferOptions, transfer};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> lifeboat_core::Result<()> {
//! let from = MemoryStore::new("settings");
//! from.insert(Entry::file(EntryPath::new("greeting")?, Attributes::new(), "hello")).await?;
//!
//! let to = MemoryStore::new("copy");
//! let context = Context::silent();
//! let summary = transfer(&from, &to, &TransferOptions::default(), &context).await?;
//!
//! assert_eq!(summary.progress.entries, 1);
//! assert_eq!(to.content(&EntryPath::new("greeting")?).as_deref(), Some(&b"hello"[..]));
//! # Ok(()) }
//! ```

mod attributes;
mod baseline;
mod budget;
pub mod conformance;
mod content;
mod context;
mod entry;
mod error;
mod id;
pub mod journal;
#[cfg(target_os = "linux")]
pub mod local;
pub mod memory;
mod observer;
mod path;
mod pattern;
mod pin;
mod retention;
mod sink;
mod snapshot;
mod source;
mod store;
mod transfer;
mod warehouse;

pub use async_trait::async_trait;
pub use bytes::Bytes;
pub use jiff::tz::TimeZone;
pub use jiff::{Span, Timestamp};

pub use attributes::{Attributes, Value, names};
pub use baseline::Baseline;
pub use budget::{Buffer, ByteBudget};
pub use content::{Content, Extent};
pub use context::Context;
pub use entry::{Entry, EntryInfo, EntryKind, Layout};
pub use error::{Error, ErrorKind, Failure, Result};
pub use id::{PinId, SnapshotId};
pub use observer::{Collecting, Event, Observer, Progress, Silent};
pub use path::{EntryPath, MAX_PATH};
pub use pattern::Pattern;
pub use pin::Pin;
pub use retention::{
    Count, Decision, Group, GroupBy, JournalNeed, KeepPolicy, KeepRules, Reason, RetentionPolicy,
    RuleKind, Verdict, group, parse_span, parse_time_zone, time_zone_name,
};
pub use sink::{Header, Lane, Receipt, Sink, Writing, host};
pub use snapshot::{Completeness, Origin, SnapshotInfo};
pub use source::{Completion, Order, Reading, Source};
pub use store::{Finding, Inspection, Severity, StoreRef};
pub use transfer::{Comparison, Summary, TransferOptions, transfer};
pub use warehouse::{
    Access, Archived, ClassVisitor, Keeping, Retention, RetentionMode, Standing, StorageClass,
    Telling, ThawTier, Warehouse,
};
