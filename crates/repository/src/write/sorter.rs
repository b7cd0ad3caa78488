//! Entries that come in any order, brought into that of their paths.
//!
//! The tree of a snapshot is made in order. A source that cannot give its entries so has their
//! contents stored as they come; what is left of each, its record of some hundred bytes, waits here
//! until the last one has come. What does not fit into memory lies in sorted runs in files without
//! a name, which go with this value whatever happens. So memory is bounded, and room in the
//! directory for temporary files is taken for what exceeds it: some hundred bytes for each entry.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, Write};

use lifeboat_core::EntryPath;

use crate::error::{Error, Result};
use crate::pool::Pool;
use crate::tree::TreeWriter;

/// So many bytes of records are sorted in memory.
const IN_MEMORY: usize = 32 << 20;
/// What an entry takes besides its bytes.
const OVERHEAD: usize = 96;
/// So many entries go to the tree at a time.
const BATCH: usize = 1024;
/// How much of a run is read and written at once.
const BUFFER: usize = 256 << 10;
const DOING: &str = "sort the entries in a temporary file";

/// An entry whose content is stored.
struct Record {
    path: EntryPath,
    /// Of its content, in bytes.
    size: u64,
    encoded: Vec<u8>,
}

/// Takes entries in any order.
pub(super) struct Sorter {
    pool: Pool,
    limit: usize,
    held: usize,
    records: Vec<Record>,
    runs: Vec<File>,
}

impl Sorter {
    pub(super) fn new(pool: &Pool) -> Self {
        let (records, runs) = (Vec::new(), Vec::new());
        Self { pool: pool.clone(), limit: IN_MEMORY, held: 0, records, runs }
    }

    /// Takes an entry, as the tree will hold it, whose content has `size` bytes.
    pub(super) async fn push(
        &mut self,
        path: EntryPath,
        size: u64,
        encoded: Vec<u8>,
    ) -> Result<()> {
        self.held += path.as_bytes().len() + encoded.len() + OVERHEAD;
        self.records.push(Record { path, size, encoded });
        if self.held < self.limit {
            return Ok(());
        }
        self.held = 0;
        let records = std::mem::take(&mut self.records);
        let run = self.pool.run(DOING, move || spill(records)).await??;
        self.runs.push(run);
        Ok(())
    }

    /// Gives all entries to the tree.
    ///
    /// # Errors
    /// [`Error::Twice`] when a path came twice.
    pub(super) async fn finish(self, tree: &mut TreeWriter) -> Result<()> {
        let Self { pool, records, runs, .. } = self;
        let mut merge = pool.run(DOING, move || Merge::begin(runs, records)).await??;
        loop {
            let taking = move || merge.take(BATCH).map(|batch| (merge, batch));
            let (rest, batch) = pool.run(DOING, taking).await??;
            if batch.is_empty() {
                return Ok(());
            }
            merge = rest;
            for Record { path, size, encoded } in batch {
                tree.push_encoded(path.as_bytes(), size, &encoded).await?;
            }
        }
    }
}

fn local(source: std::io::Error) -> Error {
    Error::Local { doing: DOING, source }
}

fn sorted(mut records: Vec<Record>) -> std::vec::IntoIter<Record> {
    records.sort_unstable_by(|one, two| one.path.cmp(&two.path));
    records.into_iter()
}

/// Writes records into a file without a name. Blocks.
fn spill(records: Vec<Record>) -> Result<File> {
    let mut file = BufWriter::with_capacity(BUFFER, tempfile::tempfile().map_err(local)?);
    for Record { path, size, encoded } in sorted(records) {
        let path = path.as_bytes();
        // Neither is longer than a few MiB.
        let lengths = [path.len() as u64, encoded.len() as u64, size];
        for number in lengths {
            file.write_all(&number.to_le_bytes()).map_err(local)?;
        }
        file.write_all(path).map_err(local)?;
        file.write_all(&encoded).map_err(local)?;
    }
    let file = file.into_inner().map_err(std::io::IntoInnerError::into_error);
    let mut file = file.map_err(local)?;
    file.rewind().map_err(local)?;
    Ok(file)
}

/// Sorted runs that become one.
struct Merge {
    runs: Vec<Run>,
    /// The first record of each run that has one left, by its path.
    heads: BinaryHeap<Reverse<(EntryPath, usize)>>,
    first: Vec<Option<Record>>,
    last: Option<EntryPath>,
}

enum Run {
    Memory(std::vec::IntoIter<Record>),
    File(BufReader<File>),
}

impl Merge {
    fn begin(runs: Vec<File>, rest: Vec<Record>) -> Result<Self> {
        let files = runs.into_iter().map(|run| Run::File(BufReader::with_capacity(BUFFER, run)));
        let runs: Vec<Run> = files.chain([Run::Memory(sorted(rest))]).collect();
        let (heads, first) = (BinaryHeap::new(), runs.iter().map(|_| None).collect());
        let mut this = Self { runs, heads, first, last: None };
        for at in 0..this.runs.len() {
            this.refill(at)?;
        }
        Ok(this)
    }

    fn refill(&mut self, at: usize) -> Result<()> {
        self.first[at] = self.runs[at].next()?;
        if let Some(record) = &self.first[at] {
            self.heads.push(Reverse((record.path.clone(), at)));
        }
        Ok(())
    }

    /// The next records; none when there are no more. Blocks.
    fn take(&mut self, most: usize) -> Result<Vec<Record>> {
        let mut batch = Vec::with_capacity(most);
        while batch.len() < most
            && let Some(Reverse((path, at))) = self.heads.pop()
        {
            if self.last.as_ref() == Some(&path) {
                return Err(Error::Twice { path: path.to_string() });
            }
            batch.extend(self.first[at].take());
            self.refill(at)?;
            self.last = Some(path);
        }
        Ok(batch)
    }
}

impl Run {
    fn next(&mut self) -> Result<Option<Record>> {
        match self {
            Self::Memory(records) => Ok(records.next()),
            Self::File(file) => read(file),
        }
    }
}

fn read(file: &mut BufReader<File>) -> Result<Option<Record>> {
    let mut number = [0; 8];
    match file.read_exact(&mut number) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other.map_err(local)?,
    }
    let path = u64::from_le_bytes(number);
    let mut next = || -> Result<u64> {
        file.read_exact(&mut number).map_err(local)?;
        Ok(u64::from_le_bytes(number))
    };
    let (encoded, size) = (next()?, next()?);
    let mut bytes = |length: u64| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = file.take(length).read_to_end(&mut bytes).map_err(local)?;
        if read as u64 == length {
            return Ok(bytes);
        }
        Err(local(ErrorKind::UnexpectedEof.into()))
    };
    let (path, encoded) = (bytes(path)?, bytes(encoded)?);
    let path = EntryPath::try_from(path)
        .map_err(|error| local(std::io::Error::other(error.to_string())))?;
    Ok(Some(Record { path, size, encoded }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut merge: Merge) -> Result<Vec<(String, u64, Vec<u8>)>> {
        let mut found = Vec::new();
        loop {
            let batch = merge.take(7)?;
            if batch.is_empty() {
                return Ok(found);
            }
            let shown = |record: Record| (record.path.to_string(), record.size, record.encoded);
            found.extend(batch.into_iter().map(shown));
        }
    }

    async fn sorter(numbers: impl Iterator<Item = u64>) -> Sorter {
        let mut sorter = Sorter::new(&Pool::new().unwrap());
        sorter.limit = 4000;
        for number in numbers {
            // In an order that is not that of the bytes: "1/x" comes before "1.x".
            let path =
                EntryPath::new(format!("{}{}x", number / 2, ["/", "."][number as usize % 2]));
            let encoded = vec![number as u8; number as usize % 90];
            sorter.push(path.unwrap(), number, encoded).await.unwrap();
        }
        sorter
    }

    #[tokio::test]
    async fn entries_come_in_order_however_many_runs_they_take() {
        // A stride that is prime to the count meets each number once.
        let sorter = sorter((0..1000).map(|number| number * 387 % 1000)).await;
        assert!(sorter.runs.len() > 20);
        let merge = Merge::begin(sorter.runs, sorter.records).unwrap();
        let found = all(merge).unwrap();
        assert_eq!(found.len(), 1000);
        let mut expected: Vec<EntryPath> =
            found.iter().map(|(path, ..)| EntryPath::new(path).unwrap()).collect();
        expected.sort();
        for ((path, size, encoded), expected) in found.into_iter().zip(expected) {
            assert_eq!(path, expected.to_string());
            assert_eq!(encoded, vec![size as u8; size as usize % 90], "{path}");
        }
    }

    #[tokio::test]
    async fn a_path_that_comes_twice_is_found_wherever_it_lies() {
        for apart in [1, 900] {
            let numbers = (0..1000_u64).map(|number| if number == apart { 0 } else { number });
            let sorter = sorter(numbers).await;
            let merge = Merge::begin(sorter.runs, sorter.records).unwrap();
            let error = all(merge).unwrap_err();
            assert!(matches!(&error, Error::Twice { path } if path == "0/x"), "{error}");
        }
    }
}
