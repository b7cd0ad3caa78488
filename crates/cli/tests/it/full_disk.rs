//! A disk that is full: told in one line, and nothing half-written that looks whole.

use std::fs;
use std::path::Path;

use lifeboat_testbed::disk::SmallDisk;

use crate::common::{Home, contents};

fn disk(megabytes: u64) -> Option<SmallDisk> {
    match SmallDisk::mount(megabytes << 20) {
        Ok(disk) => Some(disk),
        Err(unavailable) => {
            eprintln!("passed over: {unavailable}");
            None
        }
    }
}

/// Content that does not compress.
fn noise(path: &Path, megabytes: usize) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(megabytes << 20);
    while bytes.len() < megabytes << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn under_the_repository() {
    let Some(disk) = disk(8) else { return };
    let home = Home::empty();
    let repo = disk.path().join("repo");
    let repo = repo.to_str().unwrap();
    home.run(&["--repo", repo, "init"]).expect(0);
    let tree = home.tree();
    home.run(&["--repo", repo, "backup", "files", &tree, "--name", "small"]).expect(0);
    noise(&home.path("tree/noise"), 24);
    let ran = home.run(&["--repo", repo, "backup", "files", &tree, "--name", "big"]).expect(1);
    ran.error_says(&["No space left", repo, "room"]);
    // What was there is whole, and what was not finished is not there.
    let list = home.run(&["--repo", repo, "snapshots", "--json"]).expect(0);
    assert_eq!(list.events_of("snapshot").len(), 1);
    home.run(&["--repo", repo, "verify", "--every-byte"]).expect(0);
}

#[test]
fn under_a_restore() {
    let Some(disk) = disk(4) else { return };
    let home = Home::new();
    let tree = home.tree();
    noise(&home.path("tree/noise"), 12);
    home.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);
    let target = disk.path().join("out");
    // It is seen beforehand.
    let look = ["restore", "latest", "--to", target.to_str().unwrap(), "--dry-run", "--json"];
    let looked = home.run(&look).expect(3).end();
    assert!(looked["room"].as_u64().unwrap() < looked["bytes"].as_u64().unwrap(), "{looked}");
    assert!(!target.exists());
    let ran = home.run(&["restore", "latest", "--to", target.to_str().unwrap()]).expect(1);
    ran.error_says(&["No space left"]);
    let left = if target.exists() { contents(&target) } else { Vec::new() };
    assert!(left.is_empty(), "a part of a tree was left: {:?}", left.len());
}
