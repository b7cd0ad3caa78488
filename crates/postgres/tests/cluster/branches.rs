//! Servers that left the history in which the last snapshot was taken, on the same timeline.

use lifeboat_core::{Bytes, Source};
use lifeboat_postgres::{Lsn, RestoreOptions};
use lifeboat_testbed::postgres::{Cluster, Installation, Mode, all};
use lifeboat_testbed::{Scratch, data};
use tokio_postgres::Client;

use crate::base_backup::remote;
use crate::common::{Backup, run, source};
use crate::following::flushed;

fn installations() -> impl Iterator<Item = &'static Installation> {
    all().unwrap().iter().filter(|installation| installation.major >= 17)
}

/// Changes the rows of pages of their own.
async fn change(client: &Client, which: u32) {
    let from = 1000 * which;
    let update = format!("UPDATE t SET n = n + 1 WHERE id BETWEEN {from} AND {from} + 300");
    client.batch_execute(&update).await.unwrap();
}

async fn left(installation: &Installation, make: &dyn Fn(&Cluster) -> Box<dyn Source>) {
    let mut cluster = Cluster::builder()
        .installation(installation)
        .setting("summarize_wal", "on")
        .setting("autovacuum", "off")
        .start()
        .unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t(id int PRIMARY KEY, n int, pad text) WITH (fillfactor = 50);
             INSERT INTO t SELECT i, 0, repeat('x', 300) FROM generate_series(1, 20000) i",
        )
        .await
        .unwrap();
    // Or whoever reads a page first would change it.
    client.batch_execute("VACUUM FREEZE").await.unwrap();
    client.batch_execute("CHECKPOINT").await.unwrap();
    let first = Backup::take(make(&cluster).as_ref()).await;
    change(&client, 1).await;
    client.batch_execute("CHECKPOINT").await.unwrap();
    let lost = Backup::take(make(&cluster).as_ref()).await;
    assert!(lost.facts().text("postgres.wal_summaries").is_some());
    drop(client);
    cluster.stop(Mode::Fast).unwrap();
    drop(cluster);

    // Back to the first one, and on until the positions of the other one are reached again.
    let scratch = Scratch::new().unwrap();
    let target = scratch.path().join("back");
    first.restore(&target).await;
    let mut back =
        Cluster::builder().installation(installation).adopt_in_old_timeline(&target).unwrap();
    let client = back.connect("postgres").await.unwrap();
    let start: Lsn = lost.facts().text("postgres.start_lsn").unwrap().parse().unwrap();
    let mut which = 2;
    while flushed(&back).await <= start {
        change(&client, which).await;
        client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        client.batch_execute("CHECKPOINT").await.unwrap();
        which += 1;
    }
    change(&client, which).await;
    client.batch_execute("CHECKPOINT").await.unwrap();
    let before = data::digests(&client).await.unwrap();
    let backup = Backup::take_into(make(&back).as_ref(), lost.store.clone()).await;
    drop(client);
    back.stop(Mode::Fast).unwrap();
    drop(back);

    let target = scratch.path().join("again");
    backup.restore(&target).await;
    let again = Cluster::adopt(&target, installation).unwrap();
    let client = again.connect("postgres").await.unwrap();
    assert!(data::digests(&client).await.unwrap() == before, "{}", installation.version);
}

/// Somebody mistyped the address of the server.
#[test]
fn another_cluster_under_the_same_name_is_told() {
    run(async {
        let installation = all().unwrap().last().unwrap();
        let (one, other) =
            (Cluster::start(installation).unwrap(), Cluster::start(installation).unwrap());
        let first = Backup::take(&source(&one)).await;
        let again = Backup::take_into(&source(&one), first.store.clone()).await;
        assert_eq!(again.warnings, []);
        let sources: [Box<dyn Source>; 2] = [Box::new(source(&other)), Box::new(remote(&other))];
        for wrong in sources {
            let wrong = Backup::take_into(wrong.as_ref(), again.store.clone()).await;
            let told = wrong.warnings.iter().any(|(_, what)| what.contains("another cluster"));
            assert!(told, "{:?}", wrong.warnings);
            // Back to the right one, for the next round.
            let right = Backup::take_into(&source(&one), again.store.clone()).await;
            assert!(right.warnings.len() == 1, "{:?}", right.warnings);
        }
    });
}

/// The number of a timeline that the archive knows is left to whoever has it.
#[test]
fn a_restored_cluster_begins_a_timeline_that_nobody_has() {
    run(async {
        for installation in all().unwrap() {
            let cluster = Cluster::start(installation).unwrap();
            let backup = Backup::take(&source(&cluster)).await;
            let history = |parent: u32| Bytes::from(format!("{parent}\t0/1000000\tfor a test\n"));
            for (known, begun) in [(vec![], 2), (vec![(2, history(1)), (3, history(2))], 4)] {
                let scratch = Scratch::new().unwrap();
                let target = scratch.path().join("restored");
                let options = RestoreOptions::new(&target)
                    .with_facts(backup.facts().clone())
                    .with_histories(known);
                backup.restore_with(options).await.unwrap();
                let restored = Cluster::adopt(&target, installation).unwrap();
                let client = restored.connect("postgres").await.unwrap();
                let sql = "SELECT timeline_id FROM pg_control_checkpoint()";
                let timeline: i32 = client.query_one(sql, &[]).await.unwrap().get(0);
                assert_eq!(timeline, begun, "{}", restored.log());
            }
        }
    });
}

#[test]
fn nothing_is_taken_from_a_history_that_was_left() {
    run(async {
        for installation in installations() {
            left(installation, &|cluster| Box::new(source(cluster))).await;
            left(installation, &|cluster| Box::new(remote(cluster))).await;
        }
    });
}
