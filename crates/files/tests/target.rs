//! A restore stays beneath its target, whatever the snapshot says, and what is not whole does
//! not look whole.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{assert_same, clean_copy, copy, look, path, sink, snapshot, source};
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Content, Context, Entry, EntryKind, Error, ErrorKind, Extent, Header, Sink, Source,
    Writing, async_trait, names,
};
use lifeboat_files::{Existing, FilesSink, SinkOptions, State};

fn linked(name: &str, kind: EntryKind, target: &[u8]) -> Entry {
    let attributes = Attributes::new().with(names::TARGET, target.to_vec());
    Entry::new(path(name), kind, attributes)
}

fn file(name: &str) -> Entry {
    Entry::file(path(name), Attributes::new(), "content")
}

fn replacing(target: &Path) -> FilesSink {
    let mut options = SinkOptions::default();
    options.existing = Existing::Replace;
    FilesSink::new(target, options)
}

/// Restores a snapshot that nobody honest has made, and returns the error. Beside the target
/// nothing may be touched.
async fn hostile(make: impl Fn(&Path) -> Vec<Entry>) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "untouched").unwrap();
    let store = MemoryStore::new("hostile");
    for entry in make(&outside) {
        store.insert(entry).await.unwrap();
    }
    let before = look(&outside);
    let target = sink(&folder.path().join("target"));
    let (result, _) = copy(&store, &target).await;
    assert!(before == look(&outside), "something outside the target was touched");
    assert_eq!(target.state().await.unwrap(), State::Missing, "something is left");
    result.unwrap_err()
}

#[tokio::test]
async fn nothing_is_written_through_a_link() {
    for (target_of, beneath) in [("", "out/new"), ("", "out/secret"), ("/secret", "out")] {
        let error = hostile(|outside| {
            let link = format!("{}{target_of}", outside.display());
            let mut entries = vec![linked("out", EntryKind::Symlink, link.as_bytes())];
            if beneath != "out" {
                entries.push(file(beneath));
            } else {
                entries.push(linked("through", EntryKind::HardLink, b"out/secret"));
            }
            entries
        })
        .await;
        let refused = [ErrorKind::Refused, ErrorKind::AlreadyExists];
        assert!(refused.contains(&error.kind()), "{error:?}");
    }
    let error = hostile(|_| vec![linked("up", EntryKind::Symlink, b".."), file("up/outside/new")]);
    assert_eq!(error.await.kind(), ErrorKind::Refused);
    let error = hostile(|_| {
        vec![linked("up", EntryKind::Symlink, b"../outside"), Entry::directory(path("up/folder"))]
    });
    assert_eq!(error.await.kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn hard_links_cannot_reach_out() {
    let targets: [&[u8]; 7] =
        [b"../outside/secret", b"/etc/passwd", b"", b"a//b", b"a\0b", b".", &[b'x'; 40_000]];
    for target in targets {
        let error = hostile(|_| vec![linked("link", EntryKind::HardLink, target)]).await;
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(error.one_line().contains("link"), "{error:?}");
    }
    let missing = hostile(|_| vec![linked("link", EntryKind::HardLink, b"missing")]).await;
    assert_eq!(missing.kind(), ErrorKind::Corrupt);
    assert!(missing.one_line().contains("a hard link to missing"), "{missing:?}");
    let through = hostile(|outside| {
        let outside = outside.as_os_str().as_encoded_bytes();
        vec![
            linked("a", EntryKind::Symlink, outside),
            linked("b", EntryKind::HardLink, b"a/secret"),
        ]
    });
    assert_eq!(through.await.kind(), ErrorKind::Refused);
    let directory =
        hostile(|_| vec![Entry::directory(path("a")), linked("b", EntryKind::HardLink, b"a")]);
    assert_eq!(directory.await.kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn senseless_entries_are_refused() {
    let parent_is_a_file = hostile(|_| vec![file("a"), file("a/b")]).await;
    let refused = [ErrorKind::Refused, ErrorKind::AlreadyExists];
    assert!(refused.contains(&parent_is_a_file.kind()), "{parent_is_a_file:?}");
    let marker = hostile(|_| vec![file(".lifeboat-incomplete")]).await;
    assert_eq!(marker.kind(), ErrorKind::InvalidInput);
    let no_target = hostile(|_| vec![Entry::new(path("a"), EntryKind::Symlink, Attributes::new())]);
    assert_eq!(no_target.await.kind(), ErrorKind::Corrupt);
    let empty = hostile(|_| vec![linked("a", EntryKind::Symlink, b"")]).await;
    assert_eq!(empty.kind(), ErrorKind::InvalidInput);
    let long = hostile(|_| vec![file(&"x".repeat(300))]).await;
    assert_eq!(long.kind(), ErrorKind::InvalidInput, "{long:?}");
}

#[tokio::test]
async fn absolute_links_are_kept_and_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new("links");
    let attributes = Attributes::new()
        .with(names::TARGET, b"/etc/passwd".to_vec())
        .with(names::MODE, 0o777_u32)
        .with(names::MODIFIED, 1_i64);
    let link = Entry::new(path("a"), EntryKind::Symlink, attributes);
    store.insert(link).await.unwrap();
    let before = std::fs::metadata("/etc/passwd").unwrap().modified().unwrap();
    let target = folder.path().join("target");
    clean_copy(&store, &sink(&target)).await;
    let points_to = std::fs::read_link(target.join("a")).unwrap();
    assert_eq!(points_to, Path::new("/etc/passwd"));
    let after = std::fs::metadata("/etc/passwd").unwrap().modified().unwrap();
    assert_eq!(before, after);
}

#[tokio::test]
async fn huge_sizes_take_no_memory_and_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let target = sink(&folder.path().join("target"));
    let context = Context::silent();
    let header = Header::new(source(folder.path()).store().clone());
    let writing = target.write(&header, &context).await.unwrap();
    let said = file("said").with_content(u64::MAX, Content::bytes("little"));
    writing.put(0, said).await.unwrap();
    let holes = [u64::MAX, 1 << 63, i64::MAX as u64];
    for (at, hole) in holes.into_iter().enumerate() {
        let extents = [Extent::Hole(hole), Extent::Data("x".into())];
        let entry = file(&format!("hole{at}")).with_content(1, Content::extents(extents));
        let error = writing.put(1 + at as u64, entry).await.unwrap_err();
        let expected = [ErrorKind::InvalidInput, ErrorKind::Exhausted];
        assert!(expected.contains(&error.kind()), "{error:?}");
    }
    let writing: Arc<dyn Writing> = Arc::from(writing);
    writing.abort().await;
    assert_eq!(target.state().await.unwrap(), State::Missing);
}

#[tokio::test]
async fn a_target_that_is_not_empty_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (tree, target) = (folder.path().join("tree"), folder.path().join("target"));
    for at in [&tree, &target] {
        std::fs::create_dir(at).unwrap();
        std::fs::write(at.join("mine"), format!("{}", at.display())).unwrap();
    }
    let before = look(&target);
    let (result, _) = copy(&source(&tree), &sink(&target)).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.one_line().contains("\"mine\" is in it; restore into an empty"), "{error:?}");
    assert!(before == look(&target));

    clean_copy(&source(&tree), &replacing(&target)).await;
    assert_same(&tree, &target);
}

#[tokio::test]
async fn a_file_is_no_target() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = sink(file.path()).state().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let store = MemoryStore::new("empty");
    let (result, _) = copy(&store, &sink(file.path())).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn lost_and_found_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("lost+found")).unwrap();
    let store = MemoryStore::new("one");
    store.insert(file("file")).await.unwrap();
    let failing = MemoryStore::new("failing");
    failing.insert(file("lost+found/x")).await.unwrap();
    failing.insert(file("file")).await.unwrap();
    failing.insert(file("file/x")).await.unwrap();
    let (result, _) = copy(&failing, &sink(folder.path())).await;
    result.unwrap_err();
    let left = look(folder.path());
    assert_eq!(left.len(), 2, "the top and lost+found");
    clean_copy(&store, &sink(folder.path())).await;
    assert!(folder.path().join("file").is_file());
}

#[tokio::test]
async fn what_was_replaced_comes_back_when_the_restore_fails() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    std::fs::create_dir_all(target.join("a/b")).unwrap();
    std::fs::write(target.join("a/b/old"), "old").unwrap();
    std::fs::write(target.join(".lifeboat-replaced-1"), "somebody's").unwrap();
    let top = |at: &Path| {
        let mut seen = look(at);
        // Moving things changes when the top itself was changed.
        seen.remove(Path::new(""));
        seen
    };
    let before = top(&target);
    let store = MemoryStore::new("fails");
    for entry in [file("a"), file("a/b"), file("new")] {
        store.insert(entry).await.unwrap();
    }
    let (result, warnings) = copy(&store, &replacing(&target)).await;
    result.unwrap_err();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(before == top(&target), "{:?}", top(&target).keys());
}

#[tokio::test]
async fn a_restore_that_was_killed_shows_and_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let (tree, target) = (folder.path().join("tree"), folder.path().join("target"));
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), "content").unwrap();
    let store = snapshot(&tree).await;
    let header = Header::new(store.store().clone());
    let context = Context::silent();
    let writing = sink(&target).write(&header, &context).await.unwrap();
    writing.put(0, file("file")).await.unwrap();

    let busy = sink(&target).write(&header, &context).await.err().unwrap();
    assert!(busy.one_line().contains("another restore into it is running"), "{busy:?}");
    let busy = replacing(&target).write(&header, &context).await.err().unwrap();
    assert!(busy.one_line().contains("another restore into it is running"), "{busy:?}");
    // Nothing else happens when a process is killed.
    drop(writing);

    assert_eq!(sink(&target).state().await.unwrap(), State::Unfinished);
    let error = source(&target).read(None, &context).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.one_line().contains("holds an unfinished restore"), "{error:?}");
    let inspection = source(&target).inspect().await.unwrap();
    assert_eq!(inspection.blockers().count(), 1);

    let (result, _) = copy(&store, &sink(&target)).await;
    let error = result.unwrap_err();
    assert!(error.one_line().contains("did not finish"), "{error:?}");
    clean_copy(&source(&tree), &replacing(&target)).await;
    assert_same(&tree, &target);
}

/// Cancels while the restore is in the middle of it.
struct Cancelling(MemoryStore);

#[async_trait]
impl Source for Cancelling {
    fn store(&self) -> &lifeboat_core::StoreRef {
        self.0.store()
    }
    async fn inspect(&self) -> lifeboat_core::Result<lifeboat_core::Inspection> {
        self.0.inspect().await
    }
    async fn read(
        &self,
        since: Option<std::sync::Arc<dyn lifeboat_core::Baseline>>,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn lifeboat_core::Reading>> {
        let reading = self.0.read(since, context).await?;
        Ok(Box::new(CancellingReading(reading, context.clone(), 0)))
    }
}

struct CancellingReading(Box<dyn lifeboat_core::Reading>, Context, u32);

#[async_trait]
impl lifeboat_core::Reading for CancellingReading {
    async fn next(&mut self) -> lifeboat_core::Result<Option<Entry>> {
        self.2 += 1;
        if self.2 == 200 {
            self.1.cancel();
        }
        self.0.next().await
    }
    async fn finish(self: Box<Self>) -> lifeboat_core::Result<lifeboat_core::Completion> {
        self.0.finish().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_restore_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new("many");
    for name in 0..400 {
        store.insert(file(&format!("{}/{name}", name % 7))).await.unwrap();
    }
    let target = sink(&folder.path().join("target"));
    let (result, warnings) = copy(&Cancelling(store), &target).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(target.state().await.unwrap(), State::Missing);
}
