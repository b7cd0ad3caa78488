//! A store in memory whose requests can be made to fail.

use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lifeboat_core::async_trait;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
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
    /// The store's own code panics.
    Panics,
    /// It waits until the gate has a permit.
    Waits(Arc<Semaphore>),
}

type Hook = dyn Fn(Request, &str) -> Fate + Send + Sync;

/// The store.
pub(crate) struct Hooked {
    inner: InMemory,
    hook: Mutex<Arc<Hook>>,
}

impl Hooked {
    pub(crate) fn new() -> Arc<Self> {
        let hook: Arc<Hook> = Arc::new(|_, _| Fate::Done);
        Arc::new(Self { inner: InMemory::new(), hook: Mutex::new(hook) })
    }

    /// Decides the fate of all requests from now on.
    pub(crate) fn hook(&self, hook: impl Fn(Request, &str) -> Fate + Send + Sync + 'static) {
        *self.hook.lock() = Arc::new(hook);
    }

    async fn meet(&self, request: Request, name: &Path) -> Result<()> {
        let hook = Arc::clone(&self.hook.lock());
        match hook(request, name.as_ref()) {
            Fate::Done => Ok(()),
            Fate::Fails => Err(gone()),
            Fate::Panics => panic!("the store's own code is broken"),
            Fate::Waits(gate) => {
                gate.acquire().await.unwrap().forget();
                Ok(())
            }
        }
    }
}

fn gone() -> object_store::Error {
    object_store::Error::Generic { store: "hooked", source: "the network is gone".into() }
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
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let hook = Arc::clone(&self.hook.lock());
        let met = locations.map(move |location| {
            let location = location?;
            match hook(Request::Delete, location.as_ref()) {
                Fate::Fails => Err(gone()),
                _ => Ok(location),
            }
        });
        self.inner.delete_stream(met.boxed())
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
