//! One chunk at a time, checked.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::chunk::{ChunkKind, MAX_CHUNK, decompress};
use crate::crypto::{Keys, Purpose};
use crate::error::{Error, Result};
use crate::id::{ChunkId, RepositoryId};
use crate::index::Location;
use crate::objects::pack_name;
use crate::pack::{ChunkRecord, PackHeader};
use crate::repository::Shared;

/// Bytes of opened chunks that are kept: neighbours in a file often share a chunk.
const KEPT: usize = 24 << 20;

/// Reads chunks, and keeps the last ones.
pub(crate) struct ChunkReader {
    shared: Arc<Shared>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    chunks: HashMap<ChunkId, Bytes>,
    order: VecDeque<ChunkId>,
    bytes: usize,
}

impl Kept {
    fn insert(&mut self, id: ChunkId, bytes: &Bytes) {
        if self.chunks.insert(id, bytes.clone()).is_some() {
            return;
        }
        self.order.push_back(id);
        self.bytes += bytes.len();
        while self.bytes > KEPT {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.bytes -= self.chunks.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }
}

impl ChunkReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, kept: Mutex::default() }
    }

    /// Whose chunks they are.
    pub(crate) fn repository(&self) -> RepositoryId {
        self.shared.keys.repository()
    }

    /// The plain bytes of a chunk. Where it is stored more than once, one sound copy suffices.
    pub(crate) async fn read(&self, kind: ChunkKind, id: ChunkId) -> Result<Bytes> {
        let kept = self.kept.lock().chunks.get(&id).cloned();
        if let Some(bytes) = kept {
            return Ok(bytes);
        }
        let mut failure = Error::MissingChunk { id: id.to_string() };
        for location in self.shared.index.locations(&id) {
            match self.fetch(kind, id, &location).await {
                Ok(bytes) => {
                    self.kept.lock().insert(id, &bytes);
                    return Ok(bytes);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// How many bytes a chunk has, as far as the index knows it.
    pub(crate) fn plain_length(&self, id: &ChunkId) -> Option<u32> {
        self.shared.index.locations(id).first().map(|location| location.plain)
    }

    async fn fetch(&self, kind: ChunkKind, id: ChunkId, location: &Location) -> Result<Bytes> {
        let name = pack_name(location.pack.id);
        let end = location.offset + u64::from(location.stored);
        if end > location.pack.size {
            return Err(Error::damaged(name, "the index names a place beyond its end"));
        }
        let sealed = self.shared.objects.range(&name, location.offset..end).await?;
        let (shared, location) = (Arc::clone(&self.shared), location.clone());
        let open = move || {
            let record = location.record(id, kind as u8);
            let header = &location.pack.header;
            open_chunk(&shared.keys, &name, header, location.offset, &record, &sealed)
        };
        self.shared.pool.run("open a chunk", open).await?
    }
}

/// Opens a sealed chunk and checks that it is what its record says.
pub(crate) fn open_chunk(
    keys: &Keys,
    pack: &str,
    header: &PackHeader,
    offset: u64,
    record: &ChunkRecord,
    sealed: &[u8],
) -> Result<Bytes> {
    let id = record.id;
    let damaged = |what: &str| Error::damaged(pack, format!("chunk {id} at byte {offset}: {what}"));
    let cipher = header.cipher().ok_or_else(|| damaged("its cipher is unknown"))?;
    let length = record.plain as usize;
    if header.repository != keys.repository() {
        return Err(damaged("it belongs to another repository"));
    }
    if length > MAX_CHUNK || sealed.len() != record.stored as usize {
        return Err(damaged("its length is out of range"));
    }
    let kind = record.kind().ok_or_else(|| damaged("its kind is unknown"))?;
    let purpose = header.purpose().ok_or_else(|| damaged("its pack holds something unknown"))?;
    if kind.is_data() != (purpose == Purpose::Data) {
        return Err(damaged("it lies among chunks of another kind"));
    }
    let sealer = keys.sealer(cipher, header.epoch, purpose, header.salt())?;
    let mut sealed = sealed.to_vec();
    let bound = record.associated(header, offset);
    let compressed =
        sealer.open(offset, &bound, &mut sealed).ok_or_else(|| damaged("it is not authentic"))?;
    let plain = decompress(record.encoding, compressed, length)
        .ok_or_else(|| damaged("it does not decompress"))?;
    // Sealing proves who wrote it; only the name proves that it is what was asked for.
    if keys.chunk_id(kind, &plain) != id {
        return Err(damaged("its content does not match its name"));
    }
    Ok(plain.into())
}
