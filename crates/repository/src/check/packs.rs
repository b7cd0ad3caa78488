//! Reading every byte of the packs.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use lifeboat_core::Context;

use super::PackState;
use super::report::{CheckReport, Damages};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::index::Pack;
use crate::objects::pack_name;
use crate::pack::{ChunkRecord, HEADER, PackRecord, TRAILER};
use crate::read::open_chunk;
use crate::repository::Shared;

/// How many packs are read at once.
const AT_ONCE: usize = 3;
/// About how many bytes of a pack are in memory.
const PART: u64 = 2 << 20;

/// What reading one pack found.
struct Found {
    bytes: u64,
    what: Option<String>,
    state: Wholeness,
}

enum Wholeness {
    Whole,
    /// These chunks do not open.
    Bad(Vec<ChunkId>),
    /// Something besides its chunks is damaged, so that it cannot say which chunks it has.
    Frayed,
}

pub(super) async fn read_all(
    shared: &Arc<Shared>,
    packs: Vec<Arc<Pack>>,
    state: &mut PackState,
    report: &mut CheckReport,
    damages: &mut Damages,
    context: &Context,
) -> Result<()> {
    context.expect(packs.iter().map(|pack| pack.size).sum());
    let mut found = stream::iter(packs)
        .map(async |pack| (read(shared, &pack).await, pack.id))
        .buffer_unordered(AT_ONCE);
    while let Some((found, id)) = found.next().await {
        context.check()?;
        let found = found?;
        report.bytes += found.bytes;
        context.count_read(found.bytes);
        context.report();
        if let Some(what) = found.what {
            damages.of(&pack_name(id), &what);
        }
        match found.state {
            Wholeness::Whole => {}
            Wholeness::Frayed => {
                state.frayed.insert(id);
            }
            Wholeness::Bad(chunks) => state.bad.extend(chunks.into_iter().map(|chunk| (id, chunk))),
        }
    }
    Ok(())
}

async fn read(shared: &Arc<Shared>, pack: &Arc<Pack>) -> Result<Found> {
    match examine(shared, pack).await {
        Ok(found) => Ok(found),
        Err(Error::Damaged { what, .. }) => {
            Ok(Found { bytes: 0, what: Some(what), state: Wholeness::Frayed })
        }
        Err(error) => Err(error),
    }
}

/// Reads a pack from its first byte to its last, a part at a time.
async fn examine(shared: &Arc<Shared>, pack: &Arc<Pack>) -> Result<Found> {
    let name = pack_name(pack.id);
    let size = pack.size;
    let trailer = shared.objects.range(&name, size.saturating_sub(TRAILER as u64)..size).await?;
    let directory = PackRecord::end(&name, size, &trailer)?;
    let end = shared.objects.range(&name, directory..size).await?;
    let header = shared.objects.range(&name, 0..HEADER as u64).await?;
    let (record, mac) = PackRecord::parse(&name, pack.id, size, &header, &end)?;
    if !record.is_authentic(&shared.keys, mac) {
        return Err(Error::damaged(name, "its directory is not authentic"));
    }

    let mut hasher = blake3::Hasher::new();
    hasher.update(&header);
    let mut bad = Vec::new();
    let mut what = None;
    let places: Vec<_> = record.places().map(|place| (place.offset, *place.chunk)).collect();
    for part in parts(&places) {
        let (first, last) = (part[0].0, part[part.len() - 1]);
        let bytes = shared.objects.range(&name, first..last.0 + u64::from(last.1.stored)).await?;
        let (worker, pack, part) = (Arc::clone(shared), Arc::clone(pack), part.to_vec());
        let check = move || {
            hasher.update(&bytes);
            let found = open_all(&worker, &pack, &part, &bytes);
            (hasher, found)
        };
        let found;
        (hasher, found) = shared.pool.run("check a pack", check).await?;
        for (chunk, reason) in found {
            what.get_or_insert(reason);
            bad.push(chunk);
        }
    }
    hasher.update(&end);
    let state = if !bad.is_empty() {
        Wholeness::Bad(bad)
    } else if hasher.finalize().as_bytes() != pack.id.as_bytes() {
        what = Some("its content does not match its name".to_owned());
        Wholeness::Frayed
    } else {
        Wholeness::Whole
    };
    Ok(Found { bytes: size, what, state })
}

/// Cuts the chunks of a pack into runs of about [`PART`] bytes.
fn parts(places: &[(u64, ChunkRecord)]) -> impl Iterator<Item = &[(u64, ChunkRecord)]> {
    let mut rest = places;
    std::iter::from_fn(move || {
        let start = rest.first()?.0;
        let count = rest.iter().take_while(|(offset, _)| offset - start < PART).count();
        let (part, after) = rest.split_at(count);
        rest = after;
        Some(part)
    })
}

/// Opens chunks that lie one after the other in `bytes`, as a restore would; the result is those
/// that do not open.
fn open_all(
    shared: &Shared,
    pack: &Pack,
    part: &[(u64, ChunkRecord)],
    bytes: &[u8],
) -> Vec<(ChunkId, String)> {
    let name = pack_name(pack.id);
    let first = part.first().map_or(0, |(offset, _)| *offset);
    let mut bad = Vec::new();
    for (offset, chunk) in part {
        let start = (offset - first) as usize;
        let opened = bytes
            .get(start..start + chunk.stored as usize)
            .ok_or_else(|| Error::damaged(&name, "a chunk lies beyond its end"))
            // As a restore does, with the header that the index has.
            .and_then(|sealed| {
                open_chunk(&shared.keys, &name, &pack.header, *offset, chunk, sealed)
            });
        match opened {
            Ok(_) => {}
            Err(Error::Damaged { what, .. }) => bad.push((chunk.id, what)),
            Err(other) => bad.push((chunk.id, other.to_string())),
        }
    }
    bad
}
