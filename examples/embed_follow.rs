//! A service that keeps the WAL of a PostgreSQL server, about a second behind it.
//!
//! Runs on any host that reaches the server. The role needs `REPLICATION`, and `pg_hba.conf` a line
//! of type `replication` for it. What stands in the way, the error says.
//!
//! ```text
//! cargo run --example embed_follow "host=db.example user=backup"
//! ```
//!
//! The repository is made in a temporary directory, and removed. The server keeps the replication
//! slot `lifeboat_example`; drop it afterwards: `SELECT pg_drop_replication_slot('lifeboat_example')`.

use std::path::Path;
use std::sync::Arc;

use lifeboat::core::StoreRef;
use lifeboat::core::journal::JournalLog;
use lifeboat::postgres::{ConnectOptions, Following, Receiver, ReceiverOptions, WalArchive};
use lifeboat::repository::JournalOptions;
use lifeboat::{
    Context, InitOptions, Intent, Location, Repository, Result, Secret, StoreOptions, open,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let conninfo = std::env::args().nth(1).ok_or("say how to connect, as for psql")?;
    let folder = tempfile::tempdir()?;
    let context = Context::silent();
    let stop = context.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    let told = |what: &Following| println!("{what:?}");
    Ok(run(&conninfo, folder.path(), &told, &context).await?)
}

/// Follows the server behind `conninfo` until the context is cancelled.
pub(crate) async fn run(
    conninfo: &str,
    folder: &Path,
    told: &(dyn Fn(&Following) + Send + Sync),
    context: &Context,
) -> Result<()> {
    // A real service makes its repository once, and opens it with `Repository::open` from then on.
    let location = Location::directory(folder.join("repository"))?;
    let place = open(&location, &StoreOptions::new(Intent::Create))?;
    let secret = Secret::passphrase("correct horse battery staple");
    let repository = Repository::init(place, &secret, &InitOptions::default()).await?;

    // The archive has the name of the cluster's snapshots: WAL leads on from one of them.
    let store = StoreRef::new("postgres", "main");
    let archive = WalArchive::open(&store, |name| -> Arc<dyn JournalLog> {
        Arc::new(repository.journal(name, &JournalOptions::default()))
    })?;
    let connection = ConnectOptions::parse(conninfo)?.with_environment()?;
    let options = ReceiverOptions::new(connection, "lifeboat_example".parse()?);
    // Lost connections are tried again for ever; what is returned, trying again cannot help.
    Receiver::new(archive, options).run(told, context).await
}
