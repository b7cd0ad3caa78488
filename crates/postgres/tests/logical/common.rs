//! What these tests share.

use std::path::PathBuf;
use std::sync::Arc;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Collecting, Context, Error, Source, Summary, TransferOptions, transfer,
};
use lifeboat_postgres::{
    ConnectOptions, DatabaseOptions, DatabaseRestoreOptions, DatabaseSink, DatabaseSource,
};
use lifeboat_testbed::postgres::{Cluster, Installation, all};
use tokio_postgres::Client;

/// Runs a test on a runtime like that of the command.
pub fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

/// Where a `pg_dump` is that can write the schema of this server: its own, or the next newer one.
pub fn programs(of: &Installation) -> PathBuf {
    let with = all().unwrap().iter().filter(|one| one.major >= of.major && one.has("pg_dump"));
    with.min_by_key(|one| one.major).unwrap().bin_dir.clone()
}

pub fn connection(cluster: &Cluster, database: &str) -> ConnectOptions {
    let text = format!("host=127.0.0.1 port={} user=postgres dbname={database}", cluster.port());
    ConnectOptions::parse(&text).unwrap()
}

pub fn options(cluster: &Cluster, database: &str) -> DatabaseOptions {
    let mut options = DatabaseOptions::new(connection(cluster, database));
    options.programs = Some(programs(cluster.installation()));
    options
}

/// A memory store as a repository: what it was given, with the facts that came at the end.
pub struct Backup {
    pub store: MemoryStore,
    pub summary: Summary,
}

impl Backup {
    pub async fn take(options: DatabaseOptions) -> Self {
        Self::try_take(options).await.unwrap()
    }

    pub async fn try_take(options: DatabaseOptions) -> Result<Self, Error> {
        let source = DatabaseSource::new("shop", options);
        let store = MemoryStore::new("repository");
        let context = Context::silent();
        let summary = transfer(&source, &store, &TransferOptions::default(), &context).await?;
        Ok(Self { store, summary })
    }

    pub fn facts(&self) -> &Attributes {
        &self.summary.completion.facts
    }

    pub fn names(&self) -> Vec<String> {
        self.store.image().keys().map(ToString::to_string).collect()
    }

    pub fn text(&self, path: &str) -> String {
        let path = lifeboat_core::EntryPath::new(path).unwrap();
        String::from_utf8(self.store.content(&path).unwrap().to_vec()).unwrap()
    }

    /// Rows and digest of a table, as the snapshot says them.
    pub fn total(&self, schema: &str, table: &str) -> (u64, String) {
        let totals: serde_json::Value = serde_json::from_str(&self.text("8-totals.json")).unwrap();
        let total = &totals["tables"][schema][table];
        (total["rows"].as_u64().unwrap(), total["digest"].as_str().unwrap().to_owned())
    }

    /// Restores with the facts given.
    pub async fn restore(&self, options: DatabaseRestoreOptions) -> Result<Summary, Error> {
        let options = options.with_facts(self.facts().clone());
        self.restore_blindly(options).await.map(|(summary, _)| summary)
    }

    pub async fn restore_blindly(
        &self,
        options: DatabaseRestoreOptions,
    ) -> Result<(Summary, Vec<(String, String)>), Error> {
        let (done, warnings) = self.restore_told(options).await;
        done.map(|summary| (summary, warnings))
    }

    /// Restores, and says what was told meanwhile, also when it failed.
    pub async fn restore_told(
        &self,
        options: DatabaseRestoreOptions,
    ) -> (Result<Summary, Error>, Vec<(String, String)>) {
        let observer = Arc::new(Collecting::new());
        let context = Context::new(observer.clone());
        let sink = DatabaseSink::new(options);
        let transfer_options = TransferOptions::default();
        let done = transfer(&self.store as &dyn Source, &sink, &transfer_options, &context).await;
        (done, observer.warnings())
    }
}

/// Into a new database.
pub fn into(cluster: &Cluster, name: &str) -> DatabaseRestoreOptions {
    DatabaseRestoreOptions::new(connection(cluster, "postgres"), name)
}

/// The digest of rows, made from the server's own COPY in an order of its own, by the words of the
/// documentation: the sum of the first 128 bits of the BLAKE3 hash of each row.
pub async fn digest(client: &Client, table: &str) -> (u64, String) {
    use futures_util::TryStreamExt;
    client
        .batch_execute(
            "SET search_path = pg_catalog; SET datestyle = 'ISO'; SET timezone = 'UTC'; SET bytea_output = 'hex';
             SET intervalstyle = 'postgres'; SET extra_float_digits = 3",
        )
        .await
        .unwrap();
    let columns: String = client
        .query_one(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
             WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
               AND attgenerated = ''",
            &[&table],
        )
        .await
        .unwrap()
        .get(0);
    let query = format!("COPY (SELECT {columns} FROM ONLY {table} ORDER BY random()) TO STDOUT");
    let bytes: Vec<bytes::Bytes> =
        client.copy_out(&query).await.unwrap().try_collect().await.unwrap();
    let (mut rows, mut sum) = (0, 0_u128);
    for line in bytes.concat().split_inclusive(|byte| *byte == b'\n') {
        let hash = blake3::hash(line.strip_suffix(b"\n").unwrap());
        rows += 1;
        sum = sum.wrapping_add(u128::from_le_bytes(hash.as_bytes()[..16].try_into().unwrap()));
    }
    (rows, format!("{sum:032x}"))
}

/// Returns when a query gives a row, or fails when it never does.
pub async fn until(client: &Client, query: &str) -> tokio_postgres::Row {
    for _ in 0..1200 {
        if let Some(row) = client.query_opt(query, &[]).await.unwrap() {
            return row;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("never: {query}");
}

/// The databases of a cluster.
pub async fn databases(cluster: &Cluster) -> Vec<String> {
    let client = cluster.connect("postgres").await.unwrap();
    let rows = client
        .query("SELECT datname::text FROM pg_database WHERE NOT datistemplate ORDER BY 1", &[])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
