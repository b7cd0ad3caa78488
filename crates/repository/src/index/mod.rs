//! Which chunk is where.
//!
//! Index objects are hints that save reading every pack: immutable, made of pack records, and
//! rebuilt from the packs when lost. A wrong entry leads to a chunk that does not open, never to
//! wrong bytes.
//!
//! In memory a chunk takes 32 bytes, in sorted runs: one run of all that was loaded, and one for
//! each index object that came since.

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
    runs: Vec<Arc<Run>>,
    loaded: HashSet<ObjectId>,
    damaged: Vec<(String, String)>,
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
        let mut state = self.state.write();
        for (id, result, name) in fetched {
            match result {
                Ok(object) => packs.extend(object.packs),
                Err(Error::Damaged { what, .. }) => state.damaged.push((name, what)),
                Err(error) => return Err(error),
            }
            state.loaded.insert(id);
        }
        if !packs.is_empty() {
            state.runs.push(Arc::new(Run::build(&packs)));
        }
        Ok(())
    }

    /// Takes note of an index object that was just written.
    pub(crate) fn add(&self, id: ObjectId, packs: &[PackRecord]) {
        let mut state = self.state.write();
        state.loaded.insert(id);
        state.runs.push(Arc::new(Run::build(packs)));
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
        let all = state.runs.iter().flat_map(|run| run.packs());
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
