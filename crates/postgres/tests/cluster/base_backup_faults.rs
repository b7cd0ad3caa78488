//! Base backups over the network, when something is in their way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifeboat_core::conformance::live_source_suite;
use lifeboat_core::memory::{MemoryStore, collect};
use lifeboat_core::{
    Context, EntryPath, Error, ErrorKind, Reading, Source, TransferOptions, transfer,
};
use lifeboat_postgres::{
    BaseBackupOptions, BaseBackupSource, ClusterSink, ConnectOptions, RestoreOptions, VerifyPages,
};
use lifeboat_testbed::postgres::{Cluster, Mode, newest};
use lifeboat_testbed::proxy::{Direction, Proxy, Toxics};
use lifeboat_testbed::{Scratch, data};

use crate::base_backup::{installations, remote};
use crate::common::{Backup, amcheck, checksums, connection, path, run, target};
use crate::following::{eventually, flushed};
use crate::receive::{replayed, standby};
use crate::round_trip::write_until;

/// The error of a backup that must fail, of which nothing is there.
async fn refused(source: &dyn Source) -> Error {
    let store = MemoryStore::new("repository");
    let result = transfer(source, &store, &TransferOptions::default(), &Context::silent()).await;
    let error = result.unwrap_err();
    assert_eq!(store.commits(), 0);
    error
}

/// The server has no WAL sender and no slot in use any more.
async fn nothing_is_left(cluster: &Cluster) {
    let client = cluster.connect("postgres").await.unwrap();
    let sql = "SELECT (SELECT count(*) FROM pg_replication_slots)
        + (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender')";
    eventually("nothing is left at the server", async || {
        let left: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        (left == 0).then_some(())
    })
    .await;
}

#[test]
fn a_server_that_sends_is_a_source() {
    run(async {
        let cluster = Cluster::builder()
            .installation(newest().unwrap())
            .setting("autovacuum", "off")
            .start()
            .unwrap();
        cluster.connect("postgres").await.unwrap().batch_execute("CHECKPOINT").await.unwrap();
        let volatile = |path: &EntryPath| {
            let text = path.to_string();
            text.starts_with("recovery") || text == "cluster/pg_logical/replorigin_checkpoint"
        };
        live_source_suite(&remote(&cluster), &volatile).await;
        nothing_is_left(&cluster).await;
        // Where order is needed, it is not taken.
        let scratch = Scratch::new().unwrap();
        let sink = ClusterSink::new(RestoreOptions::new(target(&scratch)));
        let (source, options) = (remote(&cluster), TransferOptions::default());
        let error = transfer(&source, &sink, &options, &Context::silent()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(!target(&scratch).exists());
    });
}

#[test]
fn a_cluster_under_load_is_sent_consistent() {
    run(async {
        for installation in installations() {
            // So little WAL is kept that segments are reused many times during the backup.
            let cluster = Cluster::builder()
                .installation(installation)
                .setting("max_wal_size", "2MB")
                .setting("min_wal_size", "2MB")
                .setting("checkpoint_timeout", "30s")
                .initdb_arg("--wal-segsize=1")
                .start()
                .unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            // Every transaction leaves both tables with equal sums.
            client
                .batch_execute(
                    "CREATE TABLE a(id int PRIMARY KEY, n bigint, pad text);
                     CREATE TABLE b(id int PRIMARY KEY, n bigint, pad text);
                     INSERT INTO a SELECT i, 0, repeat('x', 200) FROM generate_series(1, 20000) i;
                     INSERT INTO b SELECT i, 0, repeat('y', 200) FROM generate_series(1, 20000) i;",
                )
                .await
                .unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let config = cluster.config("postgres");
            let writer = tokio::spawn(write_until(Arc::clone(&stop), config, 1));
            let backup = Backup::take(&remote(&cluster)).await;
            stop.store(true, Ordering::Relaxed);
            assert!(writer.await.unwrap() > 0);
            assert_eq!(backup.warnings, []);

            let scratch = Scratch::new().unwrap();
            let target = target(&scratch);
            backup.restore(&target).await;
            let mut restored = Cluster::adopt(&target, installation).unwrap();
            let copy = restored.connect("postgres").await.unwrap();
            let sums = "SELECT (SELECT sum(n) FROM a) = (SELECT sum(n) FROM b)
                AND (SELECT sum(n) FROM a) > 0";
            let whole: bool = copy.query_one(sums, &[]).await.unwrap().get(0);
            assert!(whole, "a transaction came back by half");
            amcheck(&copy).await;
            drop(copy);
            restored.stop(Mode::Fast).unwrap();
            checksums(installation, &target);
        }
    });
}

#[test]
fn a_standby_sends_what_the_primary_has() {
    run(async {
        for installation in installations() {
            let primary = Cluster::builder()
                .installation(installation)
                .setting("wal_keep_size", "1GB")
                .start()
                .unwrap();
            let client = primary.connect("postgres").await.unwrap();
            data::seed(&client, data::Size::TINY).await.unwrap();
            let first = Backup::take(&remote(&primary)).await;
            assert_eq!(first.facts().text("postgres.standby"), None);
            let scratch = Scratch::new().unwrap();
            let replica = scratch.path().join("replica");
            first.restore(&replica).await;
            let standby = standby(&replica, &primary, installation);
            client
                .batch_execute(
                    "CREATE TABLE later AS SELECT generate_series(1, 5000) n; CHECKPOINT",
                )
                .await
                .unwrap();
            let before = data::digests(&client).await.unwrap();
            replayed(&standby, flushed(&primary).await).await;

            let source = remote(&standby);
            let inspection = source.inspect().await.unwrap();
            assert_eq!(inspection.blockers().count(), 0);
            assert!(inspection.findings.iter().any(|finding| finding.code == "standby"));
            let backup = Backup::take(&source).await;
            assert_eq!(backup.warnings, [], "{}", installation.version);
            assert_eq!(backup.facts().text("postgres.standby"), Some("on"));
            assert!(!backup.names().contains(&"cluster/standby.signal".to_owned()));
            nothing_is_left(&standby).await;
            drop(client);
            drop(standby);
            drop(primary);

            // Nothing else is needed: no primary, no archive.
            let target = target(&scratch);
            backup.restore(&target).await;
            let mut restored = Cluster::adopt(&target, installation).unwrap();
            restored.wait_until_writable(Duration::from_secs(60)).await.unwrap();
            let client = restored.connect("postgres").await.unwrap();
            assert_eq!(data::digests(&client).await.unwrap(), before, "{}", installation.version);
            amcheck(&client).await;
            drop(client);
            restored.stop(Mode::Fast).unwrap();
            checksums(installation, &target);
        }
    });
}

/// Reads so many entries with their contents, and says how many there were.
async fn read(reading: &mut dyn Reading, most: usize) -> Result<usize, Error> {
    let mut count = 0;
    while count < most
        && let Some(entry) = reading.next().await?
    {
        collect(entry, None).await?;
        count += 1;
    }
    Ok(count)
}

#[test]
fn a_reading_that_is_dropped_leaves_nothing_at_the_server() {
    run(async {
        for installation in installations() {
            let cluster = Cluster::start(installation).unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            data::seed(&client, data::Size::TINY).await.unwrap();
            let source = remote(&cluster);
            for entries in [0, 30] {
                let mut reading = source.read(None, &Context::silent()).await.unwrap();
                assert_eq!(read(reading.as_mut(), entries).await.unwrap(), entries);
                drop(reading);
                nothing_is_left(&cluster).await;
            }
            // In the middle of a large file.
            let mut reading = source.read(None, &Context::silent()).await.unwrap();
            let mut entry = loop {
                let entry = reading.next().await.unwrap().unwrap();
                if !entry.content.is_ready() {
                    break entry;
                }
            };
            assert!(entry.content.next().await.unwrap().is_some());
            drop(reading);
            drop(entry);
            nothing_is_left(&cluster).await;
            // Prepared, and then not wanted.
            source.prepare().await.unwrap();
            drop(source);
            nothing_is_left(&cluster).await;
        }
    });
}

#[test]
fn a_server_that_dies_in_the_middle_leaves_no_snapshot() {
    run(async {
        let mut cluster = Cluster::start(newest().unwrap()).unwrap();
        let client = cluster.connect("postgres").await.unwrap();
        data::seed(&client, data::Size::SMALL).await.unwrap();
        drop(client);
        let mut reading = remote(&cluster).read(None, &Context::silent()).await.unwrap();
        read(reading.as_mut(), 5).await.unwrap();
        cluster.kill().unwrap();
        let error = read(reading.as_mut(), usize::MAX).await.unwrap_err();
        assert!(error.is_retryable(), "{}", error.one_line());
        let line = error.one_line();
        assert!(
            line.contains("the connection was lost") && line.contains("server's log"),
            "{line}"
        );
        assert!(reading.finish().await.is_err());
        // A server that is not there.
        let error = refused(&remote(&cluster)).await;
        assert!(error.one_line().contains("see that the server runs"), "{}", error.one_line());
    });
}

#[test]
fn whatever_the_network_does_there_is_no_wrong_snapshot() {
    run(async {
        let cluster = Cluster::start(newest().unwrap()).unwrap();
        let client = cluster.connect("postgres").await.unwrap();
        data::seed(&client, data::Size::TINY).await.unwrap();
        let server = SocketAddr::from(([127, 0, 0, 1], cluster.port()));
        let proxy = Proxy::start(server, 7).unwrap();
        let words = format!("host=127.0.0.1 port={} user=postgres", proxy.address().port());
        let options = BaseBackupOptions::new(ConnectOptions::parse(&words).unwrap());
        let source = BaseBackupSource::new("main", options);
        let whole = Backup::take(&source).await;
        assert_eq!(whole.warnings, []);
        let size = whole.summary.progress.read;
        assert!(size > 20_000_000, "{size}");
        for toxics in [
            Toxics { truncate_after: Some(100), ..Toxics::default() },
            Toxics { truncate_after: Some(3_000_000), ..Toxics::default() },
            Toxics { reset_after: Some(5_000_000), ..Toxics::default() },
            // The last bytes: the manifest, or what follows it.
            Toxics { truncate_after: Some(size), ..Toxics::default() },
        ] {
            proxy.set(Direction::ToClient, toxics.clone());
            let error = refused(&source).await;
            assert!(error.is_retryable(), "{toxics:?}: {}", error.one_line());
        }
        for at in [700_001, 1_234_567, 3_000_003, 4_999_999] {
            proxy.set(Direction::ToClient, Toxics { flip_byte_at: Some(at), ..Toxics::default() });
            let error = refused(&source).await;
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{at}: {}", error.one_line());
        }
        proxy.heal();
        let again = Backup::take(&source).await;
        assert_eq!(again.names().len(), whole.names().len());
        nothing_is_left(&cluster).await;
    });
}

#[test]
fn damaged_pages_are_named_as_beside_the_server() {
    run(async {
        for installation in installations() {
            let mut cluster = Cluster::start(installation).unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            client
                .batch_execute("CREATE TABLE orders AS SELECT i, repeat('x', 500) FROM generate_series(1, 4000) i; CHECKPOINT")
                .await
                .unwrap();
            let file: String = client
                .query_one("SELECT pg_relation_filepath('orders')", &[])
                .await
                .unwrap()
                .get(0);
            drop(client);
            cluster.stop(Mode::Fast).unwrap();
            let on_disk = cluster.data_dir().join(&file);
            let mut bytes = std::fs::read(&on_disk).unwrap();
            for page in [7, 150] {
                bytes[page * 8192 + 4000] ^= 1;
            }
            std::fs::write(&on_disk, &bytes).unwrap();
            cluster.start_again().unwrap();

            let backup = Backup::take(&remote(&cluster)).await;
            let entry = format!("cluster/{file}");
            let told = |page: u32| {
                let what = format!(
                    "page {page} (block {page} of relation public.orders in database postgres) is damaged: its checksum is wrong"
                );
                (entry.clone(), what)
            };
            assert_eq!(backup.warnings, [told(7), told(150)], "{}", installation.version);
            assert_eq!(backup.facts().unsigned("postgres.damaged_pages"), Some(2));
            let stored = backup.store.content(&path(&entry)).unwrap();
            assert!(stored[..] == bytes[..], "what is on the disk is what is kept");

            let mut options = BaseBackupOptions::new(connection(&cluster));
            options.verify_pages = VerifyPages::Skip;
            let unlooked = Backup::take(&BaseBackupSource::new("main", options)).await;
            assert_eq!(unlooked.warnings, []);
            assert_eq!(unlooked.facts().text("postgres.pages"), Some("not verified"));
        }
    });
}

#[test]
fn what_keeps_a_server_from_sending_is_told_before_it_begins() {
    run(async {
        let cluster = Cluster::builder()
            .installation(newest().unwrap())
            .setting("max_wal_senders", "1")
            .setting("max_replication_slots", "0")
            .setting("wal_level", "replica")
            .start()
            .unwrap();
        let client = cluster.connect("postgres").await.unwrap();
        client.batch_execute("CREATE ROLE plain LOGIN").await.unwrap();
        let words = |user: &str| format!("host=127.0.0.1 port={} user={user}", cluster.port());
        let source = |user: &str| {
            let connection = ConnectOptions::parse(&words(user)).unwrap();
            BaseBackupSource::new("main", BaseBackupOptions::new(connection))
        };
        let line = refused(&source("plain")).await.one_line();
        assert!(line.contains("ALTER ROLE … REPLICATION"), "{line}");

        // Without a slot it goes on, and says what that means.
        let inspection = source("postgres").inspect().await.unwrap();
        assert!(inspection.findings.iter().any(|finding| finding.code == "wal_not_reserved"));
        assert!(inspection.findings.iter().any(|finding| finding.code == "archive_off"));
        // A session that was closed has its place until the server notices.
        let free =
            "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walsender')";
        eventually("nobody sends", async || {
            client.query_one(free, &[]).await.unwrap().get::<_, bool>(0).then_some(())
        })
        .await;
        let backup = Backup::take(&source("postgres")).await;
        assert_eq!(backup.warnings, []);
        eventually("nobody sends", async || {
            client.query_one(free, &[]).await.unwrap().get::<_, bool>(0).then_some(())
        })
        .await;

        let first = source("postgres");
        first.prepare().await.unwrap();
        let line = refused(&source("postgres")).await.one_line();
        assert!(line.contains("raise max_wal_senders"), "{line}");
        drop(first);

        let hba = cluster.data_dir().join("pg_hba.conf");
        std::fs::write(&hba, "host all all 127.0.0.1/32 trust\nlocal all all trust\n").unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        eventually("the server has read its settings", async || {
            let error = source("postgres").inspect().await.err()?;
            error.one_line().contains("pg_hba.conf has a line of type").then_some(())
        })
        .await;
    });
}
