//! What a check says.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_core::SnapshotId;

use crate::journal::JournalReport;

/// How a check is done.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CheckOptions {
    /// How deep it goes.
    pub depth: Depth,
}

impl CheckOptions {
    /// A check that reads every byte.
    pub fn every_byte() -> Self {
        Self { depth: Depth::EveryByte }
    }
}

/// How deep a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Depth {
    /// Everything that describes content is read and opened; of the content, that it is there in
    /// its full size.
    #[default]
    Structure,
    /// The content is read, opened and hashed as well.
    EveryByte,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// How many snapshots there are.
    pub snapshots: u64,
    /// How many objects were looked at.
    pub objects: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// Packs that no index knows: what interrupted backups left.
    pub unreferenced: u64,
    /// What was found of the journals. Their damage is told in `damage`, too.
    pub journals: JournalReport,
    /// The damage, by object.
    pub damage: Vec<Damage>,
}

impl CheckReport {
    /// Whether no damage was found.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// A damaged object, and whom it hurts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// The snapshots that cannot be restored in full.
    pub snapshots: BTreeSet<SnapshotId>,
    /// The paths of entries that cannot be restored; the first hundred of them.
    pub entries: BTreeSet<String>,
}

/// More paths than this help nobody.
const MAX_ENTRIES: usize = 100;

impl Damage {
    pub(super) fn hurts(&mut self, snapshot: SnapshotId, entry: Option<&str>) {
        self.snapshots.insert(snapshot);
        if let Some(entry) = entry.filter(|_| self.entries.len() < MAX_ENTRIES) {
            self.entries.insert(entry.to_owned());
        }
    }
}

/// The damage found so far.
#[derive(Default)]
pub(super) struct Damages(BTreeMap<String, Damage>);

impl Damages {
    /// The damage of an object; `what` counts when it is the first that is said of it.
    pub(super) fn of(&mut self, object: &str, what: &str) -> &mut Damage {
        self.0.entry(object.to_owned()).or_insert_with(|| Damage {
            object: object.to_owned(),
            what: what.to_owned(),
            snapshots: BTreeSet::new(),
            entries: BTreeSet::new(),
        })
    }

    pub(super) fn if_known(&mut self, object: &str, then: impl FnOnce(&mut Damage)) {
        if let Some(damage) = self.0.get_mut(object) {
            then(damage);
        }
    }

    /// The damaged objects of an area.
    pub(super) fn in_area(&self, area: &str) -> Vec<String> {
        let names = self.0.keys().filter(|name| name.starts_with(area));
        names.cloned().collect()
    }

    pub(super) fn finish(self) -> Vec<Damage> {
        self.0.into_values().collect()
    }
}
