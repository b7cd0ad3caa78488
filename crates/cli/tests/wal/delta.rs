//! A cluster is set back in its own directory: what is the same there is left alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use lifeboat_testbed::data;
use lifeboat_testbed::postgres::{Cluster, Installation, Mode, all, newest};
use lifeboat_testbed::process;
use serde_json::Value;

use crate::scene::{LIMIT, Scene, block_on};

/// Rows on pages of their own, in the data directory and in a tablespace.
async fn fill(cluster: &Cluster) -> tokio_postgres::Client {
    let client = cluster.connect("postgres").await.unwrap();
    let space = cluster.create_tablespace_dir().unwrap();
    let space = format!("CREATE TABLESPACE fast LOCATION '{}'", space.display());
    client.batch_execute(&space).await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE here (id int PRIMARY KEY, n int, pad text) WITH (fillfactor = 60);
             CREATE TABLE there (id int PRIMARY KEY, n int, pad text) TABLESPACE fast;
             INSERT INTO here SELECT i, 0, repeat(md5(i::text), 30) FROM generate_series(1, 12000) i;
             INSERT INTO there SELECT i, 0, repeat(md5(i::text), 30) FROM generate_series(1, 8000) i;
             CREATE TABLE goes (n int); INSERT INTO goes VALUES (1)",
        )
        .await
        .unwrap();
    client.batch_execute("VACUUM FREEZE").await.unwrap();
    client
}

/// What happened after the snapshot, and shall not have happened.
async fn go_on(client: &tokio_postgres::Client) {
    client
        .batch_execute(
            "UPDATE here SET n = 1 WHERE id % 100 = 7; DELETE FROM there WHERE id > 7000;
             CREATE TABLE later AS SELECT repeat('later', 1000) FROM generate_series(1, 500);
             DROP TABLE goes; TRUNCATE here; INSERT INTO here VALUES (1, 2, 'x')",
        )
        .await
        .unwrap();
    client.batch_execute("CHECKPOINT").await.unwrap();
}

fn words<'a>(to: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words = ["restore", "latest", "--store", "postgres/shop", "--to", to, "--json"];
    words.into_iter().chain(more.iter().copied()).collect()
}

fn kept(stdout: &str) -> (u64, u64) {
    let events = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let summary = events.into_iter().find(|event| event["event"] == "summary").unwrap();
    let kept = summary["facts"]["postgres.kept"].as_u64().unwrap();
    (kept, summary["bytes"].as_u64().unwrap())
}

fn is_clean(directory: &Path) {
    let left: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("lifeboat"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn adopt(installation: &Installation, data: &str) -> Cluster {
    Cluster::builder().installation(installation).patience(LIMIT).adopt(data).unwrap()
}

/// The cluster as it was at the backup comes back over what became of it, once from a stopped and
/// once from a killed server; and then its tablespace holds nothing but what it should.
#[test]
fn only_what_differs_is_written() {
    for installation in all().unwrap() {
        let scene = Scene::new();
        let mut cluster = scene.cluster(installation).start().unwrap();
        block_on(async {
            let client = fill(&cluster).await;
            let before = data::digests(&client).await.unwrap();
            let conninfo = cluster.conninfo();
            scene.run(&["backup", "postgres", "--name", "shop", "--conninfo", &conninfo], 0);
            let data = cluster.data_dir().to_owned();
            let to = data.to_str().unwrap();
            client.batch_execute("UPDATE here SET n = 1 WHERE id % 1000 = 7").await.unwrap();
            client.batch_execute("CREATE TABLE later AS SELECT 1; DROP TABLE goes").await.unwrap();
            let told = scene.run(&words(to, &["--delta"]), 1);
            assert!(told.stderr.contains("a server runs there"), "{told:?}");
            cluster.stop(Mode::Fast).unwrap();
            let told = scene.run(&words(to, &[]), 1);
            assert!(told.stderr.contains("not empty"), "{told:?}");

            let done = scene.run(&words(to, &["--delta"]), 0);
            let (kept, all) = kept(&done.stdout);
            // What is not, is WAL for the most part.
            assert!(kept * 100 > all * 70, "{kept} of {all} were kept");
            is_clean(&data);
            assert!(data.join("pg_wal.former/archive_status").is_dir());
            let mut again = adopt(installation, to);
            let client = again.connect("postgres").await.unwrap();
            assert!(data::digests(&client).await.unwrap() == before, "{}", installation.version);
            let spaces =
                "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'";
            let space: String = client.query_one(spaces, &[]).await.unwrap().get(0);
            is_clean(Path::new(&space));

            go_on(&client).await;
            drop(client);
            again.kill().unwrap();
            let told = scene.run(&words(to, &["--delta"]), 1);
            assert!(told.stderr.contains("pg_wal.former"), "{told:?}");
            fs::remove_dir_all(data.join("pg_wal.former")).unwrap();
            scene.run(&words(to, &["--delta", "--to-latest"]), 0);
            drop(again);
            let again = adopt(installation, to);
            let client = again.connect("postgres").await.unwrap();
            let rows: i64 =
                client.query_one("SELECT count(*) FROM here", &[]).await.unwrap().get(0);
            assert_eq!(rows, 12000, "{}", again.log());
        });
    }
}

/// Another cluster is not taken for this one.
#[test]
fn another_cluster_is_left_alone() {
    let installation = newest().unwrap();
    let scene = Scene::new();
    let cluster = scene.cluster(installation).start().unwrap();
    let mut other = Cluster::start(installation).unwrap();
    other.stop(Mode::Fast).unwrap();
    let conninfo = cluster.conninfo();
    scene.run(&["backup", "postgres", "--name", "shop", "--conninfo", &conninfo], 0);
    let to = other.data_dir().to_str().unwrap();
    let told = scene.run(&words(to, &["--delta"]), 1);
    assert!(told.stderr.contains("system identifier"), "{told:?}");
    let nothing = scene.path("nothing");
    fs::create_dir(&nothing).unwrap();
    fs::write(nothing.join("mine"), "x").unwrap();
    lifeboat_testbed::scratch::hand_over(&nothing).unwrap();
    let told = scene.run(&words(nothing.to_str().unwrap(), &["--delta"]), 1);
    assert!(told.stderr.contains("no global/pg_control"), "{told:?}");
    assert_eq!(fs::read(nothing.join("mine")).unwrap(), b"x");
    other.start_again().unwrap();
}

/// Killed at any moment, it leaves nothing that starts, and the next one brings all of it.
#[test]
fn a_delta_restore_that_is_killed_is_finished_by_the_next() {
    let installation = newest().unwrap();
    let scene = Scene::new();
    let mut cluster = scene.cluster(installation).start().unwrap();
    block_on(async {
        let client = fill(&cluster).await;
        let before = data::digests(&client).await.unwrap();
        let conninfo = cluster.conninfo();
        scene.run(&["backup", "postgres", "--name", "shop", "--conninfo", &conninfo], 0);
        go_on(&client).await;
        drop(client);
        cluster.stop(Mode::Fast).unwrap();
        let data = cluster.data_dir().to_owned();
        let spaces = data.join("pg_tblspc");
        let link = fs::read_dir(&spaces).unwrap().next().unwrap().unwrap().path();
        let space = fs::read_link(&link).unwrap();
        let to = data.to_str().unwrap();
        // A copy of both, so that there is something to go on from each time.
        let copy = scene.path("copy");
        for (from, name) in [(&data, "data"), (&space, "space")] {
            fs::create_dir_all(&copy).unwrap();
            let done = Command::new("cp").arg("-a").arg(from).arg(copy.join(name)).status();
            assert!(done.unwrap().success());
        }
        let set_up = || {
            for (to, name) in [(&data, "data"), (&space, "space")] {
                fs::remove_dir_all(to).unwrap();
                let done = Command::new("cp").arg("-a").arg(copy.join(name)).arg(to).status();
                assert!(done.unwrap().success());
            }
        };
        set_up();
        let whole = scene.run(&words(to, &["--delta"]), 0).moved;
        let mut killed = 0;
        for tenth in 2..10 {
            set_up();
            let mut running = process::start(&mut scene.command(&words(to, &["--delta"]))).unwrap();
            running.moves(whole * tenth / 10, LIMIT).unwrap();
            running.kill().unwrap();
            let ended = running.wait(LIMIT).unwrap();
            if ended.status.code().is_none() && data.join("lifeboat-restore-former").exists() {
                killed += 1;
                assert!(!data.join("global/pg_control").exists(), "{tenth}");
                let told = scene.run(&words(to, &[]), 1);
                assert!(told.stderr.contains("broken off"), "{told:?}");
            }
            // What is there may be anything by then.
            scene.run(&words(to, &["--delta"]), 0);
            is_clean(&data);
            is_clean(&space);
            // Whatever became of the rest, the WAL that was there is there.
            let (was, is) = (copy.join("data/pg_wal"), data.join("pg_wal.former"));
            let same = Command::new("diff").arg("-r").args([was, is]).output().unwrap();
            assert!(same.status.success(), "{tenth}: {}", String::from_utf8_lossy(&same.stdout));
            if tenth % 3 == 0 {
                let again = adopt(installation, to);
                let client = again.connect("postgres").await.unwrap();
                assert!(data::digests(&client).await.unwrap() == before, "{tenth}");
            }
        }
        assert!(killed >= 2, "{killed} were killed at work");
    });
}
