//! The commands by themselves, on the files of a real server.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use lifeboat_testbed::postgres::{Cluster, Mode, newest};
use lifeboat_testbed::scratch::hand_over;

use crate::scene::{Scene, Shop, block_on};

/// A stopped cluster with some whole segments in its `pg_wal`, none of which is archived; the names
/// of those.
fn stopped() -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::builder()
        .installation(newest().unwrap())
        .setting("archive_mode", "on")
        .setting("archive_command", "false")
        .start()
        .unwrap();
    let names = block_on(async {
        let shop = Shop::open(&cluster).await;
        let mut names = Vec::new();
        for _ in 0..4 {
            shop.sell(100).await;
            names.push(shop.switch().await);
        }
        names
    });
    cluster.stop(Mode::Fast).unwrap();
    for name in &names {
        assert!(ready(cluster.data_dir(), name).exists());
    }
    (cluster, names)
}

fn ready(data: &Path, name: &str) -> std::path::PathBuf {
    data.join(format!("pg_wal/archive_status/{name}.ready"))
}

fn push<'a>(path: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["wal", "push", path, "--name", "shop"], more].concat()
}

#[test]
fn the_same_is_fine_and_another_is_refused() {
    let scene = Scene::new();
    let (cluster, names) = stopped();
    let data = cluster.data_dir();
    let path = format!("pg_wal/{}", names[0]);
    let none = ["--ahead", "0"];
    for _ in 0..2 {
        scene.run_in(data, &push(&path, &none), 0);
    }
    let original = fs::read(data.join(&path)).unwrap();
    let mut changed = original.clone();
    changed[100_000] ^= 1;
    fs::write(data.join(&path), &changed).unwrap();
    let refused = scene.run_in(data, &push(&path, &none), 1);
    assert!(refused.stderr.contains("other content is there"), "{}", refused.stderr);
    // What is there is the first one.
    let get = ["wal", "get", &names[0], "pg_wal/GIVEN", "--name", "shop"];
    scene.run_in(data, &get, 0);
    assert!(fs::read(data.join("pg_wal/GIVEN")).unwrap() == original);
}

#[test]
fn what_is_not_what_its_name_says_is_refused() {
    let scene = Scene::new();
    let (cluster, names) = stopped();
    let data = cluster.data_dir();
    let good = fs::read(data.join("pg_wal").join(&names[0])).unwrap();
    let mut cases =
        vec![("another segment", fs::read(data.join("pg_wal").join(&names[1])).unwrap())];
    // The magic, the timeline, the address, the system identifier, the segment size.
    for (what, at) in [("magic", 0), ("timeline", 5), ("address", 10), ("system", 27), ("size", 34)]
    {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        cases.push((what, bad));
    }
    cases.push(("short", good[..good.len() - 1].to_vec()));
    cases.push(("zeros", vec![0; good.len()]));
    let path = format!("pg_wal/{}", names[0]);
    for (what, bytes) in cases {
        fs::write(data.join(&path), bytes).unwrap();
        let refused = scene.run_in(data, &push(&path, &[]), 1);
        assert!(refused.stderr.contains("is not what its name says"), "{what}: {}", refused.stderr);
    }
    for name in ["pg_wal/RECOVERYXLOG", "pg_wal/archive_status", "PG_VERSION"] {
        scene.run_in(data, &push(name, &[]), 1);
    }
    // A file that is gone.
    fs::remove_file(data.join(&path)).unwrap();
    scene.run_in(data, &push(&path, &[]), 1);
    assert!(scene.segments().is_empty());
}

#[test]
fn what_waits_is_archived_ahead_and_noted() {
    let scene = Scene::new();
    let (cluster, names) = stopped();
    let data = cluster.data_dir();
    let paths: Vec<_> = names.iter().map(|name| format!("pg_wal/{name}")).collect();
    let result = |ran: &lifeboat_testbed::process::Finished| -> (String, u64) {
        let event: serde_json::Value =
            serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
        (event["result"].as_str().unwrap().to_owned(), event["ahead"].as_u64().unwrap())
    };
    // The third one is damaged: it ends the run, and is told by its own call.
    let third = data.join(&paths[2]);
    let good = fs::read(&third).unwrap();
    fs::write(&third, vec![0; good.len()]).unwrap();
    let ran = scene.run_in(data, &push(&paths[0], &["--json"]), 0);
    assert_eq!(result(&ran), ("archived".to_owned(), 1));
    // The next one is acknowledged by the note, which speaks of a repository that must be there.
    let away = scene.path("away");
    fs::rename(scene.repo(), &away).unwrap();
    scene.run_in(data, &push(&paths[1], &["--json"]), 1);
    scene.run(&["init"], 0);
    let ran = scene.run_in(data, &push(&paths[1], &["--json", "--ahead", "0"]), 0);
    assert_eq!(result(&ran), ("archived".to_owned(), 0));
    fs::remove_dir_all(scene.repo()).unwrap();
    fs::rename(&away, scene.repo()).unwrap();
    let ran = scene.run_in(data, &push(&paths[0], &["--json"]), 0);
    assert_eq!(result(&ran), ("same".to_owned(), 1));
    let ran = scene.run_in(data, &push(&paths[1], &["--json"]), 0);
    assert_eq!(result(&ran), ("noted".to_owned(), 0));
    scene.run_in(data, &push(&paths[2], &[]), 1);
    fs::write(&third, &good).unwrap();
    // A file that was written again is not the one that was noted; it is the same all the same.
    let second = fs::read(data.join(&paths[1])).unwrap();
    fs::write(data.join(&paths[1]), &second).unwrap();
    let ran = scene.run_in(data, &push(&paths[1], &["--json", "--no-cache"]), 0);
    assert_eq!(result(&ran), ("same".to_owned(), 0));
    let ran = scene.run_in(data, &push(&paths[2], &["--json", "--ahead", "0"]), 0);
    assert_eq!(result(&ran), ("archived".to_owned(), 0));
    // Notes are of one repository.
    let ran = scene.run_in(data, &push(&paths[1], &["--json"]), 0);
    assert_eq!(result(&ran), ("same".to_owned(), 2));
    let other = scene.path("other");
    let repo = ["--repo", other.to_str().unwrap()];
    scene.run(&[&repo[..], &["init"]].concat(), 0);
    let ran = scene.run_in(data, &[&repo[..], &push(&paths[2], &["--json"])].concat(), 0);
    assert_eq!(result(&ran), ("archived".to_owned(), 1));
    for name in &names {
        let get = ["wal", "get", name, "pg_wal/GIVEN", "--name", "shop"];
        scene.run_in(data, &get, 0);
        let given = fs::read(data.join("pg_wal/GIVEN")).unwrap();
        assert!(given == fs::read(data.join("pg_wal").join(name)).unwrap());
    }
}

#[test]
fn what_comes_next_is_fetched_ahead_and_checked() {
    let scene = Scene::new();
    let (cluster, names) = stopped();
    let data = cluster.data_dir();
    scene.run_in(data, &push(&format!("pg_wal/{}", names[0]), &[]), 0);
    let get = |number: usize, code: i32| {
        let get = ["wal", "get", &names[number], "pg_wal/GIVEN", "--name", "shop", "--json"];
        let ran = scene.run_in(data, &get, code);
        if code == 0 {
            let given = fs::read(data.join("pg_wal/GIVEN")).unwrap();
            assert!(given == fs::read(data.join("pg_wal").join(&names[number])).unwrap());
        }
        let event: serde_json::Value =
            serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
        event["result"].as_str().unwrap_or_default().to_owned()
    };
    let spool = || fs::read_dir(scene.path("cache/wal")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(get(0, 0), "given");
    let away = scene.path("away");
    fs::rename(scene.repo(), &away).unwrap();
    assert_eq!(get(1, 0), "fetched");
    // One bit, and something of another name: neither is given, nor taken for the end.
    let [third, fourth] = [2, 3].map(|number: usize| spool().join(&names[number]));
    let good = fs::read(&third).unwrap();
    let mut bad = good.clone();
    bad[9_000_000] ^= 1;
    fs::write(&third, bad).unwrap();
    fs::write(&fourth, good).unwrap();
    get(2, 126);
    get(3, 126);
    assert!(!third.exists() && !fourth.exists());
    fs::rename(&away, scene.repo()).unwrap();
    assert_eq!(get(2, 0), "given");
    // What was fetched for one cluster is not for another, and goes at the end of the archive.
    assert!(fourth.exists());
    let next = format!("{:024X}", u128::from_str_radix(&names[3], 16).unwrap() + 1);
    let absent = ["wal", "get", &next, "pg_wal/GIVEN", "--name", "shop"];
    scene.run_in(data, &absent, 1);
    assert!(!fourth.exists());
}

#[test]
fn a_hole_is_filled_from_pg_wal_or_recorded() {
    let scene = Scene::new();
    let (cluster, names) = stopped();
    let data = cluster.data_dir();
    let none = ["--ahead", "0"];
    let at = |number: usize| format!("pg_wal/{}", names[number]);
    let gaps = || -> Vec<serde_json::Value> {
        let mut command = scene.command(&["journals", "--json"]);
        let listed = lifeboat_testbed::process::run(&mut command, crate::scene::LIMIT).unwrap();
        let events = listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
        events.filter(|event: &serde_json::Value| event["event"] == "gap").collect()
    };
    scene.run_in(data, &push(&at(0), &none), 0);
    // It waits: it will come by itself.
    scene.run_in(data, &push(&at(2), &none), 0);
    assert_eq!(gaps().len(), 1, "it is seen, and not recorded");
    assert!(gaps()[0]["reason"].is_null(), "{:?}", gaps());
    // The server counts it as archived, and it is still there.
    fs::rename(
        ready(data, &names[1]),
        data.join(format!("pg_wal/archive_status/{}.done", names[1])),
    )
    .unwrap();
    fs::remove_dir_all(scene.path("cache")).ok();
    let other = scene.path("other");
    let repo = ["--repo", other.to_str().unwrap()];
    scene.run(&[&repo[..], &["init"]].concat(), 0);
    let there = |number: usize| {
        [&repo[..], &push(&at(number), &none)]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let run = |arguments: Vec<String>| {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        scene.run_in(data, &arguments, 0)
    };
    run(there(0));
    let filled = run(there(2));
    assert!(filled.stderr.contains("1 segments before"), "{}", filled.stderr);
    let get = ["wal", "get", &names[1], "pg_wal/GIVEN", "--name", "shop"];
    scene.run_in(data, &[&repo[..], &get].concat(), 0);
    // It is gone: the gap is recorded when it is found, with its reason.
    fs::remove_file(data.join(at(1))).unwrap();
    scene.run(&["--repo", scene.path("third").to_str().unwrap(), "init"], 0);
    let third = scene.path("third");
    let repo = ["--repo", third.to_str().unwrap()];
    for number in [0, 2] {
        scene.run_in(data, &[&repo[..], &push(&at(number), &none)].concat(), 0);
    }
    let mut command = scene.command(&[&repo[..], &["journals", "--json"]].concat());
    let listed = lifeboat_testbed::process::run(&mut command, crate::scene::LIMIT).unwrap();
    let gap = listed.stdout.lines().find(|line| line.contains("\"event\":\"gap\"")).unwrap();
    assert!(gap.contains("did not have it in pg_wal any more"), "{gap}");
}

#[test]
fn who_may_write_and_not_read_can_archive() {
    let scene = Scene::new();
    let (cluster, names) = stopped();
    let data = cluster.data_dir();
    fs::write(scene.path("writer"), "a writer's\n").unwrap();
    hand_over(&scene.path("writer")).unwrap();
    let file = scene.path("writer").to_str().unwrap().to_owned();
    let add = ["key", "add", "--write-only", "--label", "db1", "--new-passphrase-file", &file];
    scene.run(&add, 0);
    let writer = ["--passphrase-file", &file, "--ahead", "0"];
    for number in [0, 0, 2, 1] {
        let path = format!("pg_wal/{}", names[number]);
        scene.run_in(data, &push(&path, &writer), 0);
    }
    fs::write(data.join("pg_wal/00000002.history"), "1\t0/9000000\tx\n").unwrap();
    hand_over(&data.join("pg_wal/00000002.history")).unwrap();
    for _ in 0..2 {
        scene.run_in(data, &push("pg_wal/00000002.history", &writer), 0);
    }
    let get = ["wal", "get", &names[1], "pg_wal/GIVEN", "--name", "shop"];
    scene.run_in(data, &[&get[..], &["--passphrase-file", &file]].concat(), 126);
    scene.run_in(data, &get, 0);
}

#[test]
fn another_system_needs_words() {
    let scene = Scene::new();
    let (one, first) = stopped();
    let (two, second) = stopped();
    scene.run_in(one.data_dir(), &push(&format!("pg_wal/{}", first[0]), &[]), 0);
    let path = format!("pg_wal/{}", second[0]);
    let refused = scene.run_in(two.data_dir(), &push(&path, &[]), 1);
    assert!(refused.stderr.contains("lifeboat wal adopt"), "{}", refused.stderr);
    let unknown = ["wal", "get", &second[0], "pg_wal/GIVEN", "--name", "shop"];
    let told = scene.run_in(two.data_dir(), &unknown, 126);
    assert!(told.stderr.contains("holds no WAL of the system"), "{}", told.stderr);
    scene.run_in(two.data_dir(), &["wal", "adopt", "--name", "shop"], 0);
    // It is known now; its segments are its own, though the other one's have the same names.
    scene.run_in(two.data_dir(), &unknown, 1);
    scene.run_in(two.data_dir(), &push(&path, &[]), 0);
    for (cluster, name) in [(&one, &first[0]), (&two, &second[0])] {
        let data = cluster.data_dir();
        scene.run_in(data, &["wal", "get", name, "pg_wal/GIVEN", "--name", "shop"], 0);
        let given = fs::read(data.join("pg_wal/GIVEN")).unwrap();
        assert!(given == fs::read(data.join("pg_wal").join(name)).unwrap());
    }
}

#[test]
fn a_second_name_for_a_cluster_is_told_once() {
    let scene = Scene::new();
    let (cluster, names) = stopped();
    let data = cluster.data_dir();
    let push = |name: &str, file: &str| {
        let path = format!("pg_wal/{file}");
        let said = scene.run_in(data, &["wal", "push", &path, "--name", name], 0).stderr;
        said.contains("is kept under the name shop already")
    };
    assert!(!push("shop", &names[0]));
    assert!(push("shpo", &names[0]));
    assert!(!push("shpo", &names[1]));
    assert!(!push("shop", &names[1]));
}

#[test]
fn backup_and_partial_files_are_kept_and_given_for_nothing_else() {
    let scene = Scene::new();
    let (cluster, names) = stopped();
    let data = cluster.data_dir();
    scene.run_in(data, &push(&format!("pg_wal/{}", names[0]), &["--ahead", "0"]), 0);
    let whole = data.join("pg_wal").join(&names[1]);
    let partial = format!("{}.partial", names[1]);
    fs::copy(&whole, data.join("pg_wal").join(&partial)).unwrap();
    let backup = format!("{}.00000028.backup", names[0]);
    fs::write(data.join("pg_wal").join(&backup), "START WAL LOCATION: 0/1000028\n").unwrap();
    for name in [&partial, &backup] {
        let path = format!("pg_wal/{name}");
        hand_over(&data.join(&path)).unwrap();
        for _ in 0..2 {
            scene.run_in(data, &push(&path, &[]), 0);
        }
        scene.run_in(data, &["wal", "get", name, "pg_wal/GIVEN", "--name", "shop"], 0);
        let content = fs::read(data.join(&path)).unwrap();
        assert!(fs::read(data.join("pg_wal/GIVEN")).unwrap() == content);
        let mut changed = content;
        let last = changed.len() - 1;
        changed[last] ^= 1;
        fs::write(data.join(&path), changed).unwrap();
        scene.run_in(data, &push(&path, &[]), 1);
    }
    scene.run_in(data, &["wal", "get", &names[1], "pg_wal/GIVEN", "--name", "shop"], 1);
    // They make no gaps, and no damage.
    scene.run(&["journals"], 0);
    scene.run(&["verify", "--every-byte"], 0);
}

#[test]
fn a_store_that_does_not_answer_is_not_the_end() {
    let (cluster, names) = stopped();
    // Nobody listens there.
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let start = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.args(arguments).current_dir(cluster.data_dir()).env_clear();
        command.env("LIFEBOAT_REPO", "s3://bucket/repo").env("LIFEBOAT_PASSPHRASE", "x");
        command.env("AWS_ENDPOINT", &endpoint).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b");
        command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let get = ["wal", "get", &names[0], "pg_wal/GIVEN", "--name", "shop"];
    let path = format!("pg_wal/{}", names[0]);
    let standby = [&get[..], &["--standby"]].concat();
    // Each waits for the store as long as it does; all at once.
    let all = [(&get[..], 126), (&standby, 1), (&push(&path, &[]), 1)]
        .map(|(arguments, code)| (start(arguments), code));
    let mut stopped = start(&get);
    let mut told = BufReader::new(stopped.stderr.take().unwrap()).lines();
    assert!(told.next().unwrap().unwrap().contains("trying again"));
    let pid = stopped.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    // As the server knows it of what SIGTERM ended.
    assert_eq!(stopped.wait().unwrap().code(), Some(143));
    for (child, code) in all {
        let ended = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(code), "{told}");
        assert!(told.contains("no connection to the store"), "{told}");
    }
}
