//! Bringing the index up to date: from the cache what is there, the rest from the repository.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::cache::{CacheDirectory, remove};
use super::file::RunFile;
use super::run::{Named, Run};
use super::state::State;
use super::{Index, IndexObject};
use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::objects::{INDEX, Objects, id_of};

/// How many index objects are fetched at once.
const FETCHES: usize = 8;
/// How often a listing is read again because an object of it was replaced meanwhile.
const LISTINGS: usize = 5;
/// So many new records are worth a file: 2 MiB of them.
const WORTH_A_FILE: u64 = 64 << 10;
/// While the index is loaded, so many records are held in memory: 64 MiB of them.
const MOST_IN_MEMORY: u64 = 2 << 20;

/// What an object that was listed and is not there any more means.
#[derive(Clone, Copy, PartialEq)]
enum Absent {
    /// It was replaced meanwhile: the next listing has what replaced it.
    ListAgain,
    IsDamage,
}

impl Index {
    /// Loads the index objects that are not loaded yet, and forgets those that are not listed any
    /// more. Damaged ones are remembered and left out.
    pub(crate) async fn refresh(&self, objects: &Objects, keys: &Keys) -> Result<()> {
        let mut cache = self.loading.lock().await;
        for _ in 0..LISTINGS {
            if self.load(objects, keys, &mut cache, Absent::ListAgain).await? {
                return Ok(());
            }
        }
        self.load(objects, keys, &mut cache, Absent::IsDamage).await.map(drop)
    }

    /// Whether all that was listed could be loaded.
    async fn load(
        &self,
        objects: &Objects,
        keys: &Keys,
        cache: &mut Loading,
        absent: Absent,
    ) -> Result<bool> {
        let listed = objects.list(INDEX).try_filter_map(async |listed| Ok(id_of(&listed.name)));
        let listed: HashSet<_> = listed.try_collect().await?;
        self.open_cache(cache, &listed).await?;
        let (missing, gone): (Vec<_>, _) = {
            let mut state = self.state.write();
            drop_failed(&mut state);
            let gone = state.retain(&listed);
            (listed.into_iter().filter(|id| !state.sources.has(id)).collect(), gone)
        };
        for file in gone.iter().filter_map(|run| run.file()) {
            remove(file.path());
        }
        let mut fetched = stream::iter(missing)
            .map(async |id| (id, IndexObject::read(objects, keys, id).await))
            .buffer_unordered(FETCHES);
        let mut complete = true;
        let mut failure = None;
        while let Some((id, result)) = fetched.next().await {
            let (packs, damage) = match result {
                Ok(Some(object)) => (object.packs, None),
                Ok(None) if absent == Absent::ListAgain => {
                    complete = false;
                    continue;
                }
                Ok(None) => (Vec::new(), Some("it is missing".to_owned())),
                Err(Error::Damaged { what, .. }) => (Vec::new(), Some(what)),
                // What does come is kept all the same: it counts as loaded.
                Err(error) => {
                    failure.get_or_insert(error);
                    continue;
                }
            };
            let in_memory = {
                let mut state = self.state.write();
                state.add(id, &packs);
                state.damaged.extend(damage.map(|what| (id, what)));
                state.recent.iter().map(|run| run.len()).sum::<u64>()
            };
            drop(packs);
            if in_memory >= MOST_IN_MEMORY {
                self.settle(cache, MOST_IN_MEMORY).await?;
            }
        }
        self.settle(cache, WORTH_A_FILE).await?;
        failure.map_or(Ok(complete), Err)
    }

    /// Takes over what the cache has of the index objects that are listed.
    async fn open_cache(&self, cache: &mut Loading, listed: &HashSet<ObjectId>) -> Result<()> {
        let Loading::Closed(directory) = cache else { return Ok(()) };
        let directory = Arc::clone(directory);
        let open = {
            let directory = Arc::clone(&directory);
            move || directory.open()
        };
        let files = blocking("open the cached index", open).await?;
        *cache = Loading::Open(directory);
        let mut state = self.state.write();
        for file in files {
            match take_over(&mut state, file, listed) {
                Ok(Some(run)) => state.settled.push(Arc::new(run)),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the cached index cannot be read"),
            }
        }
        Ok(())
    }

    /// Moves what is in memory into a file of the cache, once there are `least` records, and with
    /// it the files that are not much larger: so there are few, and each record is written a
    /// number of times that grows with the logarithm of the index only.
    async fn settle(&self, cache: &mut Loading, least: u64) -> Result<()> {
        let Loading::Open(directory) = cache else { return Ok(()) };
        let (inputs, sources) = {
            let mut state = self.state.write();
            let Some(inputs) = choose(&mut state, least) else { return Ok(()) };
            (inputs, state.sources.clone())
        };
        let (directory, state) = (Arc::clone(directory), Arc::clone(&self.state));
        let from = inputs.clone();
        let write = move || directory.write(&from, &sources, |pack| state.read().packs.get(pack));
        match blocking("write the cached index", write).await? {
            Ok(run) => {
                let run = Arc::new(run);
                let mut state = self.state.write();
                state.settled.retain(|run| !inputs.iter().any(|input| Arc::ptr_eq(input, run)));
                state.settled.push(Arc::clone(&run));
                drop(state);
                // The same content has the same name.
                let kept = run.file().map(RunFile::path);
                let old = inputs.iter().filter_map(|run| run.file()).map(RunFile::path);
                old.filter(|path| Some(*path) != kept).for_each(remove);
            }
            Err(error) => {
                tracing::warn!(%error, "the index is not cached from now on");
                *cache = Loading::InMemory;
            }
        }
        Ok(())
    }
}

/// What a refresh, of which one runs at a time, knows of the cache.
#[derive(Debug, Default)]
pub(super) enum Loading {
    /// There is none, or it could not be written.
    #[default]
    InMemory,
    Closed(Arc<CacheDirectory>),
    Open(Arc<CacheDirectory>),
}

/// Takes a file of the cache into use. `None` when other runs have all of it that counts.
pub(super) fn take_over(
    state: &mut State,
    file: RunFile,
    listed: &HashSet<ObjectId>,
) -> io::Result<Option<Run>> {
    let ids = file.sources()?;
    if !ids.iter().any(|id| listed.contains(id) && !state.sources.has(id)) {
        remove(file.path());
        return Ok(None);
    }
    let numbers: Vec<_> = ids.iter().map(|id| state.sources.note(*id)).collect();
    let mut named = Vec::new();
    file.packs(|row| {
        let at = row.source as usize;
        let source = ids.get(at).filter(|id| listed.contains(*id)).and(numbers.get(at));
        let counts = source.and_then(|source| {
            let pack = state.packs.note(row.id, row.header, row.size.into())?;
            Some(Named { pack, source: *source })
        });
        // What does not count stays dead, should its index object ever be listed again.
        named.push(counts.unwrap_or(Named { pack: u32::MAX, source: u32::MAX }));
    })?;
    // Only now, when all of it could be read.
    for id in ids.into_iter().filter(|id| listed.contains(id)) {
        state.sources.add(id);
    }
    Ok(Some(Run::of_file(file, named)))
}

/// Forgets runs whose files could not be read; their index objects are loaded again.
fn drop_failed(state: &mut State) {
    let failed = |run: &Arc<Run>| run.file().is_some_and(RunFile::has_failed);
    let (dropped, kept): (Vec<_>, _) =
        std::mem::take(&mut state.settled).into_iter().partition(failed);
    state.settled = kept;
    for run in &dropped {
        run.named().iter().for_each(|named| state.sources.forget(named.source));
        run.file().map(RunFile::path).into_iter().for_each(remove);
    }
}

/// The runs to write into one file, which stay in use meanwhile. `None` when it is not worth it.
fn choose(state: &mut State, least: u64) -> Option<Vec<Arc<Run>>> {
    let in_memory = |run: &Arc<Run>| run.file().is_none();
    let waiting = state.settled.iter().filter(|run| in_memory(run));
    let fresh: u64 = waiting.chain(&state.recent).map(|run| run.len()).sum();
    let mostly_dead = |run: &Arc<Run>| {
        let (alive, all) = run.alive(&state.sources);
        2 * alive < all
    };
    if fresh < least && !state.settled.iter().any(mostly_dead) {
        return None;
    }
    let (mut chosen, mut files): (Vec<_>, Vec<_>) =
        state.settled.iter().cloned().partition(|run| in_memory(run) || mostly_dead(run));
    let mut records = fresh + chosen.iter().map(|run| run.len()).sum::<u64>();
    chosen.extend(state.recent.iter().cloned());
    files.sort_by_key(|run| run.len());
    for run in files {
        if run.len() >= 2 * records {
            break;
        }
        records += run.len();
        chosen.push(run);
    }
    // From here on only this refresh replaces them.
    state.settled.append(&mut state.recent);
    Some(chosen)
}

/// Runs what waits for this host's disk.
async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Worker { doing })
}
