//! Which snapshot and which repository a restore takes, when the first choice is not the best.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use crate::common::{Home, contents, run};

/// The first chunk of a pack begins behind its header of 64 bytes.
const IN_A_CHUNK: usize = 70;

#[test]
fn a_first_repository_that_does_not_answer_is_not_waited_for() {
    let home = Home::new();
    let tree = home.tree();
    home.run(&["backup", "files", &tree, "--name", "t"]).expect(0);
    // It takes connections, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let first = format!("s3://bucket?endpoint=http://{}", silent.local_addr().unwrap());
    let (out, second) = (home.arg("out"), home.arg("repo"));
    let restore = ["--repo", &first, "restore", "latest", "--to", &out, "--or-from", &second];
    let mut command = home.command(&[&restore[..], &["--or-after", "1s"]].concat());
    command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "hunter2");
    let ran = run(&mut command).expect(0);
    assert!(ran.0.stderr.contains("one of the two repositories cannot be used"), "{ran}");
    assert_eq!(contents(&home.path("out")).len(), contents(&home.path("tree")).len());
    // One request alone is given thirty seconds otherwise.
    assert!(ran.0.wall < Duration::from_secs(28), "{ran}");
    let alone = ["restore", "latest", "--to", &out, "--or-after", "1s"];
    assert!(home.run(&alone).expect(2).0.stderr.contains("--or-from"));
}

#[test]
fn latest_is_the_repaired_sibling_and_says_so() {
    let home = Home::new();
    let tree = home.tree();
    let back_up = ["backup", "files", &tree, "--name", "t", "--json"];
    let id = home.run(&back_up).expect(0).end()["snapshot"].as_str().unwrap().to_owned();
    let is_of_data = || {
        let ran = home.run(&["verify", "--every-byte", "--json"]).expect(1);
        let damage = ran.events_of("damage");
        damage.iter().any(|damage| !damage["entries"].as_array().unwrap().is_empty())
    };
    let mut hurt = false;
    for (path, bytes) in contents(&home.repo().join("packs")) {
        let mut flipped = bytes.clone();
        flipped[IN_A_CHUNK] ^= 1;
        fs::write(&path, flipped).unwrap();
        hurt = is_of_data();
        if hurt {
            break;
        }
        fs::write(&path, bytes).unwrap();
    }
    assert!(hurt, "no pack holds content");
    home.run(&["repair", "packs"]).expect(3);
    home.run(&["repair", "snapshots"]).expect(3);

    let ran = home.run(&["ls", "latest", "--json"]).expect(0);
    let sibling = ran.end()["snapshot"].as_str().unwrap().to_owned();
    assert_ne!(sibling, id);
    let notice = ran.events_of("notice")[0]["message"].as_str().unwrap().to_owned();
    assert!(notice.contains("a repair found left") && notice.contains(&id[..8]), "{ran}");
    let ran = home.run(&["restore", "latest", "--to", &home.arg("out"), "--json"]).expect(0);
    assert_eq!(ran.end()["snapshot"], sibling.as_str());
    assert_eq!(home.run(&["ls", &id, "--json"]).expect(0).end()["snapshot"], id.as_str());
    home.run(&back_up).expect(0);
    let ran = home.run(&["ls", "latest", "--json"]).expect(0);
    assert!(ran.events_of("notice").is_empty(), "what is newer counts: {ran}");
}
