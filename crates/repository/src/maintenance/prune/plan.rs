//! What is needed of each pack.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::TryStreamExt;
use lifeboat_core::Timestamp;

use super::{PackCount, PackSet};
use crate::check::{Ledger, Part};
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::index::{Place, Prefix};
use crate::maintenance::runs::SortedIds;
use crate::maintenance::trash::Marks;
use crate::objects::{PACKS, id_of};
use crate::repository::Shared;

/// The packs that the store lists.
pub(super) struct Stored {
    /// By number, those that the index names; `None` where the store has none.
    known: Vec<Option<Listed>>,
    /// Those that the index does not name.
    others: HashMap<ObjectId, Listed>,
}

#[derive(Clone, Copy)]
struct Listed {
    size: u64,
    modified: Timestamp,
}

impl Stored {
    pub(super) async fn list(shared: &Shared) -> Result<Self> {
        let mut stored = Self { known: Vec::new(), others: HashMap::new() };
        stored.known.resize(shared.index.numbers() as usize, None);
        let mut listing = shared.objects.list(PACKS);
        while let Some(object) = listing.try_next().await? {
            let Some(id) = id_of(&object.name) else {
                continue;
            };
            let listed = Listed { size: object.size, modified: object.modified };
            let number = shared.index.number(&id);
            match number.and_then(|number| stored.known.get_mut(number as usize)) {
                Some(known) => *known = Some(listed),
                None => drop(stored.others.insert(id, listed)),
            }
        }
        Ok(stored)
    }
}

/// One pack, as the plan sees it.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    /// Plain bytes of all its chunks.
    all: u64,
    /// Plain bytes of its chunks that are needed, copies elsewhere or not.
    needed: u64,
    /// Plain bytes of the needed chunks that count for this pack.
    counted: u64,
    /// How many those are.
    chunks: u32,
}

/// What is needed of each pack, by the pack's number.
pub(super) struct Plan {
    shared: Arc<Shared>,
    stored: Stored,
    weights: Vec<Weight>,
    marked: Vec<bool>,
    /// Packs that have not their full size, or are damaged as a check found: what another pack has
    /// as well counts for that one.
    doubtful: Vec<bool>,
    marked_others: PackSet,
    /// Packs that count for chunks that marked packs have as well.
    relied_on: HashSet<u32>,
    needed: Arc<SortedIds>,
}

impl Plan {
    pub(super) async fn make(
        shared: &Arc<Shared>,
        stored: Stored,
        needed: SortedIds,
        marks: &Marks,
    ) -> Result<Self> {
        let mut marked = vec![false; stored.known.len()];
        let mut marked_others = PackSet::new();
        for pack in marks.packs() {
            match shared.index.number(&pack).and_then(|number| marked.get_mut(number as usize)) {
                Some(known) => *known = true,
                None => drop(marked_others.insert(pack)),
            }
        }
        let ledger = Ledger::read_or_default(shared, Part::Damaged).await;
        let doubtful = stored.known.iter().enumerate().map(|(number, listed)| {
            let pack = shared.index.pack(number as u32);
            pack.zip(*listed).is_some_and(|(pack, listed)| {
                pack.size != listed.size || ledger.damage_of(&pack.id).is_some()
            })
        });
        let doubtful = doubtful.collect();
        let weights = vec![Weight::default(); stored.known.len()];
        let (shared, needed) = (Arc::clone(shared), Arc::new(needed));
        let relied_on = HashSet::new();
        let mut plan =
            Self { shared, stored, weights, marked, doubtful, marked_others, relied_on, needed };
        let pool = plan.shared.pool.clone();
        let weigh = move || plan.weigh().map(|()| plan);
        pool.run("compare snapshots with packs", weigh).await?
    }

    /// Two walks through index and needed chunks side by side: the first one finds how useful each
    /// pack is, the second one lets each chunk count for the most useful pack that has it.
    fn weigh(&mut self) -> Result<()> {
        let mut weights = std::mem::take(&mut self.weights);
        let needed = Arc::clone(&self.needed);
        join(&self.shared, &needed, |_, places, wanted| {
            for place in places {
                let Some(weight) = weights.get_mut(place.pack as usize) else {
                    continue;
                };
                weight.all += u64::from(place.plain);
                weight.needed += if wanted { u64::from(place.plain) } else { 0 };
            }
            Ok(())
        })?;
        let mut lost = 0_u64;
        let mut relied_on = HashSet::new();
        let result = join(&self.shared, &needed, |_, places, wanted| {
            if wanted {
                match self.counting(&weights, places) {
                    Some(place) => {
                        let weight = &mut weights[place.pack as usize];
                        weight.counted += u64::from(place.plain);
                        weight.chunks += 1;
                        let is_marked = |other: &Place| self.marked[other.pack as usize];
                        if places.iter().any(|other| other.pack != place.pack && is_marked(other)) {
                            relied_on.insert(place.pack);
                        }
                    }
                    None => lost += 1,
                }
            }
            Ok(())
        });
        result?;
        (self.weights, self.relied_on) = (weights, relied_on);
        if lost > 0 {
            let what = format!("{lost} chunks that snapshots need are in no pack");
            return Err(Error::NotKnown { what });
        }
        Ok(())
    }

    /// The place that counts for a chunk: where it need not move, in the most useful pack.
    fn counting(&self, weights: &[Weight], places: &[Place]) -> Option<Place> {
        let usable = places.iter().filter(|place| {
            self.stored.known.get(place.pack as usize).is_some_and(Option::is_some)
        });
        let rank = |place: &&Place| {
            let number = place.pack as usize;
            let sound = !self.doubtful[number];
            (sound, !self.marked[number], weights[number].needed, std::cmp::Reverse(place.pack))
        };
        usable.max_by_key(rank).copied()
    }

    /// All packs.
    pub(super) fn all(&self) -> PackCount {
        let mut all = PackCount::default();
        let listed = self.stored.known.iter().flatten().chain(self.stored.others.values());
        listed.for_each(|listed| all.add(listed.size));
        all
    }

    fn number(&self, pack: &ObjectId) -> Option<usize> {
        let number = self.shared.index.number(pack)? as usize;
        (number < self.weights.len()).then_some(number)
    }

    /// The size of a pack in the store; 0 when it is not there.
    pub(super) fn size(&self, pack: &ObjectId) -> u64 {
        let known = self.number(pack).and_then(|number| self.stored.known[number]);
        known.or_else(|| self.stored.others.get(pack).copied()).map_or(0, |listed| listed.size)
    }

    /// When a pack came, by the store's clock.
    pub(super) fn modified(&self, pack: &ObjectId) -> Option<Timestamp> {
        let known = self.number(pack).and_then(|number| self.stored.known[number]);
        known.or_else(|| self.stored.others.get(pack).copied()).map(|listed| listed.modified)
    }

    /// Whether a snapshot needs the pack.
    pub(super) fn needs(&self, pack: &ObjectId) -> bool {
        self.number(pack).is_some_and(|number| self.weights[number].chunks > 0)
    }

    /// The packs that are there, that nothing needs, and that are not marked; and since when they
    /// are there.
    pub(super) fn unneeded(&self) -> impl Iterator<Item = (ObjectId, Timestamp)> {
        let known = self.numbered().filter(|pack| !pack.marked && pack.weight.chunks == 0);
        let others = self.stored.others.iter();
        let others = others.filter(|(id, _)| !self.marked_others.contains(*id));
        known
            .filter_map(|pack| {
                Some((self.shared.index.pack(pack.number)?.id, pack.listed.modified))
            })
            .chain(others.map(|(id, listed)| (*id, listed.modified)))
    }

    /// The packs that must be there for marked packs to go.
    pub(super) fn relied_on(&self) -> impl Iterator<Item = ObjectId> {
        let packs = self.relied_on.iter().filter_map(|number| self.shared.index.pack(*number));
        packs.map(|pack| pack.id)
    }

    /// The packs that the index names, that are not listed, and that nothing needs: who wrote the
    /// index was taken for dead, or a sweep did not come to its end.
    pub(super) fn vanished(&self) -> impl Iterator<Item = ObjectId> {
        let all = self.weights.iter().zip(&self.stored.known).enumerate();
        let gone = all.filter(|(_, (weight, stored))| stored.is_none() && weight.all > 0);
        gone.filter_map(|(number, _)| Some(self.shared.index.pack(number as u32)?.id))
    }

    fn numbered(&self) -> impl Iterator<Item = Numbered> {
        let all = self.weights.iter().zip(&self.stored.known).zip(&self.marked);
        all.enumerate().filter_map(|(number, ((weight, listed), marked))| {
            let (listed, number) = ((*listed)?, number as u32);
            Some(Numbered { number, weight: *weight, listed, marked: *marked })
        })
    }

    /// The packs that are needed in part and are not marked.
    pub(super) fn partly_needed(&self) -> Vec<Partly> {
        let packs = self.numbered().filter(|pack| !pack.marked && pack.weight.chunks > 0);
        let partly = packs.filter_map(|pack| {
            let known = self.shared.index.pack(pack.number)?;
            let (all, counted) = (pack.weight.all.max(1), pack.weight.counted);
            let size = pack.listed.size;
            let waste =
                (u128::from(size) * u128::from(all - counted.min(all)) / u128::from(all)) as u64;
            let (number, chunks) = (pack.number, pack.weight.chunks);
            let (epoch, modified) = (known.header.epoch, pack.listed.modified);
            Some(Partly { id: known.id, number, size, waste, chunks, epoch, modified })
        });
        partly.collect()
    }

    /// The needed chunks that count for these packs.
    pub(super) async fn chunks_of(&self, packs: Vec<u32>) -> Result<HashMap<u32, Vec<Prefix>>> {
        let (shared, needed) = (Arc::clone(&self.shared), Arc::clone(&self.needed));
        let weights = self.weights.clone();
        let (marked, doubtful) = (self.marked.clone(), self.doubtful.clone());
        let there: Vec<_> = self.stored.known.iter().map(Option::is_some).collect();
        let find = move || {
            let mut chunks: HashMap<u32, Vec<Prefix>> =
                packs.into_iter().map(|pack| (pack, Vec::new())).collect();
            join(&shared, &needed, |prefix, places, wanted| {
                if !wanted || !places.iter().any(|place| chunks.contains_key(&place.pack)) {
                    return Ok(());
                }
                // The index may have grown since the packs were listed.
                let is_there = |pack: u32| there.get(pack as usize).is_some_and(|there| *there);
                let usable = places.iter().filter(|place| is_there(place.pack));
                let rank = |place: &&Place| {
                    let number = place.pack as usize;
                    let (sound, stays) = (!doubtful[number], !marked[number]);
                    (sound, stays, weights[number].needed, std::cmp::Reverse(place.pack))
                };
                let counting = usable.max_by_key(rank).map(|place| place.pack);
                if let Some(found) = counting.and_then(|pack| chunks.get_mut(&pack)) {
                    found.push(prefix);
                }
                Ok(())
            })?;
            Ok(chunks)
        };
        self.shared.pool.run("find what is needed of packs", find).await?
    }
}

struct Numbered {
    number: u32,
    weight: Weight,
    listed: Listed,
    marked: bool,
}

/// A pack of which not all is needed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Partly {
    pub(super) id: ObjectId,
    pub(super) number: u32,
    pub(super) size: u64,
    /// About how many of its bytes are not needed.
    pub(super) waste: u64,
    /// How many of its chunks are needed.
    pub(super) chunks: u32,
    pub(super) epoch: u32,
    pub(super) modified: Timestamp,
}

/// Goes through the index and what is needed side by side, chunk by chunk: all places of each, and
/// whether it is needed. A chunk that is needed and has no place comes with none.
fn join(
    shared: &Shared,
    needed: &SortedIds,
    mut each: impl FnMut(Prefix, &[Place], bool) -> Result<()>,
) -> Result<()> {
    let mut needed = needed.iter()?;
    let mut want = needed.next()?;
    let mut places: Vec<Place> = Vec::new();
    let mut scan = shared.index.scan().peekable();
    loop {
        let first = match scan.next() {
            Some(found) => Some(found?),
            None => None,
        };
        let here = first.map(|(prefix, _)| prefix);
        while let Some(wanted) = want
            && here.is_none_or(|here| wanted < here)
        {
            each(wanted, &[], true)?;
            want = needed.next()?;
        }
        let Some((prefix, place)) = first else {
            return Ok(());
        };
        places.clear();
        places.push(place);
        while let Some(Ok((next, place))) = scan.peek()
            && *next == prefix
        {
            places.push(*place);
            scan.next();
        }
        let wanted = want == Some(prefix);
        each(prefix, &places, wanted)?;
        if wanted {
            want = needed.next()?;
        }
    }
}
