//! Rotations of the key.

use std::fs;

use crate::scene::{Scene, events, kills};

/// Of each key: its label, its epoch, and what it may do.
fn keys(scene: &Scene) -> Vec<(String, u64, String)> {
    let listed = scene.done("repository", &["key", "list", "--json"]);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let keys = events(&listed, "key").into_iter().map(|key| {
        assert_eq!(key["standing"], "authentic", "{key}");
        (text(&key["label"]), key["epoch"].as_u64().unwrap(), text(&key["access"]))
    });
    keys.collect()
}

#[test]
fn a_rotation_killed_at_any_moment_locks_nobody_out_and_is_finished_by_the_next() {
    let mut scene = Scene::new(&["own", "ops", "server"]);
    fs::create_dir(scene.path("tree")).unwrap();
    fs::write(scene.path("tree/file"), scene.random.bytes(500_000)).unwrap();
    let tree = scene.text("tree");
    let backup = ["backup", "files", &tree, "--name", "tree"];
    scene.init("before");
    let (ops, server) = (scene.recipient("ops"), scene.recipient("server"));
    scene.done("before", &["key", "add", "--label", "ops", "--recipient", &ops]);
    let add = ["key", "add", "--label", "server", "--write-only", "--recipient", &server];
    scene.done("before", &add);
    scene.done("before", &backup);
    scene.replace("repository", "before");
    scene.timed("key rotate", "repository", &["key", "rotate"]);

    for round in 0..kills(8) {
        scene.replace("repository", "before");
        // What one leaves is what the next one finds, also when that is killed as well.
        for _ in 0..=scene.random.below(2) {
            scene.let_time_pass("repository");
            scene.kill("key rotate", "repository", &["key", "rotate"]);
        }
        let what = format!("round {round}");
        scene.assert_sound("repository", &what);
        scene.let_time_pass("repository");
        // Nobody is locked out, and a holder that may only write goes on doing so.
        let listed = scene.run_as("ops", "repository", &["ls", "latest"]);
        assert!(listed.status.success(), "{what}: {}", listed.stderr);
        fs::write(scene.path("tree/new"), scene.random.bytes(300_000)).unwrap();
        let written = scene.run_as("server", "repository", &backup);
        assert!(written.status.success(), "{what}: {}", written.stderr);
        scene.assert_restores("repository", &["latest"], "tree");

        let before: Vec<_> = keys(&scene).into_iter().map(|(_, epoch, _)| epoch).collect();
        let (oldest, newest) = (*before.iter().min().unwrap(), *before.iter().max().unwrap());
        assert!(newest - oldest <= 1, "{what}: {before:?}");
        let rotated = scene.done("repository", &["key", "rotate", "--json"]);
        let summary = events(&rotated, "summary").remove(0);
        // Two of one holder, or of different epochs: then it was not finished.
        let unfinished = before.len() > 3 || newest > oldest;
        assert_eq!(summary["resumed"], unfinished, "{what}: {before:?}");
        let epoch = if unfinished { newest } else { newest + 1 };
        let held = |label: &str, access: &str| (label.to_owned(), epoch, access.to_owned());
        let expected = [held("first", "full"), held("ops", "full"), held("server", "write-only")];
        assert_eq!(keys(&scene), expected, "{what}");
        scene.assert_sound("repository", &what);
        fs::remove_file(scene.path("tree/new")).unwrap();
    }
    scene.tell();
}
