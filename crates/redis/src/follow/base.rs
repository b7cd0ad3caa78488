//! The snapshot with which a journal begins, taken on the connection on which its stream follows.

use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{
    Baseline, Context, Error, ErrorKind, Inspection, Reading, Result, Sink, SnapshotId, Source,
    StoreRef, TransferOptions, transfer,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::FollowError;
use crate::connect::Connection;
use crate::source::{Snapshot, Started};

/// A snapshot that is on its way already.
struct BaseSource {
    store: StoreRef,
    started: Mutex<Option<(Started, oneshot::Sender<Connection>)>>,
}

#[async_trait]
impl Source for BaseSource {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    async fn inspect(&self) -> Result<Inspection> {
        Err(Error::new(ErrorKind::Unsupported, "inspect a snapshot that is on its way"))
    }

    async fn read(
        &self,
        _since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> Result<Box<dyn Reading>> {
        let (started, after) = self.started.lock().take().ok_or(FollowError::BaseEnded)?;
        Ok(Box::new(Snapshot::new(started, context).with_after(after)))
    }
}

/// Whether the journal has a snapshot to begin with.
pub(super) enum Base {
    /// It has none, or none that leads up to its end.
    Needed,
    /// One is being stored.
    Running(JoinSet<Result<Option<SnapshotId>>>),
    /// It has one.
    There,
}

impl Base {
    /// Stores a snapshot on a task of its own, and gives the connection back when the stream of
    /// changes begins on it.
    pub(super) fn start(
        store: &StoreRef,
        started: Started,
        sink: Arc<dyn Sink>,
        context: &Context,
    ) -> (Self, oneshot::Receiver<Connection>) {
        let (after, connection) = oneshot::channel();
        let source =
            BaseSource { store: store.clone(), started: Mutex::new(Some((started, after))) };
        let context = context.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let options = TransferOptions::default();
            let moving = Box::pin(transfer(&source, &*sink, &options, &context));
            Ok(moving.await?.receipt.snapshot)
        });
        (Self::Running(task), connection)
    }

    /// Waits until the snapshot is stored; for ever when none is being stored.
    ///
    /// # Errors
    /// Why it could not be stored: it is needed again then.
    pub(super) async fn stored(&mut self) -> Result<Option<SnapshotId>> {
        let Self::Running(task) = self else {
            return std::future::pending().await;
        };
        let done = match task.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(source)) => Err(crate::Error::Panicked { source }.into()),
            None => Err(FollowError::BaseEnded.into()),
        };
        *self = if done.is_ok() { Self::There } else { Self::Needed };
        done
    }
}
