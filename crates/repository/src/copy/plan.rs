//! Which snapshots are copied, and with what each is compared.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use lifeboat_core::{
    Comparison, Context, ErrorKind, Failure, Origin, SnapshotId, SnapshotInfo, TransferOptions,
    transfer,
};

use super::report::{Copied, CopyOptions, CopySelection, Verification};
use super::source::{Base, CopySource};
use super::verify;
use crate::error::{Error, Result};
use crate::repository::{Repository, WriteOptions};
use crate::snapshot::Snapshot;
use crate::write::RepositorySink;

/// What a copy has to do. Made by [`Repository::plan_copy`].
#[derive(Debug)]
pub struct CopyPlan {
    pub(super) source: Repository,
    pub(super) destination: Repository,
    pub(super) options: CopyOptions,
    missing: Vec<SnapshotInfo>,
    present: Vec<(SnapshotInfo, SnapshotId)>,
    damaged: Vec<(String, String)>,
    /// The source's snapshots, the oldest first: one of them and its copy make a baseline.
    pub(super) all: Vec<SnapshotInfo>,
    /// What the destination holds, by where it is from.
    pub(super) copies: HashMap<Origin, SnapshotId>,
}

impl CopyPlan {
    pub(super) async fn new(
        source: &Repository,
        destination: &Repository,
        options: &CopyOptions,
    ) -> Result<Self> {
        if source.id() == destination.id() {
            return Err(Error::SameRepository);
        }
        let (here, there) = (source.snapshots().await?, destination.snapshots().await?);
        let copies: HashMap<_, _> =
            there.snapshots.iter().map(|info| (destination.origin_of(info), info.id)).collect();
        if let CopySelection::Snapshots(ids) = &options.selection {
            let known = |id: &&SnapshotId| !here.snapshots.iter().any(|info| info.id == **id);
            if let Some(id) = ids.iter().find(known) {
                return Err(Error::NoSuchSnapshot { name: id.to_string() });
            }
        }
        let wanted = |info: &&SnapshotInfo| {
            let selected = match &options.selection {
                CopySelection::All => true,
                CopySelection::Since(moment) => info.taken >= *moment,
                CopySelection::Snapshots(ids) => ids.contains(&info.id),
            };
            selected && options.store.as_ref().is_none_or(|store| info.store == *store)
        };
        let (mut missing, mut present) = (Vec::new(), Vec::new());
        for info in here.snapshots.iter().filter(wanted) {
            match copies.get(&source.origin_of(info)) {
                Some(copy) => present.push((info.clone(), *copy)),
                None => missing.push(info.clone()),
            }
        }
        Ok(Self {
            source: source.clone(),
            destination: destination.clone(),
            options: options.clone(),
            missing,
            present,
            damaged: here.damaged,
            all: here.snapshots,
            copies,
        })
    }

    /// The snapshots that are to be copied, the oldest first.
    pub fn missing(&self) -> &[SnapshotInfo] {
        &self.missing
    }

    /// The snapshots that the destination has already, and what they are called there.
    pub fn present(&self) -> &[(SnapshotInfo, SnapshotId)] {
        &self.present
    }

    /// The objects of the source that should be snapshots and cannot be read, and why. Nobody
    /// knows whether they are among those that were asked for.
    pub fn damaged(&self) -> &[(String, String)] {
        &self.damaged
    }

    /// How many bytes of content have to be read for each of [`CopyPlan::missing`], from the trees
    /// alone. No more than this is stored; less, where the destination has some of it from other
    /// snapshots.
    ///
    /// # Errors
    /// When a tree cannot be read, or the context is cancelled.
    pub async fn estimate(&self, context: &Context) -> Result<Vec<u64>> {
        let mut known: HashSet<_> = self.copies.keys().cloned().collect();
        let mut estimates = Vec::with_capacity(self.missing.len());
        for original in &self.missing {
            let base = match self.base_of(original, |origin| known.contains(origin)) {
                Some(info) => Some(self.source.snapshot(&info.id).await?),
                None => None,
            };
            let snapshot = self.source.snapshot(&original.id).await?;
            estimates.push(CopySource::new(snapshot, None).estimate(base, context).await?);
            known.insert(self.source.origin_of(original));
        }
        Ok(estimates)
    }

    /// The snapshot with which `original` is compared: of the same store, with a copy in the
    /// destination, the last one before it; or, for want of one, the first one after it.
    fn base_of(
        &self,
        original: &SnapshotInfo,
        has_copy: impl Fn(&Origin) -> bool,
    ) -> Option<&SnapshotInfo> {
        if self.options.comparison == Comparison::Nothing {
            return None;
        }
        let of_store = |info: &&SnapshotInfo| {
            info.store == original.store
                && info.id != original.id
                && has_copy(&self.source.origin_of(info))
        };
        let before = |info: &&SnapshotInfo| (info.taken, info.id) < (original.taken, original.id);
        let mut others = self.all.iter().filter(of_store);
        others.clone().rfind(before).or_else(|| others.next())
    }

    /// Copies one of [`CopyPlan::missing`], and commits it.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](lifeboat_core::ErrorKind::Corrupt) when the original is damaged, or
    /// the copy turned out to be; the other snapshots can still be copied. Else when a store fails,
    /// or the context is cancelled.
    pub async fn copy(&mut self, original: &SnapshotInfo, context: &Context) -> Result<Copied> {
        let began = Instant::now();
        let before = context.progress();
        let origin = self.source.origin_of(original);
        context.phase(format!("copy snapshot {} of {}", original.id.short(), original.store));
        let snapshot = self.source.snapshot(&original.id).await?;
        let base = self.base(original).await?;
        let has_base = base.is_some();
        let id = match self.transfer(&snapshot, &origin, base, context).await {
            // What the destination lost may be what tells of the earlier copy: then that saves
            // nothing, and this one heals it.
            Err(error) if has_base && error.kind() == ErrorKind::Corrupt => {
                self.transfer(&snapshot, &origin, None, context).await
            }
            done => done,
        }?;
        let copy = self.destination.snapshot(&id).await?;
        verify::summary(&snapshot, &copy)?;
        if self.options.verification == Verification::EveryByte {
            context.phase(format!("read the copy of snapshot {} back", original.id.short()));
            verify::every_byte(&snapshot, &copy, context).await?;
        }
        self.copies.insert(origin, id);
        let after = context.progress();
        Ok(Copied {
            original: original.clone(),
            copy: copy.info().clone(),
            read: after.read - before.read,
            unchanged: after.unchanged - before.unchanged,
            new: after.new - before.new,
            elapsed: began.elapsed(),
        })
    }

    async fn transfer(
        &self,
        snapshot: &Snapshot,
        origin: &Origin,
        base: Option<Base>,
        context: &Context,
    ) -> Result<SnapshotId> {
        let mut options = TransferOptions::default();
        let mut heading = snapshot.info().clone();
        heading.origin = Some(origin.clone());
        options.original = Some(heading);
        if base.is_none() {
            options.comparison = Comparison::Nothing;
        }
        let held = base.as_ref().map(|base| base.held.clone());
        // What checkpoints would save, the index saves as well; and a backup of the store is not to
        // be compared with the half of an old copy.
        let write = WriteOptions { compression: self.options.compression, checkpoint_every: None };
        let sink = RepositorySink::new(self.destination.clone(), write).comparing_with(held);
        let source = CopySource::new(snapshot.clone(), base.map(Arc::new));
        let summary = Box::pin(transfer(&source, &sink, &options, context)).await?;
        summary.receipt.snapshot.ok_or(Error::Worker { doing: "copy a snapshot" })
    }

    /// An earlier snapshot and its copy, when there are such. It only saves work: what of it cannot
    /// be opened is not used.
    async fn base(&self, original: &SnapshotInfo) -> Result<Option<Base>> {
        let Some(info) = self.base_of(original, |origin| self.copies.contains_key(origin)) else {
            return Ok(None);
        };
        let Some(copy) = self.copies.get(&self.source.origin_of(info)) else {
            return Ok(None);
        };
        let opened = (self.source.snapshot(&info.id).await, self.destination.snapshot(copy).await);
        match opened {
            (Ok(old), Ok(held)) => Ok(Some(Base::new(old, held, &self.destination))),
            (Err(Error::Damaged { .. }), _) | (_, Err(Error::Damaged { .. })) => Ok(None),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }
}
