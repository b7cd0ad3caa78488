//! What the tests share.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::TryStreamExt;
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Context, Entry, EntryKind, EntryPath, Layout, Sink, SnapshotId, Source, Summary,
    TransferOptions, names, transfer,
};
use lifeboat_repository::{
    InitOptions, KdfCost, Parameters, Repository, Secret, Selection, WriteOptions,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

/// A cheap way to stretch passphrases, so that tests need not wait.
pub(crate) const CHEAP: KdfCost = KdfCost { memory_kib: 64, passes: 1, lanes: 1 };

pub(crate) fn secret() -> Secret {
    Secret::passphrase("correct horse battery staple")
}

/// Small chunks and packs, so that little data makes many of them.
pub(crate) fn small() -> InitOptions {
    let mut options = InitOptions::default();
    options.cost = CHEAP;
    options.parameters = Parameters {
        chunk_min: 4 << 10,
        chunk_average: 16 << 10,
        chunk_max: 64 << 10,
        stretch: 64 << 10,
        pack: 1 << 20,
    };
    options
}

pub(crate) async fn repository() -> (Arc<dyn ObjectStore>, Repository) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let repository = Repository::init(Arc::clone(&store), &secret(), &small()).await.unwrap();
    (store, repository)
}

/// Another handle on the repository in a store.
pub(crate) async fn open(store: &Arc<dyn ObjectStore>) -> Repository {
    Repository::open(Arc::clone(store), &secret()).await.unwrap()
}

/// The objects of an area, or of all of them where it has no name.
pub(crate) async fn objects(store: &dyn ObjectStore, area: &str) -> BTreeMap<String, Vec<u8>> {
    let area = Path::from(area);
    let names: Vec<_> = store.list(Some(&area)).try_collect().await.unwrap();
    let mut all = BTreeMap::new();
    for meta in names {
        let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        all.insert(meta.location.to_string(), bytes.to_vec());
    }
    all
}

pub(crate) async fn put(store: &dyn ObjectStore, name: &str, bytes: Vec<u8>) {
    store.put(&Path::from(name), PutPayload::from(bytes)).await.unwrap();
}

pub(crate) async fn delete(store: &dyn ObjectStore, name: &str) {
    store.delete(&Path::from(name)).await.unwrap();
}

pub(crate) fn path(text: &str) -> EntryPath {
    EntryPath::new(text).unwrap()
}

/// Bytes that do not compress, and are the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A store with one of everything.
pub(crate) async fn sample() -> MemoryStore {
    sample_of(700, 3_000_000, 2_000_000).await
}

/// A store with one of everything that is quickly restored. Its stream still has a list of its
/// own, and its pages have fingerprints.
pub(crate) async fn small_sample() -> MemoryStore {
    sample_of(200, 1_200_000, 600_000).await
}

async fn sample_of(files: u64, stream: usize, pages: usize) -> MemoryStore {
    let store = MemoryStore::new("sample");
    let mode = || Attributes::new().with(names::MODE, 0o640_u32);
    store.insert(Entry::directory(path("a"))).await.unwrap();
    store.insert(Entry::file(path("a/empty"), mode(), "")).await.unwrap();
    store.insert(Entry::file(path("a/small"), mode(), "hello")).await.unwrap();
    for number in 0..files {
        let bytes = noise(number, (number as usize * 37) % 5000);
        store.insert(Entry::file(path(&format!("many/{number:04}")), mode(), bytes)).await.unwrap();
    }
    store.insert(Entry::file(path("large"), mode(), noise(1, stream))).await.unwrap();
    let pages = Entry::file(path("pages"), mode(), noise(2, pages));
    store.insert(pages.with_layout(Layout::Pages(8192))).await.unwrap();
    let link = mode().with(names::TARGET, b"\xff/nowhere".to_vec());
    store.insert(Entry::new(path("z-link"), EntryKind::Symlink, link)).await.unwrap();
    store
}

pub(crate) async fn run(source: &dyn Source, sink: &dyn Sink) -> Summary {
    transfer(source, sink, &TransferOptions::default(), &Context::silent()).await.unwrap()
}

pub(crate) async fn back_up(source: &dyn Source, repository: &Repository) -> (SnapshotId, Summary) {
    let summary = run(source, &repository.sink(&WriteOptions::default())).await;
    (summary.receipt.snapshot.unwrap(), summary)
}

/// Restores a snapshot into memory.
pub(crate) async fn restore(repository: &Repository, id: SnapshotId) -> MemoryStore {
    let snapshot = repository.snapshot(&id).await.unwrap();
    let target = MemoryStore::new("restored");
    run(&snapshot.source(&Selection::all()), &target).await;
    target
}

/// Asserts that a snapshot restores to just what `expected` holds.
pub(crate) async fn assert_restores(
    repository: &Repository,
    id: SnapshotId,
    expected: &MemoryStore,
) {
    let restored = restore(repository, id).await.image();
    let expected = expected.image();
    assert!(restored.keys().eq(expected.keys()), "other entries came back");
    for (path, entry) in expected.iter() {
        assert!(restored[path] == *entry, "{path} came back different");
    }
}
