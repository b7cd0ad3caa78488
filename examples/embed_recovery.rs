//! Plans a point-in-time recovery of a PostgreSQL cluster, and restores it with the WAL that it
//! needs.
//!
//! ```text
//! LIFEBOAT_PASSPHRASE=… cargo run --example embed_recovery /srv/backups shop 2026-11-22T02:59:00Z /srv/copy
//! ```
//!
//! The repository is one that `lifeboat backup postgres` and `lifeboat wal push` or `lifeboat follow
//! postgres` wrote.

use std::path::Path;
use std::sync::Arc;

use lifeboat::core::journal::JournalLog;
use lifeboat::core::{StoreRef, Timestamp};
use lifeboat::postgres::{
    Archiving, BaseBackup, ClusterSink, RecoveryOptions, RecoveryPlan, RecoverySettings,
    RecoverySource, RecoveryTarget, RestoreOptions, WalArchive, WalSupply,
};
use lifeboat::repository::JournalOptions;
use lifeboat::{
    Context, Intent, Location, Repository, Result, Secret, Selection, StoreOptions,
    TransferOptions, open, transfer,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().ok_or("say where the repository is")?;
    let name = arguments.next().ok_or("say the name of the cluster")?;
    let moment: Timestamp = arguments.next().ok_or("say the moment")?.parse()?;
    let target = arguments.next().ok_or("say where to restore to")?;
    let secret = Secret::passphrase(std::env::var("LIFEBOAT_PASSPHRASE")?);
    let next = run(&place.parse()?, &secret, &name, moment, target.as_ref()).await?;
    println!("{next}");
    Ok(())
}

/// Restores the cluster as it was at a moment; says what to do next.
pub(crate) async fn run(
    location: &Location,
    secret: &Secret,
    name: &str,
    moment: Timestamp,
    target: &Path,
) -> Result<String> {
    let place = open(location, &StoreOptions::new(Intent::Existing))?;
    let repository = Repository::open(place, secret).await?;
    let store = StoreRef::new("postgres", name);
    let archive = WalArchive::open(&store, |name| -> Arc<dyn JournalLog> {
        Arc::new(repository.journal(name, &JournalOptions::default()))
    })?;

    // Nothing is touched before it is known that the server will find its target.
    let snapshots = repository.snapshots().await?.snapshots;
    let of_store = snapshots.iter().filter(|info| info.store == store);
    let bases: Vec<_> = of_store.filter_map(BaseBackup::of).collect();
    let options = RecoveryOptions::new(RecoveryTarget::Time(moment));
    let plan = RecoveryPlan::make(&archive, &bases, &options).await?;
    for note in &plan.notes {
        eprintln!("note: {note}");
    }

    let snapshot = repository.snapshot(&plan.base.snapshot).await?;
    let facts = snapshot.info().facts.clone();
    let source = snapshot.source(&Selection::all());
    let source = RecoverySource::new(&source, archive, &plan)?;
    let options = RestoreOptions::new(target)
        .with_facts(facts)
        .with_recovery(RecoverySettings::of(&plan, &WalSupply::Fetched))
        // A copy beside the original must not write into its archive.
        .with_archiving(Archiving::Off);
    let (sink, context) = (ClusterSink::new(options), Context::silent());
    let done = transfer(&source, &sink, &TransferOptions::default(), &context).await?;
    Ok(done.receipt.facts.text("postgres.next").unwrap_or_default().to_owned())
}
