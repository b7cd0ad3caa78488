//! A sorted run of the index in memory.

use std::collections::HashMap;
use std::sync::Arc;

use crate::id::{ChunkId, ObjectId};
use crate::pack::{ChunkRecord, PackHeader, PackRecord, Place};

/// Half of an id is plenty to find a chunk: ids are keyed, so that nobody can make two that begin
/// alike, and every chunk that is read is checked against its whole id.
const PREFIX: usize = 16;

/// 32 bytes a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    prefix: [u8; PREFIX],
    place: Packed,
}

/// A place in 128 bits, from the top: pack 28, offset 29, stored 24, plain 24, encoding 3,
/// inner 20. No pack has 512 MiB, no chunk 16 MiB, no block more than 1 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Packed(u128);

const FIELDS: [u32; 6] = [28, 29, 24, 24, 3, 20];

impl Packed {
    /// `None` when a field does not fit; no writer makes such packs.
    fn new(pack: u32, place: &Place<'_>) -> Option<Self> {
        let Place { offset, stored, inner, chunk } = *place;
        let values = [
            pack.into(),
            offset,
            stored.into(),
            chunk.plain.into(),
            chunk.encoding.into(),
            inner.into(),
        ];
        let mut packed = 0;
        for (value, bits) in values.into_iter().zip(FIELDS) {
            if value >> bits != 0 {
                return None;
            }
            packed = packed << bits | u128::from(value);
        }
        Some(Self(packed))
    }

    fn fields(self) -> [u64; FIELDS.len()] {
        let mut rest = self.0;
        let mut fields = [0; FIELDS.len()];
        for (field, bits) in fields.iter_mut().zip(FIELDS).rev() {
            *field = (rest & ((1 << bits) - 1)) as u64;
            rest >>= bits;
        }
        fields
    }

    fn pack(self) -> usize {
        (self.0 >> (u128::BITS - FIELDS[0])) as usize
    }

    /// The same place, in a pack whose number is higher by `packs`.
    fn shifted(self, packs: usize) -> Self {
        Self(self.0 + ((packs as u128) << (u128::BITS - FIELDS[0])))
    }
}

/// Where a chunk is.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub(crate) pack: Arc<Pack>,
    /// Where what is sealed begins: the chunk, or the block that it lies in.
    pub(crate) offset: u64,
    /// Its sealed length.
    pub(crate) stored: u32,
    pub(crate) plain: u32,
    pub(crate) encoding: u8,
    /// Where the chunk begins in the plain bytes of the block.
    pub(crate) inner: u32,
}

impl Location {
    /// The record that the pack has of the chunk.
    pub(crate) fn record(&self, id: ChunkId, kind: u8) -> ChunkRecord {
        let (stored, plain, encoding) = (self.stored, self.plain, self.encoding);
        ChunkRecord { id, stored, plain, encoding, kind }
    }
}

/// A pack, without its chunks.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) id: ObjectId,
    pub(crate) header: PackHeader,
    pub(crate) size: u64,
    /// By which this process knows it.
    pub(crate) number: u32,
}

/// Chunks sorted by id.
#[derive(Debug, Default)]
pub(crate) struct Run {
    packs: Vec<Arc<Pack>>,
    records: Vec<Record>,
}

impl Run {
    /// A run of packs that have numbers.
    pub(crate) fn build(packs: &[PackRecord], numbers: &HashMap<ObjectId, u32>) -> Self {
        let mut run = Self::default();
        for pack in packs {
            let number = run.packs.len() as u32;
            let (Ok(_), Some(known)) = (u32::try_from(pack.size), numbers.get(&pack.id)) else {
                continue;
            };
            run.packs.push(Arc::new(Pack {
                id: pack.id,
                header: pack.header,
                size: pack.size,
                number: *known,
            }));
            run.records.extend(pack.places().filter_map(|place| {
                let prefix = prefix(&place.chunk.id);
                Packed::new(number, &place).map(|place| Record { prefix, place })
            }));
        }
        run.records.sort_unstable();
        run
    }

    /// All of two runs.
    pub(crate) fn merge(one: &Self, two: &Self) -> Self {
        let shift = one.packs.len();
        let packs = one.packs.iter().chain(&two.packs).cloned().collect();
        let mut records = Vec::with_capacity(one.records.len() + two.records.len());
        records.extend_from_slice(&one.records);
        let shifted = |record: &Record| Record { place: record.place.shifted(shift), ..*record };
        records.extend(two.records.iter().map(shifted));
        // Two sorted stretches: a stable sort finds and merges them.
        records.sort();
        Self { packs, records }
    }

    /// How many chunks there are.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Every place of a chunk in this run.
    pub(crate) fn find(&self, id: &ChunkId) -> impl Iterator<Item = Location> {
        let prefix = prefix(id);
        let first = self.records.partition_point(|record| record.prefix < prefix);
        let found = self.records[first..].iter().take_while(move |record| record.prefix == prefix);
        found.map(|record| {
            let [_, offset, stored, plain, encoding, inner] = record.place.fields();
            Location {
                pack: Arc::clone(&self.packs[record.place.pack()]),
                offset,
                stored: stored as u32,
                plain: plain as u32,
                encoding: encoding as u8,
                inner: inner as u32,
            }
        })
    }

    pub(crate) fn packs(&self) -> &[Arc<Pack>] {
        &self.packs
    }
}

fn prefix(id: &ChunkId) -> [u8; PREFIX] {
    let mut prefix = [0; PREFIX];
    prefix.copy_from_slice(&id.as_bytes()[..PREFIX]);
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Keys, RootKey};
    use crate::id::RepositoryId;
    use crate::pack::{Contents, HEADER};

    #[test]
    fn a_chunk_takes_32_bytes_and_is_found_wherever_it_is() {
        assert_eq!(size_of::<Record>(), 32);
        let keys = Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([1; 16]));
        let chunk = |byte: u8| ChunkRecord {
            id: ChunkId::from_bytes([byte; 32]),
            stored: 100,
            plain: 4 << 20,
            encoding: 1,
            kind: 1,
        };
        let pack = |byte: u8, chunks: &[u8]| PackRecord {
            id: ObjectId::from_bytes([byte; 32]),
            header: PackHeader::draw(&keys, Contents::Data).unwrap(),
            size: 1000,
            chunks: chunks.iter().copied().map(chunk).collect(),
        };
        let packs = [pack(1, &[5, 3]), pack(2, &[4, 5])];
        let numbers = packs.iter().zip(0..).map(|(pack, number)| (pack.id, number)).collect();
        let run = Run::build(&packs, &numbers);
        let places = |byte| -> Vec<_> {
            let id = ChunkId::from_bytes([byte; 32]);
            let found = run.find(&id);
            found.map(|place| (place.pack.id.as_bytes()[0], place.offset, place.plain)).collect()
        };
        let first = HEADER as u64;
        assert_eq!(places(5), [(1, first, 4 << 20), (2, first + 100, 4 << 20)]);
        assert_eq!(places(3), [(1, first + 100, 4 << 20)]);
        assert!(places(9).is_empty());
    }

    #[test]
    fn chunks_of_a_block_lie_where_the_block_lies() {
        let keys = Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([1; 16]));
        let chunk = |byte: u8, stored: u32, plain: u32, encoding: u8| ChunkRecord {
            id: ChunkId::from_bytes([byte; 32]),
            stored,
            plain,
            encoding,
            kind: 1,
        };
        let chunks = vec![
            chunk(1, 700, 1000, 1),
            chunk(2, 300, 400, 3),
            chunk(3, 0, 500, 3),
            chunk(4, 0, 7, 3),
            chunk(5, 50, 60, 3),
            chunk(6, 16, 0, 0),
        ];
        let pack = PackRecord {
            id: ObjectId::from_bytes([1; 32]),
            header: PackHeader::draw(&keys, Contents::Data).unwrap(),
            size: 2000,
            chunks,
        };
        let numbers = HashMap::from([(pack.id, 0)]);
        let run = Run::build(&[pack], &numbers);
        let run = Run::merge(&Run::default(), &run);
        let place = |byte| {
            let found: Vec<_> = run.find(&ChunkId::from_bytes([byte; 32])).collect();
            assert_eq!(found.len(), 1);
            (found[0].offset, found[0].stored, found[0].inner, found[0].plain, found[0].encoding)
        };
        assert_eq!(place(1), (64, 700, 0, 1000, 1));
        assert_eq!(place(2), (764, 300, 0, 400, 3));
        assert_eq!(place(3), (764, 300, 400, 500, 3));
        assert_eq!(place(4), (764, 300, 900, 7, 3));
        assert_eq!(place(5), (1064, 50, 0, 60, 3));
        assert_eq!(place(6), (1114, 16, 0, 0, 0));
    }
}
