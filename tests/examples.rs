//! The examples do what they show: they are run here, as they stand.

#![allow(clippy::unwrap_used)]

#[cfg(feature = "files")]
#[path = "../examples/embed_files.rs"]
#[allow(dead_code)]
mod embed_files;

#[cfg(feature = "postgres")]
#[path = "../examples/embed_postgres.rs"]
#[allow(dead_code)]
mod embed_postgres;

#[cfg(feature = "postgres")]
#[path = "../examples/embed_base_backup.rs"]
#[allow(dead_code)]
mod embed_base_backup;

#[cfg(feature = "postgres")]
#[path = "../examples/embed_dump.rs"]
#[allow(dead_code)]
mod embed_dump;

#[cfg(feature = "postgres")]
#[path = "../examples/embed_follow.rs"]
#[allow(dead_code)]
mod embed_follow;

#[cfg(feature = "postgres")]
#[path = "../examples/embed_wal.rs"]
#[allow(dead_code)]
mod embed_wal;

#[cfg(feature = "postgres")]
#[path = "../examples/embed_recovery.rs"]
#[allow(dead_code)]
mod embed_recovery;

#[cfg(feature = "redis")]
#[path = "../examples/embed_redis.rs"]
#[allow(dead_code)]
mod embed_redis;

#[cfg(feature = "redis")]
#[path = "../examples/embed_redis_follow.rs"]
#[allow(dead_code)]
mod embed_redis_follow;

#[cfg(feature = "files")]
#[path = "../examples/embed_copy.rs"]
#[allow(dead_code)]
mod embed_copy;

#[cfg(feature = "files")]
#[tokio::test]
async fn a_second_repository_saves_a_damaged_one() {
    let folder = tempfile::tempdir().unwrap();
    embed_copy::run(folder.path()).await.unwrap();
}

#[cfg(feature = "files")]
#[tokio::test]
async fn files_are_backed_up_and_restored() {
    let folder = tempfile::tempdir().unwrap();
    embed_files::run(folder.path()).await.unwrap();
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_backed_up_and_restored() {
    use lifeboat::postgres::{ConnectOptions, DatabaseOptions, TableName};
    use lifeboat_testbed::data;
    use lifeboat_testbed::postgres::{Cluster, newest};

    let cluster = Cluster::start(newest().unwrap()).unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    data::seed(&client, data::Size::TINY).await.unwrap();
    let mut options = DatabaseOptions::new(ConnectOptions::parse(&cluster.conninfo()).unwrap());
    options.programs = Some(cluster.installation().bin_dir.clone());
    let folder = tempfile::tempdir().unwrap();
    let table = TableName::new("public", "customers");
    let csv = embed_dump::run(options, &table, folder.path()).await.unwrap();
    let count: i64 = client.query_one("select count(*) from customers", &[]).await.unwrap().get(0);
    assert_eq!(i64::try_from(csv.lines().count()).unwrap(), count + 1);
    let restored = cluster.connect("shop_restored").await.unwrap();
    assert_eq!(data::digests(&restored).await.unwrap(), data::digests(&client).await.unwrap());
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_backed_up_and_restored() {
    use lifeboat_testbed::data;
    use lifeboat_testbed::postgres::{Cluster, newest};

    let cluster = Cluster::start(newest().unwrap()).unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    data::seed(&client, data::Size::TINY).await.unwrap();
    let before = data::digests(&client).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    embed_postgres::run(&cluster.conninfo(), folder.path()).await.unwrap();

    let restored = folder.path().join("restored");
    let restored = Cluster::adopt(restored, newest().unwrap()).unwrap();
    let client = restored.connect("postgres").await.unwrap();
    assert_eq!(data::digests(&client).await.unwrap(), before);
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_followed() {
    use lifeboat::Context;
    use lifeboat::postgres::{Following, Lsn};
    use lifeboat_testbed::postgres::{Cluster, newest};

    let cluster = Cluster::start(newest().unwrap()).unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    client.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 1000)").await.unwrap();
    let sql = "SELECT pg_current_wal_flush_lsn()::text";
    let flushed: String = client.query_one(sql, &[]).await.unwrap().get(0);
    let flushed: Lsn = flushed.parse().unwrap();

    let folder = tempfile::tempdir().unwrap();
    let context = Context::silent();
    let stop = context.clone();
    let told = move |what: &Following| {
        if matches!(what, Following::Durable { to, .. } if *to >= flushed) {
            stop.cancel();
        }
    };
    embed_follow::run(&cluster.conninfo(), folder.path(), &told, &context).await.unwrap();
    // It was not the time that ended it.
    assert!(context.is_cancelled());
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_is_archived_and_given_back() {
    use lifeboat::postgres::Got;
    use lifeboat_testbed::postgres::{Cluster, newest};

    let cluster = Cluster::start(newest().unwrap()).unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    let sql = "SELECT pg_walfile_name(pg_current_wal_lsn())";
    let segment: String = client.query_one(sql, &[]).await.unwrap().get(0);
    client.batch_execute("SELECT pg_switch_wal()").await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let got = embed_wal::run(cluster.data_dir(), &segment, folder.path()).await.unwrap();
    assert_eq!(got, Got::Given);
    let given = std::fs::read(folder.path().join("given")).unwrap();
    assert!(given == std::fs::read(cluster.data_dir().join("pg_wal").join(segment)).unwrap());
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_moment_comes_back() {
    use std::path::Path;
    use std::sync::Arc;

    use lifeboat::core::StoreRef;
    use lifeboat::core::journal::JournalLog;
    use lifeboat::postgres::{
        ClusterOptions, ClusterSource, ConnectOptions, PushOptions, WalArchive,
    };
    use lifeboat::repository::JournalOptions;
    use lifeboat::{
        Context, InitOptions, Intent, Location, Repository, Secret, StoreOptions, TransferOptions,
        WriteOptions, open, transfer,
    };
    use lifeboat_testbed::postgres::{Cluster, newest};

    let cluster = Cluster::start(newest().unwrap()).unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    client.batch_execute("CREATE TABLE t AS SELECT 1 AS n").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let location = Location::directory(folder.path().join("repository")).unwrap();
    let place = open(&location, &StoreOptions::new(Intent::Create)).unwrap();
    let secret = Secret::passphrase("correct horse battery staple");
    let repository = Repository::init(place, &secret, &InitOptions::default()).await.unwrap();
    let connection = ConnectOptions::parse(&cluster.conninfo()).unwrap();
    let source = ClusterSource::new("main", ClusterOptions::new(connection));
    let sink = repository.sink(&WriteOptions::default());
    let (options, context) = (TransferOptions::default(), Context::silent());
    transfer(&source, &sink, &options, &context).await.unwrap();

    client.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    let sql = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', \
               'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let moment: String = client.query_one(sql, &[]).await.unwrap().get(0);
    client.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();
    let sql = "SELECT pg_walfile_name(pg_switch_wal())";
    let segment: String = client.query_one(sql, &[]).await.unwrap().get(0);
    let store = StoreRef::new("postgres", "main");
    let journal = |name: &_| -> Arc<dyn JournalLog> {
        Arc::new(repository.journal(name, &JournalOptions::default()))
    };
    let archive = WalArchive::open(&store, journal).unwrap();
    let path = Path::new("pg_wal").join(segment);
    let pushing = PushOptions::new(cluster.data_dir());
    archive.push(&path, &pushing, &context).await.unwrap();

    let target = folder.path().join("restored");
    let moment = moment.parse().unwrap();
    embed_recovery::run(&location, &secret, "main", moment, &target).await.unwrap();
    let restored = Cluster::adopt(target, newest().unwrap()).unwrap();
    let client = restored.connect("postgres").await.unwrap();
    let sum: i64 = client.query_one("SELECT sum(n) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(sum, 3);
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_sends_its_files() {
    use lifeboat_testbed::postgres::{Cluster, newest};

    let cluster = Cluster::start(newest().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let summary = embed_base_backup::run(&cluster.conninfo(), folder.path()).await.unwrap();
    assert!(summary.receipt.snapshot.is_some());
    assert_eq!(summary.warnings, 0);
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_server_is_backed_up_and_restored() {
    use lifeboat_testbed::redis::{Server, newest};

    let server = Server::start(newest().unwrap()).unwrap();
    server.run("SET a 1\nRPUSH l 1 2 3\n").unwrap();
    let before = server.digest().unwrap();
    let folder = tempfile::tempdir().unwrap();
    embed_redis::run(&server.url(), folder.path()).await.unwrap();
    let restored = Server::builder(newest().unwrap()).rdb(folder.path().join("dump.rdb"));
    assert_eq!(restored.start().unwrap().digest().unwrap(), before);
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_server_is_followed_and_comes_back() {
    use lifeboat::Context;
    use lifeboat::redis::Following;
    use lifeboat_testbed::redis::{Server, newest};

    let server = Server::start(newest().unwrap()).unwrap();
    server.run("SET a 1\nRPUSH l 1 2 3\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let context = Context::silent();
    let stop = context.clone();
    let told = |what: &Following| match what {
        // Behind the snapshot, so that it comes from the journal.
        Following::Base { .. } => server.run("SET a 2\nSET b 1\n").unwrap(),
        Following::Durable { .. } => stop.cancel(),
        _ => {}
    };
    embed_redis_follow::run(&server.url(), folder.path(), &told, &context).await.unwrap();
    let restored = Server::builder(newest().unwrap()).setting("appendonly", "yes");
    let restored = restored.files(folder.path().join("data")).start().unwrap();
    assert_eq!(restored.digest().unwrap(), server.digest().unwrap());
}
