//! What is refused, and what a failure leaves.

use std::time::Duration;

use lifeboat_core::{
    Attributes, Context, Entry, EntryPath, ErrorKind, Source, TransferOptions, transfer,
};
use lifeboat_postgres::{
    ConnectOptions, DatabaseOptions, DatabaseSink, DatabaseSource, Occupied, Parts,
};
use lifeboat_testbed::postgres::{Cluster, newest, oldest};

use crate::common::{Backup, connection, databases, digest, into, options, run};
use crate::round_trip::{definitions, shop};

/// The server's answer as one line.
fn line(error: &lifeboat_core::Error) -> String {
    error.one_line()
}

#[test]
fn a_database_is_replaced_only_when_nobody_uses_it() {
    run(async {
        let cluster = shop(oldest().unwrap()).await;
        let backup = Backup::take(options(&cluster, "shop")).await;
        let error = backup.restore(into(&cluster, "shop")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(line(&error).contains("shop: it exists already"), "{error:?}");

        let mut replace = into(&cluster, "shop");
        replace.occupied = Occupied::Replace;
        let user = cluster.connect("shop").await.unwrap();
        user.batch_execute("SET application_name = 'till 7'").await.unwrap();
        let error = backup.restore(replace.clone()).await.unwrap_err();
        assert!(line(&error).contains("1 session (till 7 as postgres)"), "{error:?}");
        user.batch_execute("DELETE FROM shop.log; CREATE TABLE shop.later ()").await.unwrap();
        drop(user);
        // The server notices the end of the session a little later.
        wait_until_unused(&cluster, "shop").await;
        backup.restore(replace).await.unwrap();
        assert_eq!(databases(&cluster).await, ["postgres", "shop"]);
        let client = cluster.connect("shop").await.unwrap();
        assert!(client.query("SELECT FROM shop.later", &[]).await.is_err());
        assert_eq!(backup.total("shop", "orders"), digest(&client, "shop.orders").await);

        let mut own = into(&cluster, "shop");
        own.connection = connection(&cluster, "shop");
        own.occupied = Occupied::Replace;
        let error = backup.restore(own).await.unwrap_err();
        assert!(line(&error).contains("the connection itself goes to it"), "{error:?}");
        let mut template = into(&cluster, "template1");
        template.occupied = Occupied::Replace;
        let error = backup.restore(template).await.unwrap_err();
        assert!(line(&error).contains("it is a template"), "{error:?}");
    });
}

async fn wait_until_unused(cluster: &Cluster, database: &str) {
    let admin = cluster.connect("postgres").await.unwrap();
    let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
    for _ in 0..200 {
        if admin.query_one(query, &[&database]).await.unwrap().get::<_, i64>(0) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{database} is still used");
}

#[test]
fn an_empty_database_is_filled_and_another_is_not() {
    run(async {
        let cluster = shop(newest().unwrap()).await;
        let admin = cluster.connect("postgres").await.unwrap();
        let backup = Backup::take(options(&cluster, "shop")).await;
        let fill = |name: &str| {
            let mut options = into(&cluster, name);
            options.occupied = Occupied::Fill;
            options
        };
        let error = backup.restore(fill("mine")).await.unwrap_err();
        assert!(line(&error).contains("mine: it does not exist"), "{error:?}");
        admin.batch_execute("CREATE DATABASE mine").await.unwrap();
        let mine = cluster.connect("mine").await.unwrap();
        for (make, what) in [
            ("CREATE TABLE t ()", "the table or view public.t"),
            ("CREATE SCHEMA s", "the schema s"),
            ("CREATE TYPE e AS ENUM ()", "the type public.e"),
            (
                "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
                "the function public.f()",
            ),
            ("SELECT lo_create(7)", "the large object 7"),
        ] {
            mine.batch_execute(make).await.unwrap();
            let (done, told) = backup.restore_told(fill("mine")).await;
            let error = done.unwrap_err();
            assert!(line(&error).contains(&format!("it has {what}")), "{error:?}");
            // Nothing was touched, and nobody is told to drop it.
            assert_eq!(told, []);
            mine.batch_execute(
                "DROP TABLE IF EXISTS t; DROP SCHEMA IF EXISTS s; DROP TYPE IF EXISTS e;
                 DROP FUNCTION IF EXISTS f; SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
            )
            .await
            .unwrap();
        }
        backup.restore(fill("mine")).await.unwrap();
        assert_eq!(definitions(&cluster, "shop").await, definitions(&cluster, "mine").await);
        assert_eq!(backup.total("shop", "kinds"), digest(&mine, "shop.kinds").await);
    });
}

#[test]
fn rows_alone_go_into_empty_tables_that_are_there() {
    run(async {
        let cluster = shop(oldest().unwrap()).await;
        let mut schema = options(&cluster, "shop");
        schema.parts = Parts::Schema;
        let schema = Backup::take(schema).await;
        assert!(schema.names().iter().all(|name| !name.starts_with("4-rows")));
        schema.restore(into(&cluster, "bare")).await.unwrap();
        let bare = cluster.connect("bare").await.unwrap();
        assert_eq!(digest(&bare, "shop.orders").await.0, 0);

        let mut rows = options(&cluster, "shop");
        rows.parts = Parts::Data;
        // It needs no program at all.
        rows.programs = Some("/nonexistent".into());
        let rows = Backup::take(rows).await;
        let error = rows.restore(into(&cluster, "another")).await.unwrap_err();
        assert!(line(&error).contains("rows and no schema"), "{error:?}");
        let mut fill = into(&cluster, "bare");
        fill.occupied = Occupied::Fill;
        rows.restore(fill.clone()).await.unwrap();
        assert_eq!(rows.total("shop", "orders"), digest(&bare, "shop.orders").await);
        assert_eq!(rows.total("shop", "customers"), digest(&bare, "shop.customers").await);
        let error = rows.restore(fill).await.unwrap_err();
        assert!(line(&error).contains("it has rows in"), "{error:?}");
        assert_eq!(databases(&cluster).await, ["bare", "postgres", "shop"]);
    });
}

#[test]
fn chosen_schemas_and_tables_and_nothing_else() {
    run(async {
        let cluster = shop(oldest().unwrap()).await;
        let take = async |change: &dyn Fn(&mut DatabaseOptions)| {
            let mut options = options(&cluster, "shop");
            change(&mut options);
            Backup::try_take(options).await
        };
        let tables = |backup: &Backup| -> Vec<String> {
            let names = backup.names().into_iter();
            let table = |name: String| name.strip_prefix("4-rows/").map(str::to_owned);
            names.filter_map(table).filter(|name| name.matches('/').count() == 1).collect()
        };
        let backup = take(&|options| options.tables = vec!["shop.events".into()]).await.unwrap();
        // The partitions belong to it.
        assert_eq!(tables(&backup), ["shop/events_1", "shop/events_2"]);
        let script = backup.text("3-pre-data.sql");
        assert!(script.contains("PARTITION BY RANGE") && !script.contains("customers"), "{script}");

        let backup = take(&|options| options.tables = vec!["shop.c*".into()]).await.unwrap();
        assert_eq!(tables(&backup), ["shop/child", "shop/customers"]);
        assert!(backup.text("5-sequences.sql").contains("customers_id_seq"));

        let backup = take(&|options| options.schemas = vec!["Odd*".into()]).await.unwrap();
        assert_eq!(tables(&backup), ["Odd%2F..%2Fschema./tab%25le%0Anew"]);
        backup.restore(into(&cluster, "odd")).await.unwrap();
        let odd = cluster.connect("odd").await.unwrap();
        let count = odd.query("SELECT FROM \"Odd/../schema.\".\"tab%le\nnew\"", &[]).await;
        assert_eq!(count.unwrap().len(), 2);

        let without = |options: &mut DatabaseOptions| {
            options.without_rows = vec!["shop.orders".into(), "shop.k*".into()];
        };
        let backup = take(&without).await.unwrap();
        assert!(tables(&backup).iter().all(|name| name != "shop/orders" && name != "shop/kinds"));
        assert!(backup.text("3-pre-data.sql").contains("CREATE TABLE shop.orders"));

        for (table, words) in
            [("shop.nothing", "has no table shop.nothing"), ("shop.", "names no table")]
        {
            let named = move |options: &mut DatabaseOptions| options.tables = vec![table.into()];
            let error = take(&named).await.err().unwrap();
            assert!(line(&error).contains(words), "{error:?}");
        }
        let none = |options: &mut DatabaseOptions| options.schemas = vec!["nothing".into()];
        let error = take(&none).await.err().unwrap();
        assert!(line(&error).contains("has no schema nothing"), "{error:?}");
    });
}

#[test]
fn missing_rights_are_named() {
    run(async {
        let cluster = shop(newest().unwrap()).await;
        let client = cluster.connect("shop").await.unwrap();
        client.batch_execute("CREATE ROLE little LOGIN").await.unwrap();
        let text = format!("host=127.0.0.1 port={} user=little dbname=shop", cluster.port());
        let little = || {
            let mut options = options(&cluster, "shop");
            options.connection = ConnectOptions::parse(&text).unwrap();
            options
        };
        let findings = DatabaseSource::new("shop", little()).inspect().await.unwrap().findings;
        assert_eq!(findings[0].code, "tables_unreadable");
        let error = Backup::try_take(little()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(line(&error).contains("pg_read_all_data"), "{error:?}");

        client.batch_execute("GRANT pg_read_all_data TO little").await.unwrap();
        let findings = DatabaseSource::new("shop", little()).inspect().await.unwrap().findings;
        assert_eq!(findings[0].code, "rows_hidden", "{findings:?}");
        let mut rows = little();
        rows.parts = Parts::Data;
        // Never are rows left out silently.
        let error = Backup::try_take(rows).await.err().unwrap();
        assert!(line(&error).contains("BYPASSRLS"), "{error:?}");
        client
            .batch_execute("ALTER ROLE little BYPASSRLS; SELECT lo_from_bytea(4242, 'x')")
            .await
            .unwrap();
        let findings = DatabaseSource::new("shop", little()).inspect().await.unwrap().findings;
        assert_eq!(findings[0].code, "large_objects_unreadable", "{findings:?}");
        assert!(Backup::try_take(little()).await.is_err());
        let all = "GRANT SELECT ON LARGE OBJECT {oid} TO little";
        for row in client.query("SELECT oid FROM pg_largeobject_metadata", &[]).await.unwrap() {
            let grant = all.replace("{oid}", &row.get::<_, u32>(0).to_string());
            client.batch_execute(&grant).await.unwrap();
        }
        let findings = DatabaseSource::new("shop", little()).inspect().await.unwrap().findings;
        assert!(!findings.iter().any(|it| it.code == "large_objects_unreadable"), "{findings:?}");
        client.batch_execute("ALTER ROLE little SUPERUSER").await.unwrap();
        let inspection = DatabaseSource::new("shop", little()).inspect().await.unwrap();
        assert!(inspection.findings.is_empty(), "{inspection:?}");
        Backup::take(little()).await;

        let mut none = little();
        none.programs = Some("/nonexistent".into());
        let findings = DatabaseSource::new("shop", none.clone()).inspect().await.unwrap().findings;
        assert_eq!(findings[0].code, "dump_program_missing");
        let error = Backup::try_take(none).await.err().unwrap();
        assert!(line(&error).contains("/nonexistent/pg_dump"), "{error:?}");
    });
}

#[test]
fn a_program_that_is_too_old_is_named() {
    run(async {
        let (oldest, newest) = (oldest().unwrap(), newest().unwrap());
        if oldest.major == newest.major {
            return;
        }
        let cluster = Cluster::start(newest).unwrap();
        let mut options = options(&cluster, "postgres");
        options.programs = Some(oldest.bin_dir.clone());
        let error = Backup::try_take(options).await.err().unwrap();
        let line = line(&error);
        assert!(line.contains(&oldest.version), "{line}");
        assert!(line.contains(&format!("PostgreSQL {} or newer", newest.major)), "{line}");
    });
}

#[test]
fn a_lock_is_waited_for_and_not_for_ever() {
    run(async {
        let cluster = shop(newest().unwrap()).await;
        let client = cluster.connect("shop").await.unwrap();
        client.batch_execute("BEGIN; LOCK TABLE shop.orders").await.unwrap();
        let mut options = options(&cluster, "shop");
        options.lock_timeout = Duration::from_millis(200);
        let error = Backup::try_take(options).await.err().unwrap();
        assert!(
            error.is_retryable() && line(&error).contains("somebody holds a lock"),
            "{error:?}"
        );
    });
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    run(async {
        let cluster = shop(newest().unwrap()).await;
        let backup = Backup::take(options(&cluster, "shop")).await;
        let path = |text: &str| EntryPath::new(text).unwrap();
        let whole = backup.store.image();
        let orders = path("4-rows/shop/orders/00000000");
        let replaced = async |name: &EntryPath, bytes: Vec<u8>| {
            let known = whole[name].0.attributes.clone();
            backup.store.insert(Entry::file(name.clone(), known, bytes)).await.unwrap();
        };
        let original = whole[&orders].1.to_vec();

        // A row changed, one too few, and half of one.
        let mut changed = original.clone();
        changed[0] ^= 1;
        let fewer =
            original[original.iter().position(|byte| *byte == b'\n').unwrap() + 1..].to_vec();
        let half = original[..original.len() - 1].to_vec();
        for (bytes, words) in [
            (changed, "restore shop.orders: 5007 rows with the digest"),
            (fewer, "restore shop.orders: 5006 rows with the digest"),
            (half, "the last row has no end"),
            (b"no row\n".to_vec(), "restore shop.orders: db error"),
        ] {
            replaced(&orders, bytes).await;
            let error = backup.restore(into(&cluster, "back")).await.unwrap_err();
            assert!(line(&error).contains(words), "{error:?}");
            assert_eq!(databases(&cluster).await, ["postgres", "shop"]);
        }
        replaced(&orders, original).await;

        // A script that the server refuses, one with a command for psql, and one cut short.
        let after = path("7-post-data.sql");
        let script = whole[&after].1.to_vec();
        for (more, words) in [
            ("SELECT 1/0;\n", "run \"SELECT 1/0\": db error: ERROR: division by zero"),
            ("\\! touch /tmp/x\n", "it has a command of psql"),
            ("SELECT '", "ends in the middle of a statement"),
        ] {
            replaced(&after, [script.as_slice(), more.as_bytes()].concat()).await;
            let error = backup.restore(into(&cluster, "back")).await.unwrap_err();
            assert!(line(&error).contains(words), "{error:?}");
            assert_eq!(databases(&cluster).await, ["postgres", "shop"]);
        }
        replaced(&after, script).await;

        // Parts of the snapshot that are not there.
        for name in [
            "1-about.json",
            "8-totals.json",
            "4-rows",
            "4-rows/shop/orders",
            "4-rows/shop/orders/00000000",
        ] {
            let (info, bytes) = whole[&path(name)].clone();
            backup.store.remove(&path(name));
            assert!(backup.restore(into(&cluster, "back")).await.is_err(), "{name}");
            assert_eq!(databases(&cluster).await, ["postgres", "shop"]);
            let mut entry = Entry::new(path(name), info.kind, info.attributes);
            if !bytes.is_empty() {
                entry = Entry::file(entry.path, entry.attributes, bytes);
            }
            backup.store.insert(entry).await.unwrap();
        }
        // Cancelled in the middle.
        let context = Context::silent();
        let sink = DatabaseSink::new(into(&cluster, "back"));
        let transfer_options = TransferOptions::default();
        let moving = transfer(&backup.store, &sink, &transfer_options, &context);
        let admin = cluster.connect("postgres").await.unwrap();
        let cancel = async {
            let made = "SELECT FROM pg_database WHERE datname LIKE 'back_restore_%'";
            for _ in 0..400 {
                if !admin.query(made, &[]).await.unwrap().is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            context.cancel();
        };
        let (moved, ()) = tokio::join!(moving, cancel);
        assert_eq!(moved.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(databases(&cluster).await, ["postgres", "shop"]);
        backup.restore(into(&cluster, "back")).await.unwrap();
    });
}

#[test]
fn a_backup_whose_session_is_ended_is_none() {
    run(async {
        let cluster = shop(oldest().unwrap()).await;
        let client = cluster.connect("postgres").await.unwrap();
        let source = DatabaseSource::new("shop", options(&cluster, "shop"));
        let mut reading = source.read(None, &Context::silent()).await.unwrap();
        assert!(reading.next().await.unwrap().is_some());
        client
            .batch_execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = 'lifeboat'",
            )
            .await
            .unwrap();
        let mut failed = false;
        for _ in 0..1000 {
            match reading.next().await {
                Ok(Some(mut entry)) => {
                    failed = loop {
                        match entry.content.next().await {
                            Ok(Some(_)) => {}
                            Ok(None) => break false,
                            Err(_) => break true,
                        }
                    };
                }
                Ok(None) => break,
                Err(_) => failed = true,
            }
            if failed {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(failed);
    });
}

#[test]
fn roles_come_back_when_they_are_asked_for() {
    run(async {
        let cluster = shop(oldest().unwrap()).await;
        let mut with_roles = options(&cluster, "shop");
        with_roles.roles = lifeboat_postgres::Roles::WithPasswords;
        let client = cluster.connect("postgres").await.unwrap();
        client
            .batch_execute(
                "ALTER ROLE reader LOGIN PASSWORD 'secret'; GRANT reader TO \"Other Owner\"; \
                 ALTER DATABASE shop OWNER TO \"Other Owner\"",
            )
            .await
            .unwrap();
        let backup = Backup::take(with_roles).await;
        let other = Cluster::start(newest().unwrap()).unwrap();
        let there = other.connect("postgres").await.unwrap();
        there.batch_execute("CREATE ROLE reader").await.unwrap();
        let mut restore = into(&other, "shop");
        restore.roles = lifeboat_postgres::Keep::Restore;
        backup.restore(restore).await.unwrap();
        // The one that was there is as it was; the other was made, with its membership.
        let row = there
            .query_one(
                "SELECT (SELECT NOT rolcanlogin FROM pg_roles WHERE rolname = 'reader'),
                 pg_has_role('Other Owner', 'reader', 'MEMBER'),
                 (SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = 'shop')",
                &[],
            )
            .await
            .unwrap();
        assert!(row.get::<_, bool>(0) && row.get::<_, bool>(1));
        assert_eq!(row.get::<_, String>(2), "Other Owner");
        let facts: &Attributes = backup.facts();
        assert!(format!("{facts:?}").find("secret").is_none());
    });
}
