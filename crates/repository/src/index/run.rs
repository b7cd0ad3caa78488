//! A sorted run of the index in memory.

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
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    named: Vec<Named>,
    records: Vec<Record>,
}

impl Run {
    /// A run of what an index object says.
    pub(super) fn build(source: u32, packs: &[PackRecord], known: &mut Packs) -> Self {
        let mut run = Self::default();
        for pack in packs {
            let within = run.named.len() as u32;
            let Some(number) = known.note(pack.id, pack.header, pack.size) else { continue };
            run.named.push(Named { pack: number, source });
            run.records.extend(pack.places().filter_map(|place| {
                let prefix = prefix(&place.chunk.id);
                Packed::new(within, &place).map(|place| Record { prefix, place })
            }));
        }
        run.records.sort_unstable();
        run
    }

    /// All of two runs.
    pub(super) fn merge(mut self, mut other: Self) -> Self {
        let shift = self.named.len() as u32;
        self.named.append(&mut other.named);
        self.records.reserve_exact(other.records.len());
        self.records.extend(other.records.iter().filter_map(|record| {
            let place = record.place.in_pack(record.place.pack() + shift)?;
            Some(Record { place, ..*record })
        }));
        // Two sorted stretches: a stable sort finds and merges them.
        self.records.sort();
        self
    }

    /// Leaves out what only index objects say that do not count.
    pub(super) fn retain(&mut self, sources: &Sources) {
        if self.named.iter().all(|named| sources.counts(named.source)) {
            return;
        }
        let mut kept = Vec::new();
        let moved = self.named.iter().map(|named| {
            sources.counts(named.source).then(|| {
                kept.push(*named);
                kept.len() as u32 - 1
            })
        });
        let moved: Vec<_> = moved.collect();
        self.named = kept;
        self.records.retain_mut(|record| {
            let within = moved.get(record.place.pack() as usize).copied().flatten();
            let place = within.and_then(|within| record.place.in_pack(within));
            place.map(|place| record.place = place).is_some()
        });
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn named(&self) -> &[Named] {
        &self.named
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// Every place of a chunk.
    pub(super) fn find(&self, prefix: &Prefix) -> impl Iterator<Item = (Named, Packed)> {
        let first = self.records.partition_point(|record| record.prefix < *prefix);
        let found = self.records[first..].iter().take_while(move |record| record.prefix == *prefix);
        found.map(|record| (self.named[record.place.pack() as usize], record.place))
    }
}
