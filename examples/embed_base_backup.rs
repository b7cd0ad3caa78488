//! A service that backs up a PostgreSQL cluster whose disk it does not see.
//!
//! The server sends its files over the replication protocol. The role needs `REPLICATION`, and
//! `pg_hba.conf` a line of the type `replication` for it. The server may be a standby.
//!
//! ```text
//! cargo run --example embed_base_backup "host=db1 user=backup"
//! ```
//!
//! The repository is made in a temporary directory, and removed.

use std::path::Path;

use lifeboat::postgres::{BaseBackupOptions, BaseBackupSource, ConnectOptions};
use lifeboat::{
    Context, InitOptions, Intent, Location, Repository, Result, Secret, Source, StoreOptions,
    Summary, TransferOptions, WriteOptions, open, transfer,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let conninfo = std::env::args().nth(1).ok_or("say how to connect, as for psql")?;
    let folder = tempfile::tempdir()?;
    run(&conninfo, folder.path()).await?;
    Ok(())
}

/// All that the example does: the server behind `conninfo`, and what is made beneath `folder`.
pub(crate) async fn run(conninfo: &str, folder: &Path) -> Result<Summary> {
    // A real service makes its repository once, and opens it with `Repository::open` from then on.
    let location = Location::directory(folder.join("repository"))?;
    let place = open(&location, &StoreOptions::new(Intent::Create))?;
    let secret = Secret::passphrase("correct horse battery staple");
    let repository = Repository::init(place, &secret, &InitOptions::default()).await?;

    let connection = ConnectOptions::parse(conninfo)?.with_environment()?;
    // The same name as for a backup beside the server makes one history of both.
    let source = BaseBackupSource::new("main", BaseBackupOptions::new(connection));
    for finding in source.inspect().await?.findings {
        println!("{}: {}", finding.what, finding.remedy);
    }

    let sink = repository.sink(&WriteOptions::default());
    let options = TransferOptions::default();
    let summary = transfer(&source, &sink, &options, &Context::silent()).await?;
    let (position, read) = (&summary.completion.position, summary.progress.read);
    println!("a snapshot up to {position}; {read} bytes were sent");
    Ok(summary)
}
