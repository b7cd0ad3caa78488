//! What a transfer owes to a sink when it does not succeed.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Baseline, Completion, Content, Context, Entry, EntryPath, Error, ErrorKind, Extent,
    Header, Inspection, Lane, Reading, Receipt, Result, Sink, Source, StoreRef, TransferOptions,
    Writing, async_trait, transfer,
};

/// What happens in the first put while the second one is in the middle of something.
#[derive(Debug, Clone, Copy, PartialEq)]
enum First {
    Fails,
    Cancels,
    Panics,
}

#[derive(Clone)]
struct Stubborn {
    first: First,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    told: tokio::sync::Notify,
    busy: AtomicBool,
    gave_up: AtomicBool,
    interrupted: AtomicBool,
}

#[async_trait]
impl Sink for Stubborn {
    async fn write(&self, _: &Header, context: &Context) -> Result<Box<dyn Writing>> {
        Ok(Box::new(StubbornWriting { sink: self.clone(), context: context.clone() }))
    }
}

struct StubbornWriting {
    sink: Stubborn,
    context: Context,
}

#[async_trait]
impl Writing for StubbornWriting {
    async fn put(&self, ordinal: u64, _: Entry) -> Result<()> {
        let state = &self.sink.state;
        if ordinal == 0 {
            state.told.notified().await;
            match self.sink.first {
                First::Fails => return Err(Error::new(ErrorKind::Other, "no room")),
                First::Panics => panic!("the sink is broken"),
                First::Cancels => self.context.cancel(),
            }
            return Ok(());
        }
        // Between two awaits, as when a file is being made.
        state.busy.store(true, Ordering::SeqCst);
        // From outside: a task woken from here would wait for this thread.
        let first = Arc::clone(state);
        std::thread::spawn(move || first.told.notify_one());
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until && !state.gave_up.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        state.busy.store(false, Ordering::SeqCst);
        Ok(())
    }

    async fn commit(self: Arc<Self>, _: Completion) -> Result<Receipt> {
        Ok(Receipt::default())
    }

    async fn abort(self: Arc<Self>) {
        let state = &self.sink.state;
        state.interrupted.store(state.busy.load(Ordering::SeqCst), Ordering::SeqCst);
        state.gave_up.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_undone_while_a_put_is_still_at_work() {
    for first in [First::Fails, First::Cancels, First::Panics] {
        let store = MemoryStore::new("two");
        for name in ["a", "b"] {
            let path = EntryPath::new(name).unwrap();
            store.insert(Entry::file(path, Attributes::new(), name)).await.unwrap();
        }
        let sink = Stubborn { first, state: Arc::default() };
        let context = Context::silent();
        transfer(&store, &sink, &TransferOptions::default(), &context).await.unwrap_err();
        assert!(sink.state.gave_up.load(Ordering::SeqCst), "{first:?}: nobody gave up");
        let interrupted = sink.state.interrupted.load(Ordering::SeqCst);
        assert!(!interrupted, "{first:?}: a put was still at work when the rest was undone");
    }
}

/// Puts everything in one lane; the first put fails after a while.
#[derive(Clone, Default)]
struct OneLane(Arc<AtomicBool>);

#[async_trait]
impl Sink for OneLane {
    async fn write(&self, _: &Header, _: &Context) -> Result<Box<dyn Writing>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Writing for OneLane {
    fn lane(&self, _: &EntryPath) -> Option<Lane> {
        Some(Lane(0))
    }

    async fn put(&self, ordinal: u64, _: Entry) -> Result<()> {
        if ordinal > 0 {
            self.0.store(true, Ordering::SeqCst);
            return Err(Error::new(ErrorKind::Other, "the first one failed already"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(Error::new(ErrorKind::Other, "no room"))
    }

    async fn commit(self: Arc<Self>, _: Completion) -> Result<Receipt> {
        Ok(Receipt::default())
    }

    async fn abort(self: Arc<Self>) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_goes_on_in_a_lane_after_a_failure() {
    let store = MemoryStore::new("lane");
    for name in ["a", "b", "c", "d"] {
        let path = EntryPath::new(name).unwrap();
        store.insert(Entry::file(path, Attributes::new(), name)).await.unwrap();
    }
    for _ in 0..20 {
        let sink = OneLane::default();
        let (options, context) = (TransferOptions::default(), Context::silent());
        let failed = transfer(&store, &sink, &options, &context).await.unwrap_err();
        assert_eq!(failed.one_line(), "no room");
        assert!(!sink.0.load(Ordering::SeqCst), "a put went on where the one before it failed");
    }
}

/// A source that gives its last entry only when the one before it was put, and a sink that puts
/// the first entry only when the source was asked for the last.
#[derive(Clone)]
struct Hesitant {
    store: StoreRef,
    asked: Arc<tokio::sync::Notify>,
    put: Arc<tokio::sync::Notify>,
}

struct HesitantReading(Hesitant, u8);

#[async_trait]
impl Source for Hesitant {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    async fn inspect(&self) -> Result<Inspection> {
        Ok(Inspection::default())
    }

    async fn read(&self, _: Option<Arc<dyn Baseline>>, _: &Context) -> Result<Box<dyn Reading>> {
        Ok(Box::new(HesitantReading(self.clone(), 0)))
    }
}

#[async_trait]
impl Reading for HesitantReading {
    async fn next(&mut self) -> Result<Option<Entry>> {
        self.1 += 1;
        let name = match self.1 {
            1 => "a",
            2 => "b",
            3 => {
                self.0.asked.notify_one();
                self.0.put.notified().await;
                "c"
            }
            _ => return Ok(None),
        };
        Ok(Some(Entry::file(EntryPath::new(name)?, Attributes::new(), name)))
    }

    async fn finish(self: Box<Self>) -> Result<Completion> {
        Ok(Completion::at(lifeboat_core::Timestamp::now()))
    }
}

#[async_trait]
impl Sink for Hesitant {
    async fn write(&self, _: &Header, _: &Context) -> Result<Box<dyn Writing>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Writing for Hesitant {
    async fn put(&self, ordinal: u64, _: Entry) -> Result<()> {
        match ordinal {
            0 => self.asked.notified().await,
            1 => self.put.notify_one(),
            _ => {}
        }
        Ok(())
    }

    async fn commit(self: Arc<Self>, _: Completion) -> Result<Receipt> {
        Ok(Receipt::default())
    }

    async fn abort(self: Arc<Self>) {}
}

#[tokio::test]
async fn what_is_gathered_does_not_wait_for_what_is_to_come() {
    let both = Hesitant {
        store: StoreRef::new("test", "hesitant"),
        asked: Arc::default(),
        put: Arc::default(),
    };
    let mut options = TransferOptions::default();
    options.concurrency = 1;
    let context = Context::silent();
    let done = transfer(&both, &both, &options, &context);
    let done = tokio::time::timeout(Duration::from_secs(60), done).await;
    assert_eq!(done.expect("it waits for ever").unwrap().progress.entries, 3);
}

/// A source that finds its reading broken off as soon as its first content is dropped, and a sink
/// that has no room for it.
#[derive(Clone)]
struct Cramped {
    store: StoreRef,
    dropped: Arc<tokio::sync::Notify>,
}

struct CrampedReading(Cramped, u8);

struct TellDrop(Arc<tokio::sync::Notify>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl Source for Cramped {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    async fn inspect(&self) -> Result<Inspection> {
        Ok(Inspection::default())
    }

    async fn read(&self, _: Option<Arc<dyn Baseline>>, _: &Context) -> Result<Box<dyn Reading>> {
        Ok(Box::new(CrampedReading(self.clone(), 0)))
    }
}

#[async_trait]
impl Reading for CrampedReading {
    async fn next(&mut self) -> Result<Option<Entry>> {
        self.1 += 1;
        if self.1 > 1 {
            self.0.dropped.notified().await;
            return Err(Error::new(ErrorKind::Other, "the reading was broken off"));
        }
        let told = TellDrop(Arc::clone(&self.0.dropped));
        let content = Content::stream(futures_util::stream::unfold(told, |told| async {
            Some((Ok(Extent::Hole(1)), told))
        }));
        let entry = Entry::file(EntryPath::new("a")?, Attributes::new(), "");
        Ok(Some(entry.with_content(1 << 30, content)))
    }

    async fn finish(self: Box<Self>) -> Result<Completion> {
        Ok(Completion::at(lifeboat_core::Timestamp::now()))
    }
}

#[async_trait]
impl Sink for Cramped {
    async fn write(&self, _: &Header, _: &Context) -> Result<Box<dyn Writing>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Writing for Cramped {
    async fn put(&self, _: u64, entry: Entry) -> Result<()> {
        drop(entry);
        Err(Error::new(ErrorKind::Exhausted, "there is no room"))
    }

    async fn commit(self: Arc<Self>, _: Completion) -> Result<Receipt> {
        Ok(Receipt::default())
    }

    async fn abort(self: Arc<Self>) {}
}

#[tokio::test]
async fn the_put_that_failed_is_told_and_not_what_the_source_made_of_it() {
    let both = Cramped { store: StoreRef::new("test", "cramped"), dropped: Arc::default() };
    let context = Context::silent();
    let options = TransferOptions::default();
    let failed = transfer(&both, &both, &options, &context).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Exhausted, "{failed}");
}
