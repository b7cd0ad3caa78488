//! A cluster is backed up, restored, started, and compared row for row.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lifeboat_postgres::{ClusterSource, RestoreOptions, TablespaceMapping, Unchanged};
use lifeboat_testbed::data::TableDigest;
use lifeboat_testbed::postgres::{Cluster, Installation, Mode, all, newest, oldest};
use lifeboat_testbed::{Scratch, data};

use crate::common::{Backup, amcheck, checksums, options, run, source, target};

#[test]
fn a_restored_cluster_is_the_one_that_was_backed_up() {
    run(async {
        for installation in all().unwrap() {
            let mut cluster = Cluster::start(installation).unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            data::seed(&client, data::Size::TINY).await.unwrap();
            let before = data::digests(&client).await.unwrap();

            let backup = Backup::take(&source(&cluster)).await;
            assert_eq!(backup.warnings, []);
            drop(client);
            cluster.stop(Mode::Fast).unwrap();

            let scratch = Scratch::new().unwrap();
            let target = target(&scratch);
            let summary = backup.restore(&target).await;
            assert!(summary.receipt.facts.text("postgres.next").unwrap().contains("pg_ctl"));
            let mut restored = Cluster::adopt(&target, installation).unwrap();
            let client = restored.connect("postgres").await.unwrap();
            assert_eq!(data::digests(&client).await.unwrap(), before, "{}", installation.version);
            amcheck(&client).await;
            drop(client);
            restored.stop(Mode::Fast).unwrap();
            checksums(installation, &target);
        }
    });
}

/// Restores, starts, and returns the digests of the database `postgres`.
pub async fn brought_back(
    backup: &Backup,
    installation: &Installation,
) -> BTreeMap<String, TableDigest> {
    let scratch = Scratch::new().unwrap();
    let target = target(&scratch);
    backup.restore(&target).await;
    let mut restored = Cluster::adopt(&target, installation).unwrap();
    let client = restored.connect("postgres").await.unwrap();
    amcheck(&client).await;
    let digests = data::digests(&client).await.unwrap();
    drop(client);
    restored.stop(Mode::Fast).unwrap();
    checksums(installation, &target);
    digests
}

#[test]
fn a_cluster_under_load_comes_back_consistent() {
    run(async {
        for installation in [oldest().unwrap(), newest().unwrap()] {
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
            let writers: Vec<_> = (0..2)
                .map(|seed| {
                    let stop = Arc::clone(&stop);
                    let config = cluster.config("postgres");
                    tokio::spawn(write_until(stop, config, seed))
                })
                .collect();
            let source = source(&cluster);
            let first = Backup::take(&source).await;
            let second = Backup::take_into(&source, first.store.clone()).await;
            stop.store(true, Ordering::Relaxed);
            for writer in writers {
                assert!(writer.await.unwrap() > 0);
            }
            assert_eq!(second.warnings, []);

            let scratch = Scratch::new().unwrap();
            let target = target(&scratch);
            second.restore(&target).await;
            let mut restored = Cluster::adopt(&target, installation).unwrap();
            let copy = restored.connect("postgres").await.unwrap();
            let sums: bool = copy
                .query_one("SELECT (SELECT sum(n) FROM a) = (SELECT sum(n) FROM b) AND (SELECT sum(n) FROM a) > 0", &[])
                .await
                .unwrap()
                .get(0);
            assert!(sums, "a transaction came back by half");
            amcheck(&copy).await;
            drop(copy);
            restored.stop(Mode::Fast).unwrap();
            checksums(installation, &target);
        }
    });
}

pub async fn write_until(stop: Arc<AtomicBool>, config: tokio_postgres::Config, seed: u32) -> u64 {
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let ids =
            format!("(SELECT (random() * 19999)::int + 1 FROM generate_series(1, {}))", 60 + seed);
        let rows = client
            .batch_execute(&format!(
                "BEGIN; CREATE TEMP TABLE pick ON COMMIT DROP AS SELECT DISTINCT * FROM {ids} s(id);
                 UPDATE a SET n = n + 1 WHERE id IN (SELECT id FROM pick);
                 UPDATE b SET n = n + 1 WHERE id IN (SELECT id FROM pick); COMMIT;"
            ))
            .await;
        // Two writers may lock each other out.
        if rows.is_err() {
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        rounds += 1;
    }
    rounds
}

#[test]
fn what_did_not_change_is_not_read_again() {
    run(async {
        let installation = newest().unwrap();
        let cluster = Cluster::builder()
            .installation(installation)
            .setting("autovacuum", "off")
            .start()
            .unwrap();
        let client = cluster.connect("postgres").await.unwrap();
        data::seed(&client, data::Size::SMALL).await.unwrap();
        client.batch_execute("VACUUM FREEZE").await.unwrap();
        client.batch_execute("CHECKPOINT").await.unwrap();
        let before = data::digests(&client).await.unwrap();
        let source = source(&cluster);

        // Files are trusted once they are older than any clock's tick.
        let settled = std::time::SystemTime::now();
        while settled.elapsed().unwrap() < std::time::Duration::from_millis(2100) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let first = Backup::take(&source).await;
        let full = first.summary.progress;
        assert_eq!(full.unchanged, 0);
        assert!(full.read > 40_000_000);

        let second = Backup::take_into(&source, first.store.clone()).await;
        let again = second.summary.progress;
        let wal = 2 * 16 * 1024 * 1024;
        assert!(again.read < wal + 2_000_000, "{again:?}");
        assert!(again.unchanged > full.read - 2 * wal, "{again:?}");
        assert_eq!(brought_back(&second, installation).await, before);

        // A change is found, however small.
        client.batch_execute("UPDATE customers SET name = 'changed' WHERE id = 1").await.unwrap();
        let after = data::digests(&client).await.unwrap();
        assert_ne!(after, before);
        let third = Backup::take_into(&source, second.store.clone()).await;
        assert!(third.summary.progress.unchanged > full.read / 2);
        assert_eq!(brought_back(&third, installation).await, after);

        let mut all = options(&cluster);
        all.unchanged = Unchanged::ReadAll;
        let fourth = Backup::take_into(&ClusterSource::new("main", all), third.store.clone()).await;
        assert_eq!(fourth.summary.progress.unchanged, 0);
    });
}

#[test]
fn tablespaces_come_back_where_they_are_wanted() {
    run(async {
        for installation in all().unwrap() {
            let mut cluster = Cluster::start(installation).unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            let (one, two) = (
                cluster.create_tablespace_dir().unwrap(),
                cluster.create_tablespace_dir().unwrap(),
            );
            client
                .batch_execute(&format!("CREATE TABLESPACE one LOCATION '{}'", one.display()))
                .await
                .unwrap();
            client
                .batch_execute(&format!("CREATE TABLESPACE two LOCATION '{}'", two.display()))
                .await
                .unwrap();
            client
                .batch_execute(
                    "CREATE TABLE in_one TABLESPACE one AS SELECT generate_series(1, 5000) n;
                     CREATE TABLE in_two TABLESPACE two AS SELECT generate_series(1, 7000) n;
                     CREATE TABLE at_home AS SELECT generate_series(1, 3000) n;",
                )
                .await
                .unwrap();
            let before = data::digests(&client).await.unwrap();
            let oid: u32 = client
                .query_one("SELECT oid FROM pg_tablespace WHERE spcname = 'two'", &[])
                .await
                .unwrap()
                .get(0);
            let backup = Backup::take(&source(&cluster)).await;
            assert_eq!(backup.warnings, []);
            assert!(backup.names().contains(&"recovery/tablespace_map".to_owned()));

            // The old directories hold the running server's data.
            let scratch = Scratch::new().unwrap();
            let target = target(&scratch);
            let options = RestoreOptions::new(&target).with_facts(backup.facts().clone());
            let error = backup.restore_with(options.clone()).await.unwrap_err();
            assert!(error.one_line().contains("map the tablespace"), "{}", error.one_line());
            assert!(!target.exists());
            // Without the facts it is noticed later, and nothing stays.
            assert!(backup.restore_with(RestoreOptions::new(&target)).await.is_err());
            assert!(!target.exists());

            let (new_one, new_two) =
                (scratch.path().join("new one"), scratch.path().join("deep/new_two"));
            let options = options
                .with_tablespace(TablespaceMapping::new(one.to_str().unwrap(), &new_one))
                .with_tablespace(TablespaceMapping::new(oid.to_string(), &new_two));
            let summary = backup.restore_with(options).await.unwrap();
            let told = summary.receipt.facts.text(&format!("postgres.tablespace.{oid}"));
            assert_eq!(told, new_two.to_str());
            drop(client);
            cluster.stop(Mode::Fast).unwrap();
            drop(cluster);

            let mut restored = Cluster::adopt(&target, installation).unwrap();
            let client = restored.connect("postgres").await.unwrap();
            assert_eq!(data::digests(&client).await.unwrap(), before);
            let location: String = client
                .query_one(
                    "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'one'",
                    &[],
                )
                .await
                .unwrap()
                .get(0);
            assert_eq!(Some(location.as_str()), new_one.to_str());
            drop(client);
            restored.stop(Mode::Fast).unwrap();
            checksums(installation, &target);
        }
    });
}
