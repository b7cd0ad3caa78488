//! The suites that every source and every sink must pass.

use std::sync::Arc;

use lifeboat_core::conformance::{SinkHarness, live_source_suite, sink_suite};
use lifeboat_core::local::{Root, Status, read_file};
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Content, Context, Entry, EntryInfo, EntryKind, EntryPath, Layout, Sink, Source,
    names,
};
use lifeboat_postgres::{ClusterSink, RestoreOptions};
use lifeboat_testbed::Scratch;
use lifeboat_testbed::postgres::{Cluster, all, newest};
use parking_lot::Mutex;

use crate::common::{Backup, path, run, source};

/// Each backup has WAL, a label and a checkpoint of its own.
fn volatile(path: &EntryPath) -> bool {
    let text = path.to_string();
    text.starts_with("recovery") || text == "cluster/pg_logical/replorigin_checkpoint"
}

#[test]
fn a_cluster_is_a_source() {
    run(async {
        for installation in all().unwrap() {
            let cluster = Cluster::builder()
                .installation(installation)
                .setting("autovacuum", "off")
                .start()
                .unwrap();
            // What initdb left in memory is written now, not between two reads.
            let client = cluster.connect("postgres").await.unwrap();
            client.batch_execute("CHECKPOINT").await.unwrap();
            drop(client);
            live_source_suite(&source(&cluster), &volatile).await;
        }
    });
}

/// Restores into scratch directories, and reads back what is there in the form of a snapshot.
struct Harness {
    sample: MemoryStore,
    scratches: Mutex<Vec<Scratch>>,
    target: Mutex<std::path::PathBuf>,
}

#[lifeboat_core::async_trait]
impl SinkHarness for Harness {
    async fn sample(&self) -> MemoryStore {
        self.sample.clone()
    }

    async fn sink(&self) -> Box<dyn Sink> {
        let scratch = Scratch::new().unwrap();
        let target = scratch.path().join("restored");
        *self.target.lock() = target.clone();
        self.scratches.lock().push(scratch);
        Box::new(ClusterSink::new(RestoreOptions::new(target)))
    }

    async fn read_back(&self, _: &dyn Sink) -> Option<Box<dyn Source>> {
        let target = self.target.lock().clone();
        if !target.join("global/pg_control").exists() {
            return None;
        }
        assert!(!target.join(ClusterSink::MARKER).exists());
        let back = MemoryStore::new("back");
        let root = Root::open(&target).unwrap();
        let put = async |name: &str, inside: Option<&EntryPath>, kind: EntryKind| {
            let status = match inside {
                Some(inside) => root.status(inside).unwrap(),
                None => Status::of(root.top()).unwrap(),
            };
            let attributes = Attributes::new().with(names::MODE, status.mode);
            let mut entry = Entry::new(path(name), kind, attributes);
            if kind == EntryKind::File {
                let file = root.open_file(inside.unwrap()).unwrap();
                let content = read_file(file, name, status.size, &Context::silent());
                entry = entry.with_content(status.size, content);
            }
            back.insert(entry).await.unwrap();
        };
        put("cluster", None, EntryKind::Directory).await;
        back.insert(Entry::new(
            path("recovery"),
            EntryKind::Directory,
            Attributes::new().with(names::MODE, 0o700_u32),
        ))
        .await
        .unwrap();
        let mut folders = vec![None];
        while let Some(folder) = folders.pop() {
            for listed in root.list(folder.as_ref()).unwrap() {
                let inside = match &folder {
                    Some(folder) => EntryPath::join(folder, &listed.name).unwrap(),
                    None => EntryPath::new(&listed.name).unwrap(),
                };
                let text = inside.to_string();
                if text == "recovery.signal" || text.ends_with(".done") {
                    continue;
                }
                let name = match text.strip_prefix("pg_wal/") {
                    Some(segment) if !listed.is_directory.unwrap() => format!("recovery/{segment}"),
                    _ if text == "backup_label" => "recovery/backup_label".to_owned(),
                    _ if text == "global/pg_control" => "recovery/pg_control".to_owned(),
                    _ => format!("cluster/{text}"),
                };
                if listed.is_directory.unwrap() {
                    put(&name, Some(&inside), EntryKind::Directory).await;
                    folders.push(Some(inside));
                } else {
                    put(&name, Some(&inside), EntryKind::File).await;
                }
            }
        }
        self.same_control(&back).await;
        self.same_settings(&back).await;
        Some(Box::new(back))
    }

    fn same(&self, put: &EntryInfo, got: &EntryInfo) -> bool {
        let mode = |info: &EntryInfo| info.attributes.unsigned(names::MODE);
        put.path == got.path
            && put.kind == got.kind
            && put.size == got.size
            && mode(put) == mode(got)
    }
}

impl Harness {
    /// Restored settings end with those of the recovery. They are put back as they were.
    async fn same_settings(&self, back: &MemoryStore) {
        let name = path("cluster/postgresql.auto.conf");
        let (put, got) = (self.sample.content(&name).unwrap(), back.content(&name).unwrap());
        let added = got.strip_prefix(&*put).expect("the settings came back, and more");
        assert!(added.starts_with(b"# Set by a restore of Lifeboat:\nrestore_command = "));
        let (info, _) = back.image()[&name].clone();
        let entry = Entry::new(name, info.kind, info.attributes);
        let entry = entry.with_content(put.len() as u64, Content::bytes(put));
        back.insert(entry).await.unwrap();
    }

    /// A restored `pg_control` differs on purpose, in the position of its checkpoint and therefore
    /// in its checksum. It is put back after a look that nothing else does.
    async fn same_control(&self, back: &MemoryStore) {
        let name = path("recovery/pg_control");
        let (put, got) = (self.sample.content(&name).unwrap(), back.content(&name).unwrap());
        let differ: Vec<usize> = (0..put.len()).filter(|at| put[*at] != got[*at]).collect();
        assert!(!differ.is_empty());
        assert!(
            differ.iter().all(|at| (32..40).contains(at) || (288..296).contains(at)),
            "{differ:?}"
        );
        let (info, _) = back.image()[&name].clone();
        back.insert(
            Entry::new(name, info.kind, info.attributes)
                .with_content(put.len() as u64, Content::bytes(put)),
        )
        .await
        .unwrap();
    }
}

#[test]
fn a_directory_is_a_sink() {
    run(async {
        let cluster = Cluster::start(newest().unwrap()).unwrap();
        let backup = Backup::take(&source(&cluster)).await;
        let harness = Arc::new(Harness {
            sample: backup.store,
            scratches: Mutex::default(),
            target: Mutex::default(),
        });
        assert!(
            harness.sample.image().values().any(|(info, _)| info.layout == Layout::Pages(8192))
        );
        sink_suite(harness.as_ref()).await;
    });
}
