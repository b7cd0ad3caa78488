//! Base backups over the network of which only the changes are sent.

use std::sync::Arc;

use lifeboat_core::{Collecting, Context, Event, TransferOptions, transfer};
use lifeboat_testbed::postgres::{Builder, Cluster, Installation, Mode, all};
use lifeboat_testbed::{Scratch, data};
use tokio_postgres::Client;

use crate::base_backup::remote;
use crate::common::{Backup, amcheck, checksums, run, source, target};

/// Servers that can send changes.
fn installations() -> impl Iterator<Item = &'static Installation> {
    all().unwrap().iter().filter(|installation| installation.major >= 17)
}

/// With little WAL, so that what is sent is the files.
fn builder(installation: &Installation) -> Builder {
    Cluster::builder()
        .installation(installation)
        .initdb_arg("--wal-segsize=1")
        .setting("autovacuum", "off")
        .setting("max_wal_size", "1GB")
}

/// Some 100 MiB of rows that nobody has to touch to read them.
async fn fill(client: &Client) {
    client
        .batch_execute(
            "CREATE TABLE t(id int PRIMARY KEY, n int, pad text) WITH (fillfactor = 90);
             INSERT INTO t SELECT i, 0, repeat('x', 750) FROM generate_series(1, 130000) i;
             CREATE TABLE short AS SELECT i, repeat('y', 300) pad FROM generate_series(1, 20000) i;
             CREATE TABLE emptied AS SELECT i FROM generate_series(1, 20000) i;
             CREATE TABLE gone AS SELECT i FROM generate_series(1, 20000) i;",
        )
        .await
        .unwrap();
    client.batch_execute("VACUUM FREEZE").await.unwrap();
    client.batch_execute("CHECKPOINT").await.unwrap();
}

async fn one_percent(client: &Client) {
    let update = "UPDATE t SET n = n + 1 WHERE id BETWEEN 40000 AND 40800";
    client.batch_execute(update).await.unwrap();
}

/// Everything that a relation can suffer.
async fn suffer(client: &Client) {
    one_percent(client).await;
    client.batch_execute("DELETE FROM short WHERE i > 9000").await.unwrap();
    client.batch_execute("VACUUM short").await.unwrap();
    client
        .batch_execute("INSERT INTO short SELECT i, 'z' FROM generate_series(1, 500) i")
        .await
        .unwrap();
    client.batch_execute("TRUNCATE emptied; INSERT INTO emptied VALUES (1)").await.unwrap();
    client
        .batch_execute(
            "DROP TABLE gone; CREATE TABLE gone AS SELECT i * 2 i FROM generate_series(1, 30000) i",
        )
        .await
        .unwrap();
    client
        .batch_execute("CREATE TABLE new AS SELECT i FROM generate_series(1, 5000) i")
        .await
        .unwrap();
    client.batch_execute("CREATE DATABASE copied STRATEGY file_copy").await.unwrap();
    client.batch_execute("CREATE INDEX ON t(n)").await.unwrap();
}

/// Restores, starts, and compares with what the source had.
async fn comes_back(backup: &Backup, installation: &Installation, before: &impl std::fmt::Debug) {
    let scratch = Scratch::new().unwrap();
    let target = target(&scratch);
    backup.restore(&target).await;
    let mut restored = Cluster::adopt(&target, installation).unwrap();
    let client = restored.connect("postgres").await.unwrap();
    let after = data::digests(&client).await.unwrap();
    assert!(format!("{after:?}") == format!("{before:?}"), "{}", installation.version);
    amcheck(&client).await;
    drop(client);
    restored.stop(Mode::Fast).unwrap();
    checksums(installation, &target);
}

/// Whether two backups of a server at rest have the same files of relations, page for page.
fn same_pages(one: &Backup, other: &Backup) {
    let (one, other) = (one.store.image(), other.store.image());
    let mut compared = 0;
    for (path, (info, bytes)) in one.iter() {
        if path.to_string().starts_with("cluster/base") {
            let (other_info, other_bytes) = &other[path];
            assert_eq!((info.size, info.layout), (other_info.size, other_info.layout), "{path}");
            assert!(bytes == other_bytes, "{path} has other pages");
            compared += 1;
        }
    }
    let count = |image: &lifeboat_core::memory::Image| {
        image.keys().filter(|path| path.to_string().starts_with("cluster/base")).count()
    };
    assert!(compared > 100 && compared == count(&other), "{compared}");
}

#[test]
fn what_did_not_change_is_not_sent() {
    run(async {
        for installation in installations() {
            let cluster = builder(installation).setting("summarize_wal", "on").start().unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            fill(&client).await;
            let full = Backup::take(&remote(&cluster)).await;
            let size = full.summary.progress.read;
            assert!(size > 120_000_000, "{size}");

            one_percent(&client).await;
            let second = Backup::take_into(&remote(&cluster), full.store.clone()).await;
            let progress = second.summary.progress;
            assert_eq!(second.warnings, []);
            assert!(progress.read * 20 <= size, "{} of {size}: {progress:?}", installation.version);
            assert!(progress.unchanged > size / 2, "{progress:?}");
            let label =
                second.store.content(&crate::common::path("recovery/backup_label")).unwrap();
            assert!(!String::from_utf8_lossy(&label).contains("INCREMENTAL"));
            same_pages(&second, &Backup::take(&remote(&cluster)).await);
            let before = data::digests(&client).await.unwrap();
            comes_back(&second, installation, &before).await;

            // On top of that, and on top of a backup beside the server.
            suffer(&client).await;
            let before = data::digests(&client).await.unwrap();
            let third = Backup::take_into(&remote(&cluster), second.store.clone()).await;
            assert!(third.summary.progress.unchanged > size / 3, "{:?}", third.summary.progress);
            same_pages(&third, &Backup::take(&remote(&cluster)).await);
            comes_back(&third, installation, &before).await;

            let beside = Backup::take(&source(&cluster)).await;
            one_percent(&client).await;
            let before = data::digests(&client).await.unwrap();
            let fourth = Backup::take_into(&remote(&cluster), beside.store.clone()).await;
            let progress = fourth.summary.progress;
            assert!(progress.unchanged > progress.read, "{progress:?}");
            same_pages(&fourth, &Backup::take(&remote(&cluster)).await);
            comes_back(&fourth, installation, &before).await;
        }
    });
}

/// A backup into a store that holds the last one, and what is said beside it.
async fn noted(cluster: &Cluster, last: &Backup) -> (Backup, Vec<String>) {
    let observer = Arc::new(Collecting::new());
    let context = Context::new(observer.clone());
    let (store, source) = (last.store.clone(), remote(cluster));
    let options = TransferOptions::default();
    let summary = transfer(&source, &store, &options, &context).await.unwrap();
    let warnings = observer.warnings();
    let notes = observer.events().into_iter().filter_map(|event| match event {
        Event::Notice { message, .. } => Some(message),
        _ => None,
    });
    (Backup { store, summary, warnings }, notes.collect())
}

#[test]
fn without_summaries_everything_is_sent_and_it_is_said_why() {
    run(async {
        for installation in installations() {
            let cluster = builder(installation).start().unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            fill(&client).await;
            let first = Backup::take(&remote(&cluster)).await;
            let (second, notes) = noted(&cluster, &first).await;
            assert_eq!(second.summary.progress.unchanged, 0);
            assert!(notes.iter().any(|note| note.contains("summarize_wal is off")), "{notes:?}");

            // Turned on, the next one cannot know what was before.
            client.batch_execute("ALTER SYSTEM SET summarize_wal = on").await.unwrap();
            client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
            let (third, notes) = noted(&cluster, &second).await;
            assert_eq!(third.summary.progress.unchanged, 0);
            assert!(notes.iter().any(|note| note.starts_with("everything is sent")), "{notes:?}");
            one_percent(&client).await;
            let before = data::digests(&client).await.unwrap();
            let (fourth, notes) = noted(&cluster, &third).await;
            assert!(fourth.summary.progress.unchanged > 30_000_000, "{notes:?}");
            comes_back(&fourth, installation, &before).await;
        }
    });
}
