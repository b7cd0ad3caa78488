//! What is said of what a repository holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Attributes, Collecting, Context, Entry, Layout, SnapshotId};
use lifeboat_repository::{ChunkTotals, Repository, RepositoryStats, SnapshotStats};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::{back_up, noise, path, sample, secret, small};
use crate::hooked::{Fate, Hooked, Request};

async fn open(store: &Arc<Hooked>) -> Repository {
    let place: Arc<dyn ObjectStore> = store.clone();
    Repository::open(place, &secret()).await.unwrap()
}

async fn stats(store: &Arc<Hooked>) -> RepositoryStats {
    open(store).await.stats(&Context::silent()).await.unwrap()
}

fn of(stats: &RepositoryStats, id: SnapshotId) -> &SnapshotStats {
    stats.snapshots.iter().find(|it| it.snapshot.id == id).unwrap()
}

async fn insert(store: &MemoryStore, name: &str, seed: u64, length: usize, layout: Layout) {
    // The store in memory believes attributes: another content needs others.
    let attributes = Attributes::new().with("memory.seed", seed);
    let entry = Entry::file(path(name), attributes, noise(seed, length));
    store.insert(entry.with_layout(layout)).await.unwrap();
}

/// A history in which contents come, change a little, move, repeat each other, and go.
async fn history(store: &Arc<Hooked>) -> Vec<SnapshotId> {
    let place: Arc<dyn ObjectStore> = store.clone();
    let repository = Repository::init(place, &secret(), &small()).await.unwrap();
    let (one, two) = (sample().await, MemoryStore::new("other"));
    let mut ids = vec![back_up(&one, &repository).await.0];
    insert(&one, "many/new", 77, 100_000, Layout::Stream).await;
    insert(&one, "stays", 78, 900_000, Layout::Stream).await;
    ids.push(back_up(&one, &repository).await.0);
    ids.push(back_up(&one, &repository).await.0);
    insert(&one, "many/new", 79, 100_000, Layout::Stream).await;
    insert(&one, "pages", 80, 2_000_000, Layout::Pages(8192)).await;
    // The other store has the same content, at another place.
    insert(&two, "copy", 78, 900_000, Layout::Stream).await;
    insert(&two, "mine", 81, 50_000, Layout::Stream).await;
    ids.push(back_up(&two, &repository).await.0);
    ids.push(back_up(&one, &repository).await.0);
    assert!(one.remove(&path("large")) && one.remove(&path("stays")));
    insert(&one, "many/0007", 82, 3_000, Layout::Stream).await;
    ids.push(back_up(&one, &repository).await.0);
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_snapshot_alone_holds_goes_with_it() {
    let store = Hooked::new();
    let mut left = history(&store).await;
    let mut before = stats(&store).await;
    assert_eq!(before.snapshots.len(), 6);
    assert_eq!((before.missing, before.copies), (0, 0));
    // Two of one state hold nothing alone.
    for id in [left[1], left[2]] {
        assert_eq!(of(&before, id).alone, ChunkTotals::default());
    }
    assert!(before.lists.chunks > 0 && before.fingerprints.chunks > 0);
    let sum: u64 = before.snapshots.iter().map(|it| it.snapshot.bytes).sum();
    assert_eq!(before.logical, sum);
    // In this order each of them has something that no other has, once it is its turn.
    for at in [2, 2, 2, 0, 0] {
        let id = left.remove(at);
        let gone = of(&before, id).clone();
        assert!(gone.referenced.chunks >= gone.alone.chunks);
        store.delete(&Path::from(format!("snapshots/{id}"))).await.unwrap();
        let after = stats(&store).await;
        let (was, is) = (before.referenced(), after.referenced());
        assert_eq!(was.chunks - is.chunks, gone.alone.chunks);
        assert_eq!(was.plain - is.plain, gone.alone.plain);
        assert_eq!(was.stored - is.stored, gone.alone.stored);
        assert_eq!(after.unreferenced - before.unreferenced, gone.alone.stored);
        before = after;
    }
    // Of the last one, all is its own.
    let last = &before.snapshots[0];
    assert_eq!(last.referenced, last.alone);
    assert_eq!(last.referenced, before.referenced());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_snapshots_share_is_read_once_and_counted_by_kind() {
    let store = Hooked::new();
    let ids = history(&store).await;
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reads);
    store.hook(move |request, name| {
        if request == Request::Get && name.starts_with("packs/") {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Fate::Done
    });
    let stats = stats(&store).await;
    let pages = stats.trees.chunks + stats.lists.chunks;
    // The top pages are read to learn how high they are; then they are at hand.
    let read = reads.load(Ordering::Relaxed) as u64;
    assert!(read <= pages + ids.len() as u64, "{read} reads for {pages} pages");
    // Noise does not repeat itself, nor does it shrink.
    let content = 900_000 + 100_000 * 2 + 2_000_000 + 50_000 + 3_000;
    assert!(stats.data.plain > content && stats.data.stored > stats.data.plain, "{stats:?}");
    assert!(stats.deduplication_ratio().unwrap() > 2.0);
    assert!(stats.data.compression_ratio().unwrap() < 1.0);
    // The areas are all there is.
    let names: Vec<_> = stats.areas.iter().map(|area| area.name.as_str()).collect();
    assert!(
        ["index", "keys", "lifeboat.json", "packs", "snapshots"]
            .iter()
            .all(|name| names.contains(name))
    );
    let packs = stats.areas.iter().find(|area| area.name == "packs").unwrap();
    let known = stats.referenced().stored + stats.unreferenced;
    assert_eq!(packs.bytes, known);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_said() {
    let store = Hooked::new();
    history(&store).await;
    let whole = stats(&store).await;
    let mut packs = Vec::new();
    let prefixes = store.list_with_delimiter(Some(&"packs".into())).await.unwrap();
    for prefix in prefixes.common_prefixes {
        packs.extend(store.list_with_delimiter(Some(&prefix)).await.unwrap().objects);
    }
    let mut with_pages = 0;
    for pack in packs {
        let bytes = store.get(&pack.location).await.unwrap().bytes().await.unwrap();
        store.delete(&pack.location).await.unwrap();
        let observer = Arc::new(Collecting::new());
        let damaged = open(&store).await.stats(&Context::new(observer.clone())).await.unwrap();
        assert_eq!(observer.warnings().len() as u64, damaged.missing);
        // Data is counted by the index; only what lists it is read.
        let pages = |stats: &RepositoryStats| stats.trees.chunks + stats.lists.chunks;
        assert_eq!(pages(&damaged) < pages(&whole), damaged.missing > 0);
        with_pages += u32::from(damaged.missing > 0);
        store.put(&pack.location, bytes.into()).await.unwrap();
    }
    assert!(with_pages > 0);
    assert_eq!(stats(&store).await.referenced().stored, whole.referenced().stored);
}
