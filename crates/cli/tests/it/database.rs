//! Databases table by table: there and back.

use lifeboat_testbed::data::{self, Size};
use lifeboat_testbed::postgres::{Cluster, newest};

use crate::common::Home;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

#[test]
fn a_database_and_a_table_come_back() {
    let home = Home::new();
    let cluster = Cluster::builder().installation(newest().unwrap()).start().unwrap();
    let conninfo = cluster.conninfo();
    let digests = |database: &str| {
        block_on(async {
            let client = cluster.connect(database).await.unwrap();
            data::digests(&client).await.unwrap()
        })
    };
    let run_sql = |sql: &str| {
        block_on(async {
            let client = cluster.connect("postgres").await.unwrap();
            client.batch_execute(sql).await.unwrap();
        });
    };
    block_on(async {
        let client = cluster.connect("postgres").await.unwrap();
        data::seed(&client, Size::TINY).await.unwrap();
    });
    let programs = newest().unwrap().bin_dir.to_str().unwrap().to_owned();
    let server = ["--conninfo", &conninfo, "--programs", &programs];
    let ran = home.run(&[&["doctor", "database"], &server[..]].concat()).expect(0);
    assert!(ran.0.stderr.contains("database: version "), "{ran}");
    let take = [&["backup", "database", "--name", "shop", "--json"], &server[..]].concat();
    let first = home.run(&take).expect(0).end();
    assert_eq!(first["facts"]["database.name"], "postgres", "{first}");
    assert!(first["facts"]["database.rows"].as_u64().unwrap() > 2000, "{first}");
    // Nothing changed, and nothing is stored but what describes the snapshot.
    let second = home.run(&take).expect(0).end();
    assert_eq!(second["new"], 0, "{second}");

    let before = digests("postgres");
    let restore = ["restore", "latest", "--store", "database/shop", "--conninfo", &conninfo];
    let with = |more: &[&str]| home.run(&[&restore[..], more].concat());
    let done = with(&["--to", "copy", "--json", "--jobs", "2"]).expect(0).end();
    assert_eq!(done["target"], "copy");
    assert_eq!(done["facts"]["database.rows"], first["facts"]["database.rows"]);
    assert_eq!(digests("copy"), before);
    with(&["--to", "copy"]).expect(1).error_says(&[
        "copy: it exists already",
        "--replace",
        "--swap",
    ]);
    let ran = with(&["--to", "copy", "--replace"]).expect(0);
    assert!(ran.0.stderr.contains("next: ANALYZE"), "{ran}");
    assert_eq!(digests("copy"), before);

    // Beside the live one, and in its place: what was there is kept, and how to go back is said.
    run_sql("COMMENT ON DATABASE copy IS 'mine'");
    block_on(async {
        let client = cluster.connect("copy").await.unwrap();
        client.batch_execute("DELETE FROM payments; CREATE TABLE later (a int)").await.unwrap();
    });
    // The session lives as long as its runtime.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let busy = runtime.block_on(cluster.connect("copy")).unwrap();
    let swap = ["--to", "copy", "--swap"];
    with(&swap).expect(1).error_says(&[
        "copy: ",
        "session",
        "--disconnect",
        "pg_terminate_backend",
    ]);
    let ran = with(&[&swap[..], &["--disconnect"]].concat()).expect(0);
    for words in ["table public.later: 0 rows in the", " ended", "DROP DATABASE", "RENAME"] {
        assert!(ran.0.stderr.contains(words), "{words}: {ran}");
    }
    drop(busy);
    assert_eq!(digests("copy"), before);
    let done = with(&[&swap[..], &["--json"]].concat()).expect(0).end();
    let kept = done["facts"]["database.kept"].as_str().unwrap();
    assert_eq!(digests(kept), before);
    assert_eq!(done["facts"]["database.compared.differ"], 0, "{done}");
    with(&["--to", "copy", "--disconnect"]).expect(2).error_says(&["--swap or --replace"]);
    with(&["--to", "copy", "--swap", "--replace"]).expect(2);

    run_sql("DELETE FROM payments");
    let table = ["--to", "postgres", "--table", "public.payments"];
    with(&table).expect(2).error_says(&["--replace", "--beside"]);
    with(&[&table[..], &["--beside", "old_payments"]].concat()).expect(0);
    with(&[&table[..], &["--replace"]].concat()).expect(0);
    run_sql("DROP TABLE old_payments");
    assert_eq!(digests("postgres"), before);
    let missing = ["--to", "postgres", "--table", "public.nothing", "--replace"];
    with(&missing).expect(1).error_says(&["no rows of public.nothing", "lifeboat ls"]);

    let export = |more: &[&str]| {
        home.run(&[&["export", "latest", "--store", "database/shop"], more].concat())
    };
    let script = home.arg("shop.sql");
    let done = export(&["--to", &script, "--json"]).expect(0).end();
    assert_eq!(done["rows"], first["facts"]["database.rows"], "{done}");
    let text = std::fs::read_to_string(&script).unwrap();
    assert!(text.contains("COPY \"public\".\"payments\"") && text.ends_with(" rows.\n"));
    export(&["--to", &script]).expect(1).error_says(&["it exists already"]);
    let csv = export(&["--table", "payments"]).expect(0).0.stdout;
    let expected = block_on(async {
        let client = cluster.connect("postgres").await.unwrap();
        let query = "SELECT count(*) FROM payments";
        client.query_one(query, &[]).await.unwrap().get::<_, i64>(0)
    });
    assert_eq!(csv.lines().count() as i64, expected + 1, "{csv}");
    assert!(csv.starts_with("id,") || csv.starts_with("order_id,"), "{}", &csv[..100]);
    let directory = home.arg("shop.dir");
    let into = ["--as", "directory", "--to", &directory];
    let done = export(&[&into[..], &["--json"]].concat()).expect(0).end();
    assert_eq!(done["rows"], first["facts"]["database.rows"], "{done}");
    let listed = std::process::Command::new(format!("{programs}/pg_restore"))
        .args(["--list", &directory])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains(" TABLE DATA public payments "));
    export(&into).expect(1).error_says(&["it exists already"]);
    export(&["--as", "directory"]).expect(2).error_says(&["--to"]);
    export(&[&into[..], &["--no-owner"]].concat()).expect(2).error_says(&["pg_restore"]);
    export(&["--as", "csv"]).expect(2).error_says(&["CSV holds one table"]);
    export(&["--json"]).expect(2).error_says(&["--to"]);
    export(&["--table", "nothing"]).expect(1).error_says(&["no rows of public.nothing"]);

    // Words for other stores.
    with(&["--to", "x", "--path", "y"]).expect(2).error_says(&["--path", "database/shop"]);
    with(&["--to", "/tmp/x"]).expect(2).error_says(&["names a database"]);
    let tree = home.tree();
    home.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);
    let target = home.arg("back");
    let files = ["restore", "latest", "--store", "files/tree", "--to", &target, "--fill"];
    home.run(&files).expect(2).error_says(&["--fill is for databases"]);
    let secret = ["backup", "database", "--name", "x", "--conninfo", "password=geheim"];
    let ran = home.run(&secret).expect(2);
    assert!(!ran.0.stderr.contains("geheim"), "{ran}");
}

#[test]
fn a_database_of_another_cluster_under_a_used_name_is_told() {
    let home = Home::new();
    let programs = newest().unwrap().bin_dir.to_str().unwrap().to_owned();
    let start = || Cluster::builder().installation(newest().unwrap()).start().unwrap();
    let (one, other) = (start(), start());
    let take = |of: &Cluster| {
        let conninfo = of.conninfo();
        let words = ["backup", "database", "--name", "shop", "--conninfo", &conninfo];
        home.run(&[&words[..], &["--programs", &programs]].concat())
    };
    take(&one).expect(0);
    take(&one).expect(0);
    let ran = take(&other).expect(3);
    assert!(ran.0.stderr.contains("is of another cluster"), "{ran}");
    take(&other).expect(0);
}

#[test]
fn a_restore_that_is_killed_is_not_taken_for_the_whole() {
    let home = Home::new();
    let cluster = Cluster::builder().installation(newest().unwrap()).start().unwrap();
    let conninfo = cluster.conninfo();
    block_on(async {
        let client = cluster.connect("postgres").await.unwrap();
        data::seed(&client, Size::TINY).await.unwrap();
    });
    let programs = newest().unwrap().bin_dir.to_str().unwrap().to_owned();
    let take = ["backup", "database", "--name", "shop", "--programs", &programs];
    home.run(&[&take[..], &["--conninfo", &conninfo]].concat()).expect(0);
    let restore = ["restore", "latest", "--to", "copy", "--conninfo", &conninfo];
    let databases = || {
        block_on(async {
            let client = cluster.connect("postgres").await.unwrap();
            let query =
                "SELECT datname::text FROM pg_database WHERE datname LIKE 'copy%' ORDER BY 1";
            let rows = client.query(query, &[]).await.unwrap();
            rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
        })
    };
    let mut child = home.command(&restore).spawn().unwrap();
    let began = std::time::Instant::now();
    while databases().is_empty() {
        assert!(began.elapsed() < crate::common::LIMIT, "no database is made");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = databases();
    assert!(left.len() == 1 && left[0].starts_with("copy_restore_"), "{left:?}");
    // Sessions of the killed program end by themselves.
    let name = left[0].clone();
    while block_on(async {
        let client = cluster.connect("postgres").await.unwrap();
        let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
        client.query_one(query, &[&name]).await.unwrap().get::<_, i64>(0) > 0
    }) {
        assert!(began.elapsed() < crate::common::LIMIT, "its sessions stay");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let ran = home.run(&restore).expect(0);
    assert!(ran.0.stderr.contains(&format!("DROP DATABASE \"{name}\"")), "{ran}");
    assert_eq!(databases(), ["copy".to_owned(), name]);
}
