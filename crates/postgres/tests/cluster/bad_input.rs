//! What goes wrong says what, to what, and what to do; and leaves nothing that looks whole.

use std::fs;
use std::sync::Arc;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Context, ErrorKind, Severity, Source, TransferOptions, transfer};
use lifeboat_postgres::{
    ClusterOptions, ClusterSource, ConnectOptions, RestoreOptions, TablespaceMapping,
};
use lifeboat_testbed::disk::SmallDisk;
use lifeboat_testbed::postgres::{Cluster, Mode, all, newest, oldest};
use lifeboat_testbed::{Scratch, data};

use crate::common::{Backup, connection, options, path, run, source, target};

/// The line that a person would read.
async fn refused(source: &ClusterSource, kind: ErrorKind) -> String {
    let store = MemoryStore::new("repository");
    let result = transfer(source, &store, &TransferOptions::default(), &Context::silent()).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{}", error.one_line());
    assert_eq!(store.commits(), 0);
    error.one_line()
}

#[test]
fn a_server_that_is_down_or_refuses() {
    run(async {
        let mut cluster =
            Cluster::builder().installation(oldest().unwrap()).password("right").start().unwrap();

        let wrong = ClusterSource::new(
            "main",
            ClusterOptions::new(connection(&cluster).with_password("wrong".to_owned())),
        );
        let line = refused(&wrong, ErrorKind::Refused).await;
        assert!(line.contains("password authentication failed"), "{line}");
        assert!(line.contains("127.0.0.1") && line.contains("check the user's password"), "{line}");

        let none = ClusterSource::new(
            "main",
            ClusterOptions::new(ConnectOptions::parse(&cluster.conninfo()).unwrap()),
        );
        let line = refused(&none, ErrorKind::Refused).await;
        assert!(line.contains("PGPASSWORD"), "{line}");

        let stranger =
            ConnectOptions::parse(&cluster.conninfo().replace("user=postgres", "user=nobody"))
                .unwrap();
        let stranger =
            ClusterSource::new("main", ClusterOptions::new(stranger.with_password("x".to_owned())));
        refused(&stranger, ErrorKind::Refused).await;

        let elsewhere =
            ConnectOptions::parse(&cluster.conninfo().replace("dbname=postgres", "dbname=none"))
                .unwrap();
        let elsewhere = ClusterSource::new(
            "main",
            ClusterOptions::new(elsewhere.with_password("right".to_owned())),
        );
        refused(&elsewhere, ErrorKind::NotFound).await;

        let right = source(&cluster);
        right.inspect().await.unwrap();
        cluster.stop(Mode::Fast).unwrap();
        let line = refused(&right, ErrorKind::Unavailable).await;
        assert!(line.contains("see that the server runs"), "{line}");
        let socket = ConnectOptions::parse(&format!(
            "host={} user=postgres",
            cluster.socket_dir().display()
        ))
        .unwrap();
        refused(&ClusterSource::new("main", ClusterOptions::new(socket)), ErrorKind::Unavailable)
            .await;
    });
}

#[test]
fn a_role_learns_what_it_lacks_and_can_be_given_it() {
    run(async {
        for installation in all().unwrap() {
            let cluster = Cluster::start(installation).unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            client.batch_execute("CREATE ROLE \"back up\" LOGIN").await.unwrap();
            let role = cluster.conninfo().replace("user=postgres", "user='back up'");
            let role = ClusterSource::new(
                "main",
                ClusterOptions::new(ConnectOptions::parse(&role).unwrap()),
            );

            let line = refused(&role, ErrorKind::Refused).await;
            assert!(line.contains("pg_read_all_settings"), "{line}");
            let inspection = role.inspect().await.unwrap();
            let blockers: Vec<_> =
                inspection.blockers().map(|finding| finding.code.as_str()).collect();
            assert_eq!(blockers, ["backup_functions_denied", "data_directory_hidden"]);
            // What mends it is a statement as it stands, up to the alternative in words.
            for finding in &inspection.findings {
                if ["backup_functions_denied", "data_directory_hidden"]
                    .contains(&finding.code.as_str())
                {
                    let statement = finding.remedy.split("; or").next().unwrap();
                    client.batch_execute(statement).await.unwrap();
                }
            }
            let inspection = role.inspect().await.unwrap();
            assert_eq!(inspection.blockers().count(), 0, "{:?}", inspection.findings);
            // Without REPLICATION there is no slot, and the backup is whole all the same.
            assert!(inspection.findings.iter().any(|finding| finding.code == "wal_not_reserved"));
            let backup = Backup::take(&role).await;
            assert_eq!(backup.warnings, []);
            assert!(backup.names().contains(&"recovery/backup_label".to_owned()));

            client.batch_execute("ALTER ROLE \"back up\" REPLICATION").await.unwrap();
            let inspection = role.inspect().await.unwrap();
            assert!(inspection.findings.iter().all(|finding| finding.code != "wal_not_reserved"));
        }
    });
}

#[test]
fn a_role_without_the_functions_is_told_what_to_grant() {
    run(async {
        let cluster = Cluster::start(newest().unwrap()).unwrap();
        let client = cluster.connect("postgres").await.unwrap();
        client.batch_execute("CREATE ROLE backup LOGIN").await.unwrap();
        let role = cluster.conninfo().replace("user=postgres", "user=backup");
        let options = ClusterOptions::new(ConnectOptions::parse(&role).unwrap())
            .with_data_directory(cluster.data_dir());
        let line = refused(&ClusterSource::new("main", options), ErrorKind::Refused).await;
        assert!(line.contains("the role backup may not begin and end a backup"), "{line}");
        assert!(
            line.contains("GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean)"),
            "{line}"
        );
    });
}

#[test]
fn a_directory_of_another_server() {
    run(async {
        let one = Cluster::start(oldest().unwrap()).unwrap();
        let two = Cluster::start(oldest().unwrap()).unwrap();
        let crossed = ClusterSource::new("main", options(&one).with_data_directory(two.data_dir()));
        let line = refused(&crossed, ErrorKind::Refused).await;
        assert!(line.contains("system identifier"), "{line}");
        let inspection = crossed.inspect().await.unwrap();
        assert!(
            inspection.blockers().any(|finding| finding.code == "data_directory_of_another_server")
        );

        // A restored copy has the same system identifier.
        let backup = Backup::take(&source(&one)).await;
        let scratch = Scratch::new().unwrap();
        let target = target(&scratch);
        backup.restore(&target).await;
        let copy = options(&one).with_data_directory(&target);
        let line = refused(&ClusterSource::new("main", copy.clone()), ErrorKind::Refused).await;
        assert!(line.contains("no server runs in it"), "{line}");
        let _running = Cluster::adopt(&target, oldest().unwrap()).unwrap();
        let line = refused(&ClusterSource::new("main", copy), ErrorKind::Refused).await;
        assert!(line.contains("uses port"), "{line}");

        let nowhere = ClusterSource::new("main", options(&one).with_data_directory("/nonexistent"));
        refused(&nowhere, ErrorKind::NotFound).await;
        let inspection = nowhere.inspect().await.unwrap();
        assert!(inspection.blockers().any(|finding| finding.code == "data_directory_unreadable"));
    });
}

#[test]
fn settings_that_forbid_a_backup() {
    run(async {
        let cluster = Cluster::builder()
            .installation(newest().unwrap())
            .setting("wal_level", "minimal")
            .setting("max_wal_senders", "0")
            .checksums(false)
            .start()
            .unwrap();
        let source = source(&cluster);
        let line = refused(&source, ErrorKind::Refused).await;
        assert!(line.contains("wal_level = replica"), "{line}");
        let inspection = source.inspect().await.unwrap();
        let codes: Vec<_> =
            inspection.findings.iter().map(|finding| finding.code.as_str()).collect();
        assert_eq!(codes[0], "wal_level_minimal");
        assert!(codes.contains(&"checksums_off"));
        assert!(
            inspection.findings.is_sorted_by_key(|finding| std::cmp::Reverse(finding.severity))
        );
        assert!(inspection.size > Some(1 << 20));
        assert_eq!(inspection.blockers().count(), 1);
        assert!(inspection.findings.iter().any(|finding| finding.severity == Severity::Note));
    });
}

#[test]
fn targets_that_must_not_be_touched() {
    run(async {
        let cluster = Cluster::start(oldest().unwrap()).unwrap();
        let backup = Backup::take(&source(&cluster)).await;
        let refused = async |options: RestoreOptions, kind: ErrorKind| {
            let error = backup.restore_with(options).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{}", error.one_line());
            error.one_line()
        };

        let line = refused(RestoreOptions::new(cluster.data_dir()), ErrorKind::Refused).await;
        assert!(line.contains("a server runs there"), "{line}");
        assert!(cluster.connect("postgres").await.is_ok());

        let scratch = Scratch::new().unwrap();
        fs::write(scratch.path().join("precious"), "x").unwrap();
        let line = refused(RestoreOptions::new(scratch.path()), ErrorKind::AlreadyExists).await;
        assert!(line.contains("not empty"), "{line}");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);

        let mapping = TablespaceMapping::new("4711", scratch.path().join("space"));
        let unknown = RestoreOptions::new(target(&scratch))
            .with_tablespace(mapping)
            .with_facts(backup.facts().clone());
        refused(unknown, ErrorKind::InvalidInput).await;
        assert!(!target(&scratch).exists());
    });
}

#[test]
fn a_snapshot_that_lacks_something_is_not_restored() {
    run(async {
        let cluster = Cluster::start(oldest().unwrap()).unwrap();
        let backup = Backup::take(&source(&cluster)).await;
        let names = backup.names();
        let segment = names.iter().find(|name| name.starts_with("recovery/0000")).unwrap();
        for missing in
            [segment.as_str(), "recovery/backup_label", "recovery/pg_control", "cluster/PG_VERSION"]
        {
            let whole = backup.store.image();
            let (_, bytes) = whole[&path(missing)].clone();
            backup.store.remove(&path(missing));
            let scratch = Scratch::new().unwrap();
            let target = target(&scratch);
            let error = backup.restore_with(RestoreOptions::new(&target)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let name = missing.rsplit('/').next().unwrap();
            assert!(error.one_line().contains(name), "{}", error.one_line());
            assert!(!target.join("global/pg_control").exists());
            assert!(target.join("lifeboat-restore-unfinished").exists());
            // And it says so when somebody tries again.
            let error = backup.restore_with(RestoreOptions::new(&target)).await.unwrap_err();
            assert!(error.one_line().contains("broken off"), "{}", error.one_line());

            let entry =
                lifeboat_core::Entry::file(path(missing), lifeboat_core::Attributes::new(), bytes);
            backup.store.insert(entry).await.unwrap();
        }
        let without = lifeboat_core::Attributes::new();
        let scratch = Scratch::new().unwrap();
        let options = RestoreOptions::new(target(&scratch)).with_facts(without);
        let error = backup.restore_with(options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(!target(&scratch).exists());
    });
}

#[test]
fn a_session_that_is_ended_ends_the_backup() {
    run(async {
        let cluster = Cluster::start(newest().unwrap()).unwrap();
        let client = cluster.connect("postgres").await.unwrap();
        data::seed(&client, data::Size::TINY).await.unwrap();
        let source = source(&cluster);
        let context = Context::silent();
        let mut reading = source.read(None, &context).await.unwrap();
        for _ in 0..5 {
            drop(reading.next().await.unwrap());
        }
        assert_eq!(sessions(&client).await, 1);
        client
            .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lifeboat'", &[])
            .await
            .unwrap();
        let error = loop {
            match reading.next().await {
                Ok(entry) => assert!(entry.is_some(), "the backup went on to its end"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error.one_line().contains("the session that holds the backup was ended"),
            "{}",
            error.one_line()
        );
        assert!(reading.finish().await.is_err());
    });
}

#[test]
fn a_backup_given_up_leaves_nothing_at_the_server() {
    run(async {
        let cluster = Cluster::start(oldest().unwrap()).unwrap();
        let client = cluster.connect("postgres").await.unwrap();
        let source = Arc::new(source(&cluster));
        let mut reading = source.read(None, &Context::silent()).await.unwrap();
        let entry = reading.next().await.unwrap();
        assert_eq!(sessions(&client).await, 1);
        drop(reading);
        drop(entry);
        none_left(&client).await;

        // While the server is still at its checkpoint.
        let mut slow = options(&cluster);
        slow.checkpoint = lifeboat_postgres::Checkpoint::Spread;
        client.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 100000)").await.unwrap();
        let slow = ClusterSource::new("main", slow);
        let context = Context::silent();
        {
            let mut starting = slow.read(None, &context);
            let in_start = async {
                let asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lifeboat' AND query LIKE '%backup%' AND state = 'active'";
                while client.query_one(asked, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            };
            tokio::select! {
                _ = &mut starting => {}
                () = in_start => {}
            }
        }
        none_left(&client).await;
    });
}

#[test]
fn a_reading_that_is_not_read_to_its_end_is_no_backup() {
    run(async {
        let cluster = Cluster::start(oldest().unwrap()).unwrap();
        let mut reading = source(&cluster).read(None, &Context::silent()).await.unwrap();
        reading.next().await.unwrap();
        let error = reading.finish().await.unwrap_err();
        assert!(error.one_line().contains("before everything was read"), "{}", error.one_line());
    });
}

async fn sessions(client: &tokio_postgres::Client) -> i64 {
    let statement = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lifeboat'";
    client.query_one(statement, &[]).await.unwrap().get(0)
}

async fn none_left(client: &tokio_postgres::Client) {
    while sessions(client).await > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let slots: i64 =
        client.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await.unwrap().get(0);
    assert_eq!(slots, 0);
}

#[test]
fn a_standby_is_refused_for_now() {
    run(async {
        let installation = newest().unwrap();
        let cluster = Cluster::start(installation).unwrap();
        let backup = Backup::take(&source(&cluster)).await;
        let scratch = Scratch::new().unwrap();
        let target = target(&scratch);
        backup.restore(&target).await;
        fs::write(target.join("standby.signal"), "").unwrap();
        let standby = Cluster::builder()
            .installation(installation)
            .setting("restore_command", "false")
            .setting("hot_standby", "on")
            .adopt(&target)
            .unwrap();
        let standby = source(&standby);
        let line = refused(&standby, ErrorKind::Unsupported).await;
        assert!(line.contains("take the backup from the primary"), "{line}");
        let inspection = standby.inspect().await.unwrap();
        assert!(inspection.blockers().any(|finding| finding.code == "in_recovery"));
    });
}

#[test]
fn a_full_disk_leaves_nothing_that_starts() {
    run(async {
        let disk = match SmallDisk::mount(12 << 20) {
            Ok(disk) => disk,
            Err(unavailable) => return eprintln!("passed over: {unavailable}"),
        };
        let cluster = Cluster::start(oldest().unwrap()).unwrap();
        let backup = Backup::take(&source(&cluster)).await;
        let target = disk.path().join("restored");
        let error = backup.restore_with(RestoreOptions::new(&target)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert!(error.one_line().contains("No space left on device"), "{}", error.one_line());
        assert!(!target.exists());
    });
}

#[test]
fn without_its_label_a_restored_cluster_does_not_start() {
    run(async {
        for installation in all().unwrap() {
            let cluster = Cluster::start(installation).unwrap();
            let backup = Backup::take(&source(&cluster)).await;
            let scratch = Scratch::new().unwrap();
            let target = target(&scratch);
            backup.restore(&target).await;
            fs::remove_file(target.join("backup_label")).unwrap();
            let error = Cluster::adopt(&target, installation).unwrap_err();
            assert!(format!("{error:#}").contains("checkpoint"), "{error:#}");
        }
    });
}
