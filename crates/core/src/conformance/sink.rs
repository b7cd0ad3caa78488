//! The suite for sinks.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;

use super::{move_all, read_all};
use crate::attributes::names;
use crate::baseline::Baseline;
use crate::content::{Content, Extent};
use crate::context::Context;
use crate::entry::{Entry, EntryInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{Image, MemoryStore};
use crate::sink::{Header, Sink};
use crate::source::{Completion, Order, Reading, Source};
use crate::store::{Inspection, StoreRef};

/// What the suite needs to know of a sink.
#[async_trait]
pub trait SinkHarness: Send + Sync {
    /// Entries that this kind of sink can take: several, one of them a file of 200 KiB or more.
    async fn sample(&self) -> MemoryStore;

    /// A sink with a new and empty target.
    async fn sink(&self) -> Box<dyn Sink>;

    /// What is visible in the target of `sink` now, or `None` when nothing is.
    async fn read_back(&self, sink: &dyn Sink) -> Option<Box<dyn Source>>;

    /// Whether an entry came back as it was put. By default everything must be equal, except
    /// what a file system decides by itself: inode, device and change time.
    fn same(&self, put: &EntryInfo, got: &EntryInfo) -> bool {
        let own = [names::INODE, names::DEVICE, names::CHANGED];
        let kept = |info: &EntryInfo| {
            let rest = info.attributes.iter().filter(|(name, _)| !own.contains(name));
            rest.map(|(name, value)| (name.to_owned(), value.clone())).collect::<Vec<_>>()
        };
        put.path == got.path
            && put.kind == got.kind
            && put.size == got.size
            && kept(put) == kept(got)
    }
}

/// Runs every case on sinks from `harness`.
///
/// # Panics
/// When the sink breaks its contract.
pub async fn sink_suite(harness: &dyn SinkHarness) {
    everything_comes_back(harness).await;
    a_failed_source_leaves_nothing(harness).await;
    a_dropped_write_leaves_nothing(harness).await;
    a_second_write_on_a_baseline_is_whole(harness).await;
    entries_in_any_order_are_sorted_or_refused(harness).await;
    a_path_that_comes_twice_leaves_nothing(harness).await;
}

async fn everything_comes_back(harness: &dyn SinkHarness) {
    let sample = harness.sample().await;
    for concurrency in [1, 8] {
        let sink = harness.sink().await;
        move_all(&sample, sink.as_ref(), concurrency).await.expect("the sink takes the sample");
        compare(harness, sink.as_ref(), &sample.image()).await;
    }
}

async fn compare(harness: &dyn SinkHarness, sink: &dyn Sink, expected: &Image) {
    let source = harness.read_back(sink).await.expect("a committed write is visible");
    let got = read_all(source.as_ref()).await.expect("a committed write can be read").image();
    let names = |image: &Image| image.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(expected), names(&got), "the entries that came back are others");
    for (path, (info, bytes)) in expected {
        let (got_info, got_bytes) = &got[path];
        assert!(harness.same(info, got_info), "{path}: put {info:?}, got {got_info:?}");
        assert!(bytes == got_bytes, "{path} came back with other content");
    }
}

async fn a_failed_source_leaves_nothing(harness: &dyn SinkHarness) {
    let sample = harness.sample().await;
    let entries = sample.image().len();
    for broken_at in [0, entries / 2, entries - 1] {
        let sink = harness.sink().await;
        let source = Breaking { inner: sample.clone(), broken_at };
        let error = move_all(&source, sink.as_ref(), 4).await.expect_err("the source broke");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "the error of the source got lost");
        assert!(
            harness.read_back(sink.as_ref()).await.is_none(),
            "a write that failed at entry {broken_at} of {entries} is visible"
        );
    }
}

async fn a_dropped_write_leaves_nothing(harness: &dyn SinkHarness) {
    let sample = harness.sample().await;
    let sink = harness.sink().await;
    let context = Context::silent();
    let header = Header::new(sample.store().clone());
    let writing = sink.write(&header, &context).await.expect("the sink opens");
    let mut reading = sample.read(None, &context).await.expect("a memory store opens");
    if let Some(entry) = reading.next().await.expect("a memory store gives its entries") {
        writing.put(0, entry).await.expect("the sink takes an entry");
    }
    drop(writing);
    assert!(harness.read_back(sink.as_ref()).await.is_none(), "a dropped write is visible");
}

async fn a_second_write_on_a_baseline_is_whole(harness: &dyn SinkHarness) {
    let sample = harness.sample().await;
    let sink = harness.sink().await;
    let first = move_all(&sample, sink.as_ref(), 4).await.expect("the sink takes the sample");
    if sink.baseline(sample.store()).await.expect("a baseline can be asked for").is_none() {
        return;
    }
    let second = move_all(&sample, sink.as_ref(), 4).await.expect("the sink takes it again");
    assert_eq!(first.progress.entries, second.progress.entries);
    assert_eq!(second.progress.read, 0, "the baseline did not save reading");
    compare(harness, sink.as_ref(), &sample.image()).await;
}

async fn entries_in_any_order_are_sorted_or_refused(harness: &dyn SinkHarness) {
    let sample = harness.sample().await;
    let sink = harness.sink().await;
    let source = Backwards { inner: sample.clone(), twice: false };
    let moved = move_all(&source, sink.as_ref(), 4).await;
    if sink.takes(Order::AsTheyCome) {
        moved.expect("the sink takes entries in any order");
        compare(harness, sink.as_ref(), &sample.image()).await;
        return;
    }
    let error = moved.expect_err("the sink says that it does not take entries in any order");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(harness.read_back(sink.as_ref()).await.is_none(), "a refused write is visible");
}

async fn a_path_that_comes_twice_leaves_nothing(harness: &dyn SinkHarness) {
    let sink = harness.sink().await;
    let source = Backwards { inner: harness.sample().await, twice: true };
    move_all(&source, sink.as_ref(), 4).await.expect_err("an entry came twice");
    assert!(
        harness.read_back(sink.as_ref()).await.is_none(),
        "a write in which an entry came twice is visible"
    );
}

/// Gives the entries of a store from the last to the first.
struct Backwards {
    inner: MemoryStore,
    /// Whether the last one comes once more at the end.
    twice: bool,
}

#[async_trait]
impl Source for Backwards {
    fn store(&self) -> &StoreRef {
        self.inner.store()
    }

    async fn inspect(&self) -> Result<Inspection> {
        self.inner.inspect().await
    }

    fn order(&self) -> Order {
        Order::AsTheyCome
    }

    async fn read(&self, _: Option<Arc<dyn Baseline>>, _: &Context) -> Result<Box<dyn Reading>> {
        let image = self.inner.image();
        let mut entries: Vec<Entry> =
            image.values().map(|(info, bytes)| again(info, bytes)).collect();
        if self.twice
            && let Some((info, bytes)) = image.values().next_back()
        {
            entries.insert(0, again(info, bytes));
        }
        Ok(Box::new(BackwardsReading { entries }))
    }
}

fn again(info: &EntryInfo, bytes: &Bytes) -> Entry {
    let entry = Entry::new(info.path.clone(), info.kind, info.attributes.clone());
    entry.with_layout(info.layout).with_content(info.size, Content::bytes(bytes.clone()))
}

struct BackwardsReading {
    entries: Vec<Entry>,
}

#[async_trait]
impl Reading for BackwardsReading {
    async fn next(&mut self) -> Result<Option<Entry>> {
        Ok(self.entries.pop())
    }

    async fn finish(self: Box<Self>) -> Result<Completion> {
        Ok(Completion::at(Timestamp::now()))
    }
}

/// Gives the entries of a store, and breaks in the content of one of them.
struct Breaking {
    inner: MemoryStore,
    broken_at: usize,
}

#[async_trait]
impl Source for Breaking {
    fn store(&self) -> &StoreRef {
        self.inner.store()
    }

    async fn inspect(&self) -> Result<Inspection> {
        self.inner.inspect().await
    }

    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> Result<Box<dyn Reading>> {
        let inner = self.inner.read(since, context).await?;
        Ok(Box::new(BreakingReading { inner, left: self.broken_at }))
    }
}

struct BreakingReading {
    inner: Box<dyn Reading>,
    left: usize,
}

fn broken() -> Error {
    Error::new(ErrorKind::Unavailable, "the source broke, as the test wants")
}

#[async_trait]
impl Reading for BreakingReading {
    async fn next(&mut self) -> Result<Option<Entry>> {
        let Some(entry) = self.inner.next().await? else {
            return Ok(None);
        };
        if self.left > 0 {
            self.left -= 1;
            return Ok(Some(entry));
        }
        if entry.size == 0 {
            return Err(broken());
        }
        let first = Extent::Data(vec![7; 3].into());
        let content = Content::stream(stream::iter([Ok(first), Err(broken())]));
        Ok(Some(entry.with_content(4, content)))
    }

    async fn finish(self: Box<Self>) -> Result<Completion> {
        Err(broken())
    }
}
