//! Taking a snapshot: from entries to packs.
//!
//! ```text
//! put(entry) ─ cut, hash ─┬─ known? done
//!                         └─ compress ─ seal into an open pack ─ full? store the pack
//! commit: pages of the tree ─ last packs ─ index object ─ snapshot root
//! ```
//!
//! Cutting, hashing, compressing and sealing run on a pool with a thread for each processor. A
//! chunk takes its size from a byte budget before it is queued, gives back what compression
//! saved, and the rest when its pack is durable: memory is bounded, and a slow store holds back
//! the source.
//!
//! A write that takes long commits *checkpoints* on its way: incomplete snapshots of the entries so
//! far, each in place of the one before. They can be restored, no sweeper takes what they need, and
//! the next backup of the store takes one up where a write ended too early.
//!
//! Entries that do not come in the order of their paths are stored all the same, and sorted when the
//! last one has come (`sorter`). There are no checkpoints then: a tree of what came so far would
//! have to be made anew for each. What was stored is not lost for the next backup, since the index
//! names it.

mod baseline;
mod block;
mod chunks;
mod inventory;
mod pages;
mod peeked;
mod pieces;
mod sink;
mod sorter;
#[cfg(test)]
mod stages;
mod stream;

pub(crate) use chunks::ChunkWriter;
pub(crate) use pieces::record as record_of;
pub(crate) use sink::RepositorySink;
