//! What of a data directory is in a backup, and what happens to it meanwhile.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Context, Source};
use lifeboat_postgres::{ClusterSink, ClusterSource, RestoreOptions, VerifyPages};
use lifeboat_testbed::postgres::{Cluster, Mode, all, newest, oldest};
use lifeboat_testbed::{Scratch, data};

use crate::common::{Backup, Snapshot, amcheck, checksums, options, path, run, source, target};
use crate::round_trip::brought_back;

#[test]
fn what_a_restart_would_empty_is_left_out() {
    run(async {
        for installation in [oldest().unwrap(), newest().unwrap()] {
            let cluster = Cluster::start(installation).unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            client
                .batch_execute(
                    "CREATE UNLOGGED TABLE sessions AS SELECT generate_series(1, 10000) n;
                     CREATE INDEX ON sessions(n);
                     CREATE TEMP TABLE scratch AS SELECT generate_series(1, 10000) n;
                     CREATE TABLE kept AS SELECT 1 AS n; CHECKPOINT",
                )
                .await
                .unwrap();
            let files = async |relation: &str| -> String {
                let statement = format!("SELECT pg_relation_filepath('{relation}')");
                let file: String = client.query_one(&statement, &[]).await.unwrap().get(0);
                format!("cluster/{file}")
            };
            let backup = Backup::take(&source(&cluster)).await;
            assert_eq!(backup.warnings, []);
            let names = backup.names();
            let unlogged = files("sessions").await;
            assert!(!names.contains(&unlogged));
            assert!(names.contains(&format!("{unlogged}_init")));
            assert!(!names.contains(&files("scratch").await));
            assert!(names.contains(&files("kept").await));
            for left_out in
                ["postmaster.pid", "postmaster.opts", "global/pg_control", "pg_internal.init"]
            {
                assert!(names.iter().all(|name| !name.ends_with(left_out)), "{left_out}");
            }
            for empty in ["pg_notify", "pg_replslot", "pg_stat_tmp", "pg_wal/archive_status"] {
                let inside = format!("cluster/{empty}/");
                assert!(names.contains(&format!("cluster/{empty}")), "{empty}");
                assert!(names.iter().all(|name| !name.starts_with(&inside)), "{empty}");
            }
            assert!(names.iter().all(|name| !name.starts_with("cluster/pg_wal/0")));

            let scratch = Scratch::new().unwrap();
            let target = target(&scratch);
            backup.restore(&target).await;
            let restored = Cluster::adopt(&target, installation).unwrap();
            let client = restored.connect("postgres").await.unwrap();
            for (table, rows) in [("sessions", 0), ("kept", 1)] {
                let statement = format!("SELECT count(*) FROM {table}");
                let count: i64 = client.query_one(&statement, &[]).await.unwrap().get(0);
                assert_eq!(count, rows, "{table}");
            }
        }
    });
}

#[test]
fn a_damaged_page_is_named_and_does_not_end_the_backup() {
    run(async {
        for installation in [oldest().unwrap(), newest().unwrap()] {
            let mut cluster = Cluster::start(installation).unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            client
                .batch_execute("CREATE TABLE orders AS SELECT i, repeat('x', 500) FROM generate_series(1, 1000) i; CHECKPOINT")
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
            let mut bytes = fs::read(&on_disk).unwrap();
            bytes[7 * 8192 + 4000] ^= 1;
            fs::write(&on_disk, &bytes).unwrap();
            cluster.start_again().unwrap();

            let source = source(&cluster);
            let backup = Backup::take(&source).await;
            let entry = format!("cluster/{file}");
            let expected = "page 7 (block 7 of relation public.orders in database postgres) is damaged: its checksum is wrong";
            assert_eq!(backup.warnings, [(entry.clone(), expected.to_owned())]);
            assert_eq!(backup.facts().unsigned("postgres.damaged_pages"), Some(1));
            let stored = backup.store.content(&path(&entry)).unwrap();
            assert!(stored[..] == bytes[..], "what is on the disk is what is kept");

            // It is told again, although the file did not change.
            let again = Backup::take_into(&source, backup.store.clone()).await;
            assert_eq!(again.warnings.len(), 1);

            let mut skip = options(&cluster);
            skip.verify_pages = VerifyPages::Skip;
            let unlooked = Backup::take(&ClusterSource::new("main", skip)).await;
            assert_eq!(unlooked.warnings, []);
            // What was not looked at is not trusted by a backup that looks.
            let looked = Backup::take_into(&source, unlooked.store.clone()).await;
            assert_eq!(looked.warnings.len(), 1);
        }
    });
}

#[test]
fn removed_wal_is_noticed() {
    run(async {
        // Without a slot, nothing keeps the WAL of the backup.
        let cluster = Cluster::builder()
            .installation(oldest().unwrap())
            .setting("max_replication_slots", "0")
            .setting("max_wal_size", "2MB")
            .setting("min_wal_size", "2MB")
            .initdb_arg("--wal-segsize=1")
            .start()
            .unwrap();
        let client = cluster.connect("postgres").await.unwrap();
        client.batch_execute("CREATE TABLE t(n int, pad text)").await.unwrap();
        let source = source(&cluster);
        let mut reading = source.read(None, &Context::silent()).await.unwrap();
        reading.next().await.unwrap();
        for _ in 0..3 {
            client
                .batch_execute("INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 8000) i; CHECKPOINT; SELECT pg_switch_wal()")
                .await
                .unwrap();
        }
        let error = loop {
            match reading.next().await {
                Ok(entry) => assert!(entry.is_some(), "the backup went on to its end"),
                Err(error) => break error,
            }
        };
        assert!(
            error.one_line().contains("was removed before it could be copied"),
            "{}",
            error.one_line()
        );
        assert!(error.one_line().contains("REPLICATION"), "{}", error.one_line());
    });
}

#[test]
fn links_and_odd_files_are_told() {
    run(async {
        let mut cluster = Cluster::start(newest().unwrap()).unwrap();
        let data = cluster.data_dir().to_owned();
        let elsewhere = Scratch::new().unwrap();
        fs::write(elsewhere.path().join("extra.conf"), "# nothing\n").unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("extra.conf"), data.join("extra.conf"))
            .unwrap();
        let backup = Backup::take(&source(&cluster)).await;
        assert_eq!(backup.warnings.len(), 1);
        assert!(backup.warnings[0].1.contains("symbolic link"));

        // WAL on a disk of its own is a usual thing.
        cluster.stop(Mode::Fast).unwrap();
        let wal = elsewhere.path().join("wal");
        fs::rename(data.join("pg_wal"), &wal).unwrap();
        std::os::unix::fs::symlink(&wal, data.join("pg_wal")).unwrap();
        cluster.start_again().unwrap();
        let client = cluster.connect("postgres").await.unwrap();
        client.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 100) n").await.unwrap();
        let before = data::digests(&client).await.unwrap();
        let backup = Backup::take(&source(&cluster)).await;
        assert_eq!(brought_back(&backup, newest().unwrap()).await, before);

        // Data elsewhere is not.
        cluster.stop(Mode::Fast).unwrap();
        let xact = elsewhere.path().join("xact");
        fs::rename(data.join("pg_xact"), &xact).unwrap();
        std::os::unix::fs::symlink(&xact, data.join("pg_xact")).unwrap();
        cluster.start_again().unwrap();
        let store = lifeboat_core::memory::MemoryStore::new("none");
        let source = source(&cluster);
        let error =
            lifeboat_core::transfer(&source, &store, &Default::default(), &Context::silent())
                .await
                .unwrap_err();
        assert!(error.one_line().contains("pg_xact is a symbolic link"), "{}", error.one_line());
        let inspection = lifeboat_core::Source::inspect(&source).await.unwrap();
        assert!(inspection.blockers().any(|finding| finding.code == "linked_data"));
    });
}

#[test]
fn files_that_come_and_go_meanwhile_do_no_harm() {
    run(async {
        for installation in all().unwrap() {
            let cluster = Cluster::builder()
                .installation(installation)
                .setting("max_prepared_transactions", "5")
                .initdb_arg("--allow-group-access")
                .start()
                .unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            client.batch_execute("CREATE DATABASE short_lived").await.unwrap();
            client
                .batch_execute(
                    "CREATE TABLE kept AS SELECT generate_series(1, 5000) n;
                     CREATE TABLE cut AS SELECT generate_series(1, 50000) n;
                     CREATE TABLE gone AS SELECT generate_series(1, 5000) n;",
                )
                .await
                .unwrap();
            let source = source(&cluster);
            let mut reading = source.read(None, &Context::silent()).await.unwrap();
            let store = MemoryStore::new("repository");
            store.insert(reading.next().await.unwrap().unwrap()).await.unwrap();
            client.batch_execute("DROP DATABASE short_lived").await.unwrap();
            client
                .batch_execute(
                    "DROP TABLE gone; DELETE FROM cut WHERE n > 10;
                     CREATE TABLE new AS SELECT generate_series(1, 5000) n;",
                )
                .await
                .unwrap();
            client
                .batch_execute("BEGIN; INSERT INTO kept VALUES (0); PREPARE TRANSACTION 'in doubt'")
                .await
                .unwrap();
            // Cuts off the end of the file, and removes what was dropped.
            client.batch_execute("VACUUM cut").await.unwrap();
            client.batch_execute("CHECKPOINT").await.unwrap();
            while let Some(entry) = reading.next().await.unwrap() {
                store.insert(entry).await.unwrap();
            }
            let completion = reading.finish().await.unwrap();
            let expected = data::digests(&client).await.unwrap();

            let scratch = Scratch::new().unwrap();
            let target = target(&scratch);
            let sink =
                ClusterSink::new(RestoreOptions::new(&target).with_facts(completion.facts.clone()));
            let snapshot = Snapshot { store, completion };
            lifeboat_core::transfer(&snapshot, &sink, &Default::default(), &Context::silent())
                .await
                .unwrap();
            assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o750);
            let mut restored = Cluster::adopt(&target, installation).unwrap();
            let client = restored.connect("postgres").await.unwrap();
            assert_eq!(data::digests(&client).await.unwrap(), expected, "{}", installation.version);
            client.batch_execute("COMMIT PREPARED 'in doubt'").await.unwrap();
            let rows: i64 =
                client.query_one("SELECT count(*) FROM kept", &[]).await.unwrap().get(0);
            assert_eq!(rows, 5001);
            amcheck(&client).await;
            drop(client);
            restored.stop(Mode::Fast).unwrap();
            checksums(installation, &target);
        }
    });
}

#[test]
fn a_tablespace_inside_the_data_directory_stays_there() {
    run(async {
        let cluster = Cluster::builder()
            .installation(newest().unwrap())
            .setting("allow_in_place_tablespaces", "on")
            .start()
            .unwrap();
        let client = cluster.connect("postgres").await.unwrap();
        client.batch_execute("CREATE TABLESPACE inside LOCATION ''").await.unwrap();
        client
            .batch_execute("CREATE TABLE t TABLESPACE inside AS SELECT generate_series(1, 100) n")
            .await
            .unwrap();
        let file: String =
            client.query_one("SELECT pg_relation_filepath('t')", &[]).await.unwrap().get(0);
        assert!(file.starts_with("pg_tblspc/"));
        let backup = Backup::take(&source(&cluster)).await;
        assert_eq!(backup.warnings, []);
        let scratch = Scratch::new().unwrap();
        let target = target(&scratch);
        backup.restore(&target).await;
        let stored = backup.store.content(&path(&format!("cluster/{file}"))).unwrap();
        assert!(stored[..] == fs::read(target.join(&file)).unwrap()[..]);
        assert!(
            fs::read_dir(target.join("pg_tblspc"))
                .unwrap()
                .all(|entry| { entry.unwrap().file_type().unwrap().is_dir() })
        );
    });
}
