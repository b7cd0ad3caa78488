//! Which chunk is where.
//!
//! Index objects are hints that save reading every pack: immutable, made of pack records, and
//! rebuilt from the packs when lost. A wrong entry leads to a chunk that does not open, never to
//! wrong bytes.
//!
//! In memory a chunk takes 32 bytes, in a few sorted runs: what comes is merged with what is not
//! much larger.

mod object;
mod record;
mod run;
mod scan;
mod table;

pub(crate) use object::IndexObject;
pub(crate) use record::{PREFIX, Place, Prefix, prefix};
pub(crate) use scan::Scan;
pub(crate) use table::Pack;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::{Mutex, RwLock};

use self::record::Packed;
use self::run::{Named, Run};
use self::table::{Packs, Sources};
use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId};
use crate::objects::{INDEX, Objects, id_of, name_in};
use crate::pack::{ChunkRecord, PackRecord};

/// How many index objects are fetched at once.
const FETCHES: usize = 8;

/// How often a listing is read again because an object of it was replaced meanwhile.
const LISTINGS: usize = 5;

/// The index of a repository.
#[derive(Default)]
pub(crate) struct Index {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    runs: Vec<Arc<Run>>,
    packs: Packs,
    /// The index objects that were loaded and are still listed. What only others say does not
    /// count.
    sources: Sources,
    damaged: BTreeMap<ObjectId, String>,
    /// Packs on which nothing new may rely: those that are marked, and those that are lost.
    marked: HashSet<ObjectId>,
    lost: HashSet<ObjectId>,
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
    /// Where the chunk begins in the plain bytes of the block.
    pub(crate) inner: u32,
}

impl Location {
    /// The record that the pack has of the chunk.
    pub(crate) fn record(&self, id: ChunkId, kind: u8) -> ChunkRecord {
        let (stored, plain, encoding) = (self.stored, self.plain, self.encoding);
        ChunkRecord { id, stored, plain, encoding, kind }
    }
}

impl State {
    /// Adds what an index object says, unless it is known.
    ///
    /// The last runs are merged until each is less than half of the one before: so a lookup asks
    /// few runs, and a chunk is moved few times, however many runs come.
    fn add(&mut self, id: ObjectId, packs: &[PackRecord]) {
        let Some(source) = self.sources.add(id) else { return };
        let mut run = Run::build(source, packs, &mut self.packs);
        while let Some(before) = self.runs.pop_if(|before| before.len() < 2 * run.len()) {
            run = Run::merge(owned(before), run);
        }
        if run.len() > 0 {
            self.runs.push(Arc::new(run));
        }
    }

    /// What only index objects say that are not listed any more does not count: they were merged
    /// into others, or their packs were deleted.
    fn retain(&mut self, listed: &HashSet<ObjectId>) {
        if !self.sources.retain(|id| listed.contains(id)) {
            return;
        }
        self.damaged.retain(|id, _| listed.contains(id));
        for run in std::mem::take(&mut self.runs) {
            let mut run = owned(run);
            run.retain(&self.sources);
            if run.len() > 0 {
                self.runs.push(Arc::new(run));
            }
        }
    }

    /// Everywhere that a chunk is. A place may come twice, as two index objects name it.
    fn find(&self, id: &ChunkId) -> impl Iterator<Item = (u32, Packed)> {
        let prefix = prefix(id);
        let found = self.runs.iter().flat_map(move |run| run.find(&prefix).collect::<Vec<_>>());
        let counts = |(named, _): &(Named, _)| self.sources.counts(named.source);
        found.filter(counts).map(|(named, place)| (named.pack, place))
    }

    /// The numbers of the packs that index objects name.
    fn here(&self) -> HashSet<u32> {
        let named = self.runs.iter().flat_map(|run| run.named());
        named.filter(|named| self.sources.counts(named.source)).map(|named| named.pack).collect()
    }

    fn may_rely_on(&self, pack: &ObjectId) -> bool {
        !self.marked.contains(pack) && !self.lost.contains(pack)
    }
}

/// A run that can be changed. It is copied where a scan holds it.
fn owned(run: Arc<Run>) -> Run {
    Arc::try_unwrap(run).unwrap_or_else(|run| Run::clone(&run))
}

/// The packs on which a write relies: the ones that hold what it did not store again.
#[derive(Default)]
pub(crate) struct Reliance(Mutex<Vec<u64>>);

impl Reliance {
    fn note(&self, number: u32) {
        let (word, bit) = (number as usize / 64, number % 64);
        let mut words = self.0.lock();
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= 1 << bit;
    }

    fn forget(&self, number: u32) {
        if let Some(word) = self.0.lock().get_mut(number as usize / 64) {
            *word &= !(1 << (number % 64));
        }
    }

    fn has(&self, number: u32) -> bool {
        let words = self.0.lock();
        words.get(number as usize / 64).is_some_and(|word| word & 1 << (number % 64) != 0)
    }
}

impl Index {
    /// Loads the index objects that are not loaded yet, and forgets those that are not listed any
    /// more. Damaged ones are remembered and left out.
    pub(crate) async fn refresh(&self, objects: &Objects, keys: &Keys) -> Result<()> {
        for _ in 0..LISTINGS {
            if self.load(objects, keys, Absent::ListAgain).await? {
                return Ok(());
            }
        }
        self.load(objects, keys, Absent::IsDamage).await.map(drop)
    }

    /// Whether all that was listed could be loaded.
    async fn load(&self, objects: &Objects, keys: &Keys, absent: Absent) -> Result<bool> {
        let listed = objects.list(INDEX).try_filter_map(async |listed| Ok(id_of(&listed.name)));
        let listed: HashSet<_> = listed.try_collect().await?;
        let missing: Vec<_> = {
            let mut state = self.state.write();
            state.retain(&listed);
            listed.into_iter().filter(|id| !state.sources.has(id)).collect()
        };
        let mut fetched = stream::iter(missing)
            .map(async |id| (id, IndexObject::read(objects, keys, id).await))
            .buffer_unordered(FETCHES);
        let mut complete = true;
        let mut failure = None;
        while let Some((id, result)) = fetched.next().await {
            let (packs, damage) = match result {
                Ok(Some(object)) => (object.packs, None),
                Ok(None) if absent == Absent::ListAgain => {
                    complete = false;
                    continue;
                }
                Ok(None) => (Vec::new(), Some("it is missing".to_owned())),
                Err(Error::Damaged { what, .. }) => (Vec::new(), Some(what)),
                // What does come is kept all the same: it counts as loaded.
                Err(error) => {
                    failure.get_or_insert(error);
                    continue;
                }
            };
            let mut state = self.state.write();
            state.add(id, &packs);
            state.damaged.extend(damage.map(|what| (id, what)));
        }
        failure.map_or(Ok(complete), Err)
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
        let relied = (0..state.packs.len()).filter(|number| reliance.has(*number));
        let relied = relied.filter_map(|number| state.packs.get(number));
        let broken =
            relied.filter(|pack| !here.contains(&pack.number) || !state.may_rely_on(&pack.id));
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
        let all = state.here().into_iter().filter_map(|number| state.packs.get(number));
        all.map(|pack| (pack.id, Arc::new(pack))).collect()
    }

    /// All that the index knows now, in the order of ids. Blocks on the disk: for the pool.
    pub(crate) fn scan(&self) -> Scan {
        let state = self.state.read();
        Scan::new(state.runs.clone(), state.sources.clone())
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
        let named = state.runs.iter().flat_map(|run| run.named());
        let named = named.filter(|named| packs.contains(&named.pack)).map(|named| named.source);
        let sources: HashSet<_> = named.filter(|source| state.sources.counts(*source)).collect();
        sources.into_iter().filter_map(|source| state.sources.get(source)).collect()
    }

    /// The index objects that could not be read, and why.
    pub(crate) fn damaged(&self) -> Vec<(String, String)> {
        let state = self.state.read();
        state.damaged.iter().map(|(id, what)| (name_in(INDEX, *id), what.clone())).collect()
    }
}

/// What an object that was listed and is not there any more means.
#[derive(Clone, Copy, PartialEq)]
enum Absent {
    /// It was replaced meanwhile: the next listing has what replaced it.
    ListAgain,
    IsDamage,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootKey;
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
        assert!(index.state.read().runs.len() < 20);
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
