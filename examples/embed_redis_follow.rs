//! A service that keeps every change of a Redis server, about a second behind it; and the way back
//! to the last moment that it has.
//!
//! The user needs the rights of a backup and no more: `ACL SETUSER backup on >… -@all +psync
//! +replconf`. Its password comes from `REDISCLI_AUTH`.
//!
//! ```text
//! cargo run --example embed_redis_follow redis://backup@127.0.0.1:6379
//! ```
//!
//! It follows until Ctrl-C, and then writes append-only files from which a server starts. The
//! repository and the files are made in a temporary directory, and removed.

use std::path::Path;
use std::sync::Arc;

use lifeboat::core::StoreRef;
use lifeboat::redis::{
    AppendOnlyOptions, AppendOnlySink, BaseSnapshot, ConnectOptions, FollowOptions, Follower,
    Following, Moment, RecoveryPlan, RecoverySource, StreamJournal,
};
use lifeboat::repository::JournalOptions;
use lifeboat::{
    Context, InitOptions, Intent, Location, Repository, Result, Secret, Selection, StoreOptions,
    TransferOptions, WriteOptions, open, transfer,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://127.0.0.1:6379".to_owned());
    let folder = tempfile::tempdir()?;
    let context = Context::silent();
    let stop = context.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    let told = |what: &Following| println!("{what:?}");
    Ok(run(&url, folder.path(), &told, &context).await?)
}

/// Follows the server at `url` until the context is cancelled, and then writes the last moment to
/// `data` beneath `folder`.
pub(crate) async fn run(
    url: &str,
    folder: &Path,
    told: &(dyn Fn(&Following) + Send + Sync),
    context: &Context,
) -> Result<()> {
    // A real service makes its repository once, and opens it with `Repository::open` from then on.
    let location = Location::directory(folder.join("repository"))?;
    let place = open(&location, &StoreOptions::new(Intent::Create))?;
    let secret = Secret::passphrase("correct horse battery staple");
    let repository = Repository::init(place, &secret, &InitOptions::default()).await?;

    // Journal and snapshots have one name: the journal leads on from one of them.
    let store = StoreRef::new("redis", "cache");
    let journal = StreamJournal::open(&store, |name| {
        Arc::new(repository.journal(name, &JournalOptions::default()))
    })?;
    let connection = ConnectOptions::parse(url)?.with_environment()?;
    let options = FollowOptions::new(connection).with_bases(bases(&repository).await?);
    let sink = Arc::new(repository.sink(&WriteOptions::default()));
    // Lost connections are tried again for ever; what is returned, trying again cannot help.
    Follower::new(journal.clone(), sink, options).run(told, context).await?;

    // What can be restored is known before anything is written.
    let plan = RecoveryPlan::make(&journal, &bases(&repository).await?, Moment::Latest).await?;
    let snapshot = repository.snapshot(&plan.base.snapshot).await?;
    let snapshot = snapshot.source(&Selection::all());
    let source = RecoverySource::new(&snapshot, journal, &plan);
    let files = AppendOnlySink::new(AppendOnlyOptions::new(folder.join("data"), plan.base.form));
    let context = Context::silent();
    let summary = transfer(&source, &files, &TransferOptions::default(), &context).await?;
    println!("up to {}: {}", plan.to_time, summary.receipt.facts.text("redis.next").unwrap_or(""));
    Ok(())
}

/// The snapshots that say where in the server's history they are.
async fn bases(repository: &Repository) -> Result<Vec<BaseSnapshot>> {
    let list = repository.snapshots().await?;
    Ok(list.snapshots.iter().filter_map(BaseSnapshot::of).collect())
}
