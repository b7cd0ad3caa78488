//! One shard of a snapshot, as the snapshot of a server of its own.

use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{
    Attributes, Baseline, Completion, Context, Entry, EntryPath, Inspection, Reading, Result,
    Source, StoreRef,
};

use super::shard_of;
use crate::source::{DUMP, facts};

/// The RDB of one shard, out of a snapshot of a cluster, as if a server had been backed up alone: for
/// whoever knows servers, and no clusters.
///
/// It gives the first shard that the snapshot has: choose one by its path. Where the server was in its
/// history is known of the cluster as a whole only, so the facts hold its version and no more.
pub struct ShardSource<'a> {
    snapshot: &'a dyn Source,
}

impl<'a> ShardSource<'a> {
    /// Out of this snapshot, or part of one.
    pub fn new(snapshot: &'a dyn Source) -> Self {
        Self { snapshot }
    }

    /// What is known of a shard, by what the snapshot says of the cluster.
    pub fn facts(of_cluster: &Attributes) -> Attributes {
        let version = of_cluster.text(facts::VERSION).unwrap_or_default();
        Attributes::new().with(facts::VERSION, version)
    }
}

impl std::fmt::Debug for ShardSource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardSource").field("store", self.snapshot.store()).finish()
    }
}

#[async_trait]
impl Source for ShardSource<'_> {
    fn store(&self) -> &StoreRef {
        self.snapshot.store()
    }

    async fn inspect(&self) -> Result<Inspection> {
        self.snapshot.inspect().await
    }

    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> Result<Box<dyn Reading>> {
        let reading = self.snapshot.read(since, context).await?;
        Ok(Box::new(ShardReading { reading, given: false }))
    }
}

struct ShardReading {
    reading: Box<dyn Reading>,
    given: bool,
}

#[async_trait]
impl Reading for ShardReading {
    async fn next(&mut self) -> Result<Option<Entry>> {
        while let Some(mut entry) = self.reading.next().await? {
            if !self.given && shard_of(&entry.path).is_some() {
                self.given = true;
                entry.path = EntryPath::new(DUMP)?;
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    async fn finish(self: Box<Self>) -> Result<Completion> {
        let mut completion = self.reading.finish().await?;
        completion.facts = ShardSource::facts(&completion.facts);
        Ok(completion)
    }
}
