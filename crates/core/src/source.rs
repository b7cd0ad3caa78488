//! Where entries come from.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::attributes::Attributes;
use crate::baseline::Baseline;
use crate::context::Context;
use crate::entry::Entry;
use crate::error::Result;
use crate::store::{Inspection, StoreRef};

/// Something that can be read as a whole: a live store, or a snapshot of one.
#[async_trait]
pub trait Source: Send + Sync {
    /// Which store it is.
    fn store(&self) -> &StoreRef;

    /// Looks at the store without reading its data: its version, identity and size, what would
    /// go wrong and how to mend it.
    ///
    /// # Errors
    /// When the store cannot be asked at all. What merely stands in the way is a finding.
    async fn inspect(&self) -> Result<Inspection>;

    /// In which order its readings give their entries. Known before anything is asked of the
    /// store, so that a sink can refuse what it could not take.
    fn order(&self) -> Order {
        Order::Sorted
    }

    /// Begins one consistent read. With a baseline, the source may answer
    /// [`Extent::Unchanged`](crate::Extent::Unchanged) for what it knows to be the same.
    ///
    /// # Errors
    /// When the store refuses, cannot be reached, or is not in a state to be read.
    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> Result<Box<dyn Reading>>;
}

/// In which order a reading gives its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// In strictly ascending order of their paths; a directory therefore before what it contains.
    #[default]
    Sorted,
    /// As the store gives them: for one that sends all it has in an order of its own, so that
    /// sorting would mean to keep all of it somewhere first. No path comes twice.
    ///
    /// Not every sink [takes](crate::Sink::takes) that. One that does sees to it that a path that
    /// comes twice fails the write.
    AsTheyCome,
}

/// One consistent read of a store.
///
/// # Contract
/// - Entries come in the [`Order`] that the source names, and no path comes twice.
/// - `next` is cheap: content is read when it is asked for. The contents of several entries are
///   read side by side, each at most once, and may outlive the call that returned them, but not
///   [`Reading::finish`]. `next` may wait for contents given before, so a caller reads them beside
///   its calls of `next`, not after the last.
/// - What cannot be read but does not spoil the rest (a file that vanished or changed) is said by
///   [`Context::warn`]; what spoils the read is an error.
/// - Dropping a reading at any moment ends the read and frees what it holds at the store.
#[async_trait]
pub trait Reading: Send {
    /// The next entry, or `None` after the last one.
    ///
    /// # Errors
    /// What the store answered. The reading must then be dropped.
    async fn next(&mut self) -> Result<Option<Entry>>;

    /// Ends the read, after the last entry and after all content was read.
    ///
    /// # Errors
    /// When the read turns out not to be consistent: then there is no snapshot.
    async fn finish(self: Box<Self>) -> Result<Completion>;
}

/// What a source knows at the end of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The moment that the data shows.
    pub taken: Timestamp,
    /// Where in the store's own history that is, in the store's own words (an LSN, an offset);
    /// empty where there is no such thing.
    pub position: String,
    /// Versions, identities, counts, digests.
    pub facts: Attributes,
}

impl Completion {
    /// Data as of `taken`, with nothing else to say.
    pub fn at(taken: Timestamp) -> Self {
        Self { taken, position: String::new(), facts: Attributes::new() }
    }
}
