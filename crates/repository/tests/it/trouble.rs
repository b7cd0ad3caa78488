//! What goes wrong behind a write, and must not pass for success.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Comparison, Completion, Context, Entry, Header, Sink, Source, StoreRef, Timestamp,
    TransferOptions, transfer,
};
use lifeboat_repository::{CheckOptions, Repository, WriteOptions};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::Semaphore;

use crate::common::{assert_restores, back_up, noise, path, run, secret, small};
use crate::hooked::{Fate, Hooked, Request};

async fn hooked() -> (Arc<Hooked>, Repository) {
    let store = Hooked::new();
    let place: Arc<dyn ObjectStore> = store.clone();
    let repository = Repository::init(place, &secret(), &small()).await.unwrap();
    (store, repository)
}

async fn open(store: &Arc<Hooked>) -> Repository {
    let place: Arc<dyn ObjectStore> = store.clone();
    Repository::open(place, &secret()).await.unwrap()
}

async fn store_of(size: usize) -> MemoryStore {
    let store = MemoryStore::new("trouble");
    let entry = Entry::file(path("large"), Attributes::new(), noise(1, size));
    store.insert(entry).await.unwrap();
    store
}

async fn names(store: &Hooked, area: &str) -> Vec<String> {
    let area = Path::from(area);
    let listed: Vec<_> = store.list(Some(&area)).try_collect().await.unwrap();
    let mut names: Vec<_> = listed.into_iter().map(|meta| meta.location.to_string()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_while_the_index_is_read_leaves_no_gap_in_it() {
    let (store, repository) = hooked().await;
    let one = store_of(100_000).await;
    let (first, _) = back_up(&one, &repository).await;
    let mut expected = vec![(first, lifeboat_core::conformance::read_all(&one).await.unwrap())];
    for number in 0..8 {
        let more =
            Entry::file(path(&format!("more-{number}")), Attributes::new(), noise(number, 9));
        one.insert(more).await.unwrap();
        let (id, _) = back_up(&one, &repository).await;
        expected.push((id, lifeboat_core::conformance::read_all(&one).await.unwrap()));
    }
    let objects = names(&store, "index").await;
    assert!(objects.len() > 8);
    for broken in objects {
        let later = open(&store).await;
        let down = Arc::new(AtomicBool::new(true));
        let is_down = Arc::clone(&down);
        store.hook(move |request, name| match request {
            Request::Get if name == broken && is_down.load(Ordering::Relaxed) => Fate::Fails,
            _ => Fate::Done,
        });
        later.snapshot(&first).await.unwrap_err();
        down.store(false, Ordering::Relaxed);
        for (id, right) in &expected {
            assert_restores(&later, *id, right).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_was_lost_in_a_panic_is_no_success() {
    for area in ["packs/", "index/", "snapshots/"] {
        let (store, repository) = hooked().await;
        let one = store_of(5_000_000).await;
        let done = AtomicBool::new(false);
        store.hook(move |request, name| match request {
            Request::Put if name.starts_with(area) && !done.swap(true, Ordering::Relaxed) => {
                Fate::Panics
            }
            _ => Fate::Done,
        });
        let work = tokio::spawn(async move {
            let sink = repository.sink(&WriteOptions::default());
            transfer(&one, &sink, &TransferOptions::default(), &Context::silent()).await
        });
        let ended = work.await;
        assert!(!matches!(ended, Ok(Ok(_))), "{area}: it says that all is well");
        let repository = open(&store).await;
        assert!(repository.snapshots().await.unwrap().snapshots.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_was_dropped_and_made_again_loses_nothing() {
    let (store, repository) = hooked().await;
    let one = store_of(30_000_000).await;
    let gate = Arc::new(Semaphore::new(0));
    let shut = Arc::clone(&gate);
    store.hook(move |request, name| match request {
        Request::Put if name.starts_with("packs/") => Fate::Waits(Arc::clone(&shut)),
        _ => Fate::Done,
    });
    let context = Context::silent();
    let sink = repository.sink(&WriteOptions::default());
    let writing = sink.write(&Header::new(StoreRef::new("memory", "trouble")), &context).await;
    let writing: Arc<dyn lifeboat_core::Writing> = Arc::from(writing.unwrap());
    let entry = async || {
        let mut reading = one.read(None, &context).await.unwrap();
        reading.next().await.unwrap().unwrap()
    };
    // No pack can be stored, so that the put waits in the middle.
    let put = writing.put(0, entry().await);
    tokio::time::timeout(Duration::from_millis(500), put).await.unwrap_err();
    gate.add_permits(1000);
    writing.put(0, entry().await).await.unwrap();
    // Whether it is committed or refused, it must not lack anything.
    let done = Arc::clone(&writing).commit(Completion::at(Timestamp::now())).await;
    let id = done.unwrap().snapshot.unwrap();
    assert_restores(&repository, id, &one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_does_not_inherit_what_is_lost_beneath_a_long_list() {
    let (store, repository) = hooked().await;
    let one = store_of(12_000_000).await;
    let mut reading = one.read(None, &Context::silent()).await.unwrap();
    assert!(reading.next().await.unwrap().is_some());
    let (_, _) = back_up(&one, &repository).await;
    let objects = names(&store, "index").await;
    assert!(objects.len() > 1, "all is in one index object");
    for lost in objects {
        let location = Path::from(lost.as_str());
        let bytes = store.get(&location).await.unwrap().bytes().await.unwrap();
        store.delete(&location).await.unwrap();
        let later = open(&store).await;
        let sink = later.sink(&WriteOptions::default());
        let (options, context) = (TransferOptions::default(), Context::silent());
        // What is lost counts as changed, and is stored again.
        let summary = transfer(&one, &sink, &options, &context).await.unwrap();
        assert!(summary.progress.unchanged < 12_000_000, "{:?}", summary.progress);
        assert_restores(&later, summary.receipt.snapshot.unwrap(), &one).await;
        let mut options = TransferOptions::default();
        options.comparison = Comparison::Nothing;
        let summary = transfer(&one, &sink, &options, &context).await.unwrap();
        assert_restores(&later, summary.receipt.snapshot.unwrap(), &one).await;
        for name in names(&store, "snapshots").await.into_iter().skip(1) {
            store.delete(&Path::from(name)).await.unwrap();
        }
        store.put(&location, bytes.into()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_aborted_write_the_same_handle_writes_well() {
    let (store, repository) = hooked().await;
    let one = store_of(6_000_000).await;
    store.hook(|request, name| match request {
        Request::Put if name.starts_with("packs/a") || name.starts_with("packs/5") => Fate::Fails,
        _ => Fate::Done,
    });
    let sink = repository.sink(&WriteOptions::default());
    let (options, context) = (TransferOptions::default(), Context::silent());
    // With chance, none of the packs fails.
    let _ = transfer(&one, &sink, &options, &context).await;
    store.hook(|_, _| Fate::Done);
    let summary = run(&one, &sink).await;
    assert_restores(&repository, summary.receipt.snapshot.unwrap(), &one).await;
    let report = repository.check(&CheckOptions::every_byte(), &context).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.damage);
}
