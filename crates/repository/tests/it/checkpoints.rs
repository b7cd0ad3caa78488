//! Backups that end too early, and are taken up again.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Completeness, Context, Entry, Sink, Source, TransferOptions, transfer,
};
use lifeboat_repository::{CheckOptions, PruneOptions, Repository, WriteOptions};

use crate::common::{assert_restores, back_up, noise, path, restore, secret, small};
use crate::staged::{Stage, World};

/// How often a race is tried that is seldom lost, and how long one try may take.
const ROUNDS: u64 = 300;
const LIMIT: Duration = Duration::from_mins(1);

async fn empty(world: &Arc<World>) -> Repository {
    Repository::init(Stage::new(world).store(), &secret(), &small()).await.unwrap()
}

async fn of(names: &[&str]) -> MemoryStore {
    let store = MemoryStore::new("store");
    for (seed, name) in names.iter().enumerate() {
        let bytes = noise(seed as u64, 300_000);
        store.insert(Entry::file(path(name), Attributes::new(), bytes)).await.unwrap();
    }
    store
}

fn at_every_entry() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.checkpoint_every = Some(Duration::ZERO);
    options
}

/// Begins a backup, and ends it without a word when a checkpoint is there.
async fn interrupted(world: &Arc<World>, data: &MemoryStore) {
    for requests in 10.. {
        let stage = Stage::new(world);
        let repository = Repository::open(stage.store(), &secret()).await.unwrap();
        stage.hold();
        let source = data.clone();
        let task = tokio::spawn(async move {
            let sink = repository.sink(&at_every_entry());
            transfer(&source, &sink, &TransferOptions::default(), &Context::silent()).await
        });
        stage.go_on(requests, &task).await;
        assert!(!task.is_finished(), "no checkpoint was committed before the end");
        task.abort();
        if !world.names("checkpoints").await.is_empty() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backup_had_stored_is_kept_and_taken_up() {
    let world = World::new();
    let repository = empty(&world).await;
    let context = Context::silent();
    let data = of(&["a", "b", "c", "d", "e", "f"]).await;
    interrupted(&world, &data).await;

    let listed = repository.checkpoints().await.unwrap();
    let [checkpoint] = &listed.snapshots[..] else {
        panic!("{listed:?}");
    };
    assert_eq!(checkpoint.completeness, Completeness::Incomplete);
    assert!(repository.snapshots().await.unwrap().snapshots.is_empty());
    assert!((1..6).contains(&checkpoint.entries), "{checkpoint:?}");

    // No prune takes what it holds, and it gives back what it has.
    let mut options = PruneOptions::default();
    options.keep_marked = Duration::ZERO;
    world.age(Duration::from_hours(24));
    repository.prune(&options, &context).await.unwrap();
    let report = repository.check(&CheckOptions::every_byte(), &context).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    let part = restore(&repository, checkpoint.id).await.image();
    let whole = data.image();
    assert_eq!(part.len() as u64, checkpoint.entries);
    assert!(part.iter().all(|(path, entry)| whole[path] == *entry));

    // The next run is offered what is there, and stores only the rest.
    let sink = repository.sink(&WriteOptions::default());
    let baseline = sink.baseline(data.store()).await.unwrap().unwrap();
    assert!(baseline.entry(&path("a")).await.unwrap().is_some());
    assert!(baseline.entry(&path("f")).await.unwrap().is_none());
    let fresh = Context::silent();
    let summary = transfer(&data, &sink, &TransferOptions::default(), &fresh).await.unwrap();
    let left = (6 - checkpoint.entries) * 300_000;
    assert!(summary.progress.new <= left, "{summary:?}");
    assert_restores(&repository, summary.receipt.snapshot.unwrap(), &data).await;
    assert_eq!(repository.checkpoints().await.unwrap().snapshots.len(), 1);

    // It is of no use any more, and a later prune takes it away.
    let report = repository.prune(&options, &context).await.unwrap();
    assert_eq!((report.checkpoints, report.snapshots), (1, 1));
    assert!(repository.checkpoints().await.unwrap().snapshots.is_empty());
    let report = repository.check(&CheckOptions::every_byte(), &context).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_ends_well_leaves_no_checkpoint() {
    let world = World::new();
    let repository = empty(&world).await;
    let data = of(&["a", "b", "c"]).await;
    let (first, _) = back_up(&data, &repository).await;
    data.insert(Entry::file(path("d"), Attributes::new(), noise(9, 10))).await.unwrap();
    let sink = repository.sink(&at_every_entry());
    let options = TransferOptions::default();
    let summary = transfer(&data, &sink, &options, &Context::silent()).await.unwrap();
    assert_restores(&repository, summary.receipt.snapshot.unwrap(), &data).await;
    assert!(world.names("checkpoints").await.is_empty());
    assert!(restore(&repository, first).await.image().len() == 3);
}

/// A checkpoint waits for what others are just handing over: whatever it does not find yet must
/// wake it. It once slept for ever when the last small chunk of a backup came at a bad moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_checkpoint_waits_for_what_has_come() {
    for round in 0..ROUNDS {
        let repository = empty(&World::new()).await;
        let data = MemoryStore::new("store");
        for number in 0..8 {
            let bytes = noise(round << 8 | number, 100);
            let name = format!("{number}");
            data.insert(Entry::file(path(&name), Attributes::new(), bytes)).await.unwrap();
        }
        let sink = repository.sink(&at_every_entry());
        let context = Context::silent();
        let options = TransferOptions::default();
        let summary = tokio::time::timeout(LIMIT, transfer(&data, &sink, &options, &context)).await;
        let summary = summary.unwrap_or_else(|_| panic!("round {round} came to no end")).unwrap();
        assert_restores(&repository, summary.receipt.snapshot.unwrap(), &data).await;
    }
}
