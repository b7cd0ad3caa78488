//! Carrying out a plan.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::{Context, SnapshotId, StoreRef};
use object_store::PutPayload;

use super::ForgetPlan;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::maintenance::StoreClock;
use crate::objects::{SNAPSHOTS, check_name, id_of, name_in};
use crate::pins::{PinReader, all_known};
use crate::repository::{Repository, Shared};
use crate::sealed::SealedKind;

/// So many are forgotten between two looks at the pins. Their roots are held in memory until then.
const STEP: usize = 16;

/// What became of a plan.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Forgotten {
    /// The snapshots that were forgotten, the oldest first.
    pub removed: Vec<SnapshotId>,
    /// Those that were gone already.
    pub absent: Vec<SnapshotId>,
    /// Those that stay though the plan said otherwise, and why: somebody pinned them meanwhile, or
    /// forgot all others of the store.
    pub spared: Vec<(SnapshotId, String)>,
    /// Those that could not be forgotten, and why. The others were all the same.
    pub failed: Vec<(SnapshotId, Error)>,
}

/// A root that was to be deleted.
struct Root {
    id: SnapshotId,
    store: StoreRef,
    bytes: Bytes,
    /// Why the store did not delete it, if it says so.
    error: Option<Error>,
}

impl Repository {
    /// Carries out a plan: deletes the roots of the snapshots that it removes, the oldest first.
    /// Doing it again does no harm.
    ///
    /// # Errors
    /// When nothing may be deleted at all: the repository asks for more than this program knows,
    /// the clocks are too far apart, or a pin cannot be read; when the context is cancelled; and
    /// when something that was deleted could not be put back though it must stay. That the store
    /// refuses to delete some is no error: it is in the report.
    pub async fn forget(&self, plan: &ForgetPlan, context: &Context) -> Result<Forgotten> {
        let mut report = Forgotten::default();
        let removals = plan.removals();
        if removals.is_empty() {
            return Ok(report);
        }
        let shared = self.shared();
        shared.refresh_features().await?.may_delete()?;
        let clock = StoreClock::ask(&shared.objects).await?;
        clock.agree()?;
        context.phase("forget snapshots");
        let mut pins = PinReader::default();
        let mut held = held(shared, &mut pins, &clock).await?;
        for step in removals.chunks(STEP) {
            context.check()?;
            let (spared, step): (Vec<_>, Vec<_>) =
                step.iter().copied().partition(|info| held.contains(&info.id));
            report.spared.extend(spared.into_iter().map(|info| (info.id, PINNED.to_owned())));
            let mut roots = Vec::new();
            let step: Vec<_> = step.into_iter().map(|info| (info.id, info.store.clone())).collect();
            let deletions = step.into_iter().map(|(id, store)| delete(shared, id, store));
            for (id, root) in stream::iter(deletions).buffered(STEP).collect::<Vec<_>>().await {
                match root {
                    Ok(Some(root)) => roots.push(root),
                    Ok(None) => report.absent.push(id),
                    Err(error) => report.failed.push((id, error)),
                }
            }
            match Seen::look(shared, &mut pins, &clock).await {
                Ok(seen) => {
                    settle(shared, plan, &seen, roots, &mut report).await?;
                    held = seen.held;
                }
                Err(error) => {
                    // Nobody knows what was pinned meanwhile: so all of it stays.
                    for root in &roots {
                        put_back(shared, root).await?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(report)
    }
}

const PINNED: &str = "it was pinned meanwhile";
const LAST: &str = "it is the last one of its store, since the others were forgotten meanwhile";

/// The snapshots that live pins hold.
async fn held(
    shared: &Shared,
    pins: &mut PinReader,
    clock: &StoreClock,
) -> Result<HashSet<SnapshotId>> {
    let list = pins.read(&shared.objects, &shared.keys).await?;
    let now = clock.now();
    all_known(&list.damaged)?;
    let live = list.pins.iter().filter(|pin| pin.is_live(now));
    Ok(live.map(|pin| pin.snapshot).collect())
}

/// Deletes one root, and keeps its bytes. `None` when it is gone already.
async fn delete(
    shared: &Shared,
    id: SnapshotId,
    store: StoreRef,
) -> (SnapshotId, Result<Option<Root>>) {
    let name = name_of(&id);
    let bytes = match shared.objects.read(&name, SealedKind::Snapshot.limit()).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return (id, Ok(None)),
        Err(error) => return (id, Err(error)),
    };
    // What was changed on its way could not be put back.
    if let Err(error) = check_name(&name, &bytes) {
        return (id, Err(error));
    }
    let error = shared.objects.delete(&name).await.err();
    (id, Ok(Some(Root { id, store, bytes, error })))
}

async fn put_back(shared: &Shared, root: &Root) -> Result<()> {
    let payload = PutPayload::from(root.bytes.clone());
    shared.objects.create(&name_of(&root.id), payload).await
}

fn name_of(id: &SnapshotId) -> String {
    name_in(SNAPSHOTS, ObjectId::from_bytes(*id.as_bytes()))
}

/// What is there after a step.
struct Seen {
    held: HashSet<SnapshotId>,
    there: BTreeSet<SnapshotId>,
}

impl Seen {
    async fn look(shared: &Shared, pins: &mut PinReader, clock: &StoreClock) -> Result<Self> {
        let held = held(shared, pins, clock).await?;
        let listed = shared.objects.list(SNAPSHOTS);
        let ids = listed.try_filter_map(async |listed| Ok(id_of(&listed.name)));
        let ids = ids.map_ok(|id| SnapshotId::from_bytes(*id.as_bytes()));
        Ok(Self { held, there: ids.try_collect().await? })
    }
}

/// Puts back what must stay because of what others did meanwhile, and reports on the rest.
async fn settle(
    shared: &Shared,
    plan: &ForgetPlan,
    seen: &Seen,
    roots: Vec<Root>,
    report: &mut Forgotten,
) -> Result<()> {
    let mut saved = HashSet::new();
    let mut removed = Vec::new();
    // The newest first: of a store that was left with nothing it is the one to keep.
    for root in roots.into_iter().rev() {
        let id = root.id;
        if seen.there.contains(&id) {
            let silent = || Error::damaged(name_of(&id), "the store deleted it, and still has it");
            report.failed.push((id, root.error.unwrap_or_else(silent)));
            continue;
        }
        let store = &root.store;
        let is_last = !saved.contains(store)
            && plan.staying.get(store).is_some_and(|staying| staying.is_disjoint(&seen.there));
        let why = match (seen.held.contains(&id), is_last) {
            (true, _) => PINNED,
            (false, true) => LAST,
            (false, false) => {
                removed.push(id);
                continue;
            }
        };
        put_back(shared, &root).await?;
        saved.insert(store.clone());
        report.spared.push((id, why.to_owned()));
    }
    report.removed.extend(removed.into_iter().rev());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lifeboat_core::{Completion, Header, Sink, StoreRef};
    use object_store::memory::InMemory;

    use super::*;
    use crate::config::Features;
    use crate::forget::ForgetOptions;
    use crate::{InitOptions, KdfCost, Secret, WriteOptions};

    #[tokio::test]
    async fn who_does_not_know_what_deleting_takes_deletes_nothing() {
        let secret = Secret::passphrase("x");
        let cost = KdfCost { memory_kib: 64, passes: 1, lanes: 1 };
        let options = InitOptions { cost, ..InitOptions::default() };
        let place = Arc::new(InMemory::new());
        let repository = Repository::init(place, &secret, &options).await.unwrap();
        let (context, store) = (Context::silent(), StoreRef::new("memory", "a"));
        let sink = repository.sink(&WriteOptions::default());
        let writing = sink.write(&Header::new(store.clone()), &context).await.unwrap();
        let writing: Arc<dyn lifeboat_core::Writing> = Arc::from(writing);
        let taken = lifeboat_core::Timestamp::now();
        let receipt = writing.commit(Completion::at(taken)).await.unwrap();
        let id = receipt.snapshot.unwrap();
        let pin = repository.pin(&id, &crate::PinOptions::new("hold")).await.unwrap();

        let more = Features { delete: vec!["levitation".into()], ..Features::default() };
        let other = repository.clone();
        other.shared().demand(&more).await.unwrap();
        let options = ForgetOptions { may_lose_all: vec![store], ..ForgetOptions::default() };
        let list = repository.roots().await.unwrap();
        let plan = ForgetPlan::of_snapshots(&list, &[id], &options, taken).unwrap();
        let unknown = |error: &Error| matches!(error, Error::UnknownFeature { .. });
        assert!(unknown(&repository.forget(&plan, &context).await.unwrap_err()));
        assert!(unknown(&repository.unpin(&pin.id).await.unwrap_err()));
        assert_eq!(repository.snapshots().await.unwrap().snapshots[0].pins, [pin]);
    }
}
