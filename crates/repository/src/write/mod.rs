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

mod chunks;
mod pages;
mod peeked;
mod pieces;
mod sink;
mod stream;

pub(crate) use chunks::ChunkWriter;
pub(crate) use sink::RepositorySink;
