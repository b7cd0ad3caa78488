//! Sorting more ids than memory holds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use crate::error::{Error, Result};
use crate::index::Prefix;
use crate::pool::Pool;

/// So many ids are sorted in memory: 32 MiB of them.
const IN_MEMORY: usize = 2 << 20;
const DOING: &str = "sort the names of chunks in a temporary file";

/// Takes ids in any order, as often as they come, and gives each once, in order.
///
/// What does not fit into memory lies in sorted runs in files without a name, which go with this
/// value whatever happens.
pub(crate) struct IdSorter {
    pool: Pool,
    limit: usize,
    ids: Vec<Prefix>,
    runs: Vec<File>,
}

impl IdSorter {
    pub(crate) fn new(pool: &Pool) -> Self {
        Self { pool: pool.clone(), limit: IN_MEMORY, ids: Vec::new(), runs: Vec::new() }
    }

    /// Takes ids.
    pub(crate) async fn extend(&mut self, ids: impl IntoIterator<Item = Prefix>) -> Result<()> {
        self.ids.extend(ids);
        if self.ids.len() < self.limit {
            return Ok(());
        }
        let ids = std::mem::take(&mut self.ids);
        let run = self.pool.run(DOING, move || spill(ids)).await??;
        self.runs.push(run);
        Ok(())
    }

    /// The ids in order, each once.
    pub(crate) async fn finish(mut self) -> Result<SortedIds> {
        let ids = std::mem::take(&mut self.ids);
        let runs = std::mem::take(&mut self.runs);
        let merge = move || {
            let ids = sorted(ids);
            if runs.is_empty() { Ok(SortedIds::Memory(ids)) } else { merge(runs, ids) }
        };
        self.pool.run(DOING, merge).await?
    }
}

fn sorted(mut ids: Vec<Prefix>) -> Vec<Prefix> {
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn spill(ids: Vec<Prefix>) -> Result<File> {
    write(|put| sorted(ids).into_iter().try_for_each(put))
}

/// Merges sorted runs into one.
fn merge(runs: Vec<File>, last: Vec<Prefix>) -> Result<SortedIds> {
    let mut runs: Vec<_> = runs.into_iter().map(Ids::of_file).collect();
    runs.push(Ids::Memory(last.into_iter()));
    let mut heads = BinaryHeap::new();
    for (at, run) in runs.iter_mut().enumerate() {
        heads.extend(run.next()?.map(|id| Reverse((id, at))));
    }
    let file = write(|put| {
        let mut last = None;
        while let Some(Reverse((id, at))) = heads.pop() {
            heads.extend(runs[at].next()?.map(|id| Reverse((id, at))));
            if last.replace(id) != Some(id) {
                put(id)?;
            }
        }
        Ok(())
    })?;
    Ok(SortedIds::File(file))
}

/// Writes ids into a file without a name, and goes back to its beginning.
fn write(all: impl FnOnce(&mut dyn FnMut(Prefix) -> Result<()>) -> Result<()>) -> Result<File> {
    let local = |source| Error::Local { doing: DOING, source };
    let mut file = BufWriter::with_capacity(1 << 20, tempfile::tempfile().map_err(local)?);
    all(&mut |id| file.write_all(&id).map_err(local))?;
    let file = file.into_inner().map_err(std::io::IntoInnerError::into_error);
    file.map_err(local)
}

/// Ids in order, each once.
pub(crate) enum SortedIds {
    Memory(Vec<Prefix>),
    File(File),
}

impl SortedIds {
    /// All of them, from the first one. Going through them blocks on the disk: for the pool.
    pub(crate) fn iter(&self) -> Result<Ids<'_>> {
        match self {
            Self::Memory(ids) => Ok(Ids::Slice(ids.iter())),
            Self::File(file) => {
                let local = |source| Error::Local { doing: DOING, source };
                Ok(Ids::of_file(file.try_clone().map_err(local)?))
            }
        }
    }
}

/// Goes through ids.
pub(crate) enum Ids<'a> {
    Slice(std::slice::Iter<'a, Prefix>),
    Memory(std::vec::IntoIter<Prefix>),
    File(Box<BufReader<At>>),
}

/// A place in a file that others read as well.
pub(crate) struct At {
    file: File,
    next: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(buffer, self.next)?;
        self.next += read as u64;
        Ok(read)
    }
}

impl Ids<'_> {
    fn of_file(file: File) -> Self {
        Self::File(Box::new(BufReader::with_capacity(1 << 20, At { file, next: 0 })))
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> Result<Option<Prefix>> {
        match self {
            Self::Slice(ids) => Ok(ids.next().copied()),
            Self::Memory(ids) => Ok(ids.next()),
            Self::File(file) => {
                let mut id = Prefix::default();
                match file.read_exact(&mut id) {
                    Ok(()) => Ok(Some(id)),
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
                    Err(source) => Err(Error::Local { doing: DOING, source }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ids_come_in_order_and_once_however_many_runs_they_take() {
        let number = |n: u32| -> Prefix {
            let mut id = Prefix::default();
            id.copy_from_slice(&blake3::hash(&n.to_le_bytes()).as_bytes()[..16]);
            id
        };
        let mut sorter = IdSorter::new(&Pool::new().unwrap());
        sorter.limit = 100;
        for n in 0..5000 {
            sorter.extend([number(n % 1000), number(n % 777)]).await.unwrap();
        }
        assert!(sorter.runs.len() > 50);
        let mut expected: Vec<_> = (0..1000).map(number).collect();
        expected.sort_unstable();
        let sorted = sorter.finish().await.unwrap();
        for _ in 0..2 {
            let mut ids = sorted.iter().unwrap();
            for id in &expected {
                assert_eq!(ids.next().unwrap(), Some(*id));
            }
            assert_eq!(ids.next().unwrap(), None);
        }
    }
}
