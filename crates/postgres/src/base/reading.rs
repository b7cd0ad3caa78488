//! The side of a base backup that hands entries out.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures_util::stream;
use lifeboat_core::{Baseline, Completion, Content, Context, Entry, Extent, Reading};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};

use super::BaseBackupOptions;
use super::error::{BaseBackupError, Result};
use super::pump::{Item, Pump};
use super::server::Server;

/// A base backup in progress. Dropping it, and the contents it gave, ends the connection.
pub(super) struct BaseReading {
    /// Whoever has it takes what comes: the reading, or the content of a large file.
    items: Arc<Mutex<Items>>,
    context: Context,
    completion: Option<Completion>,
}

/// What the pump gives, in the order in which it arrived.
pub(super) struct Items {
    receiver: mpsc::Receiver<Item>,
    /// Why the pump ended, when it did so too early.
    failure: Failure,
}

/// Set before the pump lets go of its end of the channel.
pub(super) type Failure = Arc<OnceLock<Arc<BaseBackupError>>>;

impl Items {
    pub(super) fn new(receiver: mpsc::Receiver<Item>, failure: Failure) -> Self {
        Self { receiver, failure }
    }

    async fn next(&mut self) -> Result<Item> {
        match self.receiver.recv().await {
            Some(item) => Ok(item),
            None => match self.failure.get() {
                Some(failure) => Err(BaseBackupError::Earlier(Arc::clone(failure))),
                None => Err(BaseBackupError::Unfinished),
            },
        }
    }
}

impl BaseReading {
    pub(super) async fn start(
        server: Server,
        since: Option<Arc<dyn Baseline>>,
        options: &BaseBackupOptions,
        context: &Context,
    ) -> lifeboat_core::Result<Self> {
        context.phase("start the backup");
        let (pump, items) = Pump::begin(server, since, options, context).await?;
        let items = Arc::new(Mutex::new(pump.start(items)));
        Ok(Self { items, context: context.clone(), completion: None })
    }

    async fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.completion.is_some() {
            return Ok(None);
        }
        let mut items = Arc::clone(&self.items).lock_owned().await;
        loop {
            match items.next().await? {
                Item::Entry(entry) => return Ok(Some(entry)),
                Item::Begin(entry) => {
                    let size = entry.size;
                    return Ok(Some(entry.with_content(size, content(items))));
                }
                // Of a content that was dropped before its end.
                Item::Extent(_) | Item::End => {}
                Item::Completion(completion) => {
                    self.completion = Some(completion);
                    return Ok(None);
                }
            }
        }
    }
}

/// The content of a large file: all that comes up to its end.
fn content(items: OwnedMutexGuard<Items>) -> Content {
    Content::stream(stream::try_unfold(items, |mut items| async move {
        let next: Result<Option<Extent>> = match items.next().await {
            Ok(Item::Extent(extent)) => Ok(Some(extent)),
            Ok(Item::End) => Ok(None),
            Ok(_) => Err(BaseBackupError::Unfinished),
            Err(error) => Err(error),
        };
        Ok(next?.map(|extent| (extent, items)))
    }))
}

#[async_trait]
impl Reading for BaseReading {
    async fn next(&mut self) -> lifeboat_core::Result<Option<Entry>> {
        self.context.check()?;
        Ok(self.next_entry().await?)
    }

    async fn finish(self: Box<Self>) -> lifeboat_core::Result<Completion> {
        Ok(self.completion.ok_or(BaseBackupError::Unfinished)?)
    }
}
