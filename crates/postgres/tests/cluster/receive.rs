//! WAL that is received is what the server wrote, and a server recovers with it.

use std::fs;
use std::path::Path;

use lifeboat_core::journal::{SegmentKind, current};
use lifeboat_postgres::{Following, Freshness, Lsn, WalLine};
use lifeboat_testbed::Scratch;
use lifeboat_testbed::postgres::{Cluster, Installation, Mode, all, newest, oldest};

use crate::common::{Backup, run, source, target};
use crate::following::{
    Address, Follower, Kept, eventually, flushed, line, receiving, segment_file, wal_of,
};

const MIB: u64 = 1 << 20;

/// A cluster that keeps all of its WAL, in segments of so many MiB.
fn cluster(installation: &Installation, segment: u64) -> Cluster {
    Cluster::builder()
        .installation(installation)
        .initdb_arg(&format!("--wal-segsize={segment}"))
        .setting("wal_keep_size", "2GB")
        .setting("max_wal_size", "2GB")
        .setting("hot_standby", "on")
        .start()
        .unwrap()
}

/// Writes rows, a transaction each ten.
async fn load(cluster: &Cluster, transactions: u32) {
    let client = cluster.connect("postgres").await.unwrap();
    let table = "CREATE TABLE IF NOT EXISTS load(id bigserial PRIMARY KEY, pad text)";
    client.batch_execute(table).await.unwrap();
    let insert =
        "INSERT INTO load(pad) SELECT repeat(md5(random()::text), 20) FROM generate_series(1, 10)";
    for _ in 0..transactions {
        client.batch_execute(insert).await.unwrap();
    }
}

async fn rows(cluster: &Cluster) -> (i64, i64) {
    let client = cluster.connect("postgres").await.unwrap();
    let row = client.query_one("SELECT count(*), max(id) FROM load", &[]).await.unwrap();
    (row.get(0), row.get(1))
}

/// Compares what was kept of a timeline with the files of the server that wrote it.
async fn same_as_written(kept: &Kept, data: &Path, line: WalLine, size: u64, up_to: Lsn) {
    let (start, bytes) = kept.bytes(line).await;
    assert!(start.0.is_multiple_of(size), "it begins in the middle of a segment: {start}");
    let end = Lsn(start.0 + bytes.len() as u64);
    assert!(end >= up_to, "it ends at {end}, before {up_to}");
    let written = wal_of(data, line.timeline, size, start, end).unwrap();
    let differs = bytes.iter().zip(&written).position(|(kept, written)| kept != written);
    assert_eq!(differs, None, "bytes after {start} differ");
    assert_eq!(bytes.len(), written.len());
}

/// Restores a backup, and lets it recover with nothing but the archive.
async fn recovered(
    backup: &Backup,
    kept: &Kept,
    timelines: &[WalLine],
    size: u64,
    installation: &Installation,
) -> (Cluster, Scratch) {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.subdir("archive").unwrap();
    for line in timelines {
        if let Some(history) = kept.archive.history(*line).await.unwrap() {
            fs::write(dir.join(format!("{:08X}.history", line.timeline)), history).unwrap();
        }
        let (start, mut bytes) = kept.bytes(*line).await;
        // The segment that is not full yet goes on as the server would have it: with zeros.
        bytes.resize(bytes.len().next_multiple_of(size as usize), 0);
        for (number, segment) in bytes.chunks(size as usize).enumerate() {
            let number = start.0 / size + number as u64;
            fs::write(segment_file(&dir, line.timeline, size, number), segment).unwrap();
        }
    }
    let restored = target(&scratch);
    backup.restore(&restored).await;
    fs::write(restored.join("recovery.signal"), "").unwrap();
    lifeboat_testbed::scratch::hand_over(scratch.path()).unwrap();
    let cluster = Cluster::builder()
        .installation(installation)
        .setting("restore_command", &format!("cp {}/%f %p", dir.display()))
        .setting("recovery_target_timeline", "latest")
        .adopt(&restored)
        .unwrap();
    cluster.wait_until_writable(std::time::Duration::from_secs(120)).await.unwrap();
    (cluster, scratch)
}

/// Load, a crash, more load; then all that was flushed is there, byte for byte, and a restored
/// cluster has every row.
async fn through_a_crash(installation: &Installation, segment: u64, transactions: u32) {
    let size = segment * MIB;
    let mut cluster = cluster(installation, segment);
    let address = Address::of(&cluster);
    let kept = Kept::new();
    let follower = Follower::start(&kept, address.connection());
    load(&cluster, 1).await;
    let backup = Backup::take(&source(&cluster)).await;
    let line = line(&cluster, 1).await;

    load(&cluster, transactions).await;
    let before = flushed(&cluster).await;
    cluster.kill().unwrap();
    cluster.start_again().unwrap();
    address.lead_to(&cluster);
    load(&cluster, transactions).await;
    let after = flushed(&cluster).await;
    assert!(after > before);
    follower.reaches(1, after).await;
    let expected = rows(&cluster).await;
    assert!(!follower.is_over());
    follower.stop().await;
    same_as_written(&kept, cluster.data_dir(), line, size, after).await;
    let segments = kept.segments(line).await;
    let whole = current(&segments).iter().filter(|one| one.place.span.length() == size).count();
    assert!(
        whole as u64 >= (after.0 - kept.bytes(line).await.0.0) / size,
        "{whole} whole segments"
    );
    cluster.stop(Mode::Immediate).unwrap();

    let (restored, _scratch) = recovered(&backup, &kept, &[line], size, installation).await;
    assert_eq!(rows(&restored).await, expected, "{}", installation.version);
}

#[test]
fn what_is_kept_is_what_was_written() {
    run(async {
        for installation in all().unwrap() {
            through_a_crash(installation, 1, 300).await;
        }
    });
}

#[test]
fn segments_may_be_larger() {
    run(async {
        through_a_crash(newest().unwrap(), 16, 50).await;
        through_a_crash(oldest().unwrap(), 64, 50).await;
    });
}

#[test]
fn a_change_is_durable_within_about_a_second() {
    run(async {
        let cluster = cluster(newest().unwrap(), 16);
        let kept = Kept::new();
        let address = Address::of(&cluster);
        let follower = Follower::start(&kept, address.connection());
        load(&cluster, 1).await;
        follower.reaches(1, flushed(&cluster).await).await;
        let start = std::time::Instant::now();
        load(&cluster, 1).await;
        follower.reaches(1, flushed(&cluster).await).await;
        // Not a limit that a busy machine could miss: half a minute, far from the hour that a
        // segment would take to fill.
        assert!(start.elapsed().as_secs() < 30);
        let line = line(&cluster, 1).await;
        let parts = kept.segments(line).await;
        assert!(parts.iter().all(|part| part.place.span.length() < 16 * MIB));
        follower.stop().await;
    });
}

#[test]
fn a_stopped_receiver_goes_on_where_it_was() {
    run(async {
        let cluster = cluster(oldest().unwrap(), 1);
        let address = Address::of(&cluster);
        let kept = Kept::new();
        let line = line(&cluster, 1).await;
        let mut begun = Vec::new();
        for _ in 0..3 {
            let follower = Follower::start(&kept, address.connection());
            load(&cluster, 60).await;
            let end = flushed(&cluster).await;
            follower.reaches(1, end).await;
            let done = follower.stop().await;
            let from = done.lock().iter().find_map(|what| match what {
                Following::Streaming { from, .. } => Some(*from),
                _ => None,
            });
            begun.push((from.unwrap(), end));
            // What happens while nobody receives is kept for us.
            load(&cluster, 60).await;
        }
        for two in begun.windows(2) {
            // At the beginning of the segment that was not finished.
            assert_eq!(two[1].0.0, two[0].1.0 / MIB * MIB);
        }
        same_as_written(&kept, cluster.data_dir(), line, MIB, begun[2].1).await;
    });
}

/// A standby of a cluster, from a backup.
pub fn standby(backup_dir: &Path, primary: &Cluster, installation: &Installation) -> Cluster {
    fs::write(backup_dir.join("standby.signal"), "").unwrap();
    let words = format!("host=127.0.0.1 port={} user=postgres", primary.port());
    Cluster::builder()
        .installation(installation)
        .setting("primary_conninfo", &words)
        .setting("recovery_target_timeline", "latest")
        .adopt(backup_dir)
        .unwrap()
}

pub async fn replayed(standby: &Cluster, lsn: Lsn) {
    let client = standby.connect("postgres").await.unwrap();
    eventually("the standby replays", async || {
        let sql = "SELECT pg_last_wal_replay_lsn()::text";
        let at: Option<String> = client.query_one(sql, &[]).await.unwrap().get(0);
        at.and_then(|at| at.parse::<Lsn>().ok()).filter(|at| *at >= lsn)
    })
    .await;
}

pub async fn promote(standby: &Cluster) {
    let client = standby.connect("postgres").await.unwrap();
    let done: bool = client.query_one("SELECT pg_promote()", &[]).await.unwrap().get(0);
    assert!(done);
    standby.wait_until_writable(std::time::Duration::from_secs(60)).await.unwrap();
}

#[test]
fn a_promotion_is_followed_on_the_same_connection() {
    run(async {
        for installation in all().unwrap() {
            let mut primary = cluster(installation, 1);
            load(&primary, 20).await;
            let backup = Backup::take(&source(&primary)).await;
            let scratch = Scratch::new().unwrap();
            let dir = target(&scratch);
            backup.restore(&dir).await;
            let standby = standby(&dir, &primary, installation);
            // The standby is the one that is followed.
            let address = Address::of(&standby);
            let kept = Kept::new();
            let follower = Follower::start(&kept, address.connection());
            load(&primary, 60).await;
            let end = flushed(&primary).await;
            follower.reaches(1, end).await;
            replayed(&standby, end).await;
            primary.stop(Mode::Immediate).unwrap();
            promote(&standby).await;
            load(&standby, 60).await;
            let after = flushed(&standby).await;
            follower.reaches(2, after).await;
            let expected = rows(&standby).await;
            let (old, new) = (line(&standby, 1).await, line(&standby, 2).await);
            let done = follower.stop().await;
            let switched = done.lock().iter().find_map(|what| match what {
                Following::Switched { next: 2, at, .. } => Some(*at),
                _ => None,
            });
            let at = switched.unwrap();
            let history = kept.archive.history(new).await.unwrap().unwrap();
            let file = standby.data_dir().join("pg_wal/00000002.history");
            assert_eq!(&history[..], &fs::read(file).unwrap()[..]);
            // The old timeline is there up to the very fork, the new one from its segment on.
            let (start, bytes) = kept.bytes(old).await;
            assert_eq!(Lsn(start.0 + bytes.len() as u64), at);
            same_as_written(&kept, standby.data_dir(), new, MIB, after).await;

            let (restored, _scratch) =
                recovered(&backup, &kept, &[old, new], MIB, installation).await;
            assert_eq!(rows(&restored).await, expected, "{}", installation.version);
        }
    });
}

#[test]
fn the_promoted_standby_is_followed_behind_the_same_address() {
    run(async {
        let installation = oldest().unwrap();
        let mut primary = cluster(installation, 1);
        load(&primary, 20).await;
        let backup = Backup::take(&source(&primary)).await;
        let scratch = Scratch::new().unwrap();
        let dir = target(&scratch);
        backup.restore(&dir).await;
        let first = standby(&dir, &primary, installation);
        let address = Address::of(&primary);
        let kept = Kept::new();
        let follower = Follower::start(&kept, address.connection());
        load(&primary, 30).await;
        let end = flushed(&primary).await;
        follower.reaches(1, end).await;
        replayed(&first, end).await;
        // Two promotions pass before the receiver sees a server again.
        primary.kill().unwrap();
        promote(&first).await;
        load(&first, 30).await;
        let second_dir = scratch.path().join("second");
        let mut first = first;
        first.stop(Mode::Fast).unwrap();
        let copied = std::process::Command::new("cp").arg("-a").arg(&dir).arg(&second_dir).status();
        assert!(copied.unwrap().success());
        fs::write(second_dir.join("standby.signal"), "").unwrap();
        let second = Cluster::builder().installation(installation).adopt(&second_dir).unwrap();
        promote(&second).await;
        load(&second, 30).await;
        address.lead_to(&second);
        let after = flushed(&second).await;
        follower.reaches(3, after).await;
        let expected = rows(&second).await;
        let lines = [line(&second, 1).await, line(&second, 2).await, line(&second, 3).await];
        follower.stop().await;
        for line in &lines[1..] {
            assert!(kept.archive.history(*line).await.unwrap().is_some(), "{line}");
        }
        let (restored, _scratch) = recovered(&backup, &kept, &lines, MIB, installation).await;
        assert_eq!(rows(&restored).await, expected);
    });
}

#[test]
fn a_commit_waits_for_a_synchronous_receiver() {
    run(async {
        for installation in [oldest().unwrap(), newest().unwrap()] {
            let cluster = cluster(installation, 16);
            load(&cluster, 1).await;
            let superuser = cluster.connect("postgres").await.unwrap();
            let names = "ALTER SYSTEM SET synchronous_standby_names = 'lifeboat'";
            superuser.batch_execute(names).await.unwrap();
            superuser.batch_execute("SELECT pg_reload_conf()").await.unwrap();
            eventually("the setting counts", async || {
                let sql = "SHOW synchronous_standby_names";
                let names: String = superuser.query_one(sql, &[]).await.unwrap().get(0);
                (names == "lifeboat").then_some(())
            })
            .await;
            let kept = Kept::new();
            kept.slow(true);
            let address = Address::of(&cluster);
            let options = receiving(address.connection()).with_freshness(Freshness::Synchronous);
            let follower = Follower::with(&kept, options);
            let writer = cluster.connect("postgres").await.unwrap();
            let commit = tokio::spawn(async move {
                writer.batch_execute("INSERT INTO load(pad) VALUES ('waits')").await
            });
            let written = "SELECT count(*) FROM pg_stat_replication \
                           WHERE application_name = 'lifeboat' AND write_lsn >= pg_current_wal_flush_lsn()";
            eventually("the commit is received", async || {
                let received: i64 = superuser.query_one(written, &[]).await.unwrap().get(0);
                (received == 1).then_some(())
            })
            .await;
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            eventually("the commit waits", async || {
                let waiting: i64 = superuser.query_one(waits, &[]).await.unwrap().get(0);
                (waiting == 1).then_some(())
            })
            .await;
            assert!(!commit.is_finished());
            kept.slow(false);
            tokio::time::timeout(std::time::Duration::from_secs(60), commit)
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            // What was committed is there, without another moment of waiting.
            let line = line(&cluster, 1).await;
            let (start, bytes) = kept.bytes(line).await;
            let end = Lsn(start.0 + bytes.len() as u64);
            let sql = "SELECT flush_lsn::text FROM pg_stat_replication \
                       WHERE application_name = 'lifeboat' AND sync_state = 'sync'";
            let row = superuser.query_one(sql, &[]).await.unwrap();
            let acknowledged: Lsn = row.get::<_, String>(0).parse().unwrap();
            assert!(acknowledged <= end || kept.bytes(line).await.1.len() > bytes.len());
            follower.stop().await;
        }
    });
}

#[test]
fn what_is_sealed_twice_is_whole() {
    run(async {
        let cluster = cluster(newest().unwrap(), 1);
        let address = Address::of(&cluster);
        let kept = Kept::new();
        let follower = Follower::start(&kept, address.connection());
        load(&cluster, 1).await;
        follower.reaches(1, flushed(&cluster).await).await;
        let superuser = cluster.connect("postgres").await.unwrap();
        // A segment that ends early is as long as any other.
        superuser.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        load(&cluster, 1).await;
        let end = flushed(&cluster).await;
        follower.reaches(1, end).await;
        follower.stop().await;
        let line = line(&cluster, 1).await;
        same_as_written(&kept, cluster.data_dir(), line, MIB, end).await;
        let parts = kept.segments(line).await;
        assert!(parts.iter().all(|part| part.place.kind == SegmentKind::Sealed));
        let whole: Vec<_> =
            current(&parts).into_iter().filter(|part| part.place.span.length() == MIB).collect();
        assert!(!whole.is_empty());
        assert!(parts.len() > current(&parts).len(), "no piece was superseded: {parts:?}");
    });
}
