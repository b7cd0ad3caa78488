//! Small chunks on their way into a block.
//!
//! A frame of a few KiB compresses badly, and what goes with every chunk (a request to read it, a
//! seal, a context of the compressor) costs more than the chunk. So chunks of at most 64 KiB are
//! gathered until there are 256 KiB, and compressed and sealed together. What was stored together
//! is mostly read together: small files of a directory, changed pages of a table.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use crate::chunk::MAX_BLOCK;
use crate::id::ChunkId;
use crate::pack::MAX_MEMBERS;

/// Larger chunks are stored by themselves, also where chunks are very large.
const SMALL: usize = 64 << 10;
/// A block is closed when it has so many times what a small chunk has at most: enough for
/// compression, and not much for who wants one chunk of it.
const FULL: usize = 4;

const _: () = assert!((FULL + 1) * SMALL <= MAX_BLOCK);

/// Gathers small chunks.
pub(super) struct Gatherer {
    small: usize,
    block: Mutex<Block>,
}

impl Gatherer {
    /// Gathers chunks of at most a sixteenth of the average.
    pub(super) fn new(average: u32) -> Self {
        Self { small: (average as usize / 16).min(SMALL), block: Mutex::default() }
    }

    /// Whether a chunk of so many bytes is gathered.
    pub(super) fn takes(&self, size: usize) -> bool {
        size <= self.small
    }

    /// Adds a chunk, with what it took from the budget. The result is the block, when it is full.
    pub(super) fn add(
        &self,
        id: ChunkId,
        plain: &[u8],
        permits: OwnedSemaphorePermit,
    ) -> Option<Block> {
        let mut block = self.block.lock();
        block.add(id, plain, permits);
        let full = block.plain.len() >= FULL * self.small || block.members.len() >= MAX_MEMBERS;
        full.then(|| std::mem::take(&mut *block))
    }

    /// Takes the block, when it has one of these chunks.
    pub(super) fn take(&self, chunks: &HashSet<ChunkId>) -> Option<Block> {
        let mut block = self.block.lock();
        let wanted = block.members.iter().any(|(id, _)| chunks.contains(id));
        wanted.then(|| std::mem::take(&mut *block))
    }
}

/// A block that is being filled.
#[derive(Default)]
pub(super) struct Block {
    pub(super) plain: Vec<u8>,
    /// The chunks in it, each with its length, in the order in which they lie.
    pub(super) members: Vec<(ChunkId, u32)>,
    /// What its chunks took from the budget.
    pub(super) permits: Option<OwnedSemaphorePermit>,
}

impl Block {
    fn add(&mut self, id: ChunkId, plain: &[u8], permits: OwnedSemaphorePermit) {
        self.plain.extend_from_slice(plain);
        self.members.push((id, plain.len() as u32));
        match &mut self.permits {
            Some(held) => held.merge(permits),
            None => self.permits = Some(permits),
        }
    }
}
