//! Which chunk is where.
//!
//! Index objects are hints that save reading every pack: immutable, made of pack records, and
//! rebuilt from the packs when lost. A wrong entry leads to a chunk that does not open, never to
//! wrong bytes.
//!
//! In memory a chunk takes 32 bytes, in a few sorted runs: what comes is merged with what is not
//! much larger.

mod object;
mod run;

pub(crate) use object::IndexObject;
pub(crate) use run::{Location, Pack, Run};

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::{Mutex, RwLock};

use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId};
use crate::objects::{INDEX, Objects, check_name, id_of};
use crate::pack::PackRecord;
use crate::sealed::{SealedKind, open};

/// How many index objects are fetched at once.
const FETCHES: usize = 8;

/// How often a listing is read again because an object of it was replaced meanwhile.
const LISTINGS: usize = 5;

/// The index of a repository.
#[derive(Default)]
pub(crate) struct Index {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    runs: Vec<Run>,
    loaded: HashSet<ObjectId>,
    damaged: Vec<(String, String)>,
    /// Packs get numbers as they are met, so that a write can note cheaply on which it relies.
    numbers: HashMap<ObjectId, u32>,
    /// Packs on which nothing new may rely: those that are marked, and those that are lost.
    marked: HashSet<ObjectId>,
    lost: HashSet<ObjectId>,
}

impl State {
    /// Adds a run, and merges the last ones until each is less than half of the one before: so a
    /// lookup asks few runs, and a chunk is moved few times, however many runs come.
    fn add(&mut self, packs: &[PackRecord]) {
        for pack in packs {
            let number = self.numbers.len() as u32;
            self.numbers.entry(pack.id).or_insert(number);
        }
        let mut run = Run::build(packs, &self.numbers);
        while let Some(before) = self.runs.pop_if(|before| before.len() < 2 * run.len()) {
            run = Run::merge(&before, &run);
        }
        self.runs.push(run);
    }

    fn may_rely_on(&self, pack: &ObjectId) -> bool {
        !self.marked.contains(pack) && !self.lost.contains(pack)
    }
}

/// The packs on which a write relies: the ones that hold what it did not store again.
#[derive(Default)]
pub(crate) struct Reliance(Mutex<Vec<u64>>);

impl Reliance {
    fn note(&self, number: u32) {
        let (word, bit) = (number as usize / 64, number % 64);
        let mut words = self.0.lock();
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= 1 << bit;
    }

    fn forget(&self, number: u32) {
        if let Some(word) = self.0.lock().get_mut(number as usize / 64) {
            *word &= !(1 << (number % 64));
        }
    }

    fn has(&self, number: u32) -> bool {
        let words = self.0.lock();
        words.get(number as usize / 64).is_some_and(|word| word & 1 << (number % 64) != 0)
    }
}

impl Index {
    /// Loads the index objects that are not loaded yet. Damaged ones are remembered and left out.
    /// Where one that was loaded is gone, because it was merged into another or its packs were
    /// deleted, all are loaded anew.
    pub(crate) async fn refresh(&self, objects: &Objects, keys: &Keys) -> Result<()> {
        for _ in 0..LISTINGS {
            let names: Vec<_> = objects
                .list(INDEX)
                .try_filter_map(async |listed| Ok(id_of(&listed.name).map(|id| (id, listed.name))))
                .try_collect()
                .await?;
            if self.load(objects, keys, names, Absent::ListAgain).await? {
                return Ok(());
            }
        }
        let names: Vec<_> = objects
            .list(INDEX)
            .try_filter_map(async |listed| Ok(id_of(&listed.name).map(|id| (id, listed.name))))
            .try_collect()
            .await?;
        self.load(objects, keys, names, Absent::IsDamage).await.map(drop)
    }

    /// Whether all that was listed could be loaded.
    async fn load(
        &self,
        objects: &Objects,
        keys: &Keys,
        names: Vec<(ObjectId, String)>,
        absent: Absent,
    ) -> Result<bool> {
        {
            let mut state = self.state.write();
            let listed: HashSet<_> = names.iter().map(|(id, _)| *id).collect();
            if !state.loaded.is_subset(&listed) {
                state.loaded.clear();
                state.runs.clear();
                state.damaged.clear();
            }
        }
        let missing: Vec<_> = {
            let state = self.state.read();
            names.into_iter().filter(|(id, _)| !state.loaded.contains(id)).collect()
        };
        let fetched: Vec<_> = stream::iter(missing)
            .map(async |(id, name)| (id, fetch(objects, keys, &name).await, name))
            .buffer_unordered(FETCHES)
            .collect()
            .await;
        let mut packs = Vec::new();
        let mut failure = None;
        let mut complete = true;
        let mut state = self.state.write();
        for (id, result, name) in fetched {
            // Somebody else may have loaded it meanwhile.
            let is_new = !state.loaded.contains(&id);
            match result {
                Ok(Some(object)) if is_new => packs.extend(object.packs),
                Ok(None) if absent == Absent::ListAgain => {
                    complete = false;
                    continue;
                }
                Ok(None) if is_new => state.damaged.push((name, "it is missing".into())),
                Err(Error::Damaged { what, .. }) if is_new => state.damaged.push((name, what)),
                Ok(_) | Err(Error::Damaged { .. }) => {}
                // What did come is kept all the same: it counts as loaded.
                Err(error) => {
                    failure.get_or_insert(error);
                    continue;
                }
            }
            state.loaded.insert(id);
        }
        if !packs.is_empty() {
            state.add(&packs);
        }
        failure.map_or(Ok(complete), Err)
    }

    /// Takes note of an index object that was just written.
    pub(crate) fn add(&self, id: ObjectId, packs: &[PackRecord]) {
        let mut state = self.state.write();
        if state.loaded.insert(id) {
            state.add(packs);
        }
    }

    /// Whether a chunk is in a pack that something new may rely on; `reliance` takes note of it.
    pub(crate) fn rely(&self, id: &ChunkId, reliance: &Reliance) -> bool {
        let state = self.state.read();
        let mut places = state.runs.iter().flat_map(|run| run.find(id));
        match places.find(|place| state.may_rely_on(&place.pack.id)) {
            Some(place) => {
                reliance.note(place.pack.number);
                true
            }
            None => false,
        }
    }

    /// Takes note that a write relies on a pack, as on those that it stores itself.
    pub(crate) fn rely_on(&self, pack: &ObjectId, reliance: &Reliance) {
        if let Some(number) = self.state.read().numbers.get(pack) {
            reliance.note(*number);
        }
    }

    /// Takes note that a write does not rely on a pack any more.
    pub(crate) fn rely_no_more(&self, pack: &ObjectId, reliance: &Reliance) {
        if let Some(number) = self.state.read().numbers.get(pack) {
            reliance.forget(*number);
        }
    }

    /// The packs that are marked now, in place of those that were.
    pub(crate) fn mark(&self, packs: HashSet<ObjectId>) {
        self.state.write().marked = packs;
    }

    /// Packs that are not there, or not whole.
    pub(crate) fn lose(&self, packs: impl IntoIterator<Item = ObjectId>) {
        self.state.write().lost.extend(packs);
    }

    /// The packs on which a write relies and may not rely any more: marked, lost, or not in the
    /// index since it was loaded anew.
    pub(crate) fn broken(&self, reliance: &Reliance) -> Vec<ObjectId> {
        let state = self.state.read();
        let here: HashSet<_> = state.runs.iter().flat_map(Run::packs).map(|pack| pack.id).collect();
        let broken = |pack: &&ObjectId| !here.contains(*pack) || !state.may_rely_on(pack);
        let relied = state.numbers.iter().filter(|(_, number)| reliance.has(**number));
        relied.map(|(pack, _)| pack).filter(broken).copied().collect()
    }

    /// Everywhere that a chunk is.
    pub(crate) fn locations(&self, id: &ChunkId) -> Vec<Location> {
        let state = self.state.read();
        state.runs.iter().flat_map(|run| run.find(id)).collect()
    }

    /// The packs that the index knows.
    pub(crate) fn packs(&self) -> HashMap<ObjectId, Arc<Pack>> {
        let state = self.state.read();
        let all = state.runs.iter().flat_map(Run::packs);
        all.map(|pack| (pack.id, Arc::clone(pack))).collect()
    }

    /// The index objects that could not be read, and why.
    pub(crate) fn damaged(&self) -> Vec<(String, String)> {
        self.state.read().damaged.clone()
    }
}

/// What an object that was listed and is not there any more means.
#[derive(Clone, Copy, PartialEq)]
enum Absent {
    /// It was replaced meanwhile: the next listing has what replaced it.
    ListAgain,
    IsDamage,
}

async fn fetch(objects: &Objects, keys: &Keys, name: &str) -> Result<Option<IndexObject>> {
    let Some(bytes) = objects.read(name, SealedKind::Index.limit()).await? else {
        return Ok(None);
    };
    check_name(name, &bytes)?;
    open(keys, SealedKind::Index, name, &bytes).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootKey;
    use crate::id::RepositoryId;
    use crate::pack::{ChunkRecord, Contents, PackHeader};

    #[test]
    fn thousands_of_writes_leave_few_runs() {
        let keys = Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([1; 16]));
        let header = PackHeader::draw(&keys, Contents::Data).unwrap();
        let index = Index::default();
        let name = |number: u32| *blake3::hash(&number.to_le_bytes()).as_bytes();
        let chunk = |number: u32| ChunkRecord {
            id: ChunkId::from_bytes(name(number)),
            stored: 100,
            plain: number,
            encoding: 1,
            kind: 1,
        };
        for number in 0..10_000_u32 {
            let pack = PackRecord {
                id: ObjectId::from_bytes(name(number)),
                header,
                size: 1000,
                chunks: vec![chunk(2 * number), chunk(2 * number + 1)],
            };
            index.add(pack.id, std::slice::from_ref(&pack));
            // The same index object, met again in a listing.
            index.add(pack.id, &[pack]);
        }
        assert!(index.state.read().runs.len() < 20);
        assert_eq!(index.packs().len(), 10_000);
        let (reliance, pack) = (Reliance::default(), ObjectId::from_bytes(name(7)));
        assert!(index.rely(&ChunkId::from_bytes(name(14)), &reliance));
        assert!(index.broken(&reliance).is_empty());
        index.mark(HashSet::from([pack]));
        assert_eq!(index.broken(&reliance), [pack]);
        assert!(!index.rely(&ChunkId::from_bytes(name(14)), &reliance));
        index.mark(HashSet::new());
        for number in 0..20_000 {
            let found = index.locations(&ChunkId::from_bytes(name(number)));
            assert_eq!(found.len(), 1);
            assert_eq!(
                (found[0].plain, found[0].offset),
                (number, 64 + 100 * u64::from(number % 2))
            );
            assert_eq!(*found[0].pack.id.as_bytes(), name(number / 2));
        }
    }
}
