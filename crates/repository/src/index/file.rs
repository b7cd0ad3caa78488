//! A run in a file of the local cache.
//!
//! ```text
//! header    32 bytes: magic, repository, how many bytes of ids are told by the fan-out table
//! records   in the order of ids, each without those bytes: 30 or 31 bytes
//! fan-out   for each beginning of an id the number of records before it, 4 bytes
//! filter    32 bytes for 32 records: see `filter`
//! packs     104 bytes each: id, header, size, number of the index object that names it
//! sources   32 bytes each: the ids of the index objects that the run was made of
//! counts    32 bytes: records, packs, sources, blocks of the filter
//! mac       32 bytes: BLAKE3 of all that is before it, keyed by the repository
//! ```
//!
//! All numbers are little-endian. So a chunk takes 31 bytes and a third of one, filter and table
//! included. This is no part of the repository's format: a file of another version is deleted.
//!
//! A file is believed once its keyed hash was checked from the first byte to the last, whenever it
//! is opened: no writer may take a chunk for stored because of a bit that fell over, or of a file
//! that somebody else put there. Checking reads through a small buffer, so that nothing becomes
//! resident. What stays in memory is the filter, a byte a chunk, and the fan-out table.
//!
//! # Why not mapped into memory
//!
//! A lookup of a chunk that is there reads one stretch of a few KiB from the file, where
//! interpolation says that it must be: ids are hashes, evenly spread. All but three in a hundred
//! lookups of new chunks end at the filter. Measured at random places of a file of 3 GB in the
//! system's page cache, such a read takes about 2 microseconds of a processor, and looking at
//! three places of a mapping less than 0.7. A chunk is 1 MiB on average, and its hash takes more
//! than 150. So a mapping would save one part in a hundred of a backup that finds all of its
//! chunks, for `unsafe` code and for a process that dies of SIGBUS when the disk fails or somebody
//! cuts off the file. Reading fails with an error instead, and costs reading the index objects.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::filter::{BLOCK, Filter};
use super::record::{PREFIX, Packed, Prefix, Record};
use crate::id::{ObjectId, RepositoryId};
use crate::pack::{HEADER as PACK_HEADER, PackHeader};

pub(super) const MAGIC: [u8; 8] = *b"LBRUN\x00\x00\x01";
pub(super) const HEADER: usize = 32;
pub(super) const PACK: usize = 32 + PACK_HEADER + 4 + 4;
const COUNTS: usize = 32;
const MAC: usize = 32;
/// Files are checked and gone through by so many bytes.
const BUFFER: usize = 256 << 10;

/// How many bytes of each id the fan-out table tells in a run of so many records.
pub(super) fn told(records: u64) -> usize {
    if records < 1 << 20 { 1 } else { 2 }
}

/// How many entries a fan-out table for so many bytes has: one for each beginning, and the end.
pub(super) fn entries(told: usize) -> usize {
    (1 << (8 * told)) + 1
}

/// Which entry of the fan-out table an id belongs to.
pub(super) fn bucket(told: usize, prefix: &Prefix) -> usize {
    prefix[..told].iter().fold(0, |bucket, byte| bucket << 8 | usize::from(*byte))
}

/// Writes a record without what the fan-out table tells.
pub(super) fn put_record(told: usize, record: &Record, out: &mut Vec<u8>) {
    out.extend_from_slice(&record.prefix[told..]);
    out.extend_from_slice(&record.place.0.to_le_bytes());
}

/// How many there are of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) packs: u64,
    pub(super) sources: u64,
    pub(super) blocks: u64,
}

impl Counts {
    pub(super) fn to_bytes(self) -> [u8; COUNTS] {
        let mut bytes = [0; COUNTS];
        let all = [self.records, self.packs, self.sources, self.blocks];
        for (part, count) in bytes.chunks_exact_mut(8).zip(all) {
            part.copy_from_slice(&count.to_le_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8; COUNTS]) -> Self {
        let (all, _) = bytes.as_chunks::<8>();
        let [records, packs, sources, blocks] =
            std::array::from_fn(|at| u64::from_le_bytes(all[at]));
        Self { records, packs, sources, blocks }
    }
}

/// An open file, checked.
#[derive(Debug)]
pub(super) struct RunFile {
    file: File,
    path: PathBuf,
    told: usize,
    counts: Counts,
    fan_out: Vec<u32>,
    filter: Filter,
    /// Reading failed once: it is not used again.
    failed: AtomicBool,
}

/// A pack, as the file names it.
pub(super) struct PackRow {
    pub(super) id: ObjectId,
    pub(super) header: PackHeader,
    pub(super) size: u32,
    /// The number of the index object, within the file.
    pub(super) source: u32,
}

impl PackRow {
    pub(super) fn to_bytes(&self) -> [u8; PACK] {
        let mut bytes = [0; PACK];
        bytes[..32].copy_from_slice(self.id.as_bytes());
        bytes[32..32 + PACK_HEADER].copy_from_slice(&self.header.to_bytes());
        bytes[PACK - 8..PACK - 4].copy_from_slice(&self.size.to_le_bytes());
        bytes[PACK - 4..].copy_from_slice(&self.source.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; PACK]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<32>()?;
        let (header, rest) = rest.split_first_chunk()?;
        let (size, source) = rest.split_first_chunk()?;
        Some(Self {
            id: ObjectId::from_bytes(*id),
            header: PackHeader::parse(header)?,
            size: u32::from_le_bytes(*size),
            source: u32::from_le_bytes(*source.first_chunk()?),
        })
    }
}

impl RunFile {
    /// Opens a file and checks every byte of it; `hasher` has the key. `None` when it is not what
    /// was written for this repository.
    pub(super) fn open(
        path: &Path,
        repository: RepositoryId,
        mut hasher: blake3::Hasher,
    ) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let Some(end) = size.checked_sub((COUNTS + MAC) as u64) else { return Ok(None) };
        let mut header = [0; HEADER];
        let mut tail = [0; COUNTS + MAC];
        if end < HEADER as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        file.read_exact_at(&mut tail, end)?;
        let (Some(told), Some(counts)) = (parse_header(&header, repository), tail.first_chunk())
        else {
            return Ok(None);
        };
        let counts = Counts::parse(counts);
        // The size first: so nothing is read or allocated that the file does not have.
        if Layout::new(told, &counts).is_none_or(|layout| layout.end != end) {
            return Ok(None);
        }
        let mut left = size - MAC as u64;
        let mut buffer = vec![0; BUFFER];
        while left > 0 {
            let part = &mut buffer[..left.min(BUFFER as u64) as usize];
            file.read_exact(part)?;
            hasher.update(part);
            left -= part.len() as u64;
        }
        let mac: [u8; MAC] = std::array::from_fn(|at| tail[COUNTS + at]);
        // Comparing hashes takes constant time.
        if hasher.finalize() != blake3::Hash::from_bytes(mac) {
            return Ok(None);
        }
        Self::assemble(file, path.to_owned(), told, counts)
    }

    /// What is kept in memory of a file that is known to be right.
    fn assemble(
        file: File,
        path: PathBuf,
        told: usize,
        counts: Counts,
    ) -> io::Result<Option<Self>> {
        let Some(layout) = Layout::new(told, &counts) else { return Ok(None) };
        let mut bytes = vec![0; 4 * entries(told)];
        file.read_exact_at(&mut bytes, layout.fan_out)?;
        let (numbers, _) = bytes.as_chunks::<4>();
        let fan_out: Vec<_> = numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let mut bytes = vec![0; (layout.packs - layout.filter) as usize];
        file.read_exact_at(&mut bytes, layout.filter)?;
        let ascending = fan_out.is_sorted() && fan_out.first() == Some(&0);
        let complete = fan_out.last().is_some_and(|last| u64::from(*last) == counts.records);
        let Some(filter) = Filter::parse(&bytes).filter(|_| ascending && complete) else {
            return Ok(None);
        };
        let failed = AtomicBool::new(false);
        Ok(Some(Self { file, path, told, counts, fan_out, filter, failed }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> u64 {
        self.counts.records
    }

    /// Whether something of it could not be read.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// The index objects that it was made of.
    pub(super) fn sources(&self) -> io::Result<Vec<ObjectId>> {
        let Some(layout) = Layout::new(self.told, &self.counts) else { return Ok(Vec::new()) };
        let mut bytes = vec![0; (layout.end - layout.sources) as usize];
        self.read(&mut bytes, layout.sources)?;
        let (ids, _) = bytes.as_chunks::<32>();
        Ok(ids.iter().map(|id| ObjectId::from_bytes(*id)).collect())
    }

    /// Goes through the packs.
    pub(super) fn packs(&self, mut each: impl FnMut(PackRow)) -> io::Result<()> {
        let layout = Layout::new(self.told, &self.counts).ok_or(io::ErrorKind::InvalidData)?;
        let mut at = layout.packs;
        let mut buffer = vec![0; BUFFER / PACK * PACK];
        while at < layout.sources {
            let part = (layout.sources - at).min(buffer.len() as u64) as usize;
            self.read(&mut buffer[..part], at)?;
            let (rows, _) = buffer[..part].as_chunks::<PACK>();
            for row in rows {
                each(PackRow::parse(row).ok_or(io::ErrorKind::InvalidData)?);
            }
            at += part as u64;
        }
        Ok(())
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let read = self.file.read_exact_at(bytes, at);
        if read.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        read
    }

    /// Bytes of a record.
    fn width(&self) -> usize {
        PREFIX - self.told + size_of::<Packed>()
    }

    /// All records of a chunk.
    pub(super) fn find(&self, prefix: &Prefix) -> io::Result<Vec<Record>> {
        let mut found = Vec::new();
        if !self.filter.may_have(prefix) {
            return Ok(found);
        }
        let bucket = bucket(self.told, prefix);
        let [mut low, end] = [self.fan_out[bucket], self.fan_out[bucket + 1]].map(u64::from);
        // Where the chunk must be: ids are evenly spread, and how far off a guess is has the
        // binomial distribution. Where they are not, this takes more steps, but ends.
        let next = prefix[self.told..].first_chunk().map_or(0, |next| u32::from_be_bytes(*next));
        let guess = low + (((end - low) * u64::from(next)) >> 32);
        let reach = (end - low).isqrt() + 4;
        let mut from = guess.saturating_sub(reach).max(low);
        // All records before `low` are of lesser ids, or found.
        while low < end {
            let to = (from + 2 * reach).min(end);
            let records = self.records(bucket, from..to)?;
            let before = records.partition_point(|record| record.prefix < *prefix);
            if before == 0 && from > low {
                // The first one may be before; the next look ends with this record.
                from = (from + 1).saturating_sub(2 * reach).max(low);
                continue;
            }
            let here = records[before..].iter().take_while(|record| record.prefix == *prefix);
            let count = found.len();
            found.extend(here);
            if before + found.len() - count < records.len() {
                break;
            }
            (low, from) = (to, to);
        }
        Ok(found)
    }

    /// Reads some records of one bucket.
    fn records(&self, bucket: usize, range: Range<u64>) -> io::Result<Vec<Record>> {
        let mut bytes = vec![0; (range.end - range.start) as usize * self.width()];
        self.read(&mut bytes, HEADER as u64 + range.start * self.width() as u64)?;
        Ok(bytes.chunks_exact(self.width()).map(|bytes| self.parse(bucket, bytes)).collect())
    }

    /// A record, from its bytes and the bucket that it is in.
    fn parse(&self, bucket: usize, bytes: &[u8]) -> Record {
        let told = self.told;
        let mut prefix = [0; PREFIX];
        prefix[..told].copy_from_slice(&bucket.to_be_bytes()[size_of::<usize>() - told..]);
        prefix[told..].copy_from_slice(&bytes[..PREFIX - told]);
        let place = std::array::from_fn(|at| bytes[PREFIX - told + at]);
        Record { prefix, place: Packed(u128::from_le_bytes(place)) }
    }
}

/// Goes through all records of a file, in order.
#[derive(Debug, Default)]
pub(super) struct FileCursor {
    next: u64,
    bucket: usize,
    buffer: Vec<u8>,
    at: usize,
}

impl FileCursor {
    pub(super) fn next(&mut self, run: &RunFile) -> io::Result<Option<Record>> {
        if self.next == run.counts.records {
            return Ok(None);
        }
        let width = run.width();
        if self.at == self.buffer.len() {
            let count = (run.counts.records - self.next).min((BUFFER / width) as u64);
            self.buffer.resize(count as usize * width, 0);
            run.read(&mut self.buffer, HEADER as u64 + self.next * width as u64)?;
            self.at = 0;
        }
        while u64::from(run.fan_out[self.bucket + 1]) <= self.next {
            self.bucket += 1;
        }
        let record = run.parse(self.bucket, &self.buffer[self.at..self.at + width]);
        self.at += width;
        self.next += 1;
        Ok(Some(record))
    }
}

fn parse_header(bytes: &[u8; HEADER], repository: RepositoryId) -> Option<usize> {
    let rest = bytes.strip_prefix(&MAGIC)?.strip_prefix(repository.as_bytes())?;
    let told = u64::from_le_bytes(*rest.first_chunk()?);
    [1, 2].into_iter().find(|known| *known as u64 == told)
}

pub(super) fn header(repository: RepositoryId, told: usize) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..24].copy_from_slice(repository.as_bytes());
    bytes[24..].copy_from_slice(&(told as u64).to_le_bytes());
    bytes
}

/// Where the parts of a file begin.
struct Layout {
    fan_out: u64,
    filter: u64,
    packs: u64,
    sources: u64,
    /// Where the counts are.
    end: u64,
}

impl Layout {
    /// `None` for counts that no file can have.
    fn new(told: usize, counts: &Counts) -> Option<Self> {
        u32::try_from(counts.records).ok()?;
        let width = (PREFIX - told + size_of::<Packed>()) as u64;
        let fan_out = HEADER as u64 + counts.records * width;
        let filter = fan_out + 4 * entries(told) as u64;
        let packs = filter.checked_add(counts.blocks.checked_mul(BLOCK as u64)?)?;
        let sources = packs.checked_add(counts.packs.checked_mul(PACK as u64)?)?;
        let end = sources.checked_add(counts.sources.checked_mul(32)?)?;
        Some(Self { fan_out, filter, packs, sources, end })
    }
}
