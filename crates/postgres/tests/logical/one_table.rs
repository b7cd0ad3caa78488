//! One table back: replaced, or put beside.

use lifeboat_core::{Context, Error, ErrorKind, Summary, TransferOptions, transfer};
use lifeboat_postgres::{TableName, TableOptions, TablePlace, TableSink};
use lifeboat_testbed::postgres::{Cluster, newest, oldest};

use crate::common::{Backup, connection, digest, options, run};
use crate::round_trip::shop;

async fn put(
    backup: &Backup,
    cluster: &Cluster,
    table: TableName,
    place: TablePlace,
) -> Result<Summary, Error> {
    let options = TableOptions::new(connection(cluster, "postgres"), "shop", table, place);
    let sink = TableSink::new(options);
    transfer(&backup.store, &sink, &TransferOptions::default(), &Context::silent()).await
}

fn name(name: &str) -> TableName {
    TableName::new("shop", name)
}

#[test]
fn a_table_gets_the_rows_that_it_had() {
    run(async {
        let cluster = shop(newest().unwrap()).await;
        let client = cluster.connect("shop").await.unwrap();
        let backup = Backup::take(options(&cluster, "shop")).await;
        let before = digest(&client, "shop.orders").await;
        client
            .batch_execute(
                "DELETE FROM shop.orders WHERE id % 2 = 0; UPDATE shop.orders SET note = 'lost';
                 ALTER TABLE shop.orders ENABLE ALWAYS TRIGGER stamp",
            )
            .await
            .unwrap();
        assert_ne!(digest(&client, "shop.orders").await, before);
        let reader = cluster.connect("shop").await.unwrap();
        let summary = put(&backup, &cluster, name("orders"), TablePlace::Replace).await.unwrap();
        assert_eq!(summary.receipt.facts.unsigned("database.rows"), Some(5007));
        // The trigger, which would have changed a row, was off, and is as it was.
        assert_eq!(digest(&reader, "shop.orders").await, before);
        let state = "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'stamp'";
        assert_eq!(client.query_one(state, &[]).await.unwrap().get::<_, String>(0), "A");

        // Others refer to this one.
        let error =
            put(&backup, &cluster, name("customers"), TablePlace::Replace).await.unwrap_err();
        assert!(error.one_line().contains("shop.orders refers to it"), "{error:?}");
        assert_eq!(digest(&client, "shop.customers").await.0, 500);

        // What it refers to is missing: nothing changes.
        client.batch_execute("DELETE FROM shop.orders; DELETE FROM shop.customers").await.unwrap();
        let error = put(&backup, &cluster, name("orders"), TablePlace::Replace).await.unwrap_err();
        assert!(error.one_line().contains("rows that it refers to are missing"), "{error:?}");
        assert_eq!(digest(&client, "shop.orders").await.0, 0);
        let state = "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'stamp'";
        assert_eq!(client.query_one(state, &[]).await.unwrap().get::<_, String>(0), "A");

        let error = put(&backup, &cluster, name("nothing"), TablePlace::Replace).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_table_comes_beside_the_one_that_is_there_or_was() {
    run(async {
        let cluster = shop(oldest().unwrap()).await;
        let client = cluster.connect("shop").await.unwrap();
        let backup = Backup::take(options(&cluster, "shop")).await;
        let orders = digest(&client, "shop.orders").await;
        client.batch_execute("UPDATE shop.orders SET note = 'lost'").await.unwrap();
        let beside = TablePlace::Beside(TableName::new("public", "orders of old"));
        put(&backup, &cluster, name("orders"), beside.clone()).await.unwrap();
        assert_eq!(digest(&client, "public.\"orders of old\"").await, orders);
        assert_ne!(digest(&client, "shop.orders").await, orders);
        let indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = $1";
        let count = async |table: &str| -> i64 {
            client.query_one(indexes, &[&table]).await.unwrap().get(0)
        };
        assert_eq!(count("orders of old").await, count("orders").await);
        let error = put(&backup, &cluster, name("orders"), beside).await.unwrap_err();
        assert!(error.one_line().contains("has a table public.orders of old already"), "{error:?}");

        // It was dropped: the snapshot knows how it was.
        let kinds = digest(&client, "shop.kinds").await;
        client.batch_execute("DROP TABLE shop.kinds").await.unwrap();
        let beside = TablePlace::Beside(name("kinds"));
        put(&backup, &cluster, name("kinds"), beside).await.unwrap();
        assert_eq!(digest(&client, "shop.kinds").await, kinds);
        client.batch_execute("DROP TABLE shop.kinds").await.unwrap();
        let beside = TablePlace::Beside(TableName::new("public", "kinds 2"));
        put(&backup, &cluster, name("kinds"), beside).await.unwrap();
        assert_eq!(digest(&client, "public.\"kinds 2\"").await, kinds);
        assert!(client.query("SELECT FROM shop.kinds", &[]).await.is_err());

        // It has another form now.
        client.batch_execute("ALTER TABLE shop.log RENAME COLUMN line TO text").await.unwrap();
        let error = put(&backup, &cluster, name("log"), TablePlace::Replace).await.unwrap_err();
        assert!(error.one_line().contains("as CSV"), "{error:?}");
    });
}

#[test]
fn rows_that_are_not_those_of_the_backup_change_nothing() {
    run(async {
        let cluster = shop(newest().unwrap()).await;
        let client = cluster.connect("shop").await.unwrap();
        let backup = Backup::take(options(&cluster, "shop")).await;
        let path = lifeboat_core::EntryPath::new("4-rows/shop/kinds/00000000").unwrap();
        let entry = lifeboat_core::Entry::file(path, Default::default(), "\\N\n");
        backup.store.insert(entry).await.unwrap();
        let before = digest(&client, "shop.kinds").await;
        let error = put(&backup, &cluster, name("kinds"), TablePlace::Replace).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Other, "{error:?}");
        let columns = "\\N\t".repeat(28) + "\\N\n";
        let path = lifeboat_core::EntryPath::new("4-rows/shop/kinds/00000000").unwrap();
        let entry = lifeboat_core::Entry::file(path, Default::default(), columns);
        backup.store.insert(entry).await.unwrap();
        let error = put(&backup, &cluster, name("kinds"), TablePlace::Replace).await.unwrap_err();
        assert!(error.one_line().contains("the backup counted 202 rows"), "{error:?}");
        assert_eq!(digest(&client, "shop.kinds").await, before);
    });
}
