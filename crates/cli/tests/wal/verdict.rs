//! What a recovering server is told when a segment cannot be had, and what it makes of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use lifeboat_testbed::postgres::{Cluster, Installation, Mode, newest, oldest};

use crate::scene::{LIMIT, Scene, Shop, block_on};

/// Starts a server that recovers, and sees that it stops without having ended its recovery.
fn stops(installation: &Installation, data: &Path, why: &str) {
    let adopted = Cluster::builder().installation(installation).patience(LIMIT).adopt(data);
    let said = match adopted {
        // It may be up for a moment, as a standby that lets nobody in.
        Ok(cluster) => {
            let begun = Instant::now();
            while data.join("postmaster.pid").exists() && !cluster.log().contains(PROMOTED) {
                assert!(begun.elapsed() < LIMIT, "{why}: {}", cluster.log());
                std::thread::sleep(Duration::from_millis(20));
            }
            cluster.log()
        }
        Err(error) => format!("{error:#}"),
    };
    assert!(!said.contains(PROMOTED), "{why}: {said}");
    assert!(said.contains("FATAL:  could not restore file"), "{why}: {said}");
    assert!(data.join("recovery.signal").exists(), "{why}");
    assert!(!data.join("pg_wal/00000002.history").exists(), "{why}");
}

/// What a server logs when it begins to take writes after a recovery.
const PROMOTED: &str = "archive recovery complete";

#[test]
fn only_the_proved_end_of_the_archive_ends_a_recovery() {
    for installation in [oldest().unwrap(), newest().unwrap()] {
        ends_where_it_is_proved(installation);
    }
}

fn ends_where_it_is_proved(installation: &Installation) {
    let scene = Scene::new();
    let mut cluster = scene.cluster(installation).start().unwrap();
    let conninfo = cluster.conninfo();
    let rows = block_on(async {
        let shop = Shop::open(&cluster).await;
        shop.archive(&cluster).await;
        scene.run(&["backup", "postgres", "--name", "shop", "--conninfo", &conninfo], 0);
        for _ in 0..2 {
            shop.sell(2000).await;
            shop.archive(&cluster).await;
        }
        let rows = shop.sell(2000).await;
        shop.archive(&cluster).await;
        rows
    });
    cluster.stop(Mode::Immediate).unwrap();
    let data = scene.restored("restored");
    // A server keeps what it was given, also when it stops: this one has not been given anything.
    let fresh = scene.copied(&data, "fresh");
    let segments = scene.segments();
    let [.., middle, last] = &segments[..] else { panic!("{segments:?}") };
    // A shutdown is no switch: what the server archives afterwards is nothing.
    let whole = fs::read(last).unwrap();
    let name = |command: &str| scene.recovers(&data, command);
    let usual = "wal get %f %p --name shop";

    // Down: the volume is not there.
    let away = scene.path("away");
    fs::rename(scene.repo(), &away).unwrap();
    stops(installation, &data, "down");
    // An empty place where the repository was mounted.
    fs::create_dir(scene.repo()).unwrap();
    stops(installation, &data, "not mounted");
    fs::remove_dir(scene.repo()).unwrap();
    fs::rename(&away, scene.repo()).unwrap();

    // Refuses: another passphrase; rights.
    fs::write(scene.path("passphrase"), "another one\n").unwrap();
    stops(installation, &data, "passphrase");
    fs::write(scene.path("passphrase"), "correct horse\n").unwrap();
    let folder = last.parent().unwrap();
    let mode = fs::metadata(folder).unwrap().permissions();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o000)).unwrap();
    stops(installation, &data, "rights");
    fs::set_permissions(folder, mode).unwrap();

    // Damaged: cut short, emptied, one bit; at the head and in the content.
    let mut flipped = whole.clone();
    let at = flipped.len() - 100;
    flipped[at] ^= 1;
    let mut head = whole.clone();
    head[50] ^= 1;
    for (why, bytes) in
        [("cut", &whole[..whole.len() / 2]), ("empty", &[]), ("bit", &flipped), ("head", &head)]
    {
        fs::write(last, bytes).unwrap();
        stops(installation, &data, why);
    }
    fs::write(last, &whole).unwrap();

    // Nonsense: no such option, no file, another name for the cluster, no repository.
    for (why, command) in [
        ("option", "wal get %f %p --name shop --nonsense"),
        ("argument", "wal get %f --name shop"),
        ("name", "wal get %f %p --name shoe"),
        ("place", "--repo /nowhere/at/all wal get %f %p --name shop"),
        ("scheme", "--repo ftp://x wal get %f %p --name shop"),
        ("secret", "--passphrase-file /nowhere wal get %f %p --name shop"),
        ("directory", "wal get %f %p --name shop --data-directory /tmp"),
    ] {
        name(command);
        stops(installation, &data, why);
    }
    name(usual);

    // A hole: the segment is not there, and a later one is.
    let held = fs::read(middle).unwrap();
    fs::remove_file(middle).unwrap();
    stops(installation, &fresh, "gap");
    // Where that is meant, it ends there.
    scene.recovers(&fresh, "wal get %f %p --name shop --at-gap end");
    let promoted = Cluster::builder().installation(installation).adopt(&fresh).unwrap();
    block_on(async {
        promoted.wait_until_writable(LIMIT).await.unwrap();
        assert!(Shop::of(&promoted).await.count().await < rows);
    });
    assert!(promoted.log().contains(PROMOTED));
    drop(promoted);
    fs::write(middle, held).unwrap();

    // None of this has done any harm: it recovers to the end, now that there is one.
    let recovered = Cluster::builder().installation(installation).adopt(&data).unwrap();
    block_on(async {
        recovered.wait_until_writable(LIMIT).await.unwrap();
        assert_eq!(Shop::of(&recovered).await.count().await, rows);
    });
    assert!(recovered.log().contains(PROMOTED));
}

#[test]
fn a_standby_goes_on_whatever_happens_to_the_archive() {
    let scene = Scene::new();
    let installation = newest().unwrap();
    let cluster = scene.cluster(installation).start().unwrap();
    let conninfo = cluster.conninfo();
    block_on(async {
        let shop = Shop::open(&cluster).await;
        shop.archive(&cluster).await;
        scene.run(&["backup", "postgres", "--name", "shop", "--conninfo", &conninfo], 0);
        let rows = shop.sell(2000).await;
        shop.archive(&cluster).await;
        let data = scene.restored("standby");
        scene.recovers(&data, "wal get %f %p --name shop --standby");
        fs::remove_file(data.join("recovery.signal")).unwrap();
        fs::write(data.join("standby.signal"), "").unwrap();
        let standby = Cluster::builder()
            .installation(installation)
            .setting("wal_retrieve_retry_interval", "100ms")
            .adopt(&data)
            .unwrap();
        let reader = Shop::of(&standby).await;
        let sees = async |rows: i64| {
            let begun = Instant::now();
            while reader.count().await != rows {
                assert!(begun.elapsed() < LIMIT, "{rows}:\n{}", standby.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        sees(rows).await;
        // The repository goes away while the standby asks for the next segment, and comes back.
        let away = scene.path("away");
        fs::rename(scene.repo(), &away).unwrap();
        let seen = standby.log().matches("repo: it does not exist").count();
        let begun = Instant::now();
        while standby.log().matches("repo: it does not exist").count() == seen {
            assert!(begun.elapsed() < LIMIT, "{}", standby.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        fs::rename(&away, scene.repo()).unwrap();
        let rows = shop.sell(2000).await;
        shop.archive(&cluster).await;
        sees(rows).await;
    });
}
