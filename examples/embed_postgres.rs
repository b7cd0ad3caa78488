//! A service that backs up the PostgreSQL cluster of its host, twice, and restores it beside it.
//!
//! Runs on the host that has the data directory, as an account that may read it: the server's own
//! (`postgres`), or root. The role needs the rights for a backup; what is missing, it says.
//!
//! ```text
//! cargo build --example embed_postgres
//! sudo -u postgres target/debug/examples/embed_postgres "host=/var/run/postgresql dbname=postgres"
//! ```
//!
//! The repository and the restored data directory are made in a temporary directory, and removed.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use lifeboat::postgres::{
    ClusterOptions, ClusterSink, ClusterSource, ConnectOptions, RestoreOptions,
};
use lifeboat::{
    Context, Error, ErrorKind, Event, InitOptions, Intent, Location, Observer, Repository, Result,
    Secret, Selection, Source, StoreOptions, Summary, TransferOptions, WriteOptions, open,
    transfer,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let conninfo = std::env::args().nth(1).ok_or("say how to connect, as for psql")?;
    let folder = tempfile::tempdir()?;
    Ok(run(&conninfo, folder.path()).await?)
}

/// All that the example does: the server behind `conninfo`, and what is made beneath `folder`.
pub(crate) async fn run(conninfo: &str, folder: &Path) -> Result<()> {
    // A real service makes its repository once, and opens it with `Repository::open` from then on.
    let location = Location::directory(folder.join("repository"))?;
    let place = open(&location, &StoreOptions::new(Intent::Create))?;
    let secret = Secret::passphrase("correct horse battery staple");
    let repository = Repository::init(place, &secret, &InitOptions::default()).await?;

    // Passwords come from PGPASSWORD or ~/.pgpass, as for every program of PostgreSQL.
    let connection = ConnectOptions::parse(conninfo)?.with_environment()?;
    // Snapshots of one name are one history: each is compared with the one before.
    let source = ClusterSource::new("main", ClusterOptions::new(connection));
    ask_the_doctor(&source).await?;

    println!("first backup");
    report(&back_up(&source, &repository).await?);
    println!("second backup");
    report(&back_up(&source, &repository).await?);

    println!("the snapshots");
    for snapshot in repository.snapshots().await?.snapshots {
        let (id, position) = (snapshot.id.short(), &snapshot.position);
        println!("  {id}  {}  WAL position {position}", snapshot.taken);
    }

    let restored = folder.join("restored");
    restore(&repository, &restored).await?;
    println!("restored; to start it: pg_ctl -D {restored:?} start");
    Ok(())
}

/// Says what stands in the way of a backup, and the remedy.
async fn ask_the_doctor(source: &ClusterSource) -> Result<()> {
    let inspection = source.inspect().await?;
    for finding in &inspection.findings {
        println!("{:?}: {} {}", finding.severity, finding.what, finding.remedy);
    }
    match inspection.blockers().next() {
        None => Ok(()),
        Some(blocker) => Err(Error::new(ErrorKind::Refused, &blocker.what)),
    }
}

async fn back_up(source: &ClusterSource, repository: &Repository) -> Result<Summary> {
    let sink = repository.sink(&WriteOptions::default());
    let context = Context::new(Arc::new(Terminal));
    transfer(source, &sink, &TransferOptions::default(), &context).await
}

async fn restore(repository: &Repository, target: &Path) -> Result<Summary> {
    let info = repository.find("latest", None).await?;
    let snapshot = repository.snapshot(&info.id).await?;
    // With the facts, a tablespace that has no room is found before anything is written.
    let options = RestoreOptions::new(target).with_facts(info.facts.clone());
    let context = Context::new(Arc::new(Terminal));
    let source = snapshot.source(&Selection::all());
    let sink = ClusterSink::new(options);
    transfer(&source, &sink, &TransferOptions::default(), &context).await
}

fn report(summary: &Summary) {
    let counts = summary.progress;
    println!(
        "  {} entries, {} bytes read, {} unchanged, {} stored, {} warnings",
        counts.entries, counts.read, counts.unchanged, counts.stored, summary.warnings
    );
}

/// Shows what happens. Called from any thread, and expected to return at once.
struct Terminal;

impl Observer for Terminal {
    fn event(&self, event: &Event) {
        // There is nobody to tell when standard error is closed.
        let mut out = std::io::stderr().lock();
        let _ = match event {
            Event::Phase { name } => writeln!(out, "  … {name}"),
            Event::Progress { progress } => writeln!(out, "  … {} bytes read", progress.read),
            Event::Warning { subject, message } => writeln!(out, "  ! {subject}: {message}"),
            // Later versions may tell more.
            _ => Ok(()),
        };
    }
}
