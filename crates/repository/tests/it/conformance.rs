//! A repository passes the suites of sinks and sources.

use lifeboat_core::conformance::{SinkHarness, sink_suite, source_suite};
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Sink, Source, async_trait};
use lifeboat_repository::{Repository, Selection, WriteOptions};
use parking_lot::Mutex;

use crate::common::{back_up, repository, sample};

#[derive(Default)]
struct Harness(Mutex<Option<Repository>>);

#[async_trait]
impl SinkHarness for Harness {
    async fn sample(&self) -> MemoryStore {
        sample().await
    }

    async fn sink(&self) -> Box<dyn Sink> {
        let (_, repository) = repository().await;
        *self.0.lock() = Some(repository.clone());
        Box::new(repository.sink(&WriteOptions::default()))
    }

    async fn read_back(&self, _: &dyn Sink) -> Option<Box<dyn Source>> {
        let repository = self.0.lock().clone()?;
        let newest = repository.snapshots().await.unwrap().snapshots.pop()?;
        let snapshot = repository.snapshot(&newest.id).await.unwrap();
        Some(Box::new(snapshot.source(&Selection::all())))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_is_a_sink() {
    sink_suite(&Harness::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_a_source() {
    let (_, repository) = repository().await;
    let (id, _) = back_up(&sample().await, &repository).await;
    let snapshot = repository.snapshot(&id).await.unwrap();
    source_suite(&snapshot.source(&Selection::all())).await;
}
