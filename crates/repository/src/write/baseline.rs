//! What a write is compared with.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use lifeboat_core::{
    Attributes, Baseline, Content, EntryInfo, EntryPath, SnapshotId, SnapshotInfo, Value, names,
};

use crate::error::Result;
use crate::read::{ChunkReader, decode};
use crate::snapshot::Snapshot;
use crate::tree::EntryRef;

/// Times of files are not finer than this everywhere: what changed within one tick of the moment
/// at which an older snapshot began may have changed again after it was read.
const TICK: i64 = 2_000_000_000;

/// The last whole snapshot of a store, and on top of it what a later backup that did not end had
/// stored: a run that takes it up again reads neither what the one nor what the other has.
#[derive(Clone)]
pub(crate) struct Baselines {
    info: Arc<SnapshotInfo>,
    whole: Option<Snapshot>,
    checkpoint: Option<Snapshot>,
}

impl Baselines {
    /// `None` when there is nothing to compare with.
    pub(crate) fn new(whole: Option<Snapshot>, checkpoint: Option<Snapshot>) -> Option<Self> {
        let first = whole.as_ref().or(checkpoint.as_ref())?;
        let mut info = first.info().clone();
        if let Some(checkpoint) = &checkpoint {
            // Entries are judged by when their snapshot began: `entry` sees to the older one's.
            info.started = checkpoint.info().started;
        }
        Some(Self { info: Arc::new(info), whole, checkpoint })
    }

    pub(crate) fn id(&self) -> SnapshotId {
        self.info.id
    }

    /// What reads the content that is compared with.
    pub(crate) fn chunks(&self) -> Option<&Arc<ChunkReader>> {
        self.whole.as_ref().or(self.checkpoint.as_ref()).map(Snapshot::chunks)
    }

    /// What is known of the entry at `path`: in the later snapshot that has all of it, else in the
    /// later one that has it at all.
    ///
    /// # Errors
    /// When what may know it is damaged, and nothing else knows it.
    pub(crate) async fn get(&self, path: &EntryPath) -> Result<Option<EntryRef>> {
        let (mut in_part, mut damage) = (None, None);
        for snapshot in [&self.checkpoint, &self.whole].into_iter().flatten() {
            match snapshot.tree().get(path).await {
                Ok(Some(entry)) if snapshot.has_all(&entry).await => return Ok(Some(entry)),
                Ok(Some(entry)) => drop(in_part.get_or_insert(entry)),
                Ok(None) => {}
                Err(error) if error.is_damage() => damage = Some(error),
                Err(error) => return Err(error),
            }
        }
        match (in_part, damage) {
            (None, Some(error)) => Err(error),
            (entry, _) => Ok(entry),
        }
    }

    /// The entry of a snapshot, unless something that belongs to it is lost: then it is as good as
    /// changed, and a source that reads it again makes it whole.
    async fn reliable(snapshot: &Snapshot, path: &EntryPath) -> Result<Option<EntryInfo>> {
        let found = match snapshot.tree().get(path).await {
            // What cannot be read saves no work, and hurts nothing but that.
            Err(error) if error.is_damage() => return Ok(None),
            found => found?,
        };
        match found {
            Some(entry) if snapshot.has_all(&entry).await => decode(&entry).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether an entry of the whole snapshot may count as if the later one had it.
    fn is_settled(&self, whole: &Snapshot, attributes: &Attributes) -> bool {
        let Some(Value::Signed(changed)) = attributes.get(names::CHANGED) else {
            return true;
        };
        let began = i64::try_from(whole.info().started.as_nanosecond()).unwrap_or(i64::MIN);
        self.checkpoint.is_none() || *changed < began.saturating_sub(TICK)
    }
}

#[async_trait]
impl Baseline for Baselines {
    fn snapshot(&self) -> &SnapshotInfo {
        &self.info
    }

    async fn entry(&self, path: &EntryPath) -> lifeboat_core::Result<Option<EntryInfo>> {
        if let Some(checkpoint) = &self.checkpoint
            && let Some(entry) = Self::reliable(checkpoint, path).await?
        {
            return Ok(Some(entry));
        }
        let Some(whole) = &self.whole else {
            return Ok(None);
        };
        let entry = Self::reliable(whole, path).await?;
        Ok(entry.filter(|entry| self.is_settled(whole, &entry.attributes)))
    }

    async fn content(&self, path: &EntryPath) -> lifeboat_core::Result<Option<Content>> {
        let first = self.whole.as_ref().or(self.checkpoint.as_ref());
        match first {
            Some(snapshot) => Ok(snapshot.content(path).await?),
            None => Ok(None),
        }
    }

    fn entries(&self) -> Option<BoxStream<'_, lifeboat_core::Result<EntryInfo>>> {
        // With an unfinished one on top, it is not one snapshot that answers.
        let snapshot = self.whole.as_ref().filter(|_| self.checkpoint.is_none())?;
        let listed = stream::try_unfold(snapshot.tree().entries(None), move |mut cursor| async {
            while let Some(entry) = cursor.next().await? {
                if snapshot.has_all(&entry).await {
                    return Ok(Some((decode(&entry)?, cursor)));
                }
            }
            Ok(None)
        });
        Some(listed.boxed())
    }
}
