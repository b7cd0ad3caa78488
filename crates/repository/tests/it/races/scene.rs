//! A repository, the programs that work on it, and what must be true at the end.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Attributes, Context, Entry, Sink, SnapshotId, TransferOptions, transfer};
use lifeboat_repository::{
    CheckOptions, CheckReport, PruneOptions, PruneReport, Repository, Result, WriteOptions,
};
use tokio::task::JoinHandle;

use crate::common::{assert_restores, back_up, noise, path, secret, small};
use crate::staged::{Odds, Stage, World};

pub(super) const HOUR: Duration = Duration::from_hours(1);
pub(super) const DAY: Duration = Duration::from_hours(24);

/// Whether those that are held give signs of life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Held {
    Alive,
    Silent,
}

/// A number that the environment sets.
pub(super) fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

async fn of(files: &[(&str, u64)]) -> MemoryStore {
    let store = MemoryStore::new("store");
    for (name, seed) in files {
        let bytes = noise(*seed, 9_000);
        store.insert(Entry::file(path(name), Attributes::new(), bytes)).await.unwrap();
    }
    store
}

pub(super) fn options() -> PruneOptions {
    let mut options = PruneOptions::default();
    options.keep_marked = HOUR;
    options.max_waste = 0.0;
    options
}

pub(super) struct Scene {
    pub(super) world: Arc<World>,
    /// The snapshots that must be whole, and what they hold.
    pub(super) committed: Vec<(SnapshotId, MemoryStore)>,
}

impl Scene {
    /// One snapshot stays; of another one, which is forgotten, everything is waste, and shares
    /// packs with the first one or not.
    pub(super) async fn new() -> Self {
        let world = World::new();
        let repository =
            Repository::init(Stage::new(&world).store(), &secret(), &small()).await.unwrap();
        let (old, kept) = (of(&[("a", 1), ("b", 2), ("c", 3)]).await, of(&[("b", 2)]).await);
        let (first, _) = back_up(&old, &repository).await;
        let (second, _) = back_up(&kept, &repository).await;
        world.delete(&format!("snapshots/{first}")).await;
        // All of it is long done.
        world.age(DAY);
        Self { world, committed: vec![(second, kept)] }
    }

    pub(super) async fn open(&self, stage: &Arc<Stage>) -> Repository {
        Repository::open(stage.store(), &secret()).await.unwrap()
    }

    pub(super) async fn prune(&self) -> Result<PruneReport> {
        let repository = self.open(&Stage::new(&self.world)).await;
        repository.prune(&options(), &Context::silent()).await
    }

    /// Time passes, with signs of life or without.
    pub(super) async fn wait(&self, time: Duration, held: Held) {
        self.world.age(time);
        if held == Held::Alive {
            self.world.sign().await;
        }
    }

    /// Forgets one that must be whole so far, if there is one of this number.
    pub(super) async fn forget(&mut self, number: usize) {
        if number < self.committed.len() {
            let (id, _) = self.committed.remove(number);
            self.world.delete(&format!("snapshots/{id}")).await;
        }
    }

    /// Whatever was said to be done is there, and whatever is there is whole.
    pub(super) async fn assert_whole(&self, scene: &str) {
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

    /// Also when all that waits has been deleted.
    pub(super) async fn assert_stays_whole(&self, scene: &str) {
        self.assert_whole(scene).await;
        for _ in 0..2 {
            self.world.age(DAY);
            self.prune().await.unwrap();
        }
        self.assert_whole(&format!("{scene}, and later")).await;
    }
}

/// A program in a task of its own, and the hand on it.
pub(super) struct Program<T> {
    stage: Arc<Stage>,
    task: JoinHandle<T>,
}

impl<T: Send + 'static> Program<T> {
    /// Opens the repository, and begins: held at its first request.
    async fn begin<F>(
        scene: &Scene,
        (odds, seed): (Odds, u64),
        work: impl FnOnce(Repository) -> F,
    ) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let stage = Stage::new(&scene.world);
        // Opening is not what is tried here.
        let repository = scene.open(&stage).await;
        stage.odds(odds, seed);
        stage.hold();
        Self { task: tokio::spawn(work(repository)), stage }
    }

    /// Lets so many requests through, and returns when it is held again, or has ended. The result
    /// is whether it has ended.
    pub(super) async fn go_on(&self, requests: u64) -> bool {
        self.stage.go_on(requests, &self.task).await;
        self.task.is_finished()
    }

    pub(super) async fn end(self) -> T {
        self.stage.release();
        self.task.await.unwrap()
    }
}

/// A backup that is under way.
pub(super) struct Backup {
    pub(super) program: Program<lifeboat_core::Result<SnapshotId>>,
    data: MemoryStore,
}

async fn take(sink: &dyn Sink, data: &MemoryStore) -> lifeboat_core::Result<SnapshotId> {
    let options = TransferOptions::default();
    let summary = transfer(data, sink, &options, &Context::silent()).await?;
    Ok(summary.receipt.snapshot.unwrap())
}

impl Backup {
    pub(super) async fn begin(scene: &Scene) -> Self {
        Self::begin_with(scene, (Odds::default(), 0)).await
    }

    pub(super) async fn begin_with(scene: &Scene, odds: (Odds, u64)) -> Self {
        // What was forgotten is saved again, and something new with it.
        let data = of(&[("a", 1), ("c", 3), ("d", 4)]).await;
        let source = data.clone();
        let work = |repository: Repository| async move {
            take(&repository.sink(&WriteOptions::default()), &source).await
        };
        Self { program: Program::begin(scene, odds, work).await, data }
    }

    pub(super) async fn end(self, scene: &mut Scene) -> lifeboat_core::Result<SnapshotId> {
        let result = self.program.end().await;
        if let Ok(id) = &result {
            scene.committed.push((*id, self.data));
        }
        result
    }
}

/// A prune that is under way.
pub(super) async fn sweep(scene: &Scene, odds: (Odds, u64)) -> Program<Result<PruneReport>> {
    let work = |repository: Repository| async move {
        repository.prune(&options(), &Context::silent()).await
    };
    Program::begin(scene, odds, work).await
}

/// A check of every byte that is under way.
pub(super) async fn check(scene: &Scene, odds: (Odds, u64)) -> Program<Result<CheckReport>> {
    let work = |repository: Repository| async move {
        repository.check(&CheckOptions::every_byte(), &Context::silent()).await
    };
    Program::begin(scene, odds, work).await
}

/// Nothing happens to requests.
pub(super) fn fair() -> (Odds, u64) {
    (Odds::default(), 0)
}
