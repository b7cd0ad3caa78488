//! Storing again what is needed of packs that are mostly waste.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::plan::{Partly, Plan};
use super::{Prune, PruneMode, PruneReport, Reseal};
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::index::{Prefix, prefix};
use crate::maintenance::session::Sessions;
use crate::objects::pack_name;
use crate::pack::read_record;
use crate::read::ChunkReader;
use crate::repository::Compression;
use crate::storage::Shelf;
use crate::write::ChunkWriter;

/// How many chunks are read at once.
const READS: usize = 8;
/// So many chunks are moved by one run at most: what is known of them has to fit into memory.
const MOST_CHUNKS: u64 = 4 << 20;
/// Packs smaller than this share of the usual size are gathered, when there are enough of them to
/// fill a pack.
const SMALL: u64 = 4;

impl Prune<'_> {
    /// The packs that are to be repacked: the most wasteful ones first, until waste is no more
    /// than it may be; packs that are far too small; packs of earlier epochs, where asked for.
    pub(super) fn choose(
        &self,
        plan: &Plan,
        shelf: &Shelf,
        sessions: &Sessions,
        report: &mut PruneReport,
    ) -> Vec<Partly> {
        let shared = self.repository.shared();
        let target = u64::from(shared.config.parameters.pack);
        let mut packs = plan.partly_needed();
        // What lies in an archive cannot be read; nor is its waste made good by copying other packs.
        packs.retain(|pack| {
            let frozen = shelf.is_archived(shared, &pack.id);
            if frozen && pack.waste > 0 {
                report.frozen.add(pack.size);
                report.frozen_waste += pack.waste;
            }
            !frozen
        });
        let total: u64 = packs.iter().map(|pack| pack.size).sum();
        let mut waste: u64 = packs.iter().map(|pack| pack.waste).sum();
        let allowed = (total as f64 * self.options.max_waste.clamp(0.0, 1.0)) as u64;
        let is_old =
            |pack: &Partly| self.options.reseal == Reseal::All && pack.epoch != shared.keys.epoch();
        let small: Vec<_> = packs.iter().filter(|pack| pack.size < target / SMALL).collect();
        let gather = small.len() > 1 && small.iter().map(|pack| pack.size).sum::<u64>() >= target;
        packs.retain(|pack| self.is_settled(shelf, &pack.id, pack.modified, sessions));
        let share = |pack: &Partly| pack.waste as f64 / pack.size.max(1) as f64;
        packs.sort_by(|a, b| share(b).total_cmp(&share(a)).then(a.id.cmp(&b.id)));

        let (mut bytes, mut chunks) = (0_u64, 0_u64);
        let mut chosen = Vec::new();
        for pack in packs {
            let wanted = waste > allowed && pack.waste > 0
                || gather && pack.size < target / SMALL
                || is_old(&pack);
            if !wanted {
                continue;
            }
            let fits = self.options.max_repack.is_none_or(|most| bytes + pack.size <= most);
            if !fits || chunks + u64::from(pack.chunks) > MOST_CHUNKS {
                report.limited = true;
                continue;
            }
            bytes += pack.size;
            chunks += u64::from(pack.chunks);
            waste -= pack.waste.min(waste);
            chosen.push(pack);
        }
        report.waste = waste;
        chosen
    }

    /// Stores the needed chunks of packs again. The result is the packs that can go now.
    pub(super) async fn repack(
        &self,
        plan: &Plan,
        chosen: &[Partly],
        started: Instant,
        report: &mut PruneReport,
    ) -> Result<Vec<ObjectId>> {
        if chosen.is_empty() || self.options.mode == PruneMode::DryRun {
            chosen.iter().for_each(|pack| report.repacked.add(pack.size));
            return Ok(chosen.iter().map(|pack| pack.id).collect());
        }
        let shared = self.repository.shared();
        let mut needed = plan.chunks_of(chosen.iter().map(|pack| pack.number).collect()).await?;
        let level = Compression::default().level();
        let writer =
            ChunkWriter::begin(Arc::clone(shared), self.context.clone(), level, "a prune").await?;
        let reader = Arc::new(ChunkReader::new(Arc::clone(shared)));
        let mut emptied = Vec::new();
        for pack in chosen {
            self.context.check()?;
            if self.options.max_duration.is_some_and(|most| started.elapsed() > most) {
                report.limited = true;
                break;
            }
            let chunks: HashSet<Prefix> =
                needed.remove(&pack.number).unwrap_or_default().into_iter().collect();
            self.move_chunks(pack, chunks, &reader, &writer).await?;
            report.repacked.add(pack.size);
            emptied.push(pack.id);
        }
        writer.settle().await?;
        report.rewritten = writer.written();
        writer.confirm().await?;
        Ok(emptied)
    }

    async fn move_chunks(
        &self,
        pack: &Partly,
        chunks: HashSet<Prefix>,
        reader: &Arc<ChunkReader>,
        writer: &Arc<ChunkWriter>,
    ) -> Result<()> {
        let name = pack_name(pack.id);
        let record = read_record(self.repository.shared(), pack.id, pack.size).await?;
        let wanted: Vec<_> =
            record.chunks.iter().filter(|chunk| chunks.contains(&prefix(&chunk.id))).collect();
        let found: HashSet<_> = wanted.iter().map(|chunk| prefix(&chunk.id)).collect();
        if found.len() != chunks.len() {
            return Err(Error::damaged(name, "it lacks chunks that the index has in it"));
        }
        stream::iter(wanted.into_iter().copied().collect::<Vec<_>>())
            .map(|chunk| {
                let (reader, writer, name) = (Arc::clone(reader), Arc::clone(writer), name.clone());
                async move {
                    let kind = chunk.kind();
                    let kind = kind.ok_or_else(|| Error::damaged(name, "a chunk's kind"))?;
                    let plain = reader.read(kind, chunk.id).await?;
                    writer.store_again(kind, chunk.id, plain).await
                }
            })
            .buffer_unordered(READS)
            .try_collect()
            .await
    }
}
