//! Base backups over the network, from real servers.

use std::collections::BTreeMap;

use lifeboat_core::{EntryInfo, Layout, Order, Source, names};
use lifeboat_postgres::{BaseBackupOptions, BaseBackupSource, RestoreOptions, TablespaceMapping};
use lifeboat_testbed::postgres::{Cluster, Installation, Mode, all};
use lifeboat_testbed::{Scratch, data};

use crate::common::{Backup, amcheck, checksums, connection, path, run, source, target};

/// Base backups are taken from these.
pub fn installations() -> impl Iterator<Item = &'static Installation> {
    all().unwrap().iter().filter(|installation| installation.major >= 15)
}

pub fn remote(cluster: &Cluster) -> BaseBackupSource {
    BaseBackupSource::new("main", BaseBackupOptions::new(connection(cluster)))
}

/// What of an entry both ways know.
fn comparable(info: &EntryInfo) -> (String, Option<u64>, Option<u64>, Layout, u64) {
    let number = |name| info.attributes.unsigned(name);
    let kind = info.kind.as_str().to_owned();
    (kind, number(names::MODE), number(names::UID), info.layout, info.size)
}

#[test]
fn a_server_sends_what_a_look_at_its_disk_finds() {
    run(async {
        for installation in installations() {
            let mut cluster = Cluster::builder()
                .installation(installation)
                .setting("autovacuum", "off")
                .setting("max_prepared_transactions", "5")
                .start()
                .unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            data::seed(&client, data::Size::TINY).await.unwrap();
            client
                .batch_execute(
                    "CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 1000) n;
                     CREATE TABLE prepared(n int);
                     BEGIN; INSERT INTO prepared VALUES (7); PREPARE TRANSACTION 'held';",
                )
                .await
                .unwrap();
            client.batch_execute("CREATE TEMP TABLE mine AS SELECT 1").await.unwrap();
            client.batch_execute("VACUUM FREEZE").await.unwrap();
            client.batch_execute("CHECKPOINT").await.unwrap();
            let before = data::digests(&client).await.unwrap();

            let local = Backup::take(&source(&cluster)).await;
            let remote = remote(&cluster);
            assert_eq!(remote.order(), Order::AsTheyCome);
            let sent = Backup::take(&remote).await;
            assert_eq!(sent.warnings, [], "{}", installation.version);

            let (found, sent_image) = (local.store.image(), sent.store.image());
            let kept = |name: &String| !name.starts_with("recovery/0");
            let names =
                |backup: &Backup| backup.names().into_iter().filter(kept).collect::<Vec<_>>();
            assert_eq!(names(&sent), names(&local), "{}", installation.version);
            assert!(names(&sent).iter().any(|name| name.starts_with("cluster/pg_twophase/")));
            for name in names(&sent) {
                let (mine, theirs) = (&sent_image[&path(&name)], &found[&path(&name)]);
                assert_eq!(comparable(&mine.0), comparable(&theirs.0), "{name}");
                // Between the two backups lie two checkpoints.
                let lives = name.starts_with("recovery/")
                    || name == "cluster/pg_logical/replorigin_checkpoint";
                assert!(lives || mine.1 == theirs.1, "{name} was sent with another content");
            }
            let volatile =
                ["start_lsn", "stop_lsn", "checkpoint_lsn", "started", "stopped", "devices"];
            let stable = |backup: &Backup| {
                let facts = backup.facts().iter();
                let facts =
                    facts.filter(|(name, _)| !volatile.iter().any(|end| name.ends_with(end)));
                let facts = facts.filter(|(name, _)| *name != "journal.wal.from");
                facts
                    .map(|(name, value)| (name.to_owned(), value.clone()))
                    .collect::<BTreeMap<_, _>>()
            };
            assert_eq!(stable(&sent), stable(&local), "{}", installation.version);
            let clock = sent.summary.completion.taken.as_second()
                - local.summary.completion.taken.as_second();
            assert!((0..60).contains(&clock), "{clock}");
            let slots: i64 = client
                .query_one("SELECT count(*) FROM pg_replication_slots", &[])
                .await
                .unwrap()
                .get(0);
            assert_eq!(slots, 0);

            drop(client);
            cluster.stop(Mode::Fast).unwrap();
            let scratch = Scratch::new().unwrap();
            let target = target(&scratch);
            sent.restore(&target).await;
            let mut restored = Cluster::adopt(&target, installation).unwrap();
            let client = restored.connect("postgres").await.unwrap();
            let mut expected = before;
            // Empty after a restore, as after every crash.
            let fleeting = expected.keys().find(|name| name.contains("fleeting")).cloned();
            let after = data::digests(&client).await.unwrap();
            if let Some(fleeting) = fleeting {
                assert_ne!(expected.remove(&fleeting), after.get(&fleeting).cloned());
                assert!(after.keys().all(|name| *name == fleeting || expected.contains_key(name)));
                assert!(expected.iter().all(|(name, digest)| after[name] == *digest));
            } else {
                assert_eq!(after, expected);
            }
            amcheck(&client).await;
            client.batch_execute("COMMIT PREPARED 'held'").await.unwrap();
            let held: i32 = client.query_one("SELECT n FROM prepared", &[]).await.unwrap().get(0);
            assert_eq!(held, 7);
            drop(client);
            restored.stop(Mode::Fast).unwrap();
            checksums(installation, &target);
        }
    });
}

#[test]
fn tablespaces_come_as_archives_of_their_own() {
    run(async {
        for installation in installations() {
            let mut cluster = Cluster::builder()
                .installation(installation)
                .setting("allow_in_place_tablespaces", "on")
                .start()
                .unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            let space = cluster.create_tablespace_dir().unwrap();
            client
                .batch_execute(&format!("CREATE TABLESPACE one LOCATION '{}'", space.display()))
                .await
                .unwrap();
            client.batch_execute("CREATE TABLESPACE inside LOCATION ''").await.unwrap();
            client
                .batch_execute(
                    "CREATE TABLE in_one TABLESPACE one AS SELECT generate_series(1, 90000) n;
                     CREATE TABLE in_it TABLESPACE inside AS SELECT generate_series(1, 7000) n;
                     CREATE TABLE at_home AS SELECT generate_series(1, 3000) n;",
                )
                .await
                .unwrap();
            let before = data::digests(&client).await.unwrap();
            let local = Backup::take(&source(&cluster)).await;
            let sent = Backup::take(&remote(&cluster)).await;
            assert_eq!(sent.warnings, []);
            let spaces = "postgres.tablespaces";
            assert_eq!(sent.facts().pairs(spaces), local.facts().pairs(spaces));
            assert_eq!(sent.facts().pairs(spaces).unwrap().len(), 2);
            for (name, (info, _)) in local.store.image().iter() {
                if name.to_string().starts_with("cluster/pg_tblspc") {
                    let sent = sent.store.image();
                    assert_eq!(comparable(&sent[name].0), comparable(info), "{name}");
                    let target = |info: &EntryInfo| info.attributes.get(names::TARGET).cloned();
                    assert_eq!(target(&sent[name].0), target(info), "{name}");
                }
            }

            let scratch = Scratch::new().unwrap();
            let target = target(&scratch);
            let moved = scratch.path().join("moved");
            let options = RestoreOptions::new(&target)
                .with_facts(sent.facts().clone())
                .with_tablespace(TablespaceMapping::new(space.to_str().unwrap(), &moved));
            sent.restore_with(options).await.unwrap();
            drop(client);
            cluster.stop(Mode::Fast).unwrap();
            let mut restored = Cluster::adopt(&target, installation).unwrap();
            let client = restored.connect("postgres").await.unwrap();
            assert_eq!(data::digests(&client).await.unwrap(), before);
            drop(client);
            restored.stop(Mode::Fast).unwrap();
            checksums(installation, &target);
        }
    });
}
