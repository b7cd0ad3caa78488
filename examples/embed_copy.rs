//! A service that keeps a second repository, and restores although the first one is damaged.
//!
//! Needs nothing: both repositories and the restored tree are in a temporary directory.
//!
//! ```text
//! cargo run --example embed_copy
//! ```

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lifeboat::core::Collecting;
use lifeboat::files::{FilesSink, FilesSource, SinkOptions, SourceOptions};
use lifeboat::{
    Context, CopyOptions, InitOptions, Intent, Location, Repository, Result, Secret, Selection,
    SnapshotCopies, StoreOptions, TransferOptions, WriteOptions, open, transfer,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    run(folder.path()).await
}

/// All that the example does, beneath `folder`.
pub(crate) async fn run(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let site = folder.join("site");
    fs::create_dir(&site)?;
    for page in 0..300 {
        fs::write(site.join(format!("page-{page}.html")), format!("<h1>Page {page}</h1>\n"))?;
    }
    // Two repositories that share nothing, neither keys nor passphrase. The second one would be
    // far away: `"s3://offsite/backups".parse()` is a location, too.
    let near = make_repository(&folder.join("near"), "correct horse battery staple").await?;
    let far = make_repository(&folder.join("far"), "a passphrase of its own").await?;

    back_up(&site, &near).await?;
    copy(&near, &far).await?;
    fs::write(site.join("page-7.html"), "<h1>Rewritten</h1>\n")?;
    back_up(&site, &near).await?;
    // Only what changed is read, and a snapshot is copied once, however often this is called.
    copy(&near, &far).await?;

    println!("the near repository loses all of its data");
    fs::remove_dir_all(folder.join("near/packs"))?;
    let restored = folder.join("restored");
    restore(&near, &far, &restored).await?;
    assert_eq!(fs::read_to_string(restored.join("page-7.html"))?, "<h1>Rewritten</h1>\n");
    println!("restored, as it was");
    Ok(())
}

async fn make_repository(path: &Path, passphrase: &str) -> Result<Repository> {
    let location = Location::directory(path)?;
    let place = open(&location, &StoreOptions::new(Intent::Create))?;
    let secret = Secret::passphrase(passphrase);
    Ok(Repository::init(place, &secret, &InitOptions::default()).await?)
}

async fn back_up(site: &Path, repository: &Repository) -> Result<()> {
    let source = FilesSource::new("site", site, &SourceOptions::default())?;
    let sink = repository.sink(&WriteOptions::default());
    transfer(&source, &sink, &TransferOptions::default(), &Context::silent()).await?;
    Ok(())
}

async fn copy(from: &Repository, to: &Repository) -> Result<()> {
    let report = from.copy_to(to, &CopyOptions::default(), &Context::silent()).await?;
    for copied in &report.copied {
        let (original, copy) = (copied.original.id.short(), copied.copy.id.short());
        println!("  {original} copied as {copy}, {} bytes read", copied.read);
    }
    // A snapshot that is damaged does not keep the others from being copied. Tell somebody.
    assert!(report.failed.is_empty());
    Ok(())
}

/// Restores the newest snapshot, every byte of it from whichever repository can give it.
async fn restore(near: &Repository, far: &Repository, target: &Path) -> Result<()> {
    let newest = near.find("latest", None).await?;
    // A copy answers to the name of its original.
    let copy = far.find(&newest.id.to_string(), None).await?;
    let copies = SnapshotCopies::new([
        ("near".to_owned(), near.snapshot(&newest.id).await?),
        ("far".to_owned(), far.snapshot(&copy.id).await?),
    ])?;
    let observer = Arc::new(Collecting::new());
    let context = Context::new(observer.clone());
    let sink = FilesSink::new(target, SinkOptions::default());
    let source = copies.source(&Selection::all());
    transfer(&source, &sink, &TransferOptions::default(), &context).await?;
    for (place, bytes) in copies.served() {
        println!("  {bytes} bytes from {place}");
    }
    println!("  {} notices of damage", observer.notices().len());
    Ok(())
}
