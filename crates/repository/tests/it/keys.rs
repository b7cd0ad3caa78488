//! Holders of the repository's key: several, of every kind, added, removed, and given a new epoch.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::TryStreamExt;
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Attributes, Context, Entry};
use lifeboat_repository::{
    Access, AddKeyOptions, CheckOptions, Error, Holder, KeyCommand, KeyKind, PruneOptions,
    RemoveKeyOptions, Repository, RotateOptions, Secret, Standing,
};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::{
    CHEAP, assert_restores, back_up, delete, noise, objects, path, put, repository, secret, small,
    small_sample,
};
use crate::hooked::{Fate, Hooked, Request};

pub(crate) fn labelled(label: &str, access: Access) -> AddKeyOptions {
    let mut options = AddKeyOptions::new(label);
    (options.cost, options.access) = (CHEAP, access);
    options
}

/// An identity of age, made by age.
pub(crate) struct Identity {
    text: String,
    recipient: String,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let output = Command::new("age-keygen").output().expect("age-keygen, of the package age");
        let text = String::from_utf8(output.stdout).unwrap();
        let recipient = text.lines().find_map(|line| line.strip_prefix("# public key: "));
        let recipient = recipient.unwrap().to_owned();
        Self { text, recipient }
    }

    pub(crate) fn holder(&self) -> Holder {
        Holder::recipient(&self.recipient).unwrap()
    }

    pub(crate) fn secret(&self) -> Secret {
        Secret::identity(&self.text).unwrap()
    }
}

/// A command that keeps what it is given as it is.
fn keeper() -> KeyCommand {
    let script = r#"sed -e 's/"secret"/"x"/; s/"wrapped"/"secret"/; s/"x"/"wrapped"/'"#;
    KeyCommand::new("sh").with_arguments(["-c", script])
}

async fn open(store: &Arc<dyn ObjectStore>, secret: &Secret) -> Result<Repository, Error> {
    Repository::open(Arc::clone(store), secret).await
}

async fn labels(repository: &Repository) -> Vec<String> {
    repository.keys().await.unwrap().into_iter().map(|key| key.label).collect()
}

/// The slots, by name.
async fn slots(store: &Arc<dyn ObjectStore>) -> Vec<(Path, Vec<u8>)> {
    let listed: Vec<_> = store.list(Some(&Path::from("keys"))).try_collect().await.unwrap();
    let mut slots = Vec::new();
    for meta in listed {
        let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        slots.push((meta.location, bytes.to_vec()));
    }
    slots.sort();
    slots
}

fn refused(error: &Error, word: &str) {
    assert!(matches!(error, Error::KeyChange { what } if what.contains(word)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_holder_reads_what_the_others_wrote() {
    let (store, first) = repository().await;
    let identity = Identity::new();
    first.add_key(&identity.holder(), &labelled("ops", Access::Full)).await.unwrap();
    let second = Secret::passphrase("another one");
    first.add_key(&Holder::of(&second).unwrap(), &labelled("two", Access::Full)).await.unwrap();
    let command = Secret::command(keeper());
    first.add_key(&Holder::command(keeper()), &labelled("kms", Access::Full)).await.unwrap();

    let sample = small_sample().await;
    let (id, _) = back_up(&sample, &first).await;
    for (secret, label, kind) in [
        (secret(), "first", KeyKind::Passphrase),
        (second, "two", KeyKind::Passphrase),
        (identity.secret(), "ops", KeyKind::Identity),
        (command, "kms", KeyKind::Command),
    ] {
        let opened = open(&store, &secret).await.unwrap();
        assert_eq!(opened.access(), Access::Full);
        assert_restores(&opened, id, &sample).await;
        let keys = opened.keys().await.unwrap();
        assert_eq!(keys.len(), 4);
        assert!(keys.iter().all(|key| key.standing == Standing::Authentic), "{keys:?}");
        let own: Vec<_> = keys.iter().filter(|key| key.in_use).collect();
        assert_eq!((own.len(), own[0].label.as_str(), own[0].kind), (1, label, kind));
        assert_eq!((own[0].epoch, own[0].access), (Some(1), Some(Access::Full)));
        assert!(own[0].created.is_some());
    }
    for wrong in [
        Secret::passphrase("mistyped"),
        Identity::new().secret(),
        Secret::command(KeyCommand::new("sh").with_arguments(["-c", "exit 9"])),
    ] {
        let error = open(&store, &wrong).await.unwrap_err();
        let known = matches!(error, Error::WrongSecret { .. } | Error::KeyCommand { .. });
        assert!(known, "{error}");
    }
}

#[tokio::test]
async fn a_name_means_one_key() {
    let (_, first) = repository().await;
    let identity = Identity::new();
    first.add_key(&identity.holder(), &labelled("ops", Access::Full)).await.unwrap();
    let again = first.add_key(&identity.holder(), &labelled("ops2", Access::Full)).await;
    refused(&again.unwrap_err(), "\"ops\" is of the same recipient");
    let other = Identity::new();
    let taken = first.add_key(&other.holder(), &labelled("ops", Access::Full)).await;
    refused(&taken.unwrap_err(), "\"ops\" already");
    for bad in ["", " x", "a\nb", &"x".repeat(129)] {
        let error = first.add_key(&other.holder(), &labelled(bad, Access::Full)).await.unwrap_err();
        refused(&error, "a label has");
    }
    for bad in
        ["", "age1xyz", "ssh-ed25519 AAAA", &identity.text, &identity.recipient.to_uppercase()]
    {
        assert!(matches!(Holder::recipient(bad), Err(Error::BadRecipient { .. })), "{bad}");
    }
    assert_eq!(labels(&first).await, ["first", "ops"]);
}

#[tokio::test]
async fn the_last_key_stays_and_so_does_the_one_in_use() {
    let (store, first) = repository().await;
    let remove = async |name: &str, options| first.remove_key(name, options).await;
    refused(&remove("none", RemoveKeyOptions::NotInUse).await.unwrap_err(), "no key is called");
    let error = remove("first", RemoveKeyOptions::NotInUse).await.unwrap_err();
    assert!(matches!(error, Error::KeyInUse { .. }), "{error}");
    refused(&remove("first", RemoveKeyOptions::AlsoInUse).await.unwrap_err(), "the last one");

    // Whoever may only write is nobody who could open it for the others.
    let writer = Identity::new();
    first.add_key(&writer.holder(), &labelled("server", Access::WriteOnly)).await.unwrap();
    refused(&remove("first", RemoveKeyOptions::AlsoInUse).await.unwrap_err(), "the last one");

    let identity = Identity::new();
    let added = first.add_key(&identity.holder(), &labelled("ops", Access::Full)).await.unwrap();
    let removed = remove("first", RemoveKeyOptions::AlsoInUse).await.unwrap();
    assert_eq!((removed.len(), removed[0].label.as_str()), (1, "first"));
    assert!(matches!(open(&store, &secret()).await, Err(Error::WrongSecret { .. })));
    let opened = open(&store, &identity.secret()).await.unwrap();
    for name in [&added.id.to_string()[..8], "ops", &identity.recipient] {
        let error = opened.remove_key(name, RemoveKeyOptions::NotInUse).await.unwrap_err();
        assert!(matches!(error, Error::KeyInUse { .. }), "{error}");
    }
    opened.remove_key("server", RemoveKeyOptions::NotInUse).await.unwrap();
    assert_eq!(labels(&opened).await, ["ops"]);
}

/// Without this program, and by one that knows nothing of it.
#[tokio::test]
async fn age_recovers_the_root_key() {
    let (store, first) = repository().await;
    let identity = Identity::new();
    first.add_key(&identity.holder(), &labelled("ops", Access::Full)).await.unwrap();
    let mut recovered = 0;
    for (_, slot) in slots(&store).await {
        let slot: serde_json::Value = serde_json::from_slice(&slot).unwrap();
        let holder = &slot["holder"];
        if holder["public"] != identity.recipient.as_str() {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("identity"), &identity.text).unwrap();
        std::fs::write(dir.path().join("share"), holder["share"].as_str().unwrap()).unwrap();
        let output = Command::new("sh")
            .args(["-c", "base64 -d share | age -d -i identity"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // The root key: an array of two, the first of 32 bytes, the second a list of epochs.
        assert_eq!(output.stdout[..3], [0x82, 0x58, 32]);
        assert_eq!(output.stdout[35..38], [0x81, 0x82, 1]);
        assert_eq!(output.stdout.len(), 72);
        recovered += 1;
    }
    assert_eq!(recovered, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_only_write_backs_up_and_reads_nothing() {
    let (store, first) = repository().await;
    let sample = small_sample().await;
    let (before, _) = back_up(&sample, &first).await;
    let server = Identity::new();
    first.add_key(&server.holder(), &labelled("server", Access::WriteOnly)).await.unwrap();

    let writer = open(&store, &server.secret()).await.unwrap();
    assert_eq!(writer.access(), Access::WriteOnly);
    // All of it is there already but the pages of the tree, which have their own times.
    let (same, summary) = back_up(&sample, &writer).await;
    assert_eq!(summary.progress.new, 0, "what is there is not stored again");
    sample.insert(Entry::file(path("new"), Attributes::new(), noise(77, 500_000))).await.unwrap();
    let (changed, summary) = back_up(&sample, &writer).await;
    assert_eq!(summary.progress.new, 500_000);

    for error in [
        writer.snapshots().await.err(),
        writer.snapshot(&before).await.err(),
        writer.snapshot(&changed).await.err(),
        writer.check(&CheckOptions::default(), &Context::silent()).await.err(),
        writer.add_key(&Identity::new().holder(), &labelled("x", Access::Full)).await.err(),
        writer.remove_key("first", RemoveKeyOptions::AlsoInUse).await.err(),
        writer.rotate_key(&RotateOptions::default()).await.err(),
    ] {
        assert!(matches!(error, Some(Error::WriteOnly)), "{error:?}");
    }
    let keys = writer.keys().await.unwrap();
    assert!(keys.iter().all(|key| key.standing == Standing::Unproven), "{keys:?}");

    // Others read what it wrote as if they had written it themselves.
    let again = open(&store, &secret()).await.unwrap();
    assert_eq!(again.snapshots().await.unwrap().snapshots.len(), 3);
    assert_restores(&again, changed, &sample).await;
    assert_eq!(again.snapshot(&same).await.unwrap().info().entries, 206);
    let every_byte = CheckOptions::every_byte();
    let report = again.check(&every_byte, &Context::silent()).await.unwrap();
    assert!(report.is_sound());
    // A program that does not know such packs does not take them for damaged.
    let config = store.get(&Path::from("lifeboat.json")).await.unwrap().bytes().await.unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let words = serde_json::json!(["blocks", "sealed-to-key"]);
    assert_eq!(config["config"]["features"]["read"], words);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_epoch_reaches_everybody_but_who_was_removed() {
    let (store, first) = repository().await;
    let (ops, gone, server) = (Identity::new(), Identity::new(), Identity::new());
    first.add_key(&ops.holder(), &labelled("ops", Access::Full)).await.unwrap();
    first.add_key(&gone.holder(), &labelled("gone", Access::Full)).await.unwrap();
    first.add_key(&server.holder(), &labelled("server", Access::WriteOnly)).await.unwrap();
    let sample = small_sample().await;
    let (before, _) = back_up(&sample, &first).await;
    let running = open(&store, &gone.secret()).await.unwrap();
    let (still, writing) =
        (open(&store, &ops.secret()).await.unwrap(), open(&store, &server.secret()).await.unwrap());

    first.remove_key("gone", RemoveKeyOptions::NotInUse).await.unwrap();
    let rotation = first.rotate_key(&RotateOptions::default()).await.unwrap();
    assert_eq!((rotation.epoch, rotation.resumed, rotation.renewed.len()), (2, false, 3));
    assert!(rotation.refused.is_empty());
    let keys = first.keys().await.unwrap();
    assert!(keys.iter().all(|key| key.epoch == Some(2)), "{keys:?}");
    assert_eq!(labels(&first).await, ["first", "ops", "server"]);

    // A writer that runs on with the older epoch does no harm.
    let (late, _) = back_up(&sample, &writing).await;
    // This handle goes on with the new one.
    let other = small_sample().await;
    other.insert(Entry::file(path("new"), Attributes::new(), noise(78, 400_000))).await.unwrap();
    let (after, _) = back_up(&other, &first).await;
    // One that was opened before finds its own new slot.
    assert_restores(&still, after, &other).await;
    for secret in [secret(), ops.secret()] {
        let opened = open(&store, &secret).await.unwrap();
        for (id, sample) in [(before, &sample), (late, &sample), (after, &other)] {
            assert_restores(&opened, id, sample).await;
        }
    }
    // Who was removed is told so, and reads nothing new.
    for id in [&before, &after] {
        let error = running.snapshot(id).await.unwrap_err();
        assert!(matches!(error, Error::Rotated { epoch: 2 }), "{error}");
    }
    assert!(matches!(open(&store, &gone.secret()).await, Err(Error::WrongSecret { .. })));
    let (newest, _) = back_up(&other, &open(&store, &server.secret()).await.unwrap()).await;
    assert_restores(&first, newest, &other).await;
}

/// At every write and every deletion of a rotation, the process ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_is_killed_is_finished_by_the_next() {
    for kill in 0.. {
        let hooked = Hooked::new();
        let inner: Arc<dyn ObjectStore> = Arc::clone(&hooked) as _;
        let first = Repository::init(Arc::clone(&inner), &secret(), &small()).await.unwrap();
        let (ops, server) = (Identity::new(), Identity::new());
        first.add_key(&ops.holder(), &labelled("ops", Access::Full)).await.unwrap();
        first.add_key(&server.holder(), &labelled("server", Access::WriteOnly)).await.unwrap();
        let sample = MemoryStore::new("small");
        sample.insert(Entry::file(path("a"), Attributes::new(), noise(1, 9000))).await.unwrap();
        let (before, _) = back_up(&sample, &first).await;

        let changes = AtomicU64::new(0);
        hooked.hook(move |request, name| {
            let is_change = request != Request::Get && name.starts_with("keys/");
            let earlier = changes.fetch_add(u64::from(is_change), Ordering::SeqCst);
            if is_change && earlier >= kill { Fate::Fails } else { Fate::Done }
        });
        let outcome = first.rotate_key(&RotateOptions::default()).await;
        hooked.hook(|_, _| Fate::Done);
        // Whoever comes next opens it, and all of them read all of it.
        for secret in [secret(), ops.secret()] {
            let opened = open(&inner, &secret).await.unwrap();
            assert_restores(&opened, before, &sample).await;
        }
        let writer = open(&inner, &server.secret()).await.unwrap();
        let (between, _) = back_up(&sample, &writer).await;
        if outcome.is_ok() {
            assert!(kill >= 6, "three are written and three deleted");
            break;
        }
        let again = open(&inner, &secret()).await.unwrap();
        let rotation = again.rotate_key(&RotateOptions::default()).await.unwrap();
        assert_eq!((rotation.epoch, rotation.resumed), (2, kill > 0), "{kill}");
        let keys = again.keys().await.unwrap();
        assert_eq!(keys.len(), 3, "{keys:?}");
        assert!(keys.iter().all(|key| key.epoch == Some(2)), "{keys:?}");
        for secret in [secret(), ops.secret()] {
            let opened = open(&inner, &secret).await.unwrap();
            assert_restores(&opened, between, &sample).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_holder_does_not_rotate_into_an_unfinished_rotation() {
    let (store, first) = repository().await;
    let ops = Identity::new();
    first.add_key(&ops.holder(), &labelled("ops", Access::Full)).await.unwrap();
    let before = slots(&store).await;
    let other = open(&store, &ops.secret()).await.unwrap();
    first.rotate_key(&RotateOptions::default()).await.unwrap();
    // As if the first had been killed after its own new slot.
    for (name, slot) in slots(&store).await {
        if String::from_utf8_lossy(&slot).contains("\"ops\"") {
            store.delete(&name).await.unwrap();
        }
    }
    for (name, slot) in before {
        store.put(&name, slot.into()).await.unwrap();
    }
    let error = other.rotate_key(&RotateOptions::default()).await.unwrap_err();
    refused(&error, "the holder of \"first\"");
    let error = other.add_key(&Identity::new().holder(), &labelled("x", Access::Full)).await;
    refused(&error.unwrap_err(), "the holder of \"first\"");
    let again = open(&store, &secret()).await.unwrap();
    assert!(again.rotate_key(&RotateOptions::default()).await.unwrap().resumed);
    assert_eq!(other.rotate_key(&RotateOptions::default()).await.unwrap().epoch, 3);
}

/// What only the one has who began to rotate, nobody else can give to the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_alone_holds_the_newest_epoch_is_not_removed() {
    let hooked = Hooked::new();
    let store: Arc<dyn ObjectStore> = Arc::clone(&hooked) as _;
    let first = Repository::init(Arc::clone(&store), &secret(), &small()).await.unwrap();
    let ops = Identity::new();
    first.add_key(&ops.holder(), &labelled("ops", Access::Full)).await.unwrap();
    let other = open(&store, &ops.secret()).await.unwrap();
    // Killed after its own new slot; and then it goes on working.
    let written = AtomicU64::new(0);
    hooked.hook(move |request, name| {
        let is_slot = request == Request::Put && name.starts_with("keys/");
        let fails = is_slot && written.fetch_add(1, Ordering::SeqCst) > 0;
        if fails { Fate::Fails } else { Fate::Done }
    });
    first.rotate_key(&RotateOptions::default()).await.unwrap_err();
    hooked.hook(|_, _| Fate::Done);
    let sample = small_sample().await;
    let (id, _) = back_up(&sample, &open(&store, &secret()).await.unwrap()).await;

    let error = other.remove_key("first", RemoveKeyOptions::NotInUse).await.unwrap_err();
    refused(&error, "only \"first\" has epoch 2");
    let again = open(&store, &secret()).await.unwrap();
    assert!(again.rotate_key(&RotateOptions::default()).await.unwrap().resumed);
    other.remove_key("first", RemoveKeyOptions::NotInUse).await.unwrap();
    assert_restores(&open(&store, &ops.secret()).await.unwrap(), id, &sample).await;
}

/// The epoch of an object that no name protects is turned to one that never was: that is damage,
/// and nobody is told that the key was rotated. One that a holder really was given is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_that_never_was_is_damage() {
    let (store, first) = repository().await;
    let ops = Identity::new();
    first.add_key(&ops.holder(), &labelled("ops", Access::Full)).await.unwrap();
    let old = open(&store, &secret()).await.unwrap();
    let check = async |repository: &Repository| {
        let report = repository.check(&CheckOptions::default(), &Context::silent()).await;
        let damage = report.unwrap().damage.into_iter();
        damage.map(|damage| (damage.object, damage.what)).collect::<Vec<_>>()
    };
    let (prune, context) = (PruneOptions::default(), Context::silent());
    first.prune(&prune, &context).await.unwrap();
    // The lease that was given back is there. The epoch is behind the first twelve bytes.
    let lease = objects(store.as_ref(), "leases").await.pop_first().unwrap();
    let with_epoch = |epoch: u32| {
        let mut bytes = lease.1.clone();
        bytes[12..16].copy_from_slice(&epoch.to_le_bytes());
        bytes
    };
    assert_eq!(with_epoch(1), lease.1, "that is where it lies");
    let expected = |epoch: u32| {
        let what = format!("it names epoch {epoch} of the key, and there never was one");
        vec![(lease.0.clone(), what)]
    };
    for epoch in [2, 3, 1 << 20] {
        put(store.as_ref(), &lease.0, with_epoch(epoch)).await;
        assert_eq!(check(&old).await, expected(epoch));
        // One that cannot be read is somebody's until its time is over.
        let error = first.prune(&prune, &context).await.unwrap_err();
        assert!(matches!(&error, Error::LeaseHeld { .. }), "{error}");
    }
    delete(store.as_ref(), &lease.0).await;

    // The same handle takes an epoch that is new to it for what it is.
    first.rotate_key(&RotateOptions::default()).await.unwrap();
    assert_eq!(check(&old).await, []);
    let lease = objects(store.as_ref(), "leases").await.pop_first().unwrap();
    assert_eq!(lease.1[12..16], 2_u32.to_le_bytes());
    let mut bytes = lease.1.clone();
    bytes[12] = 3;
    put(store.as_ref(), &lease.0, bytes).await;
    let what = "it names epoch 3 of the key, and there never was one";
    assert_eq!(check(&old).await, [(lease.0, what.to_owned())]);
}

/// Whoever can write to the store can put a slot there, for a key pair of his own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_slot_is_shown_and_given_nothing() {
    let (store, first) = repository().await;
    let (ops, thief) = (Identity::new(), Identity::new());
    first.add_key(&ops.holder(), &labelled("ops", Access::Full)).await.unwrap();
    for (_, slot) in slots(&store).await {
        let text = String::from_utf8(slot).unwrap();
        if text.contains(&ops.recipient) {
            let planted = text.replace(&ops.recipient, &thief.recipient).replace("ops", "new ops");
            let name = lifeboat_repository::ObjectId::of(planted.as_bytes());
            store.put(&Path::from(format!("keys/{name}")), planted.into()).await.unwrap();
        }
    }
    let keys = first.keys().await.unwrap();
    let standing = |label: &str| &keys.iter().find(|key| key.label == label).unwrap().standing;
    assert_eq!((standing("ops"), standing("new ops")), (&Standing::Authentic, &Standing::Forged));
    assert!(open(&store, &thief.secret()).await.is_err());
    let rotation = first.rotate_key(&RotateOptions::default()).await.unwrap();
    let refused: Vec<_> = rotation.refused.iter().map(|key| key.label.as_str()).collect();
    assert_eq!((rotation.renewed.len(), refused), (2, vec!["new ops"]));
    assert!(open(&store, &thief.secret()).await.is_err());
    // It counts for nothing when the last key is to be removed.
    first.remove_key("ops", RemoveKeyOptions::NotInUse).await.unwrap();
    let error = first.remove_key("first", RemoveKeyOptions::AlsoInUse).await.unwrap_err();
    assert!(error.to_string().contains("the last one"), "{error}");
    first.remove_key("new ops", RemoveKeyOptions::NotInUse).await.unwrap();
}

#[tokio::test]
async fn a_repository_can_be_made_for_somebody_else() {
    let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let ops = Identity::new();
    Repository::init_for(Arc::clone(&store), &ops.holder(), &small()).await.unwrap();
    assert!(matches!(open(&store, &secret()).await, Err(Error::WrongSecret { .. })));
    assert_eq!(open(&store, &ops.secret()).await.unwrap().keys().await.unwrap().len(), 1);
}
