//! The entries of a snapshot: a sorted tree of pages.
//!
//! Leaves hold entries in the order of their paths, inner pages hold the first path and the chunk
//! of each page below. Where a page ends depends on the names in it and on nothing else
//! (a prolly tree), so that a snapshot shares every page without changes with the one before, a
//! lookup reads a page a level, and a listing streams.

mod entry;
mod merge;
mod page;
mod reader;
mod writer;

pub(crate) use entry::{AttributesRecord, EntryRecord};
pub(crate) use merge::{TreeMerge, Version};
pub(crate) use page::{Child, MAX_LEVEL, Page, compare};
pub(crate) use reader::{EntryRef, PageReader, TreeCursor, TreeReader};
pub(crate) use writer::TreeWriter;
