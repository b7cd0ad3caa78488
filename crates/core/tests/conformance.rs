//! The memory store and the memory journal pass the suites that every other store runs.

#![allow(clippy::unwrap_used)]

use lifeboat_core::conformance::{
    JournalHarness, SinkHarness, journal_suite, sink_suite, source_suite,
};
use lifeboat_core::journal::{JournalLog, JournalName};
use lifeboat_core::memory::{MemoryJournal, MemoryStore};
use lifeboat_core::{
    Attributes, Entry, EntryKind, EntryPath, Sink, Source, StoreRef, async_trait, names,
};

fn path(text: &str) -> EntryPath {
    EntryPath::new(text).unwrap()
}

async fn sample() -> MemoryStore {
    let store = MemoryStore::new("sample");
    let attributes = Attributes::new().with(names::MODE, 0o600_u32);
    store.insert(Entry::directory(path("etc"))).await.unwrap();
    store.insert(Entry::file(path("etc/empty"), attributes.clone(), "")).await.unwrap();
    store.insert(Entry::file(path("etc/hosts"), attributes.clone(), "127.0.0.1")).await.unwrap();
    let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    store.insert(Entry::file(path("etc-large"), attributes.clone(), large)).await.unwrap();
    let link = attributes.with(names::TARGET, b"etc/hosts".to_vec());
    store.insert(Entry::new(path("link"), EntryKind::Symlink, link)).await.unwrap();
    store
}

struct Harness;

#[async_trait]
impl SinkHarness for Harness {
    async fn sample(&self) -> MemoryStore {
        sample().await
    }

    async fn sink(&self) -> Box<dyn Sink> {
        let target = MemoryStore::new("target");
        TARGET.with(|slot| slot.replace(Some(target.clone())));
        Box::new(target)
    }

    async fn read_back(&self, _: &dyn Sink) -> Option<Box<dyn Source>> {
        let target = TARGET.with(|slot| slot.borrow().clone())?;
        (target.commits() > 0).then(|| Box::new(target) as _)
    }
}

thread_local! {
    static TARGET: std::cell::RefCell<Option<MemoryStore>> = const { std::cell::RefCell::new(None) };
}

#[tokio::test]
async fn memory_is_a_source() {
    source_suite(&sample().await).await;
}

#[tokio::test]
async fn memory_is_a_sink() {
    sink_suite(&Harness).await;
}

#[derive(Default)]
struct Journals(std::sync::Mutex<std::collections::BTreeMap<JournalName, MemoryJournal>>);

#[async_trait]
impl JournalHarness for Journals {
    async fn journal(&self, stream: &str) -> Box<dyn JournalLog> {
        let name = JournalName::new(StoreRef::new("memory", "sample"), stream).unwrap();
        let log = MemoryJournal::new(name.clone());
        self.0.lock().unwrap().insert(name, log.clone());
        Box::new(log)
    }

    async fn again(&self, log: &dyn JournalLog) -> Box<dyn JournalLog> {
        Box::new(self.0.lock().unwrap()[log.name()].clone())
    }
}

#[tokio::test]
async fn memory_keeps_journals() {
    journal_suite(&Journals::default()).await;
}
