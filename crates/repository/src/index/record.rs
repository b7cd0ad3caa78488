//! What the index knows of one chunk, in 32 bytes.

use crate::chunk::Encoding;
use crate::id::ChunkId;
use crate::pack;

/// Half of an id is plenty to find a chunk: ids are keyed, so that nobody can make two that begin
/// alike, and every chunk that is read is checked against its whole id.
pub(crate) const PREFIX: usize = 16;

/// The first half of a chunk's id.
pub(crate) type Prefix = [u8; PREFIX];

pub(crate) fn prefix(id: &ChunkId) -> Prefix {
    let mut prefix = [0; PREFIX];
    prefix.copy_from_slice(&id.as_bytes()[..PREFIX]);
    prefix
}

/// 32 bytes a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Record {
    pub(super) prefix: Prefix,
    pub(super) place: Packed,
}

/// A place in 128 bits, from the top: pack 28, offset 29, stored 24, plain 24, encoding 3,
/// inner 20. No pack has 512 MiB, no chunk 16 MiB, no block more than 1 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packed(pub(super) u128);

const FIELDS: [u32; 6] = [28, 29, 24, 24, 3, 20];
const BELOW_PACK: u32 = u128::BITS - FIELDS[0];

impl Packed {
    /// `None` when a field does not fit; no writer makes such packs.
    pub(super) fn new(pack: u32, place: &pack::Place<'_>) -> Option<Self> {
        let pack::Place { offset, stored, inner, chunk } = *place;
        let (plain, encoding) = (chunk.plain.into(), chunk.encoding.into());
        let values = [pack.into(), offset, stored.into(), plain, encoding, inner.into()];
        let mut packed = 0;
        for (value, bits) in values.into_iter().zip(FIELDS) {
            if value >> bits != 0 {
                return None;
            }
            packed = packed << bits | u128::from(value);
        }
        Some(Self(packed))
    }

    /// The number of the pack within the run.
    pub(super) fn pack(self) -> u32 {
        (self.0 >> BELOW_PACK) as u32
    }

    /// The same place in a pack of another number. `None` when the number is too large.
    pub(super) fn in_pack(self, pack: u32) -> Option<Self> {
        let rest = self.0 & ((1 << BELOW_PACK) - 1);
        (pack >> FIELDS[0] == 0).then_some(Self(rest | u128::from(pack) << BELOW_PACK))
    }

    /// The place, in the pack that everybody knows by `pack`.
    pub(super) fn found(self, pack: u32) -> Place {
        let mut rest = self.0;
        let mut fields = [0; FIELDS.len()];
        for (field, bits) in fields.iter_mut().zip(FIELDS).rev() {
            *field = (rest & ((1 << bits) - 1)) as u64;
            rest >>= bits;
        }
        let [_, offset, stored, plain, encoding, inner] = fields;
        Place {
            pack,
            offset: offset as u32,
            stored: stored as u32,
            plain: plain as u32,
            encoding: encoding as u8,
            inner: inner as u32,
        }
    }
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The number of the pack: see [`Index::pack`](super::Index::pack).
    pub(crate) pack: u32,
    /// Where what is sealed begins: the chunk, or the block that it lies in.
    pub(crate) offset: u32,
    /// Its sealed length.
    pub(crate) stored: u32,
    /// The plain length of the chunk.
    pub(crate) plain: u32,
    pub(crate) encoding: u8,
    /// Where the chunk begins in the plain bytes of the block.
    pub(crate) inner: u32,
}

impl Place {
    /// Whether it was sealed with others.
    pub(crate) fn is_in_block(&self) -> bool {
        self.encoding == Encoding::Solid as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::ChunkRecord;
    use proptest::prelude::*;

    #[test]
    fn a_chunk_takes_32_bytes() {
        assert_eq!(size_of::<Record>(), 32);
    }

    proptest! {
        #[test]
        fn a_place_comes_out_as_it_went_in(
            (pack, other) in (0_u32..1 << 28, 0_u32..1 << 28),
            offset in 0_u32..1 << 29,
            (stored, plain) in (0_u32..1 << 24, 0_u32..1 << 24),
            encoding in 0_u8..8,
            inner in 0_u32..1 << 20,
        ) {
            let id = ChunkId::from_bytes([1; 32]);
            let chunk = ChunkRecord { id, stored, plain, encoding, kind: 1 };
            let place = pack::Place { offset: offset.into(), stored, inner, chunk: &chunk };
            let packed = Packed::new(pack, &place).unwrap();
            let found = Place { pack: 7, offset, stored, plain, encoding, inner };
            prop_assert_eq!((packed.pack(), packed.found(7)), (pack, found));
            let moved = packed.in_pack(other).unwrap();
            prop_assert_eq!((moved.pack(), moved.found(7)), (other, found));
            prop_assert!(packed.in_pack(other | 1 << 28).is_none());
            let beyond = pack::Place { offset: place.offset | 1 << 29, ..place };
            prop_assert!(Packed::new(pack, &beyond).is_none());
        }
    }
}
