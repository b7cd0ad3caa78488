//! All that the index knows, in the order of ids.

use std::io;
use std::sync::Arc;

use super::merge::Merge;
use super::record::{Place, Prefix};
use super::run::Run;
use super::table::Sources;
use crate::error::{Error, Result};

/// A merge of all runs, as they were when it began. Memory does not grow with the index.
///
/// It gives a place once, even where several index objects name it. A chunk that is in several
/// places comes several times, one after the other, ordered by pack and offset. After an error
/// nothing more comes.
pub(crate) struct Scan {
    merge: io::Result<Option<Merge>>,
    sources: Sources,
    /// The places of one chunk, the last one first.
    group: Vec<Place>,
    prefix: Prefix,
}

impl Scan {
    pub(super) fn new(runs: Vec<Arc<Run>>, sources: Sources) -> Self {
        let merge = Merge::new(runs).map(Some);
        Self { merge, sources, group: Vec::new(), prefix: Prefix::default() }
    }

    /// Gathers the places of the next chunk.
    fn gather(&mut self) -> io::Result<()> {
        let merge = match &mut self.merge {
            Ok(Some(merge)) => merge,
            other => return std::mem::replace(other, Ok(None)).map(drop),
        };
        while self.group.is_empty()
            && let Some(prefix) = merge.peek()
        {
            self.prefix = prefix;
            while merge.peek() == Some(prefix)
                && let Some(found) = merge.next()?
            {
                let named = merge.of(found).filter(|named| self.sources.counts(named.source));
                self.group.extend(named.map(|named| found.1.place.found(named.pack)));
            }
            self.group.sort_unstable_by(|a, b| b.cmp(a));
            self.group.dedup();
        }
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<(Prefix, Place)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.group.is_empty()
            && let Err(source) = self.gather()
        {
            (self.merge, self.group) = (Ok(None), Vec::new());
            return Some(Err(Error::Local { doing: "go through the cached index", source }));
        }
        self.group.pop().map(|place| Ok((self.prefix, place)))
    }
}
