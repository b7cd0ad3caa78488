//! Every kind of object, damaged in every way: found, named, and never restored as if whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::TryStreamExt;
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Context, ErrorKind, Failure, SnapshotId, TransferOptions, transfer};
use lifeboat_repository::{CheckOptions, CheckReport, Repository, Selection, check_without_key};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::common::{back_up, noise, path, repository, secret, small_sample};

/// What is done to an object.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Flip(f64),
    Truncate,
    Empty,
    Remove,
}

const HARMS: [Harm; 8] = [
    Harm::Flip(0.0),
    Harm::Flip(0.1),
    Harm::Flip(0.5),
    Harm::Flip(0.9),
    Harm::Flip(0.999),
    Harm::Truncate,
    Harm::Empty,
    Harm::Remove,
];

async fn apply(store: &dyn ObjectStore, name: &str, harm: Harm) {
    let name = Path::from(name);
    let mut bytes = store.get(&name).await.unwrap().bytes().await.unwrap().to_vec();
    match harm {
        Harm::Flip(at) => {
            let at = (bytes.len() as f64 * at) as usize;
            bytes[at] ^= 0x04;
        }
        Harm::Truncate => bytes.truncate(bytes.len() - 7),
        Harm::Empty => bytes.clear(),
        Harm::Remove => return store.delete(&name).await.unwrap(),
    }
    store.put(&name, PutPayload::from(bytes)).await.unwrap();
}

async fn objects(store: &dyn ObjectStore) -> BTreeMap<String, Vec<u8>> {
    let names: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut all = BTreeMap::new();
    for meta in names {
        let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        all.insert(meta.location.to_string(), bytes.to_vec());
    }
    all
}

async fn put_back(store: &dyn ObjectStore, name: &str, bytes: &[u8]) {
    store.put(&Path::from(name), PutPayload::from(bytes.to_vec())).await.unwrap();
}

/// Restores; `None` when that failed, and never anything but the right bytes.
async fn restored(repository: &Repository, id: SnapshotId, right: &MemoryStore) -> Option<()> {
    let snapshot = repository.snapshot(&id).await.ok()?;
    let target = MemoryStore::new("target");
    let source = snapshot.source(&Selection::all());
    let options = TransferOptions::default();
    transfer(&source, &target, &options, &Context::silent()).await.ok()?;
    assert!(target.image() == right.image(), "wrong bytes were restored from {id}");
    Some(())
}

struct Scene {
    store: Arc<dyn ObjectStore>,
    snapshots: Vec<(SnapshotId, MemoryStore)>,
}

/// Two snapshots that share most of what they hold, and one that shares nothing.
async fn scene() -> Scene {
    let (store, repository) = repository().await;
    let mut snapshots = Vec::new();
    let one = small_sample().await;
    snapshots.push((back_up(&one, &repository).await.0, copy(&one).await));
    let entry = lifeboat_core::Entry::file(path("more"), Default::default(), noise(77, 300_000));
    one.insert(entry).await.unwrap();
    snapshots.push((back_up(&one, &repository).await.0, copy(&one).await));
    let other = MemoryStore::new("other");
    let entry = lifeboat_core::Entry::file(path("alone"), Default::default(), noise(78, 200_000));
    other.insert(entry).await.unwrap();
    snapshots.push((back_up(&other, &repository).await.0, copy(&other).await));
    Scene { store, snapshots }
}

async fn copy(store: &MemoryStore) -> MemoryStore {
    lifeboat_core::conformance::read_all(store).await.unwrap()
}

/// The chunks of a pack as its directory lists them: where they are stored, and their kind.
fn chunks(pack: &[u8]) -> Vec<(std::ops::Range<usize>, u8)> {
    let trailer = pack.len() - 44;
    let count = u32::from_le_bytes(pack[trailer + 32..trailer + 36].try_into().unwrap());
    let mut offset = 64;
    let entries = pack[trailer - 42 * count as usize..trailer].chunks(42);
    let chunk = |entry: &[u8]| {
        let start = offset;
        offset += u32::from_le_bytes(entry[32..36].try_into().unwrap()) as usize;
        (start..offset, entry[41])
    };
    entries.map(chunk).collect()
}

async fn check(repository: &Repository, options: &CheckOptions) -> CheckReport {
    repository.check(options, &Context::silent()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_repository_is_sound() {
    let Scene { store, .. } = scene().await;
    let repository = Repository::open(Arc::clone(&store), &secret()).await.unwrap();
    for options in [CheckOptions::default(), CheckOptions::every_byte()] {
        let report = check(&repository, &options).await;
        assert!(report.is_sound(), "{:?}", report.damage);
        assert_eq!((report.snapshots, report.unreferenced), (3, 0));
    }
    let stored: usize = objects(store.as_ref()).await.values().map(Vec::len).sum();
    let context = Context::silent();
    let report = check_without_key(store, &CheckOptions::every_byte(), &context).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.damage);
    assert!(report.bytes as usize > stored - 2000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damage_is_found_and_told_whom_it_hurts() {
    let Scene { store, snapshots } = scene().await;
    let names: BTreeSet<_> = snapshots.iter().map(|(id, _)| *id).collect();
    let all = objects(store.as_ref()).await;
    let mut kinds = BTreeSet::new();
    let packs = || all.iter().filter(|(name, _)| name.starts_with("packs/"));
    let held: BTreeSet<_> = packs().flat_map(|(_, pack)| chunks(pack)).map(|one| one.1).collect();
    assert!(held.into_iter().eq(1..=4) && packs().count() > 4, "the scene has not all kinds");
    for (name, bytes) in &all {
        for harm in HARMS {
            let scene = format!("{name} {harm:?}");
            apply(store.as_ref(), name, harm).await;
            kinds.insert(name.split('/').next().unwrap().to_owned());
            let opened = Repository::open(Arc::clone(&store), &secret()).await;
            let context = Context::silent();
            let options = CheckOptions::every_byte();
            let keyless = check_without_key(Arc::clone(&store), &options, &context).await;
            match opened {
                Err(error) => {
                    // Without configuration or key nothing opens, and nothing is restored.
                    assert!(name == "lifeboat.json" || name.starts_with("keys/"), "{scene}");
                    let kind = error.kind();
                    assert!(
                        matches!(kind, ErrorKind::Corrupt | ErrorKind::NotFound),
                        "{scene}: {error}"
                    );
                    if name == "lifeboat.json" {
                        let report = keyless.unwrap();
                        assert_eq!(report.damage[0].object, *name, "{scene}");
                        assert_eq!(report.damage[0].snapshots, names, "{scene}");
                    }
                }
                Ok(repository) => {
                    let report = check(&repository, &options).await;
                    // Nothing tells the name of an index object that is gone; only that one is.
                    let lost_index = name.starts_with("index/") && matches!(harm, Harm::Remove);
                    let object = if lost_index { "index" } else { name.as_str() };
                    let told = report.damage.iter().find(|damage| damage.object == object);
                    let removed_root =
                        name.starts_with("snapshots/") && matches!(harm, Harm::Remove);
                    // A snapshot that was removed whole is no snapshot any more.
                    assert!(told.is_some() || removed_root, "{scene}: {:?}", report.damage);
                    let keyless = keyless.unwrap();
                    let found = keyless.damage.iter().any(|damage| damage.object == *name);
                    assert!(found || matches!(harm, Harm::Remove), "{scene} without key");
                    for (id, right) in &snapshots {
                        let hurt = report.damage.iter().any(|one| one.snapshots.contains(id));
                        let whole = restored(&repository, *id, right).await.is_some();
                        let gone = removed_root && name.ends_with(&id.to_string());
                        assert_eq!(
                            !hurt && !gone,
                            whole,
                            "{scene}: snapshot {id}, {:?}",
                            report.damage
                        );
                    }
                }
            }
            put_back(store.as_ref(), name, bytes).await;
        }
    }
    let expected = ["index", "keys", "lifeboat.json", "packs", "snapshots"];
    assert!(kinds.iter().eq(expected.iter()), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_fingerprints_hurt_nobody() {
    let Scene { store, snapshots } = scene().await;
    let mut harmed = BTreeSet::new();
    for (name, mut bytes) in objects(store.as_ref()).await {
        if name.starts_with("packs/") {
            for (place, _) in chunks(&bytes).into_iter().filter(|(_, kind)| *kind == 4) {
                bytes[place.start] ^= 1;
                harmed.insert(name.clone());
            }
            put_back(store.as_ref(), &name, &bytes).await;
        }
    }
    let repository = Repository::open(Arc::clone(&store), &secret()).await.unwrap();
    let report = check(&repository, &CheckOptions::every_byte()).await;
    let told: BTreeSet<_> = report.damage.iter().map(|damage| damage.object.clone()).collect();
    assert!(!harmed.is_empty() && told == harmed, "{harmed:?}, {:?}", report.damage);
    assert!(report.damage.iter().all(|damage| damage.snapshots.is_empty()), "{:?}", report.damage);
    for (id, right) in &snapshots {
        restored(&repository, *id, right).await.unwrap();
    }
    // Nor does the next backup need them.
    let changed = small_sample().await;
    let pages = lifeboat_core::Entry::file(path("pages"), Default::default(), noise(3, 700_000));
    changed.insert(pages.with_layout(lifeboat_core::Layout::Pages(8192))).await.unwrap();
    let (id, _) = back_up(&changed, &repository).await;
    restored(&repository, id, &changed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_changed_places_are_refused() {
    let Scene { store, .. } = scene().await;
    let all = objects(store.as_ref()).await;
    let packs: Vec<_> = all.iter().filter(|(name, _)| name.starts_with("packs/")).collect();
    let ((one, one_bytes), (two, two_bytes)) = (packs[0], packs[1]);
    put_back(store.as_ref(), one, two_bytes).await;
    put_back(store.as_ref(), two, one_bytes).await;
    let repository = Repository::open(Arc::clone(&store), &secret()).await.unwrap();
    let report = check(&repository, &CheckOptions::every_byte()).await;
    let told: Vec<_> = report.damage.iter().map(|damage| &damage.object).collect();
    assert!(told.contains(&one) && told.contains(&two), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_another_repository_are_refused() {
    let Scene { store, .. } = scene().await;
    let (foreign, other) = repository().await;
    back_up(&small_sample().await, &other).await;
    for (name, bytes) in objects(foreign.as_ref()).await {
        if !name.starts_with("lifeboat.json") && !name.starts_with("keys/") {
            put_back(store.as_ref(), &name, &bytes).await;
        }
    }
    let repository = Repository::open(Arc::clone(&store), &secret()).await.unwrap();
    let listed = repository.snapshots().await.unwrap();
    assert_eq!((listed.snapshots.len(), listed.damaged.len()), (3, 1));
    let report = check(&repository, &CheckOptions::every_byte()).await;
    assert!(report.damage.iter().any(|one| one.object.starts_with("snapshots/")));
}
