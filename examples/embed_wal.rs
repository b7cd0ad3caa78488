//! Archives a segment of a PostgreSQL cluster and brings it back, as `archive_command` and
//! `restore_command` do.
//!
//! Runs on the host that has the data directory, as an account that may read it.
//!
//! ```text
//! cargo run --example embed_wal /var/lib/postgresql/18/main 000000010000000000000001
//! ```
//!
//! The repository is made in a temporary directory, and removed.

use std::path::Path;
use std::sync::Arc;

use lifeboat::core::StoreRef;
use lifeboat::core::journal::JournalLog;
use lifeboat::postgres::{GetOptions, Got, PushOptions, WalArchive};
use lifeboat::repository::JournalOptions;
use lifeboat::{
    Context, InitOptions, Intent, Location, Repository, Result, Secret, StoreOptions, open,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = arguments.next().ok_or("say where the data directory is")?;
    let segment = arguments.next().ok_or("say which segment of pg_wal")?;
    let folder = tempfile::tempdir()?;
    let got = run(data.as_ref(), &segment, folder.path()).await?;
    println!("{segment}: {got:?}");
    Ok(())
}

/// Archives a segment of the cluster in `data`, and gives it back into `folder`.
pub(crate) async fn run(data: &Path, segment: &str, folder: &Path) -> Result<Got> {
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
    // Durable when it returns, or an error: only then may the server be told that it is archived.
    let path = Path::new("pg_wal").join(segment);
    archive.push(&path, &PushOptions::new(data), &Context::silent()).await?;

    // `Got::Absent` is proof. An error never means that the file does not exist: whoever answers a
    // recovering server must not take one for the other.
    archive.get(segment, &folder.join("given"), &GetOptions::new(data)).await
}
