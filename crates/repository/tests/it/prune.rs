//! Giving back room: what goes, what stays, and that it is safe at every moment.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Attributes, Context, Entry, SnapshotId};
use lifeboat_repository::{
    Alone, CheckOptions, Error, Promise, PruneMode, PruneOptions, Repository, Secret,
};
use object_store::ObjectStore;

use crate::common::{assert_restores, back_up, noise, path, secret, small};
use crate::hooked::Hooked;
use crate::staged::{Stage, World};

const HOUR: Duration = Duration::from_hours(1);

/// A prune that does not leave marked packs for a later day.
fn at_once() -> PruneOptions {
    let mut options = PruneOptions::default();
    options.keep_marked = Duration::ZERO;
    options.max_waste = 0.0;
    options
}

async fn made(world: &Arc<World>) -> Repository {
    let secret: Secret = secret();
    Repository::init(Stage::new(world).store(), &secret, &small()).await.unwrap()
}

async fn opened(stage: &Arc<Stage>) -> Repository {
    Repository::open(stage.store(), &secret()).await.unwrap()
}

/// A store with these files, each of noise.
async fn of(files: &[(&str, u64)]) -> MemoryStore {
    let store = MemoryStore::new("store");
    for (name, seed) in files {
        let bytes = noise(*seed, 300_000);
        store.insert(Entry::file(path(name), Attributes::new(), bytes)).await.unwrap();
    }
    store
}

async fn forget(world: &World, id: &SnapshotId) {
    world.delete(&format!("snapshots/{id}")).await;
}

async fn assert_sound(world: &Arc<World>, scene: &str) {
    let repository = opened(&Stage::new(world)).await;
    let options = CheckOptions::every_byte();
    let report = repository.check(&options, &Context::silent()).await.unwrap();
    assert!(report.is_sound(), "{scene}: {report:?}");
}

#[tokio::test]
async fn what_nothing_needs_goes_and_all_else_stays() {
    let world = World::new();
    let repository = made(&world).await;
    let context = Context::silent();
    let (one, two) = (of(&[("a", 1), ("b", 2)]).await, of(&[("b", 2), ("c", 3)]).await);
    let (first, _) = back_up(&one, &repository).await;
    let (second, _) = back_up(&two, &repository).await;

    // Nothing is to be done while both are there.
    let report = repository.prune(&at_once(), &context).await.unwrap();
    assert_eq!((report.snapshots, report.marked.packs, report.deleted.packs), (2, 0, 0));

    forget(&world, &first).await;
    let before = world.names("packs").await;
    let mut rehearsal = at_once();
    rehearsal.mode = PruneMode::DryRun;
    let told = repository.prune(&rehearsal, &context).await.unwrap();
    assert_eq!(world.names("packs").await, before);
    assert!(world.names("trash").await.is_empty());

    let report = repository.prune(&at_once(), &context).await.unwrap();
    assert_eq!((told.marked, told.repacked), (report.marked, report.repacked));
    assert!(report.repacked.packs > 0 && report.deleted.bytes > 300_000, "{report:?}");
    assert_eq!(report.deleted, report.marked);
    assert!(world.names("trash").await.is_empty() && world.names("sessions").await.is_empty());
    let bytes = |count: lifeboat_repository::PackCount| count.bytes;
    let again = repository.prune(&at_once(), &context).await.unwrap();
    assert!((600_000..680_000).contains(&bytes(again.before)), "{again:?}");
    assert_eq!((again.marked.packs, again.repacked.packs), (0, 0), "{again:?}");
    assert_restores(&repository, second, &two).await;
    assert_restores(&opened(&Stage::new(&world)).await, second, &two).await;
    assert_sound(&world, "after the prune").await;

    // What is gone is stored again when it comes again.
    let (third, _) = back_up(&one, &repository).await;
    assert_restores(&repository, third, &one).await;
    assert_sound(&world, "after a backup of what had gone").await;
}

#[tokio::test]
async fn marked_packs_wait_and_are_rescued_when_they_are_needed_again() {
    let world = World::new();
    let repository = made(&world).await;
    let (context, options) = (Context::silent(), PruneOptions::default());
    let one = of(&[("a", 1)]).await;
    let (first, _) = back_up(&one, &repository).await;
    forget(&world, &first).await;
    let report = repository.prune(&options, &context).await.unwrap();
    assert!(report.marked.packs > 0 && report.deleted.packs == 0, "{report:?}");
    world.age(23 * HOUR);
    let report = repository.prune(&options, &context).await.unwrap();
    assert_eq!((report.deleted.packs, report.waits_for.len()), (0, 1), "{report:?}");

    // A backup of the same data does not rely on what is marked.
    let (second, summary) = back_up(&one, &repository).await;
    assert!(summary.progress.new >= 300_000, "{summary:?}");
    world.age(2 * HOUR);
    let report = repository.prune(&options, &context).await.unwrap();
    assert!(report.deleted.packs > 0, "{report:?}");
    assert_restores(&repository, second, &one).await;
    assert_sound(&world, "after the sweep").await;
}

#[tokio::test]
async fn nothing_is_deleted_where_it_is_not_known_what_is_needed() {
    let world = World::new();
    let repository = made(&world).await;
    let (first, _) = back_up(&of(&[("a", 1)]).await, &repository).await;
    back_up(&of(&[("b", 2)]).await, &repository).await;
    forget(&world, &first).await;
    // A chunk that a snapshot needs is gone: perhaps only the index does not know it any more.
    let index = world.names("index").await;
    for name in &index {
        world.delete(name).await;
    }
    let repository = opened(&Stage::new(&world)).await;
    repository.prune(&at_once(), &Context::silent()).await.unwrap_err();
    assert!(world.names("trash").await.is_empty());
}

#[tokio::test]
async fn a_store_that_heeds_no_conditions_is_refused_or_promised_for() {
    let store = Hooked::new();
    store.be_heedless();
    let mut options = small();
    let place = || -> Arc<dyn ObjectStore> { store.clone() };
    let refused = Repository::init(place(), &secret(), &options).await.unwrap_err();
    assert!(matches!(refused, Error::NoConditionalPut), "{refused}");

    options.promise = Promise::Weaker;
    let repository = Repository::init(place(), &secret(), &options).await.unwrap();
    let one = of(&[("a", 1)]).await;
    let (first, _) = back_up(&one, &repository).await;
    let refused = repository.prune(&at_once(), &Context::silent()).await.unwrap_err();
    assert!(matches!(refused, Error::NotAlone), "{refused}");
    let mut promised = at_once();
    promised.alone = Alone::Promised;
    repository.prune(&promised, &Context::silent()).await.unwrap();
    assert_restores(&repository, first, &one).await;
}
