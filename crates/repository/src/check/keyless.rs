//! Looking for damage without a key.

use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::{Context, SnapshotId, Timestamp};
use object_store::ObjectStore;

use super::named;
use super::packs::Limits;
use super::plan::{self, Candidate};
use super::report::{CheckOptions, CheckReport, Damages, Depth};
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::journal;
use crate::objects::{INDEX, KEYS, Objects, PACKS, PINS, SNAPSHOTS, id_of, pack_name};
use crate::pack::{HEADER, MAX_PACK};
use crate::sealed::SealedKind;

/// How many packs are read at once.
const AT_ONCE: usize = 3;

/// Looks for damage without a key: that every object's name is the hash of its content. The names
/// of a journal's objects are positions; of these it sees that each is whole by its lengths, and
/// lies where its header says, and nothing of the content.
///
/// It serves hosts that hold no key, and repositories that cannot be opened any more. Which
/// snapshots are hurt it can tell only where the damage hurts all of them.
///
/// A rolling check cannot note its progress, since what is noted is sealed. Instead each pack has a
/// day, by its name: one run on each day of [`Budget::within`](super::Budget::within), or of as many
/// days as the budget of bytes takes for all, reads everything once. A day without a run is made
/// good in the next round.
///
/// # Errors
/// When the store cannot be read, or there is no repository.
pub async fn check_without_key(
    store: Arc<dyn ObjectStore>,
    options: &CheckOptions,
    context: &Context,
) -> Result<CheckReport> {
    let objects = Objects::new(store);
    let mut damages = Damages::default();
    let mut report = CheckReport::default();
    let snapshots: Vec<_> = objects
        .list(SNAPSHOTS)
        .try_filter_map(async |listed| Ok(id_of(&listed.name)))
        .map_ok(|id| SnapshotId::from_bytes(*id.as_bytes()))
        .try_collect()
        .await?;
    report.snapshots = snapshots.len() as u64;

    context.phase("check the configuration, keys, index and snapshots");
    let bytes = objects.read(config::NAME, config::MAX_SIZE).await?;
    report.objects += 1;
    let parsed = match bytes {
        None if snapshots.is_empty() => return Err(Error::NotARepository),
        None => Err(Error::damaged(config::NAME, "it is missing")),
        Some(bytes) => Config::parse(&bytes),
    };
    let mut repository = None;
    match parsed {
        Ok(parsed) => repository = Some(parsed.id),
        Err(Error::Damaged { what, .. }) => {
            damages.of(config::NAME, &what).snapshots.extend(&snapshots);
        }
        Err(error) => return Err(error),
    }
    named::check(&objects, KEYS, 64 << 10, &mut report, &mut damages).await?;
    named::check(&objects, PINS, SealedKind::Pin.limit(), &mut report, &mut damages).await?;
    let limit = SealedKind::Snapshot.limit();
    named::check(&objects, SNAPSHOTS, limit, &mut report, &mut damages).await?;
    for id in &snapshots {
        damages.if_known(&format!("{SNAPSHOTS}/{id}"), |damage| {
            damage.snapshots.insert(*id);
        });
    }
    named::check(&objects, INDEX, SealedKind::Index.limit(), &mut report, &mut damages).await?;
    context.phase("check the names of journals");
    report.journals = journal::check_without_key(&objects, repository, context).await?;
    report.objects += report.journals.segments;
    for (name, what) in &report.journals.damage {
        damages.of(name, what);
    }
    if options.depth.reads_packs() {
        context.phase("check the packs");
        packs(&objects, options.depth, &mut report, &mut damages, context).await?;
    }
    report.damage = damages.finish();
    Ok(report)
}

async fn packs(
    objects: &Objects,
    depth: Depth,
    report: &mut CheckReport,
    damages: &mut Damages,
    context: &Context,
) -> Result<()> {
    let all: Vec<_> = objects
        .list(PACKS)
        .try_filter_map(async |listed| {
            Ok(id_of(&listed.name).map(|id| Candidate { id, size: listed.size }))
        })
        .try_collect()
        .await?;
    report.packs_bytes = plan::total(&all);
    let mut limits = Limits::default();
    let chosen = match depth {
        Depth::Structure | Depth::EveryByte => all,
        Depth::Sample(sample) => {
            let seed = sample.seed.unwrap_or_else(rand::random);
            report.seed = Some(seed);
            plan::draw(all, &sample, seed)
        }
        Depth::Rolling(budget) => {
            limits = Limits::of(budget.bytes, budget.duration);
            plan::of_today(all, &budget, Timestamp::now())
        }
    };
    context.expect(limits.expected(plan::total(&chosen)));
    let began = Instant::now();
    let mut started = 0;
    let within = chosen.into_iter().take_while(|pack| limits.allow(&mut started, pack.size, began));
    let mut read = stream::iter(within)
        .map(async |pack| {
            let name = pack_name(pack.id);
            (scrub(objects, &name, pack).await, name)
        })
        .buffer_unordered(AT_ONCE);
    while let Some((scrubbed, name)) = read.next().await {
        context.check()?;
        match scrubbed {
            Ok(Some(bytes)) => {
                report.packs_read += 1;
                report.bytes += bytes;
                context.count_read(bytes);
            }
            // It was deleted since it was listed.
            Ok(None) => continue,
            Err(Error::Damaged { what, .. }) => {
                damages.of(&name, &what);
            }
            Err(error) => return Err(error),
        }
        report.objects += 1;
        context.report();
    }
    Ok(())
}

/// Reads a pack, a part at a time, and compares its hash with its name.
async fn scrub(objects: &Objects, name: &str, pack: Candidate) -> Result<Option<u64>> {
    const PART: u64 = 4 << 20;
    if !(HEADER as u64..=MAX_PACK).contains(&pack.size) {
        let what = format!("it has {} bytes, which no pack has", pack.size);
        return Err(Error::damaged(name, what));
    }
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < pack.size {
        let end = pack.size.min(at + PART);
        match objects.range(name, at..end).await {
            Ok(bytes) => hasher.update(&bytes),
            Err(Error::Damaged { .. }) if objects.head(name).await?.is_none() => return Ok(None),
            Err(error) => return Err(error),
        };
        at = end;
    }
    if hasher.finalize().as_bytes() != pack.id.as_bytes() {
        return Err(Error::damaged(name, "its content does not match its name"));
    }
    Ok(Some(pack.size))
}
