//! File trees pass the suites that every store runs.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use common::{sink, snapshot, source};
use lifeboat_core::conformance::{SinkHarness, sink_suite, source_suite};
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Sink, Source, async_trait};
use lifeboat_files::{FilesSink, State};

fn plant(folder: &Path) {
    std::fs::create_dir_all(folder.join("a/b/c")).unwrap();
    std::fs::create_dir(folder.join("a-b")).unwrap();
    std::fs::write(folder.join("a/empty"), "").unwrap();
    for name in 0..100 {
        std::fs::write(folder.join(format!("a/b/{name}")), format!("file {name}")).unwrap();
    }
    let large: Vec<u8> = (0..800_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(folder.join("a-b/large"), &large).unwrap();
    std::fs::write(folder.join("middling"), &large[..300_000]).unwrap();
    std::fs::hard_link(folder.join("a-b/large"), folder.join("b")).unwrap();
    symlink("a/b/1", folder.join("link")).unwrap();
    symlink("/nowhere", folder.join("dangling")).unwrap();
    let mode = std::fs::Permissions::from_mode(0o500);
    std::fs::set_permissions(folder.join("a/b"), mode).unwrap();
}

#[tokio::test]
async fn a_tree_is_a_source() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path());
    source_suite(&source(folder.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_a_source_on_many_threads() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path());
    source_suite(&source(folder.path())).await;
}

struct Harness {
    planted: tempfile::TempDir,
    targets: tempfile::TempDir,
    last: Mutex<PathBuf>,
    next: Mutex<u32>,
}

impl Harness {
    fn target(&self) -> FilesSink {
        sink(&self.last.lock().unwrap())
    }
}

#[async_trait]
impl SinkHarness for Harness {
    async fn sample(&self) -> MemoryStore {
        snapshot(self.planted.path()).await
    }

    async fn sink(&self) -> Box<dyn Sink> {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        let target = self.targets.path().join(next.to_string());
        // Both a missing directory and an empty one are fine targets.
        if next.is_multiple_of(2) {
            std::fs::create_dir(&target).unwrap();
        }
        *self.last.lock().unwrap() = target;
        Box::new(self.target())
    }

    async fn read_back(&self, _: &dyn Sink) -> Option<Box<dyn Source>> {
        let target = self.target();
        match target.state().await.unwrap() {
            State::Filled => Some(Box::new(source(target.path()))),
            _ => None,
        }
    }
}

#[tokio::test]
async fn a_tree_is_a_sink() {
    let harness = Harness {
        planted: tempfile::tempdir().unwrap(),
        targets: tempfile::tempdir().unwrap(),
        last: Mutex::default(),
        next: Mutex::default(),
    };
    plant(harness.planted.path());
    sink_suite(&harness).await;
}
