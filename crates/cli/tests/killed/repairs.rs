//! Repairs. Two stores have one repository; what the second one alone needs is damaged. A repair
//! that is killed makes nothing worse, and the next one brings it to its end: what is not damaged
//! restores byte for byte all the time, and what is, is named.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::scene::{Scene, events, kills, same};

/// Beyond the limit below which files of one store share a pack with their neighbours.
const FILE: usize = 2_500_000;

fn files(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.insert(path);
        }
    }
    found
}

/// What there is before anything is damaged.
struct Before {
    /// The packs that only the second store needs.
    packs: Vec<PathBuf>,
    /// Its snapshot.
    hurt: String,
}

fn prepare(scene: &mut Scene) -> Before {
    scene.init("before");
    let mut before = Before { packs: Vec::new(), hurt: String::new() };
    for name in ["kept", "hurt"] {
        fs::create_dir(scene.path(name)).unwrap();
        for number in 0..12 {
            let bytes = scene.random.bytes(FILE);
            fs::write(scene.path(name).join(format!("file-{number}")), bytes).unwrap();
        }
        let earlier = files(&scene.path("before/packs"));
        let tree = scene.text(name);
        let taken = scene.done("before", &["backup", "files", &tree, "--name", name, "--json"]);
        before.hurt = events(&taken, "summary")[0]["snapshot"].as_str().unwrap().to_owned();
        let now = files(&scene.path("before/packs"));
        let inside = |path: &PathBuf| path.strip_prefix(scene.path("before")).unwrap().to_owned();
        before.packs = now.difference(&earlier).map(inside).collect();
    }
    assert!(before.packs.len() > 2, "{:?}", before.packs);
    before
}

fn assert_kept(scene: &Scene) {
    scene.assert_restores("repository", &["latest", "--store", "kept"], "kept");
}

#[test]
fn a_repair_of_the_index_killed_at_any_moment_is_finished_by_the_next() {
    let mut scene = Scene::new(&["own"]);
    prepare(&mut scene);
    let damage = |scene: &mut Scene| {
        scene.replace("repository", "before");
        let objects = files(&scene.path("repository/index"));
        assert!(!objects.is_empty());
        let all = scene.random.below(2) == 0;
        let chosen = scene.random.below(objects.len());
        for (number, object) in objects.iter().enumerate() {
            if all || number == chosen {
                let mut bytes = fs::read(object).unwrap();
                match scene.random.below(3) {
                    0 => fs::remove_file(object).unwrap(),
                    1 => fs::write(object, &bytes[..bytes.len() / 2]).unwrap(),
                    _ => {
                        let middle = bytes.len() / 2;
                        bytes[middle] ^= 4;
                        fs::write(object, bytes).unwrap();
                    }
                }
            }
        }
    };
    damage(&mut scene);
    scene.timed("repair index", "repository", &["repair", "index"]);
    for round in 0..kills(6) {
        damage(&mut scene);
        for _ in 0..=scene.random.below(2) {
            scene.kill("repair index", "repository", &["repair", "index"]);
            scene.let_time_pass("repository");
        }
        scene.done("repository", &["repair", "index"]);
        scene.assert_sound("repository", &format!("round {round}"));
        assert_kept(&scene);
        scene.assert_restores("repository", &["latest", "--store", "hurt"], "hurt");
    }
    scene.tell();
}

/// Harms one to three packs of the second store, so that a check of sizes finds it or only one of
/// every byte does.
fn harm_packs(scene: &mut Scene, before: &Before) {
    scene.replace("repository", "before");
    for _ in 0..=scene.random.below(3) {
        let pack = &before.packs[scene.random.below(before.packs.len())];
        let pack = scene.path("repository").join(pack);
        // It may have been chosen before.
        let Ok(mut bytes) = fs::read(&pack) else { continue };
        match scene.random.below(3) {
            0 => fs::remove_file(pack).unwrap(),
            1 => {
                let left = scene.random.below(bytes.len());
                fs::write(pack, &bytes[..left]).unwrap();
            }
            _ => {
                let at = scene.random.below(bytes.len());
                bytes[at] ^= 4;
                fs::write(pack, bytes).unwrap();
            }
        }
    }
}

/// The snapshots that are named as hurt.
fn named(scene: &Scene) -> BTreeSet<String> {
    let verified = scene.run("repository", &["verify", "--every-byte", "--json"]);
    let damage = events(&verified, "damage");
    let code = verified.status.code();
    assert_eq!(code, Some(i32::from(!damage.is_empty())), "{}", verified.stderr);
    let snapshots = damage.iter().flat_map(|damage| damage["snapshots"].as_array().unwrap());
    snapshots.map(|id| id.as_str().unwrap().to_owned()).collect()
}

#[test]
fn repairs_of_packs_and_snapshots_killed_at_any_moment_are_finished_by_the_next() {
    let mut scene = Scene::new(&["own"]);
    let before = prepare(&mut scene);
    let packs = ["repair", "packs"];
    let snapshots = ["repair", "snapshots", "--forget"];
    let hurt = BTreeSet::from([before.hurt.clone()]);
    // How long each takes, at its longest.
    scene.replace("repository", "before");
    for pack in &before.packs {
        let pack = scene.path("repository").join(pack);
        let mut bytes = fs::read(&pack).unwrap();
        bytes[200] ^= 4;
        fs::write(pack, bytes).unwrap();
    }
    assert_eq!(named(&scene), hurt);
    for (kind, command) in [("repair packs", &packs[..]), ("repair snapshots", &snapshots[..])] {
        let ended = scene.run("repository", command);
        assert!(ended.status.code().is_some_and(|code| code < 4), "{}", ended.stderr);
        scene.takes(kind, ended.moved);
    }

    for round in 0..kills(6) {
        let what = format!("round {round}");
        harm_packs(&mut scene, &before);
        // Where the harm is in what no snapshot needs, such as a directory of a pack, it is told,
        // and nobody is hurt.
        let is_hurt = named(&scene);
        assert!(is_hurt.is_subset(&hurt), "{what}: {is_hurt:?}");
        assert_kept(&scene);
        for _ in 0..=scene.random.below(2) {
            scene.kill("repair packs", "repository", &packs);
            scene.let_time_pass("repository");
            assert!(named(&scene).is_subset(&is_hurt), "{what}");
            assert_kept(&scene);
        }
        let ended = scene.run("repository", &packs);
        assert!(matches!(ended.status.code(), Some(0 | 3)), "{what}: {}", ended.stderr);
        let idle = scene.run("repository", &["repair", "packs", "--json"]);
        assert_eq!(events(&idle, "summary")[0]["packs"], 0, "{what}: {}", idle.stderr);
        // Nobody that was not hurt is hurt, and what is whole again was saved.
        let still = named(&scene);
        assert!(still.is_subset(&is_hurt), "{what}: {still:?}");

        for _ in 0..=scene.random.below(2) {
            scene.kill("repair snapshots", "repository", &snapshots);
            scene.let_time_pass("repository");
            assert!(named(&scene).is_subset(&hurt), "{what}");
            assert_kept(&scene);
        }
        let ended = scene.run("repository", &[&snapshots[..], &["--json"]].concat());
        let summary = events(&ended, "summary").remove(0);
        let beyond = summary["beyond_repair"].as_u64().unwrap();
        let left = named(&scene);
        assert_eq!(left.len() as u64, beyond, "{what}: {left:?}, {}", ended.stderr);
        assert_kept(&scene);
        if still.is_empty() {
            scene.assert_restores("repository", &["latest", "--store", "hurt"], "hurt");
        } else if beyond == 0 {
            assert_sibling(&scene, &what);
        }
        if beyond == 0 {
            // What was damaged goes, and nothing else.
            scene.done("repository", &["prune", "--keep-marked", "0s"]);
            scene.assert_sound("repository", &what);
            assert_kept(&scene);
        }
    }
    scene.tell();
}

/// The sibling has whole files under their names, and others under names that say so.
fn assert_sibling(scene: &Scene, what: &str) {
    let to = scene.text("restored");
    let _ = fs::remove_dir_all(&to);
    scene.done("repository", &["restore", "latest", "--store", "hurt", "--to", &to]);
    for path in files(Path::new(&to)) {
        let name = path.file_name().unwrap().to_str().unwrap();
        match name.strip_suffix(".lifeboat-damaged") {
            None => same(&scene.path("hurt").join(name), &path),
            Some(whole) => {
                let (is, was) = (fs::read(&path), fs::read(scene.path("hurt").join(whole)));
                let (is, was) = (is.unwrap(), was.unwrap());
                assert!(is.len() == was.len() && is != was, "{what}: {name}");
                let wrong = is.iter().zip(&was).any(|(is, was)| is != was && *is != 0);
                assert!(!wrong, "{what}: {name} has bytes that were never in it");
            }
        }
    }
}
