//! One byte flipped in each object of a repository in turn: it is found, told by name with whom it
//! hurts, and never restored.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Home, Ran, contents};

/// The first chunk of a pack begins behind its header of 64 bytes.
const IN_A_CHUNK: usize = 70;

/// Two stores with content of their own, each with one snapshot: name, and id.
fn two_stores(home: &Home) -> Vec<(String, String)> {
    ["one", "two"]
        .iter()
        .enumerate()
        .map(|(number, name)| {
            fs::create_dir(home.path(name)).unwrap();
            fs::write(home.path(name).join("noise"), noise(number as u64 + 1)).unwrap();
            fs::write(home.path(name).join("name"), name).unwrap();
            let take = ["backup", "files", &home.arg(name), "--name", name, "--json"];
            let taken = home.run(&take).expect(0).end();
            ((*name).to_owned(), taken["snapshot"].as_str().unwrap().to_owned())
        })
        .collect()
}

/// Bytes that do not compress.
fn noise(mut state: u64) -> Vec<u8> {
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).take(20_000).flatten().collect()
}

fn object_of<'a>(home: &Home, path: &'a Path) -> (String, &'a Path) {
    let name = path.strip_prefix(home.repo()).unwrap().to_str().unwrap();
    (name.to_owned(), path)
}

/// Which kind of object the damage is in.
fn kind_of(object: &str, damage: &Value) -> &'static str {
    let entries = damage["entries"].as_array().unwrap();
    match object.split('/').next().unwrap() {
        "lifeboat.json" => "configuration",
        "keys" => "key",
        "index" => "index",
        "snapshots" => "snapshot",
        "packs" if entries.is_empty() => "pack of trees",
        "packs" => "pack of data",
        other => panic!("an object of an unknown kind: {other}"),
    }
}

fn restore(home: &Home, id: &str) -> Ran {
    let _ = fs::remove_dir_all(home.path("out"));
    home.run(&["restore", id, "--to", &home.arg("out")])
}

#[test]
fn one_flipped_byte_is_named_and_never_restored() {
    let home = Home::new();
    let stores = two_stores(&home);
    let mut kinds = BTreeSet::new();
    let objects = contents(&home.repo());
    for (path, bytes) in &objects {
        let (object, path) = object_of(&home, path);
        let at = if object.starts_with("packs/") { IN_A_CHUNK } else { bytes.len() / 2 };
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        fs::write(path, flipped).unwrap();

        let ran = home.run(&["verify", "--every-byte", "--json"]).expect(1);
        let damage = ran.events_of("damage");
        assert_eq!(damage.len(), 1, "{object}: {ran}");
        assert_eq!(damage[0]["object"], object, "{ran}");
        assert_eq!(ran.end()["sound"], false, "{ran}");
        assert!(ran.0.stderr.contains(&format!("damaged: {object}: ")), "{ran}");
        let hurt: Vec<_> = damage[0]["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap())
            .collect();
        assert!(!hurt.is_empty(), "{object}: whom it hurts is not told: {ran}");
        kinds.insert(kind_of(&object, &damage[0]));
        for (store, id) in &stores {
            let restored = restore(&home, id);
            if hurt.contains(&id.as_str()) {
                assert!(ran.0.stderr.contains(&id[..8]), "{object}: {ran}");
                restored.expect(1).error();
                let out = home.path("out");
                let left = if out.exists() { contents(&out) } else { Vec::new() };
                assert!(left.is_empty(), "{object}: a part of a tree was left: {left:?}");
            } else {
                restored.expect(0);
                for name in ["noise", "name"] {
                    let read = |dir: &str| fs::read(home.path(dir).join(name)).unwrap();
                    assert_eq!(read("out"), read(store), "{object}: {name} of {store}");
                }
            }
        }
        if object.starts_with("snapshots/") {
            // A list shows the others, and says what it lacks.
            let ran = home.run(&["snapshots", "--json"]).expect(3);
            assert_eq!(ran.events_of("snapshot").len(), stores.len() - 1, "{ran}");
            assert_eq!(ran.events_of("warning")[0]["subject"], object, "{ran}");
            assert_eq!(ran.end()["damaged"], 1, "{ran}");
            assert!(ran.0.stderr.contains(&format!("warning: {object}: ")), "{ran}");
            // Nobody knows whether the newest that is left is the newest that there was.
            let ran = home.run(&["ls", "latest"]).expect(3);
            assert!(ran.0.stderr.contains("may be the latest"), "{ran}");
        }
        fs::write(path, bytes).unwrap();
    }
    let all = ["configuration", "index", "key", "pack of data", "pack of trees", "snapshot"];
    assert_eq!(kinds, BTreeSet::from(all));
    home.run(&["verify", "--every-byte"]).expect(0);
}
