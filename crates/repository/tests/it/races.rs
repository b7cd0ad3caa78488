//! Writers, sweepers and checks at the same time: every order of their requests, at small size.
//!
//! Two programs work on one store in memory. One is held after each number of its requests in turn;
//! meanwhile the other one runs to its end, or is held as well. Time passes for what is stored,
//! with or without signs of life from the one that is held. Whatever happens: a snapshot whose
//! root is there, can be restored in full, and a backup that said that it is done has one.
//!
//! Beyond two changes of turns, and with requests that get lost, are answered too late, or are done
//! twice, there are random runs. Their seeds are printed; `LIFEBOAT_RACES_SEED` repeats one, and
//! `LIFEBOAT_RACES` sets how many there are.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Attributes, Context, Entry, Sink, SnapshotId, TransferOptions, transfer};
use lifeboat_repository::{
    CheckOptions, PruneOptions, PruneReport, Repository, Result, WriteOptions,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::common::{assert_restores, back_up, noise, path, secret, small};
use crate::staged::{Odds, Stage, World};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Whether the one that is held gives signs of life.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Held {
    Alive,
    Silent,
}

struct Scene {
    world: Arc<World>,
    /// The snapshots that must be whole, and what they hold.
    committed: Vec<(SnapshotId, MemoryStore)>,
}

async fn of(files: &[(&str, u64)]) -> MemoryStore {
    let store = MemoryStore::new("store");
    for (name, seed) in files {
        let bytes = noise(*seed, 9_000);
        store.insert(Entry::file(path(name), Attributes::new(), bytes)).await.unwrap();
    }
    store
}

fn options() -> PruneOptions {
    let mut options = PruneOptions::default();
    options.keep_marked = HOUR;
    options.max_waste = 0.0;
    options
}

impl Scene {
    /// One snapshot stays; of another one, which is forgotten, everything is waste, and shares
    /// packs with the first one or not.
    async fn new() -> Self {
        let world = World::new();
        let repository =
            Repository::init(Stage::new(&world).store(), &secret(), &small()).await.unwrap();
        let (old, kept) = (of(&[("a", 1), ("b", 2), ("c", 3)]).await, of(&[("b", 2)]).await);
        let (first, _) = back_up(&old, &repository).await;
        let (second, _) = back_up(&kept, &repository).await;
        world.delete(&format!("snapshots/{first}")).await;
        // All of it is long done.
        world.age(DAY).await;
        Self { world, committed: vec![(second, kept)] }
    }

    async fn open(&self, stage: &Arc<Stage>) -> Repository {
        let _ = self;
        Repository::open(stage.store(), &secret()).await.unwrap()
    }

    async fn prune(&self) -> Result<PruneReport> {
        let repository = self.open(&Stage::new(&self.world)).await;
        repository.prune(&options(), &Context::silent()).await
    }

    /// Whatever was said to be done is there, and whatever is there is whole.
    async fn assert_whole(&self, scene: &str) {
        let repository = self.open(&Stage::new(&self.world)).await;
        let report =
            repository.check(&CheckOptions::every_byte(), &Context::silent()).await.unwrap();
        assert!(report.is_sound(), "{scene}: {:?}", report.damage);
        let listed = repository.snapshots().await.unwrap();
        assert!(listed.damaged.is_empty(), "{scene}: {:?}", listed.damaged);
        for (id, expected) in &self.committed {
            assert!(listed.snapshots.iter().any(|info| info.id == *id), "{scene}: {id} is gone");
            assert_restores(&repository, *id, expected).await;
        }
    }
}

/// A backup that is under way in a task of its own.
struct Backup {
    stage: Arc<Stage>,
    task: tokio::task::JoinHandle<lifeboat_core::Result<SnapshotId>>,
    data: MemoryStore,
}

async fn take(sink: &dyn Sink, data: &MemoryStore) -> lifeboat_core::Result<SnapshotId> {
    let options = TransferOptions::default();
    let summary = transfer(data, sink, &options, &Context::silent()).await?;
    Ok(summary.receipt.snapshot.unwrap())
}

impl Backup {
    /// Begins one that may make `requests`, and returns when it is held, or has ended.
    async fn begin(scene: &Scene, stage: Arc<Stage>, requests: usize) -> Self {
        Self::begin_with(scene, stage, requests, Odds::default(), 0).await
    }

    async fn begin_with(
        scene: &Scene,
        stage: Arc<Stage>,
        requests: usize,
        odds: Odds,
        seed: u64,
    ) -> Self {
        // What was forgotten is saved again, and something new with it.
        let data = of(&[("a", 1), ("c", 3), ("d", 4)]).await;
        let repository = scene.open(&stage).await;
        // Opening is not what is tried here.
        stage.odds(odds, seed);
        stage.allow(requests);
        let source = data.clone();
        let task =
            tokio::spawn(
                async move { take(&repository.sink(&WriteOptions::default()), &source).await },
            );
        tokio::select! {
            () = stage.held() => {}
            _ = async { while !task.is_finished() { tokio::task::yield_now().await } } => {}
        }
        Self { stage, task, data }
    }

    fn is_done(&self) -> bool {
        self.task.is_finished()
    }

    async fn finish(self, scene: &mut Scene) -> lifeboat_core::Result<SnapshotId> {
        self.stage.release();
        let result = self.task.await.unwrap();
        if let Ok(id) = &result {
            scene.committed.push((*id, self.data));
        }
        result
    }
}

/// While a backup is held at each of its requests, others mark, wait, and sweep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_held_anywhere_loses_nothing() {
    for held in [Held::Alive, Held::Silent] {
        let (mut requests, mut refused) = (0, 0);
        loop {
            let mut scene = Scene::new().await;
            let what = format!("a backup is held after {requests} requests, {held:?}");
            let stage = Stage::new(&scene.world);
            let backup = Backup::begin(&scene, stage, requests).await;
            let done = backup.is_done();
            scene.prune().await.unwrap();
            scene.assert_whole(&what).await;
            for _ in 0..2 {
                scene.world.age(2 * HOUR).await;
                if held == Held::Alive {
                    scene.world.sign().await;
                }
                scene.prune().await.unwrap();
            }
            let result = backup.finish(&mut scene).await;
            match (held, &result) {
                (Held::Alive, Err(error)) => panic!("{what}: {}", error.one_line()),
                (Held::Silent, Err(_)) => refused += 1,
                (_, Ok(_)) => {}
            }
            scene.assert_whole(&what).await;
            scene.world.age(DAY).await;
            scene.prune().await.unwrap();
            scene.world.age(DAY).await;
            scene.prune().await.unwrap();
            scene.assert_whole(&what).await;
            if done {
                break;
            }
            requests += 1;
        }
        println!("{held:?}: {requests} places, {refused} times it failed and said so");
        assert!(requests > 15, "only {requests} requests were made");
        assert!(held == Held::Silent || refused == 0);
    }
}

/// While a sweeper is held at each of its requests, a backup runs; and each is held once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweeper_that_is_held_anywhere_takes_nothing_that_is_needed() {
    let mut requests = 0;
    loop {
        let mut step = 0;
        let mut done = false;
        while step < 40 {
            let mut scene = Scene::new().await;
            // What nothing needs has been marked for long.
            scene.prune().await.unwrap();
            scene.world.age(2 * HOUR).await;
            let what =
                format!("a sweeper is held after {requests} requests, a backup after {step}");
            let stage = Stage::new(&scene.world);
            let repository = scene.open(&stage).await;
            stage.allow(requests);
            let task =
                tokio::spawn(async move { repository.prune(&options(), &Context::silent()).await });
            tokio::select! {
                () = stage.held() => {}
                _ = async { while !task.is_finished() { tokio::task::yield_now().await } } => {}
            }
            done = task.is_finished();
            // Half of the backup runs within the sweep; all of it, when it is not held in time.
            let backup = Backup::begin(&scene, Stage::new(&scene.world), step).await;
            let ended = backup.is_done();
            stage.release();
            task.await.unwrap().unwrap();
            backup.finish(&mut scene).await.unwrap();
            scene.assert_whole(&what).await;
            if ended || done {
                break;
            }
            // All places of one, and every third of the other, meet.
            step += 3;
        }
        if done {
            break;
        }
        requests += 1;
    }
    println!("a sweeper makes {requests} requests");
    assert!(requests > 15);
}

/// Any number of programs, any turns, and a network that loses, delays and doubles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_programs_on_a_bad_network_lose_nothing() {
    let given = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let runs = given("LIFEBOAT_RACES").unwrap_or(40);
    let first = given("LIFEBOAT_RACES_SEED").unwrap_or_else(rand::random);
    for seed in (0..runs).map(|number| first.wrapping_add(number)) {
        println!("seed {seed}");
        let mut random = SmallRng::seed_from_u64(seed);
        let mut scene = Scene::new().await;
        let odds = Odds { lost: 0.01, unanswered: 0.02, late: 0.01, doubled: 0.05 };
        let mut backups = Vec::new();
        let (mut failed, mut pruned) = (0, 0);
        for _ in 0..random.random_range(4..12) {
            match random.random_range(0..6) {
                0 | 1 => {
                    let requests = random.random_range(0..60);
                    let stage = Stage::new(&scene.world);
                    let seed = random.random();
                    backups.push(Backup::begin_with(&scene, stage, requests, odds, seed).await);
                }
                2 if !backups.is_empty() => {
                    let chosen = random.random_range(0..backups.len());
                    failed +=
                        u32::from(backups.swap_remove(chosen).finish(&mut scene).await.is_err());
                }
                3 => {
                    let hours = random.random_range(0..4);
                    scene.world.age(hours * HOUR).await;
                    if random.random() {
                        scene.world.sign().await;
                    }
                }
                _ => {
                    let stage = Stage::new(&scene.world);
                    let repository = scene.open(&stage).await;
                    stage.odds(odds, random.random());
                    let result = repository.prune(&options(), &Context::silent()).await;
                    pruned += u32::from(result.is_ok());
                    // A lease that was not given back is forgotten after a while.
                    scene.world.age(Duration::from_mins(15)).await;
                }
            }
        }
        for backup in backups {
            failed += u32::from(backup.finish(&mut scene).await.is_err());
        }
        scene.assert_whole(&format!("seed {seed}")).await;
        println!("  {} backups done, {failed} failed, {pruned} prunes", scene.committed.len() - 1);
    }
}
