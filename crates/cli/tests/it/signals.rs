//! Stopping: at once, with the right code, and with a repository that is whole.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::common::{Home, LIMIT, contents};

fn send(signal: &str, child: &Child) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// A tree that takes seconds: much content, none of it alike.
fn big_tree(home: &Home) -> String {
    let tree = home.tree();
    let mut state = 1_u64;
    for number in 0..64 {
        let mut bytes = Vec::with_capacity(4 << 20);
        while bytes.len() < 4 << 20 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        fs::write(home.path("tree").join(number.to_string()), bytes).unwrap();
    }
    tree
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "it never happened");
        std::thread::yield_now();
    }
}

fn has_packs(repo: &Path) -> bool {
    let packs = repo.join("packs");
    packs.exists() && !contents(&packs).is_empty()
}

#[test]
fn a_backup_that_is_stopped_leaves_a_whole_repository() {
    for signal in ["-INT", "-TERM"] {
        let home = Home::new();
        let tree = big_tree(&home);
        let out = fs::File::create(home.path("events")).unwrap();
        let said = fs::File::create(home.path("said")).unwrap();
        let mut child = home
            .command(&["backup", "files", &tree, "--name", "tree", "--json"])
            .stdout(out)
            .stderr(said)
            .spawn()
            .unwrap();
        wait_until(|| has_packs(&home.repo()));
        assert!(child.try_wait().unwrap().is_none(), "it was over too soon");
        send(signal, &child);
        let status = child.wait().unwrap();
        let said = fs::read_to_string(home.path("said")).unwrap();
        assert_eq!(status.code(), Some(130), "{signal}: {said}");
        let events = fs::read_to_string(home.path("events")).unwrap();
        let last: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
        assert_eq!((&last["kind"], &last["exit"]), (&"cancelled".into(), &130.into()), "{last}");

        let list = home.run(&["snapshots", "--json"]).expect(0);
        assert_eq!(list.events_of("snapshot").len(), 0, "half a backup is listed");
        home.run(&["verify", "--every-byte"]).expect(0);
        home.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);
        home.run(&["verify", "--every-byte"]).expect(0);
    }
}

#[test]
fn a_restore_that_is_stopped_leaves_nothing_that_looks_whole() {
    let home = Home::new();
    let tree = big_tree(&home);
    home.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);
    let out = home.path("out");
    let mut child = home
        .command(&["restore", "latest", "--to", &home.arg("out")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| out.join("0").exists() || child.try_wait().unwrap().is_some());
    send("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let left = if out.exists() { contents(&out) } else { Vec::new() };
    assert!(left.is_empty(), "{} files were left", left.len());
}

#[test]
fn waiting_for_a_store_can_be_stopped() {
    let home = Home::empty();
    // Nobody answers at that address; the program would try for a while.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("s3://bucket?endpoint=http://{}", listener.local_addr().unwrap());
    let child = home
        .command(&["--repo", &url, "snapshots"])
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (connection, _) = listener.accept().unwrap();
    send("-TERM", &child);
    let mut child = child;
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(connection);
}
