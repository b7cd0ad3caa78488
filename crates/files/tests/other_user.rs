//! What a user without root's rights reads and restores, and what is said of the rest.
//!
//! When the tests run as root, this one runs itself again as another user.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::{copy, path, sink, source};
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Attributes, Entry, EntryKind, names};

const NOBODY: u32 = 65_534;
const FOLDER: &str = "LIFEBOAT_TEST_FOLDER";

#[test]
fn without_the_rights_of_root() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return in_folder(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    if !rustix::process::geteuid().is_root() {
        return in_folder(folder.path());
    }
    // The build directory may be closed to others.
    let program = folder.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, open.clone()).unwrap();
    std::fs::set_permissions(folder.path(), open).unwrap();
    let work = folder.path().join("work");
    std::fs::create_dir(&work).unwrap();
    std::os::unix::fs::chown(&work, Some(NOBODY), Some(NOBODY)).unwrap();
    let output = Command::new(program)
        .args(["--exact", "without_the_rights_of_root", "--nocapture"])
        .env(FOLDER, &work)
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir(&work)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(work.join("target").exists(), "it did nothing: {said}");
}

#[tokio::main(flavor = "current_thread")]
async fn in_folder(folder: &Path) {
    assert!(!rustix::process::geteuid().is_root());
    unreadable_files_are_left_out_and_said(folder).await;
    what_only_root_can_restore_is_said(folder).await;
}

async fn unreadable_files_are_left_out_and_said(folder: &Path) {
    let tree = folder.join("tree");
    std::fs::create_dir_all(tree.join("closed")).unwrap();
    std::fs::create_dir_all(tree.join("names-only")).unwrap();
    for at in ["closed/in", "names-only/in", "open", "secret", "secret-empty"] {
        std::fs::write(tree.join(at), if at.ends_with("empty") { "" } else { "x" }).unwrap();
    }
    std::fs::hard_link(tree.join("secret"), tree.join("secret-too")).unwrap();
    std::fs::write(tree.join("secret-large"), vec![1; 1 << 20]).unwrap();
    let modes = [
        ("closed", 0o000),
        ("names-only", 0o400),
        ("secret", 0o000),
        ("secret-empty", 0o000),
        ("secret-large", 0o000),
    ];
    let set = |at: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(tree.join(at), mode).unwrap();
    };
    modes.iter().for_each(|(at, mode)| set(at, *mode));
    let store = MemoryStore::new("snapshot");
    let (result, warnings) = copy(&source(&tree), &store).await;
    result.unwrap();
    modes.iter().for_each(|(at, _)| set(at, 0o700));

    let names: Vec<String> = store.image().keys().map(ToString::to_string).collect();
    assert_eq!(names, ["closed", "names-only", "open", "secret-empty"]);
    let subjects: Vec<&str> = warnings.iter().map(|(subject, _)| &**subject).collect();
    let said = ["closed", "names-only", "secret", "secret-large", "secret-too"];
    assert_eq!(subjects, said, "{warnings:?}");
}

async fn what_only_root_can_restore_is_said(folder: &Path) {
    let store = MemoryStore::new("snapshot");
    let attributes = |mode: u32| {
        Attributes::new().with(names::MODE, mode).with(names::UID, 0_u32).with(names::GID, 0_u32)
    };
    let mut entries = vec![
        Entry::file(path("program"), attributes(0o6755), "x"),
        Entry::file(path("other"), attributes(0o644), "x"),
        Entry::new(
            path("disk"),
            EntryKind::BlockDevice,
            attributes(0o600).with(names::NODE, 0x0801_u64),
        ),
        Entry::new(
            path("disk-too"),
            EntryKind::HardLink,
            Attributes::new().with(names::TARGET, b"disk".to_vec()),
        ),
    ];
    for name in ["a", "b", "c"] {
        let xattrs = vec![(b"trusted.x".to_vec(), b"1".to_vec())];
        let attributes = attributes(0o600).with(names::XATTRS, xattrs);
        entries.push(Entry::file(path(name), attributes, ""));
    }
    for entry in entries {
        store.insert(entry).await.unwrap();
    }
    let target = folder.join("target");
    let (result, warnings) = copy(&store, &sink(&target)).await;
    result.unwrap();
    // Whoever restores it must not hand out rights of their own.
    let mode = target.join("program").metadata().unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert!(!target.join("disk").exists() && !target.join("disk-too").exists());
    let with = |words: &str| {
        let found = warnings.iter().filter(|(_, message)| message.contains(words));
        found.count()
    };
    assert_eq!(with("only root can give files away"), 1, "{warnings:?}");
    assert_eq!(with("only root can make device nodes"), 1, "{warnings:?}");
    assert_eq!(with("since disk was not"), 1, "{warnings:?}");
    assert_eq!(with("extended attribute trusted.x"), 2, "{warnings:?}");
    assert_eq!(with("2 more"), 1, "{warnings:?}");
    assert_eq!(warnings.len(), 5);
}
