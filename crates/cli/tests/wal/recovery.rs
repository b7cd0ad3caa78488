//! Servers that crash, recover from the archive, and go on in new timelines.

use std::fs;
use std::path::Path;

use lifeboat_testbed::postgres::{Cluster, Installation, Mode, installations};

use crate::scene::{LIMIT, Scene, Shop, block_on};

/// Recovers what was restored, and sees that it has these rows.
async fn recovered(data: &Path, installation: &Installation, rows: i64) -> Cluster {
    let cluster =
        Cluster::builder().installation(installation).patience(LIMIT).adopt(data).unwrap();
    cluster.wait_until_writable(LIMIT).await.unwrap();
    assert_eq!(Shop::of(&cluster).await.count().await, rows, "{}", cluster.log());
    cluster
}

fn crash_and_recover(installation: &Installation, segment_mib: u32) {
    let scene = Scene::new();
    let size = format!("--wal-segsize={segment_mib}");
    let mut first = scene.cluster(installation).initdb_arg(&size).start().unwrap();
    let conninfo = first.conninfo();
    block_on(async {
        let shop = Shop::open(&first).await;
        shop.sell(1000).await;
        shop.archive(&first).await;
        scene.run(&["backup", "postgres", "--name", "shop", "--conninfo", &conninfo], 0);
        for _ in 0..3 {
            shop.sell(5000).await;
            shop.switch().await;
        }
        let rows = shop.sell(3000).await;
        let last = shop.archive(&first).await;
        first.kill().unwrap();
        assert!(last.starts_with("00000001"), "{last}");

        let mut second = recovered(&scene.restored("second"), installation, rows).await;
        let shop = Shop::of(&second).await;
        let rows = shop.sell(2000).await;
        let last = shop.archive(&second).await;
        assert!(last.starts_with("00000002"), "{last}");
        // What the dead server had not archived lies in its pg_wal. With it, all comes back, and the
        // timeline is left within a segment, which the next server archives as partial.
        let rows = shop.sell(500).await.max(rows);
        let tail = shop.writes_to().await;
        second.kill().unwrap();
        let data = scene.restored("third");
        let there = data.join("pg_wal").join(&tail);
        fs::copy(second.data_dir().join("pg_wal").join(&tail), &there).unwrap();
        let mut third = recovered(&data, installation, rows).await;
        let shop = Shop::of(&third).await;
        let rows = shop.sell(2000).await;
        let last = shop.archive(&third).await;
        assert!(last.starts_with("00000003"), "{last}");
        third.stop(Mode::Fast).unwrap();
        let fourth = scene.restored("fourth");
        recovered(&fourth, installation, rows).await.stop(Mode::Fast).unwrap();

        let partial = format!("{tail}.partial");
        scene.run_in(&data, &["wal", "get", &partial, "pg_wal/P", "--name", "shop"], 0);
        let whole = fs::metadata(data.join("pg_wal/P")).unwrap().len();
        assert_eq!(whole, u64::from(segment_mib) << 20);

        // History files come back byte for byte, and only those that there are.
        for timeline in [2, 3] {
            let name = format!("{timeline:08X}.history");
            scene.run_in(&data, &["wal", "get", &name, "pg_wal/H", "--name", "shop"], 0);
            let given = fs::read(data.join("pg_wal/H")).unwrap();
            assert_eq!(given, fs::read(data.join("pg_wal").join(&name)).unwrap());
            // It can be pushed again, and nothing else in its place.
            let path = format!("pg_wal/{name}");
            scene.run_in(&data, &["wal", "push", &path, "--name", "shop"], 0);
            fs::write(data.join(&path), "1\t0/2000000\tanother\n").unwrap();
            let refused = scene.run_in(&data, &["wal", "push", &path, "--name", "shop"], 1);
            assert!(refused.stderr.contains("another content"), "{}", refused.stderr);
        }
        scene.run_in(&data, &["wal", "get", "00000001.history", "H", "--name", "shop"], 1);
        scene.run_in(&data, &["wal", "get", "00000009.history", "H", "--name", "shop"], 1);
    });
    let journals = scene.run(&["journals", "--json"], 0).stdout;
    assert!(!journals.contains("\"event\":\"gap\""), "{journals}");
    scene.run(&["verify", "--every-byte"], 0);
}

#[test]
fn every_version_comes_back_through_three_timelines() {
    let all = installations();
    assert!(!all.is_empty());
    for installation in &all {
        crash_and_recover(installation, 16);
    }
}

#[test]
fn segments_of_1_mib() {
    crash_and_recover(installations().last().unwrap(), 1);
}

#[test]
fn segments_of_64_mib() {
    crash_and_recover(installations().last().unwrap(), 64);
}
