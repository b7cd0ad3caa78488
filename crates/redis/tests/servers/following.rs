//! A follower, and what it keeps.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lifeboat_core::journal::{JournalLog, JournalName, Position, Timeline};
use lifeboat_core::memory::{MemoryJournal, MemoryStore};
use lifeboat_core::{
    Collecting, Completion, Context, Entry, EntryPath, Header, Lane, Receipt, Result, Sink,
    SnapshotId, SnapshotInfo, StoreRef, TransferOptions, Writing, async_trait, transfer,
};
use lifeboat_redis::{
    AppendOnlyOptions, AppendOnlySink, BaseSnapshot, ConnectOptions, FollowOptions, Follower,
    Following, Moment, NewServer, RecoveryPlan, RecoverySource, StreamJournal,
};
use lifeboat_testbed::redis::{Installation, Server};

/// Long: the machine may be busy with other tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Waits for a condition.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < LIMIT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Keeps every snapshot that is put into it.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<Vec<(SnapshotInfo, MemoryStore)>>>);

impl Shelf {
    pub(crate) fn bases(&self) -> Vec<BaseSnapshot> {
        self.0.lock().unwrap().iter().filter_map(|(info, _)| BaseSnapshot::of(info)).collect()
    }

    pub(crate) fn get(&self, id: SnapshotId) -> MemoryStore {
        let shelf = self.0.lock().unwrap();
        shelf.iter().find(|(info, _)| info.id == id).unwrap().1.clone()
    }
}

#[async_trait]
impl Sink for Shelf {
    async fn write(&self, header: &Header, context: &Context) -> Result<Box<dyn Writing>> {
        let store = MemoryStore::new("kept");
        let inner = Arc::from(store.write(header, context).await?);
        Ok(Box::new(Shelving { shelf: self.clone(), of: header.store.clone(), store, inner }))
    }
}

struct Shelving {
    shelf: Shelf,
    of: StoreRef,
    store: MemoryStore,
    inner: Arc<dyn Writing>,
}

#[async_trait]
impl Writing for Shelving {
    fn lane(&self, path: &EntryPath) -> Option<Lane> {
        self.inner.lane(path)
    }

    async fn put(&self, ordinal: u64, entry: Entry) -> Result<()> {
        self.inner.put(ordinal, entry).await
    }

    async fn commit(self: Arc<Self>, completion: Completion) -> Result<Receipt> {
        Arc::clone(&self.inner).commit(completion.clone()).await?;
        let mut shelf = self.shelf.0.lock().unwrap();
        let id = SnapshotId::from_bytes([shelf.len() as u8 + 1; 32]);
        let mut info = SnapshotInfo::new(id, self.of.clone(), completion.taken);
        (info.position, info.facts) = (completion.position, completion.facts);
        shelf.push((info, self.store.clone()));
        Ok(Receipt { snapshot: Some(id), ..Receipt::default() })
    }

    async fn abort(self: Arc<Self>) {
        Arc::clone(&self.inner).abort().await;
    }
}

/// What followers of one server keep.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) log: MemoryJournal,
    pub(crate) shelf: Shelf,
}

impl Kept {
    pub(crate) fn new() -> Self {
        let name = JournalName::new(StoreRef::new("redis", "cache"), "stream").unwrap();
        Self { log: MemoryJournal::new(name), shelf: Shelf::default() }
    }

    pub(crate) fn journal(&self) -> StreamJournal {
        let store = StoreRef::new("redis", "cache");
        StreamJournal::open(&store, |_| Arc::new(self.log.clone())).unwrap()
    }

    pub(crate) async fn plan(&self, moment: Moment) -> Result<RecoveryPlan> {
        RecoveryPlan::make(&self.journal(), &self.shelf.bases(), moment).await
    }

    /// Writes a moment as append-only files into a directory that is not there yet.
    pub(crate) async fn restore(&self, moment: Moment, target: &Path) -> Result<RecoveryPlan> {
        let plan = self.plan(moment).await?;
        let snapshot = self.shelf.get(plan.base.snapshot);
        let source = RecoverySource::new(&snapshot, self.journal(), &plan);
        let sink = AppendOnlySink::new(AppendOnlyOptions::new(target, plan.base.form));
        let context = Context::silent();
        transfer(&source, &sink, &TransferOptions::default(), &context).await?;
        Ok(plan)
    }

    /// Starts a server from a moment.
    pub(crate) async fn server_at(&self, moment: Moment, installation: &Installation) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("data");
        self.restore(moment, &target).await.unwrap();
        let builder = super::everything::builder(installation).setting("appendonly", "yes");
        builder.files(&target).start().unwrap()
    }

    /// Fails when anything is missing of a history from its first segment on.
    pub(crate) async fn is_without_gaps(&self) {
        for info in self.log.timelines().await.unwrap() {
            let all = lifeboat_core::journal::Span::ALL;
            let listed = self.log.list(&info.timeline, all).await.unwrap();
            let first = listed.first().map_or(Position(0), |one| one.place.span.from());
            assert_eq!(self.log.gaps(&info.timeline, first).await.unwrap(), []);
        }
    }

    pub(crate) async fn log_timelines(&self) -> usize {
        self.log.timelines().await.unwrap().len()
    }

    pub(crate) async fn end(&self, id: &str) -> u64 {
        let end = self.log.end(&Timeline::new(id).unwrap()).await.unwrap();
        end.map_or(0, |at| at.0)
    }
}

/// A follower at work.
pub(crate) struct AtWork {
    context: Context,
    collected: Arc<Collecting>,
    pub(crate) events: Arc<Mutex<Vec<Following>>>,
    task: tokio::task::JoinHandle<Result<()>>,
    kept: Kept,
}

impl AtWork {
    pub(crate) fn start(kept: &Kept, url: &str) -> Self {
        Self::start_with(kept, url, NewServer::Refuse)
    }

    pub(crate) fn start_with(kept: &Kept, url: &str, new_server: NewServer) -> Self {
        let collected = Arc::new(Collecting::new());
        let context = Context::new(collected.clone());
        let options = FollowOptions::new(ConnectOptions::parse(url).unwrap())
            .with_bases(kept.shelf.bases())
            .with_new_server(new_server)
            .with_longest_pause(Duration::from_millis(500));
        let follower = Follower::new(kept.journal(), Arc::new(kept.shelf.clone()), options);
        let events: Arc<Mutex<Vec<Following>>> = Arc::default();
        let (told, within) = (Arc::clone(&events), context.clone());
        let task = tokio::spawn(async move {
            let watch = move |what: &Following| told.lock().unwrap().push(what.clone());
            follower.run(&watch, &within).await
        });
        Self { context, collected, events, task, kept: kept.clone() }
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        let told = self.collected.warnings().into_iter();
        told.map(|(subject, message)| format!("{subject}: {message}")).collect()
    }

    /// Fails when it has ended.
    pub(crate) fn is_at_work(&self) {
        assert!(!self.task.is_finished(), "it ended: {:?}", self.warnings());
    }

    /// Waits until a base is stored.
    pub(crate) async fn has_base(&self) {
        eventually("a base", async || {
            self.is_at_work();
            let events = self.events.lock().unwrap();
            let is_base = |what: &Following| matches!(what, Following::Base { .. });
            events.iter().any(is_base).then_some(())
        })
        .await;
    }

    /// Waits until so many bases were stored, by this follower or an earlier one.
    pub(crate) async fn has_bases(&self, count: usize) {
        let began = Instant::now();
        while self.kept.shelf.bases().len() < count {
            self.is_at_work();
            let events = self.events.lock().unwrap().clone();
            assert!(began.elapsed() < LIMIT, "no base: {:?}, {events:?}", self.warnings());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until everything that the server has done is durable.
    pub(crate) async fn catches_up(&self, server: &Server) {
        let (id, offset) = place(server);
        let what = format!("{id} is durable up to {offset}");
        eventually(&what, async || {
            self.is_at_work();
            let base = self.kept.shelf.bases().iter().any(|it| it.offset >= offset);
            (base || self.kept.end(&id).await >= offset).then_some(())
        })
        .await;
    }

    /// Stops it, as a service is stopped.
    pub(crate) async fn stop(self) -> Vec<Following> {
        self.context.cancel();
        tokio::time::timeout(LIMIT, self.task).await.unwrap().unwrap().unwrap();
        let events = self.events.lock().unwrap();
        events.clone()
    }
}

/// The replication id of a server, and where it is.
pub(crate) fn place(server: &Server) -> (String, u64) {
    let info = server.ask(&["INFO", "replication"]).unwrap();
    let value = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.trim().strip_prefix(name)).unwrap().to_owned()
    };
    (value("master_replid:"), value("master_repl_offset:").parse().unwrap())
}
