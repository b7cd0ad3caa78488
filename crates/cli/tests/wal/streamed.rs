//! WAL that was only streamed: a server that archives nothing is lost, and comes back.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lifeboat_testbed::postgres::{Cluster, installations};
use serde_json::Value;

use crate::scene::{LIMIT, Scene, Shop, block_on};

/// `lifeboat follow postgres`. Dropping it kills it.
pub(crate) struct Service {
    child: Child,
    events: std::path::PathBuf,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    pub(crate) fn start(scene: &Scene, cluster: &Cluster) -> Self {
        let events = scene.path("events");
        let conninfo = cluster.conninfo();
        let arguments = ["follow", "postgres", "--name", "shop", "--conninfo", &conninfo, "--json"];
        let mut command = scene.command(&arguments);
        command.stdout(fs::File::create(&events).unwrap()).stderr(Stdio::null()).process_group(0);
        Self { child: command.spawn().unwrap(), events }
    }

    /// Up to where it said that all is stored.
    pub(crate) fn stored(&self) -> u64 {
        let text = fs::read_to_string(&self.events).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let events = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let durable = events.filter(|event| event["event"] == "durable");
        durable.map(|event| position(event["to"].as_str().unwrap())).max().unwrap_or(0)
    }
}

/// A position as PostgreSQL writes it: the high half, and the low one.
pub(crate) fn position(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    (u64::from_str_radix(high, 16).unwrap() << 32) + u64::from_str_radix(low, 16).unwrap()
}

#[test]
fn a_server_that_archives_nothing_comes_back() {
    for installation in &installations() {
        let scene = Scene::new();
        let mut first = Cluster::start(installation).unwrap();
        let conninfo = first.conninfo();
        block_on(async {
            let service = Service::start(&scene, &first);
            let shop = Shop::open(&first).await;
            shop.sell(100).await;
            scene.run(&["backup", "postgres", "--name", "shop", "--conninfo", &conninfo], 0);
            // Whole segments, and a beginning of one.
            shop.sell(150_000).await;
            let rows = shop.sell(3000).await;
            let sql = "SELECT pg_current_wal_flush_lsn()::text";
            let flushed: String = shop.0.query_one(sql, &[]).await.unwrap().get(0);
            let begun = Instant::now();
            while service.stored() < position(&flushed) {
                assert!(begun.elapsed() < LIMIT, "{flushed} is not stored");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // The service answers for commands, too: they need no passphrase then.
            let (passphrase, away) = (scene.path("passphrase"), scene.path("away"));
            fs::rename(&passphrase, &away).unwrap();
            let segment = "000000010000000000000002";
            let get = ["wal", "get", segment, "pg_wal/GIVEN", "--name", "shop"];
            scene.run_in(first.data_dir(), &get, 0);
            let pg_wal = first.data_dir().join("pg_wal");
            assert_eq!(fs::metadata(pg_wal.join("GIVEN")).unwrap().len(), 16 << 20);
            fs::remove_file(pg_wal.join("GIVEN")).unwrap();
            fs::rename(&away, &passphrase).unwrap();
            first.kill().unwrap();
            drop(service);

            let data = scene.restored("second");
            let second = Cluster::builder().installation(installation).patience(LIMIT);
            let second = second.adopt(&data).unwrap();
            second.wait_until_writable(LIMIT).await.unwrap();
            assert_eq!(Shop::of(&second).await.count().await, rows, "{}", second.log());
        });
        let journals = scene.run(&["journals", "--json"], 0).stdout;
        assert!(!journals.contains("\"event\":\"gap\""), "{journals}");
    }
}

#[test]
fn archiving_and_streaming_go_side_by_side() {
    let installation = installations().pop().unwrap();
    let scene = Scene::new();
    let cluster = scene.cluster(&installation).start().unwrap();
    block_on(async {
        let mut service = Service::start(&scene, &cluster);
        let shop = Shop::open(&cluster).await;
        for _ in 0..3 {
            shop.sell(5000).await;
            shop.archive(&cluster).await;
        }
        shop.sell(100).await;
        let sql = "SELECT pg_current_wal_flush_lsn()::text";
        let flushed: String = shop.0.query_one(sql, &[]).await.unwrap().get(0);
        let begun = Instant::now();
        while service.stored() < position(&flushed) {
            assert!(service.child.try_wait().unwrap().is_none(), "the service ended");
            assert!(begun.elapsed() < LIMIT, "{flushed} is not stored");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let failed = "SELECT failed_count FROM pg_stat_archiver";
        let failed: i64 = shop.0.query_one(failed, &[]).await.unwrap().get(0);
        assert_eq!(failed, 0, "{}", cluster.log());
    });
    let journals = scene.run(&["journals", "--json"], 0).stdout;
    assert!(!journals.contains("\"event\":\"gap\""), "{journals}");
    scene.run(&["verify", "--every-byte"], 0);
}
