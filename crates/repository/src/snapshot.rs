//! Snapshots: the sealed root, and the handle on an open one.

use std::collections::BTreeSet;
use std::sync::Arc;

use lifeboat_core::{
    Attributes, Completeness, Completion, Content, Context, EntryInfo, EntryPath, Header, Origin,
    SnapshotId, SnapshotInfo, Source, StoreRef, Timestamp, local::FormerFiles,
};
use minicbor::{Decode, Encode};
use object_store::PutPayload;

use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId, RepositoryId};
use crate::objects::{CHECKPOINTS, Objects, SNAPSHOTS, check_name, name_in};
use crate::read::{ChunkReader, Selection, SnapshotSource, is_there};
use crate::repair::repaired_original;
use crate::repository::SnapshotList;
use crate::sealed::{SealedKind, open, seal};
use crate::tree::AttributesRecord;
use crate::tree::{EntryRecord, TreeCursor, TreeReader};

/// The content of an object `snapshots/<id>`. Its existence is what makes a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct SnapshotRecord {
    #[n(0)]
    kind: String,
    #[n(1)]
    name: String,
    #[n(2)]
    host: String,
    #[n(3)]
    tags: Vec<String>,
    /// Times are nanoseconds since 1970 UTC.
    #[n(4)]
    started: i64,
    #[n(5)]
    taken: i64,
    #[n(6)]
    committed: i64,
    #[n(7)]
    entries: u64,
    #[n(8)]
    bytes: u64,
    #[n(9)]
    stored: u64,
    #[n(10)]
    warnings: u64,
    #[n(11)]
    position: String,
    #[n(12)]
    facts: AttributesRecord,
    #[n(13)]
    parent: Option<ObjectId>,
    /// The top page of the tree of entries.
    #[n(14)]
    root: ChunkId,
    /// The version of the program that took it.
    #[n(15)]
    program: String,
    /// 0 when the snapshot is whole, 1 when it is what a backup that goes on has stored so far.
    /// A reader refuses other numbers.
    #[n(16)]
    state: u8,
    /// The repository and the name of the snapshot of which this is a copy.
    #[n(17)]
    origin: Option<(RepositoryId, ObjectId)>,
}

/// The snapshot holds all that the source gave.
const WHOLE: u8 = 0;
/// The snapshot holds the first entries that the source gave: `checkpoints/<id>`.
const INCOMPLETE: u8 = 1;

/// In which area a snapshot's root lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RootArea {
    Snapshots,
    Checkpoints,
}

impl RootArea {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Snapshots => SNAPSHOTS,
            Self::Checkpoints => CHECKPOINTS,
        }
    }

    fn state(self) -> u8 {
        match self {
            Self::Snapshots => WHOLE,
            Self::Checkpoints => INCOMPLETE,
        }
    }

    pub(crate) fn name_of(self, id: &SnapshotId) -> String {
        name_in(self.name(), ObjectId::from_bytes(*id.as_bytes()))
    }
}

pub(crate) fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

pub(crate) fn timestamp(nanoseconds: i64) -> Timestamp {
    // Every i64 of nanoseconds is within the range of a timestamp.
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl SnapshotRecord {
    pub(crate) fn new(header: &Header, completion: &Completion, root: ChunkId) -> Self {
        Self {
            kind: header.store.kind().to_owned(),
            name: header.store.name().to_owned(),
            host: header.host.clone(),
            tags: header.tags.clone(),
            started: nanoseconds(header.started),
            taken: nanoseconds(completion.taken),
            committed: 0,
            entries: 0,
            bytes: 0,
            stored: 0,
            warnings: 0,
            position: completion.position.clone(),
            facts: AttributesRecord::new(&completion.facts),
            parent: header.baseline.map(|id| ObjectId::from_bytes(*id.as_bytes())),
            root,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            state: WHOLE,
            origin: header.origin.as_ref().and_then(|origin| {
                let repository = RepositoryId::from_hex(&origin.repository)?;
                Some((repository, ObjectId::from_bytes(*origin.snapshot.as_bytes())))
            }),
        }
    }

    /// A snapshot of the same moment, with another tree.
    pub(crate) fn sibling(
        &self,
        of: SnapshotId,
        root: ChunkId,
        tag: &str,
        facts: &Attributes,
    ) -> Self {
        let mut sibling = self.clone();
        if !sibling.tags.iter().any(|known| known == tag) {
            sibling.tags.push(tag.to_owned());
        }
        sibling.facts = AttributesRecord::new(facts);
        sibling.parent = Some(ObjectId::from_bytes(*of.as_bytes()));
        sibling.root = root;
        env!("CARGO_PKG_VERSION").clone_into(&mut sibling.program);
        sibling
    }

    pub(crate) fn counted(mut self, entries: u64, bytes: u64, stored: u64, warnings: u64) -> Self {
        (self.entries, self.bytes, self.stored, self.warnings) = (entries, bytes, stored, warnings);
        self
    }

    pub(crate) fn committed_at(mut self, time: Timestamp) -> Self {
        self.committed = nanoseconds(time);
        self
    }

    /// What a backup that goes on has stored so far.
    pub(crate) fn incomplete(self) -> Self {
        Self { state: INCOMPLETE, ..self }
    }

    /// Stores it: the moment at which the snapshot comes to be.
    pub(crate) async fn write(&self, objects: &Objects, keys: &Keys) -> Result<(SnapshotId, u64)> {
        let area = if self.state == INCOMPLETE { CHECKPOINTS } else { SNAPSHOTS };
        let (id, bytes) = seal(keys, SealedKind::Snapshot, self)?;
        let size = bytes.len() as u64;
        objects.create(&name_in(area, id), PutPayload::from(bytes)).await?;
        Ok((SnapshotId::from_bytes(*id.as_bytes()), size))
    }

    /// Reads one by its name; `None` when it does not exist.
    pub(crate) async fn read(
        objects: &Objects,
        keys: &Keys,
        area: RootArea,
        id: &SnapshotId,
    ) -> Result<Option<Self>> {
        let name = area.name_of(id);
        let Some(bytes) = objects.read(&name, SealedKind::Snapshot.limit()).await? else {
            return Ok(None);
        };
        check_name(&name, &bytes)?;
        let record: Self = open(keys, SealedKind::Snapshot, &name, &bytes)?;
        record.expect(area)?;
        Ok(Some(record))
    }

    /// Fails unless it is of the kind that an area holds.
    pub(crate) fn expect(&self, area: RootArea) -> Result<()> {
        if self.state == area.state() {
            return Ok(());
        }
        Err(Error::UnknownFeature { feature: format!("snapshot state {}", self.state) })
    }

    pub(crate) fn info(&self, id: SnapshotId) -> SnapshotInfo {
        let store = StoreRef::new(self.kind.clone(), self.name.clone());
        let mut info = SnapshotInfo::new(id, store, timestamp(self.taken));
        if self.state != WHOLE {
            info.completeness = Completeness::Incomplete;
        }
        info.host.clone_from(&self.host);
        info.tags.clone_from(&self.tags);
        info.started = timestamp(self.started);
        info.committed = timestamp(self.committed);
        info.entries = self.entries;
        info.bytes = self.bytes;
        info.stored = self.stored;
        info.warnings = self.warnings;
        info.position.clone_from(&self.position);
        info.facts = self.facts.decode();
        info.parent = self.parent.map(|parent| SnapshotId::from_bytes(*parent.as_bytes()));
        info.origin = self.origin.map(|(repository, snapshot)| Origin {
            repository: repository.to_string(),
            snapshot: SnapshotId::from_bytes(*snapshot.as_bytes()),
        });
        info
    }

    pub(crate) fn root(&self) -> ChunkId {
        self.root
    }
}

/// An open snapshot. Clones share it.
#[derive(Clone)]
pub struct Snapshot {
    info: Arc<SnapshotInfo>,
    chunks: Arc<ChunkReader>,
    tree: TreeReader,
}

impl Snapshot {
    pub(crate) fn new(info: SnapshotInfo, root: ChunkId, chunks: Arc<ChunkReader>) -> Self {
        let tree = TreeReader::new(Arc::clone(&chunks), root);
        Self { info: Arc::new(info), chunks, tree }
    }

    pub(crate) fn chunks(&self) -> &Arc<ChunkReader> {
        &self.chunks
    }

    /// Whether all that an entry of it consists of is in packs that something new may rely on.
    pub(crate) async fn has_all(&self, entry: &EntryRecord) -> bool {
        let chunks = &self.chunks;
        let content = &entry.content;
        for part in std::iter::once(content).chain(content.fingerprints.as_deref()) {
            if !is_there(chunks, part, |chunk| chunks.has(chunk)).await {
                return false;
            }
        }
        true
    }

    pub(crate) fn tree(&self) -> &TreeReader {
        &self.tree
    }

    /// What is known of it.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// Where it is from, as [`Repository::origin_of`](crate::Repository::origin_of) says: all
    /// copies of one snapshot have the same origin.
    pub fn origin(&self) -> Origin {
        let repository = || self.chunks.repository().to_string();
        let own = || Origin { repository: repository(), snapshot: self.info.id };
        self.info.origin.clone().unwrap_or_else(own)
    }

    /// The entry at `path`.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn entry(&self, path: &EntryPath) -> Result<Option<EntryInfo>> {
        self.tree.get(path).await?.map(|record| crate::read::decode(&record)).transpose()
    }

    /// The last entry, in the order of paths: up to where an incomplete one reaches.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn last(&self) -> Result<Option<EntryInfo>> {
        let Some(number) = self.info.entries.checked_sub(1) else {
            return Ok(None);
        };
        self.tree.nth(number).await?.map(|record| crate::read::decode(&record)).transpose()
    }

    /// The content at `path`, or `None` when there is no such entry.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn content(&self, path: &EntryPath) -> Result<Option<Content>> {
        let record = self.tree.get(path).await?;
        Ok(record.map(|record| {
            let chunks = Arc::clone(&self.chunks);
            crate::read::read(chunks, &record.content, record.size, Context::silent())
        }))
    }

    /// The entries at and beneath `path`, in order; all of them without a path.
    pub fn list(&self, path: Option<&EntryPath>) -> Listing {
        let entries = self.tree.entries(path.cloned());
        Listing { entries, beneath: path.cloned() }
    }

    /// The snapshot as a source, to be moved into a sink.
    pub fn source(&self, selection: &Selection) -> impl Source + use<> {
        SnapshotSource::new(self.clone(), selection.clone(), None)
    }

    /// As [`source`](Self::source), for a target that has former versions of the files: pages that
    /// are the same there are neither read nor brought, but said to be
    /// [unchanged](lifeboat_core::Extent::Unchanged). Only that target's sink may take it.
    pub fn source_sparing(
        &self,
        selection: &Selection,
        former: Arc<dyn FormerFiles>,
    ) -> impl Source + use<> {
        SnapshotSource::new(self.clone(), selection.clone(), Some(former))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Snapshot").field(&self.info.id).finish()
    }
}

/// Entries of a snapshot, one after the other.
pub struct Listing {
    entries: TreeCursor,
    beneath: Option<EntryPath>,
}

impl Listing {
    /// The next entry, or `None` after the last one.
    ///
    /// # Errors
    /// When a page of the tree cannot be read.
    pub async fn next(&mut self) -> Result<Option<EntryInfo>> {
        let Some(info) = self.next_record().await?.map(|record| crate::read::decode(&record))
        else {
            return Ok(None);
        };
        let info = info?;
        let ends = self.beneath.as_ref().is_some_and(|path| !info.path.starts_with(path));
        Ok(if ends { None } else { Some(info) })
    }

    async fn next_record(&mut self) -> Result<Option<EntryRecord>> {
        self.entries.next().await
    }
}

/// The snapshot that `name` means: the first digits of an id, or `latest`; only among those of
/// `store`, when one is given. `latest` passes over a snapshot of which a repair made a sibling.
pub(crate) fn choose(
    name: &str,
    store: Option<&StoreRef>,
    list: &SnapshotList,
) -> Result<SnapshotInfo> {
    let wanted = |info: &&SnapshotInfo| store.is_none_or(|store| info.store == *store);
    let none = || Error::NoSuchSnapshot { name: name.to_owned() };
    if name == "latest" {
        let stores: BTreeSet<_> = list.snapshots.iter().map(|info| &info.store).collect();
        // The newest of all would be whichever store was backed up last: nobody means that.
        if store.is_none() && stores.len() > 1 {
            return Err(Error::AmbiguousLatest { stores: stores.into_iter().cloned().collect() });
        }
        // Beside a sibling with what was left of it, a snapshot is known to lack something.
        let hurt: BTreeSet<_> = list.snapshots.iter().filter_map(repaired_original).collect();
        let all = list.snapshots.iter().filter(wanted).filter(|info| !hurt.contains(&info.id));
        return all.max_by_key(|info| (info.taken, info.id)).cloned().ok_or_else(none);
    }
    // A copy answers to the name of its original as well.
    let begins = |info: &&SnapshotInfo| {
        let original = info.origin.as_ref().map(|origin| &origin.snapshot);
        original.into_iter().chain([&info.id]).any(|id| id.to_string().starts_with(name))
    };
    let found: Vec<_> = list.snapshots.iter().filter(wanted).filter(begins).collect();
    // Nobody knows any more of which store a damaged one is.
    let damaged: Vec<_> = list.damaged.iter().filter(|(object, _)| names(object, name)).collect();
    match (&found[..], &damaged[..]) {
        ([], []) => Err(none()),
        ([one], []) if !name.is_empty() => Ok((*one).clone()),
        ([], [(object, what)]) if !name.is_empty() => Err(Error::damaged(object, what)),
        (found, damaged) => {
            let count = found.len() + damaged.len();
            Err(Error::AmbiguousSnapshot { name: name.to_owned(), count })
        }
    }
}

/// Whether the id in an object's name begins with `digits`.
fn names(object: &str, digits: &str) -> bool {
    object.rsplit('/').next().is_some_and(|id| id.starts_with(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(stores: &[(&str, u8)]) -> SnapshotList {
        let info = |(second, (store, id)): (usize, &(&str, u8))| {
            let taken = Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
            let store = StoreRef::new("files", *store);
            SnapshotInfo::new(SnapshotId::from_bytes([*id; 32]), store, taken)
        };
        let snapshots = stores.iter().enumerate().map(info).collect();
        SnapshotList { snapshots, ..SnapshotList::default() }
    }

    #[test]
    fn latest_means_one_store() {
        let one = list(&[("a", 1), ("a", 2)]);
        assert_eq!(choose("latest", None, &one).unwrap().id, one.snapshots[1].id);
        let two = list(&[("b", 1), ("a", 2), ("b", 3)]);
        let error = choose("latest", None, &two).unwrap_err();
        assert!(matches!(&error, Error::AmbiguousLatest { stores } if stores.len() == 2));
        let line = lifeboat_core::Error::from(error).one_line();
        assert!(line.contains("files/a, files/b; ") && line.contains("--store"), "{line}");
        let a = StoreRef::new("files", "a");
        assert_eq!(choose("latest", Some(&a), &two).unwrap().id, two.snapshots[1].id);
        let none = StoreRef::new("files", "c");
        let missing = choose("latest", Some(&none), &two);
        assert!(matches!(missing, Err(Error::NoSuchSnapshot { .. })));
    }

    #[test]
    fn latest_is_rather_a_sibling_than_the_hurt_snapshot() {
        let mut list = list(&[("a", 1), ("a", 9), ("a", 3)]);
        let (hurt, taken) = (list.snapshots[1].id, list.snapshots[1].taken);
        // Of the same moment; its name comes before the other one's.
        (list.snapshots[2].taken, list.snapshots[0].taken) = (taken, Timestamp::UNIX_EPOCH);
        assert_eq!(choose("latest", None, &list).unwrap().id, hurt);
        list.snapshots[2].facts.set("repair.of", hurt.to_string());
        assert_eq!(choose("latest", None, &list).unwrap().id, list.snapshots[2].id);
        assert_eq!(choose("0909", None, &list).unwrap().id, hurt);
        // What is newer than both counts.
        list.snapshots[0].taken = taken + jiff::SignedDuration::from_secs(1);
        assert_eq!(choose("latest", None, &list).unwrap().id, list.snapshots[0].id);
    }

    #[test]
    fn a_damaged_snapshot_is_not_said_to_be_missing() {
        let mut list = list(&[("a", 0x11)]);
        list.damaged.push((format!("snapshots/{}", "22".repeat(32)), "no".to_owned()));
        assert!(matches!(choose("22", None, &list), Err(Error::Damaged { .. })));
        assert!(matches!(choose("", None, &list), Err(Error::AmbiguousSnapshot { count: 2, .. })));
        assert!(matches!(choose("33", None, &list), Err(Error::NoSuchSnapshot { .. })));
        assert!(choose("11", None, &list).is_ok());
    }
}
