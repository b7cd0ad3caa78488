//! One table of a cluster comes back into the running server, through a scratch server.

use std::time::{Duration, Instant};

use lifeboat_testbed::postgres::of_major;

use crate::rehearsed::{is_empty, place, programs};
use crate::scene::{LIMIT, Scene, block_on};

#[test]
fn one_table_of_a_cluster_comes_back_as_of_a_moment() {
    let installation = of_major(15).unwrap();
    let scene = Scene::new();
    let cluster = scene.cluster(installation).start().unwrap();
    let conninfo = cluster.conninfo();
    let (_, place) = (programs(&scene, installation), place(&scene));
    let restore = |more: &[&str], code: i32| {
        let words = ["restore", "latest", "--store", "postgres/shop", "--conninfo", &conninfo];
        let scratch = ["--scratch", place.to_str().unwrap()];
        let done = scene.run(&[&words[..], &scratch, more].concat(), code);
        assert!(is_empty(&place));
        done
    };
    block_on(async {
        let client = cluster.connect("postgres").await.unwrap();
        for statement in ["CREATE DATABASE shop", "CREATE TABLE elsewhere (n int)"] {
            client.batch_execute(statement).await.unwrap();
        }
        let shop = cluster.connect("shop").await.unwrap();
        shop.batch_execute(
            "CREATE TABLE orders (id int PRIMARY KEY, what text, price numeric(8, 2) DEFAULT 1.5); \
             INSERT INTO orders SELECT n, E'a\\tb' || n FROM generate_series(1, 3000) n; \
             CREATE TABLE lines (id int REFERENCES orders)",
        )
        .await
        .unwrap();
        scene.run(&["backup", "postgres", "--name", "shop", "--conninfo", &conninfo], 0);
        shop.batch_execute("UPDATE orders SET what = 'late' WHERE id <= 10").await.unwrap();
        let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', \
                   'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        let moment: String = shop.query_one(now, &[]).await.unwrap().get(0);
        let digest = "SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM";
        let expected: String =
            shop.query_one(&format!("{digest} orders o"), &[]).await.unwrap().get(0);
        // The accident, after which WAL goes on.
        shop.batch_execute("DELETE FROM orders WHERE id > 5").await.unwrap();
        let segment = "SELECT pg_walfile_name(pg_switch_wal())";
        let segment: String = shop.query_one(segment, &[]).await.unwrap().get(0);
        let archived = "SELECT coalesce(last_archived_wal, '') >= $1 FROM pg_stat_archiver";
        let begun = Instant::now();
        while !shop.query_one(archived, &[&segment]).await.unwrap().get::<_, bool>(0) {
            assert!(begun.elapsed() < LIMIT, "{}", cluster.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }

        let table = ["--to", "shop", "--table", "public.orders"];
        let at = ["--to-time", moment.as_str()];
        let beside = ["--beside", "public.orders_before"];
        restore(&[&table[..], &at, &beside].concat(), 0);
        let beside: String =
            shop.query_one(&format!("{digest} orders_before o"), &[]).await.unwrap().get(0);
        assert_eq!(beside, expected);
        // Into its place: others refer to it, so it is refused; once they do not, it is done.
        let said = restore(&[&table[..], &at, &["--replace"]].concat(), 1).stderr;
        assert!(said.contains("lines refers to it"), "{said}");
        assert!(!said.contains("scratch"), "{said}");
        shop.batch_execute("DROP TABLE lines").await.unwrap();
        restore(&[&table[..], &at, &["--replace"]].concat(), 0);
        let replaced: String =
            shop.query_one(&format!("{digest} orders o"), &[]).await.unwrap().get(0);
        assert_eq!(replaced, expected);
        // Gone altogether, it is made again in the form that it had.
        shop.batch_execute("DROP TABLE orders").await.unwrap();
        restore(&[&table[..], &["--beside", "public.orders"]].concat(), 0);
        let rows: i64 = shop.query_one("SELECT count(*) FROM orders", &[]).await.unwrap().get(0);
        assert_eq!(rows, 3000);

        let nowhere = ["--to", "shop", "--table", "public.never", "--beside", "public.x"];
        let said = restore(&nowhere, 1).stderr;
        assert!(said.contains("never"), "{said}");
        let nobody = ["--to", "nobody", "--table", "public.orders", "--beside", "public.x"];
        let said = restore(&nobody, 1).stderr;
        assert!(said.contains("nobody"), "{said}");
        // Nothing is restored for what cannot be done.
        for (beside, why) in [("public.orders", "--beside"), ("none.x", "no schema none")] {
            let words = ["--to", "shop", "--table", "public.orders", "--beside", beside];
            let said = restore(&words, 1).stderr;
            assert!(said.contains(why) && !said.contains("scratch"), "{said}");
        }
    });
}
