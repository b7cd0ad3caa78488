//! File trees, from the first backup to the restore.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::common::{Home, LIMIT, contents};

#[test]
fn a_tree_comes_back() {
    let home = Home::new();
    let tree = home.tree();
    home.run(&["backup", "files", &tree, "--name", "tree", "--tag", "first"]).expect(0);
    // A file that changed just before the last backup is read once more: the clock is coarse.
    let again = ["backup", "files", &tree, "--name", "tree", "--json"];
    let began = Instant::now();
    let summary = loop {
        let summary = home.run(&again).expect(0).end();
        if summary["read"] == 0 {
            break summary;
        }
        assert!(began.elapsed() < LIMIT, "what does not change is read: {summary}");
    };
    assert_eq!(summary["unchanged"], 300_005);
    assert!(summary["parent"].is_string());
    let full = home.run(&["backup", "files", &tree, "--name", "tree", "--full", "--json"]);
    assert_eq!(full.expect(0).end()["read"], 300_005);

    let out = home.arg("out");
    home.run(&["restore", "latest", "--to", &out]).expect(0);
    let names = |dir: &str| -> Vec<_> {
        let all = contents(home.path(dir).as_path()).into_iter();
        all.map(|(path, bytes)| (path.strip_prefix(home.path(dir)).unwrap().to_owned(), bytes))
            .collect()
    };
    assert_eq!(names("out"), names("tree"));
    assert_eq!(fs::read_link(home.path("out/link")).unwrap().to_str(), Some("greeting"));

    let part = home.arg("part");
    home.run(&["restore", "latest", "--to", &part, "--path", "sub/data"]).expect(0);
    assert!(home.path("part/sub/data").exists() && !home.path("part/greeting").exists());
    home.run(&["restore", "latest", "--to", &out, "--replace", "--path", "greeting"]).expect(0);
    assert!(!home.path("out/sub").exists());
    home.run(&["verify", "--every-byte"]).expect(0);
    home.run(&["verify", "--every-byte", "--without-key"]).expect(0);
}

#[test]
fn lists_are_what_was_asked_for() {
    let home = Home::new();
    let tree = home.tree();
    let none = home.run(&["snapshots"]).expect(0);
    assert_eq!(none.0.stdout, "");
    home.run(&["backup", "files", &tree, "--name", "one", "--tag", "nightly"]).expect(0);
    home.run(&["backup", "files", &tree, "--name", "two"]).expect(0);

    let list = |arguments: &[&str]| home.run(arguments).expect(0).0.stdout;
    assert_eq!(list(&["snapshots"]).lines().count(), 3);
    let one = list(&["snapshots", "--store", "files/one"]);
    assert!(one.contains("nightly") && !one.contains("files/two"), "{one}");
    assert_eq!(list(&["snapshots", "--tag", "nightly"]).lines().count(), 2);
    assert_eq!(list(&["snapshots", "--tag", "never"]), "");

    assert_eq!(list(&["ls", "latest", "--store", "two"]), "greeting\nlink\nsub\n");
    assert_eq!(list(&["ls", "latest", "--store", "two", "/sub/"]), "sub/data\nsub/deeper\n");
    assert_eq!(list(&["ls", "latest", "--store", "two", "greeting"]), "greeting\n");
    assert_eq!(list(&["ls", "latest", "--store", "two", "-R"]).lines().count(), 5);
    assert_eq!(list(&["ls", "latest", "--store", "files/one", "-R", "sub"]).lines().count(), 2);
    let long = list(&["ls", "latest", "--store", "two", "-l"]);
    assert!(long.lines().any(|line| line.starts_with("l") && line.ends_with("link -> greeting")));
    assert!(long.lines().any(|line| line.starts_with("-rw") && line.contains(" 5 ")), "{long}");
}

#[test]
fn what_is_said_is_what_people_need() {
    let home = Home::new();
    let dir = home.path("small");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "abc").unwrap();
    let dir = dir.to_str().unwrap();
    let take = ["backup", "files", dir, "--name", "small"];
    let ran = home.run(&take).expect(0);
    let told = &ran.0.stderr;
    assert!(told.starts_with("snapshot "), "off a terminal no phase is told: {ran}");
    assert!(told.contains("  as of ") && told.contains(" 1 entry, 3 B\n"), "{ran}");
    assert!(told.contains("for 3 B of new content"), "{ran}");
    assert!(!told.contains("known to be the same") && !told.contains("1 entries"), "{ran}");
    // The summary and the list agree on what the snapshot cost.
    let stored = told.lines().find_map(|line| line.trim().strip_prefix("stored ")).unwrap();
    let stored = stored.trim().split(',').next().unwrap();
    let list = home.run(&["snapshots"]).expect(0);
    assert!(list.0.stdout.contains(&format!("  {stored}  ")), "{stored}: {list}");
    assert_eq!(list.0.stderr, "1 snapshot\n");
    let mut verbose = take.to_vec();
    verbose.push("--verbose");
    let ran = home.run(&verbose).expect(0);
    assert!(ran.0.stderr.lines().any(|line| line == "back up"), "{ran}");

    let shown = home.run(&["snapshots", "--json"]).expect(0).events_of("snapshot");
    let taken = home.run(&["backup", "files", dir, "--name", "other", "--json"]).expect(0).end();
    let again = home.run(&["snapshots", "--json"]).expect(0).events_of("snapshot");
    assert_eq!(shown.len() + 1, again.len());
    let one = again.iter().find(|shown| shown["id"] == taken["snapshot"]).unwrap();
    assert_eq!(one["stored"], taken["stored"]);
    let out = home.arg("out");
    let ran = home.run(&["restore", "latest", "--store", "small", "--to", &out]).expect(0);
    assert_eq!(ran.0.stderr.lines().count(), 1, "{ran}");
    assert!(ran.0.stderr.contains(", as of ") && ran.0.stderr.contains(": 1 entry, 3 B"), "{ran}");
    let ran = home.run(&["doctor"]).expect(0);
    assert!(ran.0.stderr.contains("repository: id "), "{ran}");
}

#[test]
fn a_closed_pipe_ends_a_list_without_a_word() {
    let home = Home::new();
    let tree = home.tree();
    home.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);
    let program = env!("CARGO_BIN_EXE_lifeboat");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("{program} ls latest -R | true")]);
    command.env("LIFEBOAT_REPO", home.repo());
    command.env("LIFEBOAT_PASSPHRASE_FILE", home.path("passphrase"));
    let ran = crate::common::run(&mut command);
    assert_eq!(ran.0.stderr, "");
}

#[test]
fn what_changes_while_it_is_read_is_a_warning() {
    let home = Home::new();
    let tree = home.tree();
    let path = home.path("tree/busy");
    fs::write(&path, vec![1; 4 << 20]).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"more").unwrap();
            }
        }
    });
    let ran = home.run(&["backup", "files", &tree, "--name", "tree", "--json"]);
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let ran = ran.expect(3);
    assert_eq!(ran.events_of("warning")[0]["subject"], "busy");
    assert_eq!(ran.end()["warnings"], 1);
    assert!(ran.0.stderr.contains("warning: busy: "), "{ran}");
    // The snapshot is there, and says that something in it needs attention.
    let listed = home.run(&["snapshots", "--json"]).expect(0);
    assert_eq!(listed.events_of("snapshot")[0]["warnings"], 1);
    home.run(&["restore", "latest", "--to", &home.arg("out")]).expect(0);
}

#[test]
fn damage_is_named_and_never_restored() {
    let home = Home::new();
    let tree = home.tree();
    home.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);
    let packs = contents(&home.repo().join("packs"));
    for (path, mut bytes) in packs {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let ran = home.run(&["verify", "--every-byte", "--json"]).expect(1);
    let damage = ran.events_of("damage");
    assert!(!damage.is_empty());
    for found in &damage {
        assert!(found["object"].as_str().unwrap().starts_with("packs/"), "{found}");
    }
    let hurt = |found: &&serde_json::Value| !found["snapshots"].as_array().unwrap().is_empty();
    assert!(damage.iter().any(|found| hurt(&found)), "{damage:?}");
    assert_eq!(ran.end()["sound"], false);
    assert!(ran.0.stderr.contains("damaged: packs/"), "{ran}");
    let out = home.arg("out");
    home.run(&["restore", "latest", "--to", &out]).expect(1).error();
    let left = if home.path("out").exists() { contents(&home.path("out")) } else { Vec::new() };
    assert!(left.is_empty(), "a part of a tree was left: {left:?}");
}
