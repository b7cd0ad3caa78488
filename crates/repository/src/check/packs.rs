//! Reading every byte of the packs.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use lifeboat_core::Context;

use super::PackState;
use super::report::{CheckReport, Damages};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId};
use crate::index::Pack;
use crate::objects::pack_name;
use crate::pack::{MAX_PACK, PackRecord};
use crate::read::open_chunk;
use crate::repository::Shared;

/// How many packs are in memory at once.
const AT_ONCE: usize = 3;

/// What reading one pack found.
struct Found {
    bytes: u64,
    what: Option<String>,
    state: Wholeness,
}

enum Wholeness {
    Whole,
    /// It is not there.
    Lost,
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
            Wholeness::Lost => {
                state.lost.insert(id);
            }
            Wholeness::Frayed => {
                state.frayed.insert(id);
            }
            Wholeness::Bad(chunks) => state
                .bad
                .extend(chunks.into_iter().map(|chunk| (id, chunk))),
        }
    }
    Ok(())
}

async fn read(shared: &Arc<Shared>, pack: &Arc<Pack>) -> Result<Found> {
    let name = pack_name(pack.id);
    let lost = |what: String| Found {
        bytes: 0,
        what: Some(what),
        state: Wholeness::Lost,
    };
    let bytes = match shared.objects.read(&name, MAX_PACK.min(pack.size)).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(lost("it is missing".into())),
        Err(Error::Damaged { what, .. }) => {
            return Ok(Found {
                bytes: 0,
                what: Some(what),
                state: Wholeness::Frayed,
            });
        }
        Err(error) => return Err(error),
    };
    let (worker, pack) = (Arc::clone(shared), Arc::clone(pack));
    let check = move || {
        let (what, state) = examine(&worker, &pack, &name, &bytes);
        Found {
            bytes: bytes.len() as u64,
            what,
            state,
        }
    };
    shared.pool.run("check a pack", check).await
}

fn examine(shared: &Shared, pack: &Pack, name: &str, bytes: &[u8]) -> (Option<String>, Wholeness) {
    let record = match PackRecord::parse(name, pack.id, bytes) {
        Ok((record, mac)) if record.is_authentic(&shared.keys, mac) => record,
        Ok(_) => {
            return (
                Some("its directory is not authentic".into()),
                Wholeness::Frayed,
            );
        }
        Err(error) => return (Some(reason(error)), Wholeness::Frayed),
    };
    let mut what = None;
    let mut bad = Vec::new();
    for (offset, chunk) in record.places() {
        let start = offset as usize;
        let opened = bytes
            .get(start..start + chunk.stored as usize)
            .ok_or_else(|| Error::damaged(name, "a chunk lies beyond its end"))
            // As a restore does, with the header that the index has.
            .and_then(|sealed| open_chunk(&shared.keys, name, &pack.header, offset, chunk, sealed));
        if let Err(error) = opened {
            what.get_or_insert(reason(error));
            bad.push(chunk.id);
        }
    }
    if !bad.is_empty() {
        (what, Wholeness::Bad(bad))
    } else if ObjectId::of(bytes) != pack.id {
        (
            Some("its content does not match its name".into()),
            Wholeness::Frayed,
        )
    } else {
        (None, Wholeness::Whole)
    }
}

fn reason(error: Error) -> String {
    match error {
        Error::Damaged { what, .. } => what,
        other => other.to_string(),
    }
}
