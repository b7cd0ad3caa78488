//! A sorted run of the index, in memory or in a file of the cache.

use std::io;

use super::file::RunFile;
use super::record::{Packed, Prefix, Record, prefix};
use super::table::{Packs, Sources};
use crate::pack::PackRecord;

/// A pack of a run, as one index object names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named {
    /// The pack's number.
    pub(super) pack: u32,
    /// The number of the index object.
    pub(super) source: u32,
}

/// Chunks sorted by id.
///
/// A run has all that its index objects say: so it counts for them wherever it is found, and what
/// an index object says goes when the object does.
#[derive(Debug)]
pub(super) struct Run {
    named: Vec<Named>,
    records: Records,
}

#[derive(Debug)]
pub(super) enum Records {
    Memory(Vec<Record>),
    File(RunFile),
}

impl Run {
    /// A run of what an index object says.
    pub(super) fn build(source: u32, packs: &[PackRecord], known: &mut Packs) -> Self {
        let (mut all, mut records) = (Vec::new(), Vec::new());
        for pack in packs {
            let within = all.len() as u32;
            let Some(number) = known.note(pack.id, pack.header, pack.size) else { continue };
            all.push(Named { pack: number, source });
            records.extend(pack.places().filter_map(|place| {
                let prefix = prefix(&place.chunk.id);
                Packed::new(within, &place).map(|place| Record { prefix, place })
            }));
        }
        records.sort_unstable();
        Self { named: all, records: Records::Memory(records) }
    }

    /// The run that a file holds, whose packs are `named`.
    pub(super) fn of_file(file: RunFile, named: Vec<Named>) -> Self {
        Self { named, records: Records::File(file) }
    }

    /// All of some runs in memory, in one; `None` when one is in a file. Dead weight, of index
    /// objects that do not count any more, stays behind.
    pub(super) fn merge(runs: &[&Self], sources: &Sources) -> Option<Self> {
        let mut named = Vec::new();
        let mut records = Vec::with_capacity(runs.iter().map(|run| run.len() as usize).sum());
        for run in runs {
            let Records::Memory(of_run) = &run.records else { return None };
            let moved = run.moved(sources, &mut named);
            records.extend(of_run.iter().filter_map(|record| {
                let within = moved.get(record.place.pack() as usize).copied().flatten()?;
                Some(Record { place: record.place.in_pack(within)?, ..*record })
            }));
        }
        // Sorted stretches: a stable sort finds and merges them.
        records.sort();
        Some(Self { named, records: Records::Memory(records) })
    }

    /// Appends the packs that count to `named`, and tells for each where it is now.
    pub(super) fn moved(&self, sources: &Sources, named: &mut Vec<Named>) -> Vec<Option<u32>> {
        let moved = self.named.iter().map(|pack| {
            sources.counts(pack.source).then(|| {
                named.push(*pack);
                named.len() as u32 - 1
            })
        });
        moved.collect()
    }

    /// How many records there are.
    pub(super) fn len(&self) -> u64 {
        match &self.records {
            Records::Memory(records) => records.len() as u64,
            Records::File(file) => file.len(),
        }
    }

    pub(super) fn named(&self) -> &[Named] {
        &self.named
    }

    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    pub(super) fn file(&self) -> Option<&RunFile> {
        match &self.records {
            Records::Memory(_) => None,
            Records::File(file) => Some(file),
        }
    }

    /// How many packs count, and how many there are.
    pub(super) fn alive(&self, sources: &Sources) -> (usize, usize) {
        let alive = self.named.iter().filter(|named| sources.counts(named.source)).count();
        (alive, self.named.len())
    }

    /// The pack that a record is in.
    pub(super) fn of(&self, place: Packed) -> Option<Named> {
        self.named.get(place.pack() as usize).copied()
    }

    /// Every place of a chunk.
    pub(super) fn find(&self, prefix: &Prefix) -> io::Result<Vec<(Named, Packed)>> {
        let with_pack = |record: &Record| Some((self.of(record.place)?, record.place));
        match &self.records {
            Records::Memory(records) => {
                let first = records.partition_point(|record| record.prefix < *prefix);
                let found = records[first..].iter().take_while(|record| record.prefix == *prefix);
                Ok(found.filter_map(with_pack).collect())
            }
            Records::File(file) => Ok(file.find(prefix)?.iter().filter_map(with_pack).collect()),
        }
    }
}
