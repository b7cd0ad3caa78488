//! A second repository: copied into, and restored from.

use std::fs;
use std::path::Path;

use lifeboat_testbed::s3::Server;

use crate::common::{Home, Ran, contents, run};

const OTHER: &str = "another-passphrase-51c0";

/// A home with two repositories, whose passphrases differ.
fn two() -> (Home, String) {
    let home = Home::new();
    fs::write(home.path("other-passphrase"), OTHER).unwrap();
    let other = home.arg("other");
    let file = home.arg("other-passphrase");
    home.run(&["--repo", &other, "--passphrase-file", &file, "init"]).expect(0);
    (home, other)
}

fn with_other(home: &Home, arguments: &[&str]) -> Ran {
    let mut command = home.command(arguments);
    command.env("LIFEBOAT_OTHER_PASSPHRASE_FILE", home.path("other-passphrase"));
    run(&mut command)
}

fn same(home: &Home, one: &str, two: &str) {
    let all = |dir: &str| -> Vec<_> {
        let relative = |(path, bytes): (std::path::PathBuf, Vec<u8>)| {
            (path.strip_prefix(home.path(dir)).unwrap().to_owned(), bytes)
        };
        contents(&home.path(dir)).into_iter().map(relative).collect()
    };
    assert!(all(one) == all(two), "{one} and {two} differ");
}

fn lose(directory: &Path) {
    let packs = contents(directory);
    assert!(!packs.is_empty());
    for (path, _) in packs {
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn snapshots_are_copied_once_and_restored_from_whichever_answers() {
    let (home, other) = two();
    let tree = home.tree();
    let back_up = ["backup", "files", &tree, "--name", "tree", "--tag", "first"];
    home.run(&back_up).expect(0);
    let copy = ["copy", "--all", "--to", &other, "--json"];
    let dry = with_other(&home, &["copy", "--since", "1h", "--to", &other, "--dry-run", "--json"]);
    let planned = dry.expect(0).events_of("planned");
    assert_eq!((planned.len(), planned[0]["read"].clone()), (1, planned[0]["bytes"].clone()));
    let made = with_other(&home, &copy).expect(0).events_of("copied");
    assert_eq!(made.len(), 1);
    let end = with_other(&home, &copy).expect(0).end();
    assert_eq!((end["copied"].as_u64(), end["present"].as_u64()), (Some(0), Some(1)));
    // With the same passphrase as the first one, the second does not open.
    let wrong = home.run(&copy).expect(1).end();
    assert_eq!(wrong["kind"], "refused");
    assert!(wrong["message"].as_str().unwrap().contains(&other), "{wrong}");

    // The original's id is good in the other repository as well.
    let original = made[0]["snapshot"].as_str().unwrap().to_owned();
    let (out, file) = (home.arg("out-1"), home.arg("other-passphrase"));
    let alone = ["--repo", &other, "--passphrase-file", &file];
    home.run(&[&alone[..], &["restore", &original, "--to", &out]].concat()).expect(0);
    same(&home, "tree", "out-1");

    // All data is lost in the first one.
    lose(&home.repo().join("packs"));
    let restore = |out: &str, more: &[&str]| {
        let out = home.arg(out);
        let arguments = ["restore", "latest", "--to", &out, "--json"];
        with_other(&home, &[&arguments[..], more].concat())
    };
    restore("none", &[]).expect(1).error_says(&["damaged", "--or-from"]);
    let or_from = ["--or-from", &other];
    let ran = restore("out-2", &or_from).expect(0);
    assert!(!ran.events_of("notice").is_empty(), "{ran}");
    assert!(ran.0.stderr.contains("note: ") && ran.0.stderr.contains("missing"), "{ran}");
    let from = ran.end()["from"].clone();
    assert_eq!(from[0]["bytes"], 0);
    assert!(from[1]["bytes"].as_u64().unwrap() > 300_000 && from[1]["repository"] == other);
    same(&home, "tree", "out-2");

    // It is not there at all.
    fs::rename(home.repo(), home.path("away")).unwrap();
    restore("none", &[]).expect(1);
    let ran = restore("out-3", &or_from).expect(0);
    assert_eq!(ran.end()["from"].as_array().unwrap().len(), 1);
    same(&home, "tree", "out-3");
    // Neither of them is: that is an error.
    lose(&home.path("other").join("packs"));
    restore("none", &or_from).expect(1);
}

#[test]
fn a_damaged_snapshot_is_told_and_the_others_are_copied() {
    let (home, other) = two();
    let tree = home.tree();
    home.run(&["backup", "files", &tree, "--name", "one"]).expect(0);
    lose(&home.repo().join("packs"));
    let copy = ["copy", "--all", "--to", &other, "--json"];
    let ran = with_other(&home, &copy).expect(1);
    assert_eq!(ran.end()["failed"], 1);
    fs::write(home.path("tree/greeting"), "other").unwrap();
    fs::write(home.path("tree/sub/data"), vec![9; 300_000]).unwrap();
    // It says that packs are missing, and relies on none of them.
    home.run(&["backup", "files", &tree, "--name", "two", "--full"]).expect(3);
    let _ = with_other(&home, &copy);
    let nothing = with_other(&home, &["copy", "--to", &other]).expect(2);
    assert!(nothing.0.stderr.contains("--all"), "{nothing}");
    let gone = home.arg("nowhere");
    with_other(&home, &["copy", "--all", "--to", &gone]).expect(1);
}

/// From a directory into a bucket, with credentials of its own, and back.
#[test]
fn a_copy_in_a_bucket_brings_a_directory_back() {
    let server = Server::start().unwrap();
    server.create_bucket("bucket").unwrap();
    let home = Home::new();
    let tree = home.tree();
    let url = format!("s3://bucket/prefix?endpoint={}", server.endpoint());
    let bucket = |arguments: &[&str], prefix: &str| {
        let mut command = home.command(arguments);
        command.env(format!("{prefix}AWS_ACCESS_KEY_ID"), "id");
        command.env(format!("{prefix}AWS_SECRET_ACCESS_KEY"), "hunter2");
        run(&mut command)
    };
    bucket(&["--repo", &url, "init"], "").expect(0);
    home.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);
    let other = "LIFEBOAT_OTHER_";
    let copied = bucket(&["copy", "--all", "--to", &url, "--verify", "--json"], other).expect(0);
    assert_eq!(copied.end()["verified"], true);
    assert!(!copied.to_string().contains("hunter2"));
    lose(&home.repo().join("packs"));
    let out = home.arg("out");
    bucket(&["restore", "latest", "--to", &out, "--or-from", &url], other).expect(0);
    same(&home, "tree", "out");
}
