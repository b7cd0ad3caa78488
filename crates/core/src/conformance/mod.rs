//! Suites that every [`Source`], every [`Sink`] and every
//! [`JournalLog`](crate::journal::JournalLog) must pass, public so that stores outside this
//! workspace can run them too.
//!
//! They are made for tests, so a breach of the contract is a panic that says which rule it broke.

mod journal;
mod sink;
mod source;

pub use journal::{JournalHarness, journal_suite};
pub use sink::{SinkHarness, sink_suite};
pub use source::{Volatile, live_source_suite, source_suite};

use crate::context::Context;
use crate::error::Result;
use crate::memory::MemoryStore;
use crate::sink::Sink;
use crate::source::Source;
use crate::transfer::{Summary, TransferOptions, transfer};

/// Copies all of `source` into a new memory store.
///
/// # Errors
/// Those of the source.
pub async fn read_all(source: &dyn Source) -> Result<MemoryStore> {
    let copy = MemoryStore::new("copy");
    move_all(source, &copy, 4).await?;
    Ok(copy)
}

async fn move_all(source: &dyn Source, sink: &dyn Sink, concurrency: usize) -> Result<Summary> {
    let options = TransferOptions { concurrency, ..TransferOptions::default() };
    transfer(source, sink, &options, &Context::silent()).await
}
