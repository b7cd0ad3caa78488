//! One chunk at a time, checked.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared as SharedFuture};
use parking_lot::Mutex;

use super::open::{Sealed, pick};
use crate::chunk::ChunkKind;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId, RepositoryId};
use crate::index::Location;
use crate::objects::pack_name;
use crate::pack::{ChunkRecord, PackHeader, PackRecord, Place, Unit};
use crate::repository::Shared;

/// Bytes of opened chunks and blocks that are kept: neighbours in a file often share a chunk, and
/// small files a block.
const KEPT: usize = 24 << 20;

/// Reads chunks, and keeps the last ones.
pub(crate) struct ChunkReader {
    shared: Arc<Shared>,
    kept: Arc<Mutex<Kept>>,
}

/// Where something was sealed in one piece: its pack, and where it begins there. Of a chunk by
/// itself also its name, which was checked when it was opened: an index may be wrong.
type UnitPlace = (ObjectId, u64, Option<(ChunkKind, ChunkId)>);

/// What is being read, or was. Whoever waits for it drives it: the one that began may have been
/// left alone, or wait for something else itself.
type Reading = SharedFuture<BoxFuture<'static, Result<Bytes, Failure>>>;

/// Why something could not be read, for the first one that asks.
type Failure = Arc<Mutex<Option<Error>>>;

/// What was opened last, and what is being read: nothing is read twice at a time.
#[derive(Default)]
struct Kept {
    units: HashMap<UnitPlace, Reading>,
    order: VecDeque<(UnitPlace, usize)>,
    bytes: usize,
}

impl Kept {
    /// Takes note of what was read, and lets go of the oldest.
    fn keep(&mut self, at: UnitPlace, size: usize) {
        self.order.push_back((at, size));
        self.bytes += size;
        while self.bytes > KEPT
            && let Some((oldest, size)) = self.order.pop_front()
        {
            self.units.remove(&oldest);
            self.bytes -= size;
        }
    }
}

impl ChunkReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, kept: Arc::default() }
    }

    /// Whose chunks they are.
    pub(crate) fn repository(&self) -> RepositoryId {
        self.shared.keys.repository()
    }

    /// The fingerprint of a page.
    pub(crate) fn fingerprint(&self, page: &[u8]) -> [u8; 16] {
        self.shared.keys.fingerprint(page)
    }

    /// Everywhere that a chunk is, as the index says.
    pub(crate) fn locations(&self, id: &ChunkId) -> Vec<Location> {
        self.shared.index.locations(id)
    }

    /// Whether a chunk is in a pack that is sound as far as anybody knows.
    pub(crate) fn has(&self, id: &ChunkId) -> bool {
        self.shared.index.has(id)
    }

    /// The plain bytes of a chunk. Where it is stored more than once, one sound copy suffices.
    pub(crate) async fn read(&self, kind: ChunkKind, id: ChunkId) -> Result<Bytes> {
        let mut failure = Error::MissingChunk { id: id.to_string() };
        for location in self.shared.index.locations(&id) {
            match self.read_at(kind, id, &location).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    if error.is_damage() {
                        // Nothing new relies on a pack that was found to be damaged.
                        self.shared.index.lose([location.pack.id]);
                    }
                    failure = error;
                }
            }
        }
        Err(failure)
    }

    /// How many bytes a chunk has, as far as the index knows it.
    pub(crate) fn plain_length(&self, id: &ChunkId) -> Option<u32> {
        self.shared.index.locations(id).first().map(|location| location.plain)
    }

    async fn read_at(&self, kind: ChunkKind, id: ChunkId, location: &Location) -> Result<Bytes> {
        let record = location.record(id, kind as u8);
        let alone = (!location.is_in_block()).then_some((kind, id));
        let at = (location.pack.id, location.offset, alone);
        let reading = {
            let mut kept = self.kept.lock();
            kept.units.entry(at).or_insert_with(|| self.reading(at, record, location)).clone()
        };
        let opened = match reading.await {
            Ok(opened) => opened,
            Err(failure) => {
                let failure = failure.lock().take();
                match failure {
                    Some(failure) => return Err(failure),
                    None => fetch(&self.shared, record, location).await?,
                }
            }
        };
        let Location { offset, stored, inner, .. } = *location;
        let place = Place { offset, stored, inner, chunk: &record };
        // A chunk of a block is small: checking it takes less than the way to the pool.
        pick(&self.shared.keys, &pack_name(location.pack.id), &place, &opened)
    }

    fn reading(&self, at: UnitPlace, record: ChunkRecord, location: &Location) -> Reading {
        let (shared, kept) = (Arc::clone(&self.shared), Arc::clone(&self.kept));
        let location = location.clone();
        let reading = async move {
            let read = fetch(&shared, record, &location).await;
            let mut kept = kept.lock();
            match &read {
                Ok(opened) => kept.keep(at, opened.len()),
                // The next one tries again.
                Err(_) => drop(kept.units.remove(&at)),
            }
            read.map_err(|error| Arc::new(Mutex::new(Some(error))))
        };
        reading.boxed().shared()
    }
}

/// Reads and opens what is at a place, as the index says.
async fn fetch(shared: &Arc<Shared>, record: ChunkRecord, location: &Location) -> Result<Bytes> {
    let name = pack_name(location.pack.id);
    let Location { pack, offset, stored, .. } = location.clone();
    let end = offset + u64::from(stored);
    if end > pack.size {
        return Err(Error::damaged(name, "the index names a place beyond its end"));
    }
    open(shared, name, pack.header, offset..end, record).await
}

/// Reads and opens what was sealed in one piece; [`pick`] takes the chunks out of it.
pub(crate) async fn read_unit(
    shared: &Arc<Shared>,
    pack: &PackRecord,
    unit: &Unit<'_>,
) -> Result<Bytes> {
    let place = unit.offset..unit.offset + u64::from(unit.stored);
    open(shared, pack_name(pack.id), pack.header, place, unit.chunks[0]).await
}

async fn open(
    shared: &Arc<Shared>,
    name: String,
    header: PackHeader,
    place: Range<u64>,
    record: ChunkRecord,
) -> Result<Bytes> {
    let offset = place.start;
    let bytes = shared.objects.range(&name, place).await?;
    let worker = Arc::clone(shared);
    let open = move || {
        let sealed = Sealed { pack: &name, header: &header, offset, bytes: &bytes };
        sealed.open(&worker.keys, &record)
    };
    shared.pool.run("open a chunk", open).await?
}
