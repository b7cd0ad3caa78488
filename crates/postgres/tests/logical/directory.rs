//! Out as a directory archive, which PostgreSQL's own tools read.

use std::path::{Path, PathBuf};
use std::process::Output;

use lifeboat_core::{Context, Entry, EntryPath, Error, Source, TransferOptions, transfer};
use lifeboat_postgres::{DirectorySink, Parts};
use lifeboat_testbed::data;
use lifeboat_testbed::postgres::{Cluster, Installation, all, newest, oldest};
use tokio_postgres::Client;

use crate::common::{Backup, databases, digest, options, programs, run};
use crate::round_trip::{definitions, shop};

async fn export(backup: &Backup, path: &Path) -> Result<(), Error> {
    let sink = DirectorySink::new(path);
    let source: &dyn Source = &backup.store;
    transfer(source, &sink, &TransferOptions::default(), &Context::silent()).await.map(drop)
}

/// Runs `pg_restore` of this installation, or of the next newer one that has it.
fn pg_restore(of: &Installation, arguments: &[&str], directory: &Path) -> Output {
    let mut command = std::process::Command::new(programs(of).join("pg_restore"));
    command.args(arguments).arg(directory).output().unwrap()
}

fn restored(cluster: &Cluster, of: &Installation, arguments: &[&str], directory: &Path) {
    let port = format!("--port={}", cluster.port());
    let server = ["--host=127.0.0.1", "--username=postgres", "--exit-on-error", &port];
    let output = pg_restore(of, &[&server[..], arguments].concat(), directory);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{arguments:?}: {said}");
}

/// What `pg_restore --list` says of each entry, without the numbers that differ.
fn listed(of: &Installation, directory: &Path) -> Vec<String> {
    let output = pg_restore(of, &["--list"], directory);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(";     Format: DIRECTORY"), "{text}");
    let entries = text.lines().filter(|line| !line.starts_with(';'));
    let mut entries: Vec<_> =
        entries.map(|line| line.split_once("; ").unwrap().1.to_owned()).collect();
    // One entry a large object, or one for many: both are read.
    entries.retain(|line| !line.contains("BLOB"));
    entries.sort();
    entries
}

async fn large(client: &Client) -> Vec<String> {
    let query = "SELECT concat_ws(' ', oid, md5(lo_get(oid)), lomowner::regrole, lomacl,
        obj_description(oid, 'pg_largeobject')) FROM pg_largeobject_metadata ORDER BY oid";
    let rows = client.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn sequences(client: &Client) -> Vec<String> {
    let query =
        "SELECT concat_ws(' ', schemaname, sequencename, last_value) FROM pg_sequences ORDER BY 1";
    let rows = client.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn pg_restore_takes_the_directory() {
    run(async {
        for installation in all().unwrap() {
            let cluster = shop(installation).await;
            let client = cluster.connect("shop").await.unwrap();
            client
                .batch_execute(
                    "ALTER LARGE OBJECT 70003 OWNER TO \"Other Owner\";
                     CREATE TABLE shop.none (); INSERT INTO shop.none SELECT;
                     CREATE SEQUENCE shop.\"it's; \\\" START 3",
                )
                .await
                .unwrap();
            let backup = Backup::take(options(&cluster, "shop")).await;
            let place = tempfile::tempdir().unwrap();
            let ours = place.path().join("ours");
            export(&backup, &ours).await.unwrap();
            assert!(!place.path().join("ours.partial").exists());
            let error = export(&backup, &ours).await.unwrap_err();
            assert!(error.one_line().contains("it exists already"), "{error:?}");

            // The same entries as PostgreSQL's own.
            let theirs = place.path().join("theirs");
            let dumped = std::process::Command::new(programs(installation).join("pg_dump"))
                .args(["--format=directory", "--host=127.0.0.1", "--username=postgres", "--file"])
                .arg(&theirs)
                .args([&format!("--port={}", cluster.port()), "shop"])
                .output()
                .unwrap();
            assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
            assert_eq!(listed(installation, &ours), listed(installation, &theirs));

            // Restored one after the other, and side by side.
            let admin = cluster.connect("postgres").await.unwrap();
            for (name, jobs) in [("one", "--jobs=1"), ("two", "--jobs=2")] {
                admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
                restored(&cluster, installation, &[&format!("--dbname={name}"), jobs], &ours);
                let back = cluster.connect(name).await.unwrap();
                assert_eq!(definitions(&cluster, "shop").await, definitions(&cluster, name).await);
                let (expected, found) = (data::digests(&client).await, data::digests(&back).await);
                assert_eq!(expected.unwrap(), found.unwrap());
                assert_eq!(large(&client).await, large(&back).await);
                assert_eq!(sequences(&client).await, sequences(&back).await);
            }
            // In sections, as people do who look in between; and a single table.
            for name in ["three", "four"] {
                admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
            }
            for part in ["pre-data", "data", "post-data"] {
                let part = format!("--section={part}");
                restored(&cluster, installation, &["--dbname=three", &part], &ours);
            }
            let back = cluster.connect("three").await.unwrap();
            assert_eq!(backup.total("shop", "orders"), digest(&back, "shop.orders").await);
            assert_eq!(large(&client).await, large(&back).await);
            let four = cluster.connect("four").await.unwrap();
            four.batch_execute("CREATE SCHEMA shop").await.unwrap();
            let table = ["--dbname=four", "--schema=shop", "--table=parent", "--no-owner"];
            restored(&cluster, installation, &table, &ours);
            assert_eq!(backup.total("shop", "parent"), digest(&four, "shop.parent").await);
            assert!(four.query("SELECT FROM shop.child", &[]).await.is_err());

            // Files that were compressed by hand are read as they stand.
            for file in std::fs::read_dir(&ours).unwrap() {
                let path = file.unwrap().path();
                if path.file_name().unwrap() != "toc.dat" && path.extension().unwrap() == "dat" {
                    let zipped = std::process::Command::new("gzip").arg(path).status().unwrap();
                    assert!(zipped.success());
                }
            }
            admin.batch_execute("CREATE DATABASE five").await.unwrap();
            restored(&cluster, installation, &["--dbname=five", "--jobs=2"], &ours);
            let back = cluster.connect("five").await.unwrap();
            assert_eq!(backup.total("shop", "orders"), digest(&back, "shop.orders").await);
            assert_eq!(large(&client).await, large(&back).await);
        }
    });
}

#[test]
fn the_newest_pg_restore_reads_a_directory_of_the_oldest() {
    run(async {
        let (oldest, newest) = (oldest().unwrap(), newest().unwrap());
        let old = shop(oldest).await;
        let backup = Backup::take(options(&old, "shop")).await;
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("shop");
        export(&backup, &directory).await.unwrap();
        let new = Cluster::start(newest).unwrap();
        let admin = new.connect("postgres").await.unwrap();
        admin.batch_execute("CREATE ROLE reader; CREATE ROLE \"Other Owner\"").await.unwrap();
        restored(&new, newest, &["--dbname=postgres", "--create", "--jobs=2"], &directory);
        assert_eq!(databases(&new).await, ["postgres", "shop"]);
        let (client, back) =
            (old.connect("shop").await.unwrap(), new.connect("shop").await.unwrap());
        let (expected, found) = (data::digests(&client).await, data::digests(&back).await);
        assert_eq!(expected.unwrap(), found.unwrap());
        assert_eq!(large(&client).await, large(&back).await);
    });
}

#[test]
fn rows_keep_their_encoding() {
    run(async {
        let cluster = Cluster::start(newest().unwrap()).unwrap();
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
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("latin");
        export(&backup, &directory).await.unwrap();
        restored(&cluster, newest().unwrap(), &["--dbname=back"], &directory);
        let back = cluster.connect("back").await.unwrap();
        let row = back.query_one("SELECT ä FROM größe", &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "öß");
    });
}

#[test]
fn an_extension_with_settings_comes_along() {
    run(async {
        let cluster = Cluster::start(oldest().unwrap()).unwrap();
        // The server's own directory of extensions is not the test's to write into.
        let client = cluster.connect("postgres").await.unwrap();
        client
            .batch_execute(
                "CREATE TABLE settings (a int); INSERT INTO settings VALUES (1), (2);
                 ALTER EXTENSION plpgsql ADD TABLE settings;
                 UPDATE pg_extension SET extconfig = ARRAY['settings'::regclass::oid],
                     extcondition = ARRAY['WHERE a > 1'] WHERE extname = 'plpgsql'",
            )
            .await
            .unwrap();
        let backup = Backup::take(options(&cluster, "postgres")).await;
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("with");
        export(&backup, &directory).await.unwrap();
        let entries = listed(oldest().unwrap(), &directory);
        assert!(
            entries.iter().any(|line| line.contains("TABLE DATA public settings")),
            "{entries:?}"
        );
        client.batch_execute("CREATE DATABASE back").await.unwrap();
        let back = cluster.connect("back").await.unwrap();
        // What the extension's script would have made.
        back.batch_execute("CREATE TABLE settings (a int)").await.unwrap();
        restored(&cluster, oldest().unwrap(), &["--dbname=back", "--section=data"], &directory);
        let row = back.query_one("SELECT sum(a)::int4 FROM settings", &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 2);
    });
}

#[test]
fn what_cannot_become_a_directory_is_refused() {
    run(async {
        let cluster = shop(oldest().unwrap()).await;
        let backup = Backup::take(options(&cluster, "shop")).await;
        let again = Backup::take(options(&cluster, "shop")).await;
        let path = |text: &str| EntryPath::new(text).unwrap();
        // What it needs is the same bytes each time.
        let contents = path("3-toc.dump");
        assert_eq!(backup.store.content(&contents), again.store.content(&contents));
        let place = tempfile::tempdir().unwrap();
        let refused = async |backup: &Backup, words: &str| {
            let target: PathBuf = place.path().join("refused");
            let error = export(backup, &target).await.unwrap_err();
            assert!(error.one_line().contains(words), "{error:?}");
            assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
        };
        let mut rows = options(&cluster, "shop");
        rows.parts = Parts::Data;
        refused(&Backup::take(rows).await, "it has rows and no schema").await;
        again.store.remove(&contents);
        refused(&again, "did not keep what a directory needs").await;
        let cut = backup.store.content(&contents).unwrap().slice(..200);
        again.store.insert(Entry::file(contents, Default::default(), cut)).await.unwrap();
        refused(&again, "3-toc.dump: it is cut short").await;
        // Rows that are not those that were counted.
        let orders = path("4-rows/shop/orders/00000000");
        let bytes = backup.store.content(&orders).unwrap();
        let fewer = bytes.slice(bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1..);
        backup.store.insert(Entry::file(orders, Default::default(), fewer)).await.unwrap();
        refused(&backup, "restore shop.orders: 5006 rows").await;
    });
}
