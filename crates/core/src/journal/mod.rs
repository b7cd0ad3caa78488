//! Journals: the history of a store, as sealed segments.
//!
//! Many stores have an ordered stream of changes: PostgreSQL its write-ahead log, Redis its
//! replication stream, Kafka the records of a partition. A snapshot and the stream from there on
//! give back any moment. A journal keeps such a stream: runs of it, each sealed as one
//! [`Segment`], each to be read alone.
//!
//! - Places are [`Position`]s on a [`Timeline`]. A timeline can leave another one where that had
//!   come to some position, as a PostgreSQL cluster does when it is promoted.
//! - A segment is the content of a [`Span`] of positions. Adding it again is fine while its content
//!   is the same, and an error when it is another: two servers that write to one journal are found
//!   out at once.
//! - Short segments can be sealed while a long one is still being written; the long one, once it
//!   is there, supersedes them ([`current`]).
//! - What is missing between segments is found ([`JournalLog::gaps`]), and recorded when it is
//!   known to be lost for good ([`JournalLog::record_gap`]).
//!
//! [`JournalLog`] stands for the place where a journal is kept before a store crate that does not
//! know a repository. [`MemoryJournal`](crate::memory::MemoryJournal) keeps one in memory;
//! [`journal_suite`](crate::conformance::journal_suite) is what every implementation must pass.

mod base;
mod lineage;
mod log;
mod name;
mod position;
mod segment;

pub use lineage::{Stretch, current, lineage, missing, outlived, removable};
pub use log::JournalLog;
pub use name::{JournalName, Timeline};
pub use position::{Position, Span};
pub use segment::{
    Appended, Fork, Gap, GapRecord, ListedSegment, MAX_SEGMENT, Need, Place, Segment, SegmentInfo,
    SegmentKind, TimelineInfo, Trim,
};
