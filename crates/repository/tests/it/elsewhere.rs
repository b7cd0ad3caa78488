//! A restore takes what one repository cannot give from a copy in another one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::TryStreamExt;
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Collecting, Context, Entry, ErrorKind, Failure, SnapshotId, TransferOptions,
    transfer,
};
use lifeboat_repository::{CopyOptions, Repository, Selection, SnapshotCopies};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::common::{back_up, noise, path, secret, small, small_sample};
use crate::hooked::{Fate, Hooked, Request};

/// A repository with its store.
struct Place {
    store: Arc<Hooked>,
    repository: Repository,
}

impl Place {
    async fn new() -> Self {
        let store = Hooked::new();
        let place: Arc<dyn ObjectStore> = store.clone();
        let repository = Repository::init(place, &secret(), &small()).await.unwrap();
        Self { store, repository }
    }

    async fn packs(&self) -> BTreeSet<String> {
        let area = Path::from("packs");
        let listed: Vec<_> = self.store.list(Some(&area)).try_collect().await.unwrap();
        listed.into_iter().map(|meta| meta.location.to_string()).collect()
    }

    /// Flips a bit in the middle of each of these packs, or takes them away.
    async fn harm(&self, packs: impl IntoIterator<Item = String>) {
        for (number, name) in packs.into_iter().enumerate() {
            let name = Path::from(name);
            if number % 2 == 0 {
                self.store.delete(&name).await.unwrap();
                continue;
            }
            let mut bytes = self.store.get(&name).await.unwrap().bytes().await.unwrap().to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            self.store.put(&name, PutPayload::from(bytes)).await.unwrap();
        }
    }
}

async fn copy(from: &Place, to: &Place) {
    let options = CopyOptions::default();
    let report = from.repository.copy_to(&to.repository, &options, &Context::silent()).await;
    assert_eq!(report.unwrap().copied.len(), 1);
}

async fn copies(original: SnapshotId, a: &Place, b: &Place) -> SnapshotCopies {
    let copy = b.repository.find(&original.to_string(), None).await.unwrap();
    assert_eq!(copy.origin.as_ref().unwrap().snapshot, original);
    let mut all = Vec::new();
    for (name, place, id) in [("A", a, original), ("B", b, copy.id)] {
        let place: Arc<dyn ObjectStore> = place.store.clone();
        let repository = Repository::open(place, &secret()).await.unwrap();
        all.push((name.to_owned(), repository.snapshot(&id).await.unwrap()));
    }
    SnapshotCopies::new(all).unwrap()
}

/// Restores all of it, and returns what was told.
async fn restored(
    copies: &SnapshotCopies,
    right: &MemoryStore,
) -> lifeboat_core::Result<Vec<(String, String)>> {
    let observer = Arc::new(Collecting::new());
    let context = Context::new(observer.clone());
    let target = MemoryStore::new("target");
    let source = copies.source(&Selection::all());
    let summary = transfer(&source, &target, &TransferOptions::default(), &context).await?;
    assert!(target.image() == right.image(), "wrong bytes were restored");
    assert_eq!(context.warnings(), 0);
    let bytes: u64 = right.image().values().map(|(info, _)| info.size).sum();
    assert_eq!(summary.progress.read, bytes, "every byte is counted once");
    assert_eq!(copies.served().iter().map(|(_, bytes)| bytes).sum::<u64>(), bytes);
    Ok(observer.notices())
}

async fn file(store: &MemoryStore, name: &str, bytes: Vec<u8>) {
    store.insert(Entry::file(path(name), Attributes::new(), bytes)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_damage_in_one_is_mended_by_the_other() {
    let (a, b) = (Place::new().await, Place::new().await);
    let store = small_sample().await;
    let (id, _) = back_up(&store, &a.repository).await;
    copy(&a, &b).await;
    let told = restored(&copies(id, &a, &b).await, &store).await.unwrap();
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(copies(id, &a, &b).await.served()[1], ("B", 0));

    let packs = a.packs().await;
    assert!(packs.len() > 3);
    let mut told_of = 0;
    for harmed in &packs {
        let before =
            a.store.get(&Path::from(harmed.as_str())).await.unwrap().bytes().await.unwrap();
        a.harm([harmed.clone()]).await;
        let copies = copies(id, &a, &b).await;
        let told = restored(&copies, &store).await.unwrap();
        // A pack may hold nothing but fingerprints, which no restore needs.
        for (_, what) in &told {
            assert!(what.contains("comes from B, since A: ") && what.contains("missing"), "{what}");
        }
        told_of += usize::from(!told.is_empty());
        a.store.put(&Path::from(harmed.as_str()), before.into()).await.unwrap();
    }
    assert!(told_of > 2 && told_of + 2 >= packs.len(), "{told_of} of {}", packs.len());
    // Nothing of it is left at all.
    a.harm(packs).await;
    let copies = copies(id, &a, &b).await;
    restored(&copies, &store).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_damaged_repositories_make_a_whole_one() {
    let (a, b) = (Place::new().await, Place::new().await);
    let store = MemoryStore::new("one");
    file(&store, "x", noise(1, 1_000_000)).await;
    back_up(&store, &a.repository).await;
    copy(&a, &b).await;
    let (first_a, first_b) = (a.packs().await, b.packs().await);
    file(&store, "y", noise(2, 1_000_000)).await;
    let (id, _) = back_up(&store, &a.repository).await;
    copy(&a, &b).await;
    a.harm(first_a).await;
    let later = b.packs().await.difference(&first_b).cloned().collect::<Vec<_>>();
    // The tree came last, and is needed from one of them.
    let mut data = Vec::new();
    for name in later {
        if b.store.get_range(&Path::from(name.as_str()), 8..9).await.unwrap()[0] == 1 {
            data.push(name);
        }
    }
    b.harm(data).await;
    let copies = copies(id, &a, &b).await;
    let told = restored(&copies, &store).await.unwrap();
    assert!(told.iter().any(|(subject, _)| subject == "x"), "{told:?}");
    // What neither has does not come back, and is not said to.
    a.harm(a.packs().await).await;
    let error = restored(&copies_again(id, &a, &b).await, &store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

async fn copies_again(id: SnapshotId, a: &Place, b: &Place) -> SnapshotCopies {
    copies(id, a, b).await
}

/// Content goes on where it stopped, there and back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_in_the_middle_of_a_file_is_bridged() {
    let (a, b) = (Place::new().await, Place::new().await);
    let store = MemoryStore::new("one");
    file(&store, "large", noise(1, 8_000_000)).await;
    let (id, _) = back_up(&store, &a.repository).await;
    copy(&a, &b).await;
    let copies = copies(id, &a, &b).await;
    // The first fails until the other one has given some, and that one fails later for good.
    let (asked_a, asked_b) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (count_a, seen) = (Arc::clone(&asked_a), Arc::clone(&asked_b));
    a.store.hook(move |request, name| {
        let is_read = request == Request::Get && name.starts_with("packs/");
        let late = is_read && count_a.fetch_add(1, Ordering::Relaxed) >= 60;
        if late && seen.load(Ordering::Relaxed) < 80 { Fate::Fails } else { Fate::Done }
    });
    b.store.hook(move |request, name| {
        let is_read = request == Request::Get && name.starts_with("packs/");
        let late = is_read && asked_b.fetch_add(1, Ordering::Relaxed) >= 90;
        if late { Fate::Fails } else { Fate::Done }
    });
    let told = restored(&copies, &store).await.unwrap();
    assert!(!told.is_empty(), "{told:?}");
    let served = copies.served();
    assert!(served.iter().all(|(_, bytes)| *bytes > 500_000), "{served:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_gone_is_asked_once() {
    let (a, b) = (Place::new().await, Place::new().await);
    let store = small_sample().await;
    let (id, _) = back_up(&store, &a.repository).await;
    copy(&a, &b).await;
    let copies = copies(id, &a, &b).await;
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    a.store.hook(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        Fate::Fails
    });
    let told = restored(&copies, &store).await.unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    // Once for the tree, whose copy was not read before; a failed range asks for the size as well.
    assert!(asked.load(Ordering::Relaxed) <= 4, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_snapshot_is_no_copy() {
    let (a, b) = (Place::new().await, Place::new().await);
    let store = small_sample().await;
    let (id, _) = back_up(&store, &a.repository).await;
    let (other, _) = back_up(&store, &b.repository).await;
    let one = a.repository.snapshot(&id).await.unwrap();
    let two = b.repository.snapshot(&other).await.unwrap();
    let error = SnapshotCopies::new([("A".to_owned(), one), ("B".to_owned(), two)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
