//! Mending what is damaged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Context, Entry, EntryKind, SnapshotId, names};
use lifeboat_repository::{CheckOptions, CheckReport, Originals, RepairOptions, Repository};
use object_store::ObjectStore;

use crate::common::{
    assert_restores, back_up, delete, noise, objects, open, path, put, repository, restore, secret,
    small, small_sample,
};
use crate::hooked::{Fate, Hooked, Request};

async fn check(store: &Arc<dyn ObjectStore>) -> CheckReport {
    open(store).await.check(&CheckOptions::every_byte(), &Context::silent()).await.unwrap()
}

fn hurt(report: &CheckReport) -> bool {
    report.damage.iter().any(|damage| !damage.snapshots.is_empty())
}

async fn scene() -> (Arc<dyn ObjectStore>, SnapshotId, MemoryStore) {
    let (store, repository) = repository().await;
    let source = small_sample().await;
    let (id, _) = back_up(&source, &repository).await;
    (store, id, source)
}

/// Whether nothing but notes and signs of life was written.
async fn same(store: &dyn ObjectStore, before: &BTreeMap<String, Vec<u8>>) -> bool {
    let now = objects(store, "").await;
    let counts = |name: &&String| !name.starts_with("checks/") && !name.starts_with("leases/");
    now.keys().filter(counts).eq(before.keys().filter(counts))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_made_anew_from_the_packs() {
    let (store, id, source) = scene().await;
    let (context, apply) = (Context::silent(), RepairOptions::apply());
    for (name, bytes) in objects(store.as_ref(), "index").await {
        let mut flipped = bytes.clone();
        flipped[100] ^= 1;
        for harm in [None, Some(flipped), Some(Vec::new())] {
            match &harm {
                Some(bytes) => put(store.as_ref(), &name, bytes.clone()).await,
                None => delete(store.as_ref(), &name).await,
            }
            assert!(hurt(&check(&store).await));
            let before = objects(store.as_ref(), "").await;
            let dry = RepairOptions::default();
            let told = open(&store).await.repair_index(&dry, &context).await.unwrap();
            assert!(same(store.as_ref(), &before).await && hurt(&check(&store).await));
            let done = open(&store).await.repair_index(&apply, &context).await.unwrap();
            assert_eq!(told, done);
            assert!(done.packs > 0 && done.unreadable.is_empty(), "{done:?}");
            assert_eq!(done.damaged.len(), usize::from(harm.is_some()));
            let report = check(&store).await;
            assert!(report.is_sound(), "{:?}", report.damage);
            assert_restores(&open(&store).await, id, &source).await;
            assert!(open(&store).await.repair_index(&apply, &context).await.unwrap().is_idle());
            for made in objects(store.as_ref(), "index").await.into_keys() {
                delete(store.as_ref(), &made).await;
            }
            put(store.as_ref(), &name, bytes.clone()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_still_opens_of_a_damaged_pack_is_saved() {
    let (store, id, source) = scene().await;
    let (context, apply) = (Context::silent(), RepairOptions::apply());
    let whole = objects(store.as_ref(), "").await;
    let (mut saved, mut lost) = (0, 0);
    for (name, bytes) in whole.iter().filter(|(name, _)| name.starts_with("packs/")) {
        for harm in ["flip", "end", "cut", "remove"] {
            let mut harmed = bytes.clone();
            let (middle, end) = (bytes.len() / 2, bytes.len() - 1);
            match harm {
                "flip" => harmed[middle] ^= 1,
                "end" => harmed[end] ^= 1,
                _ => harmed.truncate(middle),
            }
            put(store.as_ref(), name, harmed).await;
            if harm == "remove" {
                delete(store.as_ref(), name).await;
            }
            let found = check(&store).await;
            assert!(!found.is_sound(), "{name} {harm}");
            let before = objects(store.as_ref(), "").await;
            let dry = RepairOptions::default();
            let told = open(&store).await.repair_packs(&dry, &context).await.unwrap();
            assert!(same(store.as_ref(), &before).await, "{name} {harm}");
            let done = open(&store).await.repair_packs(&apply, &context).await.unwrap();
            assert_eq!(told, done, "{name} {harm}");
            assert_eq!((done.packs.len(), &done.packs[0].object), (1, name));
            let one = &done.packs[0];
            (saved, lost) = (saved + one.saved, lost + one.lost);
            let report = check(&store).await;
            if one.lost == 0 {
                assert!(report.is_sound(), "{name} {harm}: {:?}", report.damage);
                assert_restores(&open(&store).await, id, &source).await;
            } else {
                assert!(one.lost < 3 || one.saved < 3 * one.lost || harm == "cut", "{one:?}");
                // It is the index now that lacks something; nobody believes it of the pack.
                assert!(report.damage.iter().all(|it| it.object != *name), "{:?}", report.damage);
            }
            let mut later = open(&store).await.repair_packs(&apply, &context).await.unwrap();
            assert!(later.is_idle(), "{later:?}");
            // Neither does the index come back from the damaged pack, nor does a backup need it.
            assert!(open(&store).await.repair_index(&apply, &context).await.unwrap().packs == 0);
            let (new, _) = back_up(&source, &open(&store).await).await;
            later = open(&store).await.repair_packs(&apply, &context).await.unwrap();
            assert!(later.is_idle(), "{later:?}");
            assert!(check(&store).await.is_sound(), "{name} {harm}");
            for id in [id, new] {
                assert_restores(&open(&store).await, id, &source).await;
            }
            for made in objects(store.as_ref(), "").await.into_keys() {
                delete(store.as_ref(), &made).await;
            }
            for (name, bytes) in &whole {
                put(store.as_ref(), name, bytes.clone()).await;
            }
        }
    }
    assert!(saved > 50 && lost > 5, "{saved} {lost}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hurt_snapshot_gets_a_sibling_with_all_that_is_left() {
    let (store, repository) = repository().await;
    let source = small_sample().await;
    let link = lifeboat_core::Attributes::new().with(names::TARGET, b"large".to_vec());
    source.insert(Entry::new(path("zz-link"), EntryKind::HardLink, link)).await.unwrap();
    let (id, _) = back_up(&source, &repository).await;
    let (context, apply) = (Context::silent(), RepairOptions::apply());
    let whole = objects(store.as_ref(), "").await;
    let mut renamed = 0;
    for (name, bytes) in whole.iter().filter(|(name, _)| name.starts_with("packs/")) {
        let mut harmed = bytes.clone();
        let middle = bytes.len() / 2;
        harmed[middle] ^= 1;
        put(store.as_ref(), name, harmed).await;
        let found = check(&store).await;
        let lost: Vec<_> = found.damage.iter().flat_map(|damage| &damage.entries).collect();
        let before = objects(store.as_ref(), "").await;
        let dry = RepairOptions::default();
        let told = open(&store).await.repair_snapshots(&dry, &context).await.unwrap();
        assert!(same(store.as_ref(), &before).await, "{name}");
        if lost.is_empty() {
            // A page of the tree, perhaps of all of it.
            for made in objects(store.as_ref(), "checks").await.into_keys() {
                delete(store.as_ref(), &made).await;
            }
            put(store.as_ref(), name, bytes.clone()).await;
            continue;
        }
        assert_eq!((told.snapshots.len(), told.snapshots[0].sibling), (1, None));
        let done = open(&store).await.repair_snapshots(&apply, &context).await.unwrap();
        let one = &done.snapshots[0];
        assert_eq!((one.snapshot, one.lost_entries), (id, lost.len() as u64), "{one:?}");
        let sibling = one.sibling.unwrap();
        let info = open(&store).await.snapshot(&sibling).await.unwrap().info().clone();
        assert_eq!((info.parent, info.tags), (Some(id), vec!["repaired".to_owned()]));
        assert_eq!(info.facts.unsigned("repair.lost_entries"), Some(one.lost_entries));
        let (image, all) = (restore(&open(&store).await, sibling).await, source.image());
        for (path, entry) in all.iter() {
            let name = path.to_string();
            if lost.contains(&&name) {
                assert!(image.content(path).is_none(), "{name} is there as if it were whole");
                let left = crate::common::path(&format!("{name}.lifeboat-damaged"));
                if let Some(left) = image.content(&left) {
                    assert_eq!(left.len(), entry.1.len());
                    let differ = left.iter().zip(&entry.1).filter(|(a, b)| a != b);
                    assert!(differ.clone().all(|(left, _)| *left == 0));
                    assert!((1..left.len()).contains(&differ.count()));
                    renamed += 1;
                }
                continue;
            }
            let came = image.image();
            if entry.0.kind == EntryKind::HardLink && lost.iter().any(|name| *name == "large") {
                let left = came.contains_key(&crate::common::path("large.lifeboat-damaged"));
                assert_eq!(came.contains_key(path), left, "a hard link leads nowhere");
                if let Some((link, _)) = came.get(path) {
                    let target = link.attributes.bytes(names::TARGET).unwrap();
                    assert_eq!(target, b"large.lifeboat-damaged");
                }
                continue;
            }
            assert!(came[path] == *entry, "{name}");
        }
        // Once is enough; and it is whole.
        let again = open(&store).await.repair_snapshots(&apply, &context).await.unwrap();
        assert_eq!(again.snapshots[0].sibling, Some(sibling));
        assert_eq!(objects(store.as_ref(), "snapshots").await.len(), 2);
        let report = check(&store).await;
        assert!(report.damage.iter().all(|it| !it.snapshots.contains(&sibling)));
        let mut forget = RepairOptions::apply();
        forget.originals = Originals::Forget;
        open(&store).await.repair_snapshots(&forget, &context).await.unwrap();
        let left = open(&store).await.snapshots().await.unwrap().snapshots;
        assert_eq!(left.iter().map(|info| info.id).collect::<Vec<_>>(), [sibling]);
        for made in objects(store.as_ref(), "").await.into_keys() {
            delete(store.as_ref(), &made).await;
        }
        for (name, bytes) in &whole {
            put(store.as_ref(), name, bytes.clone()).await;
        }
    }
    assert!(renamed > 0);
}

/// A repair that is cut off after any of its writes leaves nothing worse, and the next one goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_that_is_cut_off_anywhere_can_be_done_again() {
    let hooked = Hooked::new();
    let store: Arc<dyn ObjectStore> = Arc::clone(&hooked) as _;
    let repository = Repository::init(Arc::clone(&store), &secret(), &small()).await.unwrap();
    let source = MemoryStore::new("source");
    for number in 0..12 {
        let entry =
            Entry::file(path(&format!("{number:02}")), Default::default(), noise(number, 90_000));
        source.insert(entry).await.unwrap();
    }
    let (id, _) = back_up(&source, &repository).await;
    let (context, apply) = (Context::silent(), RepairOptions::apply());
    // One chunk of a data pack is lost, and the index object as well.
    let packs = objects(store.as_ref(), "packs").await;
    let (name, mut bytes) = packs.into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    put(store.as_ref(), &name, bytes).await;
    let hurt_before: Vec<_> = check(&store).await.damage;
    let lost: usize = hurt_before.iter().map(|damage| damage.entries.len()).sum();
    assert_eq!((hurt_before.len(), lost), (1, 1));
    for (name, mut bytes) in objects(store.as_ref(), "index").await {
        bytes[90] ^= 1;
        put(store.as_ref(), &name, bytes).await;
    }
    let before = objects(store.as_ref(), "").await;
    let all = async |store: &Arc<dyn ObjectStore>| {
        let repository = open(store).await;
        repository.repair_index(&apply, &context).await?;
        repository.repair_packs(&apply, &context).await?;
        repository.repair_snapshots(&apply, &context).await
    };
    let mut cut = 0;
    loop {
        let puts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&puts);
        hooked.hook(move |request, _| match request {
            Request::Put if counted.fetch_add(1, Ordering::Relaxed) >= cut => Fate::Fails,
            _ => Fate::Done,
        });
        let done = all(&store).await;
        hooked.hook(|_, _| Fate::Done);
        let ended = done.is_ok();
        // The lease of the one that was cut off need not be waited for.
        for name in objects(store.as_ref(), "leases").await.into_keys() {
            delete(store.as_ref(), &name).await;
        }
        let report = all(&store).await.unwrap();
        let sibling = report.snapshots[0].sibling.unwrap();
        assert_eq!((report.snapshots[0].snapshot, report.snapshots[0].lost_entries), (id, 1));
        let image = restore(&open(&store).await, sibling).await.image();
        assert_eq!(image.len(), 12, "cut {cut}");
        let same =
            source.image().iter().filter(|(path, entry)| image.get(path) == Some(entry)).count();
        assert_eq!(same, 11, "cut {cut}");
        let after = check(&store).await;
        let hurt: Vec<_> = after.damage.iter().flat_map(|damage| &damage.snapshots).collect();
        assert!(hurt.iter().all(|hurt| **hurt == id), "cut {cut}: {:?}", after.damage);
        // A backup of the same data makes the old one whole.
        back_up(&source, &open(&store).await).await;
        assert_restores(&open(&store).await, id, &source).await;
        assert!(check(&store).await.is_sound(), "cut {cut}");
        for made in objects(store.as_ref(), "").await.into_keys() {
            delete(store.as_ref(), &made).await;
        }
        for (name, bytes) in &before {
            put(store.as_ref(), name, bytes.clone()).await;
        }
        if ended {
            break;
        }
        cut += 1;
    }
    assert!(cut > 8, "{cut}");
}
