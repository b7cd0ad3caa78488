//! A service that backs up a Redis server, and restores it to the file that another starts from.
//!
//! The user needs two rights and no key: `ACL SETUSER backup on >… -@all +psync +replconf`. Its
//! password comes from `REDISCLI_AUTH`.
//!
//! ```text
//! cargo build --example embed_redis
//! REDISCLI_AUTH=… target/debug/examples/embed_redis redis://backup@127.0.0.1:6379
//! ```
//!
//! The repository and the restored file are made in a temporary directory, and removed.

use std::path::Path;

use lifeboat::redis::{ConnectOptions, RdbFileSink, RedisSource, RestoreOptions, facts};
use lifeboat::{
    Context, InitOptions, Intent, Location, Repository, Result, Secret, Selection, Source,
    StoreOptions, TransferOptions, WriteOptions, open, transfer,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://127.0.0.1:6379".to_owned());
    let folder = tempfile::tempdir()?;
    Ok(run(&url, folder.path()).await?)
}

/// All that the example does: the server at `url`, and what is made beneath `folder`.
pub(crate) async fn run(url: &str, folder: &Path) -> Result<()> {
    // A real service makes its repository once, and opens it with `Repository::open` from then on.
    let location = Location::directory(folder.join("repository"))?;
    let place = open(&location, &StoreOptions::new(Intent::Create))?;
    let secret = Secret::passphrase("correct horse battery staple");
    let repository = Repository::init(place, &secret, &InitOptions::default()).await?;
    let (options, context) = (TransferOptions::default(), Context::silent());

    // What stands in the way, and the remedy.
    let server = RedisSource::new("cache", ConnectOptions::parse(url)?.with_environment()?);
    for finding in server.inspect().await?.findings {
        println!("{:?}: {} {}", finding.severity, finding.what, finding.remedy);
    }

    // Back up: from the server into the repository.
    let sink = repository.sink(&WriteOptions::default());
    let summary = transfer(&server, &sink, &options, &context).await?;
    let keys = summary.completion.facts.unsigned(facts::KEYS).unwrap_or(0);
    println!("{keys} keys, as of {}", summary.completion.taken);

    // Restore: from the newest snapshot to a file that is not there yet.
    let newest = repository.find("latest", None).await?;
    let snapshot = repository.snapshot(&newest.id).await?;
    let file = RdbFileSink::new(RestoreOptions::new(folder.join("dump.rdb")));
    let summary = transfer(&snapshot.source(&Selection::all()), &file, &options, &context).await?;
    println!("next: {}", summary.receipt.facts.text("redis.next").unwrap_or_default());
    Ok(())
}
