//! Restores into a scratch server: what is sound is found sound, what is not is named, and nothing
//! is left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use lifeboat_testbed::data;
use lifeboat_testbed::postgres::{Cluster, Installation, Mode, installations, of_major};
use lifeboat_testbed::scratch::hand_over;
use serde_json::Value;

use crate::scene::{LIMIT, Scene, block_on};

/// The programs of an installation, in a directory of their own, with the libraries they need.
pub(crate) fn programs(scene: &Scene, installation: &Installation) -> PathBuf {
    let directory = scene.path("programs");
    fs::create_dir_all(&directory).unwrap();
    let libraries: Vec<_> =
        installation.lib_dirs.iter().map(|dir| dir.display().to_string()).collect();
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={} exec {}/postgres \"$@\"\n",
        libraries.join(":"),
        installation.bin_dir.display()
    );
    fs::write(directory.join("postgres"), script).unwrap();
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.join("postgres"), executable).unwrap();
    directory
}

/// A directory in which scratch servers are made.
pub(crate) fn place(scene: &Scene) -> PathBuf {
    let place = scene.path("s");
    fs::create_dir_all(&place).unwrap();
    hand_over(&place).unwrap();
    place
}

pub(crate) fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

fn backup(scene: &Scene, cluster: &Cluster, code: i32) {
    let conninfo = cluster.conninfo();
    scene.run(&["backup", "postgres", "--name", "shop", "--conninfo", &conninfo], code);
}

/// Rehearses a restore; what it says at the end, and what it found.
fn rehearse(
    scene: &Scene,
    installation: &Installation,
    more: &[&str],
    code: i32,
) -> (Value, Vec<Value>) {
    let (programs, place) = (programs(scene, installation), place(scene));
    let mut arguments = vec!["verify", "--restore", "latest", "--store", "shop", "--json"];
    arguments.extend(["--programs", programs.to_str().unwrap()]);
    arguments.extend(["--scratch", place.to_str().unwrap()]);
    arguments.extend(more);
    let out = scene.run(&arguments, code).stdout;
    assert!(is_empty(&place), "something is left in {}", place.display());
    let events: Vec<Value> =
        out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
    let of = |name: &str| {
        events.iter().filter(|event| event["event"] == name).cloned().collect::<Vec<_>>()
    };
    (of("summary").pop().unwrap(), of("problem"))
}

#[test]
fn a_sound_cluster_is_found_sound_on_every_version() {
    for installation in &installations() {
        let scene = Scene::new();
        let mut cluster = scene.cluster(installation).start().unwrap();
        block_on(async {
            let client = cluster.connect("postgres").await.unwrap();
            data::seed(&client, data::Size::TINY).await.unwrap();
            let space = cluster.create_tablespace_dir().unwrap();
            let space = format!("CREATE TABLESPACE fast LOCATION '{}'", space.display());
            client.batch_execute(&space).await.unwrap();
            let more = "CREATE TABLE quick TABLESPACE fast AS SELECT generate_series(1, 500) AS n; \
                        CREATE TABLE \"Odd.Name\" (\"a b\" int PRIMARY KEY); \
                        CREATE TABLE refers (x int REFERENCES \"Odd.Name\"); \
                        INSERT INTO \"Odd.Name\" VALUES (1); INSERT INTO refers VALUES (1), (NULL); \
                        CREATE DATABASE other";
            for statement in more.split("; ") {
                client.batch_execute(statement).await.unwrap();
            }
            let counted: i64 =
                client.query_one("SELECT count(*) FROM customers", &[]).await.unwrap().get(0);
            backup(&scene, &cluster, 0);
            client.batch_execute("INSERT INTO quick VALUES (501)").await.unwrap();
            client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
            let checks = format!(
                r#"[{{"database": "postgres", "sql": "SELECT count(*) FROM customers", "expect": {counted}}},
                    {{"database": "other", "sql": "SELECT NULL, 'x'", "expect": [[null, "x"]]}},
                    {{"database": "postgres", "sql": "SELECT max(n) FROM quick", "expect": 501}}]"#
            );
            let file = scene.path("checks.json");
            fs::write(&file, checks).unwrap();
            let checks = ["--checks", file.to_str().unwrap()];

            // Where amcheck is not installed, that needs attention.
            let has_amcheck: bool = client
                .query_one(
                    "SELECT count(*) > 0 FROM pg_available_extensions WHERE name = 'amcheck'",
                    &[],
                )
                .await
                .unwrap()
                .get(0);
            let sound = if has_amcheck { 0 } else { 3 };
            let begun = Instant::now();
            let archived = "SELECT archived_count > 0 FROM pg_stat_archiver";
            while !client.query_one(archived, &[]).await.unwrap().get::<_, bool>(0) {
                assert!(begun.elapsed() < LIMIT, "{}", cluster.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            cluster.stop(Mode::Fast).unwrap();

            // To the end of the WAL the last row is there, in the snapshot alone it is not.
            let latest = [&checks[..], &["--to-latest"]].concat();
            let (summary, problems) = rehearse(&scene, installation, &latest, sound);
            assert_eq!(problems, [] as [Value; 0]);
            assert_eq!(summary["sound"], true);
            assert_eq!((&summary["databases"], &summary["queries"]), (&3.into(), &3.into()));
            assert!(summary["tables"].as_u64().unwrap() > 8, "{summary}");
            assert!(summary["foreign_keys"].as_u64().unwrap() > 2, "{summary}");
            assert_eq!(summary["indexes"].as_u64().unwrap() > 100, has_amcheck, "{summary}");
            let (_, problems) = rehearse(&scene, installation, &checks, 1);
            let [one] = &problems[..] else { panic!("{problems:?}") };
            assert_eq!(one["what"], "it answers (500), and should answer (501)");
            // Nothing of it was archived: no timeline came about.
            let journals = scene.run(&["journals", "--json"], 0).stdout;
            assert!(!journals.contains("/2\""), "{journals}");
        });
    }
}

#[test]
fn what_is_not_sound_is_named() {
    let installation = of_major(15).unwrap();
    let scene = Scene::new();
    let mut cluster =
        Cluster::builder().installation(installation).checksums(false).start().unwrap();
    block_on(async {
        let client = cluster.connect("postgres").await.unwrap();
        let work = "CREATE TABLE parent (id int PRIMARY KEY); \
                    CREATE TABLE child (p int REFERENCES parent); \
                    INSERT INTO parent SELECT generate_series(1, 1000); \
                    INSERT INTO child VALUES (1), (2), (3); \
                    SET session_replication_role = replica; DELETE FROM parent WHERE id = 2; \
                    RESET session_replication_role; CREATE TABLE damaged AS SELECT 7 AS n; CHECKPOINT";
        for statement in work.split("; ") {
            client.batch_execute(statement).await.unwrap();
        }
        let path = |relation: &'static str| {
            let client = &client;
            async move {
                let sql = format!("SELECT pg_relation_filepath('{relation}')");
                client.query_one(&sql, &[]).await.unwrap().get::<_, String>(0)
            }
        };
        let (index, table) = (path("parent_pkey").await, path("damaged").await);
        cluster.stop(Mode::Fast).unwrap();
        // A key in the index becomes another one.
        let index = cluster.data_dir().join(index);
        let mut bytes = fs::read(&index).unwrap();
        let key = 500_u32.to_ne_bytes();
        let at = (8192..bytes.len()).find(|at| bytes[*at..].starts_with(&key)).unwrap();
        bytes[at..at + 4].copy_from_slice(&90_000_u32.to_ne_bytes());
        fs::write(&index, bytes).unwrap();
        // The only row of the table claims to begin beyond its page.
        let table = cluster.data_dir().join(table);
        let mut bytes = fs::read(&table).unwrap();
        bytes[24..28].copy_from_slice(&(0x7FFE_u32 | 1 << 15 | 28 << 17).to_ne_bytes());
        fs::write(&table, bytes).unwrap();
        cluster.start_again().unwrap();
    });
    backup(&scene, &cluster, 0);
    cluster.stop(Mode::Fast).unwrap();
    let (summary, problems) = rehearse(&scene, installation, &[], 1);
    assert_eq!(summary["sound"], false);
    let told = |object: &str, what: &str| {
        problems.iter().any(|problem| {
            problem["object"].as_str().unwrap().contains(object)
                && problem["what"].as_str().unwrap().contains(what)
        })
    };
    assert!(told("index public.parent_pkey", "invariant violated"), "{problems:?}");
    assert!(told("child_p_fkey on public.child", "1 rows refer to nothing"), "{problems:?}");
    assert!(told("table public.damaged", ""), "{problems:?}");
    assert!(!problems.iter().any(|one| one["object"] == "table public.parent"), "{problems:?}");
}

#[test]
fn what_cannot_be_done_is_said_beforehand() {
    let installation = of_major(15).unwrap();
    let scene = Scene::new();
    let cluster = Cluster::start(installation).unwrap();
    backup(&scene, &cluster, 0);
    let place = place(&scene);
    let place_text = place.to_str().unwrap();
    let nowhere = scene.path("nowhere");
    let long = place.join("x".repeat(100));
    fs::create_dir(&long).unwrap();
    hand_over(&long).unwrap();
    for (more, code, said) in [
        (vec!["--programs", nowhere.to_str().unwrap()], 1, "there is no PostgreSQL 15"),
        (vec!["--scratch", nowhere.to_str().unwrap()], 1, "find"),
        (vec!["--scratch", long.to_str().unwrap()], 1, "too long for a socket"),
        (vec!["--checks", nowhere.to_str().unwrap()], 2, "the checks in"),
        (vec!["--to-lsn", "7F/0"], 1, "cannot be reached"),
        (vec!["--superuser", "nobody at all"], 1, "does not exist"),
    ] {
        let mut arguments = vec!["verify", "--restore", "latest", "--store", "shop"];
        if !more.contains(&"--scratch") {
            arguments.extend(["--scratch", place_text]);
        }
        arguments.extend(&more);
        let told = scene.run(&arguments, code).stderr;
        assert!(told.contains(said), "{more:?}: {told}");
    }
    fs::remove_dir(&long).unwrap();
    assert!(is_empty(&place));
    let told = scene.run(&["verify", "--to-latest"], 2).stderr;
    assert!(told.contains("--restore"), "{told}");
}

/// Killed with the server running, it leaves neither that nor the directory.
#[test]
fn a_killed_rehearsal_leaves_nothing() {
    let installation = of_major(15).unwrap();
    let scene = Scene::new();
    let cluster = Cluster::start(installation).unwrap();
    backup(&scene, &cluster, 0);
    let (place, file) = (place(&scene), scene.path("checks.json"));
    let check = r#"[{"database": "postgres", "sql": "SELECT pg_sleep(3600)", "expect": []}]"#;
    fs::write(&file, check).unwrap();
    let arguments = ["verify", "--restore", "latest", "--store", "shop", "--scratch"];
    let mut command = scene.command(&arguments);
    command.arg(&place).arg("--checks").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    let server = loop {
        assert!(begun.elapsed() < LIMIT);
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        let lock = fs::read_dir(&place).unwrap().find_map(|entry| {
            fs::read_to_string(entry.unwrap().path().join("data/postmaster.pid")).ok()
        });
        // The server has said that it is ready.
        if let Some(lock) = lock.filter(|lock| lock.contains("ready")) {
            break lock.lines().next().unwrap().to_owned();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = || is_empty(&place) && !Path::new("/proc").join(&server).exists();
    while !gone() {
        assert!(begun.elapsed() < LIMIT, "server {server} or its directory is left");
        std::thread::sleep(Duration::from_millis(50));
    }
}
