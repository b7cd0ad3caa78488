//! Chunks: the pieces that content is cut into, and their stored form.

mod chunker;
mod codec;

pub(crate) use chunker::{Chunker, Gear};
pub(crate) use codec::{
    Encoding, MAX_BLOCK, compress, compress_block, decompress, decompress_block,
};

/// What a chunk holds. The number is part of the format and of the chunk's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ChunkKind {
    /// Content of entries.
    Data = 1,
    /// A page of a snapshot's tree.
    Tree = 2,
    /// A page of a list of pieces.
    List = 3,
    /// Fingerprints of pages.
    Fingerprints = 4,
}

impl ChunkKind {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        let all = [Self::Data, Self::Tree, Self::List, Self::Fingerprints];
        all.into_iter().find(|known| *known as u8 == number)
    }

    /// Content lies in packs of its own, so that what describes it stays together, small and
    /// near.
    pub(crate) fn is_data(self) -> bool {
        self == Self::Data
    }
}

/// No chunk is larger, whatever the parameters or a stored length say.
pub(crate) const MAX_CHUNK: usize = 8 << 20;
