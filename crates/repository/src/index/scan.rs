//! All that the index knows, in the order of ids.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::record::{Place, Prefix, Record};
use super::run::Run;
use super::table::Sources;
use crate::error::Result;

/// A merge of all runs, as they were when it began. Memory does not grow with the index.
///
/// It gives a place once, even where several index objects name it. A chunk that is in several
/// places comes several times, one after the other, ordered by pack and offset.
pub(crate) struct Scan {
    runs: Vec<Cursor>,
    sources: Sources,
    heads: BinaryHeap<Reverse<(Prefix, usize)>>,
    /// The places of one chunk, the last one first.
    group: Vec<Place>,
    prefix: Prefix,
}

struct Cursor {
    run: Arc<Run>,
    next: usize,
}

impl Cursor {
    fn peek(&self) -> Option<&Record> {
        self.run.records().get(self.next)
    }
}

impl Scan {
    pub(super) fn new(runs: Vec<Arc<Run>>, sources: Sources) -> Self {
        let runs: Vec<_> = runs.into_iter().map(|run| Cursor { run, next: 0 }).collect();
        let heads = runs.iter().enumerate();
        let heads = heads.filter_map(|(at, run)| Some(Reverse((run.peek()?.prefix, at))));
        let heads = heads.collect();
        Self { runs, sources, heads, group: Vec::new(), prefix: Prefix::default() }
    }

    /// Gathers the places of the next chunk.
    fn gather(&mut self) -> Option<()> {
        while self.group.is_empty() {
            let Reverse((prefix, _)) = *self.heads.peek()?;
            self.prefix = prefix;
            while let Some(Reverse((next, at))) = self.heads.peek().copied() {
                if next != prefix {
                    break;
                }
                self.heads.pop();
                let cursor = &mut self.runs[at];
                while let Some(record) = cursor.peek().filter(|record| record.prefix == prefix) {
                    let named = cursor.run.named()[record.place.pack() as usize];
                    if self.sources.counts(named.source) {
                        self.group.push(record.place.found(named.pack));
                    }
                    cursor.next += 1;
                }
                self.heads.extend(cursor.peek().map(|record| Reverse((record.prefix, at))));
            }
            self.group.sort_unstable_by(|a, b| b.cmp(a));
            self.group.dedup();
        }
        Some(())
    }
}

impl Iterator for Scan {
    type Item = Result<(Prefix, Place)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.gather()?;
        self.group.pop().map(|place| Ok((self.prefix, place)))
    }
}
