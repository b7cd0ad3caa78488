//! Packs: many sealed chunks in one object.
//!
//! ```text
//! header     64 bytes: magic, contents, cipher, epoch, repository, salt
//! chunks     sealed one after the other; the nonce of each is its offset in the pack
//!            small ones are gathered, compressed and sealed as a block
//! directory  42 bytes a chunk, in the same order: id, stored and plain length, encoding, kind
//! trailer    44 bytes: keyed hash of header and directory, number of chunks, magic
//! ```
//!
//! The directory is in the clear, so that an index can be rebuilt without a key; ids are keyed
//! hashes and tell nothing. It is a hint only: every chunk is bound to its id, kind, encoding,
//! length and place by its associated data; a block to its kind and place, and what is taken out
//! of it must have the name of the chunk that was asked for.

mod builder;
mod header;

pub(crate) use builder::{FinishedPack, PackBuilder};
pub(crate) use header::{Contents, PackHeader};

use minicbor::{Decode, Encode};

use crate::chunk::{ChunkKind, Encoding};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId};
use crate::objects::{Objects, pack_name};
use crate::repository::Shared;

const MAGIC: [u8; 8] = *b"LBPACK\x00\x01";
const END: [u8; 8] = *b"LBPEND\x00\x01";
/// Bytes before the first chunk.
pub(crate) const HEADER: usize = 64;
const ENTRY: usize = 32 + 4 + 4 + 1 + 1;
/// Bytes after the directory.
pub(crate) const TRAILER: usize = 32 + 4 + 8;
/// No pack has more chunks, so that eight of them fit into an index object with ease.
pub(crate) const MAX_CHUNKS: usize = 1 << 16;
/// No block has more chunks.
pub(crate) const MAX_MEMBERS: usize = 1 << 10;
/// No pack is larger: the largest target, and a last chunk.
pub(crate) const MAX_PACK: u64 = (256 << 20) + (32 << 20);

/// What is known of a chunk in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct ChunkRecord {
    #[n(0)]
    pub(crate) id: ChunkId,
    /// Sealed length, tag included. In a block, the first chunk has that of the block, and those
    /// that follow have 0.
    #[n(1)]
    pub(crate) stored: u32,
    #[n(2)]
    pub(crate) plain: u32,
    #[n(3)]
    pub(crate) encoding: u8,
    #[n(4)]
    pub(crate) kind: u8,
}

impl ChunkRecord {
    /// What binds a sealed chunk to its name and its place. A block is nobody's alone: its chunks
    /// are told by what they hold when it is open.
    pub(crate) fn associated(&self, header: &PackHeader, offset: u64) -> [u8; HEADER + 46] {
        let mut bound = [0; HEADER + 46];
        bound[..HEADER].copy_from_slice(&header.to_bytes());
        bound[HEADER] = self.kind;
        bound[HEADER + 1] = self.encoding;
        bound[HEADER + 6..HEADER + 14].copy_from_slice(&offset.to_le_bytes());
        if !self.is_in_block() {
            bound[HEADER + 2..HEADER + 6].copy_from_slice(&self.plain.to_le_bytes());
            bound[HEADER + 14..].copy_from_slice(self.id.as_bytes());
        }
        bound
    }

    pub(crate) fn kind(&self) -> Option<ChunkKind> {
        ChunkKind::from_number(self.kind)
    }

    /// Whether it was sealed with others.
    pub(crate) fn is_in_block(&self) -> bool {
        self.encoding == Encoding::Solid as u8
    }

    /// Whether it lies in the same block as the chunk before it.
    fn goes_on(&self) -> bool {
        self.is_in_block() && self.stored == 0
    }
}

/// What was sealed in one piece: a chunk, or a block of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit<'a> {
    /// Where it begins in the pack.
    pub(crate) offset: u64,
    /// Its sealed length, tag included.
    pub(crate) stored: u32,
    /// What the directory says of what is in it: one chunk, or those of the block.
    pub(crate) chunks: &'a [ChunkRecord],
}

impl<'a> Unit<'a> {
    /// Where its chunks are.
    pub(crate) fn places(self) -> impl Iterator<Item = Place<'a>> {
        let Self { offset, stored, chunks } = self;
        let mut next = 0_u32;
        chunks.iter().map(move |chunk| {
            let inner = next;
            next = next.saturating_add(chunk.plain);
            Place { offset, stored, inner, chunk }
        })
    }
}

/// Where a chunk lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    /// Where what is sealed begins: the chunk, or the block that it lies in.
    pub(crate) offset: u64,
    /// Its sealed length, tag included.
    pub(crate) stored: u32,
    /// Where the chunk begins in the plain bytes of the block; 0 for a chunk by itself.
    pub(crate) inner: u32,
    /// What the directory says of the chunk.
    pub(crate) chunk: &'a ChunkRecord,
}

/// What is known of a pack: what an index object holds of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct PackRecord {
    #[n(0)]
    pub(crate) id: ObjectId,
    #[n(1)]
    pub(crate) header: PackHeader,
    /// The size of the object.
    #[n(2)]
    pub(crate) size: u64,
    /// Its chunks, in the order in which they lie.
    #[n(3)]
    pub(crate) chunks: Vec<ChunkRecord>,
}

impl PackRecord {
    /// What was sealed in it, in the order in which it lies.
    pub(crate) fn units(&self) -> impl Iterator<Item = Unit<'_>> {
        let mut next = HEADER as u64;
        self.chunks.chunk_by(|_, after| after.goes_on()).map(move |chunks| {
            let (offset, stored) = (next, chunks[0].stored);
            next += u64::from(stored);
            Unit { offset, stored, chunks }
        })
    }

    /// Where the chunks are.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place<'_>> {
        self.units().flat_map(Unit::places)
    }

    /// Reads what a pack of `size` bytes says of itself: its first [`HEADER`] bytes, and its end
    /// as [`PackRecord::end`] tells where it begins. Both may be anything.
    ///
    /// With the record comes the hash by which it can be authenticated.
    pub(crate) fn parse(
        name: &str,
        id: ObjectId,
        size: u64,
        header: &[u8],
        end: &[u8],
    ) -> Result<(Self, [u8; 32])> {
        let damaged = |what: &str| Error::damaged(name, what);
        let header = header.first_chunk::<HEADER>().and_then(PackHeader::parse);
        let header = header.ok_or_else(|| damaged("it has no valid header"))?;
        let (directory, trailer) =
            end.split_last_chunk::<TRAILER>().ok_or_else(|| damaged("its end is missing"))?;
        let (mac, count) = parse_trailer(trailer).ok_or_else(|| damaged("its end is missing"))?;
        let (entries, rest) = directory.as_chunks::<ENTRY>();
        if entries.len() != count as usize || !rest.is_empty() {
            return Err(damaged("its directory is out of range"));
        }
        let chunks: Vec<_> = entries.iter().map(parse_entry).collect();
        let record = Self { id, header, size, chunks };
        let sum: u64 = record.chunks.iter().map(|chunk| u64::from(chunk.stored)).sum();
        if (HEADER + end.len()) as u64 + sum != size {
            return Err(damaged("its directory does not match its length"));
        }
        Ok((record, mac))
    }

    /// Where the directory of a pack of `size` bytes begins, told by its last [`TRAILER`] bytes.
    pub(crate) fn end(name: &str, size: u64, trailer: &[u8]) -> Result<u64> {
        let damaged = |what: &str| Error::damaged(name, what);
        let (_, count) = trailer
            .first_chunk::<TRAILER>()
            .and_then(parse_trailer)
            .ok_or_else(|| damaged("its end is missing"))?;
        size.checked_sub(TRAILER as u64 + u64::from(count) * ENTRY as u64)
            .filter(|start| *start >= HEADER as u64)
            .ok_or_else(|| damaged("its directory is out of range"))
    }
}

/// Reads what a pack says of itself, and authenticates it.
pub(crate) async fn read_record(shared: &Shared, id: ObjectId, size: u64) -> Result<PackRecord> {
    let (record, mac) = read_directory(&shared.objects, id, size).await?;
    if !record.is_authentic(&shared.keys, mac) {
        return Err(Error::damaged(pack_name(id), "its directory is not authentic"));
    }
    Ok(record)
}

/// Reads what a pack says of itself, with the hash by which it can be authenticated.
pub(crate) async fn read_directory(
    objects: &Objects,
    id: ObjectId,
    size: u64,
) -> Result<(PackRecord, [u8; 32])> {
    let name = pack_name(id);
    let least = (HEADER + TRAILER) as u64;
    if !(least..=MAX_PACK).contains(&size) {
        return Err(Error::damaged(name, "its size is out of range"));
    }
    let trailer = objects.range(&name, size - TRAILER as u64..size).await?;
    let directory = PackRecord::end(&name, size, &trailer)?;
    let end = objects.range(&name, directory..size).await?;
    let header = objects.range(&name, 0..HEADER as u64).await?;
    PackRecord::parse(&name, id, size, &header, &end)
}

fn parse_trailer(bytes: &[u8; TRAILER]) -> Option<([u8; 32], u32)> {
    let (mac, rest) = bytes.split_first_chunk::<32>()?;
    let (count, end) = rest.split_first_chunk::<4>()?;
    (end == END).then_some((*mac, u32::from_le_bytes(*count)))
}

fn parse_entry(bytes: &[u8; ENTRY]) -> ChunkRecord {
    let mut id = [0; 32];
    id.copy_from_slice(&bytes[..32]);
    let number =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    ChunkRecord {
        id: ChunkId::from_bytes(id),
        stored: number(32),
        plain: number(36),
        encoding: bytes[40],
        kind: bytes[41],
    }
}

fn put_entry(record: &ChunkRecord, out: &mut Vec<u8>) {
    out.extend_from_slice(record.id.as_bytes());
    out.extend_from_slice(&record.stored.to_le_bytes());
    out.extend_from_slice(&record.plain.to_le_bytes());
    out.extend_from_slice(&[record.encoding, record.kind]);
}
