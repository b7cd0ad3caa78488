//! The names of the keys of a database, each once and in order, in bounded memory.
//!
//! `SCAN` may give a name twice, and a server refuses an RDB in which one occurs twice. So the names
//! are sorted: what does not fit in memory is written in sorted runs to a file that has no name any
//! more, and the runs are merged. The order of names has a second use: it stays from one snapshot to
//! the next, also over a restart of the server, so that what did not change is found again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use lifeboat_core::Timestamp;

use crate::error::{Error, Result};

/// So many bytes of names are sorted in memory; merging takes no more.
const MEMORY: usize = 16 << 20;
/// A run is read with a buffer of so many bytes, or what many runs leave for each.
const BUFFER: usize = 256 << 10;
const LEAST_BUFFER: usize = 4 << 10;

/// Gathers names. What it does blocks.
pub(super) struct Names {
    directory: PathBuf,
    memory: usize,
    /// The names that are in memory, one after the other, and where each of them is.
    bytes: Vec<u8>,
    places: Vec<(usize, usize)>,
    file: Option<File>,
    /// Where in the file each run is.
    runs: Vec<(u64, u64)>,
    end: u64,
}

impl Names {
    /// What does not fit in memory goes to a file in `directory`.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self::with_memory(directory, MEMORY)
    }

    fn with_memory(directory: PathBuf, memory: usize) -> Self {
        let (bytes, places, runs) = (Vec::new(), Vec::new(), Vec::new());
        Self { directory, memory, bytes, places, file: None, runs, end: 0 }
    }

    pub(super) fn push(&mut self, name: &[u8]) -> Result<()> {
        self.places.push((self.bytes.len(), name.len()));
        self.bytes.extend_from_slice(name);
        if self.bytes.len() + self.places.len() * size_of::<(usize, usize)>() >= self.memory {
            self.spill()?;
        }
        Ok(())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        let name = |(at, length): &(usize, usize)| &bytes[*at..at + length];
        self.places.sort_unstable_by(|one, other| name(one).cmp(name(other)));
        self.places.dedup_by(|one, other| name(one) == name(other));
    }

    fn spill(&mut self) -> Result<()> {
        self.sort();
        let mut run = Vec::with_capacity(self.bytes.len() + 4 * self.places.len());
        for (at, length) in &self.places {
            let failed = || io::Error::from(io::ErrorKind::InvalidData);
            let short = u32::try_from(*length).map_err(|_| self.failed("write", failed()))?;
            run.extend(short.to_le_bytes());
            run.extend_from_slice(&self.bytes[*at..at + length]);
        }
        if self.file.is_none() {
            self.file =
                Some(nameless(&self.directory).map_err(|error| self.failed("make", error))?);
        }
        if let Some(file) = &self.file {
            let written = file.write_all_at(&run, self.end);
            written.map_err(|error| self.failed("write", error))?;
        }
        let end = self.end + run.len() as u64;
        self.runs.push((self.end, end));
        self.end = end;
        self.bytes.clear();
        self.places.clear();
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> Error {
        Error::NamesFile { doing, directory: self.directory.clone(), source }
    }

    /// All of them, sorted.
    pub(super) fn sorted(mut self) -> Result<Sorted> {
        self.sort();
        let file = self.file.take();
        let buffer = (self.memory / self.runs.len().max(1)).clamp(LEAST_BUFFER, BUFFER);
        let mut runs = Vec::new();
        let mut heap = BinaryHeap::new();
        for (start, end) in &self.runs {
            runs.push(Run { at: *start, end: *end, bytes: Vec::new(), taken: 0, buffer });
        }
        let mut sorted = Sorted {
            directory: self.directory,
            file,
            runs,
            bytes: self.bytes,
            places: self.places.into_iter(),
            heap: BinaryHeap::new(),
            last: None,
        };
        for at in 0..=sorted.runs.len() {
            if let Some(name) = sorted.next_of(at)? {
                heap.push(Reverse((name, at)));
            }
        }
        sorted.heap = heap;
        Ok(sorted)
    }
}

/// A file that nobody else can open, and that goes with this process.
fn nameless(directory: &std::path::Path) -> io::Result<File> {
    let moment = Timestamp::now().as_nanosecond();
    let path = directory.join(format!(".lifeboat-names-{}-{moment}", std::process::id()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Names in order, each once. What it does blocks.
pub(super) struct Sorted {
    directory: PathBuf,
    file: Option<File>,
    runs: Vec<Run>,
    /// What stayed in memory: one more run.
    bytes: Vec<u8>,
    places: std::vec::IntoIter<(usize, usize)>,
    heap: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    last: Option<Vec<u8>>,
}

struct Run {
    at: u64,
    end: u64,
    bytes: Vec<u8>,
    taken: usize,
    /// So much is read at a time.
    buffer: usize,
}

impl Sorted {
    /// The next name.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>> {
        while let Some(Reverse((name, from))) = self.heap.pop() {
            if let Some(next) = self.next_of(from)? {
                self.heap.push(Reverse((next, from)));
            }
            if self.last.as_ref() != Some(&name) {
                self.last = Some(name.clone());
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// The next name of a run; the one behind all others is what stayed in memory.
    fn next_of(&mut self, number: usize) -> Result<Option<Vec<u8>>> {
        let Some(run) = self.runs.get_mut(number) else {
            let place = self.places.next();
            return Ok(place.map(|(at, length)| self.bytes[at..at + length].to_vec()));
        };
        let Some(file) = &self.file else { return Ok(None) };
        let directory = &self.directory;
        let failed = |source| {
            let directory = directory.clone();
            Error::NamesFile { doing: "read", directory, source }
        };
        let head = run.take(file, 4).map_err(failed)?;
        let Some(head) = head else { return Ok(None) };
        let length = head.first_chunk::<4>().map_or(0, |head| u32::from_le_bytes(*head));
        run.take(file, length as usize).map_err(failed)
    }
}

impl Run {
    /// The next bytes; `None` at the end.
    fn take(&mut self, file: &File, count: usize) -> io::Result<Option<Vec<u8>>> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            if self.taken == self.bytes.len() {
                let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
                if left == 0 {
                    return match taken.is_empty() {
                        true => Ok(None),
                        false => Err(io::ErrorKind::UnexpectedEof.into()),
                    };
                }
                self.bytes.resize(left.min(self.buffer), 0);
                file.read_exact_at(&mut self.bytes, self.at)?;
                self.at += self.bytes.len() as u64;
                self.taken = 0;
            }
            let here = (count - taken.len()).min(self.bytes.len() - self.taken);
            taken.extend_from_slice(&self.bytes[self.taken..self.taken + here]);
            self.taken += here;
        }
        Ok(Some(taken))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn sorted(names: &[Vec<u8>], memory: usize, directory: &std::path::Path) -> Vec<Vec<u8>> {
        let mut gathered = Names::with_memory(directory.to_owned(), memory);
        for name in names {
            gathered.push(name).unwrap();
        }
        let mut sorted = gathered.sorted().unwrap();
        let mut found = Vec::new();
        while let Some(name) = sorted.next().unwrap() {
            found.push(name);
        }
        found
    }

    proptest! {
        #[test]
        fn each_name_comes_once_and_in_order(
            names in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..200),
            memory in 16..3000_usize,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let expected: Vec<_> =
                names.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
            prop_assert_eq!(sorted(&names, memory, directory.path()), expected);
            // Nobody can find them afterwards.
            prop_assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none());
        }
    }

    #[test]
    fn names_larger_than_a_buffer_survive() {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..20_u8).rev().map(|n| vec![n; 9000]).collect();
        let found = sorted(&names, 10_000, directory.path());
        assert_eq!(found, (0..20_u8).map(|n| vec![n; 9000]).collect::<Vec<_>>());
    }
}
