//! A service that backs up a directory, twice, and restores it.
//!
//! Needs nothing: it makes its data, its repository and the restored tree in a temporary directory.
//!
//! ```text
//! cargo run --example embed_files
//! ```

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use lifeboat::files::{FilesSink, FilesSource, SinkOptions, SourceOptions};
use lifeboat::{
    Context, Event, InitOptions, Intent, Location, Observer, Repository, Result, Secret, Selection,
    StoreOptions, Summary, TransferOptions, WriteOptions, open, transfer,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    run(folder.path()).await
}

/// All that the example does, beneath `folder`.
pub(crate) async fn run(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let site = folder.join("site");
    std::fs::create_dir(&site)?;
    for page in 0..2000 {
        let text = format!("<h1>Page {page}</h1>\n").repeat(100);
        std::fs::write(site.join(format!("page-{page}.html")), text)?;
    }
    let repository = make_repository(&folder.join("repository")).await?;

    println!("first backup");
    report(&back_up(&site, &repository).await?);
    std::fs::write(site.join("page-7.html"), "<h1>Rewritten</h1>\n")?;
    // Files that are as they were are not opened; but those that changed less than two seconds
    // before the last backup are read again, since clocks tick. Here, that is all of them.
    println!("second backup, after one page was rewritten");
    report(&back_up(&site, &repository).await?);

    println!("the snapshots");
    for snapshot in repository.snapshots().await?.snapshots {
        println!(
            "  {}  {}  {}  {} entries",
            snapshot.id.short(),
            snapshot.taken,
            snapshot.store,
            snapshot.entries
        );
    }

    let restored = folder.join("restored");
    restore("latest", &repository, &restored).await?;
    let page = std::fs::read_to_string(restored.join("page-7.html"))?;
    assert_eq!(page, "<h1>Rewritten</h1>\n");
    println!("restored, as it was");
    Ok(())
}

/// A real service does this once, and reads the passphrase from where it keeps its secrets; from
/// then on it calls `Repository::open` on `open(&location, &StoreOptions::default())`.
async fn make_repository(path: &Path) -> Result<Repository> {
    // `"s3://bucket/prefix".parse()` is a location, too.
    let location = Location::directory(path)?;
    let place = open(&location, &StoreOptions::new(Intent::Create))?;
    let secret = Secret::passphrase("correct horse battery staple");
    Ok(Repository::init(place, &secret, &InitOptions::default()).await?)
}

async fn back_up(site: &Path, repository: &Repository) -> Result<Summary> {
    let mut what = SourceOptions::default();
    what.exclude = vec!["*.tmp".into()];
    // Snapshots of one name are one history: each is compared with the one before.
    let source = FilesSource::new("site", site, &what)?;
    let sink = repository.sink(&WriteOptions::default());
    let context = Context::new(Arc::new(Terminal));
    transfer(&source, &sink, &TransferOptions::default(), &context).await
}

async fn restore(name: &str, repository: &Repository, target: &Path) -> Result<Summary> {
    let info = repository.find(name, None).await?;
    let snapshot = repository.snapshot(&info.id).await?;
    // The target must be empty, or not exist.
    let sink = FilesSink::new(target, SinkOptions::default());
    let context = Context::new(Arc::new(Terminal));
    let source = snapshot.source(&Selection::all());
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
            Event::Progress { progress } => writeln!(out, "  … {} entries", progress.entries),
            Event::Warning { subject, message } => writeln!(out, "  ! {subject}: {message}"),
            // Later versions may tell more.
            _ => Ok(()),
        };
    }
}
