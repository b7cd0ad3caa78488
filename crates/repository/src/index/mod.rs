//! Which chunk is where.
//!
//! Index objects are hints that save reading every pack: immutable, made of pack records, and
//! rebuilt from the packs when lost. A wrong entry leads to a chunk that does not open, never to
//! wrong bytes.
//!
//! # Runs
//!
//! What index objects say is kept in sorted *runs*, immutable, of 32 bytes a chunk: what comes is
//! merged with what is not much larger, so there are few runs, and a chunk is moved a number of
//! times that grows with the logarithm of the index only.
//!
//! With a [`Cache`], runs of any size lie in files (see `file`), of which a lookup reads one
//! stretch; a filter in front of each tells of most new chunks that they are not in it. In memory
//! is what came last, a byte for each chunk that is in files, and about 130 bytes for each pack.
//! The next handle takes the files over and fetches only index objects that they do not know.
//!
//! # What counts
//!
//! A run has all that its index objects (its *sources*) say, and knows of every pack which one
//! named it. What an object says counts as long as the object is listed. So when objects are
//! merged, or written anew without packs that were deleted, nothing else is read again; what does
//! not count any more is dead weight that the next merge leaves behind.
//!
//! Packs and index objects have numbers, given as they are met, that mean the same as long as the
//! handle lives; see [`Index::pack`].

mod cache;
mod compact;
mod file;
mod filter;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod load;
mod merge;
mod object;
mod record;
mod reliance;
mod run;
mod scan;
#[cfg(test)]
mod simulated;
mod state;
mod survey;
mod table;
mod writer;

pub use cache::Cache;
pub(crate) use cache::CacheDirectory;
pub use compact::CompactReport;
pub(crate) use object::IndexObject;
pub(crate) use record::{PREFIX, Place, Prefix, prefix};
pub(crate) use reliance::Reliance;
pub(crate) use scan::Scan;
pub use survey::{PackSurvey, survey_without_key};
pub(crate) use table::Pack;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Mutex;

use self::load::Loading;
use self::state::State;
use crate::chunk::Encoding;
use crate::id::{ChunkId, ObjectId};
use crate::objects::{INDEX, name_in};
use crate::pack::{ChunkRecord, PackRecord};

/// The index of a repository.
#[derive(Default)]
pub(crate) struct Index {
    state: Arc<RwLock<State>>,
    /// One refresh at a time.
    loading: Mutex<Loading>,
}

/// Where a chunk is.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub(crate) pack: Arc<Pack>,
    /// Where what is sealed begins: the chunk, or the block that it lies in.
    pub(crate) offset: u64,
    /// Its sealed length.
    pub(crate) stored: u32,
    pub(crate) plain: u32,
    pub(crate) encoding: u8,
    /// Where the chunk begins in the plain bytes of the block; 0 for a chunk by itself.
    pub(crate) inner: u32,
}

impl Location {
    /// Whether it was sealed with others.
    pub(crate) fn is_in_block(&self) -> bool {
        self.encoding == Encoding::Solid as u8
    }

    /// The record that the pack has of the chunk.
    pub(crate) fn record(&self, id: ChunkId, kind: u8) -> ChunkRecord {
        let (stored, plain, encoding) = (self.stored, self.plain, self.encoding);
        ChunkRecord { id, stored, plain, encoding, kind }
    }
}

impl Index {
    /// An index that knows nothing yet.
    pub(crate) fn new(cache: Option<CacheDirectory>) -> Self {
        let loading = cache.map_or(Loading::InMemory, |cache| Loading::Closed(Arc::new(cache)));
        Self { state: Arc::default(), loading: Mutex::new(loading) }
    }

    /// Takes note of an index object that was just written.
    pub(crate) fn add(&self, id: ObjectId, packs: &[PackRecord]) {
        self.state.write().add(id, packs);
    }

    /// Whether a chunk is in a pack that something new may rely on; `reliance` takes note of it.
    pub(crate) fn rely(&self, id: &ChunkId, reliance: &Reliance) -> bool {
        let state = self.state.read();
        let mut found = state.find(id).filter_map(|(pack, _)| state.packs.get(pack));
        match found.find(|pack| state.may_rely_on(&pack.id)) {
            Some(pack) => {
                reliance.note(pack.number);
                true
            }
            None => false,
        }
    }

    /// Whether a chunk is in a pack that something new may rely on.
    pub(crate) fn has(&self, id: &ChunkId) -> bool {
        let state = self.state.read();
        let mut found = state.find(id).filter_map(|(pack, _)| state.packs.get(pack));
        found.any(|pack| state.may_rely_on(&pack.id))
    }

    /// Takes note that a write relies on a pack, as on those that it stores itself.
    pub(crate) fn rely_on(&self, pack: &ObjectId, reliance: &Reliance) {
        if let Some(number) = self.state.read().packs.number(pack) {
            reliance.note(number);
        }
    }

    /// The packs on which a write relies.
    pub(crate) fn relied(&self, reliance: &Reliance) -> Vec<ObjectId> {
        let state = self.state.read();
        let relied = (0..state.packs.len()).filter(|number| reliance.has(*number));
        relied.filter_map(|number| Some(state.packs.get(number)?.id)).collect()
    }

    /// Takes note that a write does not rely on a pack any more.
    pub(crate) fn rely_no_more(&self, pack: &ObjectId, reliance: &Reliance) {
        if let Some(number) = self.state.read().packs.number(pack) {
            reliance.forget(number);
        }
    }

    /// The packs that are marked now, in place of those that were.
    pub(crate) fn mark(&self, packs: HashSet<ObjectId>) {
        self.state.write().marked = packs;
    }

    /// Packs that are not there, or not whole.
    pub(crate) fn lose(&self, packs: impl IntoIterator<Item = ObjectId>) {
        self.state.write().lost.extend(packs);
    }

    /// The packs on which a write relies and may not rely any more: marked, lost, or not in the
    /// index since it was loaded anew.
    pub(crate) fn broken(&self, reliance: &Reliance) -> Vec<ObjectId> {
        let state = self.state.read();
        let here = state.here();
        let relied = here.into_iter().zip(0..).filter(|(_, number)| reliance.has(*number));
        let broken = relied.filter_map(|(here, number)| {
            let pack = state.packs.get(number)?;
            (!here || !state.may_rely_on(&pack.id)).then_some(pack)
        });
        broken.map(|pack| pack.id).collect()
    }

    /// Everywhere that a chunk is.
    pub(crate) fn locations(&self, id: &ChunkId) -> Vec<Location> {
        let state = self.state.read();
        let mut places: Vec<_> = state.find(id).map(|(pack, packed)| packed.found(pack)).collect();
        places.sort_unstable();
        places.dedup();
        let location = |place: Place| {
            let pack = Arc::new(state.packs.get(place.pack)?);
            let Place { offset, stored, plain, encoding, inner, .. } = place;
            Some(Location { pack, offset: offset.into(), stored, plain, encoding, inner })
        };
        places.into_iter().filter_map(location).collect()
    }

    /// The packs that the index knows.
    pub(crate) fn packs(&self) -> HashMap<ObjectId, Arc<Pack>> {
        let state = self.state.read();
        state.packs_here().map(|pack| (pack.id, Arc::new(pack))).collect()
    }

    /// All that the index knows now, in the order of ids. Blocks on the disk: for the pool.
    pub(crate) fn scan(&self) -> Scan {
        let state = self.state.read();
        Scan::new(state.runs().cloned().collect(), state.sources.clone())
    }

    /// All numbers of packs are below this one. It only grows, and a number always means the same
    /// pack: arrays with a place for each suffice to keep something for every pack.
    ///
    /// A number may be of a pack that no index object names any more; a scan does not give it.
    pub(crate) fn numbers(&self) -> u32 {
        self.state.read().packs.len()
    }

    /// The pack of a number.
    pub(crate) fn pack(&self, number: u32) -> Option<Pack> {
        self.state.read().packs.get(number)
    }

    /// The number of a pack that the index knows or knew.
    pub(crate) fn number(&self, pack: &ObjectId) -> Option<u32> {
        self.state.read().packs.number(pack)
    }

    /// The index objects that name any of these packs.
    pub(crate) fn sources(&self, packs: &HashSet<ObjectId>) -> Vec<ObjectId> {
        let state = self.state.read();
        let packs: HashSet<_> = packs.iter().filter_map(|id| state.packs.number(id)).collect();
        let named = state.named().filter(|named| packs.contains(&named.pack));
        let sources: HashSet<_> = named.map(|named| named.source).collect();
        sources.into_iter().filter_map(|source| state.sources.get(source)).collect()
    }

    /// Those of some index objects of which others name every pack.
    pub(crate) fn covered(&self, some: &HashSet<ObjectId>) -> HashSet<ObjectId> {
        let state = self.state.read();
        let sound =
            some.iter().filter(|id| state.sources.has(id) && !state.damaged.contains_key(id));
        let sound: HashMap<_, _> =
            sound.filter_map(|id| Some((state.sources.number(id)?, *id))).collect();
        let others = state
            .named()
            .filter(|named| state.sources.get(named.source).is_some_and(|id| !some.contains(&id)));
        let elsewhere: HashSet<_> = others.map(|named| named.pack).collect();
        let mut covered: HashSet<_> = sound.values().copied().collect();
        for named in state.named().filter(|named| !elsewhere.contains(&named.pack)) {
            if let Some(id) = sound.get(&named.source) {
                covered.remove(id);
            }
        }
        covered
    }

    /// The index objects that could not be read, and why.
    pub(crate) fn damaged(&self) -> Vec<(String, String)> {
        let state = self.state.read();
        state.damaged.iter().map(|(id, what)| (name_in(INDEX, *id), what.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Keys, RootKey};
    use crate::id::RepositoryId;
    use crate::pack::{Contents, PackHeader};

    fn name(number: u32) -> [u8; 32] {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    fn object(number: u32) -> ObjectId {
        ObjectId::from_bytes(name(number))
    }

    fn chunk(number: u32) -> ChunkId {
        ChunkId::from_bytes(name(number))
    }

    fn header() -> PackHeader {
        let keys = Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([1; 16]));
        PackHeader::draw(&keys, Contents::Data).unwrap()
    }

    fn pack(number: u32, header: PackHeader, chunks: &[u32]) -> PackRecord {
        let record = |plain: &u32| ChunkRecord {
            id: chunk(*plain),
            stored: 100,
            plain: *plain,
            encoding: 1,
            kind: 1,
        };
        let chunks = chunks.iter().map(record).collect();
        PackRecord { id: object(number), header, size: 1000, chunks }
    }

    #[test]
    fn thousands_of_writes_leave_few_runs() {
        let (header, index) = (header(), Index::default());
        for number in 0..10_000_u32 {
            let pack = pack(number, header, &[2 * number, 2 * number + 1]);
            index.add(pack.id, std::slice::from_ref(&pack));
            // The same index object, met again in a listing.
            index.add(pack.id, &[pack]);
        }
        assert!(index.state.read().recent.len() < 20);
        assert_eq!(index.packs().len(), 10_000);
        let (reliance, pack) = (Reliance::default(), object(7));
        assert!(index.rely(&chunk(14), &reliance));
        assert!(index.broken(&reliance).is_empty());
        index.mark(HashSet::from([pack]));
        assert_eq!(index.broken(&reliance), [pack]);
        assert!(!index.rely(&chunk(14), &reliance));
        index.mark(HashSet::new());
        for number in 0..20_000 {
            let found = index.locations(&chunk(number));
            assert_eq!(found.len(), 1);
            assert_eq!(
                (found[0].plain, found[0].offset),
                (number, 64 + 100 * u64::from(number % 2))
            );
            assert_eq!(found[0].pack.id, object(number / 2));
        }
    }

    #[test]
    fn a_scan_gives_every_place_once_in_the_order_of_ids() {
        let (header, index) = (header(), Index::default());
        let packs = [pack(1, header, &[5, 3, 5]), pack(2, header, &[4, 5]), pack(3, header, &[3])];
        index.add(object(10), &packs[..2]);
        // Two index objects name the second pack, as compaction leaves it when it is killed.
        index.add(object(11), &packs[1..]);
        let scanned: Vec<_> = index.scan().map(Result::unwrap).collect();
        assert!(scanned.is_sorted());
        let places = |number| -> Vec<_> {
            let of = |(found, _): &&(Prefix, Place)| *found == prefix(&chunk(number));
            let found = scanned.iter().filter(of);
            found.map(|(_, at)| (index.pack(at.pack).unwrap().id, at.offset)).collect()
        };
        assert_eq!(places(5), [(object(1), 64), (object(1), 264), (object(2), 164)]);
        assert_eq!(places(3), [(object(1), 164), (object(3), 64)]);
        assert_eq!((places(4), scanned.len()), (vec![(object(2), 64)], 6));
        assert_eq!(index.locations(&chunk(5)).len(), 3);
        let mut sources = index.sources(&HashSet::from([object(2)]));
        sources.sort();
        let mut both = [object(10), object(11)];
        both.sort();
        assert_eq!(sources, both);
        assert_eq!(index.sources(&HashSet::from([object(3)])), [object(11)]);
    }

    #[test]
    fn what_no_listed_object_says_does_not_count() {
        let (header, index) = (header(), Index::default());
        let packs = [pack(1, header, &[1, 2]), pack(2, header, &[3]), pack(3, header, &[4])];
        index.add(object(10), &packs[..2]);
        index.add(object(11), &packs[1..]);
        let (reliance, numbers) = (Reliance::default(), index.numbers());
        assert!((1..5).all(|number| index.rely(&chunk(number), &reliance)));
        // A scan that runs shows what was there when it began.
        let mut scan = index.scan();
        let first = scan.next().unwrap().unwrap();

        index.state.write().retain(&HashSet::from([object(11)]));
        assert_eq!(index.broken(&reliance), [object(1)]);
        assert!(index.locations(&chunk(1)).is_empty());
        assert_eq!(index.locations(&chunk(3)).len(), 1);
        assert_eq!((index.packs().len(), index.scan().count()), (2, 2));
        assert_eq!(scan.count(), 3);
        assert!(index.pack(first.1.pack).is_some());

        // It comes back, and its packs keep their numbers.
        index.add(object(10), &packs[..2]);
        assert!(index.broken(&reliance).is_empty());
        assert_eq!((index.numbers(), index.scan().count()), (numbers, 4));
    }
}
