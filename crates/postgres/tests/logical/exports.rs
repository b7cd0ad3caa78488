//! Out as text that other programs take.

use std::io::Write;

use futures_util::TryStreamExt;
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Context, Entry, EntryPath, Error, Source, TransferOptions, transfer};
use lifeboat_postgres::{ExportForm, ExportOptions, ExportSink, Keep};
use lifeboat_testbed::data;
use lifeboat_testbed::postgres::{Cluster, all, oldest};

use crate::common::{Backup, digest, options, programs, run};
use crate::round_trip::{definitions, shop};

/// What is written.
async fn export(source: &dyn Source, options: ExportOptions) -> Result<Vec<u8>, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let out = tokio::fs::File::create(file.path()).await.unwrap();
    let sink = ExportSink::new(out, options);
    transfer(source, &sink, &TransferOptions::default(), &Context::silent()).await?;
    Ok(std::fs::read(file.path()).unwrap())
}

/// The entries of one table, as a selection of a repository would give them.
async fn only(backup: &Backup, table: &str) -> MemoryStore {
    let store = MemoryStore::new("selection");
    let prefix = EntryPath::new(table).unwrap();
    for (path, (info, bytes)) in &*backup.store.image() {
        let needed = ExportSink::NEEDS.iter().any(|name| path.as_bytes() == name.as_bytes());
        if needed || path.starts_with(&prefix) || prefix.starts_with(path) {
            let mut entry = Entry::new(path.clone(), info.kind, info.attributes.clone());
            if !bytes.is_empty() {
                entry = Entry::file(path.clone(), info.attributes.clone(), bytes.clone());
                entry.kind = info.kind;
            }
            store.insert(entry).await.unwrap();
        }
    }
    store
}

fn psql(cluster: &Cluster, database: &str, script: &[u8]) {
    let program = programs(cluster.installation()).join("psql");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(script).unwrap();
    let output = std::process::Command::new(program)
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"])
        .arg(format!("--port={}", cluster.port()))
        .args(["-d", database, "-f"])
        .arg(file.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn psql_takes_the_script() {
    run(async {
        for installation in all().unwrap() {
            let cluster = shop(installation).await;
            let client = cluster.connect("shop").await.unwrap();
            let backup = Backup::take(options(&cluster, "shop")).await;
            let script = export(&backup.store, ExportOptions::default()).await.unwrap();
            assert!(String::from_utf8_lossy(&script).ends_with(" rows.\n"));
            let admin = cluster.connect("postgres").await.unwrap();
            admin.batch_execute("CREATE DATABASE back").await.unwrap();
            psql(&cluster, "back", &script);
            let back = cluster.connect("back").await.unwrap();
            assert_eq!(definitions(&cluster, "shop").await, definitions(&cluster, "back").await);
            assert_eq!(data::digests(&client).await.unwrap(), data::digests(&back).await.unwrap());
            let objects = "SELECT string_agg(md5(lo_get(oid)), ',' ORDER BY oid) FROM pg_largeobject_metadata";
            let text = async |client: &tokio_postgres::Client| -> String {
                client.query_one(objects, &[]).await.unwrap().get(0)
            };
            assert_eq!(text(&client).await, text(&back).await);

            let mut plain = ExportOptions::default();
            (plain.owners, plain.privileges) = (Keep::LeaveOut, Keep::LeaveOut);
            let script = export(&backup.store, plain).await.unwrap();
            let script_text = String::from_utf8_lossy(&script);
            assert!(!script_text.contains("OWNER TO") && !script_text.contains("GRANT "));
            admin.batch_execute("CREATE DATABASE plain").await.unwrap();
            let large = "SELECT lo_unlink(oid) FROM pg_largeobject_metadata";
            client.batch_execute(large).await.unwrap();
            psql(&cluster, "plain", &script);
            let plain = cluster.connect("plain").await.unwrap();
            assert_eq!(data::digests(&client).await.unwrap(), data::digests(&plain).await.unwrap());
        }
    });
}

#[test]
fn scripts_keep_the_encoding() {
    run(async {
        let cluster = Cluster::start(oldest().unwrap()).unwrap();
        let admin = cluster.connect("postgres").await.unwrap();
        for name in ["latin", "back"] {
            let make =
                format!("CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'");
            admin.batch_execute(&make).await.unwrap();
        }
        let latin = cluster.connect("latin").await.unwrap();
        latin
            .batch_execute("CREATE TABLE größe (ä text); INSERT INTO größe VALUES ('öß')")
            .await
            .unwrap();
        let backup = Backup::take(options(&cluster, "latin")).await;
        psql(&cluster, "back", &export(&backup.store, ExportOptions::default()).await.unwrap());
        let back = cluster.connect("back").await.unwrap();
        let row = back.query_one("SELECT ä FROM größe", &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "öß");
    });
}

#[test]
fn csv_is_what_the_server_writes() {
    run(async {
        for installation in all().unwrap() {
            let cluster = shop(installation).await;
            let client = cluster.connect("shop").await.unwrap();
            client
                .batch_execute(
                    r#"SELECT setseed(0.42);
                    CREATE TABLE shop.texts (id int, "a ""b"", c" text, "\." text);
                    INSERT INTO shop.texts
                    SELECT i, CASE WHEN random() < 0.1 THEN NULL ELSE
                        (SELECT coalesce(string_agg((ARRAY['a', ',', '"', E'\n', E'\r', E'\t', '\', '\N', '\.', ' ', 'é', E'\b', E'\f', E'\v', '''', E'\x01'])[1 + floor(random() * 16)::int], ''), '')
                         FROM generate_series(1, (random() * 5)::int + i * 0)) END, '\.'
                    FROM generate_series(1, 3000) i;
                    CREATE TABLE shop.one (t text);
                    INSERT INTO shop.one VALUES ('\.'), (''), (NULL), ('\'), ('.'), ('\N'), (' ');
                    CREATE TABLE shop.none (); INSERT INTO shop.none SELECT; INSERT INTO shop.none SELECT"#,
                )
                .await
                .unwrap();
            let backup = Backup::take(options(&cluster, "shop")).await;
            let mut csv = ExportOptions::default();
            csv.form = ExportForm::Csv;
            for table in ["texts", "one", "none", "kinds", "orders", "customers"] {
                // The same settings as a backup's.
                digest(&client, "shop.log").await;
                let columns = match table {
                    "none" => String::new(),
                    // Generated columns are computed, and so in no backup.
                    "customers" => "(id, name, mood, \"Odd \"\"col\"\", x\")".to_owned(),
                    _ => String::new(),
                };
                let copy = format!("COPY shop.{table} {columns} TO STDOUT (FORMAT csv, HEADER)");
                let expected: Vec<bytes::Bytes> =
                    client.copy_out(&copy).await.unwrap().try_collect().await.unwrap();
                let selection = only(&backup, &format!("4-rows/shop/{table}")).await;
                let found = export(&selection, csv.clone()).await.unwrap();
                assert_eq!(
                    String::from_utf8_lossy(&found),
                    String::from_utf8_lossy(&expected.concat()),
                    "{table} of {}",
                    installation.version
                );
            }
        }
    });
}

#[test]
fn what_is_not_what_was_counted_fails() {
    run(async {
        let cluster = shop(oldest().unwrap()).await;
        let backup = Backup::take(options(&cluster, "shop")).await;
        let path = EntryPath::new("4-rows/shop/orders/00000000").unwrap();
        let bytes = backup.store.content(&path).unwrap();
        let fewer = bytes.slice(bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1..);
        backup.store.insert(Entry::file(path, Default::default(), fewer)).await.unwrap();
        let error = export(&backup.store, ExportOptions::default()).await.unwrap_err();
        assert!(error.one_line().contains("restore shop.orders: 5006 rows"), "{error:?}");
        backup.store.remove(&EntryPath::new("8-totals.json").unwrap());
        assert!(export(&backup.store, ExportOptions::default()).await.is_err());
    });
}
