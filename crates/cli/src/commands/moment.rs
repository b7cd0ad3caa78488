//! The plan of a recovery of a Redis server to a moment.

use std::sync::Arc;

use lifeboat_core::{SnapshotInfo, StoreRef};
use lifeboat_postgres::RecoveryTarget;
use lifeboat_redis::{BaseSnapshot, Moment, RecoveryPlan, StreamJournal};
use lifeboat_repository::{JournalOptions, SnapshotList};
use serde::Serialize;

use super::which::{LATEST, choose};
use crate::args::{Recovery, Target, Which};
use crate::failure::Failed;
use crate::output::{moment_at, size, time};
use crate::session::{Opened, Session};

/// A recovery that can be done, and the snapshot from which it begins.
pub(super) struct PlannedMoment {
    pub(super) base: SnapshotInfo,
    pub(super) plan: RecoveryPlan,
    pub(super) journal: StreamJournal,
}

/// The event `plan`.
#[derive(Serialize)]
struct Plan<'a> {
    snapshot: String,
    store: String,
    target: String,
    replication_id: &'a str,
    base_offset: String,
    to: String,
    to_time: String,
    left: Option<String>,
}

/// Plans what the command line asks for.
pub(super) async fn planned(
    which: &Which,
    recovery: &Recovery,
    store: &StoreRef,
    list: &SnapshotList,
    opened: &Opened,
    session: &Session,
) -> Result<PlannedMoment, Failed> {
    let word = recovery.word_for_clusters();
    planned_to(which, &recovery.target, word, store, list, opened, session).await
}

/// As [`planned`], for the target alone; `word` is one that was said and is for clusters.
pub(super) async fn planned_to(
    which: &Which,
    target: &Target,
    word: Option<&str>,
    store: &StoreRef,
    list: &SnapshotList,
    opened: &Opened,
    session: &Session,
) -> Result<PlannedMoment, Failed> {
    if let Some(word) = word {
        let message = format!("{word} is for PostgreSQL, and {store} is not");
        return Err(Failed::usage(message, "for Redis there are --to-time and --to-latest"));
    }
    let moment = match target.get() {
        Some(RecoveryTarget::Time(at)) => Moment::Time(at),
        _ => Moment::Latest,
    };
    let mut bases = bases(list, store);
    if which.snapshot != LATEST {
        let named = choose(&which.snapshot, which.store.as_ref(), list, opened, session)?;
        bases.retain(|base| base.snapshot == named.id);
        if bases.is_empty() {
            let id = named.id.short();
            let message = format!("snapshot {id} does not say where in the journal it is");
            return Err(Failed::usage(message, "name another one, or `latest`"));
        }
    }
    let journal = journal(opened, store)?;
    let making = Box::pin(RecoveryPlan::make(&journal, &bases, moment));
    let plan = session.unless_cancelled(making).await?.map_err(|error| opened.of_store(error))?;
    let base = list.snapshots.iter().find(|info| info.id == plan.base.snapshot).cloned();
    let Some(base) = base else {
        return Err(Failed::usage("the snapshot of the plan is gone", "try again"));
    };
    session.output.event(
        "plan",
        &Plan {
            snapshot: base.id.to_string(),
            store: store.to_string(),
            target: moment.to_string(),
            replication_id: &plan.replication_id,
            base_offset: plan.base.offset.to_string(),
            to: plan.to.to_string(),
            to_time: plan.to_time.to_string(),
            left: plan.left.map(|at| at.to_string()),
        },
    );
    session.output.say(&format!(
        "recover {store} to {}: from snapshot {} as of {}, with {} of changes up to {}",
        moment_at(plan.to_time),
        base.id.short(),
        time(base.taken),
        size(plan.changes()),
        plan.to
    ));
    if let Some(at) = plan.left {
        session.output.note(&format!(
            "this history does not go on from an earlier one of {store}, which ended at {}: \
             --to-time {at} restores that one",
            time(at)
        ));
    }
    Ok(PlannedMoment { base, plan, journal })
}

/// The snapshots of a server from which a recovery can begin.
pub(super) fn bases(list: &SnapshotList, store: &StoreRef) -> Vec<BaseSnapshot> {
    let of_store = list.snapshots.iter().filter(|info| info.store == *store);
    of_store.filter_map(BaseSnapshot::of).collect()
}

/// The journal of a server.
pub(super) fn journal(opened: &Opened, store: &StoreRef) -> Result<StreamJournal, Failed> {
    let options = JournalOptions::default();
    let journal = |name: &_| Arc::new(opened.repository.journal(name, &options)) as Arc<_>;
    Ok(StreamJournal::open(store, journal)?)
}
