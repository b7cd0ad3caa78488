//! The receiver when something is wrong: the repository, the network, the server, the WAL.

use std::time::Duration;

use lifeboat_core::journal::SegmentInfo;
use lifeboat_core::{Bytes, ErrorKind, Source};
use lifeboat_postgres::{ConnectOptions, Following, Lsn, NewSystem, WalLine};
use lifeboat_testbed::postgres::{Cluster, Mode, all, oldest};
use lifeboat_testbed::proxy::{Direction, Proxy, Toxics};

use crate::common::{run, source};
use crate::following::{Address, Follower, Kept, eventually, flushed, line, wal_of};

const MIB: u64 = 1 << 20;

fn cluster() -> Cluster {
    Cluster::builder()
        .installation(oldest().unwrap())
        .initdb_arg("--wal-segsize=1")
        .setting("wal_keep_size", "2GB")
        .setting("max_wal_size", "2GB")
        .start()
        .unwrap()
}

async fn load(cluster: &Cluster, mebibytes: u32) -> Lsn {
    let client = cluster.connect("postgres").await.unwrap();
    client.batch_execute("CREATE TABLE IF NOT EXISTS load(pad text)").await.unwrap();
    for _ in 0..mebibytes {
        let insert =
            "INSERT INTO load SELECT repeat(md5(random()::text), 20) FROM generate_series(1, 1500)";
        client.batch_execute(insert).await.unwrap();
    }
    flushed(cluster).await
}

async fn acknowledged(cluster: &Cluster) -> Lsn {
    let client = cluster.connect("postgres").await.unwrap();
    let sql = "SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = 'lifeboat'";
    client.query_one(sql, &[]).await.unwrap().get::<_, String>(0).parse().unwrap()
}

async fn same_as_written(kept: &Kept, cluster: &Cluster, line: WalLine, up_to: Lsn) {
    let (start, bytes) = kept.bytes(line).await;
    let end = Lsn(start.0 + bytes.len() as u64);
    assert!(end >= up_to, "it ends at {end}, before {up_to}");
    let written = wal_of(cluster.data_dir(), line.timeline, MIB, start, end).unwrap();
    assert!(bytes == written, "what was kept is not what was written");
}

#[test]
fn nothing_is_acknowledged_while_the_repository_is_away() {
    run(async {
        let cluster = cluster();
        let address = Address::of(&cluster);
        let kept = Kept::new();
        let follower = Follower::start(&kept, address.connection());
        let first = load(&cluster, 2).await;
        follower.reaches(1, first).await;
        kept.away(true);
        let durable = kept.bytes(line(&cluster, 1).await).await;
        let durable = Lsn(durable.0.0 + durable.1.len() as u64);
        load(&cluster, 5).await;
        let tried = kept.journal.refused.load(std::sync::atomic::Ordering::SeqCst);
        eventually("it is tried again and again", async || {
            let now = kept.journal.refused.load(std::sync::atomic::Ordering::SeqCst);
            (now > tried + 3).then_some(())
        })
        .await;
        assert!(acknowledged(&cluster).await <= durable);
        assert!(!follower.observer.warnings().is_empty());
        kept.away(false);
        let end = load(&cluster, 1).await;
        follower.reaches(1, end).await;
        eventually("the server hears of it", async || {
            (acknowledged(&cluster).await >= end).then_some(())
        })
        .await;
        follower.stop().await;
        same_as_written(&kept, &cluster, line(&cluster, 1).await, end).await;
    });
}

#[test]
fn whatever_the_network_does_nothing_is_left_out() {
    run(async {
        let cluster = cluster();
        let server = std::net::SocketAddr::from(([127, 0, 0, 1], cluster.port()));
        let proxy = Proxy::start(server, 7).unwrap();
        let words = format!("host=127.0.0.1 port={} user=postgres", proxy.address().port());
        let kept = Kept::new();
        let follower = Follower::start(&kept, ConnectOptions::parse(&words).unwrap());
        let mut end = load(&cluster, 2).await;
        follower.reaches(1, end).await;
        let slow = Toxics {
            latency: Some(Duration::from_millis(30)),
            jitter: Duration::from_millis(30),
            ..Toxics::default()
        };
        for toxics in [
            slow,
            Toxics { reset_after: Some(700_000), ..Toxics::default() },
            Toxics { truncate_after: Some(333_333), ..Toxics::default() },
            Toxics { truncate_after: Some(40), ..Toxics::default() },
        ] {
            let before = proxy.connections();
            let cuts = toxics.reset_after.is_some() || toxics.truncate_after.is_some();
            proxy.set(Direction::ToClient, toxics);
            end = load(&cluster, 3).await;
            if cuts {
                eventually("it connects again", async || {
                    (proxy.connections() >= before + 2).then_some(())
                })
                .await;
            }
            proxy.heal();
            end = end.max(flushed(&cluster).await);
            follower.reaches(1, end).await;
        }
        proxy.refuse(true);
        end = load(&cluster, 2).await;
        proxy.refuse(false);
        follower.reaches(1, end).await;
        let connections = proxy.connections();
        assert!(connections >= 6, "{connections} connections");
        follower.stop().await;
        same_as_written(&kept, &cluster, line(&cluster, 1).await, end).await;
    });
}

#[test]
fn a_server_that_is_stopped_loses_nothing_that_it_wrote() {
    run(async {
        let mut cluster = cluster();
        let address = Address::of(&cluster);
        let kept = Kept::new();
        let follower = Follower::start(&kept, address.connection());
        let end = load(&cluster, 3).await;
        let line = line(&cluster, 1).await;
        // The server waits at a clean stop until all is acknowledged, the last checkpoint too.
        cluster.stop(Mode::Fast).unwrap();
        assert!(follower.durable(1) >= end);
        let (start, bytes) = kept.bytes(line).await;
        let written = wal_of(
            cluster.data_dir(),
            1,
            MIB,
            start,
            Lsn(start.0 + (bytes.len() as u64).next_multiple_of(MIB)),
        )
        .unwrap();
        // Up to the very end: what follows is nothing any more.
        assert!(bytes[..] == written[..bytes.len()]);
        let rest = &written[bytes.len()..];
        assert!(rest.len() < 8192 || rest[..64].iter().all(|byte| *byte == 0), "WAL was left out");
        follower.stop().await;
    });
}

#[test]
fn wal_that_the_server_removed_becomes_a_gap() {
    run(async {
        // Somebody drops the slot; or the server gives it up, since it is too far behind.
        let dropped = [(oldest().unwrap(), true)].into_iter();
        for (installation, drop) in dropped.chain(all().unwrap().iter().map(|one| (one, false))) {
            let cluster = Cluster::builder()
                .installation(installation)
                .initdb_arg("--wal-segsize=1")
                .setting("max_wal_size", "2MB")
                .setting("min_wal_size", "2MB")
                .setting("max_slot_wal_keep_size", "2MB")
                .start()
                .unwrap();
            let address = Address::of(&cluster);
            let kept = Kept::new();
            let follower = Follower::start(&kept, address.connection());
            let first = load(&cluster, 2).await;
            follower.reaches(1, first).await;
            follower.stop().await;
            let line = line(&cluster, 1).await;
            let (start, bytes) = kept.bytes(line).await;
            let durable = Lsn(start.0 + bytes.len() as u64);
            let client = cluster.connect("postgres").await.unwrap();
            if drop {
                client.batch_execute("SELECT pg_drop_replication_slot('lifeboat')").await.unwrap();
            }
            load(&cluster, 8).await;
            client.batch_execute("CHECKPOINT").await.unwrap();
            load(&cluster, 2).await;
            client.batch_execute("CHECKPOINT").await.unwrap();
            let inspection = source(&cluster).inspect().await.unwrap();
            let told = inspection.findings.iter().any(|finding| finding.code == "slot_lost");
            assert_eq!(told, !drop, "{:?}", inspection.findings);
            let follower = Follower::start(&kept, address.connection());
            let end = load(&cluster, 2).await;
            follower.reaches(1, end).await;
            let gaps = kept.gaps(line).await;
            assert_eq!(gaps.len(), 1, "{gaps:?}");
            let (from, to) = gaps[0];
            assert_eq!(from, durable);
            assert!(to > from && to.0.is_multiple_of(MIB) && to < end, "{gaps:?}");
            let warned = follower.observer.warnings();
            assert!(warned.iter().any(|(_, told)| told.contains("is lost")), "{warned:?}");
            let done = follower.stop().await;
            let told = Following::Gap { line, from, to };
            assert!(done.lock().contains(&told));
            // And once more it goes on after the gap, without another one.
            let follower = Follower::start(&kept, address.connection());
            let end = load(&cluster, 2).await;
            follower.reaches(1, end).await;
            follower.stop().await;
            assert_eq!(kept.gaps(line).await, gaps);
        }
    });
}

#[test]
fn other_wal_in_the_same_place_stops_it() {
    run(async {
        let cluster = cluster();
        let address = Address::of(&cluster);
        let line = line(&cluster, 1).await;
        let start = Lsn(flushed(&cluster).await.0 / MIB * MIB);
        // Another server has written the beginning of this segment.
        let kept = Kept::new();
        kept.archive.begin(line, None, NewSystem::Refuse).await.unwrap();
        let foreign = Bytes::from(vec![1; 4096]);
        kept.archive.append(line, start, foreign, &SegmentInfo::default()).await.unwrap();
        load(&cluster, 1).await;
        let error = Follower::start(&kept, address.connection()).outcome().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.one_line().contains("two servers write"), "{}", error.one_line());
    });
}

#[test]
fn another_cluster_is_refused() {
    run(async {
        let kept = Kept::new();
        let other = WalLine::new(1, 1);
        kept.archive.begin(other, None, NewSystem::Refuse).await.unwrap();
        let cluster = cluster();
        let address = Address::of(&cluster);
        let error = Follower::start(&kept, address.connection()).outcome().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(kept.segments(line(&cluster, 1).await).await.is_empty());
    });
}

#[test]
fn what_the_server_refuses_from_the_beginning_ends_it() {
    run(async {
        let cluster =
            Cluster::builder().installation(oldest().unwrap()).password("geheim").start().unwrap();
        let address = Address::of(&cluster);
        let wrong = address.connection().with_password("wrong".to_owned());
        let kept = Kept::new();
        let error = Follower::start(&kept, wrong).outcome().await.unwrap_err();
        assert!(error.one_line().contains("check the role's password"), "{}", error.one_line());
    });
}

#[test]
fn a_hole_that_the_slot_still_covers_is_filled() {
    run(async {
        let cluster = cluster();
        let address = Address::of(&cluster);
        let kept = Kept::new();
        let follower = Follower::start(&kept, address.connection());
        let end = load(&cluster, 1).await;
        follower.reaches(1, end).await;
        follower.stop().await;
        let line = line(&cluster, 1).await;
        // While nobody receives, another way of archiving puts a later segment there.
        load(&cluster, 4).await;
        let later = Lsn(flushed(&cluster).await.0 / MIB * MIB - MIB);
        let to = Lsn(later.0 + MIB);
        let bytes = wal_of(cluster.data_dir(), 1, MIB, later, to).unwrap();
        kept.archive.append(line, later, bytes.into(), &SegmentInfo::default()).await.unwrap();
        let follower = Follower::start(&kept, address.connection());
        let end = load(&cluster, 1).await;
        follower.reaches(1, end).await;
        follower.stop().await;
        same_as_written(&kept, &cluster, line, end).await;
    });
}
