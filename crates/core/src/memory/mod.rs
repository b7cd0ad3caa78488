//! Stores and journals in memory: for tests of other people's sources, sinks and captures.

mod journal;
mod store;

pub use journal::MemoryJournal;
pub use store::{Image, MemoryStore, collect};
