//! Index objects from packs.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::Context;
use object_store::PutPayload;

use super::{RepairMode, Right};
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::index::IndexObject;
use crate::maintenance::Marks;
use crate::objects::{PACKS, id_of, pack_name};
use crate::pack::{MAX_CHUNKS, PackRecord, read_record};
use crate::repository::Shared;
use crate::sealed::SealedKind;

/// How many packs are asked for their directories at once.
const AT_ONCE: usize = 8;
/// An index object is written when so many chunks are gathered: far below its limit with the
/// largest pack on top.
const CHUNKS: usize = 4 * MAX_CHUNKS;
/// Or so many packs.
const MOST_PACKS: usize = 4096;

/// What a repair of the index did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexRepair {
    /// Index objects that are damaged, and what is wrong with them.
    pub damaged: Vec<(String, String)>,
    /// Packs that no readable index object named and that are named now.
    pub packs: u64,
    /// The chunks in them.
    pub chunks: u64,
    /// Packs that cannot say what is in them, and why.
    pub unreadable: Vec<(String, String)>,
}

impl IndexRepair {
    /// Whether there was nothing to do.
    pub fn is_idle(&self) -> bool {
        self.damaged.is_empty() && self.packs == 0 && self.unreadable.is_empty()
    }
}

pub(super) async fn repair(
    shared: &Arc<Shared>,
    mode: RepairMode,
    right: &Right,
    context: &Context,
) -> Result<IndexRepair> {
    context.phase("look for packs that no index names");
    shared.refresh_index().await?;
    let mut report = IndexRepair { damaged: shared.index.damaged(), ..IndexRepair::default() };
    let unknown = unknown(shared).await?;
    context.phase("read the directories of packs");
    let mut records = stream::iter(unknown)
        .map(async |(id, size)| (read_record(shared, id, size).await, id))
        .buffer_unordered(AT_ONCE);
    let mut gathered = Gathered::default();
    while let Some((record, id)) = records.next().await {
        context.check()?;
        match record {
            Ok(record) => {
                report.packs += 1;
                report.chunks += record.chunks.len() as u64;
                gathered.push(record);
                if gathered.is_full() {
                    gathered.write(shared, mode).await?;
                }
            }
            // It was deleted since it was listed.
            Err(Error::Damaged { .. }) if gone(shared, id).await? => {}
            Err(Error::Damaged { what, .. }) => report.unreadable.push((pack_name(id), what)),
            Err(error) => return Err(error),
        }
    }
    gathered.write(shared, mode).await?;
    report.unreadable.sort();
    if mode == RepairMode::Apply {
        context.phase("set damaged index objects aside");
        for (name, _) in &report.damaged {
            right.check().await?;
            set_aside(shared, name).await?;
        }
        shared.refresh_index().await?;
    }
    Ok(report)
}

/// The packs that no readable index object names, unless they are about to be deleted.
async fn unknown(shared: &Shared) -> Result<Vec<(ObjectId, u64)>> {
    let known = shared.index.packs();
    let marked = Marks::read(&shared.objects, &shared.keys).await?.packs();
    let listed = shared.objects.list(PACKS).try_filter_map(async |listed| {
        let id = id_of(&listed.name);
        Ok(id
            .filter(|id| !known.contains_key(id) && !marked.contains(id))
            .map(|id| (id, listed.size)))
    });
    listed.try_collect().await
}

async fn gone(shared: &Shared, id: ObjectId) -> Result<bool> {
    Ok(shared.objects.head(&pack_name(id)).await?.is_none())
}

/// Packs on their way into an index object.
#[derive(Default)]
struct Gathered {
    packs: Vec<PackRecord>,
    chunks: usize,
}

impl Gathered {
    fn push(&mut self, record: PackRecord) {
        self.chunks += record.chunks.len();
        self.packs.push(record);
    }

    fn is_full(&self) -> bool {
        self.chunks >= CHUNKS || self.packs.len() >= MOST_PACKS
    }

    async fn write(&mut self, shared: &Shared, mode: RepairMode) -> Result<()> {
        let Self { packs, .. } = std::mem::take(self);
        if mode == RepairMode::Apply && !packs.is_empty() {
            let object = IndexObject { packs };
            let (id, _) = object.write(&shared.objects, &shared.keys).await?;
            shared.index.add(id, &object.packs);
        }
        Ok(())
    }
}

/// Gives an object a name under which no reader finds it.
async fn set_aside(shared: &Shared, name: &str) -> Result<()> {
    match shared.objects.read(name, 2 * SealedKind::Index.limit()).await {
        Ok(Some(bytes)) => {
            let aside = format!("{name}.damaged");
            shared.objects.replace(&aside, PutPayload::from(bytes)).await?;
        }
        // Of one that is gone, or of no size that an index object has, nothing is kept.
        Ok(None) | Err(Error::Damaged { .. }) => {}
        Err(error) => return Err(error),
    }
    shared.objects.delete(name).await
}
