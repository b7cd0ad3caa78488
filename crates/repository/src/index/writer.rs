//! Writing a run to a file of the local cache.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::file::{self, Counts, PackRow, RunFile};
use super::filter::Filter;
use super::record::Record;
use crate::id::{ObjectId, RepositoryId};

/// Takes records in the order of their ids, then packs, then index objects.
///
/// What is written is under another name until it is whole. It need not be flushed to the disk: a
/// file that is not what was written is found out when it is opened, and costs reading the index
/// objects again.
pub(super) struct RunWriter {
    out: File,
    hasher: blake3::Hasher,
    keyed: blake3::Hasher,
    repository: RepositoryId,
    path: PathBuf,
    told: usize,
    counts: Counts,
    /// How many records there are of each bucket so far.
    fan_out: Vec<u32>,
    filter: Filter,
    buffer: Vec<u8>,
}

/// Bytes that are gathered before they are hashed and written.
const GATHER: usize = 64 << 10;

impl RunWriter {
    /// Begins a file at `path` for at most so many records; `keyed` has the key.
    pub(super) fn create(
        path: &Path,
        repository: RepositoryId,
        keyed: &blake3::Hasher,
        records: u64,
    ) -> io::Result<Self> {
        u32::try_from(records).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let out = File::create_new(path)?;
        let (told, filter) = (file::told(records), Filter::with_room(records));
        let counts = Counts { records: 0, packs: 0, sources: 0, blocks: filter.blocks() };
        let buffer = file::header(repository, told).to_vec();
        Ok(Self {
            out,
            hasher: keyed.clone(),
            keyed: keyed.clone(),
            repository,
            path: path.to_owned(),
            told,
            counts,
            fan_out: vec![0; file::entries(told)],
            filter,
            buffer,
        })
    }

    /// The next record; `pack` in its place is the number of a pack within the file.
    pub(super) fn record(&mut self, record: &Record) -> io::Result<()> {
        self.fan_out[file::bucket(self.told, &record.prefix) + 1] += 1;
        self.filter.insert(&record.prefix);
        self.counts.records += 1;
        file::put_record(self.told, record, &mut self.buffer);
        self.gathered()
    }

    /// The next pack, in the order of their numbers.
    pub(super) fn pack(&mut self, row: &PackRow) -> io::Result<()> {
        if self.counts.packs == 0 {
            self.tables()?;
        }
        self.counts.packs += 1;
        self.buffer.extend_from_slice(&row.to_bytes());
        self.gathered()
    }

    /// What stands between records and packs.
    fn tables(&mut self) -> io::Result<()> {
        let mut before = 0;
        for count in &self.fan_out {
            before += count;
            self.buffer.extend_from_slice(&before.to_le_bytes());
        }
        self.write()?;
        for block in self.filter.to_bytes() {
            self.buffer.extend_from_slice(&block);
            if self.buffer.len() >= GATHER {
                self.hasher.update(&self.buffer);
                self.out.write_all(&self.buffer)?;
                self.buffer.clear();
            }
        }
        Ok(())
    }

    /// Ends the file with the index objects that it was made of, moves it to `path`, and opens it.
    /// `None` when it is not there as it was written.
    pub(super) fn finish(
        mut self,
        sources: &[ObjectId],
        name: impl FnOnce(&[u8; 32]) -> PathBuf,
    ) -> io::Result<Option<RunFile>> {
        if self.counts.packs == 0 {
            self.tables()?;
        }
        for id in sources {
            self.buffer.extend_from_slice(id.as_bytes());
        }
        self.counts.sources = sources.len() as u64;
        self.buffer.extend_from_slice(&self.counts.to_bytes());
        self.write()?;
        let mac = *self.hasher.finalize().as_bytes();
        self.out.write_all(&mac)?;
        let path = name(&mac);
        std::fs::rename(&self.path, &path)?;
        RunFile::open(&path, self.repository, self.keyed.clone())
    }

    fn gathered(&mut self) -> io::Result<()> {
        if self.buffer.len() < GATHER { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> io::Result<()> {
        self.hasher.update(&self.buffer);
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        // Gone already where the file was finished.
        let _ = std::fs::remove_file(&self.path);
    }
}
