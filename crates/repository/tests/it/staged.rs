//! A store in memory on which several programs work, each of which can be held at any request,
//! and whose objects can be made older.

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
use tokio::sync::{Notify, Semaphore};

/// What all programs share.
#[derive(Default)]
pub(crate) struct World {
    inner: InMemory,
    /// By how much each object is older than it is.
    ages: Mutex<HashMap<Path, Duration>>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Lets time pass for all objects that are there.
    pub(crate) async fn age(&self, by: Duration) {
        let listed: Vec<_> = self.inner.list(None).try_collect().await.unwrap();
        let mut ages = self.ages.lock();
        for meta in listed {
            *ages.entry(meta.location).or_default() += by;
        }
    }

    /// Lets every session give a sign of life, now.
    pub(crate) async fn sign(&self) {
        for name in self.names("sessions").await {
            let alive = format!("{}.alive", name.trim_end_matches(".alive"));
            let alive = Path::from(alive);
            self.inner.put(&alive, PutPayload::from_static(b"alive")).await.unwrap();
            self.ages.lock().remove(&alive);
        }
    }

    pub(crate) async fn names(&self, area: &str) -> Vec<String> {
        let listed: Vec<_> = self.inner.list(Some(&Path::from(area))).try_collect().await.unwrap();
        let mut names: Vec<_> = listed.into_iter().map(|meta| meta.location.to_string()).collect();
        names.sort();
        names
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.inner.delete(&Path::from(name)).await.unwrap();
    }

    fn aged(&self, meta: ObjectMeta) -> ObjectMeta {
        let age = self.ages.lock().get(&meta.location).copied().unwrap_or_default();
        ObjectMeta { last_modified: meta.last_modified - age, ..meta }
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
}

/// One program's way to the store, and the hand on it.
pub(crate) struct Stage {
    world: Arc<World>,
    /// How many requests it may still make.
    budget: Semaphore,
    made: AtomicU64,
    held: Notify,
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
            held: Notify::new(),
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

    /// From now on, so many requests are let through.
    pub(crate) fn allow(&self, requests: usize) {
        self.budget.forget_permits(usize::MAX);
        self.budget.add_permits(requests);
    }

    /// All requests are let through again.
    pub(crate) fn release(&self) {
        self.budget.add_permits(Semaphore::MAX_PERMITS / 2 - self.budget.available_permits());
    }

    /// Returns when a request is held.
    pub(crate) async fn held(&self) {
        self.held.notified().await;
    }

    /// How many requests were made.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    async fn enter(&self) {
        match self.budget.try_acquire() {
            Ok(permit) => permit.forget(),
            Err(_) => {
                self.held.notify_one();
                self.budget.acquire().await.unwrap().forget();
            }
        }
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        let due: Vec<_> = {
            let mut late = self.late.lock();
            late.extract_if(.., |(at, ..)| *at <= made).collect()
        };
        for (_, location, payload) in due {
            self.put(&location, payload).await;
        }
    }

    async fn put(&self, location: &Path, payload: PutPayload) {
        let mode = object_store::PutMode::Create.into();
        if self.world.inner.put_opts(location, payload, mode).await.is_ok() {
            self.world.ages.lock().remove(location);
        }
    }

    fn chance(&self, which: impl Fn(&Odds) -> f64) -> bool {
        let odds = which(&self.odds.lock());
        odds > 0.0 && self.random.lock().random_bool(odds)
    }

    fn gone() -> object_store::Error {
        object_store::Error::Generic { store: "staged", source: "no answer came".into() }
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
        let result = self.0.world.inner.put_opts(location, payload, options).await;
        if result.is_ok() {
            self.0.world.ages.lock().remove(location);
        }
        let result = match doubled {
            Some((payload, options)) => {
                self.0.world.inner.put_opts(location, payload, options).await
            }
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
                    stage.world.inner.delete(&location).await?;
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
            let listed: Vec<_> = stage.world.inner.list(prefix.as_ref()).collect().await;
            let aged = listed.into_iter().map(move |meta| Ok(stage.world.aged(meta?)));
            stream::iter(aged.collect::<Vec<_>>()).boxed()
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
