//! The suite for sources.

use std::collections::BTreeSet;

use super::{move_all, read_all};
use crate::content::Extent;
use crate::context::Context;
use crate::entry::{Entry, EntryKind};
use crate::error::ErrorKind;
use crate::memory::{Image, MemoryStore, collect};
use crate::path::EntryPath;
use crate::source::{Order, Source};
use crate::transfer::{TransferOptions, transfer};

/// How many entries are held open at once to see that contents are independent.
const HELD: usize = 32;

/// Runs every case on `source`, which must be at rest, with one entry or more.
///
/// # Panics
/// When the source breaks its contract.
pub async fn source_suite(source: &dyn Source) {
    live_source_suite(source, &|_| false).await;
}

/// As [`source_suite`], for a source that is never wholly at rest: entries for which `volatile`
/// answers true need not be the same from one read to the next. Every other rule holds for them,
/// too.
///
/// # Panics
/// When the source breaks its contract.
pub async fn live_source_suite(source: &dyn Source, volatile: Volatile<'_>) {
    entries_are_ordered_and_consistent(source).await;
    contents_are_independent(source, volatile).await;
    a_second_read_is_the_same(source, volatile).await;
    a_baseline_changes_nothing_but_the_cost(source, volatile).await;
    a_dropped_read_leaves_the_source_usable(source).await;
    cancellation_ends_it(source).await;
}

/// Whether an entry may differ from one read to the next.
pub type Volatile<'a> = &'a (dyn Fn(&EntryPath) -> bool + Sync);

fn settled(image: &Image, volatile: Volatile<'_>) -> Image {
    let kept = image.iter().filter(|(path, _)| !volatile(path));
    kept.map(|(path, entry)| (path.clone(), entry.clone())).collect()
}

async fn entries_are_ordered_and_consistent(source: &dyn Source) {
    let context = Context::silent();
    let mut reading = source.read(None, &context).await.expect("the source opens");
    let (mut last, mut seen) = (None, BTreeSet::new());
    while let Some(entry) = reading.next().await.expect("the source gives its entries") {
        if source.order() == Order::Sorted {
            assert!(last.as_ref() < Some(&entry.path), "{} comes out of order", entry.path);
        }
        assert!(seen.insert(entry.path.clone()), "{} comes twice", entry.path);
        last = Some(entry.path.clone());
        let (kind, size) = (entry.kind, entry.size);
        let path = entry.path.clone();
        let read = length(entry).await;
        assert_eq!(read, size, "{path} does not have the size that was announced");
        assert!(kind == EntryKind::File || read == 0, "{path} is no file and has content");
    }
    assert!(last.is_some(), "the suite needs a source with an entry");
    reading.finish().await.expect("the read ends consistently");
}

async fn length(mut entry: Entry) -> u64 {
    let mut length = 0;
    while let Some(extent) = entry.content.next().await.expect("content can be read") {
        let unchanged = matches!(extent, Extent::Unchanged(_));
        assert!(!unchanged, "{} says unchanged without a baseline", entry.path);
        assert!(!extent.is_empty(), "{} gives an empty extent", entry.path);
        length += extent.len();
    }
    length
}

async fn contents_are_independent(source: &dyn Source, volatile: Volatile<'_>) {
    let expected = read_all(source).await.expect("the source can be read").image();
    let context = Context::silent();
    let mut reading = source.read(None, &context).await.expect("the source opens");
    let mut held = Vec::new();
    while let Some(entry) = reading.next().await.expect("the source gives its entries") {
        // One that comes as the store sends it may be in the way of the next one.
        if source.order() == Order::AsTheyCome && !entry.content.is_ready() {
            continue;
        }
        held.push(entry);
        if held.len() == HELD {
            break;
        }
    }
    while let Some(entry) = held.pop() {
        let path = entry.path.clone();
        let (_, bytes) = collect(entry, None).await.expect("content can be read late");
        assert!(
            volatile(&path) || expected[&path].1 == bytes,
            "{path} reads differently when read late"
        );
    }
}

async fn a_second_read_is_the_same(source: &dyn Source, volatile: Volatile<'_>) {
    let first = read_all(source).await.expect("the source can be read");
    let second = read_all(source).await.expect("the source can be read again");
    assert!(
        settled(&first.image(), volatile) == settled(&second.image(), volatile),
        "two reads of a source at rest differ"
    );
}

async fn a_baseline_changes_nothing_but_the_cost(source: &dyn Source, volatile: Volatile<'_>) {
    let copy = MemoryStore::new("copy");
    move_all(source, &copy, 1).await.expect("the source can be read");
    let first = settled(&copy.image(), volatile);
    move_all(source, &copy, 8).await.expect("the source can be read with a baseline");
    let second = settled(&copy.image(), volatile);
    assert!(first.keys().eq(second.keys()), "a baseline changed which entries there are");
    for (path, (_, bytes)) in &first {
        assert!(second[path].1 == *bytes, "a baseline changed the content of {path}");
    }
}

async fn a_dropped_read_leaves_the_source_usable(source: &dyn Source) {
    let context = Context::silent();
    let mut reading = source.read(None, &context).await.expect("the source opens");
    let entry = reading.next().await.expect("the source gives its first entry");
    drop(reading);
    drop(entry);
    read_all(source).await.expect("the source can be read after a dropped read");
}

async fn cancellation_ends_it(source: &dyn Source) {
    let context = Context::silent();
    context.cancel();
    let sink = MemoryStore::new("never");
    let result = transfer(source, &sink, &TransferOptions::default(), &context).await;
    let kind = result.expect_err("a cancelled transfer must fail").kind();
    assert_eq!(kind, ErrorKind::Cancelled);
    assert_eq!(sink.commits(), 0, "a cancelled transfer was committed");
}
