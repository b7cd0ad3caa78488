//! Data in a class of storage of its own, archives among them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Context, Entry, ErrorKind, Failure, SnapshotId, ThawTier, TransferOptions, transfer,
};
use lifeboat_repository::{
    CheckOptions, DiffOptions, Error, InitOptions, OpenOptions, PruneMode, PruneOptions,
    Repository, SampleSize, Selection, ThawNeed, ThawOptions,
};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::cold::{Cold, LEAST};
use crate::common::{assert_restores, back_up, noise, path, run, secret, small};
use crate::staged::{Stage, World};

/// A repository with its data in a class, on a store whose objects can be made older.
struct Scene {
    world: Arc<World>,
    cold: Arc<Cold>,
    repository: Repository,
}

fn with_class(cold: &Arc<Cold>, class: Option<&str>) -> InitOptions {
    let mut options = small();
    options.data_class = class.map(ToOwned::to_owned);
    options.warehouse = Some(Arc::clone(cold) as _);
    options
}

impl Scene {
    async fn of(class: Option<&str>) -> Self {
        let world = World::new();
        let cold = Cold::on(Stage::new(&world).store());
        let options = with_class(&cold, class);
        let store = Arc::clone(&cold) as Arc<dyn ObjectStore>;
        let repository = Repository::init(store, &secret(), &options).await.unwrap();
        Self { world, cold, repository }
    }

    async fn frozen() -> Self {
        Self::of(Some("FROZEN")).await
    }

    /// Another program on the same repository.
    async fn another(&self) -> Repository {
        let options = OpenOptions::default().with_warehouse(Arc::clone(&self.cold) as _);
        let store = Arc::clone(&self.cold) as Arc<dyn ObjectStore>;
        Repository::open_with(store, &secret(), &options).await.unwrap()
    }

    /// The names of the packs whose first bytes say that they hold data, and of the others.
    async fn packs(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let store = Stage::new(&self.world).store();
        let (mut data, mut others) = (BTreeSet::new(), BTreeSet::new());
        for name in self.world.names("packs").await {
            let bytes = store.get(&Path::from(name.as_str())).await.unwrap().bytes().await.unwrap();
            if bytes[8] == 1 {
                data.insert(name)
            } else {
                others.insert(name)
            };
        }
        (data, others)
    }
}

async fn files(seeds: &[u64]) -> MemoryStore {
    let store = MemoryStore::new("store");
    for seed in seeds {
        let bytes = noise(*seed, 1_500_000);
        let entry = Entry::file(path(&format!("file-{seed}")), Attributes::new(), bytes);
        store.insert(entry).await.unwrap();
    }
    store
}

async fn all_of(id: SnapshotId) -> ThawNeed {
    ThawNeed::Content(vec![(id, Selection::all())])
}

fn soon() -> ThawOptions {
    let mut options = ThawOptions::default();
    options.poll = Duration::from_millis(1);
    options
}

async fn forget(scene: &Scene, id: &SnapshotId) {
    scene.world.delete(&format!("snapshots/{id}")).await;
}

#[tokio::test]
async fn data_goes_into_its_class_and_nothing_else_does() {
    let scene = Scene::frozen().await;
    back_up(&files(&[1, 2]).await, &scene.repository).await;
    let (data, others) = scene.packs().await;
    assert!(data.len() >= 3 && !others.is_empty());
    let frozen: BTreeSet<_> = scene.cold.of_class("FROZEN").into_iter().collect();
    // Besides the few bytes by which the class was tried.
    let probes = |name: &&String| !name.starts_with("leases/probe-");
    assert_eq!(frozen.iter().filter(probes).cloned().collect::<BTreeSet<_>>(), data);
    assert!(scene.cold.of_class("COOL").is_empty());

    // Whoever opens it knows the class, also without being told.
    let second = scene.another().await;
    assert_eq!(second.data_class().as_deref(), Some("FROZEN"));
    back_up(&files(&[3]).await, &second).await;
    let (data, _) = scene.packs().await;
    let frozen: BTreeSet<_> = scene.cold.of_class("FROZEN").into_iter().collect();
    assert!(data.is_subset(&frozen), "a second host put data elsewhere");
}

#[tokio::test]
async fn what_is_not_data_works_while_all_data_is_frozen() {
    let scene = Scene::frozen().await;
    let context = Context::silent();
    let (one, two) = (files(&[1, 2]).await, files(&[2, 3]).await);
    let (first, _) = back_up(&one, &scene.repository).await;
    // A second backup finds what is there already, without reading it.
    let (second, summary) = back_up(&two, &scene.repository).await;
    assert!(summary.progress.new < 2_000_000, "{summary:?}");

    let repository = scene.another().await;
    assert_eq!(repository.snapshots().await.unwrap().snapshots.len(), 2);
    let snapshot = repository.snapshot(&second).await.unwrap();
    assert!(snapshot.entry(&path("file-3")).await.unwrap().is_some());
    let mut diff = repository.diff(&first, &second, &DiffOptions::default()).await.unwrap();
    let mut changes = 0;
    while diff.next().await.unwrap().is_some() {
        changes += 1;
    }
    assert_eq!(changes, 2);
    repository.stats(&context).await.unwrap();
    let report = repository.check(&CheckOptions::default(), &context).await.unwrap();
    assert!(report.is_sound() && report.snapshots == 2, "{report:?}");
    let mut options = PruneOptions::default();
    options.keep_marked = Duration::ZERO;
    repository.prune(&options, &context).await.unwrap();
    assert_eq!(scene.cold.refused(), [""; 0], "something read data");
}

#[tokio::test]
async fn a_restore_is_refused_planned_thawed_and_taken_up() {
    let scene = Scene::frozen().await;
    let (context, store) = (Context::silent(), files(&[1, 2, 3, 4]).await);
    // What came first lies in packs of its own.
    back_up(&files(&[1]).await, &scene.repository).await;
    let (id, _) = back_up(&store, &scene.repository).await;
    let repository = scene.another().await;

    // Without a thaw, the error says what is the matter.
    let snapshot = repository.snapshot(&id).await.unwrap();
    let target = MemoryStore::new("target");
    let source = snapshot.source(&Selection::all());
    let refused = transfer(&source, &target, &TransferOptions::default(), &context).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let line = error.one_line();
    assert!(line.contains("archive") && line.contains("--thaw"), "{line}");

    // One file needs fewer packs than all of them.
    let (data, _) = scene.packs().await;
    let all = repository.thaw_plan(&all_of(id).await, &context).await.unwrap();
    assert_eq!(all.needed.packs as usize, data.len());
    assert_eq!((all.archived, all.thawed.packs, all.thawing.packs), (all.needed, 0, 0));
    let file = ThawNeed::Content(vec![(id, Selection::paths([path("file-1")]))]);
    let one = repository.thaw_plan(&file, &context).await.unwrap();
    assert!(one.needed.packs > 0 && one.needed.packs < all.needed.packs, "{one:?}");
    assert!(matches!(one.refusal(), Error::NotThawed { packs, .. } if packs == one.needed.packs));
    assert!(scene.cold.asked().is_empty(), "a plan asks for nothing");
    assert_eq!(one.takes(ThawTier::Bulk), Some(Duration::from_hours(48)));

    // A tier that there is not is refused before anything is asked for.
    let mut hasty = soon();
    hasty.tier = ThawTier::Expedited;
    let error = repository.thaw(&one, &hasty, &context).await.unwrap_err();
    assert!(error.hint().unwrap().contains("bulk, standard"), "{error}");
    assert!(scene.cold.asked().is_empty());

    // Asked for, and not waited for: the next one finds it under way and asks for nothing again.
    scene.cold.be_slow(3);
    let (mut impatient, days) = (soon(), 3);
    (impatient.wait, impatient.days, impatient.tier) = (Duration::ZERO, days, ThawTier::Bulk);
    let error = repository.thaw(&one, &impatient, &context).await.unwrap_err();
    assert!(matches!(error, Error::StillThawing { .. }) && error.is_retryable(), "{error}");
    let asked = scene.cold.asked();
    assert_eq!(asked.len() as u64, one.needed.packs);
    assert!(asked.iter().all(|(_, tier, kept)| (*tier, *kept) == (ThawTier::Bulk, days)));
    let again = repository.thaw_plan(&file, &context).await.unwrap();
    assert_eq!((again.thawing, again.archived.packs), (one.needed, 0));
    repository.thaw(&again, &soon(), &context).await.unwrap();
    assert_eq!(scene.cold.asked().len(), asked.len());
    assert!(repository.thaw_plan(&file, &context).await.unwrap().is_ready());

    // And that was enough for what was planned: the file comes back, and only it.
    let target = MemoryStore::new("target");
    let snapshot = repository.snapshot(&id).await.unwrap();
    run(&snapshot.source(&Selection::paths([path("file-1")])), &target).await;
    assert_eq!(target.content(&path("file-1")).unwrap(), noise(1, 1_500_000));

    // The rest, and all of it comes back.
    let all = repository.thaw_plan(&all_of(id).await, &context).await.unwrap();
    assert_eq!(all.thawed, one.needed);
    repository.thaw(&all, &soon(), &context).await.unwrap();
    assert_restores(&repository, id, &store).await;
}

#[tokio::test]
async fn a_wait_can_be_ended_and_a_cancelled_one_is() {
    let scene = Scene::frozen().await;
    let (id, _) = back_up(&files(&[1]).await, &scene.repository).await;
    scene.cold.be_slow(u32::MAX);
    let context = Context::silent();
    let plan = scene.repository.thaw_plan(&all_of(id).await, &context).await.unwrap();
    let mut options = soon();
    options.wait = Duration::from_millis(20);
    let error = scene.repository.thaw(&plan, &options, &context).await.unwrap_err();
    assert!(matches!(error, Error::StillThawing { packs } if packs == plan.needed.packs));
    options.wait = Duration::from_hours(1);
    options.poll = Duration::from_hours(1);
    let (waiting, stop) = (scene.repository.thaw(&plan, &options, &context), context.clone());
    let stopping = async {
        tokio::task::yield_now().await;
        stop.cancel();
    };
    let (outcome, ()) = tokio::join!(waiting, stopping);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn every_byte_is_checked_only_when_it_is_thawed_and_samples_leave_it_out() {
    let scene = Scene::frozen().await;
    back_up(&files(&[1, 2]).await, &scene.repository).await;
    let (context, repository) = (Context::silent(), &scene.repository);
    let (data, others) = scene.packs().await;
    let error = repository.check(&CheckOptions::every_byte(), &context).await.unwrap_err();
    assert!(matches!(error, Error::NotThawed { packs, .. } if packs as usize == data.len()));
    let sample = CheckOptions::sample(SampleSize::PartsPerMillion(1_000_000));
    let report = repository.check(&sample, &context).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.archived as usize, data.len());
    assert_eq!(report.packs_read as usize, others.len());
    assert_eq!(scene.cold.refused(), [""; 0]);

    let plan = repository.thaw_plan(&ThawNeed::Everything, &context).await.unwrap();
    repository.thaw(&plan, &soon(), &context).await.unwrap();
    let report = repository.check(&CheckOptions::every_byte(), &context).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.packs_read as usize, data.len() + others.len());
}

#[tokio::test]
async fn prune_waits_for_the_least_time_of_each_class_and_says_until_when() {
    let scene = Scene::frozen().await;
    let (context, repository) = (Context::silent(), &scene.repository);
    let (first, _) = back_up(&files(&[1]).await, repository).await;
    let (data, _) = scene.packs().await;
    let (second, _) = back_up(&files(&[2]).await, repository).await;
    forget(&scene, &first).await;
    let mut options = PruneOptions::default();
    options.keep_marked = Duration::ZERO;
    let hour = Duration::from_hours(1);

    scene.world.age(LEAST - hour);
    let report = repository.prune(&options, &context).await.unwrap();
    assert_eq!(report.young.packs as usize, data.len(), "{report:?}");
    let (from, until) = report.young_until.unwrap();
    let left = until.duration_since(lifeboat_core::Timestamp::now());
    assert!((3300..=3601).contains(&left.as_secs()) && from <= until, "{left:?}");
    let there = |names: &BTreeSet<String>, data: &BTreeSet<String>| data.is_subset(names);
    assert!(there(&scene.packs().await.0, &data), "deleted before its time");

    // What is billed no longer goes.
    scene.world.age(2 * hour);
    let report = repository.prune(&options, &context).await.unwrap();
    assert_eq!((report.young.packs, report.young_until), (0, None), "{report:?}");
    assert!(report.deleted.packs as usize >= data.len(), "{report:?}");
    assert!(scene.packs().await.0.is_disjoint(&data));

    // And whoever wants it sooner says so.
    forget(&scene, &second).await;
    back_up(&files(&[3]).await, repository).await;
    let (third, _) = back_up(&files(&[4]).await, repository).await;
    forget(&scene, &third).await;
    scene.world.age(hour);
    options.least_age = Some(Duration::ZERO);
    let report = repository.prune(&options, &context).await.unwrap();
    assert!(report.young.packs == 0 && report.deleted.packs > 0, "{report:?}");
    assert_eq!(scene.cold.refused(), [""; 0], "prune read an archive");
}

#[tokio::test]
async fn prune_reads_no_archive_for_the_sake_of_waste() {
    let scene = Scene::of(None).await;
    let (context, repository) = (Context::silent(), &scene.repository);
    let store = MemoryStore::new("store");
    for seed in 0..30 {
        let entry = Entry::file(path(&format!("{seed}")), Attributes::new(), noise(seed, 100_000));
        store.insert(entry).await.unwrap();
    }
    let (first, _) = back_up(&store, repository).await;
    let few = MemoryStore::new("store");
    let entry = Entry::file(path("7"), Attributes::new(), noise(7, 100_000));
    few.insert(entry).await.unwrap();
    let (second, _) = back_up(&few, repository).await;
    forget(&scene, &first).await;
    // A rule of the bucket moves what is there.
    let (data, _) = scene.packs().await;
    scene.cold.freeze(data.iter().cloned());
    scene.world.age(LEAST + Duration::from_hours(1));

    let mut options = PruneOptions::default();
    (options.keep_marked, options.max_waste) = (Duration::ZERO, 0.0);
    let mut rehearsal = options.clone();
    rehearsal.mode = PruneMode::DryRun;
    for options in [rehearsal, options] {
        let report = repository.prune(&options, &context).await.unwrap();
        assert!(report.frozen.packs > 0 && report.frozen_waste > 100_000, "{report:?}");
    }
    assert_eq!(scene.cold.refused(), [""; 0]);
    let left = scene.packs().await.0;
    assert!(left.len() < data.len() && left.is_subset(&data), "whole packs go, others stay");
    let plan = repository.thaw_plan(&all_of(second).await, &context).await.unwrap();
    repository.thaw(&plan, &soon(), &context).await.unwrap();
    assert_restores(repository, second, &few).await;
}

#[tokio::test]
async fn the_class_can_be_changed_and_what_is_there_stays() {
    let scene = Scene::of(None).await;
    back_up(&files(&[1]).await, &scene.repository).await;
    assert_eq!(scene.repository.data_class(), None);
    let class = scene.repository.set_data_class(Some("COOL")).await.unwrap().unwrap();
    assert!(!class.is_archive() && class.least == LEAST / 3);
    let (before, _) = scene.packs().await;
    let second = scene.another().await;
    assert_eq!(second.data_class().as_deref(), Some("COOL"));
    back_up(&files(&[2]).await, &second).await;
    let (after, _) = scene.packs().await;
    let cool: BTreeSet<_> = scene.cold.of_class("COOL").into_iter().collect();
    assert!(cool.is_disjoint(&before) && after.difference(&before).all(|it| cool.contains(it)));

    // A class that the store does not have is refused, and nothing is changed.
    let error = second.set_data_class(Some("NO_SUCH")).await.unwrap_err();
    assert!(matches!(error, Error::Store { .. }), "{error}");
    assert_eq!(scene.another().await.data_class().as_deref(), Some("COOL"));
    second.set_data_class(None).await.unwrap();
    assert_eq!(scene.another().await.data_class(), None);
    // The two ends of the configuration still fit together.
    let report = second.check(&CheckOptions::every_byte(), &Context::silent()).await.unwrap();
    assert!(report.is_sound());
}

#[tokio::test]
async fn a_store_without_classes_refuses_one_and_who_cannot_ask_does_not_delete() {
    let mut options = small();
    options.data_class = Some("FROZEN".into());
    let place: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let error = Repository::init(Arc::clone(&place), &secret(), &options).await.unwrap_err();
    assert!(matches!(error, Error::NoClasses { .. }), "{error}");
    let left: Vec<_> = place.list(None).try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");

    let scene = Scene::frozen().await;
    let (id, _) = back_up(&files(&[1]).await, &scene.repository).await;
    let store = Arc::clone(&scene.cold) as Arc<dyn ObjectStore>;
    let blind = Repository::open(store, &secret()).await.unwrap();
    let context = Context::silent();
    back_up(&files(&[2]).await, &blind).await;
    let error = blind.prune(&PruneOptions::default(), &context).await.unwrap_err();
    assert!(matches!(&error, Error::NoWarehouse { name } if name == "FROZEN"), "{error}");
    let error = blind.thaw_plan(&all_of(id).await, &context).await.unwrap_err();
    assert!(matches!(error, Error::NoWarehouse { .. }), "{error}");
}

#[tokio::test]
async fn an_archive_gets_large_packs_unless_somebody_chose() {
    let make = async |class: &str, chosen: bool| {
        let cold = Cold::on(Arc::new(object_store::memory::InMemory::new()));
        let mut options = with_class(&cold, Some(class));
        if !chosen {
            options.parameters = InitOptions::default().parameters;
        }
        let made = Repository::init(Arc::clone(&cold) as _, &secret(), &options).await;
        made.unwrap().parameters().pack
    };
    assert_eq!(make("FROZEN", false).await, 64 << 20);
    assert_eq!(make("COOL", false).await, InitOptions::default().parameters.pack);
    assert_eq!(make("FROZEN", true).await, small().parameters.pack);
}
