//! The daily work: backups, what forgets and prunes, and copies into a second repository. Nothing
//! is brought to its end in between, so that what one leaves is what the next one finds.

use std::fs;

use crate::scene::{Scene, kills};

const FILE: usize = 900_000;

/// Changes a third of the tree, so that there is something to save and something to forget.
fn change(scene: &mut Scene) {
    let tree = scene.path("tree");
    fs::create_dir_all(&tree).unwrap();
    for _ in 0..6 {
        let (name, bytes) = (scene.random.below(20), scene.random.bytes(FILE));
        fs::write(tree.join(format!("file-{name}")), bytes).unwrap();
    }
}

#[test]
fn whatever_is_killed_the_repository_is_whole_and_the_next_run_goes_on() {
    let mut scene = Scene::new(&["own"]);
    scene.init("repository");
    scene.init("other");
    let (tree, other) = (scene.text("tree"), scene.text("other"));
    let backup = ["backup", "files", &tree, "--name", "tree"];
    let forget = ["forget", "--keep-last", "2"];
    let prune = ["prune", "--keep-marked", "0s", "--max-waste", "0"];
    let copy = ["copy", "--all", "--to", &other];
    let works: [&[&str]; 6] = [&backup, &prune, &copy, &backup, &prune, &forget];

    // How long each takes.
    for _ in 0..3 {
        change(&mut scene);
        scene.timed("backup", "repository", &backup);
    }
    scene.timed("copy", "repository", &copy);
    scene.timed("forget", "repository", &forget);
    scene.timed("prune", "repository", &prune);
    for round in 0..kills(18) {
        let work = works[scene.random.below(works.len())];
        // There is something to save or to copy, to forget, and to prune.
        change(&mut scene);
        if work[0] != "backup" {
            scene.done("repository", &backup);
        }
        if work[0] == "prune" {
            scene.done("repository", &forget);
        }
        scene.let_time_pass("repository");
        scene.let_time_pass("other");
        scene.kill(work[0], "repository", work);
        let what = format!("{work:?}, round {round}");
        scene.assert_sound("repository", &what);
        if work[0] == "copy" {
            scene.assert_sound("other", &what);
            // Half of the copies find what one before them left; and the second repository must
            // not grow for ever.
            if scene.random.below(2) == 0 {
                scene.let_time_pass("other");
                scene.done("repository", &copy);
                scene.assert_restores("other", &["latest"], "tree");
                scene.done("other", &forget);
                scene.done("other", &prune);
            }
        }
    }
    scene.tell();

    // Whatever they left, the next ones end well, and nothing is left behind.
    for repository in ["repository", "other"] {
        scene.let_time_pass(repository);
    }
    scene.done("repository", &backup);
    scene.done("repository", &forget);
    scene.done("repository", &copy);
    for repository in ["repository", "other"] {
        scene.done(repository, &forget);
        scene.done(repository, &prune);
        for area in ["sessions", "trash", "checkpoints"] {
            let left = fs::read_dir(scene.path(repository).join(area)).into_iter().flatten();
            let names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            // A file that was just being written has a `#` in its name, and is no object.
            let objects: Vec<_> = names.filter(|name| !name.contains('#')).collect();
            assert!(objects.is_empty(), "{repository}/{area}: {objects:?}");
        }
        scene.assert_sound(repository, "at the end");
        scene.assert_restores(repository, &["latest"], "tree");
    }
}
