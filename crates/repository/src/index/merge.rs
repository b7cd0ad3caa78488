//! Runs side by side, record by record.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;

use super::file::FileCursor;
use super::record::{Prefix, Record};
use super::run::{Named, Records, Run};

/// All records of some runs in the order of ids. Memory does not grow with the runs.
pub(super) struct Merge {
    runs: Vec<(Arc<Run>, Cursor)>,
    heads: BinaryHeap<Reverse<(Record, usize)>>,
}

enum Cursor {
    Memory(usize),
    File(FileCursor),
}

impl Merge {
    pub(super) fn new(runs: Vec<Arc<Run>>) -> io::Result<Self> {
        let begin = |run: Arc<Run>| {
            let cursor = match run.records() {
                Records::Memory(_) => Cursor::Memory(0),
                Records::File(_) => Cursor::File(FileCursor::default()),
            };
            (run, cursor)
        };
        let mut merge =
            Self { runs: runs.into_iter().map(begin).collect(), heads: BinaryHeap::new() };
        for at in 0..merge.runs.len() {
            merge.advance(at)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, at: usize) -> io::Result<()> {
        let (run, cursor) = &mut self.runs[at];
        let next = match (run.records(), cursor) {
            (Records::Memory(records), Cursor::Memory(next)) => {
                *next += 1;
                records.get(*next - 1).copied()
            }
            (Records::File(file), Cursor::File(cursor)) => cursor.next(file)?,
            _ => None,
        };
        self.heads.extend(next.map(|record| Reverse((record, at))));
        Ok(())
    }

    /// The id of the next record.
    pub(super) fn peek(&self) -> Option<Prefix> {
        self.heads.peek().map(|Reverse((record, _))| record.prefix)
    }

    /// The next record, and the number of the run that has it.
    pub(super) fn next(&mut self) -> io::Result<Option<(usize, Record)>> {
        let Some(Reverse((record, at))) = self.heads.pop() else { return Ok(None) };
        self.advance(at)?;
        Ok(Some((at, record)))
    }

    /// The pack that a record of a run is in.
    pub(super) fn of(&self, (at, record): (usize, Record)) -> Option<Named> {
        self.runs[at].0.of(record.place)
    }
}
