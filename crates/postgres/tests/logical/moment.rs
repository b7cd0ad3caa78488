//! One moment, in parts, of which nothing changes when nothing changed.

use lifeboat_core::Extent;
use lifeboat_core::{Context, Source};
use lifeboat_postgres::{DatabaseSource, Parts};
use lifeboat_testbed::postgres::{Cluster, all, newest};

use crate::common::{Backup, digest, options, run};

#[test]
fn transfers_between_accounts_do_not_show() {
    run(async {
        for installation in all().unwrap() {
            let cluster = Cluster::start(installation).unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            client
                .batch_execute(
                    "CREATE TABLE a (id int PRIMARY KEY, money int); CREATE TABLE b (LIKE a);
                     INSERT INTO a SELECT i, 100 FROM generate_series(1, 20000) i;
                     INSERT INTO b SELECT i, 100 FROM generate_series(1, 20000) i",
                )
                .await
                .unwrap();
            let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
            let mover = cluster.connect("postgres").await.unwrap();
            let moving = tokio::spawn(async move {
                let mut moved = 0_i64;
                while stopped.try_recv().is_err() {
                    mover
                        .batch_execute(
                            "BEGIN; UPDATE a SET money = money - 7 WHERE id % 20 = 3;
                             UPDATE b SET money = money + 7 WHERE id % 20 = 3;
                             INSERT INTO a VALUES ((SELECT max(id) + 1 FROM a), 5);
                             DELETE FROM b WHERE id = (SELECT max(id) FROM b);
                             COMMIT",
                        )
                        .await
                        .unwrap();
                    moved += 1;
                }
                moved
            });
            let mut options = options(&cluster, "postgres");
            options.part_size = 1 << 20;
            options.parts = Parts::Data;
            let backup = Backup::take(options).await;
            stop.send(()).unwrap();
            assert!(moving.await.unwrap() > 0);
            let sum = |table: &str| -> (i64, i64) {
                let prefix = format!("4-rows/public/{table}/");
                let parts = backup.names().into_iter().filter(|name| name.starts_with(&prefix));
                let text: String = parts.map(|part| backup.text(&part)).collect();
                let money = text
                    .lines()
                    .map(|line| line.split_once('\t').unwrap().1.parse::<i64>().unwrap());
                (text.lines().count() as i64, money.sum())
            };
            let (in_a, in_b) = (sum("a"), sum("b"));
            let rounds = in_a.0 - 20_000;
            assert_eq!(in_b.0, 20_000 - rounds);
            // What moved left one table and came into the other; the new rows have 5 each, and those
            // that went had 100.
            let all = in_a.1 + in_b.1;
            let touched = all - (4_000_000 + rounds * 5 - rounds * 100);
            assert!(touched <= 0 && touched % 7 == 0, "{in_a:?} {in_b:?}");
            let taken = backup.total("public", "a").0 + backup.total("public", "b").0;
            assert_eq!(taken, 40_000);
        }
    });
}

#[test]
fn a_large_table_is_read_in_parts_that_stay_the_same() {
    run(async {
        for installation in all().unwrap() {
            let cluster = Cluster::start(installation).unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            client
                .batch_execute(
                    "CREATE TABLE big (id int, filler text) WITH (autovacuum_enabled = off);
                     INSERT INTO big SELECT i, repeat(md5(i::text), 10)
                     FROM generate_series(1, 20000) i;
                     CREATE TABLE empty (); CREATE TABLE three (); INSERT INTO three SELECT;
                     INSERT INTO three SELECT; INSERT INTO three SELECT",
                )
                .await
                .unwrap();
            let mut wanted = options(&cluster, "postgres");
            wanted.part_size = 1 << 20;
            let first = Backup::take(wanted.clone()).await;
            let parts: Vec<_> = first
                .names()
                .into_iter()
                .filter(|name| name.starts_with("4-rows/public/big/"))
                .collect();
            assert!(parts.len() > 5, "{parts:?}");
            assert_eq!(parts[0], "4-rows/public/big/00000000");
            assert_eq!(first.total("public", "big"), digest(&client, "public.big").await);
            assert_eq!(first.total("public", "empty").0, 0);
            assert_eq!(first.total("public", "three").0, 3);
            assert_eq!(first.facts().unsigned("database.rows"), Some(20_003));

            let second = Backup::take(wanted.clone()).await;
            assert!(first.store.image() == second.store.image(), "nothing changed");

            client
                .batch_execute(
                    "INSERT INTO public.big SELECT 0, repeat('x', 300) FROM generate_series(1, 5000)",
                )
                .await
                .unwrap();
            let third = Backup::take(wanted).await;
            let full = &parts[..parts.len() - 1];
            assert!(full.iter().all(|part| first.text(part) == third.text(part)));
            assert_eq!(third.total("public", "big"), digest(&client, "public.big").await);
        }
    });
}

#[test]
fn contents_may_be_read_in_any_order_and_not_at_all() {
    run(async {
        let cluster = Cluster::start(newest().unwrap()).unwrap();
        let client = cluster.connect("postgres").await.unwrap();
        for table in 0..100 {
            client
                .batch_execute(&format!(
                    "CREATE TABLE t{table} AS SELECT {table} AS a FROM generate_series(1, {table})"
                ))
                .await
                .unwrap();
        }
        let mut wanted = options(&cluster, "postgres");
        wanted.jobs = 2;
        let source = DatabaseSource::new("shop", wanted.clone());
        let context = Context::silent();
        let mut reading = source.read(None, &context).await.unwrap();
        let mut held = Vec::new();
        while held.len() < 60 {
            held.push(reading.next().await.unwrap().unwrap());
        }
        while let Some(mut entry) = held.pop() {
            let mut last = None;
            while let Some(extent) = entry.content.next().await.unwrap() {
                assert!(matches!(extent, Extent::Data(_)));
                last = Some(extent);
            }
            let name = entry.path.to_string();
            if let Some(rest) = name.strip_prefix("4-rows/public/t")
                && let Some((number, _)) = rest.split_once('/')
            {
                assert_eq!(last.is_some(), number != "0", "{name}");
            }
        }
        // A content that is dropped unread is not a whole snapshot.
        let mut error = None;
        for _ in 0..300 {
            match reading.next().await {
                Ok(Some(entry)) => drop(entry),
                Ok(None) => break,
                Err(said) => {
                    error = Some(said);
                    break;
                }
            }
        }
        assert!(error.unwrap().to_string().contains("before everything was read"));
        drop(reading);
        let backup = Backup::take(wanted).await;
        assert_eq!(backup.facts().unsigned("database.rows"), Some((0..100).sum()));
        // Nothing is left behind at the server.
        let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lifeboat'";
        for _ in 0..200 {
            if client.query_one(left, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("sessions are left");
    });
}
