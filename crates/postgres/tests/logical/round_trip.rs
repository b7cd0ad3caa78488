//! There and back, with every kind of object.

use std::collections::BTreeMap;

use lifeboat_postgres::Keep;
use lifeboat_testbed::data;
use lifeboat_testbed::postgres::{Cluster, Installation, all, newest};
use tokio_postgres::Client;

use crate::common::{Backup, databases, digest, into, options, programs, run};

const OBJECTS: &str = include_str!("objects.sql");

/// A cluster with a database `shop` that has every kind of object.
pub async fn shop(installation: &Installation) -> Cluster {
    let cluster = Cluster::start(installation).unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    client.batch_execute("CREATE DATABASE shop").await.unwrap();
    let client = cluster.connect("shop").await.unwrap();
    client.batch_execute(OBJECTS).await.unwrap();
    if installation.bin_dir.join("../share").exists() {
        // An extension with a table of settings, where the installation has one, comes by itself.
        let _ = client.batch_execute("CREATE EXTENSION IF NOT EXISTS pg_trgm").await;
    }
    cluster
}

/// Definitions of everything, as the server's own dump writes them, and what dumps do not show.
pub async fn definitions(cluster: &Cluster, database: &str) -> String {
    let program = programs(cluster.installation()).join("pg_dump");
    let output = std::process::Command::new(program)
        .args(["--schema-only", "--no-password", "-h", "127.0.0.1", "-U", "postgres"])
        .arg(format!("--port={}", cluster.port()))
        .arg(database)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.collect::<Vec<_>>().join("\n")
}

async fn values(client: &Client, query: &str) -> Vec<Option<String>> {
    let rows = client.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn digests(client: &Client) -> BTreeMap<String, data::TableDigest> {
    data::digests(client).await.unwrap()
}

#[test]
fn everything_comes_back() {
    run(async {
        for installation in all().unwrap() {
            let cluster = shop(installation).await;
            let client = cluster.connect("shop").await.unwrap();
            // Some installations are built without it.
            if client.query("SELECT '<a/>'::text::xml", &[]).await.is_ok() {
                let xml = "CREATE TABLE shop.xml AS SELECT '<!-- & --><a>&amp;</a>'::xml AS x";
                client.batch_execute(xml).await.unwrap();
            }
            let backup = Backup::take(options(&cluster, "shop")).await;
            let total = backup.total("shop", "orders");
            assert_eq!(total, digest(&client, "shop.orders").await);
            assert_eq!(backup.total("shop", "kinds"), digest(&client, "shop.kinds").await);
            assert_eq!(total.0, 5007);

            let restored = backup.restore(into(&cluster, "back")).await.unwrap();
            assert_eq!(restored.receipt.facts.text("database.name"), Some("back"));
            assert_eq!(
                restored.receipt.facts.unsigned("database.rows"),
                backup.facts().unsigned("database.rows")
            );
            assert_eq!(databases(&cluster).await, ["back", "postgres", "shop"]);
            let back = cluster.connect("back").await.unwrap();
            assert_eq!(definitions(&cluster, "shop").await, definitions(&cluster, "back").await);
            assert_eq!(digests(&client).await, digests(&back).await);
            for query in [
                "SELECT id::text FROM shop.sessions ORDER BY 1",
                "SELECT sequencename || ' ' || coalesce(last_value::text, '-') FROM pg_sequences ORDER BY 1",
                "SELECT nextval('shop.free')::text",
                "SELECT md5(lo_get(oid)) || oid FROM pg_largeobject_metadata ORDER BY oid",
                "SELECT obj_description(70001, 'pg_largeobject')",
                "SELECT lomacl::text FROM pg_largeobject_metadata ORDER BY oid",
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()",
                "SELECT unnest(setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE datname = current_database()",
                "SELECT doubled::text FROM shop.customers ORDER BY id",
                "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'stamp'",
                "SELECT convalidated::text FROM pg_constraint ORDER BY conname",
                "SELECT indisvalid::text FROM pg_index ORDER BY indexrelid::regclass::text",
            ] {
                assert_eq!(values(&client, query).await, values(&back, query).await, "{query}");
            }
            // The identity goes on where it stood.
            let next: i32 = back
                .query_one("INSERT INTO shop.customers (name) VALUES ('x') RETURNING id", &[])
                .await
                .unwrap()
                .get(0);
            assert_eq!(next, 501);
        }
    });
}

#[test]
fn foreign_keys_that_share_tables_do_not_meet() {
    run(async {
        for installation in all().unwrap() {
            let cluster = Cluster::start(installation).unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            // Circles, one to itself, partitions on both sides, and names that look like more. Were
            // two of a circle added at the same time, the server would break one off.
            client
                .batch_execute(
                    r#"CREATE TABLE a (id int PRIMARY KEY, b int, c int, self int REFERENCES a);
                    CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a, c int);
                    CREATE TABLE c (id int PRIMARY KEY, a int REFERENCES a, b int REFERENCES b);
                    ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b, ADD FOREIGN KEY (c) REFERENCES c;
                    ALTER TABLE b ADD FOREIGN KEY (c) REFERENCES c ON DELETE CASCADE;
                    CREATE TABLE "x"" REFERENCES public.a(" ("FOREIGN KEY (" int REFERENCES a NOT NULL);
                    CREATE TABLE p (id int PRIMARY KEY, a int REFERENCES a) PARTITION BY RANGE (id);
                    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000);
                    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1000) TO (100000);
                    ALTER TABLE p1 ADD FOREIGN KEY (a) REFERENCES b;
                    ALTER TABLE b ADD COLUMN p int REFERENCES p;
                    BEGIN; SET CONSTRAINTS ALL DEFERRED; SET session_replication_role = replica;
                    INSERT INTO a SELECT i, i, i, i FROM generate_series(1, 20000) i;
                    INSERT INTO b SELECT i, i, i, i FROM generate_series(1, 20000) i;
                    INSERT INTO c SELECT i, i, i FROM generate_series(1, 20000) i;
                    INSERT INTO p SELECT i, i FROM generate_series(1, 20000) i;
                    INSERT INTO "x"" REFERENCES public.a(" VALUES (1); COMMIT"#,
                )
                .await
                .unwrap();
            let backup = Backup::take(options(&cluster, "postgres")).await;
            let mut options = into(&cluster, "back");
            options.jobs = 8;
            backup.restore(options).await.unwrap();
            assert_eq!(
                definitions(&cluster, "postgres").await,
                definitions(&cluster, "back").await
            );
            let log = cluster.log();
            assert!(!log.contains("deadlock"), "{log}");
        }
    });
}

#[test]
fn a_snapshot_of_an_older_server_goes_into_a_newer_one() {
    run(async {
        let majors = all().unwrap();
        let (oldest, newest) = (&majors[0], newest().unwrap());
        if oldest.major == newest.major {
            return;
        }
        let old = shop(oldest).await;
        let backup = Backup::take(options(&old, "shop")).await;
        let new = Cluster::start(newest).unwrap();
        let admin = new.connect("postgres").await.unwrap();

        // Without the roles, nothing stays.
        let error = backup.restore(into(&new, "back")).await.unwrap_err();
        assert!(error.one_line().contains("leave owners and privileges out"), "{error:?}");
        assert_eq!(databases(&new).await, ["postgres"]);

        let mut plain = into(&new, "plain");
        (plain.owners, plain.privileges) = (Keep::LeaveOut, Keep::LeaveOut);
        backup.restore(plain).await.unwrap();
        let plain = new.connect("plain").await.unwrap();
        let owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class";
        assert_eq!(values(&plain, owners).await, [Some("postgres".to_owned())]);

        admin.batch_execute("CREATE ROLE reader; CREATE ROLE \"Other Owner\"").await.unwrap();
        backup.restore(into(&new, "back")).await.unwrap();
        let (client, back) =
            (old.connect("shop").await.unwrap(), new.connect("back").await.unwrap());
        assert_eq!(digests(&client).await, digests(&back).await);

        // The other way round is refused before anything is touched.
        let newer = Backup::take(options(&new, "back")).await;
        let error = newer.restore(into(&old, "down")).await.unwrap_err();
        assert!(error.one_line().contains("which is older"), "{error:?}");
        // And as well when the facts are not given.
        let error = newer.restore_blindly(into(&old, "down")).await.unwrap_err();
        assert!(error.one_line().contains("which is older"), "{error:?}");
        assert_eq!(databases(&old).await, ["postgres", "shop"]);
    });
}

#[test]
fn other_encodings_and_locales_come_back() {
    run(async {
        for installation in all().unwrap() {
            let cluster = Cluster::start(installation).unwrap();
            let admin = cluster.connect("postgres").await.unwrap();
            admin
                .batch_execute(
                    "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'",
                )
                .await
                .unwrap();
            admin
                .batch_execute(
                    "CREATE DATABASE raw ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'",
                )
                .await
                .unwrap();
            let latin = cluster.connect("latin").await.unwrap();
            latin
                .batch_execute("CREATE TABLE größe (ä text); INSERT INTO größe VALUES ('öß')")
                .await
                .unwrap();
            let raw = cluster.connect("raw").await.unwrap();
            raw.batch_execute(
                "CREATE TABLE t (a text); INSERT INTO t VALUES (E'\\xff\\xfe'), ('plain')",
            )
            .await
            .unwrap();
            for name in ["latin", "raw"] {
                let backup = Backup::take(options(&cluster, name)).await;
                backup.restore(into(&cluster, &format!("{name}_back"))).await.unwrap();
            }
            let back = cluster.connect("latin_back").await.unwrap();
            assert_eq!(values(&back, "SELECT ä FROM größe").await, [Some("öß".to_owned())]);
            let encoding = "SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname LIKE '%_back' ORDER BY datname";
            assert_eq!(
                values(&back, encoding).await,
                [Some("LATIN1".to_owned()), Some("SQL_ASCII".to_owned())]
            );
            let back = cluster.connect("raw_back").await.unwrap();
            let bytes = "SELECT encode(a::bytea, 'hex') FROM t ORDER BY 1";
            let hex = |text: &str| Some(text.to_owned());
            assert_eq!(values(&back, bytes).await, [hex("706c61696e"), hex("fffe")]);
        }
    });
}
