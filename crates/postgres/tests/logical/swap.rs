//! A restored database takes the place of one that is there, and that one is kept.

use std::sync::Arc;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Collecting, Context, Entry, EntryPath, Error, ErrorKind, Source, Summary, TransferOptions,
    transfer,
};
use lifeboat_postgres::{ConnectOptions, DatabaseRestoreOptions, DatabaseSink, Occupied, Others};
use lifeboat_testbed::postgres::{Cluster, all, newest, oldest};
use tokio_postgres::Client;

use crate::common::{Backup, databases, digest, into, options, run, until};
use crate::round_trip::shop;

/// What belongs to a database as a whole, in the server's words.
const WHOLE: &str = "SELECT concat_ws('; ', d.datdba::regrole, d.datconnlimit,
        shobj_description(d.oid, 'pg_database'),
        (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(d.datacl) a),
        (SELECT string_agg(s.setrole::regrole || ' ' || s.setconfig::text, ' ' ORDER BY s.setrole)
         FROM pg_db_role_setting s WHERE s.setdatabase = d.oid))
    FROM pg_database d WHERE d.datname = $1";

async fn whole(client: &Client, database: &str) -> String {
    client.query_one(WHOLE, &[&database]).await.unwrap().get(0)
}

/// Waits until there is a role called `go`, which is the same in all databases.
const GATE: &str = "
DO $$ BEGIN
    FOR i IN 1..2400 LOOP
        EXIT WHEN EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'go');
        PERFORM pg_catalog.pg_sleep(0.025);
    END LOOP;
END $$;
";

/// Over the database of this name.
fn over(cluster: &Cluster, name: &str) -> DatabaseRestoreOptions {
    let mut options = into(cluster, name);
    options.occupied = Occupied::Swap;
    options
}

/// Restores, with what is told besides warnings.
async fn restore(
    store: &MemoryStore,
    options: DatabaseRestoreOptions,
) -> (Result<Summary, Error>, Vec<(String, String)>) {
    let observer = Arc::new(Collecting::new());
    let context = Context::new(observer.clone());
    let sink = DatabaseSink::new(options);
    let transfer_options = TransferOptions::default();
    let done = transfer(store as &dyn Source, &sink, &transfer_options, &context).await;
    assert!(observer.warnings().is_empty(), "{:?}", observer.warnings());
    (done, observer.notices())
}

/// The statements after the last colon of what is told.
fn statements(told: &str) -> &str {
    told.rsplit(": ").next().unwrap()
}

/// Nobody is in these databases any more, as the server sees it.
async fn left(admin: &Client, database: &str) {
    let query = format!(
        "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{database}')"
    );
    until(admin, &query).await;
}

#[test]
fn databases_change_places_and_keep_what_belongs_to_them() {
    run(async {
        for installation in all().unwrap() {
            let cluster = shop(installation).await;
            let admin = cluster.connect("postgres").await.unwrap();
            admin
                .batch_execute(
                    r#"ALTER DATABASE shop OWNER TO "Other Owner"; ALTER DATABASE shop CONNECTION LIMIT 17;
                    CREATE ROLE passed; REVOKE ALL ON DATABASE shop FROM PUBLIC;
                    GRANT CONNECT ON DATABASE shop TO reader WITH GRANT OPTION;
                    SET ROLE reader; GRANT CONNECT ON DATABASE shop TO passed; RESET ROLE;
                    ALTER ROLE reader IN DATABASE shop SET search_path = shop, "a b";
                    ALTER ROLE reader IN DATABASE shop SET work_mem = '7MB'"#,
                )
                .await
                .unwrap();
            let backup = Backup::take(options(&cluster, "shop")).await;
            let then = whole(&admin, "shop").await;
            assert!(then.contains("passed=c/reader") && then.contains("7MB"), "{then}");
            // A new database has it from the snapshot.
            let (done, _) = restore(&backup.store, into(&cluster, "back")).await;
            done.unwrap();
            assert_eq!(whole(&admin, "back").await, then);

            // The one that is there has changed, in it and as a whole.
            let live = cluster.connect("shop").await.unwrap();
            live.batch_execute("DELETE FROM shop.orders WHERE id <= 7; CREATE TABLE shop.later AS SELECT 1; DROP TABLE shop.guarded")
                .await
                .unwrap();
            drop(live);
            admin
                .batch_execute(
                    "REVOKE ALL ON DATABASE shop FROM passed, reader CASCADE; GRANT TEMPORARY ON DATABASE shop TO PUBLIC;
                     COMMENT ON DATABASE shop IS 'today'; ALTER ROLE reader IN DATABASE shop RESET ALL;
                     ALTER DATABASE shop OWNER TO postgres",
                )
                .await
                .unwrap();
            let now = whole(&admin, "shop").await;
            left(&admin, "shop").await;
            let (done, told) = restore(&backup.store, over(&cluster, "shop")).await;
            let facts = done.unwrap().receipt.facts;
            let kept = facts.text("database.kept").unwrap().to_owned();
            assert!(kept.starts_with("shop_before_20") && kept.len() == 27, "{kept}");
            assert_eq!(databases(&cluster).await, ["back", "postgres", "shop", &kept]);
            assert_eq!(whole(&admin, "shop").await, now);
            assert_eq!(whole(&admin, &kept).await, now);

            let client = cluster.connect("shop").await.unwrap();
            assert_eq!(backup.total("shop", "orders"), digest(&client, "shop.orders").await);
            drop(client);
            let old = cluster.connect(&kept).await.unwrap();
            let count = |table: &str| format!("SELECT count(*) FROM ONLY shop.{table}");
            let orders: i64 = old.query_one(&count("orders"), &[]).await.unwrap().get(0);
            let log: i64 = old.query_one(&count("log"), &[]).await.unwrap().get(0);
            assert_eq!((orders, log > 0), (5000, true));
            drop(old);
            // What differs was told, and nothing else.
            let about = |table: &str| {
                let name = format!("table shop.{table}");
                told.iter().find(|(what, _)| *what == name).map(|(_, words)| words.as_str())
            };
            assert_eq!(
                about("orders"),
                Some("5007 rows restored, and 5000 in the database that is there")
            );
            assert!(about("log").unwrap().starts_with("0 rows restored, and "), "{told:?}");
            assert!(about("later").unwrap().starts_with("1 rows in the database"), "{told:?}");
            assert!(about("guarded").unwrap().starts_with("2 rows restored; "), "{told:?}");
            assert_eq!(told.len(), 4, "{told:?}");
            let number = |name: &str| facts.unsigned(&format!("database.compared.{name}"));
            assert_eq!((number("differ"), number("only_restored")), (Some(2), Some(1)));
            assert_eq!((number("only_live"), number("not_counted")), (Some(1), Some(0)));
            assert!(number("alike").unwrap() > 5);

            // And back, and away, by the statements that are told.
            for database in ["shop", &kept] {
                left(&admin, database).await;
            }
            admin
                .batch_execute(statements(facts.text("database.note.back").unwrap()))
                .await
                .unwrap();
            let after = kept.replace("_before_", "_after_");
            assert_eq!(databases(&cluster).await, ["back", "postgres", "shop", &after]);
            let (done, _) = restore(&backup.store, over(&cluster, "shop")).await;
            let facts = done.unwrap().receipt.facts;
            admin
                .batch_execute(statements(facts.text("database.note.kept").unwrap()))
                .await
                .unwrap();
            assert_eq!(databases(&cluster).await, ["back", "postgres", "shop", &after]);
        }
    });
}

#[test]
fn a_database_in_use_is_swapped_only_on_request() {
    run(async {
        let cluster = shop(newest().unwrap()).await;
        let backup = Backup::take(options(&cluster, "shop")).await;
        let one = cluster.connect("shop").await.unwrap();
        let two = cluster.connect("shop").await.unwrap();
        let (done, _) = restore(&backup.store, over(&cluster, "shop")).await;
        let error = done.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.one_line().contains("shop: 2 sessions (a program as postgres)"), "{error:?}");
        let hint = error.hint().unwrap();
        let end = "pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shop'";
        assert!(hint.contains(end) && hint.contains("--disconnect"), "{hint}");
        assert_eq!(databases(&cluster).await, ["postgres", "shop"]);

        let mut disconnect = over(&cluster, "shop");
        disconnect.others = Others::Disconnect;
        one.batch_execute("BEGIN; INSERT INTO shop.log VALUES ('never')").await.unwrap();
        let (done, told) = restore(&backup.store, disconnect).await;
        done.unwrap();
        let ended = ("database shop".to_owned(), "2 sessions were ended".to_owned());
        assert!(told.contains(&ended), "{told:?}");
        assert!(one.batch_execute("COMMIT").await.is_err());
        assert!(two.batch_execute("SELECT 1").await.is_err());
        assert_eq!(databases(&cluster).await.len(), 3);
    });
}

#[test]
fn a_swap_that_fails_leaves_the_database_as_it_was() {
    run(async {
        let cluster = Cluster::builder()
            .installation(oldest().unwrap())
            .setting("max_prepared_transactions", "2")
            .start()
            .unwrap();
        let admin = cluster.connect("postgres").await.unwrap();
        admin.batch_execute("CREATE DATABASE shop").await.unwrap();
        let live = cluster.connect("shop").await.unwrap();
        live.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS a").await.unwrap();
        let backup = Backup::take(options(&cluster, "shop")).await;
        live.batch_execute("INSERT INTO t VALUES (7)").await.unwrap();
        let same = async || {
            let live = cluster.connect("shop").await.unwrap();
            let row = live.query_one("SELECT count(*) FROM t", &[]).await.unwrap();
            assert_eq!(row.get::<_, i64>(0), 1001);
            drop(live);
            left(&admin, "shop").await;
        };
        let began = "SELECT datname::text FROM pg_database WHERE datname LIKE 'shop\\_restore\\_%'";

        // Before anything is touched.
        live.batch_execute("BEGIN; INSERT INTO t VALUES (8); PREPARE TRANSACTION 'p'")
            .await
            .unwrap();
        let mut disconnect = over(&cluster, "shop");
        disconnect.others = Others::Disconnect;
        let (done, _) = restore(&backup.store, disconnect).await;
        let error = done.unwrap_err();
        assert!(error.one_line().contains("it has prepared transactions"), "{error:?}");
        live.batch_execute("ROLLBACK PREPARED 'p'").await.unwrap();
        drop(live);
        left(&admin, "shop").await;

        // While the rows come.
        let rows = EntryPath::new("4-rows/public/t/00000000").unwrap();
        let whole = backup.store.content(&rows).unwrap();
        let other = Entry::file(rows.clone(), Default::default(), whole.slice(2..));
        backup.store.insert(other).await.unwrap();
        let (done, _) = restore(&backup.store, over(&cluster, "shop")).await;
        assert!(done.unwrap_err().one_line().contains("999 rows"));
        assert_eq!(databases(&cluster).await, ["postgres", "shop"]);
        same().await;
        backup.store.insert(Entry::file(rows, Default::default(), whole)).await.unwrap();

        // From here on, a restore waits after its last index until it may go on.
        let after = EntryPath::new("7-post-data.sql").unwrap();
        let script = [&backup.store.content(&after).unwrap()[..], GATE.as_bytes()].concat();
        backup.store.insert(Entry::file(after, Default::default(), script)).await.unwrap();

        // Somebody is in the one, or in the other, when the names are to change.
        for in_restored in [false, true] {
            let restoring = restore(&backup.store, over(&cluster, "shop"));
            let enter = async {
                let restored: String = until(&admin, began).await.get(0);
                let into = if in_restored { &restored } else { "shop" };
                let client = cluster.connect(into).await.unwrap();
                admin.batch_execute("CREATE ROLE go").await.unwrap();
                (client, restored)
            };
            let ((done, _), (client, restored)) = tokio::join!(restoring, enter);
            admin.batch_execute("DROP ROLE go").await.unwrap();
            let error = done.unwrap_err();
            let line = error.one_line();
            assert!(line.contains("complete and checked"), "{error:?}");
            let why = if in_restored { "being accessed by other users" } else { "1 session (" };
            assert!(line.contains(why), "{error:?}");
            assert_eq!(databases(&cluster).await, ["postgres", "shop", &restored]);
            drop(client);
            left(&admin, &restored).await;
            same().await;
            // What was restored is whole.
            let client = cluster.connect(&restored).await.unwrap();
            assert_eq!(backup.total("public", "t"), digest(&client, "public.t").await);
            drop(client);
            left(&admin, &restored).await;
            if in_restored {
                // The statements that are told finish it.
                let hint = error.hint().unwrap().to_owned();
                let from = hint.find("BEGIN;").unwrap();
                let upto = hint.find("COMMIT").unwrap() + "COMMIT".len();
                admin.batch_execute(&hint[from..upto]).await.unwrap();
                let client = cluster.connect("shop").await.unwrap();
                assert_eq!(backup.total("public", "t"), digest(&client, "public.t").await);
                drop(client);
                left(&admin, "shop").await;
                let kept: String = until(
                    &admin,
                    "SELECT datname::text FROM pg_database WHERE datname LIKE 'shop\\_before\\_%'",
                )
                .await
                .get(0);
                admin.batch_execute("DROP DATABASE shop").await.unwrap();
                admin
                    .batch_execute(&format!("ALTER DATABASE {kept} RENAME TO shop"))
                    .await
                    .unwrap();
            } else {
                admin.batch_execute(&format!("DROP DATABASE {restored}")).await.unwrap();
            }
        }

        // The connection is lost in the middle of the change.
        let restoring = restore(&backup.store, over(&cluster, "shop"));
        let holder = cluster.connect("postgres").await.unwrap();
        let cut = async {
            until(&admin, began).await;
            // Whoever changes the database itself is waited for.
            holder.batch_execute("BEGIN; COMMENT ON DATABASE shop IS 'x'").await.unwrap();
            admin.batch_execute("CREATE ROLE go").await.unwrap();
            let waiting = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                           WHERE query LIKE 'BEGIN; ALTER DATABASE%' AND wait_event_type = 'Lock'";
            until(&admin, waiting).await;
            holder.batch_execute("ROLLBACK").await.unwrap();
        };
        let ((done, _), ()) = tokio::join!(restoring, cut);
        let error = done.unwrap_err();
        assert!(error.one_line().contains("the server ended the session"), "{error:?}");
        assert_eq!(databases(&cluster).await.len(), 3);
        same().await;
    });
}

#[test]
fn a_role_that_could_not_finish_a_swap_does_not_begin_it() {
    run(async {
        let cluster = shop(newest().unwrap()).await;
        let backup = Backup::take(options(&cluster, "shop")).await;
        let admin = cluster.connect("postgres").await.unwrap();
        let make = "CREATE ROLE swapper LOGIN CREATEDB; CREATE ROLE visitor LOGIN";
        admin.batch_execute(make).await.unwrap();
        let before = databases(&cluster).await;
        let text = format!("host=127.0.0.1 port={} user=swapper dbname=postgres", cluster.port());
        let attempt = || async {
            let mut options = over(&cluster, "shop");
            options.connection = ConnectOptions::parse(&text).unwrap();
            options.others = Others::Disconnect;
            let sink = DatabaseSink::new(options);
            let (options, context) = (TransferOptions::default(), Context::silent());
            let done = transfer(&backup.store as &dyn Source, &sink, &options, &context).await;
            assert_eq!(databases(&cluster).await, before);
            done.unwrap_err().to_string()
        };
        let told = attempt().await;
        assert!(told.contains("may not change its name"), "{told}");
        admin.batch_execute("ALTER DATABASE shop OWNER TO swapper").await.unwrap();
        let as_visitor = format!("host=127.0.0.1 port={} user=visitor dbname=shop", cluster.port());
        let (visitor, connection) =
            tokio_postgres::connect(&as_visitor, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let told = attempt().await;
        assert!(told.contains("may not end the sessions of visitor"), "{told}");
        visitor.batch_execute("SELECT 1").await.unwrap();
    });
}
