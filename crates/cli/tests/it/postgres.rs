//! PostgreSQL clusters: there and back, and what stands in the way.

use std::fs;
use std::time::Instant;

use lifeboat_testbed::data::{self, Size};
use lifeboat_testbed::postgres::{Cluster, Mode, newest};
use lifeboat_testbed::scratch::{Scratch, hand_over};

use crate::common::{Home, LIMIT, contents};

fn cluster() -> Cluster {
    Cluster::builder().installation(newest().unwrap()).start().unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

fn has_snapshots(home: &Home) -> bool {
    let list = home.run(&["snapshots", "--json"]).expect(0);
    !list.events_of("snapshot").is_empty()
}

#[test]
fn a_cluster_comes_back() {
    let home = Home::new();
    let mut cluster = cluster();
    let conninfo = cluster.conninfo();
    let digests = block_on(async {
        let client = cluster.connect("postgres").await.unwrap();
        data::seed(&client, Size::TINY).await.unwrap();
        data::digests(&client).await.unwrap()
    });
    let ran = home.run(&["doctor", "postgres", "--conninfo", &conninfo]).expect(0);
    let told = ["postgres: version ", ", system identifier ", ", size about "];
    assert!(told.iter().all(|words| ran.0.stderr.contains(words)), "{ran}");
    let kept = ["doctor", "postgres", "--name", "shop", "--conninfo", &conninfo, "--json"];
    let codes = || -> Vec<String> {
        let ran = home.run(&kept);
        let codes = ran.expect(0).events_of("finding");
        codes.iter().map(|one| one["code"].as_str().unwrap().to_owned()).collect()
    };
    assert!(codes().contains(&"no_snapshots".to_owned()));
    let take = ["backup", "postgres", "--name", "shop", "--conninfo", &conninfo, "--json"];
    let first = home.run(&take).expect(0).end();
    let found = codes();
    assert!(!found.iter().any(|code| code == "no_snapshots" || code == "other_system"));
    assert!(found.contains(&"no_wal".to_owned()), "{found:?}");
    // Another cluster under the same name.
    let other = Cluster::start(newest().unwrap()).unwrap();
    let at = other.conninfo();
    let ran = home.run(&["doctor", "postgres", "--name", "shop", "--conninfo", &at]).expect(0);
    assert!(ran.0.stderr.contains("another cluster"), "{ran}");
    drop(other);
    assert!(!first["position"].as_str().unwrap().is_empty(), "{first}");
    // Where recovery to a later moment begins to need the WAL: high and low half, in hexadecimal.
    let facts = &first["facts"];
    let (high, low) = facts["postgres.start_lsn"].as_str().unwrap().split_once('/').unwrap();
    let half = |half: &str| u64::from_str_radix(half, 16).unwrap();
    assert_eq!(facts["journal.wal.from"], (half(high) << 32) + half(low), "{first}");
    let system = facts["postgres.system_id"].as_str().unwrap();
    let line = format!("{system}/{}", facts["postgres.timeline"]);
    assert_eq!(facts["journal.wal.timeline"], line, "{first}");
    let number = |summary: &serde_json::Value, field: &str| summary[field].as_u64().unwrap();
    // Files that changed just before a backup are read once more by the next one.
    let began = Instant::now();
    loop {
        let next = home.run(&take).expect(0).end();
        assert!(number(&next, "stored") * 4 < number(&first, "stored"), "{first} {next}");
        if number(&next, "unchanged") > number(&next, "read") {
            break;
        }
        assert!(began.elapsed() < LIMIT, "what does not change is read: {next}");
    }

    let ran = home.run(&["restore", "latest", "--to", &home.arg("pg"), "--path", "base"]);
    ran.expect(2).error_says(&["--path", "postgres/shop"]);
    // A server runs there, and it is not empty: both reasons to refuse.
    let running = cluster.data_dir().to_str().unwrap().to_owned();
    home.run(&["restore", "latest", "--to", &running]).expect(1).error_says(&[&running]);

    cluster.stop(Mode::Fast).unwrap();
    let scratch = Scratch::new().unwrap();
    let target = scratch.path().join("restored");
    let ran = home.run(&[
        "restore",
        "latest",
        "--store",
        "postgres/shop",
        "--to",
        target.to_str().unwrap(),
    ]);
    let ran = ran.expect(0);
    assert!(ran.0.stderr.contains("next: "), "{ran}");
    hand_over(&target).unwrap();
    let restored = Cluster::adopt(&target, cluster.installation()).unwrap();
    let again = block_on(async {
        restored.wait_until_writable(std::time::Duration::from_secs(60)).await.unwrap();
        let client = restored.connect("postgres").await.unwrap();
        data::digests(&client).await.unwrap()
    });
    assert_eq!(digests, again);
    home.run(&["verify", "--every-byte"]).expect(0);
}

#[test]
fn a_server_that_is_down() {
    let home = Home::new();
    let ran = home.run(&[
        "backup",
        "postgres",
        "--name",
        "x",
        "--conninfo",
        "host=127.0.0.1 port=1 user=u",
    ]);
    let ran = ran.expect(1);
    ran.error_says(&["127.0.0.1 port 1 as u: Connection refused", "; "]);
    assert!(!has_snapshots(&home));
}

#[test]
fn a_user_who_is_refused() {
    let home = Home::new();
    let cluster = Cluster::builder()
        .installation(newest().unwrap())
        .password("the right one")
        .start()
        .unwrap();
    let conninfo = cluster.conninfo();
    let take = ["backup", "postgres", "--name", "x", "--conninfo", &conninfo];
    for password in [None, Some("hunter2")] {
        let mut command = home.command(&take);
        command.envs(password.map(|password| ("PGPASSWORD", password)));
        let ran = crate::common::run(&mut command).expect(1);
        ran.error_says(&["password", "; "]);
        assert!(!ran.error().contains("FATAL") && !ran.error().contains("db error"), "{ran}");
        assert!(!ran.to_string().contains("hunter2"), "{ran}");
    }
    let mut command = home.command(&take);
    command.env("PGPASSWORD", "the right one");
    crate::common::run(&mut command).expect(0);
}

#[test]
fn a_socket_that_knows_another_account() {
    let home = Home::new();
    let cluster = cluster();
    block_on(async {
        let client = cluster.connect("postgres").await.unwrap();
        // Nobody's account is called that, whoever runs the tests.
        client.batch_execute("CREATE ROLE nobody_s_account SUPERUSER LOGIN").await.unwrap();
        let rules = "local all nobody_s_account peer\nhost all all all trust\n";
        fs::write(cluster.data_dir().join("pg_hba.conf"), rules).unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let loaded = "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'peer'";
        assert_eq!(client.query_one(loaded, &[]).await.unwrap().get::<_, i64>(0), 1);
    });
    let (socket, port) = (cluster.socket_dir().display(), cluster.port());
    let conninfo = format!("host={socket} port={port} user=nobody_s_account dbname=postgres");
    let take = ["backup", "postgres", "--name", "x", "--conninfo", &conninfo];
    // The server takes a moment to read its rules again.
    let began = Instant::now();
    let ran = loop {
        let ran = home.run(&take);
        if ran.0.status.code() != Some(0) {
            break ran.expect(1);
        }
        assert!(began.elapsed() < LIMIT, "the rules are never read: {ran}");
    };
    ran.error_says(&["Peer authentication failed", "; ", "sudo -u postgres", "host=localhost"]);
    assert!(!ran.error().contains("FATAL"), "{ran}");
    assert_eq!(ran.error().matches("connect to PostgreSQL").count(), 1, "{ran}");
}

#[test]
fn a_user_without_the_rights() {
    let home = Home::new();
    let cluster = cluster();
    block_on(async {
        let client = cluster.connect("postgres").await.unwrap();
        client.batch_execute("CREATE ROLE weak LOGIN").await.unwrap();
    });
    let conninfo = cluster.conninfo().replace("user=postgres", "user=weak");
    let take = ["backup", "postgres", "--name", "x", "--conninfo", &conninfo];
    let ran = home.run(&take).expect(1);
    ran.error_says(&["; "]);
    assert!(!has_snapshots(&home));
    let ran = home.run(&["doctor", "postgres", "--conninfo", &conninfo, "--json"]).expect(1);
    let blockers = ran.events_of("finding");
    assert!(blockers.iter().any(|finding| finding["severity"] == "blocker"), "{ran}");
    assert!(blockers.iter().all(|finding| finding["what"] != ""), "{ran}");
}

#[test]
fn a_data_directory_of_another_server() {
    let home = Home::new();
    let (one, two) = (cluster(), cluster());
    let foreign = two.data_dir().to_str().unwrap();
    let conninfo = one.conninfo();
    let ran = home.run(&[
        "backup",
        "postgres",
        "--name",
        "x",
        "--conninfo",
        &conninfo,
        "--data-directory",
        foreign,
    ]);
    ran.expect(1).error_says(&[foreign, "is not the data directory of the server", "; "]);
    assert!(!has_snapshots(&home));
}

#[test]
fn a_target_in_use_stays_as_it_is() {
    let home = Home::new();
    let cluster = cluster();
    let conninfo = cluster.conninfo();
    home.run(&["backup", "postgres", "--name", "x", "--conninfo", &conninfo]).expect(0);
    let target = home.path("filled");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("mine"), "precious").unwrap();
    let ran = home.run(&["restore", "latest", "--to", target.to_str().unwrap()]).expect(1);
    ran.error_says(&["filled", "not empty"]);
    assert_eq!(contents(&target).len(), 1);
}

#[test]
fn a_cluster_comes_over_the_network() {
    let home = Home::new();
    let mut cluster = cluster();
    let conninfo = cluster.conninfo();
    let digests = block_on(async {
        let client = cluster.connect("postgres").await.unwrap();
        data::seed(&client, Size::SMALL).await.unwrap();
        client.batch_execute("CHECKPOINT").await.unwrap();
        data::digests(&client).await.unwrap()
    });
    let server = ["postgres", "--remote", "--conninfo", &conninfo];
    let ran = home.run(&[&["doctor"], &server[..]].concat()).expect(0);
    assert!(ran.0.stderr.contains("system identifier"), "{ran}");

    let take = |words: &[&str]| {
        let common = ["backup", "postgres", "--name", "shop", "--conninfo", &conninfo, "--json"];
        home.run(&[&common, words].concat()).expect(0).end()
    };
    let beside = take(&[]);
    let over = take(&["--remote"]);
    let number = |summary: &serde_json::Value, field: &str| summary[field].as_u64().unwrap();
    // Whichever way it is taken, what is stored already is not stored again.
    assert!(number(&over, "bytes") > 40_000_000, "{over}");
    assert!(number(&over, "new") * 10 < number(&beside, "new"), "{beside} {over}");
    assert!(number(&over, "stored") * 10 < number(&beside, "stored"), "{beside} {over}");
    assert_eq!(over["parent"], beside["snapshot"], "{over}");
    let again = take(&["--full"]);
    assert!(number(&again, "stored") * 10 < number(&beside, "stored"), "{beside} {again}");
    let other = take(&["--remote", "--full", "--without-logs", "--tag", "other"]);
    let snapshot = other["snapshot"].as_str().unwrap();

    cluster.stop(Mode::Fast).unwrap();
    let scratch = Scratch::new().unwrap();
    let target = scratch.path().join("restored");
    home.run(&["restore", snapshot, "--to", target.to_str().unwrap()]).expect(0);
    hand_over(&target).unwrap();
    let restored = Cluster::adopt(&target, cluster.installation()).unwrap();
    let brought_back = block_on(async {
        let client = restored.connect("postgres").await.unwrap();
        data::digests(&client).await.unwrap()
    });
    assert_eq!(digests, brought_back);
    home.run(&["verify", "--every-byte"]).expect(0);
}

#[test]
fn a_data_directory_that_is_elsewhere_need_not_be_here() {
    let home = Home::new();
    let cluster = cluster();
    let conninfo = cluster.conninfo();
    let take = ["backup", "postgres", "--name", "x", "--conninfo", &conninfo];
    let elsewhere = ["--data-directory", "/srv/elsewhere"];
    let ran = home.run(&[&take, &elsewhere[..]].concat());
    ran.expect(1).error_says(&["/srv/elsewhere", "with --remote"]);
    home.run(&[&take, &elsewhere[..], &["--remote"]].concat()).expect(2);
    assert!(!has_snapshots(&home));

    // Who may not replicate is told so before anything is sent.
    block_on(async {
        let client = cluster.connect("postgres").await.unwrap();
        client.batch_execute("CREATE ROLE plain LOGIN").await.unwrap();
    });
    let plain = conninfo.replace("user=postgres", "user=plain");
    assert_ne!(plain, conninfo);
    for command in [&["doctor", "postgres"][..], &["backup", "postgres", "--name", "x"]] {
        let ran = home.run(&[command, &["--remote", "--conninfo", &plain]].concat()).expect(1);
        assert!(ran.0.stderr.contains("ALTER ROLE … REPLICATION"), "{ran}");
    }
    assert!(!has_snapshots(&home));
}
