//! A store in memory on which several programs work, each of which can be held at any request;
//! whose objects can be made older, and whose listings can be made to be behind.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::async_trait;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// For so long, a listing may be behind, where listings are.
pub(crate) const BEHIND: Duration = Duration::from_mins(20);

/// What all programs share.
#[derive(Default)]
pub(crate) struct World {
    inner: InMemory,
    times: Mutex<Times>,
    /// One change at a time, so that they are noted in their order.
    order: tokio::sync::Mutex<()>,
}

/// What was written and deleted, and when, by a clock that stands still until it is set on.
#[derive(Default)]
struct Times {
    now: Duration,
    /// Of each object that there ever was all its states, from the first to the last.
    states: HashMap<Path, Vec<State>>,
}

struct State {
    since: Duration,
    /// `None` when it is not there.
    meta: Option<ObjectMeta>,
}

impl Times {
    fn note(&mut self, location: &Path, meta: Option<ObjectMeta>) {
        let state = State { since: self.now, meta };
        self.states.entry(location.clone()).or_default().push(state);
    }

    /// As old as it is by the clock.
    fn aged(&self, since: Duration, meta: ObjectMeta) -> ObjectMeta {
        ObjectMeta { last_modified: meta.last_modified - (self.now - since), ..meta }
    }

    /// The states in which a listing may show an object that is behind: that at the beginning of
    /// the time by which it may be behind, and all that came later. `None` stands for the time
    /// before it was there.
    fn shown<'a>(&self, states: &'a [State]) -> Vec<Option<&'a State>> {
        let horizon = self.now.saturating_sub(BEHIND);
        let later = states.iter().filter(|state| state.since > horizon).map(Some);
        let before = states.iter().rfind(|state| state.since <= horizon);
        std::iter::once(before).chain(later).collect()
    }
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Lets time pass for all objects that are there.
    pub(crate) fn age(&self, by: Duration) {
        self.times.lock().now += by;
    }

    /// Lets every session give a sign of life, now.
    pub(crate) async fn sign(&self) {
        for name in self.names("sessions").await {
            let alive = Path::from(format!("{}.alive", name.trim_end_matches(".alive")));
            let payload = PutPayload::from_static(b"alive");
            self.put(&alive, payload, PutOptions::default()).await.unwrap();
        }
    }

    pub(crate) async fn names(&self, area: &str) -> Vec<String> {
        let listed: Vec<_> = self.inner.list(Some(&Path::from(area))).try_collect().await.unwrap();
        let mut names: Vec<_> = listed.into_iter().map(|meta| meta.location.to_string()).collect();
        names.sort();
        names
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.remove(&Path::from(name)).await.unwrap();
    }

    async fn put(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let _order = self.order.lock().await;
        let put = self.inner.put_opts(location, payload, options).await?;
        let meta = self.inner.head(location).await.ok();
        self.times.lock().note(location, meta);
        Ok(put)
    }

    async fn remove(&self, location: &Path) -> Result<()> {
        let _order = self.order.lock().await;
        self.inner.delete(location).await?;
        self.times.lock().note(location, None);
        Ok(())
    }

    fn aged(&self, meta: ObjectMeta) -> ObjectMeta {
        let times = self.times.lock();
        let last = times.states.get(&meta.location).and_then(|states| states.last());
        let since = last.map_or(times.now, |state| state.since);
        times.aged(since, meta)
    }

    /// What a listing shows; with `pick`, one of several states of each object that changed lately.
    fn listed(&self, prefix: &Path, mut pick: impl FnMut(usize) -> usize) -> Vec<ObjectMeta> {
        let times = self.times.lock();
        let mut all: Vec<_> = times.states.iter().collect();
        // The same order for the same seed.
        all.sort_by_key(|(location, _)| *location);
        let inside = all.into_iter().filter(|(location, _)| location.prefix_matches(prefix));
        let shown = inside.filter_map(|(_, states)| {
            let may_be = times.shown(states);
            let state = may_be[pick(may_be.len())]?;
            Some(times.aged(state.since, state.meta.clone()?))
        });
        shown.collect()
    }
}

/// What may happen to requests, by a seed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Odds {
    /// Nothing was done, and an error comes back.
    pub(crate) lost: f64,
    /// It was done, and an error comes back all the same.
    pub(crate) unanswered: f64,
    /// An error comes back, and it is done only when so many further requests were.
    pub(crate) late: f64,
    /// It is done twice.
    pub(crate) doubled: f64,
    /// A listing lacks what was put not long ago, or shows what was deleted not long ago: each
    /// object for itself, as it was at some moment of the last [`BEHIND`].
    pub(crate) behind: f64,
}

/// One program's way to the store, and the hand on it.
pub(crate) struct Stage {
    world: Arc<World>,
    /// How many requests it may still make.
    budget: Semaphore,
    made: AtomicU64,
    /// How many requests wait for that.
    waiting: AtomicU64,
    odds: Mutex<Odds>,
    random: Mutex<SmallRng>,
    late: Mutex<Vec<(u64, Path, PutPayload)>>,
}

impl Stage {
    /// A program that may make any number of requests.
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            budget: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            made: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            odds: Mutex::default(),
            random: Mutex::new(SmallRng::seed_from_u64(0)),
            late: Mutex::default(),
        })
    }

    /// What becomes of requests from now on.
    pub(crate) fn odds(&self, odds: Odds, seed: u64) {
        *self.odds.lock() = odds;
        *self.random.lock() = SmallRng::seed_from_u64(seed);
    }

    /// What the program is given.
    pub(crate) fn store(self: &Arc<Self>) -> Arc<dyn ObjectStore> {
        Arc::new(Staged(Arc::clone(self)))
    }

    /// From now on, no request is let through.
    pub(crate) fn hold(&self) {
        self.budget.forget_permits(usize::MAX);
    }

    /// Lets so many requests through of one that is held, and returns when it is held again, or
    /// has ended.
    pub(crate) async fn go_on<T>(&self, requests: u64, task: &JoinHandle<T>) {
        let until = self.made() + requests;
        self.budget.add_permits(requests as usize);
        let is_held = || self.made() >= until && self.waiting.load(Ordering::SeqCst) > 0;
        while !is_held() && !task.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    /// All requests are let through again.
    pub(crate) fn release(&self) {
        self.budget.add_permits(Semaphore::MAX_PERMITS / 2 - self.budget.available_permits());
    }

    /// How many requests were made.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }

    async fn enter(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting(&self.waiting);
        self.budget.acquire().await.unwrap().forget();
        drop(waiting);
        let made = self.made.fetch_add(1, Ordering::SeqCst);
        let due: Vec<_> = {
            let mut late = self.late.lock();
            late.extract_if(.., |(at, ..)| *at <= made).collect()
        };
        for (_, location, payload) in due {
            // Whoever sent it was told that it failed; if it fails now, it did.
            let create = object_store::PutMode::Create.into();
            drop(self.world.put(&location, payload, create).await);
        }
    }

    /// What a listing shows to this program.
    fn listed(&self, prefix: Option<&Path>) -> Vec<ObjectMeta> {
        let behind = self.chance(|odds| odds.behind);
        let root = Path::default();
        self.world.listed(prefix.unwrap_or(&root), |states| {
            if behind { self.random.lock().random_range(0..states) } else { states - 1 }
        })
    }

    fn chance(&self, which: impl Fn(&Odds) -> f64) -> bool {
        let odds = which(&self.odds.lock());
        odds > 0.0 && self.random.lock().random_bool(odds)
    }

    fn gone() -> object_store::Error {
        object_store::Error::Generic { store: "staged", source: "no answer came".into() }
    }
}

/// A request that waits, also when whoever made it is gone.
struct Waiting<'a>(&'a AtomicU64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The store as one program sees it.
pub(crate) struct Staged(Arc<Stage>);

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Staged")
    }
}

impl fmt::Display for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Staged")
    }
}

#[async_trait]
impl ObjectStore for Staged {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.0.enter().await;
        if self.0.chance(|odds| odds.lost) {
            return Err(Stage::gone());
        }
        if self.0.chance(|odds| odds.late) {
            let at = self.0.made() + self.0.random.lock().random_range(1..30);
            self.0.late.lock().push((at, location.clone(), payload));
            return Err(Stage::gone());
        }
        let doubled =
            self.0.chance(|odds| odds.doubled).then(|| (payload.clone(), options.clone()));
        let result = self.0.world.put(location, payload, options).await;
        let result = match doubled {
            Some((payload, options)) => self.0.world.put(location, payload, options).await,
            None => result,
        };
        if self.0.chance(|odds| odds.unanswered) { Err(Stage::gone()) } else { result }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.world.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.enter().await;
        if self.0.chance(|odds| odds.lost) {
            return Err(Stage::gone());
        }
        let mut result = self.0.world.inner.get_opts(location, options).await?;
        result.meta = self.0.world.aged(result.meta);
        Ok(result)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let stage = Arc::clone(&self.0);
        locations
            .then(move |location| {
                let stage = Arc::clone(&stage);
                async move {
                    let location = location?;
                    stage.enter().await;
                    if stage.chance(|odds| odds.lost) {
                        return Err(Stage::gone());
                    }
                    stage.world.remove(&location).await?;
                    if stage.chance(|odds| odds.unanswered) {
                        return Err(Stage::gone());
                    }
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (stage, prefix) = (Arc::clone(&self.0), prefix.cloned());
        let listing = async move {
            stage.enter().await;
            if stage.chance(|odds| odds.lost) {
                return stream::iter(vec![Err(Stage::gone())]).boxed();
            }
            stream::iter(stage.listed(prefix.as_ref()).into_iter().map(Ok)).boxed()
        };
        stream::once(listing).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.world.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.world.inner.copy_opts(from, to, options).await
    }
}
