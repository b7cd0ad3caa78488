//! What is left of damaged packs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures_util::TryStreamExt;
use lifeboat_core::Context;

use super::{RepairMode, Right};
use crate::check::{Ledger, Part};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId};
use crate::index::IndexObject;
use crate::maintenance::Marks;
use crate::objects::{INDEX, PACKS, id_of, name_in, pack_name};
use crate::pack::{PackRecord, Unit};
use crate::read::{pick, read_unit};
use crate::repository::{Compression, Repository, Shared};
use crate::write::ChunkWriter;

/// What a repair of packs did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PacksRepair {
    /// The packs that are missing or damaged, by name.
    pub packs: Vec<PackRepair>,
}

impl PacksRepair {
    /// Whether there was nothing to do.
    pub fn is_idle(&self) -> bool {
        self.packs.is_empty()
    }

    /// How many chunks are in no sound pack any more.
    pub fn lost(&self) -> u64 {
        self.packs.iter().map(|pack| pack.lost).sum()
    }
}

/// One damaged pack.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackRepair {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// Chunks that other packs have as well.
    pub elsewhere: u64,
    /// Chunks that still open, and are stored again.
    pub saved: u64,
    /// Chunks that nothing has any more.
    pub lost: u64,
}

pub(super) async fn repair(
    repository: &Repository,
    mode: RepairMode,
    right: &Right,
    context: &Context,
) -> Result<PacksRepair> {
    let shared = repository.shared();
    context.phase("look for packs that are missing or damaged");
    shared.refresh_index().await?;
    let harmed = harmed(shared).await?;
    if harmed.is_empty() {
        return Ok(PacksRepair::default());
    }
    let level = Compression::default().level();
    let writer = match mode {
        RepairMode::DryRun => None,
        RepairMode::Apply => {
            let (shared, context) = (Arc::clone(shared), context.clone());
            Some(ChunkWriter::begin(shared, context, level, "a repair of packs").await?)
        }
    };
    shared.index.lose(harmed.keys().copied());

    context.phase("store again what still opens");
    let mut report = PacksRepair::default();
    let mut salvage =
        Salvage { shared, writer: writer.as_ref(), done: HashMap::new(), again: HashSet::new() };
    let naming = shared.index.sources(&harmed.keys().copied().collect());
    for id in &naming {
        let Some(object) = read_index(shared, *id).await? else { continue };
        for record in object.packs.iter().filter(|pack| harmed.contains_key(&pack.id)) {
            salvage.pack(record, &harmed[&record.id], context).await?;
        }
    }
    let done = salvage.done;
    report.packs = harmed
        .iter()
        .filter_map(|(id, harm)| {
            let counts = done.get(id)?;
            Some(PackRepair {
                object: pack_name(*id),
                what: harm.what.clone(),
                elsewhere: counts.elsewhere,
                saved: counts.saved,
                lost: counts.lost,
            })
        })
        .collect();
    if let Some(writer) = writer {
        // What was saved is durable first, and the marks keep the packs out of a later index.
        writer.settle().await?;
        writer.confirm().await?;
        context.phase("take the damaged packs out of the index");
        right.check().await?;
        let here = harmed.iter().filter(|(_, harm)| harm.size.is_some()).map(|(id, _)| *id);
        Marks::add(&shared.objects, &shared.keys, &here.collect::<Vec<_>>()).await?;
        for id in naming {
            right.check().await?;
            forget(shared, id, &harmed).await?;
        }
        shared.refresh_index().await?;
    }
    Ok(report)
}

/// A pack that the index names and nobody may rely on.
struct Harm {
    what: String,
    /// The size of the object; `None` when it is missing.
    size: Option<u64>,
}

/// The packs of the index that are missing, of a wrong size, or damaged as checks found.
async fn harmed(shared: &Shared) -> Result<BTreeMap<ObjectId, Harm>> {
    let known = shared.index.packs();
    let ledger = Ledger::read_or_default(shared, Part::Damaged).await;
    let mut missing: HashMap<_, _> = known.clone();
    let mut harmed = BTreeMap::new();
    let mut listing = shared.objects.list(PACKS);
    while let Some(listed) = listing.try_next().await? {
        let Some((id, pack)) = id_of(&listed.name).and_then(|id| Some((id, missing.remove(&id)?)))
        else {
            continue;
        };
        let what = match ledger.damage_of(&id) {
            _ if pack.size != listed.size => {
                Some(format!("it has {} bytes instead of {}", listed.size, pack.size))
            }
            found => found.map(ToOwned::to_owned),
        };
        if let Some(what) = what {
            harmed.insert(id, Harm { what, size: Some(listed.size) });
        }
    }
    for id in missing.into_keys() {
        // Nothing is taken out of the index because a listing lacks it.
        if shared.objects.head(&pack_name(id)).await?.is_none() {
            harmed.insert(id, Harm { what: "it is missing".into(), size: None });
        }
    }
    Ok(harmed)
}

/// Reads an index object; one that is gone or damaged names nothing.
async fn read_index(shared: &Shared, id: ObjectId) -> Result<Option<IndexObject>> {
    match IndexObject::read(&shared.objects, &shared.keys, id).await {
        Err(Error::Damaged { .. }) => Ok(None),
        read => read,
    }
}

/// Replaces an index object by one that does not name the harmed packs.
async fn forget(shared: &Shared, id: ObjectId, harmed: &BTreeMap<ObjectId, Harm>) -> Result<()> {
    let Some(mut object) = read_index(shared, id).await? else {
        return Ok(());
    };
    object.packs.retain(|pack| !harmed.contains_key(&pack.id));
    if !object.packs.is_empty() {
        object.write(&shared.objects, &shared.keys).await?;
    }
    shared.objects.delete(&name_in(INDEX, id)).await
}

#[derive(Default)]
struct Counts {
    elsewhere: u64,
    saved: u64,
    lost: u64,
}

/// Goes through the chunks of harmed packs.
struct Salvage<'a> {
    shared: &'a Arc<Shared>,
    writer: Option<&'a Arc<ChunkWriter>>,
    done: HashMap<ObjectId, Counts>,
    /// Without a writer: the chunks that would be stored again.
    again: HashSet<ChunkId>,
}

impl Salvage<'_> {
    async fn pack(&mut self, record: &PackRecord, harm: &Harm, context: &Context) -> Result<()> {
        if self.done.contains_key(&record.id) {
            return Ok(());
        }
        let mut counts = Counts::default();
        for unit in record.units() {
            self.unit(record, &unit, harm, &mut counts, context).await?;
        }
        self.done.insert(record.id, counts);
        Ok(())
    }

    /// Saves what opens of what was sealed in one piece.
    async fn unit(
        &mut self,
        record: &PackRecord,
        unit: &Unit<'_>,
        harm: &Harm,
        counts: &mut Counts,
        context: &Context,
    ) -> Result<()> {
        context.check()?;
        let had = |id: &ChunkId| match self.writer {
            Some(writer) => writer.has(id),
            None => self.again.contains(id) || self.shared.index.has(id),
        };
        let (wanted, had): (Vec<_>, Vec<_>) =
            unit.places().partition(|place| !had(&place.chunk.id));
        counts.elsewhere += had.len() as u64;
        if wanted.is_empty() {
            return Ok(());
        }
        let end = unit.offset + u64::from(unit.stored);
        let opened = match harm.size.is_some_and(|size| end <= size) {
            true => match read_unit(self.shared, record, unit).await {
                Err(error) if !error.is_damage() => return Err(error),
                opened => opened.ok(),
            },
            false => None,
        };
        for place in wanted {
            let chunk = place.chunk;
            let whole = opened.as_ref().zip(chunk.kind()).and_then(|(opened, kind)| {
                let picked = pick(&self.shared.keys, &pack_name(record.id), &place, opened);
                Some((kind, picked.ok()?))
            });
            let Some((kind, plain)) = whole else {
                counts.lost += 1;
                continue;
            };
            counts.saved += 1;
            context.count_read(plain.len() as u64);
            match self.writer {
                Some(writer) => writer.store_again(kind, chunk.id, plain).await?,
                None => drop(self.again.insert(chunk.id)),
            }
        }
        Ok(())
    }
}
