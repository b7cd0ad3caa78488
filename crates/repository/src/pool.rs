//! A bounded pool of threads for the work that processors do: cutting, hashing, compressing,
//! sealing, and back.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// As many threads as there are processors. What is queued is bounded by who queues it, in bytes.
#[derive(Clone)]
pub(crate) struct Pool(Arc<rayon::ThreadPool>);

impl Pool {
    pub(crate) fn new() -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .thread_name(|number| format!("lifeboat-cpu-{number}"))
            .build()
            .map_err(|_| Error::Worker { doing: "start worker threads" })?;
        Ok(Self(Arc::new(pool)))
    }

    /// Runs `work`, and returns when it is queued.
    pub(crate) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.0.spawn(work);
    }

    /// Runs `work`, and waits for its result without blocking the runtime.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.start(doing, work).await
    }

    /// As [`Pool::run`], but the work is queued at once, whenever its result is asked for.
    pub(crate) fn start<T: Send + 'static, W: FnOnce() -> T + Send + 'static>(
        &self,
        doing: &'static str,
        work: W,
    ) -> impl Future<Output = Result<T>> + Send + use<T, W> {
        let (tell, told) = oneshot::channel();
        self.0.spawn(move || {
            // Nobody listening any more means that the caller was cancelled.
            let _ = tell.send(work());
        });
        async move { told.await.map_err(|_| Error::Worker { doing }) }
    }
}
