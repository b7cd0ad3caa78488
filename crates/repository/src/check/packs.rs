//! Reading every byte of the packs.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use lifeboat_core::Context;

use super::health::Health;
use super::ledger::{Ledger, Part};
use super::report::{CheckReport, Damages};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId};
use crate::index::Pack;
use crate::objects::pack_name;
use crate::pack::{HEADER, PackRecord, TRAILER, Unit};
use crate::read::{Sealed, pick};
use crate::repository::Shared;

/// How many packs are read at once.
const AT_ONCE: usize = 3;
/// About how many bytes of a pack are in memory.
const PART: u64 = 2 << 20;

/// How often it is noted which packs were read: so much work a check that is killed loses.
const NOTE_EVERY: Duration = Duration::from_mins(5);

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

/// When no more packs are begun.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    bytes: Option<u64>,
    duration: Option<Duration>,
}

impl Limits {
    pub(super) fn of(bytes: Option<u64>, duration: Option<Duration>) -> Self {
        Self { bytes, duration }
    }

    /// How many bytes are read of so many.
    pub(super) fn expected(&self, total: u64) -> u64 {
        self.bytes.map_or(total, |most| most.min(total))
    }

    /// Whether another pack may be begun, after `started` bytes; the first one always may.
    pub(super) fn allow(&self, started: &mut u64, size: u64, began: Instant) -> bool {
        let first = *started == 0;
        *started += size;
        let fits = self.bytes.is_none_or(|most| *started <= most)
            && self.duration.is_none_or(|most| began.elapsed() < most);
        first || fits
    }
}

/// Reads packs in order. What was sound is noted in the repository now and then, and at the end,
/// whatever it is. Returns why it could not be noted, if it could not.
pub(super) async fn read_all(
    shared: &Arc<Shared>,
    packs: Vec<Arc<Pack>>,
    limits: Limits,
    health: &mut Health,
    report: &mut CheckReport,
    damages: &mut Damages,
    context: &Context,
) -> Result<Option<Error>> {
    context.expect(limits.expected(packs.iter().map(|pack| pack.size).sum()));
    let mut noted = Noted { upto: health.sound.len(), last: Instant::now(), trouble: None };
    let done = read_each(shared, packs, limits, health, report, damages, context, &mut noted).await;
    noted.note(shared, health).await;
    done.map(|()| noted.trouble)
}

/// Up to which of the sound packs it is noted that they are.
struct Noted {
    upto: usize,
    last: Instant,
    /// Why the last try did not succeed.
    trouble: Option<Error>,
}

impl Noted {
    async fn note(&mut self, shared: &Shared, health: &Health) {
        let fresh = &health.sound[self.upto..];
        self.last = Instant::now();
        let (objects, keys) = (&shared.objects, &shared.keys);
        let noted = match shared.features().may_write() {
            Ok(()) => Ledger::append(objects, keys, Part::Verified, fresh, &[]).await,
            Err(error) => Err(error),
        };
        self.trouble = noted.err();
        if self.trouble.is_none() {
            self.upto = health.sound.len();
        }
    }
}

#[allow(clippy::too_many_arguments)]
async fn read_each(
    shared: &Arc<Shared>,
    packs: Vec<Arc<Pack>>,
    limits: Limits,
    health: &mut Health,
    report: &mut CheckReport,
    damages: &mut Damages,
    context: &Context,
    noted: &mut Noted,
) -> Result<()> {
    let (began, mut started) = (Instant::now(), 0);
    let packs = packs.into_iter().take_while(|pack| limits.allow(&mut started, pack.size, began));
    let mut found = stream::iter(packs)
        .map(async |pack| (read(shared, &pack).await, pack.id))
        .buffer_unordered(AT_ONCE);
    while let Some((found, id)) = found.next().await {
        context.check()?;
        let found = found?;
        if found.what.is_some() && is_gone(shared, id).await? {
            continue;
        }
        report.packs_read += 1;
        report.bytes += found.bytes;
        context.count_read(found.bytes);
        context.report();
        if let Some(what) = found.what {
            damages.of(&pack_name(id), &what);
        }
        match found.state {
            Wholeness::Whole => {
                health.frayed.remove(&id);
                health.sound.push(id);
            }
            Wholeness::Frayed => {
                health.frayed.insert(id);
            }
            Wholeness::Bad(chunks) => {
                health.bad.extend(chunks.into_iter().map(|chunk| (id, chunk)));
            }
        }
        if noted.last.elapsed() > NOTE_EVERY {
            noted.note(shared, health).await;
        }
    }
    Ok(())
}

/// Whether a pack was deleted in good order: who deletes takes it out of the index first.
pub(super) async fn is_gone(shared: &Shared, id: ObjectId) -> Result<bool> {
    if shared.objects.head(&pack_name(id)).await?.is_some() {
        return Ok(false);
    }
    shared.refresh_index().await?;
    Ok(!shared.index.packs().contains_key(&id))
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
    let record = Arc::new(record);
    for stretch in stretches(record.units()) {
        let bytes = shared.objects.range(&name, stretch.bytes.clone()).await?;
        let (worker, pack, record) = (Arc::clone(shared), Arc::clone(pack), Arc::clone(&record));
        let check = move || {
            hasher.update(&bytes);
            let found = open_all(&worker, &pack, &record, &stretch, &bytes);
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

/// A stretch of a pack.
struct Stretch {
    /// The bytes of it.
    bytes: Range<u64>,
    /// Which of the pieces that were sealed in it, in order, it begins with, and how many it has.
    units: Range<usize>,
}

/// Cuts a pack into stretches of about [`PART`] bytes, each of whole pieces.
fn stretches<'a>(units: impl Iterator<Item = Unit<'a>>) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (number, unit) in units.enumerate() {
        let end = unit.offset + u64::from(unit.stored);
        match stretches.last_mut() {
            Some(last) if last.bytes.end - last.bytes.start < PART => {
                (last.bytes.end, last.units.end) = (end, number + 1);
            }
            _ => stretches.push(Stretch { bytes: unit.offset..end, units: number..number + 1 }),
        }
    }
    stretches
}

/// Opens what lies in a stretch, as a restore would; the result is the chunks that do not open.
fn open_all(
    shared: &Shared,
    pack: &Pack,
    record: &PackRecord,
    stretch: &Stretch,
    bytes: &[u8],
) -> Vec<(ChunkId, String)> {
    let name = pack_name(pack.id);
    let keys = &shared.keys;
    let mut bad = Vec::new();
    let units = record.units().skip(stretch.units.start).take(stretch.units.len());
    for unit in units {
        let offset = unit.offset;
        let start = (offset - stretch.bytes.start) as usize;
        let opened = bytes
            .get(start..start + unit.stored as usize)
            .ok_or_else(|| Error::damaged(&name, "a chunk lies beyond its end"))
            .and_then(|bytes| {
                // As a restore does, with the header that the index has.
                let sealed = Sealed { pack: &name, header: &pack.header, offset, bytes };
                sealed.open(keys, &unit.chunks[0])
            });
        match opened {
            Ok(opened) => {
                let picked = unit.places().map(|place| {
                    let picked = pick(keys, &name, &place, &opened);
                    picked.map_err(|error| (place.chunk.id, what(error)))
                });
                bad.extend(picked.filter_map(Result::err));
            }
            // What does not open hurts every chunk in it.
            Err(error) => {
                let what = what(error);
                bad.extend(unit.chunks.iter().map(|chunk| (chunk.id, what.clone())));
            }
        }
    }
    bad
}

fn what(error: Error) -> String {
    match error {
        Error::Damaged { what, .. } => what,
        other => other.to_string(),
    }
}
