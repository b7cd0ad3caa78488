//! Backups that read only the pages that changed, by the server's summaries of its WAL.

use lifeboat_testbed::data;
use lifeboat_testbed::postgres::{Cluster, Installation, Mode, installations};
use serde_json::Value;

use crate::scene::{LIMIT, Scene, block_on};

/// Takes a backup; its summary, and what was said.
fn backup(scene: &Scene, cluster: &Cluster) -> (Value, String) {
    let conninfo = cluster.conninfo();
    let arguments = ["backup", "postgres", "--name", "shop", "--conninfo", &conninfo, "--json"];
    let done = scene.run(&arguments, 0);
    let events: Vec<Value> =
        done.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
    let notices = events.iter().filter(|event| event["event"] == "notice");
    let said =
        notices.map(|event| event["message"].as_str().unwrap()).collect::<Vec<_>>().join("\n");
    (events.into_iter().rfind(|event| event["event"] == "summary").unwrap(), said)
}

fn bytes(summary: &Value, name: &str) -> u64 {
    summary[name].as_u64().unwrap_or_else(|| panic!("{name}: {summary}"))
}

fn with_summaries() -> Vec<Installation> {
    let found: Vec<_> = installations().into_iter().filter(|one| one.major >= 17).collect();
    assert!(!found.is_empty());
    found
}

#[test]
fn one_page_in_a_hundred_is_all_that_is_read() {
    for installation in &with_summaries() {
        let scene = Scene::new();
        let cluster = Cluster::builder()
            .installation(installation)
            .setting("summarize_wal", "on")
            .setting("autovacuum", "off")
            .start()
            .unwrap();
        block_on(async {
            let client = cluster.connect("postgres").await.unwrap();
            // 25,000 pages, one row on each.
            let fill = "CREATE TABLE wide (id int PRIMARY KEY, n int DEFAULT 0, filler text); \
                        ALTER TABLE wide ALTER filler SET STORAGE PLAIN; \
                        INSERT INTO wide SELECT n, 0, (SELECT string_agg(md5(n::text || m), '') \
                        FROM generate_series(1, 230) m) FROM generate_series(1, 25000) n; \
                        VACUUM FREEZE wide; CHECKPOINT";
            for statement in fill.split("; ") {
                client.batch_execute(statement).await.unwrap();
            }
            backup(&scene, &cluster);
            // What the first one could not know is in place now.
            let (quiet, said) = backup(&scene, &cluster);
            assert_eq!(said, "", "{quiet}");
            // In place on its page: rows are so wide that the next version must go elsewhere, so
            // only their headers change there.
            let change = "DELETE FROM wide WHERE id % 100 = 7";
            client.batch_execute(change).await.unwrap();
            let (some, said) = backup(&scene, &cluster);
            assert_eq!(said, "", "{some}");
            // The segment of WAL that comes with each is 16 MiB.
            let (read, all) = (bytes(&some, "read") - (16 << 20), bytes(&some, "bytes"));
            assert!(read * 20 < all, "{read} of {all}: {some}");
            assert!(bytes(&some, "stored") * 100 < all, "{some}");
            assert!(bytes(&quiet, "read") < 20 << 20, "{quiet}");
        });
    }
}

/// All that can go on between two backups; the restored cluster is the one that was saved.
#[test]
fn what_was_not_read_is_as_it_was() {
    for installation in &with_summaries() {
        let scene = Scene::new();
        let mut cluster = Cluster::builder()
            .installation(installation)
            .setting("summarize_wal", "on")
            .start()
            .unwrap();
        block_on(async {
            let client = cluster.connect("postgres").await.unwrap();
            data::seed(&client, data::Size::TINY).await.unwrap();
            let tables = "CREATE TABLE shrinks AS SELECT n, repeat('x', 200) FROM generate_series(1, 60000) n; \
                          CREATE TABLE again (n int); INSERT INTO again SELECT generate_series(1, 90000); \
                          CREATE TABLE grows AS SELECT generate_series(1, 40000) n; \
                          CREATE TABLE visible AS SELECT n, 0 AS m FROM generate_series(1, 50000) n; \
                          VACUUM FREEZE visible; CREATE DATABASE source";
            for statement in tables.split("; ") {
                client.batch_execute(statement).await.unwrap();
            }
            let other = cluster.connect("source").await.unwrap();
            other
                .batch_execute("CREATE TABLE t AS SELECT generate_series(1, 50000) n")
                .await
                .unwrap();
            drop(other);
            backup(&scene, &cluster);
            for round in 1..=3 {
                data::mutate(&client, round).await.unwrap();
                let work = format!(
                    "DELETE FROM shrinks WHERE n > {}; VACUUM shrinks; \
                     INSERT INTO shrinks SELECT n, 'again' FROM generate_series(1, 300) n; \
                     TRUNCATE again; INSERT INTO again SELECT n * {round} FROM generate_series(1, 70000) n; \
                     INSERT INTO grows SELECT generate_series(1, 30000); \
                     UPDATE visible SET m = m + 1 WHERE n % 977 = {round}; \
                     DELETE FROM visible WHERE n % 1013 = {round}; \
                     CREATE DATABASE copied{round} TEMPLATE source STRATEGY file_copy; \
                     DROP TABLE IF EXISTS reborn; CREATE TABLE reborn AS SELECT {round} AS r, n FROM generate_series(1, 20000) n",
                    60_000 - round * 15_000
                );
                for statement in work.split("; ") {
                    client.batch_execute(statement.trim()).await.unwrap();
                }
                let (summary, said) = backup(&scene, &cluster);
                assert_eq!(said, "", "{summary}");
            }
            let before = data::digests(&client).await.unwrap();
            let own = "SELECT sum(hashtext(t::text)), count(*) FROM (SELECT 's', n::text FROM shrinks \
                       UNION ALL SELECT 'a', n::text FROM again UNION ALL SELECT 'g', n::text FROM grows \
                       UNION ALL SELECT 'v', n || '.' || m FROM visible \
                       UNION ALL SELECT 'r', n || '.' || r FROM reborn) t";
            let row = client.query_one(own, &[]).await.unwrap();
            let expected: (i64, i64) = (row.get(0), row.get(1));
            drop(client);
            cluster.stop(Mode::Fast).unwrap();

            let data_dir = scene.path("restored");
            let to = data_dir.to_str().unwrap();
            scene.run(&["restore", "latest", "--store", "shop", "--to", to], 0);
            let restored = Cluster::builder().installation(installation).patience(LIMIT);
            let restored = restored.adopt(&data_dir).unwrap();
            restored.wait_until_writable(LIMIT).await.unwrap();
            let client = restored.connect("postgres").await.unwrap();
            assert_eq!(data::digests(&client).await.unwrap(), before);
            let row = client.query_one(own, &[]).await.unwrap();
            assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), expected);
            // An index-only scan believes the visibility map.
            let seen = "SET enable_seqscan = off; CREATE INDEX ON visible (n); VACUUM visible";
            for statement in seen.split("; ") {
                client.batch_execute(statement).await.unwrap();
            }
            let copied = restored.connect("copied3").await.unwrap();
            let rows: i64 = copied.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
            assert_eq!(rows, 50_000);
            let amcheck = "SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'";
            if client.query_one(amcheck, &[]).await.unwrap().get::<_, i64>(0) > 0 {
                client.batch_execute("CREATE EXTENSION amcheck").await.unwrap();
                let wrong = "SELECT count(*) FROM pg_class c, verify_heapam(c.oid::regclass) \
                             WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'";
                let wrong: i64 = client.query_one(wrong, &[]).await.unwrap().get(0);
                assert_eq!(wrong, 0);
            }
        });
        scene.run(&["verify", "--every-byte"], 0);
    }
}

#[test]
fn without_summaries_files_are_read_and_it_is_said_why() {
    let installation = with_summaries().pop().unwrap();
    let scene = Scene::new();
    let cluster = Cluster::builder().installation(&installation).start().unwrap();
    block_on(async {
        let client = cluster.connect("postgres").await.unwrap();
        client.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 90000) n").await.unwrap();
        backup(&scene, &cluster);
        let (_, said) = backup(&scene, &cluster);
        assert!(said.contains("summarize_wal is off; to read changed pages only: ALTER"), "{said}");
        // Switched on since, there is nothing from before.
        client.batch_execute("ALTER SYSTEM SET summarize_wal = on").await.unwrap();
        client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        client.batch_execute("UPDATE t SET n = n").await.unwrap();
        let (_, said) = backup(&scene, &cluster);
        println!("{said}");
        let (_, said) = backup(&scene, &cluster);
        assert_eq!(said, "");
    });
}
