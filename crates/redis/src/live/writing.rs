//! One restore into a running server, or into a cluster.

use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{
    Completion, Context, Entry, EntryKind, EntryPath, Extent, Lane, Receipt, Writing,
};
use tokio::sync::Mutex;

use super::error::until;
use super::parsing::{self, Feed};
use super::routing::Router;
use super::work::Work;
use super::{Doing, LiveOptions};
use crate::cluster;
use crate::error::{Error, Result};
use crate::source::DUMP;

pub(super) struct LiveWriting {
    options: Arc<LiveOptions>,
    target: String,
    /// `None` after an error.
    work: Mutex<Option<Box<Work>>>,
}

/// Connects.
pub(super) async fn begin(options: Arc<LiveOptions>, context: &Context) -> Result<LiveWriting> {
    let router = Router::open(&options).await?;
    let target = options.connection.target();
    context.phase(match options.doing {
        Doing::Write => "restore the keys",
        Doing::Look => "look at the keys",
    });
    let work = Work::new(Arc::clone(&options), router, context);
    Ok(LiveWriting { options, target, work: Mutex::new(Some(Box::new(work))) })
}

impl LiveWriting {
    async fn take(&self, entry: Entry) -> lifeboat_core::Result<()> {
        let path = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
        let strange = |entry: String| Error::StrangeContent { target: self.target.clone(), entry };
        let mut held = self.work.lock().await;
        let Some(mut work) = held.take() else {
            return Err(strange(path).into());
        };
        if entry.kind != EntryKind::File {
            return Err(strange(path).into());
        }
        if path == cluster::MAP && work.parts.is_empty() && work.dumps == 0 {
            work.parts.take_map(&self.target, entry).await?;
            *held = Some(work);
            return Ok(());
        }
        let expected = match cluster::shard_of(&entry.path) {
            Some(first) => work.parts.take_shard(first).is_some(),
            None => path == DUMP && work.parts.is_empty() && work.dumps == 0,
        };
        if !expected {
            return Err(strange(path).into());
        }
        work.dumps += 1;
        self.restore(&mut work, path, entry).await?;
        *held = Some(work);
        Ok(())
    }

    /// Restores what one RDB holds.
    async fn restore(
        &self,
        work: &mut Work,
        path: String,
        mut entry: Entry,
    ) -> lifeboat_core::Result<()> {
        let (feed, found) = parsing::start(Arc::clone(&self.options));
        let feeding = async {
            // Moved, so that the thread sees the end.
            let feed: Feed = feed;
            while let Some(extent) = entry.content.next().await? {
                let Extent::Data(bytes) = extent else {
                    let (target, entry) =
                        (self.target.clone(), format!("a {path} without its bytes"));
                    return Err(Error::StrangeContent { target, entry }.into());
                };
                if feed.send(bytes).await.is_err() {
                    // The thread has said why.
                    break;
                }
            }
            drop(feed);
            Ok::<_, lifeboat_core::Error>(())
        };
        let (fed, worked) = tokio::join!(feeding, work.run(found));
        // Whoever hears of an error here hears how far it came.
        work.ended = fed.is_err() || worked.is_err();
        if let Err(error) = fed {
            // The thread takes it for an RDB that was cut off: this is why.
            let until = until(self.options.doing, &work.counts);
            return Err(error.context(format!("restore into {}: {until}", self.target)));
        }
        worked
    }
}

#[async_trait]
impl Writing for LiveWriting {
    /// One after the other: of a cluster, the map comes first, and one value is held at a time.
    fn lane(&self, _path: &EntryPath) -> Option<Lane> {
        Some(Lane(0))
    }

    async fn put(&self, _ordinal: u64, entry: Entry) -> lifeboat_core::Result<()> {
        Box::pin(self.take(entry)).await
    }

    async fn commit(self: Arc<Self>, _: Completion) -> lifeboat_core::Result<Receipt> {
        let Some(mut work) = self.work.lock().await.take() else {
            return Err(Error::Unfinished.into());
        };
        work.end()?;
        let counts = work.counts;
        let told = match self.options.doing {
            Doing::Write => format!("done: {counts}"),
            Doing::Look => format!("nothing was written; this would be done: {}", counts.seen()),
        };
        let facts = counts.facts().with("redis.note.counts", told);
        Ok(Receipt { snapshot: None, facts })
    }

    async fn abort(self: Arc<Self>) {}
}
