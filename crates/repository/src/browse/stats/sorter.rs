//! Sorting more than memory should hold.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use crate::error::{Error, Result};
use crate::pool::Pool;

/// So many bytes are sorted in memory.
const IN_MEMORY: usize = 32 << 20;
const DOING: &str = "sort the names of chunks in a temporary file";

fn local(source: io::Error) -> Error {
    Error::Local { doing: DOING, source }
}

/// Takes records of `N` bytes in any order, as often as they come, and gives each once, in order.
///
/// What is too much lies in sorted runs, in files without a name that go with this value.
pub(super) struct Sorter<const N: usize> {
    pool: Pool,
    limit: usize,
    records: Vec<[u8; N]>,
    runs: Vec<File>,
}

impl<const N: usize> Sorter<N> {
    pub(super) fn new(pool: &Pool) -> Self {
        let (limit, records, runs) = (IN_MEMORY / N, Vec::new(), Vec::new());
        Self { pool: pool.clone(), limit, records, runs }
    }

    /// Takes records.
    pub(super) async fn extend(
        &mut self,
        records: impl IntoIterator<Item = [u8; N]>,
    ) -> Result<()> {
        self.records.extend(records);
        if self.records.len() >= self.limit {
            let records = std::mem::take(&mut self.records);
            self.runs.push(self.pool.run(DOING, move || spill(records)).await??);
        }
        Ok(())
    }

    /// All of them.
    pub(super) async fn finish(mut self) -> Result<Sorted<N>> {
        let records = std::mem::take(&mut self.records);
        let records = self.pool.run(DOING, move || sorted(records)).await?;
        Ok(Sorted { records, runs: self.runs })
    }
}

fn sorted<const N: usize>(mut records: Vec<[u8; N]>) -> Vec<[u8; N]> {
    records.sort_unstable();
    records.dedup();
    records
}

fn spill<const N: usize>(records: Vec<[u8; N]>) -> Result<File> {
    let file = tempfile::tempfile().map_err(local)?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    for record in sorted(records) {
        file.write_all(&record).map_err(local)?;
    }
    file.into_inner().map_err(|error| local(error.into_error()))
}

/// Records in order, each once.
pub(super) struct Sorted<const N: usize> {
    records: Vec<[u8; N]>,
    runs: Vec<File>,
}

impl<const N: usize> Sorted<N> {
    /// Goes through all of them from the first one, one walk at a time: the files have one place
    /// each. It waits for the disk.
    pub(super) fn iter(&mut self) -> Result<Merge<'_, N>> {
        let mut runs = vec![Run::Memory(self.records.iter())];
        for file in &mut self.runs {
            file.rewind().map_err(local)?;
            runs.push(Run::File(BufReader::with_capacity(256 << 10, file)));
        }
        let mut heads = BinaryHeap::new();
        for (number, run) in runs.iter_mut().enumerate() {
            heads.extend(run.next()?.map(|record| Reverse((record, number))));
        }
        Ok(Merge { runs, heads, last: None })
    }
}

enum Run<'a, const N: usize> {
    Memory(std::slice::Iter<'a, [u8; N]>),
    File(BufReader<&'a mut File>),
}

impl<const N: usize> Run<'_, N> {
    fn next(&mut self) -> Result<Option<[u8; N]>> {
        let file = match self {
            Self::Memory(records) => return Ok(records.next().copied()),
            Self::File(file) => file,
        };
        let mut record = [0; N];
        match file.read_exact(&mut record) {
            Ok(()) => Ok(Some(record)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(local(error)),
        }
    }
}

/// A walk through sorted records.
pub(super) struct Merge<'a, const N: usize> {
    runs: Vec<Run<'a, N>>,
    heads: BinaryHeap<Reverse<([u8; N], usize)>>,
    last: Option<[u8; N]>,
}

impl<const N: usize> Merge<'_, N> {
    /// The next one.
    pub(super) fn next(&mut self) -> Result<Option<[u8; N]>> {
        while let Some(Reverse((record, number))) = self.heads.pop() {
            let next = self.runs[number].next()?;
            self.heads.extend(next.map(|next| Reverse((next, number))));
            if self.last.replace(record) != Some(record) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_come_in_order_and_once_however_many_runs_they_take() {
        for limit in [100, 1_000_000] {
            let mut sorter = Sorter::<5>::new(&Pool::new().unwrap());
            sorter.limit = limit;
            let record = |number: u32| {
                let mut record = [7; 5];
                record[1..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_le_bytes());
                record
            };
            for number in 0..5000 {
                sorter.extend([record(number % 1000), record(number % 777)]).await.unwrap();
            }
            assert_eq!(sorter.runs.len() > 50, limit == 100);
            let mut expected: Vec<_> = (0..1000).map(record).collect();
            expected.sort_unstable();
            let mut sorted = sorter.finish().await.unwrap();
            for _ in 0..2 {
                let mut walk = sorted.iter().unwrap();
                let mut found = Vec::new();
                while let Some(record) = walk.next().unwrap() {
                    found.push(record);
                }
                assert_eq!(found, expected);
            }
        }
    }
}
