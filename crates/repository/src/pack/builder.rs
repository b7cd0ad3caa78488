//! A pack that is being filled.

use std::collections::HashSet;

use bytes::Bytes;
use object_store::PutPayload;

use super::ChunkRecord;
use super::{Contents, END, HEADER, PackHeader, PackRecord, put_entry};
use crate::chunk::{ChunkKind, Encoding};
use crate::crypto::{Keys, Sealer};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId};

/// An open pack.
pub(crate) struct PackBuilder {
    header: PackHeader,
    sealer: Sealer,
    parts: Vec<Bytes>,
    chunks: Vec<ChunkRecord>,
    length: u64,
    hasher: blake3::Hasher,
}

/// A pack ready to be stored.
pub(crate) struct FinishedPack {
    pub(crate) record: PackRecord,
    pub(crate) payload: PutPayload,
}

impl PackBuilder {
    pub(crate) fn new(keys: &Keys, contents: Contents) -> Result<Self> {
        let (header, sealer) = PackHeader::begin(keys, contents)?;
        let mut pack = Self {
            header,
            sealer,
            parts: Vec::new(),
            chunks: Vec::new(),
            length: 0,
            hasher: blake3::Hasher::new(),
        };
        pack.append(Bytes::copy_from_slice(&header.to_bytes()));
        Ok(pack)
    }

    fn append(&mut self, part: Bytes) {
        self.hasher.update(&part);
        self.length += part.len() as u64;
        self.parts.push(part);
    }

    /// Whether it has reached `target` bytes, its directory included, or as many chunks as an
    /// index object can take of it.
    pub(crate) fn is_full(&self, target: u64) -> bool {
        let directory = (self.chunks.len() * super::ENTRY + super::TRAILER) as u64;
        self.length + directory >= target
            || self.chunks.len() + super::MAX_MEMBERS > super::MAX_CHUNKS
    }

    /// Whether it holds one of these chunks.
    pub(crate) fn has_any(&self, chunks: &HashSet<ChunkId>) -> bool {
        self.chunks.iter().any(|chunk| chunks.contains(&chunk.id))
    }

    /// Seals a compressed chunk or block, and appends it. `members` are the chunks in it, each with
    /// its plain length; there is one at least.
    pub(crate) fn add(
        &mut self,
        kind: ChunkKind,
        members: &[(ChunkId, u32)],
        encoding: Encoding,
        mut compressed: Vec<u8>,
    ) -> Result<()> {
        let offset = self.length;
        let too_large = |_| Error::Crypto { doing: "seal a chunk that is too large" };
        let mut stored = u32::try_from(compressed.len() + crate::crypto::TAG).map_err(too_large)?;
        let first = self.chunks.len();
        self.chunks.extend(members.iter().map(|&(id, plain)| {
            let (encoding, kind) = (encoding as u8, kind as u8);
            ChunkRecord { id, stored: std::mem::take(&mut stored), plain, encoding, kind }
        }));
        let record = self.chunks.get(first).ok_or(Error::Crypto { doing: "seal nothing" })?;
        // The offset only grows, so no nonce of this pack's key comes twice.
        self.sealer.seal(offset, &record.associated(&self.header, offset), &mut compressed)?;
        self.append(compressed.into());
        Ok(())
    }

    /// Closes the pack.
    pub(crate) fn finish(mut self, keys: &Keys) -> FinishedPack {
        let mut end = Vec::with_capacity(self.chunks.len() * super::ENTRY + super::TRAILER);
        for chunk in &self.chunks {
            put_entry(chunk, &mut end);
        }
        end.extend_from_slice(&directory_mac(keys, &self.header, &self.chunks));
        end.extend_from_slice(&(self.chunks.len() as u32).to_le_bytes());
        end.extend_from_slice(&END);
        self.append(end.into());
        let id = ObjectId::from_bytes(*self.hasher.finalize().as_bytes());
        let record = PackRecord { id, header: self.header, size: self.length, chunks: self.chunks };
        FinishedPack { record, payload: self.parts.into_iter().collect() }
    }
}

/// Authenticates what a pack says of itself.
pub(super) fn directory_mac(keys: &Keys, header: &PackHeader, chunks: &[ChunkRecord]) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(HEADER + chunks.len() * super::ENTRY);
    bytes.extend_from_slice(&header.to_bytes());
    for chunk in chunks {
        put_entry(chunk, &mut bytes);
    }
    keys.directory_mac(&bytes)
}

impl PackRecord {
    /// Whether `mac` was made by somebody with the key, of just this header and directory.
    pub(crate) fn is_authentic(&self, keys: &Keys, mac: [u8; 32]) -> bool {
        // Comparing hashes takes constant time.
        let own = blake3::Hash::from_bytes(directory_mac(keys, &self.header, &self.chunks));
        own == blake3::Hash::from_bytes(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::compress;
    use crate::crypto::RootKey;
    use crate::id::RepositoryId;
    use proptest::prelude::*;

    fn pack(keys: &Keys, contents: &[&[u8]]) -> (PackRecord, Vec<u8>) {
        let mut builder = PackBuilder::new(keys, Contents::Data).unwrap();
        for plain in contents {
            let (encoding, stored) = compress(plain, 1);
            let id = keys.chunk_id(ChunkKind::Data, plain);
            builder.add(ChunkKind::Data, &[(id, plain.len() as u32)], encoding, stored).unwrap();
        }
        let pack = builder.finish(keys);
        (pack.record, pack.payload.iter().flat_map(|part| part.to_vec()).collect())
    }

    fn parse(id: ObjectId, bytes: &[u8]) -> Result<(PackRecord, [u8; 32])> {
        let size = bytes.len() as u64;
        let trailer = &bytes[bytes.len().saturating_sub(crate::pack::TRAILER)..];
        let end = PackRecord::end("p", size, trailer)? as usize;
        PackRecord::parse("p", id, size, bytes, &bytes[end..])
    }

    fn keys() -> Keys {
        Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([3; 16]))
    }

    #[test]
    fn the_directory_tells_what_is_inside() {
        let keys = keys();
        let (record, bytes) = pack(&keys, &[b"one", &[7; 5000], b""]);
        assert_eq!(record.id, ObjectId::of(&bytes));
        let (parsed, mac) = parse(record.id, &bytes).unwrap();
        assert_eq!(parsed, record);
        assert!(parsed.is_authentic(&keys, mac));
        let mut renamed = parsed;
        renamed.chunks[0].plain += 1;
        assert!(!renamed.is_authentic(&keys, mac));
    }

    #[test]
    fn a_block_lies_in_one_place() {
        let keys = keys();
        let id = |number: u8| ChunkId::from_bytes([number; 32]);
        let mut builder = PackBuilder::new(&keys, Contents::Data).unwrap();
        builder.add(ChunkKind::Data, &[(id(1), 9)], Encoding::Raw, vec![0; 9]).unwrap();
        let members = [(id(2), 0), (id(3), 7), (id(4), 3)];
        builder.add(ChunkKind::Data, &members, Encoding::Solid, vec![0; 50]).unwrap();
        builder.add(ChunkKind::Data, &[(id(5), 4)], Encoding::Solid, vec![0; 4]).unwrap();
        let record = builder.finish(&keys).record;
        let places: Vec<_> = record
            .places()
            .map(|at| (at.chunk.id.as_bytes()[0], at.offset, at.stored, at.inner))
            .collect();
        let tag = crate::crypto::TAG as u32;
        let (block, last) = (64 + 9 + u64::from(tag), 64 + 59 + 2 * u64::from(tag));
        let expected = [
            (1, 64, 9 + tag, 0),
            (2, block, 50 + tag, 0),
            (3, block, 50 + tag, 0),
            (4, block, 50 + tag, 7),
            (5, last, 4 + tag, 0),
        ];
        assert_eq!(places, expected);
        assert_eq!(record.units().map(|unit| unit.chunks.len()).collect::<Vec<_>>(), [1, 3, 1]);
    }

    proptest! {
        #[test]
        fn damaged_packs_are_refused_without_panic(
            cut in 0_usize..400, at in 0_usize..400, bit in 0_u8..8
        ) {
            let (record, bytes) = pack(&keys(), &[b"one", &[7; 5000]]);
            let _ = parse(record.id, &bytes[..cut.min(bytes.len())]);
            let mut bytes = bytes;
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok((parsed, mac)) = parse(record.id, &bytes) {
                let sealed = parsed == record;
                prop_assert!(sealed || !parsed.is_authentic(&keys(), mac));
            }
        }
    }
}
