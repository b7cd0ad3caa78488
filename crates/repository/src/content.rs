//! Where the bytes of an entry are: a list of pieces of chunks.
//!
//! Content is a list of (chunk, offset, length), so that a chunk can serve stretches of many
//! snapshots while other parts of it are long out of date. Short lists stand in the entry itself;
//! long ones are cut into pages, content-defined, which are chunks of kind
//! [`ChunkKind::List`](crate::chunk::ChunkKind::List), and the entry lists those: so the list of
//! a huge file costs what changed of it.

use minicbor::{Decode, Encode};

use crate::id::ChunkId;

/// A stretch of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The chunk that has it; `None` for a hole.
    pub(crate) chunk: Option<ChunkId>,
    /// Where in the chunk it begins.
    pub(crate) offset: u32,
    /// How many bytes it has.
    pub(crate) length: u64,
}

impl Piece {
    /// The whole of a chunk.
    pub(crate) fn whole(chunk: ChunkId, length: usize) -> Self {
        Self { chunk: Some(chunk), offset: 0, length: length as u64 }
    }

    pub(crate) fn hole(length: u64) -> Self {
        Self { chunk: None, offset: 0, length }
    }

    /// Whether `next` goes on where this piece ends.
    pub(crate) fn continues(&self, next: &Self) -> bool {
        self.chunk == next.chunk
            && (self.chunk.is_none()
                || u64::from(self.offset) + self.length == u64::from(next.offset))
    }
}

/// Appends a piece, joining it to the last one where that is the same stretch.
pub(crate) fn push(pieces: &mut Vec<Piece>, piece: Piece) {
    match pieces.last_mut() {
        _ if piece.length == 0 => {}
        Some(last) if last.continues(&piece) => last.length += piece.length,
        _ => pieces.push(piece),
    }
}

/// The bytes that the pieces stand for.
pub(crate) fn total(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.length).sum()
}

/// A list of pieces as it is stored, each chunk named once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct PieceList {
    #[n(0)]
    chunks: Vec<ChunkId>,
    /// Chunk number from 1 on, or 0 for a hole; offset; length.
    #[n(1)]
    pieces: Vec<(u32, u32, u64)>,
}

impl PieceList {
    pub(crate) fn encode(pieces: &[Piece]) -> Self {
        let mut list = Self::default();
        let mut numbers = std::collections::HashMap::new();
        for piece in pieces {
            let number = piece.chunk.map_or(0, |chunk| {
                *numbers.entry(chunk).or_insert_with(|| {
                    list.chunks.push(chunk);
                    list.chunks.len() as u32
                })
            });
            list.pieces.push((number, piece.offset, piece.length));
        }
        list
    }

    /// The pieces, or `None` when one names a chunk that is not in the list.
    pub(crate) fn decode(&self) -> Option<Vec<Piece>> {
        let decode = |&(number, offset, length): &(u32, u32, u64)| {
            let chunk = match number.checked_sub(1) {
                None => None,
                Some(at) => Some(*self.chunks.get(at as usize)?),
            };
            Some(Piece { chunk, offset, length })
        };
        self.pieces.iter().map(decode).collect()
    }

    /// The chunks that are named.
    pub(crate) fn chunks(&self) -> &[ChunkId] {
        &self.chunks
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The bytes that all pieces together stand for, or `None` when that is out of range.
    pub(crate) fn length(&self) -> Option<u64> {
        self.pieces.iter().try_fold(0_u64, |sum, (_, _, length)| sum.checked_add(*length))
    }
}

/// The content of an entry as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct ContentRecord {
    /// How many levels of lists stand between the entry and its data: 0 to [`MAX_DEPTH`].
    #[n(0)]
    pub(crate) depth: u8,
    #[n(1)]
    pub(crate) list: PieceList,
    /// The fingerprints of the content's pages, 16 bytes a page, where there are any.
    #[cbor(n(2), decode_with = "without_fingerprints")]
    pub(crate) fingerprints: Option<Box<ContentRecord>>,
}

/// Content without fingerprints. Fingerprints have none themselves; content that nests itself
/// without end would end a reader that follows it.
#[derive(Decode)]
#[cbor(array)]
struct Plain {
    #[n(0)]
    depth: u8,
    #[n(1)]
    list: PieceList,
}

fn without_fingerprints<C>(
    decoder: &mut minicbor::Decoder<'_>,
    context: &mut C,
) -> Result<Option<Box<ContentRecord>>, minicbor::decode::Error> {
    let plain = Option::<Plain>::decode(decoder, context)?;
    let record =
        |Plain { depth, list }| Box::new(ContentRecord { depth, list, fingerprints: None });
    Ok(plain.map(record))
}

/// Lists of lists of lists hold more than 2^64 bytes.
pub(crate) const MAX_DEPTH: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(byte: u8) -> ChunkId {
        ChunkId::from_bytes([byte; 32])
    }

    #[test]
    fn neighbours_are_joined_and_lists_survive_storing() {
        let mut pieces = Vec::new();
        let at = |byte, offset, length| Piece { chunk: Some(chunk(byte)), offset, length };
        for piece in [
            at(1, 0, 10),
            at(1, 10, 5),
            at(1, 20, 5),
            Piece::hole(7),
            Piece::hole(0),
            Piece::hole(3),
            at(2, 0, 1),
            at(1, 0, 1),
        ] {
            push(&mut pieces, piece);
        }
        let expected = [at(1, 0, 15), at(1, 20, 5), Piece::hole(10), at(2, 0, 1), at(1, 0, 1)];
        assert_eq!(pieces, expected);
        let list = PieceList::encode(&pieces);
        assert_eq!(list.chunks().len(), 2);
        assert_eq!(list.length(), Some(32));
        let bytes = minicbor::to_vec(&list).unwrap();
        assert_eq!(minicbor::decode::<PieceList>(&bytes).unwrap().decode().unwrap(), pieces);
    }

    #[test]
    fn content_that_nests_itself_is_not_followed() {
        let plain = ContentRecord::default();
        let with = |inner: ContentRecord| ContentRecord {
            fingerprints: Some(Box::new(inner)),
            ..ContentRecord::default()
        };
        let good = minicbor::to_vec(with(plain.clone())).unwrap();
        assert_eq!(minicbor::decode::<ContentRecord>(&good).unwrap(), with(plain.clone()));
        let deep = minicbor::to_vec(with(with(plain.clone()))).unwrap();
        assert_eq!(minicbor::decode::<ContentRecord>(&deep).unwrap(), with(plain));
        // As deep as a chunk is long, and cut off at the end.
        let bottomless = [0x83, 0, 0x82, 0x80, 0x80].repeat(1 << 20);
        assert!(minicbor::decode::<ContentRecord>(&bottomless).is_err());
    }

    #[test]
    fn a_hostile_list_is_refused() {
        let list = PieceList { chunks: vec![], pieces: vec![(1, 0, 5)] };
        assert!(list.decode().is_none());
        let list = PieceList { chunks: vec![], pieces: vec![(0, 0, u64::MAX), (0, 0, 1)] };
        assert!(list.length().is_none());
    }
}
