//! A store in memory whose requests can be made to fail.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lifeboat_core::async_trait;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Get,
    Put,
    Delete,
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    Done,
    /// It fails, as if the network did.
    Fails,
    /// It is done, and its answer is lost. (Deletions only.)
    FailsWhenDone,
    /// Nothing is done, and it is said to be. (Deletions only.)
    Pretended,
    /// The store's own code panics.
    Panics,
    /// It waits until the gate has a permit.
    Waits(Arc<Semaphore>),
}

type Hook = dyn Fn(Request, &str) -> Fate + Send + Sync;

/// The store.
pub(crate) struct Hooked {
    inner: Arc<InMemory>,
    hook: Arc<Mutex<Arc<Hook>>>,
    heedless: AtomicBool,
    /// How far the store's clock is ahead.
    ahead: Mutex<Duration>,
}

impl Hooked {
    pub(crate) fn new() -> Arc<Self> {
        let hook: Arc<Hook> = Arc::new(|_, _| Fate::Done);
        Arc::new(Self {
            inner: Arc::default(),
            hook: Arc::new(Mutex::new(hook)),
            heedless: AtomicBool::new(false),
            ahead: Mutex::default(),
        })
    }

    /// From now on, it takes no notice of conditions, as some gateways that speak S3.
    pub(crate) fn be_heedless(&self) {
        self.heedless.store(true, Ordering::Relaxed);
    }

    /// Puts the store's clock ahead of this host's.
    pub(crate) fn put_ahead(&self, by: Duration) {
        *self.ahead.lock() = by;
    }

    /// Decides the fate of all requests from now on.
    pub(crate) fn hook(&self, hook: impl Fn(Request, &str) -> Fate + Send + Sync + 'static) {
        *self.hook.lock() = Arc::new(hook);
    }

    async fn meet(&self, request: Request, name: &Path) -> Result<()> {
        meet(&self.hook, request, name).await.map(drop)
    }
}

fn network() -> object_store::Error {
    object_store::Error::Generic { store: "hooked", source: "the network is gone".into() }
}

/// The fate of a request, when it is not its end.
async fn meet(hook: &Mutex<Arc<Hook>>, request: Request, name: &Path) -> Result<Fate> {
    let hook = Arc::clone(&hook.lock());
    match hook(request, name.as_ref()) {
        Fate::Fails => Err(network()),
        Fate::Panics => panic!("the store's own code is broken"),
        Fate::Waits(gate) => {
            gate.acquire().await.unwrap().forget();
            Ok(Fate::Done)
        }
        fate @ (Fate::Done | Fate::FailsWhenDone | Fate::Pretended) => Ok(fate),
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl fmt::Display for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

#[async_trait]
impl ObjectStore for Hooked {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.meet(Request::Put, location).await?;
        if self.heedless.load(Ordering::Relaxed) {
            return self.inner.put_opts(location, payload, PutOptions::default()).await;
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.meet(Request::Get, location).await?;
        let mut got = self.inner.get_opts(location, options).await?;
        got.meta.last_modified += *self.ahead.lock();
        Ok(got)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, hook) = (Arc::clone(&self.inner), Arc::clone(&self.hook));
        let delete = move |location: Result<Path>| {
            let (inner, hook) = (Arc::clone(&inner), Arc::clone(&hook));
            async move {
                let location = location?;
                let fate = meet(&hook, Request::Delete, &location).await?;
                if !matches!(fate, Fate::Pretended) {
                    inner.delete(&location).await?;
                }
                match fate {
                    Fate::FailsWhenDone => Err(network()),
                    _ => Ok(location),
                }
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
