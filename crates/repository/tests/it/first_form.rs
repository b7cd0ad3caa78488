//! A repository whose key is of the first form, as the earliest versions made them: a passphrase
//! wraps the root key itself, and nobody can give its holder a new epoch without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Attributes, Context, Entry, SnapshotId};
use lifeboat_repository::{
    Access, CheckOptions, Error, KeyKind, Repository, RotateOptions, Secret,
};
use object_store::ObjectStore;

use crate::common::{assert_restores, back_up, noise, path, put, restore, secret};
use crate::hooked::{Fate, Hooked, Request};
use crate::keys::{Identity, labelled};

/// The golden repository of format 1, in memory.
async fn golden() -> (Arc<Hooked>, Arc<dyn ObjectStore>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden-v1/repository");
    let hooked = Hooked::new();
    let store: Arc<dyn ObjectStore> = Arc::clone(&hooked) as _;
    let mut found: Vec<PathBuf> = vec![root.clone()];
    let mut objects = 0;
    while let Some(path) = found.pop() {
        if path.is_dir() {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
            put(store.as_ref(), name, fs::read(&path).unwrap()).await;
            objects += 1;
        }
    }
    assert!(objects > 8, "the fixture is not whole");
    (hooked, store)
}

async fn open(store: &Arc<dyn ObjectStore>, secret: &Secret) -> Repository {
    Repository::open(Arc::clone(store), secret).await.unwrap()
}

/// All snapshots, with what they hold.
async fn all(repository: &Repository) -> Vec<(SnapshotId, MemoryStore)> {
    let listed = repository.snapshots().await.unwrap();
    assert!(listed.damaged.is_empty() && listed.snapshots.len() > 1, "{listed:?}");
    let mut all = Vec::new();
    for info in listed.snapshots {
        all.push((info.id, restore(repository, info.id).await));
    }
    all
}

/// Every snapshot is what it was.
async fn assert_same(repository: &Repository, before: &[(SnapshotId, MemoryStore)]) {
    for (id, expected) in before {
        assert_restores(repository, *id, expected).await;
    }
}

fn with_passphrase() -> RotateOptions {
    let mut options = RotateOptions::default();
    // A wrong one among them does no harm.
    options.passphrases = vec![Secret::passphrase("mistyped"), secret()];
    options
}

async fn something() -> MemoryStore {
    let store = MemoryStore::new("new");
    store.insert(Entry::file(path("a"), Attributes::new(), noise(41, 90_000))).await.unwrap();
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_rotated_with_its_passphrase_and_all_reads_as_before() {
    let (_, store) = golden().await;
    let first = open(&store, &secret()).await;
    let before = all(&first).await;
    let running = open(&store, &secret()).await;
    let (ops, server) = (Identity::new(), Identity::new());
    first.add_key(&ops.holder(), &labelled("ops", Access::Full)).await.unwrap();

    // Nobody can do it without, and nothing is done then.
    for passphrases in [vec![], vec![Secret::passphrase("mistyped")]] {
        let mut options = RotateOptions::default();
        options.passphrases = passphrases;
        for holder in [secret(), ops.secret()] {
            let error = open(&store, &holder).await.rotate_key(&options).await.unwrap_err();
            let words = "\"first\" (key 1bd3674b221cc883";
            let told = matches!(&error, Error::KeyChange { what } if what.starts_with(words));
            assert!(told && error.to_string().contains("of the first form"), "{error}");
        }
        assert_eq!(first.keys().await.unwrap().len(), 2);
    }

    let rotation = first.rotate_key(&with_passphrase()).await.unwrap();
    assert_eq!((rotation.epoch, rotation.resumed, rotation.renewed.len()), (2, false, 2));
    assert!(rotation.refused.is_empty(), "{rotation:?}");
    let keys = first.keys().await.unwrap();
    let of = |label: &str| keys.iter().find(|key| key.label == label).unwrap();
    assert!(keys.len() == 2 && keys.iter().all(|key| key.epoch == Some(2)), "{keys:?}");
    assert_eq!((of("first").kind, of("first").in_use), (KeyKind::Passphrase, true));
    assert!(of("first").recipient.is_some(), "it has a key pair now");

    // The same passphrase opens it, and the new recipient does; both read old and new.
    let new = something().await;
    let (after, _) = back_up(&new, &first).await;
    for holder in [secret(), ops.secret()] {
        let opened = open(&store, &holder).await;
        assert_same(&opened, &before).await;
        assert_restores(&opened, after, &new).await;
        let report = opened.check(&CheckOptions::every_byte(), &Context::silent()).await.unwrap();
        assert!(report.is_sound(), "{:?}", report.damage);
    }
    let wrong = Repository::open(Arc::clone(&store), &Secret::passphrase("mistyped")).await;
    assert!(matches!(wrong.err(), Some(Error::WrongSecret { .. })));
    // A handle from before has no key pair by which it could be given the new epoch. It says so,
    // and takes nothing for damaged.
    for id in [after, before[0].0] {
        let error = running.snapshot(&id).await.unwrap_err();
        assert!(matches!(error, Error::Rotated { epoch: 2 }), "{error}");
    }

    // From now on it is a key like all others: it is given the next epoch without its passphrase.
    first.add_key(&server.holder(), &labelled("server", Access::WriteOnly)).await.unwrap();
    let next = open(&store, &ops.secret()).await.rotate_key(&RotateOptions::default()).await;
    assert_eq!(next.unwrap().epoch, 3);
    let (newest, _) = back_up(&new, &open(&store, &server.secret()).await).await;
    let opened = open(&store, &secret()).await;
    assert_restores(&opened, newest, &new).await;
    assert_same(&opened, &before).await;
}

/// At every write and every deletion of a rotation, the process ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_rotation_is_finished_by_the_next_wherever_it_was_killed() {
    for kill in 0.. {
        let (hooked, store) = golden().await;
        let first = open(&store, &secret()).await;
        let ops = Identity::new();
        first.add_key(&ops.holder(), &labelled("ops", Access::Full)).await.unwrap();
        let new = something().await;
        let (before, _) = back_up(&new, &first).await;

        let changes = AtomicU64::new(0);
        hooked.hook(move |request, name| {
            let is_change = request != Request::Get && name.starts_with("keys/");
            let earlier = changes.fetch_add(u64::from(is_change), Ordering::SeqCst);
            if is_change && earlier >= kill { Fate::Fails } else { Fate::Done }
        });
        let outcome = first.rotate_key(&with_passphrase()).await;
        hooked.hook(|_, _| Fate::Done);
        for holder in [secret(), ops.secret()] {
            assert_restores(&open(&store, &holder).await, before, &new).await;
        }
        if outcome.is_ok() {
            assert!(kill >= 4, "two are written and two deleted");
            break;
        }
        let again = open(&store, &secret()).await;
        let rotation = again.rotate_key(&with_passphrase()).await.unwrap();
        assert_eq!((rotation.epoch, rotation.resumed), (2, kill > 0), "{kill}");
        let keys = again.keys().await.unwrap();
        assert!(keys.len() == 2 && keys.iter().all(|key| key.epoch == Some(2)), "{kill}: {keys:?}");
        for holder in [secret(), ops.secret()] {
            assert_restores(&open(&store, &holder).await, before, &new).await;
        }
    }
}
