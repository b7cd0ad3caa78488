//! What people get wrong: one line that says what happened, to what, and what to do.

use std::fs;

use crate::common::{Home, bare, contents, run};

#[test]
fn a_wrong_passphrase() {
    let home = Home::new();
    fs::write(home.path("passphrase"), "wrong").unwrap();
    let ran = home.run(&["snapshots"]).expect(1);
    ran.error_says(&[&home.arg("repo"), "passphrase does not open its key; check"]);
    assert_eq!(ran.error().matches("passphrase").count(), 2, "it is said once, and advised: {ran}");
}

#[test]
fn not_a_repository() {
    let home = Home::empty();
    let ran = home.run(&["snapshots"]).expect(1);
    ran.error_says(&[&home.arg("repo"), "does not exist", "lifeboat init"]);
    fs::create_dir(home.repo()).unwrap();
    fs::write(home.repo().join("holiday.jpg"), "x").unwrap();
    let ran = home.run(&["snapshots"]).expect(1);
    ran.error_says(&[&home.arg("repo"), "there is none", "lifeboat init"]);
    let ran = home.run(&["init"]).expect(1);
    ran.error_says(&[&home.arg("repo"), "not empty", "holiday.jpg"]);
    assert_eq!(contents(&home.repo()).len(), 1, "something was written there");
}

#[test]
fn a_repository_that_is_there_already() {
    let home = Home::new();
    let before = contents(&home.repo());
    let ran = home.run(&["init"]).expect(1);
    let place = home.arg("repo");
    let told =
        format!("error: create a repository at {place}: there is one at this place already; ");
    assert!(ran.error().starts_with(&told), "{ran}");
    assert_eq!(contents(&home.repo()), before);
}

#[test]
fn a_newer_format_version() {
    let home = Home::new();
    let path = home.repo().join("lifeboat.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(config["config"]["version"], 1, "{config}");
    config["config"]["version"] = 99.into();
    fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
    for arguments in [&["snapshots"][..], &["backup", "files", "/etc", "--name", "etc"]] {
        let ran = home.run(arguments).expect(1);
        ran.error_says(&["version 99", "newer version of this program"]);
    }
}

#[test]
fn a_target_that_is_not_empty() {
    let home = Home::new();
    home.run(&["backup", "files", &home.tree(), "--name", "tree"]).expect(0);
    let out = home.arg("out");
    fs::create_dir(&out).unwrap();
    fs::write(home.path("out/mine"), "precious").unwrap();
    let ran = home.run(&["restore", "latest", "--to", &out]).expect(1);
    ran.error_says(&[&out, "not empty", "mine", "; ", "--replace"]);
    assert_eq!(contents(&home.path("out")), [(home.path("out/mine"), b"precious".to_vec())]);
}

#[test]
fn a_tree_that_is_not_there() {
    let home = Home::new();
    let ran = home.run(&["backup", "files", &home.arg("nothing"), "--name", "x"]).expect(1);
    ran.error_says(&[&home.arg("nothing"), "No such file", "; check the path"]);
    let written = contents(&home.repo());
    let snapshots = home.repo().join("snapshots");
    assert!(written.iter().all(|(path, _)| !path.starts_with(&snapshots)));
    let ran = home.run(&["doctor", "files", &home.arg("nothing")]).expect(1);
    assert!(ran.0.stderr.contains("remedy: check the path"), "{ran}");
}

#[test]
fn a_snapshot_that_is_not_there() {
    let home = Home::new();
    home.run(&["ls", "latest"]).expect(1).error_says(&["latest", "lifeboat snapshots"]);
    home.run(&["backup", "files", &home.tree(), "--name", "tree"]).expect(0);
    home.run(&["ls", "ffff"]).expect(1).error_says(&["ffff", "there is none"]);
    home.run(&["ls", "latest", "nothing"]).expect(1).error_says(&["nothing", "no such entry"]);
    let ran = home.run(&["restore", "latest", "--to", &home.arg("out"), "--path", "nothing"]);
    ran.expect(2).error_says(&["nothing", "lifeboat ls"]);
    assert!(!home.path("out").exists());
}

#[test]
fn latest_of_more_than_one_store() {
    let home = Home::new();
    let tree = home.tree();
    let out = home.arg("out");
    home.run(&["backup", "files", &tree, "--name", "one"]).expect(0);
    home.run(&["ls", "latest"]).expect(0);
    home.run(&["backup", "files", &tree, "--name", "two"]).expect(0);
    for arguments in [&["ls", "latest"][..], &["restore", "latest", "--to", &out]] {
        let ran = home.run(arguments).expect(1);
        ran.error_says(&["latest", "files/one, files/two", "; ", "--store"]);
        assert_eq!(ran.0.stdout, "");
    }
    assert!(!home.path("out").exists());
    let ran = home.run(&["ls", "latest", "--store", "three"]).expect(1);
    ran.error_says(&["\"three\"", "; ", "files/one, files/two"]);
    home.run(&["ls", "latest", "--store", "files/one"]).expect(0);
    let ran = home.run(&["restore", "latest", "--store", "one", "--to", &out, "--json"]).expect(0);
    assert_eq!(ran.end()["store"], "files/one");
}

#[test]
fn the_usage_asks_for_what_is_missing_only() {
    let home = Home::empty();
    let ran = home.run(&["restore", "latest"]).expect(2);
    let usage = ran.0.stderr.lines().find(|line| line.starts_with("Usage: ")).unwrap();
    assert!(usage.contains("--to <DIR>") && !usage.contains("--repo"), "{usage}");
    let mut command = bare(&["snapshots"]);
    command.env("LIFEBOAT_REPO", "").env("LIFEBOAT_PASSPHRASE", "x");
    run(&mut command).expect(2).error_says(&["--repo", "LIFEBOAT_REPO"]);
}

#[test]
fn words_that_make_no_sense() {
    let home = Home::new();
    home.run(&["backup", "files", &home.tree(), "--name", "tree"]).expect(0);
    let out = home.arg("out");
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["backup"],
        &["backup", "files", "/etc"],
        &["backup", "files", "/etc", "--name", "a/b"],
        &["restore", "latest"],
        &["ls", "latest", "../x"],
        &["snapshots", "--store", "x/"],
        &["--repo", "s3://", "snapshots"],
        &["--repo", "ftp://host/x", "snapshots"],
        &["backup", "files", "/etc", "--name", "x", "--exclude", ""],
        &["backup", "postgres", "--name", "x", "--conninfo", "host=a password=b"],
        &["restore", "latest", "--to", &out, "--tablespace", "/a=/b"],
        &["snapshots", "--quiet", "--verbose"],
    ] {
        let ran = home.run(arguments).expect(2);
        assert!(!ran.0.stderr.is_empty(), "{arguments:?}");
        assert_eq!(ran.0.stdout, "", "{arguments:?}");
    }
    run(&mut bare(&["snapshots"])).expect(2).error_says(&["--repo", "LIFEBOAT_REPO"]);
}

#[test]
fn help_is_no_mistake() {
    for arguments in [&["--help"][..], &["--version"], &["backup", "postgres", "--help"]] {
        let ran = run(&mut bare(arguments)).expect(0);
        assert!(ran.0.stdout.contains("lifeboat") && ran.0.stderr.is_empty(), "{ran}");
    }
}
