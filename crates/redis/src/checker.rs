//! Checking an RDB while it passes by, on a thread of its own.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::fed::Fed;
use crate::rdb::{Outcome, RdbError, check};

/// How many buffers may wait to be looked at.
const WAITING: usize = 2;

/// A thread that reads what it is fed. It ends with the value: what was fed is then not whole.
pub(crate) struct Checker {
    feed: mpsc::Sender<Bytes>,
    thread: JoinHandle<Result<Outcome, RdbError>>,
}

impl Checker {
    pub(crate) fn start() -> Self {
        let (feed, fed) = mpsc::channel(WAITING);
        let reader = Fed::new(fed);
        Self { feed, thread: tokio::task::spawn_blocking(move || check(reader)) }
    }

    /// Feeds the bytes that follow. Waits while the thread has enough to do.
    pub(crate) async fn feed(&self, bytes: Bytes) {
        // It reads to the end, whatever it meets; when it panicked, the end tells.
        let _ = self.feed.send(bytes).await;
    }

    /// Says that all of it was fed, and what it is.
    pub(crate) async fn finish(self) -> Result<Result<Outcome, RdbError>> {
        drop(self.feed);
        self.thread.await.map_err(|source| Error::Panicked { source })
    }
}
