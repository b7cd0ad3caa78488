//! Few large index objects in place of many small ones.
//!
//! Every backup adds at least one index object, and whoever opens the repository reads all that
//! his cache does not have. Compaction merges those of about a size, so that what is large is not
//! written again for every small one that comes, and each entry is moved a few times in its life.
//!
//! It needs no lock. The merged objects are written first and the old ones deleted then, so at
//! every moment all is named; who listed the old ones before finds them gone, lists again, and
//! finds the new ones. Two compactions at once leave packs that are named twice.
//!
//! What it must not do is to name a pack anew that is being deleted: somebody would rely on it.
//! And it must not take a marked pack out of the index either, which may be rescued. So an index
//! object that names a marked pack stays as it is. Compaction runs under the lease of maintenance,
//! and because a lease can be lost, it looks again after it has written: where an object that it
//! merged is gone or a pack in it was marked meanwhile, it takes back what it wrote.

use std::collections::HashSet;

use futures_util::TryStreamExt;
use lifeboat_core::{Context, Failure};

use super::IndexObject;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::maintenance::{Lease, Marks};
use crate::objects::{INDEX, id_of, name_in};
use crate::pack::PackRecord;
use crate::repository::{Repository, Shared};

/// Index objects of so many bytes stay as they are.
const LARGE: u64 = 16 << 20;
/// So many of about a size are worth merging.
const MANY: usize = 8;
/// A merged object is written when its plain bytes are about so many. One pack on top of it keeps
/// it far below the limit of index objects.
const FULL: usize = 40 << 20;

/// What a compaction of the index did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactReport {
    /// How many index objects there were.
    pub before: u64,
    /// How many of them were deleted, since others say all that they say.
    pub deleted: u64,
    /// How many were written in their place.
    pub written: u64,
    /// How many could have gone, but the store refused to delete them: as under object lock, or
    /// where this host may only add. They do no harm.
    pub refused: u64,
    /// What the store said to it.
    pub refusal: Option<String>,
    /// Whether what was written was taken back, since somebody else changed the index meanwhile.
    pub overtaken: bool,
}

impl Repository {
    /// Merges small index objects into large ones, so that opening the repository takes fewer
    /// requests. Does nothing where there are few.
    ///
    /// Safe beside any number of writers and readers.
    ///
    /// # Errors
    /// When somebody else is at maintenance, or the store cannot be read or written.
    pub async fn compact_index(&self, context: &Context) -> Result<CompactReport> {
        let shared = self.shared();
        shared.refresh_features().await?.may_delete()?;
        let lease = shared.lease("compact the index").await?;
        let result = compact(shared, &lease, context).await;
        lease.give_back().await;
        result
    }
}

/// As [`Repository::compact_index`], for who has the lease.
async fn compact(shared: &Shared, lease: &Lease, context: &Context) -> Result<CompactReport> {
    context.phase("merge small index objects");
    let listed: Vec<_> = shared.objects.list(INDEX).try_collect().await?;
    let listed = listed.iter().filter_map(|listed| Some((id_of(&listed.name)?, listed.size)));
    let listed: Vec<_> = listed.collect();
    let mut report = CompactReport { before: listed.len() as u64, ..CompactReport::default() };
    let chosen = choose(listed);
    if chosen.is_empty() {
        return Ok(report);
    }
    let marked = Marks::read(&shared.objects, &shared.keys).await?;
    if let Some((name, what)) = marked.damaged.first() {
        return Err(Error::damaged(name, what));
    }
    let marked = marked.packs();
    shared.refresh_index().await?;
    // What an earlier run could not delete, or another one merged at the same time.
    let mut idle = shared.index.covered(&chosen);
    let left = chosen.into_iter().filter(|id| !idle.contains(id)).collect();
    let merged = Merging::new(shared, context).run(left, &marked).await?;
    report.written = merged.written.len() as u64;
    if merged.is_overtaken(shared, &marked).await? {
        report.overtaken = true;
        for id in &merged.written {
            shared.objects.delete(&name_in(INDEX, *id)).await?;
        }
        return Ok(report);
    }
    idle.extend(merged.sources);
    lease.check().await?;
    for id in idle {
        context.check()?;
        match shared.objects.delete(&name_in(INDEX, id)).await {
            Ok(()) => report.deleted += 1,
            Err(error) if !error.is_retryable() => {
                report.refused += 1;
                report.refusal.get_or_insert(lifeboat_core::Error::from(error).one_line());
            }
            Err(error) => return Err(error),
        }
    }
    shared.refresh_index().await?;
    Ok(report)
}

/// The index objects to merge: those of the largest size of which there are many, and all smaller
/// ones. Sizes are told apart by a factor of eight.
fn choose(listed: Vec<(ObjectId, u64)>) -> HashSet<ObjectId> {
    let class = |size: u64| size.max(1).ilog2() / 3;
    let small: Vec<_> = listed.into_iter().filter(|(_, size)| *size < LARGE).collect();
    let many = |of: &u32| small.iter().filter(|(_, size)| class(*size) == *of).count() >= MANY;
    let Some(largest) = (0..=class(LARGE)).rev().find(many) else { return HashSet::new() };
    let chosen = small.iter().filter(|(_, size)| class(*size) <= largest);
    chosen.map(|(id, _)| *id).collect()
}

/// Index objects on their way into larger ones.
struct Merging<'a> {
    shared: &'a Shared,
    context: &'a Context,
    packs: Vec<PackRecord>,
    /// About how many plain bytes they have.
    bytes: usize,
    /// What was taken already, by its hash: packs may be named twice.
    taken: HashSet<blake3::Hash>,
    merged: Merged,
}

#[derive(Default)]
struct Merged {
    sources: Vec<ObjectId>,
    written: Vec<ObjectId>,
    packs: HashSet<ObjectId>,
}

impl<'a> Merging<'a> {
    fn new(shared: &'a Shared, context: &'a Context) -> Self {
        let (packs, taken, merged) = (Vec::new(), HashSet::new(), Merged::default());
        Self { shared, context, packs, bytes: 0, taken, merged }
    }

    async fn run(
        mut self,
        sources: HashSet<ObjectId>,
        marked: &HashSet<ObjectId>,
    ) -> Result<Merged> {
        // Fewer are not worth it: the rest is marked, or merged already.
        if sources.len() < MANY {
            return Ok(self.merged);
        }
        let Shared { objects, keys, .. } = self.shared;
        for id in sources {
            self.context.check()?;
            let object = match IndexObject::read(objects, keys, id).await {
                Ok(Some(object)) => object,
                // What is damaged is for a repair.
                Ok(None) | Err(Error::Damaged { .. }) => continue,
                Err(error) => return Err(error),
            };
            if object.packs.iter().any(|pack| marked.contains(&pack.id)) {
                continue;
            }
            self.merged.sources.push(id);
            for pack in object.packs {
                self.push(pack)?;
            }
            if self.bytes >= FULL {
                self.write().await?;
            }
        }
        // One alone would become itself.
        if self.merged.sources.len() < 2 && self.merged.written.is_empty() {
            return Ok(Merged::default());
        }
        self.write().await?;
        Ok(self.merged)
    }

    fn push(&mut self, pack: PackRecord) -> Result<()> {
        let unreadable = |_| Error::Crypto { doing: "encode an index object" };
        let bytes = minicbor::to_vec(&pack).map_err(unreadable)?;
        if self.taken.insert(blake3::hash(&bytes)) {
            self.bytes += bytes.len();
            self.merged.packs.insert(pack.id);
            self.packs.push(pack);
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<()> {
        self.bytes = 0;
        let packs = std::mem::take(&mut self.packs);
        if packs.is_empty() {
            return Ok(());
        }
        let object = IndexObject { packs };
        let (id, _) = object.write(&self.shared.objects, &self.shared.keys).await?;
        self.merged.written.push(id);
        self.shared.index.add(id, &object.packs);
        Ok(())
    }
}

impl Merged {
    /// Whether somebody has deleted an object that was merged, or marked a pack that was named
    /// anew: then packs may be on their way out that only what was written here still names.
    async fn is_overtaken(&self, shared: &Shared, marked: &HashSet<ObjectId>) -> Result<bool> {
        let now = Marks::read(&shared.objects, &shared.keys).await?.packs();
        if now.difference(marked).any(|pack| self.packs.contains(pack)) {
            return Ok(true);
        }
        let listed = shared.objects.list(INDEX);
        let listed = listed.try_filter_map(async |listed| Ok(id_of(&listed.name)));
        let listed: HashSet<_> = listed.try_collect().await?;
        Ok(self.sources.iter().any(|source| !listed.contains(source)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{KdfCost, Secret};
    use crate::id::ChunkId;
    use crate::pack::{ChunkRecord, Contents, PackHeader};
    use crate::repository::InitOptions;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    fn id(number: u32) -> ObjectId {
        ObjectId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    async fn repository() -> Repository {
        let cost = KdfCost { memory_kib: 64, passes: 1, lanes: 1 };
        let options = InitOptions { cost, ..InitOptions::default() };
        let secret = Secret::passphrase("secret");
        Repository::init(Arc::new(InMemory::new()), &secret, &options).await.unwrap()
    }

    /// An index object that names two packs of three chunks.
    fn object(shared: &Shared, number: u32) -> IndexObject {
        let header = PackHeader::draw(&shared.keys, Contents::Data).unwrap();
        let chunk = |number| ChunkRecord {
            id: ChunkId::from_bytes(*id(number).as_bytes()),
            stored: 100,
            plain: 200,
            encoding: 1,
            kind: 1,
        };
        let pack = |number: u32| PackRecord {
            id: id(number),
            header,
            size: 1000,
            chunks: (3 * number..3 * number + 3).map(chunk).collect(),
        };
        IndexObject { packs: vec![pack(2 * number), pack(2 * number + 1)] }
    }

    async fn write(shared: &Shared, object: &IndexObject) -> ObjectId {
        object.write(&shared.objects, &shared.keys).await.unwrap().0
    }

    async fn listed(shared: &Shared) -> HashSet<ObjectId> {
        let listed: Vec<_> = shared.objects.list(INDEX).try_collect().await.unwrap();
        listed.iter().filter_map(|listed| id_of(&listed.name)).collect()
    }

    #[tokio::test]
    async fn many_become_one_and_nothing_is_lost() {
        let repository = repository().await;
        let (shared, context) = (repository.shared(), Context::silent());
        let mut objects = Vec::new();
        for number in 0..20 {
            let object = object(shared, number);
            write(shared, &object).await;
            objects.push(object);
        }
        // Who loaded the old ones goes on.
        shared.index.refresh(&shared.objects, &shared.keys).await.unwrap();
        let done = repository.compact_index(&context).await.unwrap();
        assert_eq!((done.before, done.deleted, done.written, done.refused), (20, 20, 1, 0));
        assert_eq!(listed(shared).await.len(), 1);
        assert_eq!((shared.index.packs().len(), shared.index.scan().count()), (40, 120));
        let again = repository.compact_index(&context).await.unwrap();
        assert_eq!((again.before, again.deleted, again.written), (1, 0, 0));

        // As after a store that refused to delete, or two compactions at once.
        for object in &objects {
            write(shared, object).await;
        }
        let tidied = repository.compact_index(&context).await.unwrap();
        assert_eq!((tidied.before, tidied.deleted, tidied.written), (21, 20, 0));
        assert_eq!((listed(shared).await.len(), shared.index.scan().count()), (1, 120));
    }

    #[tokio::test]
    async fn what_is_named_elsewhere_is_deleted_and_not_written() {
        let repository = repository().await;
        let shared = repository.shared();
        let objects: Vec<_> = (0..20).map(|number| object(shared, number)).collect();
        let packs = objects.iter().flat_map(|object| object.packs.clone()).collect();
        let large = write(shared, &IndexObject { packs }).await;
        let mut small = HashSet::new();
        for object in &objects[..3] {
            small.insert(write(shared, object).await);
        }
        let other = write(shared, &object(shared, 99)).await;
        small.insert(other);
        shared.index.refresh(&shared.objects, &shared.keys).await.unwrap();
        let covered = shared.index.covered(&small);
        assert!(covered.len() == 3 && !covered.contains(&other));
        assert!(shared.index.covered(&HashSet::from([large])).is_empty());
    }

    #[tokio::test]
    async fn an_object_that_names_a_marked_pack_stays() {
        let repository = repository().await;
        let shared = repository.shared();
        let mut written = Vec::new();
        for number in 0..12 {
            written.push(write(shared, &object(shared, number)).await);
        }
        Marks::add(&shared.objects, &shared.keys, &[id(6)]).await.unwrap();
        let done = repository.compact_index(&Context::silent()).await.unwrap();
        assert_eq!((done.deleted, done.written), (11, 1));
        let left = listed(shared).await;
        assert!(left.len() == 2 && left.contains(&written[3]));
        assert_eq!(shared.index.sources(&HashSet::from([id(6)])), [written[3]]);
        assert_eq!(shared.index.packs().len(), 24);
    }

    #[tokio::test]
    async fn who_was_overtaken_takes_back_what_it_wrote() {
        let repository = repository().await;
        let (shared, context) = (repository.shared(), Context::silent());
        let mut sources = HashSet::new();
        for number in 0..9 {
            sources.insert(write(shared, &object(shared, number)).await);
        }
        let none = HashSet::new();
        let merged = Merging::new(shared, &context).run(sources.clone(), &none).await.unwrap();
        assert_eq!((merged.sources.len(), merged.written.len()), (9, 1));
        assert!(!merged.is_overtaken(shared, &none).await.unwrap());
        // A pack that has nothing to do with it.
        Marks::add(&shared.objects, &shared.keys, &[id(1000)]).await.unwrap();
        assert!(!merged.is_overtaken(shared, &none).await.unwrap());
        Marks::add(&shared.objects, &shared.keys, &[id(3)]).await.unwrap();
        assert!(merged.is_overtaken(shared, &none).await.unwrap());
        assert!(!merged.is_overtaken(shared, &HashSet::from([id(3)])).await.unwrap());
        let gone = name_in(INDEX, merged.sources[4]);
        shared.objects.delete(&gone).await.unwrap();
        assert!(merged.is_overtaken(shared, &HashSet::from([id(3)])).await.unwrap());
    }

    #[test]
    fn what_is_large_stays_and_few_are_left_alone() {
        let sizes = |sizes: &[u64]| -> Vec<(ObjectId, u64)> {
            sizes.iter().zip(0..).map(|(size, number)| (id(number), *size)).collect()
        };
        assert!(choose(sizes(&[10_000; 7])).is_empty());
        assert_eq!(choose(sizes(&[10_000; 8])).len(), 8);
        assert!(choose(sizes(&[20 << 20; 50])).is_empty());
        // The small ones go along; the one that is much larger does not.
        let mixed = [[100_000; 8].to_vec(), vec![1000, 1000, 5 << 20]].concat();
        let chosen = choose(sizes(&mixed));
        assert!(chosen.len() == 10 && !chosen.contains(&id(10)));
        // A thousand that come one after the other are moved a few times each.
        let (mut sizes, mut moved) = (Vec::new(), 0);
        for number in 0..1000 {
            sizes.push((id(number), 4_000));
            let chosen = choose(sizes.clone());
            let (merged, left): (Vec<_>, Vec<_>) =
                sizes.into_iter().partition(|(id, _)| chosen.contains(id));
            sizes = left;
            let size: u64 = merged.iter().map(|(_, size)| size).sum();
            moved += size;
            if size > 0 {
                sizes.push((id(10_000 + number), size));
            }
        }
        assert!(moved < 5 * 4_000_000 && sizes.len() < 40, "{moved} bytes, {} left", sizes.len());
    }
}
