//! Opening what packs hold, and checking that it is what it should be.

use bytes::Bytes;

use crate::chunk::{MAX_BLOCK, MAX_CHUNK, decompress, decompress_block};
use crate::crypto::{Keys, Purpose};
use crate::error::{Error, Result};
use crate::pack::{ChunkRecord, PackHeader, Place};

/// What was sealed in one piece, as it was read from a pack.
pub(crate) struct Sealed<'a> {
    /// The name of the pack, for messages.
    pub(crate) pack: &'a str,
    pub(crate) header: &'a PackHeader,
    /// Where it begins in the pack.
    pub(crate) offset: u64,
    pub(crate) bytes: &'a [u8],
}

impl Sealed<'_> {
    fn damaged(&self, record: &ChunkRecord, what: &str) -> Error {
        damaged(self.pack, self.offset, record, what)
    }

    /// Opens a chunk, and checks that it is what its record says; or the block in which the chunk
    /// of this record lies. What [`pick`] takes out of a block is checked there.
    pub(crate) fn open(&self, keys: &Keys, record: &ChunkRecord) -> Result<Bytes> {
        let damaged = |what| self.damaged(record, what);
        let Self { header, offset, .. } = *self;
        let cipher = header.cipher().ok_or_else(|| damaged("its cipher is unknown"))?;
        let length = record.plain as usize;
        if header.repository != keys.repository() {
            return Err(damaged("it belongs to another repository"));
        }
        if length > MAX_CHUNK {
            return Err(damaged("its length is out of range"));
        }
        let kind = record.kind().ok_or_else(|| damaged("its kind is unknown"))?;
        let purpose = header.purpose();
        let purpose = purpose.ok_or_else(|| damaged("its pack holds something unknown"))?;
        if kind.is_data() != (purpose == Purpose::Data) {
            return Err(damaged("it lies among chunks of another kind"));
        }
        let sealer = keys.sealer(cipher, header.epoch, purpose, header.salt())?;
        let mut sealed = self.bytes.to_vec();
        let bound = record.associated(header, offset);
        let compressed = sealer
            .open(offset, &bound, &mut sealed)
            .ok_or_else(|| damaged("it is not authentic"))?;
        let unfolded = || damaged("it does not decompress");
        if record.is_in_block() {
            return Ok(decompress_block(compressed).ok_or_else(unfolded)?.into());
        }
        let plain = decompress(record.encoding, compressed, length).ok_or_else(unfolded)?;
        // Sealing proves who wrote it; only the name proves that it is what was asked for.
        if keys.chunk_id(kind, &plain) != record.id {
            return Err(damaged("its content does not match its name"));
        }
        Ok(plain.into())
    }
}

/// Takes the chunk at `place` out of the block that was opened there, and checks that it is what
/// its record says. A chunk that lies by itself was checked when it was opened.
pub(crate) fn pick(keys: &Keys, pack: &str, place: &Place<'_>, opened: &Bytes) -> Result<Bytes> {
    let Place { offset, inner, chunk, .. } = *place;
    if !chunk.is_in_block() {
        return Ok(opened.clone());
    }
    let damaged = |what| damaged(pack, offset, chunk, what);
    let start = inner as usize;
    let end = start.checked_add(chunk.plain as usize).filter(|end| *end <= MAX_BLOCK);
    let end = end.filter(|end| *end <= opened.len());
    let plain = opened.slice(start..end.ok_or_else(|| damaged("it lies beyond its block"))?);
    let kind = chunk.kind().ok_or_else(|| damaged("its kind is unknown"))?;
    if keys.chunk_id(kind, &plain) != chunk.id {
        return Err(damaged("its content does not match its name"));
    }
    Ok(plain)
}

fn damaged(pack: &str, offset: u64, record: &ChunkRecord, what: &str) -> Error {
    let id = record.id;
    Error::damaged(pack, format!("chunk {id} at byte {offset}: {what}"))
}
