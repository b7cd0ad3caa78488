//! Finding damage, and telling whom it hurts.
//!
//! A check goes through four things: keys and snapshot roots, index objects, packs, and the
//! trees of all snapshots. Every object's name is the hash of its content, so damage is found
//! without a key; with the key, every chunk is opened as a restore would open it. What is found is
//! told as objects, and of each the snapshots and entries that cannot be restored because of it.
//!
//! What no index knows is no damage: an interrupted backup leaves it behind.

mod packs;
mod report;
mod walk;

pub use report::{CheckOptions, CheckReport, Damage, Depth};

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::TryStreamExt;
use lifeboat_core::{Context, SnapshotId};
use object_store::ObjectStore;

use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId};
use crate::journal;
use crate::objects::{INDEX, KEYS, Listed, Objects, PACKS, PINS, SNAPSHOTS, id_of, pack_name};
use crate::pack::MAX_PACK;
use crate::repository::Repository;
use crate::sealed::SealedKind;
use report::Damages;

/// What is known of the packs: those that are not whole, and the chunks that do not open.
#[derive(Default)]
pub(crate) struct PackState {
    /// Packs that are missing: nothing in them counts.
    lost: HashSet<ObjectId>,
    /// Chunks that do not open where they are.
    bad: HashSet<(ObjectId, ChunkId)>,
    /// Packs that are damaged outside of their chunks, or cut off: each chunk that is needed from
    /// them has to be tried.
    frayed: HashSet<ObjectId>,
}

impl Repository {
    /// Looks for damage.
    ///
    /// # Errors
    /// When the store cannot be read or the context is cancelled. Damage is no error: it is in
    /// the report.
    pub async fn check(&self, options: &CheckOptions, context: &Context) -> Result<CheckReport> {
        let shared = self.shared();
        let mut damages = Damages::default();
        let mut report = CheckReport::default();

        context.phase("check keys and snapshots");
        check_named(&shared.objects, KEYS, 64 << 10, &mut report, &mut damages).await?;
        let limit = SealedKind::Pin.limit();
        check_named(&shared.objects, PINS, limit, &mut report, &mut damages).await?;
        let listed = self.roots().await?;
        for (name, what) in &listed.damaged {
            let damage = damages.of(name, what);
            damage.snapshots.extend(id_of(name).map(|id| SnapshotId::from_bytes(*id.as_bytes())));
        }
        report.snapshots = (listed.snapshots.len() + listed.damaged.len()) as u64;
        report.objects += report.snapshots + 1;

        context.phase("check the index");
        check_named(&shared.objects, INDEX, SealedKind::Index.limit(), &mut report, &mut damages)
            .await?;
        shared.refresh_index().await?;
        for (name, what) in shared.index.damaged() {
            damages.of(&name, &what);
        }

        context.phase("check the packs");
        let state = self.check_packs(options.depth, &mut report, &mut damages, context).await?;

        context.phase("check the journals");
        report.journals = journal::check(self, options.depth, context).await?;
        report.objects += report.journals.segments;
        report.bytes += report.journals.bytes;
        for (name, what) in &report.journals.damage {
            damages.of(name, what);
        }

        context.phase("check the snapshots' trees");
        walk::Walk::new(self, &state, &mut damages, context).all(&listed.snapshots).await?;
        report.damage = damages.finish();
        Ok(report)
    }

    async fn check_packs(
        &self,
        depth: Depth,
        report: &mut CheckReport,
        damages: &mut Damages,
        context: &Context,
    ) -> Result<PackState> {
        let shared = self.shared();
        let stored: Vec<Listed> = shared.objects.list(PACKS).try_collect().await?;
        let sizes: HashMap<_, _> = stored
            .iter()
            .filter_map(|listed| id_of(&listed.name).map(|id| (id, listed.size)))
            .collect();
        let known = shared.index.packs();
        let mut state = PackState::default();
        for pack in known.values() {
            let name = pack_name(pack.id);
            match sizes.get(&pack.id) {
                None => {
                    damages.of(&name, "it is missing");
                    state.lost.insert(pack.id);
                }
                Some(found) if *found != pack.size => {
                    let what = format!("it has {found} bytes instead of {}", pack.size);
                    damages.of(&name, &what);
                    state.frayed.insert(pack.id);
                }
                Some(_) => {}
            }
        }
        report.objects += known.len() as u64;
        report.unreferenced = sizes.keys().filter(|id| !known.contains_key(id)).count() as u64;
        if depth == Depth::EveryByte {
            let whole = known
                .into_values()
                .filter(|pack| !state.lost.contains(&pack.id) && !state.frayed.contains(&pack.id))
                .collect();
            packs::read_all(shared, whole, &mut state, report, damages, context).await?;
        }
        Ok(state)
    }
}

/// Checks that the names of an area's objects are the hashes of their content.
async fn check_named(
    objects: &Objects,
    area: &str,
    limit: u64,
    report: &mut CheckReport,
    damages: &mut Damages,
) -> Result<()> {
    let names: Vec<_> = objects.list(area).map_ok(|listed| listed.name).try_collect().await?;
    for name in names.into_iter().filter(|name| id_of(name).is_some()) {
        report.objects += 1;
        match objects.read_named(&name, limit).await {
            Ok(bytes) => report.bytes += bytes.len() as u64,
            Err(Error::Damaged { what, .. }) => {
                damages.of(&name, &what);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Looks for damage without a key: that every object's name is the hash of its content.
///
/// It serves hosts that hold no key, and repositories that cannot be opened any more. Which
/// snapshots are hurt it can tell only where the damage hurts all of them.
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
    match parsed {
        Ok(_) => {}
        Err(Error::Damaged { what, .. }) => {
            damages.of(config::NAME, &what).snapshots.extend(&snapshots);
        }
        Err(error) => return Err(error),
    }
    check_named(&objects, KEYS, 64 << 10, &mut report, &mut damages).await?;
    check_named(&objects, PINS, SealedKind::Pin.limit(), &mut report, &mut damages).await?;
    check_named(&objects, SNAPSHOTS, SealedKind::Snapshot.limit(), &mut report, &mut damages)
        .await?;
    for id in &snapshots {
        damages.if_known(&format!("{SNAPSHOTS}/{id}"), |damage| {
            damage.snapshots.insert(*id);
        });
    }
    check_named(&objects, INDEX, SealedKind::Index.limit(), &mut report, &mut damages).await?;
    if options.depth == Depth::EveryByte {
        context.phase("check the packs");
        check_named(&objects, PACKS, MAX_PACK, &mut report, &mut damages).await?;
    }
    report.damage = damages.finish();
    Ok(report)
}
