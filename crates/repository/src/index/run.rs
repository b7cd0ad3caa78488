//! A sorted run of the index in memory.

use std::collections::HashMap;
use std::sync::Arc;

use crate::id::{ChunkId, ObjectId};
use crate::pack::{ChunkRecord, PackHeader, PackRecord};

/// Half of an id is plenty to find a chunk: ids are keyed, so that nobody can make two that begin
/// alike, and every chunk that is read is checked against its whole id.
const PREFIX: usize = 16;

/// 32 bytes a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    prefix: [u8; PREFIX],
    pack: u32,
    offset: u32,
    stored: u32,
    /// The plain length, and the encoding in the top eight bits: no chunk has 16 MiB.
    plain: u32,
}

/// Where a chunk is.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub(crate) pack: Arc<Pack>,
    pub(crate) offset: u64,
    pub(crate) stored: u32,
    pub(crate) plain: u32,
    pub(crate) encoding: u8,
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
            run.records.extend(pack.places().map(|(offset, chunk)| Record {
                prefix: prefix(&chunk.id),
                pack: number,
                offset: offset as u32,
                stored: chunk.stored,
                plain: chunk.plain & 0x00ff_ffff | u32::from(chunk.encoding) << 24,
            }));
        }
        run.records.sort_unstable();
        run
    }

    /// All of two runs.
    pub(crate) fn merge(one: &Self, two: &Self) -> Self {
        let shift = one.packs.len() as u32;
        let packs = one.packs.iter().chain(&two.packs).cloned().collect();
        let mut records = Vec::with_capacity(one.records.len() + two.records.len());
        records.extend_from_slice(&one.records);
        let shifted = |record: &Record| Record { pack: record.pack + shift, ..*record };
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
        self.records[first..].iter().take_while(move |record| record.prefix == prefix).map(
            |record| Location {
                pack: Arc::clone(&self.packs[record.pack as usize]),
                offset: record.offset.into(),
                stored: record.stored,
                plain: record.plain & 0x00ff_ffff,
                encoding: (record.plain >> 24) as u8,
            },
        )
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
}
