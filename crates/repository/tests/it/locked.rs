//! A bucket in which, for a time, nothing can be deleted or written over.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Context, Entry, Keeping, Retention, RetentionMode, TransferOptions, transfer,
};
use lifeboat_repository::{CheckOptions, OpenOptions, PruneOptions, Repository, WriteOptions};
use object_store::ObjectStore;

use crate::cold::Cold;
use crate::common::{assert_restores, back_up, noise, path, secret, small};
use crate::staged::{Stage, World};

const DAY: Duration = Duration::from_hours(24);

async fn file(seed: u64) -> MemoryStore {
    let store = MemoryStore::new("store");
    let name = format!("file-{seed}");
    let entry = Entry::file(path(&name), Attributes::new(), noise(seed, 300_000));
    store.insert(entry).await.unwrap();
    store
}

async fn locked(world: &Arc<World>) -> (Arc<Cold>, Repository) {
    let cold = Cold::on(Stage::new(world).store());
    cold.lock("");
    let mut options = small();
    options.warehouse = Some(Arc::clone(&cold) as _);
    let store = Arc::clone(&cold) as Arc<dyn ObjectStore>;
    let repository = Repository::init(store, &secret(), &options).await.unwrap();
    (cold, repository)
}

fn at_once() -> PruneOptions {
    let mut options = PruneOptions::default();
    (options.keep_marked, options.max_waste) = (Duration::ZERO, 0.0);
    options
}

#[tokio::test]
async fn writers_and_prunes_go_on_where_nothing_can_be_deleted() {
    let world = World::new();
    let (cold, repository) = locked(&world).await;
    let context = Context::silent();
    let (one, two) = (file(1).await, file(2).await);
    let (first, _) = back_up(&one, &repository).await;
    let (second, _) = back_up(&two, &repository).await;
    // Each says that it ended, since it could not take its session away.
    let sessions = world.names("sessions").await;
    assert_eq!(sessions.iter().filter(|name| name.ends_with(".ended")).count(), 2, "{sessions:?}");

    // The lock holds back no forgetting by other hands, as a delete marker does.
    world.delete(&format!("snapshots/{first}")).await;
    let before = world.names("packs").await;
    let report = repository.prune(&at_once(), &context).await.unwrap();
    assert!(report.marked.packs > 0 && report.deleted.packs == 0, "{report:?}");
    assert!(report.refused.packs > 0, "{report:?}");
    assert!(report.refusal.unwrap().contains("locked"));
    let after = world.names("packs").await;
    assert!(before.iter().all(|name| after.contains(name)));
    // Twice, and with a backup in between.
    let (third, _) = back_up(&one, &repository).await;
    repository.prune(&at_once(), &context).await.unwrap();
    for (id, store) in [(second, &two), (third, &one)] {
        assert_restores(&repository, id, store).await;
    }
    let options = CheckOptions::every_byte();
    assert!(repository.check(&options, &context).await.unwrap().is_sound());

    // The time is over.
    cold.unlock();
    let report = repository.prune(&at_once(), &context).await.unwrap();
    assert!(report.deleted.packs > 0 && report.refused.packs == 0, "{report:?}");
    assert!(world.names("sessions").await.is_empty() && world.names("trash").await.is_empty());
    for (id, store) in [(second, &two), (third, &one)] {
        assert_restores(&repository, id, store).await;
    }
    assert!(repository.check(&options, &context).await.unwrap().is_sound());
}

#[tokio::test]
async fn prune_says_that_versions_stay_and_until_when_they_are_locked() {
    let world = World::new();
    let cold = Cold::on(Stage::new(&world).store());
    let mut options = small();
    options.warehouse = Some(Arc::clone(&cold) as _);
    let store = Arc::clone(&cold) as Arc<dyn ObjectStore>;
    let repository = Repository::init(Arc::clone(&store), &secret(), &options).await.unwrap();
    // As a bucket with a default retention: deletions succeed, and hide only.
    let retention = Retention { mode: RetentionMode::Compliance, days: 30 };
    cold.keep(Keeping::new(true, true, Some(retention)));
    assert_eq!(repository.keeping().await.unwrap().unwrap().retention, Some(retention));
    let (first, _) = back_up(&file(1).await, &repository).await;
    world.delete(&format!("snapshots/{first}")).await;
    world.age(10 * DAY);
    let report = repository.prune(&at_once(), &Context::silent()).await.unwrap();
    assert!(report.deleted.packs > 0 && report.keeping.unwrap().versions, "{report:?}");
    let left = report.locked_until.unwrap().duration_since(lifeboat_core::Timestamp::now());
    assert!((19..=20).contains(&(left.as_hours() / 24)), "{left:?}");

    // Without a way to ask, nothing is said.
    let blind = Repository::open_with(store, &secret(), &OpenOptions::default()).await.unwrap();
    assert_eq!(blind.keeping().await.unwrap(), None);
}

/// A writer that stands still is taken for dead by a sweeper that may delete old packs, and may not
/// delete the writer's session, which is young. The writer must notice all the same.
#[tokio::test]
async fn a_writer_learns_that_it_was_taken_for_dead_though_its_session_cannot_be_deleted() {
    let (context, data) = (Context::silent(), file(1).await);
    let mut held_once = false;
    for requests in 0.. {
        let world = World::new();
        let cold = || {
            let stage = Stage::new(&world);
            let cold = Cold::on(stage.store());
            cold.lock("sessions/");
            (stage, cold as Arc<dyn ObjectStore>)
        };
        let first = Repository::init(cold().1, &secret(), &small()).await.unwrap();
        let (gone, _) = back_up(&data, &first).await;
        world.delete(&format!("snapshots/{gone}")).await;
        world.age(DAY);
        // The packs that the writer wants to rely on are nobody's.
        let (stage, store) = cold();
        let repository = Repository::open(store, &secret()).await.unwrap();
        stage.hold();
        let writing = tokio::spawn({
            let (repository, data) = (repository.clone(), file(1).await);
            async move {
                let sink = repository.sink(&WriteOptions::default());
                let options = TransferOptions::default();
                transfer(&data, &sink, &options, &Context::silent()).await
            }
        });
        stage.go_on(requests, &writing).await;
        if writing.is_finished() {
            assert!(held_once && requests > 10, "the writer was never held");
            break;
        }
        held_once = true;
        world.age(Duration::from_hours(2));
        let sweeper = Repository::open(cold().1, &secret()).await.unwrap();
        sweeper.prune(&at_once(), &context).await.unwrap();
        world.age(Duration::from_hours(2));
        sweeper.prune(&at_once(), &context).await.unwrap();
        stage.release();
        let outcome = writing.await.unwrap();
        let fresh = Repository::open(cold().1, &secret()).await.unwrap();
        let report = fresh.check(&CheckOptions::every_byte(), &context).await.unwrap();
        assert!(report.is_sound(), "after {requests} requests: {report:?}");
        match outcome {
            Ok(summary) => {
                assert_restores(&fresh, summary.receipt.snapshot.unwrap(), &data).await;
            }
            Err(error) => assert!(error.is_retryable(), "after {requests} requests: {error:?}"),
        }
    }
}
