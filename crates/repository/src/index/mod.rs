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
use parking_lot::RwLock;

use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId};
use crate::objects::{INDEX, Objects, id_of};
use crate::pack::PackRecord;
use crate::sealed::{SealedKind, open};

/// How many index objects are fetched at once.
const FETCHES: usize = 8;

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
}

impl State {
    /// Adds a run, and merges the last ones until each is less than half of the one before: so a
    /// lookup asks few runs, and a chunk is moved few times, however many runs come.
    fn add(&mut self, run: Run) {
        let mut run = run;
        while let Some(before) = self.runs.pop_if(|before| before.len() < 2 * run.len()) {
            run = Run::merge(&before, &run);
        }
        self.runs.push(run);
    }
}

impl Index {
    /// Loads the index objects that are not loaded yet. Damaged ones are remembered and left out.
    pub(crate) async fn refresh(&self, objects: &Objects, keys: &Keys) -> Result<()> {
        let names: Vec<_> = objects
            .list(INDEX)
            .try_filter_map(async |listed| Ok(id_of(&listed.name).map(|id| (id, listed.name))))
            .try_collect()
            .await?;
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
        let mut state = self.state.write();
        for (id, result, name) in fetched {
            // Somebody else may have loaded it meanwhile.
            let is_new = !state.loaded.contains(&id);
            match result {
                Ok(object) if is_new => packs.extend(object.packs),
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
            state.add(Run::build(&packs));
        }
        failure.map_or(Ok(()), Err)
    }

    /// Takes note of an index object that was just written.
    pub(crate) fn add(&self, id: ObjectId, packs: &[PackRecord]) {
        let mut state = self.state.write();
        if state.loaded.insert(id) {
            state.add(Run::build(packs));
        }
    }

    /// Whether a chunk is known.
    pub(crate) fn contains(&self, id: &ChunkId) -> bool {
        self.state.read().runs.iter().any(|run| run.find(id).next().is_some())
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

async fn fetch(objects: &Objects, keys: &Keys, name: &str) -> Result<IndexObject> {
    let bytes = objects.read_named(name, SealedKind::Index.limit()).await?;
    open(keys, SealedKind::Index, name, &bytes)
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
