//! Looking into snapshots: `find`, `cat` and `diff`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::common::{Home, contents};

/// A repository with two snapshots of one tree, the older first.
fn two() -> (Home, String, String) {
    let home = Home::new();
    let tree = home.tree();
    let take = || {
        let ran = home.run(&["backup", "files", &tree, "--name", "t", "--json"]).expect(0);
        ran.end()["snapshot"].as_str().unwrap().to_owned()
    };
    let first = take();
    let at = |name: &str| home.path("tree").join(name);
    fs::write(at("greeting"), "goodbye").unwrap();
    fs::set_permissions(at("sub/data"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(at("new\n"), "new").unwrap();
    fs::remove_dir(at("sub/deeper")).unwrap();
    fs::write(at("sub/deeper"), "a file now").unwrap();
    fs::remove_file(at("link")).unwrap();
    let second = take();
    (home, first, second)
}

#[test]
fn a_diff_says_what_happened_to_each_entry() {
    let (home, first, second) = two();
    let ran = home.run(&["diff", &first, "latest", "--content-only"]).expect(0);
    let expected = "M  greeting\n-  link\n+  new\\n\nT  sub/deeper  (directory, now file)\n";
    assert_eq!(ran.0.stdout, expected);
    assert!(ran.0.stderr.contains("1 entry added, 1 removed, 2 changed"), "{ran}");
    let ran = home.run(&["diff", &first, &second, "/sub/data"]).expect(0);
    let line = ran.0.stdout.as_str();
    assert!(line.starts_with("U  sub/data  (") && line.contains("mode"), "{line}");
    let ran = home.run(&["diff", &second, &first, "--json"]).expect(0);
    let changes = ran.events_of("change");
    let of = |word: &str| -> Vec<&str> {
        let of_word = changes.iter().filter(|change| change["change"] == word);
        let sides = of_word.map(|change| [&change["after"], &change["before"]]);
        sides
            .map(|[after, before]| after["path"].as_str().or(before["path"].as_str()).unwrap())
            .collect()
    };
    assert_eq!(of("added"), ["link"]);
    assert_eq!(of("removed"), ["new\\n"]);
    assert_eq!(of("content"), ["greeting"]);
    assert_eq!(of("replaced"), ["sub/deeper"]);
    assert_eq!(ran.end()["attributes"], of("attributes").len());
    let replaced = changes.iter().find(|change| change["change"] == "replaced").unwrap();
    assert_eq!(replaced["after"]["kind"], "directory");
    let ran = home.run(&["diff", &second, &second]).expect(0);
    assert_eq!(ran.0.stdout, "");
    assert!(ran.0.stderr.contains("0 entries added, 0 removed, 0 changed"), "{ran}");
    home.run(&["diff", &second, "0000"]).expect(1).error_says(&["0000", "lifeboat snapshots"]);
}

#[test]
fn what_is_found_says_where_it_lives() {
    let (home, first, second) = two();
    home.run(&["backup", "files", &home.arg("tree"), "--name", "other"]).expect(0);
    let all = home.run(&["find", "data", "greet*", "--store", "t", "--json"]).expect(0);
    let found: BTreeSet<_> = all
        .events_of("found")
        .iter()
        .map(|found| (found["path"].to_string(), found["snapshots"].to_string()))
        .collect();
    let one = |path: &str, id: &str| (format!("\"{path}\""), format!("[\"{id}\"]"));
    let expected = ["greeting", "sub/data"]
        .iter()
        .flat_map(|path| [one(path, &first), one(path, &second)])
        .collect();
    assert_eq!(found, expected);
    assert_eq!(all.end()["snapshots"], 2);
    let ran = home.run(&["find", "--in", &second, "--kind", "file"]).expect(0);
    assert_eq!(ran.0.stdout, "greeting\nnew\\n\nsub/data\nsub/deeper\n");
    let ran = home.run(&["find", "--in", &first, "--min-size", "100kB"]).expect(0);
    assert_eq!(ran.0.stdout, "sub/data\n");
    let ran = home.run(&["find", "--store", "t", "--beneath", "sub", "-l", "/sub/da*"]).expect(0);
    let lines: Vec<_> = ran.0.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{ran}");
    assert!(lines[0].starts_with(&second[..8]) && lines[0].contains("-rw-------"), "{ran}");
    assert!(lines[1].starts_with(&first[..8]), "{ran}");
    let ran = home.run(&["find", "nothing-like-it"]).expect(0);
    assert_eq!(ran.0.stdout, "");
    assert!(ran.0.stderr.contains("0 entries found in 3 snapshots"), "{ran}");
    home.run(&["find", "a//b"]).expect(2);
    home.run(&["find", "--changed-since", "soon"]).expect(2);
}

#[test]
fn cat_writes_just_the_bytes() {
    let (home, first, second) = two();
    let data = fs::read(home.path("tree/sub/data")).unwrap();
    let cat = |arguments: &[&str]| {
        let arguments: Vec<_> = ["cat"].iter().chain(arguments).copied().collect();
        let output = home.command(&arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    assert_eq!(cat(&[&first, "greeting"]), b"hello");
    assert_eq!(cat(&["latest", "/greeting"]), b"goodbye");
    assert!(cat(&[&second, "sub/data"]) == data);
    assert_eq!(cat(&[&second, "greeting", "--offset", "4", "--length", "2"]), b"by");
    assert_eq!(cat(&[&second, "greeting", "--offset", "1kB"]), b"");
    home.run(&["cat", &first, "link"]).expect(1).error_says(&["link", "symlink"]);
    home.run(&["cat", &first, "nothing"]).expect(1).error_says(&["nothing", "lifeboat ls"]);
    let ran = home.run(&["cat", &first, "greeting", "--json"]).expect(2);
    assert_eq!(ran.end()["kind"], "usage");

    // Who has read enough may go.
    let mut command = home.command(&["cat", &second, "sub/data"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut few = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut few).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Nothing that is damaged is written.
    for (path, mut bytes) in contents(&home.repo().join("packs")) {
        for byte in &mut bytes {
            *byte ^= 1;
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let ran = home.run(&["cat", &second, "greeting"]).expect(1);
    assert_eq!(ran.0.stdout, "");
    ran.error_says(&["damaged", "lifeboat verify"]);
}

#[test]
fn stats_say_what_each_snapshot_alone_holds() {
    let (home, first, second) = two();
    let ran = home.run(&["stats", "--json"]).expect(0);
    let snapshots = ran.events_of("snapshot_stats");
    let ids: Vec<_> = snapshots.iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&first, &second]);
    for snapshot in &snapshots {
        let stored = |part: &str| snapshot[part]["stored"].as_u64().unwrap();
        assert!(0 < stored("alone") && stored("alone") < stored("referenced"), "{snapshot}");
    }
    let end = ran.end();
    assert_eq!(end["missing"], 0);
    assert!(end["deduplication_ratio"].as_f64().unwrap() > 1.5, "{end}");
    let ran = home.run(&["stats", "--store", "t"]).expect(0);
    for word in [&first[..8], &second[..8], "without repetitions", "the whole repository"] {
        assert!(ran.0.stdout.contains(word), "{ran}");
    }
}
