//! The packs and the index objects that a handle has met, by numbers.
//!
//! Both get numbers as they are met and keep them as long as the handle lives, so that a record,
//! a run or a write needs four bytes to name one.

use indexmap::IndexMap;

use crate::id::ObjectId;
use crate::pack::PackHeader;

/// A pack, without its chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pack {
    pub(crate) id: ObjectId,
    pub(crate) header: PackHeader,
    pub(crate) size: u64,
    /// By which this handle knows it.
    pub(crate) number: u32,
}

/// All packs that were ever met; about 120 bytes each.
#[derive(Debug, Default)]
pub(super) struct Packs(IndexMap<ObjectId, (PackHeader, u32)>);

impl Packs {
    /// The number of a pack. `None` when it is larger than packs can be.
    pub(super) fn note(&mut self, id: ObjectId, header: PackHeader, size: u64) -> Option<u32> {
        let size = u32::try_from(size).ok()?;
        let entry = self.0.entry(id);
        let number = u32::try_from(entry.index()).ok()?;
        entry.or_insert((header, size));
        Some(number)
    }

    pub(super) fn number(&self, id: &ObjectId) -> Option<u32> {
        self.0.get_index_of(id).map(|number| number as u32)
    }

    pub(super) fn get(&self, number: u32) -> Option<Pack> {
        let (id, (header, size)) = self.0.get_index(number as usize)?;
        Some(Pack { id: *id, header: *header, size: (*size).into(), number })
    }

    /// All numbers are below.
    pub(super) fn len(&self) -> u32 {
        self.0.len() as u32
    }
}

/// All index objects that were ever met, and which of them count.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources(IndexMap<ObjectId, bool>);

impl Sources {
    /// The number of an index object. It does not count yet, when it is new.
    pub(super) fn note(&mut self, id: ObjectId) -> u32 {
        let entry = self.0.entry(id);
        let number = entry.index() as u32;
        entry.or_insert(false);
        number
    }

    /// Counts an index object. `None` when it counted before.
    pub(super) fn add(&mut self, id: ObjectId) -> Option<u32> {
        let entry = self.0.entry(id);
        let number = entry.index() as u32;
        let counts = entry.or_insert(false);
        (!std::mem::replace(counts, true)).then_some(number)
    }

    /// Only those for which `listed` holds go on counting. The result is whether any does not.
    pub(super) fn retain(&mut self, listed: impl Fn(&ObjectId) -> bool) -> bool {
        let mut any = false;
        for (id, counts) in self.0.iter_mut().filter(|(_, counts)| **counts) {
            *counts = listed(id);
            any |= !*counts;
        }
        any
    }

    /// The index object does not count any more.
    pub(super) fn forget(&mut self, number: u32) {
        if let Some((_, counts)) = self.0.get_index_mut(number as usize) {
            *counts = false;
        }
    }

    pub(super) fn has(&self, id: &ObjectId) -> bool {
        self.0.get(id).is_some_and(|counts| *counts)
    }

    pub(super) fn counts(&self, number: u32) -> bool {
        self.0.get_index(number as usize).is_some_and(|(_, counts)| *counts)
    }

    pub(super) fn number(&self, id: &ObjectId) -> Option<u32> {
        self.0.get_index_of(id).map(|number| number as u32)
    }

    pub(super) fn get(&self, number: u32) -> Option<ObjectId> {
        self.0.get_index(number as usize).map(|(id, _)| *id)
    }
}
