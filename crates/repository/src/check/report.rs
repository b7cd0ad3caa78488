//! How a check is done, and what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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

    /// A check that reads a sample of the packs.
    pub fn sample(size: SampleSize) -> Self {
        Self { depth: Depth::Sample(Sample { size, seed: None }) }
    }

    /// A check that reads the packs that were read least recently.
    pub fn rolling(budget: Budget) -> Self {
        Self { depth: Depth::Rolling(budget) }
    }
}

/// How deep a check goes.
///
/// Whatever the depth, everything that describes content is read and opened; of the content, that
/// it is there in its full size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Depth {
    /// Nothing more.
    #[default]
    Structure,
    /// The content is read, opened and hashed as well.
    EveryByte,
    /// The content of some packs is, drawn by chance.
    Sample(Sample),
    /// The content of those packs is that were read least recently, as many as the budget allows.
    /// The repository remembers which.
    Rolling(Budget),
}

impl Depth {
    /// Whether content is read.
    pub(crate) fn reads_packs(self) -> bool {
        self != Self::Structure
    }
}

/// A sample of the packs, drawn so that every byte has the same chance to be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sample {
    /// How large it is: a pack at least.
    pub size: SampleSize,
    /// The same seed draws the same packs from the same repository. Without one, chance decides,
    /// and [`CheckReport::seed`] tells.
    pub seed: Option<u64>,
}

/// How large a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SampleSize {
    /// A part of all: 10 000 are one per cent. 1 to 1 000 000.
    PartsPerMillion(u32),
    /// About so many bytes.
    Bytes(u64),
}

/// What one run of a rolling check may cost. Without a limit, it reads what `within` asks for, and
/// without that as well, everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Budget {
    /// No pack is begun that would exceed so many bytes; the first one is read in any case.
    pub bytes: Option<u64>,
    /// After this time, no pack is begun any more.
    pub duration: Option<Duration>,
    /// All is to be read once in this time. A run that reads too little for it warns.
    pub within: Option<Duration>,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// How many snapshots there are.
    pub snapshots: u64,
    /// How many checkpoints there are: what unfinished backups had stored.
    pub checkpoints: u64,
    /// How many objects were looked at.
    pub objects: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// Packs that no index knows: what interrupted backups left.
    pub unreferenced: u64,
    /// How many packs were read from their first byte to the last.
    pub packs_read: u64,
    /// Bytes of all packs that the index knows; without a key, of all packs.
    pub packs_bytes: u64,
    /// Packs that a sample or a rolling check left out, since they lie in an archive.
    pub archived: u64,
    /// By which a sample was drawn.
    pub seed: Option<u64>,
    /// How far a rolling check has come.
    pub rolling: Option<Rolling>,
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

/// How far a rolling check has come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rolling {
    /// Bytes of packs that this run read.
    pub bytes: u64,
    /// Bytes that it had to read for everything to be read in the time asked for.
    pub share: Option<u64>,
    /// Packs that no run has read yet.
    pub never_read: u64,
    /// In which time everything is read when every run reads as much as this one; `None` when it
    /// read nothing.
    pub full_round: Option<Duration>,
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
    /// The checkpoints that lack something: what unfinished backups had stored. No snapshot is hurt
    /// by that.
    pub checkpoints: BTreeSet<SnapshotId>,
    /// The paths of entries that cannot be restored; the first hundred of them.
    pub entries: BTreeSet<String>,
}

/// What mends a damaged object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Remedy {
    /// Nobody can make it anew: it has to come from a copy of the repository.
    BringBack,
    /// [`Repository::repair_index`](crate::Repository::repair_index).
    RepairIndex,
    /// [`Repository::repair_packs`](crate::Repository::repair_packs).
    RepairPacks,
    /// Nothing depends on it, and it can be deleted.
    Delete,
}

/// More paths than this help nobody.
const MAX_ENTRIES: usize = 100;

impl Damage {
    /// What mends it.
    pub fn remedy(&self) -> Remedy {
        match self.object.split('/').next() {
            Some("packs") => Remedy::RepairPacks,
            Some("index") => Remedy::RepairIndex,
            Some("sessions" | "leases" | "references" | "checks" | "trash" | "checkpoints") => {
                Remedy::Delete
            }
            _ => Remedy::BringBack,
        }
    }

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
            checkpoints: BTreeSet::new(),
            entries: BTreeSet::new(),
        })
    }

    pub(super) fn if_known(&mut self, object: &str, then: impl FnOnce(&mut Damage)) {
        if let Some(damage) = self.0.get_mut(object) {
            then(damage);
        }
    }

    /// Adds what was found elsewhere.
    pub(super) fn add(&mut self, other: Self) {
        for (object, found) in other.0 {
            let known = self.of(&object, &found.what);
            known.snapshots.extend(found.snapshots);
            known.checkpoints.extend(found.checkpoints);
            let room = MAX_ENTRIES.saturating_sub(known.entries.len());
            known.entries.extend(found.entries.into_iter().take(room));
        }
    }

    pub(super) fn knows(&self, object: &str) -> bool {
        self.0.contains_key(object)
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
