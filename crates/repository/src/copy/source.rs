//! A snapshot that is read for a copy: content that the destination has is not read.

use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{
    Baseline, Completion, Content, Context, Entry, EntryInfo, EntryKind, Inspection, Reading,
    Source, StoreRef,
};

use super::content::{Compared, Held};
use crate::error::Result;
use crate::read::{self, Selection, SnapshotSource};
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::tree::{EntryRecord, TreeCursor, compare};

/// An earlier snapshot of the source, and its copy in the destination.
pub(super) struct Base {
    old: Snapshot,
    pub(super) held: Snapshot,
    destination: Arc<Held>,
}

impl Base {
    pub(super) fn new(old: Snapshot, held: Snapshot, destination: &Repository) -> Self {
        let destination = Arc::new(Held::new(Arc::clone(destination.shared())));
        Self { old, held, destination }
    }
}

/// Reads a snapshot as far as the destination lacks it.
pub(super) struct CopySource {
    snapshot: Snapshot,
    base: Option<Arc<Base>>,
}

impl CopySource {
    pub(super) fn new(snapshot: Snapshot, base: Option<Arc<Base>>) -> Self {
        Self { snapshot, base }
    }

    /// How many bytes of content have to be read when the destination has a copy of `old`.
    pub(super) async fn estimate(&self, old: Option<Snapshot>, context: &Context) -> Result<u64> {
        let Some(old) = old else {
            return Ok(self.snapshot.info().bytes);
        };
        let mut entries = self.snapshot.tree().entries(None);
        let mut earlier = Earlier::new(&self.snapshot, &old);
        let mut bytes = 0;
        while let Some(record) = entries.next().await? {
            context.check()?;
            let same = match earlier.at(&record).await {
                Some(old) if has_same_content(&record, &old) => record.size,
                Some(old) => Compared::new(&self.snapshot, &record, &old).unchanged().await?,
                None => 0,
            };
            bytes += record.size.saturating_sub(same);
        }
        Ok(bytes)
    }
}

#[async_trait]
impl Source for CopySource {
    fn store(&self) -> &StoreRef {
        &self.snapshot.info().store
    }

    async fn inspect(&self) -> lifeboat_core::Result<Inspection> {
        SnapshotSource::new(self.snapshot.clone(), Selection::all(), None).inspect().await
    }

    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Reading>> {
        context.expect(self.snapshot.info().bytes);
        let is_base = |base: &&Arc<Base>| {
            since.as_ref().is_some_and(|since| since.snapshot().id == base.held.info().id)
        };
        let base = self.base.as_ref().filter(is_base).map(|base| {
            let earlier = Earlier::new(&self.snapshot, &base.old);
            (earlier, Arc::clone(base))
        });
        Ok(Box::new(CopyReading {
            entries: self.snapshot.tree().entries(None),
            snapshot: self.snapshot.clone(),
            base,
            context: context.clone(),
        }))
    }
}

/// The entries of the earlier snapshot, gone through beside those of the new one. Both read their
/// pages through one reader: what they share is fetched once.
struct Earlier {
    /// `None` when no more can be had of it.
    entries: Option<TreeCursor>,
    next: Option<EntryRecord>,
}

impl Earlier {
    fn new(snapshot: &Snapshot, old: &Snapshot) -> Self {
        Self { entries: Some(snapshot.tree().beside(old.tree()).entries(None)), next: None }
    }

    /// The entry with the path, kind and layout of `record`, if there was one.
    ///
    /// It only saves work: where the earlier snapshot cannot be read, there is none.
    async fn at(&mut self, record: &EntryRecord) -> Option<EntryRecord> {
        loop {
            if self.next.is_none() {
                let found = self.entries.as_mut()?.next().await;
                let Ok(Some(found)) = found else {
                    self.entries = None;
                    return None;
                };
                self.next = Some(found);
            }
            match compare(self.next.as_ref()?.raw_path(), record.raw_path()) {
                std::cmp::Ordering::Less => self.next = None,
                std::cmp::Ordering::Equal => {
                    let old = self.next.take()?;
                    return (old.layout() == record.layout()).then_some(old);
                }
                std::cmp::Ordering::Greater => return None,
            }
        }
    }
}

fn has_same_content(one: &EntryRecord, other: &EntryRecord) -> bool {
    let (a, b) = (&one.content, &other.content);
    one.size == other.size && a.depth == b.depth && a.list == b.list
}

struct CopyReading {
    snapshot: Snapshot,
    entries: TreeCursor,
    base: Option<(Earlier, Arc<Base>)>,
    context: Context,
}

impl CopyReading {
    async fn content(&mut self, info: &EntryInfo, record: &EntryRecord) -> Result<Content> {
        let known = match &mut self.base {
            Some((earlier, base)) if info.kind == EntryKind::File && info.size > 0 => {
                let old = earlier.at(record).await;
                // The copy may lack what it was made with, and then it saves nothing.
                let held = match &old {
                    Some(_) => base.held.tree().get(&info.path).await.ok().flatten(),
                    None => None,
                };
                old.zip(held).map(|(old, held)| (old, held, Arc::clone(base)))
            }
            _ => None,
        };
        let context = self.context.clone();
        let Some((old, held, base)) = known else {
            let chunks = Arc::clone(self.snapshot.chunks());
            return Ok(read::read(chunks, &record.content, info.size, context));
        };
        let is_short = held.content.depth == 0 && held.size == info.size;
        if has_same_content(record, &old) && is_short && base.destination.has(&held.content) {
            context.count_unchanged(info.size);
            return Ok(Content::unchanged(info.size));
        }
        let held = base.destination.pieces(&base.held, &held.content);
        Ok(Compared::new(&self.snapshot, record, &old).content(held, context))
    }
}

#[async_trait]
impl Reading for CopyReading {
    async fn next(&mut self) -> lifeboat_core::Result<Option<Entry>> {
        let Some(record) = self.entries.next().await? else {
            return Ok(None);
        };
        let info = read::decode(&record)?;
        let content = self.content(&info, &record).await?;
        let entry = Entry::new(info.path, info.kind, info.attributes).with_layout(info.layout);
        Ok(Some(entry.with_content(info.size, content)))
    }

    async fn finish(self: Box<Self>) -> lifeboat_core::Result<Completion> {
        let info = self.snapshot.info();
        Ok(Completion {
            taken: info.taken,
            position: info.position.clone(),
            facts: info.facts.clone(),
        })
    }
}
