//! A cluster of the repository on a scratch server.

use std::time::{Duration, Instant};

use lifeboat_core::{Error, ErrorKind, SnapshotInfo, Source, TransferOptions, transfer};
use lifeboat_postgres::{
    RecoverySettings, RecoverySource, Scratch, ScratchOptions, ScratchServer, WalSupply,
};
use lifeboat_repository::{Selection, ThawNeed};

use super::recovery::Planned;
use super::thaw;
use super::two::Found;
use crate::args::{ScratchPlace, Thawing};
use crate::failure::Failed;
use crate::output::{size, time};
use crate::session::Session;

/// A scratch server that has recovered.
pub(super) struct Raised {
    pub(super) server: ScratchServer,
    /// How much was restored.
    pub(super) bytes: u64,
    /// How long the restore took, without the recovery.
    pub(super) restored: Duration,
}

/// Restores a snapshot, and the WAL of a plan, into a scratch server, and waits until it has
/// recovered.
pub(super) async fn raise(
    place: &ScratchPlace,
    found: &Found,
    plan: Option<&Planned>,
    thawing: &Thawing,
    session: &Session,
) -> Result<Raised, Failed> {
    let info = found.snapshot.info();
    let scratch = prepare(place, info, plan).await?;
    let need = ThawNeed::Content(vec![(info.id, Selection::all())]);
    thaw::see(&found.opened, &need, thawing, session).await?;
    let begun = Instant::now();
    let (id, store, taken) = (info.id.short(), &info.store, time(info.taken));
    let told = format!("restore snapshot {id} of {store}, as of {taken}, into a scratch server");
    session.output.begin(&told);
    session.context.phase("restore");
    let settings = plan.map(|plan| RecoverySettings::of(&plan.plan, &WalSupply::Fetched));
    let sink = scratch.sink(&info.facts, settings);
    let source = found.snapshot.source(&Selection::all());
    let with_wal;
    let source: &dyn Source = match plan {
        Some(plan) => {
            with_wal = RecoverySource::new(&source, plan.archive.clone(), &plan.plan)?;
            &with_wal
        }
        None => &source,
    };
    let options = TransferOptions::default();
    let moving = Box::pin(transfer(source, &sink, &options, &session.context));
    let moved = moving.await.map_err(|error| found.opened.of_store(error))?;
    let restored = begun.elapsed();
    session.context.phase("recover");
    let starting = Box::pin(scratch.start(&session.context));
    let server = session.unless_cancelled(starting).await??;
    Ok(Raised { server, bytes: moved.progress.read, restored })
}

/// Makes the place, when there is room for what comes.
async fn prepare(
    place: &ScratchPlace,
    info: &SnapshotInfo,
    plan: Option<&Planned>,
) -> Result<Scratch, Failed> {
    let beneath = place.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let mut options = ScratchOptions::new(&beneath);
    options.programs.clone_from(&place.programs);
    options.user.clone_from(&place.superuser);
    options.account.clone_from(&place.account);
    options.patience = place.recovery_limit;
    let scratch = Scratch::prepare(&info.facts, &options).await?;
    let wal = plan.map_or(0, |plan| plan.plan.to.0.saturating_sub(plan.plan.base.start.0));
    let need = info.bytes.saturating_add(wal);
    if let Some(room) = scratch.room().filter(|room| *room < need) {
        let message = format!(
            "restore snapshot {} into {}: it needs {}, and there is room for {}",
            info.id.short(),
            beneath.display(),
            size(need),
            size(room)
        );
        let hint = "name a directory with more room with --scratch";
        return Err(Error::new(ErrorKind::Exhausted, message).with_hint(hint).into());
    }
    Ok(scratch)
}
