//! Small chunks that are stored together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::TryStreamExt;
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Attributes, Context, Entry, SnapshotId, names};
use lifeboat_repository::{CheckOptions, InitOptions, Repository, Selection};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::{CHEAP, assert_restores, back_up, noise, path, run, secret};
use crate::hooked::{Fate, Hooked, Request};

const FILES: u64 = 400;

fn content(number: u64) -> Vec<u8> {
    noise(number, 500 + number as usize * 7)
}

/// Small files, which differ, and one large one.
async fn tree() -> MemoryStore {
    let store = MemoryStore::new("tree");
    for number in 0..FILES {
        let mode = Attributes::new().with(names::MODE, 0o640_u32);
        let file = Entry::file(path(&format!("dir/{number:04}")), mode, content(number));
        store.insert(file).await.unwrap();
    }
    let large = noise(7777, 3 << 20);
    store.insert(Entry::file(path("large"), Attributes::new(), large)).await.unwrap();
    store
}

async fn scene() -> (Arc<Hooked>, Repository, MemoryStore, SnapshotId) {
    let store = Hooked::new();
    let mut options = InitOptions::default();
    options.cost = CHEAP;
    let place: Arc<dyn ObjectStore> = store.clone();
    let repository = Repository::init(place, &secret(), &options).await.unwrap();
    let source = tree().await;
    let (id, _) = back_up(&source, &repository).await;
    (store, repository, source, id)
}

async fn open(store: &Arc<Hooked>) -> Repository {
    let place: Arc<dyn ObjectStore> = store.clone();
    Repository::open(place, &secret()).await.unwrap()
}

/// About 760 KB of small files are three blocks or four.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_are_read_a_block_at_a_time() {
    let (store, _, source, id) = scene().await;
    let reads = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&reads);
    let repository = open(&store).await;
    store.hook(move |request, name| {
        if request == Request::Get && name.starts_with("packs/") {
            counting.fetch_add(1, Ordering::Relaxed);
        }
        Fate::Done
    });
    assert_restores(&repository, id, &source).await;
    // With the large file's chunks, and the pages of the tree.
    let reads = reads.load(Ordering::Relaxed);
    assert!((5..60).contains(&reads), "{reads} reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_small_file_comes_back_from_within_a_block() {
    let (_, repository, source, id) = scene().await;
    let (snapshot, expected) = (repository.snapshot(&id).await.unwrap(), source.image());
    for number in [0, 1, 137, FILES - 1] {
        let name = path(&format!("dir/{number:04}"));
        let target = MemoryStore::new("restored");
        run(&snapshot.source(&Selection::paths([name.clone()])), &target).await;
        let image = target.image();
        assert!(image.keys().eq([&name]));
        assert!(image[&name] == expected[&name], "{name} came back different");
    }
}

/// Nothing is stored again of what is in a block, and a small change stores little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_a_block_is_not_stored_again() {
    let (store, _, source, _) = scene().await;
    let repository = open(&store).await;
    let other = MemoryStore::new("other");
    for number in 0..FILES {
        let name = path(&format!("elsewhere/{number:04}"));
        other.insert(Entry::file(name, Attributes::new(), content(number))).await.unwrap();
    }
    let (id, summary) = back_up(&other, &repository).await;
    assert_eq!(summary.progress.new, 0);
    assert_restores(&repository, id, &other).await;
    let changed = Attributes::new().with(names::MODE, 0o600_u32);
    let file = Entry::file(path("dir/0003"), changed, noise(99, 900));
    source.insert(file).await.unwrap();
    let (id, summary) = back_up(&source, &repository).await;
    assert_eq!(summary.progress.new, 900);
    assert_restores(&repository, id, &source).await;
}

/// A flipped byte costs the block that it is in, which is said of every file of it; the others are
/// whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_block_hurts_its_files_and_no_others() {
    let (store, _, source, id) = scene().await;
    let expected = source.image();
    let packs: Vec<_> = store.list(Some(&Path::from("packs"))).try_collect().await.unwrap();
    let mut blocks = 0;
    for pack in packs {
        let name = pack.location;
        let whole = store.get(&name).await.unwrap().bytes().await.unwrap();
        for at in (200..whole.len()).step_by(150_000) {
            let mut harmed = whole.to_vec();
            harmed[at] ^= 4;
            store.put(&name, harmed.into()).await.unwrap();
            let repository = open(&store).await;
            let options = CheckOptions::every_byte();
            let report = repository.check(&options, &Context::silent()).await.unwrap();
            let told: BTreeSet<_> =
                report.damage.iter().flat_map(|damage| damage.entries.iter().cloned()).collect();
            assert!(!report.is_sound());
            // A hundred are named at most: then it is a page of the tree.
            if told.len() < 100 && told.iter().any(|name| name.starts_with("dir/")) {
                blocks += 1;
                assert!(told.len() > 20, "not all files of the block are named: {told:?}");
                let spared = (0..FILES).map(|number| format!("dir/{number:04}"));
                let spared: Vec<_> =
                    spared.filter(|name| !told.contains(name)).map(|name| path(&name)).collect();
                let (target, snapshot) =
                    (MemoryStore::new("restored"), repository.snapshot(&id).await.unwrap());
                run(&snapshot.source(&Selection::paths(spared.iter().cloned())), &target).await;
                let image = target.image();
                assert!(spared.iter().all(|name| image[name] == expected[name]));
            }
        }
        store.put(&name, whole.into()).await.unwrap();
    }
    assert!(blocks > 0, "no block was hurt");
    assert_restores(&open(&store).await, id, &source).await;
}
