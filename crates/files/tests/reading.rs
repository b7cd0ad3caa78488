//! What is read, what is not read again, and what is said of files that move.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use common::{clean_copy, copy, path, source};
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Baseline, Collecting, Content, Context, Entry, EntryInfo, EntryPath, ErrorKind, Header,
    Reading, Result, Sink, SnapshotInfo, Source, StoreRef, Timestamp, Writing, async_trait,
};
use lifeboat_files::{FileSystems, FilesSource, SourceOptions};

/// A memory store whose last snapshot was begun an hour later than it was: no file changed just
/// before it, without any waiting.
struct Later(MemoryStore);

struct LaterBaseline(Arc<dyn Baseline>, SnapshotInfo);

#[async_trait]
impl Sink for Later {
    async fn baseline(&self, store: &StoreRef) -> Result<Option<Arc<dyn Baseline>>> {
        let Some(baseline) = self.0.baseline(store).await? else {
            return Ok(None);
        };
        let mut info = baseline.snapshot().clone();
        info.started = Timestamp::now() + std::time::Duration::from_secs(3600);
        Ok(Some(Arc::new(LaterBaseline(baseline, info))))
    }
    async fn write(&self, header: &Header, context: &Context) -> Result<Box<dyn Writing>> {
        self.0.write(header, context).await
    }
}

#[async_trait]
impl Baseline for LaterBaseline {
    fn snapshot(&self) -> &SnapshotInfo {
        &self.1
    }
    async fn entry(&self, path: &EntryPath) -> Result<Option<EntryInfo>> {
        self.0.entry(path).await
    }
    async fn content(&self, path: &EntryPath) -> Result<Option<Content>> {
        self.0.content(path).await
    }
}

fn plant(folder: &Path) -> u64 {
    let mut size = 0;
    for name in 0..200 {
        let at = folder.join(format!("{}", name % 5));
        std::fs::create_dir_all(&at).unwrap();
        let content = format!("{name}").repeat(name);
        std::fs::write(at.join(format!("{name}")), &content).unwrap();
        size += content.len() as u64;
    }
    std::fs::write(folder.join("large"), vec![5; 3 << 20]).unwrap();
    size + (3 << 20)
}

#[tokio::test]
async fn unchanged_files_are_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let size = plant(folder.path());
    let root = lifeboat_core::local::Root::open(folder.path()).unwrap();
    for at in ["large", "1"] {
        // Not every file system has them.
        let _ = root.set_xattr(&path(at), b"user.kept", b"value");
    }
    let store = Later(MemoryStore::new("snapshot"));
    let first = clean_copy(&source(folder.path()), &store).await;
    assert_eq!((first.progress.read, first.progress.unchanged), (size, 0));
    let image = store.0.image();

    let second = clean_copy(&source(folder.path()), &store).await;
    assert_eq!((second.progress.read, second.progress.unchanged), (0, size));
    assert!(image == store.0.image());

    // The same size, and the old time set again: the change time tells.
    let at = folder.path().join("1/51");
    let (old, modified) = (std::fs::read(&at).unwrap(), at.metadata().unwrap().modified().unwrap());
    std::fs::write(&at, vec![b'x'; old.len()]).unwrap();
    File::open(&at).unwrap().set_modified(modified).unwrap();
    std::fs::remove_file(folder.path().join("2/52")).unwrap();
    std::fs::write(folder.path().join("2/new"), "new").unwrap();
    let third = clean_copy(&source(folder.path()), &store).await;
    assert_eq!(third.progress.read, old.len() as u64 + 3);
    let content = store.0.content(&path("1/51")).unwrap();
    assert!(content.iter().all(|byte| *byte == b'x'));
    assert!(store.0.content(&path("2/52")).is_none());
}

#[tokio::test]
async fn what_changed_just_before_the_last_backup_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let size = plant(folder.path());
    let store = MemoryStore::new("snapshot");
    clean_copy(&source(folder.path()), &store).await;
    let second = clean_copy(&source(folder.path()), &store).await;
    assert_eq!((second.progress.read, second.progress.unchanged), (size, 0));
}

/// Reads up to an entry.
async fn reading_at(folder: &Path, name: &str) -> (Box<dyn Reading>, Entry, Arc<Collecting>) {
    let observer = Arc::new(Collecting::new());
    let context = Context::new(observer.clone());
    let mut reading = source(folder).read(None, &context).await.unwrap();
    while let Some(entry) = reading.next().await.unwrap() {
        if entry.path == path(name) {
            return (reading, entry, observer);
        }
    }
    panic!("{name} is not there")
}

async fn length(content: &mut Content) -> u64 {
    let mut length = 0;
    while let Some(extent) = content.next().await.unwrap() {
        length += extent.len();
    }
    length
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_reported() {
    type Change = fn(&File);
    let changes: [(Change, u64); 4] = [
        (|file| file.write_all_at(b"y", 5 << 20).unwrap(), 6 << 20),
        (|file| file.set_len(9 << 20).unwrap(), 6 << 20),
        (|file| file.set_len(3 << 20).unwrap(), 3 << 20),
        (|_| {}, 6 << 20),
    ];
    for (at, (change, expected)) in changes.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("large"), vec![b'x'; 6 << 20]).unwrap();
        let (_reading, mut entry, observer) = reading_at(folder.path(), "large").await;
        let first = entry.content.next().await.unwrap().unwrap();
        let file = File::options().write(true).open(folder.path().join("large")).unwrap();
        change(&file);
        let read = first.len() + length(&mut entry.content).await;
        assert_eq!(read, expected);
        let warnings = observer.warnings();
        if at == 3 {
            assert!(warnings.is_empty());
        } else {
            assert_eq!(warnings.len(), 1);
            assert_eq!(warnings[0].0, "large");
            assert!(warnings[0].1.contains("changed while it was read"));
        }
    }
}

#[tokio::test]
async fn a_large_file_that_is_removed_before_it_is_read_is_still_whole() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large"), vec![b'x'; 6 << 20]).unwrap();
    let (_reading, mut entry, _) = reading_at(folder.path(), "large").await;
    std::fs::remove_file(folder.path().join("large")).unwrap();
    assert_eq!(length(&mut entry.content).await, 6 << 20);
}

#[tokio::test]
async fn patterns_leave_out_what_they_match_and_all_beneath() {
    let folder = tempfile::tempdir().unwrap();
    for at in ["cache/deep", "var/cache/x", "src/node_modules/x", "src/lib"] {
        std::fs::create_dir_all(folder.path().join(at)).unwrap();
        std::fs::write(folder.path().join(at).join("a.rs"), "").unwrap();
        std::fs::write(folder.path().join(at).join("a.tmp"), "").unwrap();
    }
    let mut options = SourceOptions::default();
    options.exclude = ["*.tmp", "/cache", "node_modules/", "var/**"].map(str::to_owned).to_vec();
    let source = FilesSource::new("tree", folder.path(), &options).unwrap();
    let store = MemoryStore::new("snapshot");
    clean_copy(&source, &store).await;
    let names: Vec<String> = store.image().keys().map(ToString::to_string).collect();
    assert_eq!(names, ["src", "src/lib", "src/lib/a.rs", "var"]);

    options.exclude = vec!["a\\".to_owned()];
    let error = FilesSource::new("tree", folder.path(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn other_file_systems_stay_out_when_asked() {
    // On most machines terminals are a file system of their own, mounted in /dev.
    let device = |at: &str| std::fs::metadata(at).map(|metadata| metadata.dev());
    let (Ok(dev), Ok(pts)) = (device("/dev"), device("/dev/pts")) else {
        return;
    };
    let mut names = Vec::new();
    for file_systems in [FileSystems::All, FileSystems::One] {
        let mut options = SourceOptions::default();
        options.file_systems = file_systems;
        // Files that others work with have no place in a test.
        options.exclude = vec!["/shm/**".to_owned(), "/mqueue/**".to_owned()];
        let source = FilesSource::new("dev", "/dev", &options).unwrap();
        let store = MemoryStore::new("snapshot");
        let (result, _) = copy(&source, &store).await;
        result.unwrap();
        let image = store.image();
        assert!(image.contains_key(&path("pts")));
        names.push(image.contains_key(&path("pts/ptmx")));
    }
    assert_eq!(names, [true, dev == pts]);
}

#[tokio::test]
async fn a_missing_tree_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let store = MemoryStore::new("snapshot");
    let (result, _) = copy(&source(&missing), &store).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.one_line().contains("missing"), "{error:?}");
    assert_eq!(store.commits(), 0);
    assert!(source(&missing).inspect().await.is_err());
}

#[tokio::test]
async fn a_deep_tree_needs_few_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let root = lifeboat_core::local::Root::open(folder.path()).unwrap();
    let deep = path(&vec!["d"; 1500].join("/"));
    root.create_dir_all(&deep, 0o700).unwrap();
    root.create_file(&deep.join("file").unwrap(), 0o600).unwrap();
    root.create_file(&path("e"), 0o600).unwrap();
    let store = MemoryStore::new("snapshot");
    let summary = clean_copy(&source(folder.path()), &store).await;
    assert_eq!(summary.progress.entries, 1502);
    let target = folder.path().join("target");
    std::fs::create_dir(&target).unwrap();
    clean_copy(&store, &common::sink(&target)).await;
    let copied = lifeboat_core::local::Root::open(&target).unwrap();
    assert!(copied.status(&deep.join("file").unwrap()).is_ok());
    // The folder's own removal goes by long paths.
    root.remove_contents().unwrap();
}
