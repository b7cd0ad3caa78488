//! What a handle knows of the index.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::record::{Packed, prefix};
use super::run::{Named, Run};
use super::table::{Pack, Packs, Sources};
use crate::id::{ChunkId, ObjectId};
use crate::pack::PackRecord;

#[derive(Debug, Default)]
pub(super) struct State {
    /// What came last: runs in memory, each less than half of the one before.
    pub(super) recent: Vec<Arc<Run>>,
    /// Runs that only a refresh replaces: files of the cache, and what is on its way into one.
    pub(super) settled: Vec<Arc<Run>>,
    pub(super) packs: Packs,
    /// The index objects that were loaded and are still listed. What only others say does not
    /// count.
    pub(super) sources: Sources,
    pub(super) damaged: BTreeMap<ObjectId, String>,
    /// Packs on which nothing new may rely: those that are marked, and those that are lost.
    pub(super) marked: HashSet<ObjectId>,
    pub(super) lost: HashSet<ObjectId>,
}

impl State {
    /// Adds what an index object says, unless it is known.
    ///
    /// The last runs are merged until each is less than half of the one before: so a lookup asks
    /// few runs, and a chunk is moved few times, however many runs come.
    pub(super) fn add(&mut self, id: ObjectId, packs: &[PackRecord]) {
        let Some(source) = self.sources.add(id) else { return };
        let mut run = Run::build(source, packs, &mut self.packs);
        while let Some(before) = self.recent.pop_if(|before| before.len() < 2 * run.len()) {
            match Run::merge(&[&before, &run], &self.sources) {
                Some(merged) => run = merged,
                None => {
                    self.recent.push(before);
                    break;
                }
            }
        }
        if run.len() > 0 {
            self.recent.push(Arc::new(run));
        }
    }

    /// What only index objects say that are not listed any more does not count: they were merged
    /// into others, or their packs were deleted. The result is the runs of which nothing is left.
    pub(super) fn retain(&mut self, listed: &HashSet<ObjectId>) -> Vec<Arc<Run>> {
        if !self.sources.retain(|id| listed.contains(id)) {
            return Vec::new();
        }
        self.damaged.retain(|id, _| listed.contains(id));
        let mut gone = Vec::new();
        for runs in [&mut self.recent, &mut self.settled] {
            for run in std::mem::take(runs) {
                let (alive, all) = run.alive(&self.sources);
                let rest = (alive < all).then(|| Run::merge(&[&run], &self.sources)).flatten();
                match (alive, rest) {
                    (0, _) => gone.push(run),
                    (_, Some(rest)) => runs.push(Arc::new(rest)),
                    // A file keeps its dead weight until it is written anew.
                    (_, None) => runs.push(run),
                }
            }
        }
        gone
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.settled.iter().chain(&self.recent)
    }

    /// Everywhere that a chunk is. A place may come twice, as two index objects name it.
    pub(super) fn find(&self, id: &ChunkId) -> impl Iterator<Item = (u32, Packed)> {
        let prefix = prefix(id);
        let found = self.runs().flat_map(move |run| {
            // A refresh does without the run from now on, and reads the index objects again.
            let failed = |error| tracing::warn!(%error, "the cached index cannot be read");
            run.find(&prefix).map_err(failed).unwrap_or_default()
        });
        let counts = |(named, _): &(Named, _)| self.sources.counts(named.source);
        found.filter(counts).map(|(named, place)| (named.pack, place))
    }

    /// The packs of the index, as each index object names them.
    pub(super) fn named(&self) -> impl Iterator<Item = Named> {
        let named = self.runs().flat_map(|run| run.named()).copied();
        named.filter(|named| self.sources.counts(named.source))
    }

    /// For each number of a pack whether an index object names it.
    pub(super) fn here(&self) -> Vec<bool> {
        let mut here = vec![false; self.packs.len() as usize];
        for named in self.named() {
            if let Some(here) = here.get_mut(named.pack as usize) {
                *here = true;
            }
        }
        here
    }

    /// The packs that index objects name.
    pub(super) fn packs_here(&self) -> impl Iterator<Item = Pack> {
        let here = self.here().into_iter().zip(0..).filter(|(here, _)| *here);
        here.filter_map(|(_, number)| self.packs.get(number))
    }

    pub(super) fn may_rely_on(&self, pack: &ObjectId) -> bool {
        !self.marked.contains(pack) && !self.lost.contains(pack)
    }
}
