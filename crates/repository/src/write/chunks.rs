//! Chunks on their way into packs.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::Context;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::block::{Block, Gatherer};
use super::inventory;
use crate::chunk::{ChunkKind, Encoding, MAX_BLOCK, MAX_CHUNK, compress, compress_block};
use crate::content::Piece;
use crate::crypto::Purpose;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId};
use crate::index::{IndexObject, Reliance};
use crate::maintenance::{Marks, Session};
use crate::objects::{INDEX, name_in, pack_name};
use crate::pack::{Contents, FinishedPack, PackBuilder, PackRecord, read_record};
use crate::read::{pick, read_unit};
use crate::repository::Shared;

/// Data goes to one of so many open packs at random, so that the sizes of stored chunks do not
/// tell which file they come from.
const OPEN_DATA_PACKS: usize = 2;
/// How many packs are being stored at once.
const UPLOADS: usize = 4;
/// So many stored packs are made known by an index object in the middle of a write: a run that is
/// killed leaves them to the next one.
const PACKS_PER_INDEX: usize = 4;

/// How many packs are looked for at once.
const LOOKS: usize = 16;

/// How often a write that is about to commit stores again what was marked meanwhile.
const ROUNDS: usize = 20;

/// Stores chunks that the repository does not have, each once.
pub(crate) struct ChunkWriter {
    shared: Arc<Shared>,
    context: Context,
    level: i32,
    session: Arc<Session>,
    /// The chunks that were taken and that no index names yet.
    claimed: Mutex<HashSet<ChunkId>>,
    /// The packs that the snapshot will need.
    reliance: Reliance,
    open: Mutex<OpenPacks>,
    /// Small chunks that are gathered, in a repository whose readers know blocks.
    gatherer: Option<Gatherer>,
    /// Bytes of chunks anywhere between the caller and the store.
    memory: Arc<Semaphore>,
    uploads: Semaphore,
    /// Chunks on the pool.
    compressing: TaskTracker,
    /// Packs on their way to the store.
    uploading: TaskTracker,
    /// One of them has ended.
    progress: Notify,
    runtime: tokio::runtime::Handle,
    stored: Mutex<Vec<PackRecord>>,
    written: AtomicU64,
    failure: Mutex<Option<Arc<Error>>>,
}

/// A chunk or a block, compressed.
struct Compressed {
    kind: ChunkKind,
    /// The chunks in it, each with its plain length.
    members: Vec<(ChunkId, u32)>,
    encoding: Encoding,
    stored: Vec<u8>,
    /// What its chunks took from the budget.
    permits: OwnedSemaphorePermit,
}

#[derive(Default)]
struct OpenPacks {
    data: [Option<OpenPack>; OPEN_DATA_PACKS],
    trees: Option<OpenPack>,
}

struct OpenPack {
    builder: PackBuilder,
    /// What the sealed chunks took from the budget; given back when the pack is stored.
    permits: Option<OwnedSemaphorePermit>,
}

impl ChunkWriter {
    /// Begins a write: publishes a session, and then reads the marks and the index, in this order.
    pub(crate) async fn begin(
        shared: Arc<Shared>,
        context: Context,
        level: i32,
        what: &str,
    ) -> Result<Arc<Self>> {
        shared.features().may_write()?;
        let host = lifeboat_core::host();
        let session = Session::begin(&shared.objects, &shared.keys, &host, what).await?;
        look(&shared, &context).await?;
        Ok(Self::new(shared, context, level, session))
    }

    fn new(shared: Arc<Shared>, context: Context, level: i32, session: Arc<Session>) -> Arc<Self> {
        let average = shared.config.parameters.chunk_average;
        let gatherer = shared.features().has_blocks().then(|| Gatherer::new(average));
        let pack = shared.config.parameters.pack as usize;
        // Open packs hold their part for long; the rest must always suffice for work to go on,
        // also where a chunk is larger than a pack.
        let open = (OPEN_DATA_PACKS + 1) * pack + MAX_BLOCK;
        let memory = open + ((UPLOADS - 1) * pack).max(2 * MAX_CHUNK);
        Arc::new(Self {
            shared,
            context,
            level,
            session,
            claimed: Mutex::default(),
            reliance: Reliance::default(),
            open: Mutex::default(),
            gatherer,
            memory: Arc::new(Semaphore::new(memory)),
            uploads: Semaphore::new(UPLOADS),
            compressing: TaskTracker::new(),
            uploading: TaskTracker::new(),
            progress: Notify::new(),
            runtime: tokio::runtime::Handle::current(),
            stored: Mutex::default(),
            written: AtomicU64::new(0),
            failure: Mutex::default(),
        })
    }

    /// What goes with the work: pool, keys, index.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Bytes written to the store so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether every chunk of the pieces is one that the repository has.
    ///
    /// What an earlier snapshot refers to may be lost by now; a new one must not inherit that.
    pub(crate) fn has_all(&self, pieces: &[Piece]) -> bool {
        pieces.iter().filter_map(|piece| piece.chunk).all(|chunk| self.has(&chunk))
    }

    /// Whether the repository has a chunk, or will have it when this write is committed.
    pub(crate) fn has(&self, chunk: &ChunkId) -> bool {
        // In this order: a claim ends after the index has the chunk.
        self.claimed.lock().contains(chunk) || self.shared.index.rely(chunk, &self.reliance)
    }

    /// Takes a chunk. Returns when it is queued; that it is durable is known after
    /// [`ChunkWriter::settle`].
    pub(crate) async fn store(
        self: &Arc<Self>,
        kind: ChunkKind,
        id: ChunkId,
        plain: Bytes,
    ) -> Result<()> {
        self.check()?;
        if plain.len() > MAX_CHUNK {
            return Err(Error::ObjectTooLarge { kind: "chunk" });
        }
        if self.has(&id) {
            return Ok(());
        }
        self.store_again(kind, id, plain).await
    }

    /// Takes a chunk whether the repository has it or not, but not twice.
    pub(crate) async fn store_again(
        self: &Arc<Self>,
        kind: ChunkKind,
        id: ChunkId,
        plain: Bytes,
    ) -> Result<()> {
        let permits = Arc::clone(&self.memory).acquire_many_owned(plain.len().max(1) as u32).await;
        let permits = permits.map_err(|_| Error::Worker { doing: "store a chunk" })?;
        // Held until somebody has the chunk: a flush finds whatever is claimed, or hears of it.
        let mut claimed = self.claimed.lock();
        // Claimed only now: who waits may be dropped, and others rely on what is claimed. While
        // this one waited, another one may have come with the same chunk.
        if !claimed.insert(id) {
            return Ok(());
        }
        // What describes the content is stored as well, but nobody thinks of it as their data.
        if kind.is_data() {
            self.context.count_new(plain.len() as u64);
        }
        let gatherer = self.gatherer.as_ref().filter(|_| kind.is_data());
        if let Some(gatherer) = gatherer.filter(|gatherer| gatherer.takes(plain.len())) {
            if let Some(full) = gatherer.add(id, &plain, permits) {
                self.close(full);
            }
            return Ok(());
        }
        self.work(move |writer| {
            let (encoding, stored) = compress(&plain, writer.level);
            let members = vec![(id, plain.len() as u32)];
            drop(plain);
            writer.pack(Compressed { kind, members, encoding, stored, permits })
        });
        Ok(())
    }

    /// Compresses a block.
    fn close(self: &Arc<Self>, block: Block) {
        let Block { plain, members, permits } = block;
        let Some(permits) = permits else { return };
        self.work(move |writer| {
            let stored = compress_block(&plain, writer.level);
            drop(plain);
            let stored = stored.ok_or(Error::Worker { doing: "compress a block" })?;
            let (kind, encoding) = (ChunkKind::Data, Encoding::Solid);
            writer.pack(Compressed { kind, members, encoding, stored, permits })
        });
    }

    /// Has work done on the pool.
    fn work(self: &Arc<Self>, work: impl FnOnce(&Arc<Self>) -> Result<()> + Send + 'static) {
        let (writer, job) = (Arc::clone(self), Job::new(self, &self.compressing));
        self.shared.pool.spawn(move || {
            let result = work(&writer);
            writer.note(result);
            drop(job);
        });
    }

    /// Appends what is compressed to an open pack, and sends the pack off when it is full.
    fn pack(self: &Arc<Self>, compressed: Compressed) -> Result<()> {
        let Compressed { kind, members, encoding, stored, mut permits } = compressed;
        drop(permits.split(permits.num_permits().saturating_sub(stored.len())));
        let target = u64::from(self.shared.config.parameters.pack);
        let mut open = self.open.lock();
        let (slot, contents) = if kind.is_data() {
            (&mut open.data[rand::random_range(0..OPEN_DATA_PACKS)], Contents::Data)
        } else {
            (&mut open.trees, Contents::Trees)
        };
        let mut pack = match slot.take() {
            Some(pack) => pack,
            None => {
                let builder = PackBuilder::new(&self.shared.keys, contents)?;
                OpenPack { builder, permits: None }
            }
        };
        pack.builder.add(kind, &members, encoding, stored)?;
        match &mut pack.permits {
            Some(held) => held.merge(permits),
            None => pack.permits = Some(permits),
        }
        if !pack.builder.is_full(target) {
            *slot = Some(pack);
            return Ok(());
        }
        drop(open);
        self.send(pack);
        Ok(())
    }

    fn send(self: &Arc<Self>, pack: OpenPack) {
        let (writer, job) = (Arc::clone(self), Job::new(self, &self.uploading));
        let finished = pack.builder.finish(&self.shared.keys);
        self.runtime.spawn(async move {
            let result = writer.upload(finished).await;
            writer.note(result);
            drop(pack.permits);
            drop(job);
        });
    }

    async fn upload(&self, pack: FinishedPack) -> Result<()> {
        let slot = self.uploads.acquire().await;
        let _slot = slot.map_err(|_| Error::Worker { doing: "store a pack" })?;
        // After an error nothing of this write will be used.
        self.check()?;
        let FinishedPack { record, payload } = pack;
        // All else is needed by commands that must not wait for a thaw.
        let is_data = record.header.purpose() == Some(Purpose::Data);
        let class = self.shared.data_class().filter(|_| is_data);
        let name = pack_name(record.id);
        self.shared.objects.create_in(class.as_deref(), &name, payload).await?;
        self.count(record.size);
        let due = {
            let mut stored = self.stored.lock();
            stored.push(record);
            (stored.len() >= PACKS_PER_INDEX).then(|| std::mem::take(&mut *stored))
        };
        match due {
            Some(packs) => self.write_index(packs).await,
            None => Ok(()),
        }
    }

    async fn write_index(&self, packs: Vec<PackRecord>) -> Result<()> {
        let object = IndexObject { packs };
        let (id, size) = object.write(&self.shared.objects, &self.shared.keys).await?;
        if !self.session.stands().await? {
            // Taken for dead: what no index named may have been deleted. None must name it now.
            self.see_packs(id, &object.packs).await?;
        }
        self.count(size);
        self.shared.index.add(id, &object.packs);
        for pack in &object.packs {
            self.shared.index.rely_on(&pack.id, &self.reliance);
        }
        let mut claimed = self.claimed.lock();
        for chunk in object.packs.iter().flat_map(|pack| &pack.chunks) {
            claimed.remove(&chunk.id);
        }
        Ok(())
    }

    /// Sees that packs are still there, or takes back the index object that names them.
    async fn see_packs(&self, index: ObjectId, packs: &[PackRecord]) -> Result<()> {
        for pack in packs {
            if self.shared.objects.head(&pack_name(pack.id)).await?.is_none() {
                self.shared.objects.delete(&name_in(INDEX, index)).await?;
                return Err(Error::Overtaken { pack: pack.id.to_string() });
            }
        }
        Ok(())
    }

    fn count(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.context.count_stored(bytes);
    }

    /// Returns when every chunk taken so far is in a stored pack that a stored index names. What
    /// is taken meanwhile goes on its way.
    async fn flush(self: &Arc<Self>) -> Result<()> {
        let mut waiting = self.claimed.lock().clone();
        loop {
            // Before looking: what happens from here on is noticed.
            let mut progress = pin!(self.progress.notified());
            let compressed = self.compressing.is_empty();
            let idle = self.is_idle();
            {
                let claimed = self.claimed.lock();
                waiting.retain(|chunk| claimed.contains(chunk));
            }
            self.check()?;
            if waiting.is_empty() {
                return Ok(());
            }
            // As soon as all that is waited for is stored, and not before: one index object names
            // all packs of a small write.
            if let Some(packs) = self.take_stored(&waiting) {
                self.write_index(packs).await?;
                continue;
            }
            // Not before: what is still being compressed has room in the same packs.
            let sent = compressed && (self.send_block_of(&waiting) || self.send_packs_of(&waiting));
            if idle && !sent && self.is_idle() && !progress.as_mut().enable() {
                // Nobody is at it, and nobody has been since we looked. Whatever became of it, a
                // panic behind us included: nothing is whole without it.
                return Err(Error::Worker { doing: "store all chunks" });
            }
            progress.await;
        }
    }

    /// Whether nothing is under way.
    fn is_idle(&self) -> bool {
        // In this order: what is compressed begins to be uploaded before it ends.
        self.compressing.is_empty() && self.uploading.is_empty()
    }

    /// The stored packs that no index object names yet, when they hold all of these chunks.
    fn take_stored(&self, chunks: &HashSet<ChunkId>) -> Option<Vec<PackRecord>> {
        let mut stored = self.stored.lock();
        let named = stored.iter().flat_map(|pack| &pack.chunks);
        let held = named.filter(|chunk| chunks.contains(&chunk.id)).count();
        (held >= chunks.len()).then(|| std::mem::take(&mut *stored))
    }

    /// Closes the block that holds one of these chunks. The result is whether there was one.
    fn send_block_of(self: &Arc<Self>, chunks: &HashSet<ChunkId>) -> bool {
        let due = self.gatherer.as_ref().and_then(|gatherer| gatherer.take(chunks));
        let any = due.is_some();
        due.into_iter().for_each(|block| self.close(block));
        any
    }

    /// Sends off the open packs that hold one of these chunks. The result is whether there were
    /// any.
    fn send_packs_of(self: &Arc<Self>, chunks: &HashSet<ChunkId>) -> bool {
        let mut open = self.open.lock();
        let OpenPacks { data, trees } = &mut *open;
        let due: Vec<_> = data
            .iter_mut()
            .chain([trees])
            .filter_map(|slot| slot.take_if(|pack| pack.builder.has_any(chunks)))
            .collect();
        drop(open);
        let any = !due.is_empty();
        due.into_iter().for_each(|pack| self.send(pack));
        any
    }

    /// Returns when all that was taken or relied on is durable and may stay: what lives only in
    /// packs that were marked meanwhile has been stored again. Then a snapshot may be committed.
    pub(crate) async fn settle(self: &Arc<Self>) -> Result<()> {
        self.flush().await?;
        for _ in 0..ROUNDS {
            let stood = self.session.renew().await?;
            look(&self.shared, &self.context).await?;
            if !stood {
                self.lose_missing().await?;
            }
            let broken = self.shared.index.broken(&self.reliance);
            if broken.is_empty() {
                return Ok(());
            }
            for pack in broken {
                self.rescue(pack).await?;
            }
            self.flush().await?;
        }
        Err(Error::Worker { doing: "find packs that stay" })
    }

    /// After the commit, before anybody is told: looks once more what was marked, and makes good
    /// what was deleted if somebody took this writer for dead meanwhile. Then the session ends.
    ///
    /// The look is what whoever deletes can rely on if his listings are behind: a pack that was
    /// not marked when the snapshot was there already is deleted long after the snapshot came.
    pub(crate) async fn confirm(self: &Arc<Self>) -> Result<()> {
        self.settle().await?;
        while !self.session.stands().await? {
            self.settle().await?;
        }
        self.session.end().await;
        Ok(())
    }

    /// Finds out which packs are gone: a writer that was taken for dead was waited for by nobody.
    async fn lose_missing(&self) -> Result<()> {
        let Shared { objects, index, .. } = &*self.shared;
        // One by one: a listing may still show what was just deleted.
        let asked = stream::iter(index.relied(&self.reliance)).map(|pack| {
            let objects = objects.clone();
            async move { Ok::<_, Error>((pack, objects.head(&pack_name(pack)).await?.is_some())) }
        });
        let asked: Vec<_> = asked.buffer_unordered(LOOKS).try_collect().await?;
        index.lose(asked.into_iter().filter_map(|(pack, there)| (!there).then_some(pack)));
        Ok(())
    }

    /// Stores again what only this pack has, and relies on it no more.
    async fn rescue(self: &Arc<Self>, pack: ObjectId) -> Result<()> {
        match self.copy_out(pack).await {
            Err(Error::Damaged { what, .. }) => {
                // Noted, so that the next run does not rely on it in the first place.
                inventory::note_damage(&self.shared, pack, what).await;
                Err(Error::FoundDamaged { pack: pack.to_string() })
            }
            done => done,
        }
    }

    async fn copy_out(self: &Arc<Self>, pack: ObjectId) -> Result<()> {
        let name = pack_name(pack);
        let gone = || Error::Overtaken { pack: pack.to_string() };
        let listed = self.shared.objects.head(&name).await?.ok_or_else(gone)?;
        let record = read_record(&self.shared, pack, listed.size).await?;
        for unit in record.units() {
            let wanted: Vec<_> = unit.places().filter(|place| !self.has(&place.chunk.id)).collect();
            if wanted.is_empty() {
                continue;
            }
            let opened = read_unit(&self.shared, &record, &unit).await?;
            for place in wanted {
                let plain = pick(&self.shared.keys, &name, &place, &opened)?;
                let kind = place.chunk.kind();
                let kind = kind.ok_or_else(|| Error::damaged(&name, "a chunk's kind"))?;
                self.store_again(kind, place.chunk.id, plain).await?;
            }
        }
        self.shared.index.rely_no_more(&pack, &self.reliance);
        Ok(())
    }

    fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            self.failure.lock().get_or_insert(Arc::new(error));
        }
    }

    /// The first error of the work behind.
    fn check(&self) -> Result<()> {
        match &*self.failure.lock() {
            Some(error) => Err(Error::Earlier(Arc::clone(error))),
            None => Ok(()),
        }
    }

    /// Ends what runs behind: uploads that have not begun do not begin any more.
    pub(crate) fn give_up(&self) {
        self.note(Err(Error::Source(lifeboat_core::Error::cancelled())));
    }
}

/// Something that is under way behind a write. Whoever waits for it hears of its end, also when
/// it ends in a panic.
struct Job(Arc<ChunkWriter>, Option<TaskTrackerToken>);

impl Job {
    fn new(writer: &Arc<ChunkWriter>, of: &TaskTracker) -> Self {
        Self(Arc::clone(writer), Some(of.token()))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        drop(self.1.take());
        self.0.progress.notify_waiters();
    }
}

/// Reads the marks and then the index: what may be relied on.
async fn look(shared: &Shared, context: &Context) -> Result<()> {
    let marks = match Marks::read(&shared.objects, &shared.keys).await {
        Err(Error::Rotated { .. }) => {
            shared.renew_keys().await?;
            Marks::read(&shared.objects, &shared.keys).await?
        }
        other => other?,
    };
    for (name, what) in &marks.damaged {
        context.warn(name, format!("this list of marks is damaged and is not heeded: {what}"));
    }
    shared.index.mark(marks.packs());
    shared.refresh_index().await
}
