//! What the tests of this crate share: clusters, and memory as the repository.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Collecting, Completion, Context, Entry, Error, Reading, Source, StoreRef, Summary,
    TransferOptions, transfer,
};
use lifeboat_postgres::{
    ClusterOptions, ClusterSink, ClusterSource, ConnectOptions, RestoreOptions,
};
use lifeboat_testbed::postgres::{Cluster, Installation};
use tokio_postgres::Client;

/// Runs a test on a runtime like that of the command.
pub fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

pub fn connection(cluster: &Cluster) -> ConnectOptions {
    let options = ConnectOptions::parse(&cluster.conninfo()).unwrap();
    match cluster.password() {
        Some(password) => options.with_password(password.to_owned()),
        None => options,
    }
}

pub fn options(cluster: &Cluster) -> ClusterOptions {
    ClusterOptions::new(connection(cluster))
}

pub fn source(cluster: &Cluster) -> ClusterSource {
    ClusterSource::new("main", options(cluster))
}

/// A memory store as a repository: what it was given, with the facts that came at the end.
pub struct Backup {
    pub store: MemoryStore,
    pub summary: Summary,
    pub warnings: Vec<(String, String)>,
}

impl Backup {
    /// Backs up into a new store.
    pub async fn take(source: &dyn Source) -> Self {
        Self::take_into(source, MemoryStore::new("repository")).await
    }

    /// Backs up into a store that may hold the last backup.
    pub async fn take_into(source: &dyn Source, store: MemoryStore) -> Self {
        let observer = Arc::new(Collecting::new());
        let context = Context::new(observer.clone());
        let summary =
            transfer(source, &store, &TransferOptions::default(), &context).await.unwrap();
        Self { store, summary, warnings: observer.warnings() }
    }

    /// As a source, with the facts as a repository would give them back.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { store: self.store.clone(), completion: self.summary.completion.clone() }
    }

    pub fn facts(&self) -> &Attributes {
        &self.summary.completion.facts
    }

    /// The paths of all entries.
    pub fn names(&self) -> Vec<String> {
        self.store.image().keys().map(ToString::to_string).collect()
    }

    /// Restores into a new directory beneath `scratch`.
    pub async fn restore(&self, target: &Path) -> Summary {
        let options = RestoreOptions::new(target).with_facts(self.facts().clone());
        self.restore_with(options).await.unwrap()
    }

    pub async fn restore_with(&self, options: RestoreOptions) -> Result<Summary, Error> {
        let sink = ClusterSink::new(options);
        transfer(&self.snapshot(), &sink, &TransferOptions::default(), &Context::silent()).await
    }
}

/// The entries of a memory store with the completion of the backup.
pub struct Snapshot {
    pub store: MemoryStore,
    pub completion: Completion,
}

#[lifeboat_core::async_trait]
impl Source for Snapshot {
    fn store(&self) -> &StoreRef {
        self.store.store()
    }

    async fn inspect(&self) -> lifeboat_core::Result<lifeboat_core::Inspection> {
        self.store.inspect().await
    }

    async fn read(
        &self,
        since: Option<Arc<dyn lifeboat_core::Baseline>>,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Reading>> {
        let inner = self.store.read(since, context).await?;
        Ok(Box::new(SnapshotReading { inner, completion: self.completion.clone() }))
    }
}

struct SnapshotReading {
    inner: Box<dyn Reading>,
    completion: Completion,
}

#[lifeboat_core::async_trait]
impl Reading for SnapshotReading {
    async fn next(&mut self) -> lifeboat_core::Result<Option<Entry>> {
        self.inner.next().await
    }

    async fn finish(self: Box<Self>) -> lifeboat_core::Result<Completion> {
        self.inner.finish().await?;
        Ok(self.completion)
    }
}

/// Looks at every B-tree of a database, where the installation has amcheck.
pub async fn amcheck(client: &Client) {
    let available: bool = client
        .query_one("SELECT exists(SELECT FROM pg_available_extensions WHERE name = 'amcheck')", &[])
        .await
        .unwrap()
        .get(0);
    if !available {
        return;
    }
    client.batch_execute("CREATE EXTENSION IF NOT EXISTS amcheck").await.unwrap();
    let checked = client
        .query(
            "SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = c.relam
             JOIN pg_index i ON i.indexrelid = c.oid
             WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisvalid",
            &[],
        )
        .await
        .unwrap();
    assert!(!checked.is_empty());
    client
        .query(
            "SELECT r.* FROM pg_class c, verify_heapam(c.oid::regclass) r
             WHERE c.relkind = 'r' AND c.relpersistence = 'p'",
            &[],
        )
        .await
        .map(|damage| assert!(damage.is_empty(), "the heap is damaged: {damage:?}"))
        .unwrap();
}

/// Looks at the checksum of every page of a stopped cluster, where the installation can.
pub fn checksums(installation: &Installation, data: &Path) {
    if !installation.has("pg_checksums") {
        return;
    }
    let mut command = installation.command("pg_checksums").unwrap();
    let output = command.arg("--check").arg("-D").arg(data).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

pub fn path(text: &str) -> lifeboat_core::EntryPath {
    lifeboat_core::EntryPath::new(text).unwrap()
}

pub fn target(scratch: &lifeboat_testbed::Scratch) -> PathBuf {
    scratch.path().join("restored")
}
