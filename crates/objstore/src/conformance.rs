//! What a repository needs of an object store, as a suite that every store must pass.
//!
//! It is made for tests, and for operators who want to know whether their gateway can hold a
//! repository; a breach is a panic that says which rule was broken.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

/// How many writers meet in a race.
const WRITERS: usize = 16;

/// Checks every rule. The store must be empty, and is empty afterwards.
///
/// # Panics
/// When the store breaks a rule, or does not answer.
pub async fn store_suite(store: &dyn ObjectStore) {
    assert_eq!(names(store, None).await, Vec::<String>::new(), "the suite needs an empty store");
    absence(store).await;
    content(store).await;
    ranges(store).await;
    overwriting(store).await;
    put_if_absent(store).await;
    race(store).await;
    listing(store).await;
    deleting(store).await;
    assert_eq!(names(store, None).await, Vec::<String>::new(), "what was deleted is listed");
}

/// Whether `store` keeps the promise of *put if absent*: of two puts to one name the second is
/// refused, and changes nothing. Some gateways ignore the condition and overwrite.
///
/// It writes, reads and deletes one object at `probe`, where nothing may be.
///
/// # Errors
/// When the store does not answer, or something is at `probe`.
pub async fn honours_put_if_absent(
    store: &dyn ObjectStore,
    probe: &Path,
) -> object_store::Result<bool> {
    put_new(store, probe, "first").await?;
    let second = put_new(store, probe, "second").await;
    let kept = store.get(probe).await?.bytes().await? == "first";
    store.delete(probe).await?;
    match second {
        Err(Error::AlreadyExists { .. }) => Ok(kept),
        Err(error) => Err(error),
        Ok(()) => Ok(false),
    }
}

async fn put_new(
    store: &dyn ObjectStore,
    path: &Path,
    content: impl Into<PutPayload>,
) -> object_store::Result<()> {
    let options = PutOptions::from(PutMode::Create);
    store.put_opts(path, content.into(), options).await.map(drop)
}

async fn absence(store: &dyn ObjectStore) {
    let path = Path::from("packs/00/absent");
    let not_found = |result: Result<(), Error>, what: &str| {
        let found = matches!(result, Err(Error::NotFound { .. }));
        assert!(found, "{what} of what is not there says {result:?}");
    };
    not_found(store.get(&path).await.map(drop), "get");
    not_found(store.head(&path).await.map(drop), "head");
    not_found(store.get_range(&path, 0..1).await.map(drop), "get_range");
    // A directory is not an object.
    put_new(store, &path.clone().join("beneath"), "x").await.expect("put beneath");
    not_found(store.head(&path).await.map(drop), "head of a prefix");
    store.delete(&path.join("beneath")).await.expect("delete beneath");
}

async fn content(store: &dyn ObjectStore) {
    let sizes = [0, 1, 4096, (5 << 20) + 17];
    for size in sizes {
        let path = Path::from(format!("content/{size}"));
        let bytes = pattern(size);
        store.put(&path, bytes.clone().into()).await.expect("put");
        let head = store.head(&path).await.expect("head");
        assert_eq!((head.size, &head.location), (size as u64, &path), "what head says");
        let got = store.get(&path).await.expect("get").bytes().await.expect("content");
        assert!(got == bytes, "{size} bytes come back as they were put");
        let delay = head
            .last_modified
            .signed_duration_since(store.head(&path).await.expect("head again").last_modified);
        assert!(delay.is_zero(), "the time of an object that nobody changes stands still");
        store.delete(&path).await.expect("delete");
    }
    // In several pieces, as packs are put.
    let path = Path::from("content/pieces");
    let pieces = [Bytes::from_static(b"one "), Bytes::from_static(b""), Bytes::from_static(b"two")];
    store.put(&path, pieces.into_iter().collect()).await.expect("put pieces");
    let got = store.get(&path).await.expect("get").bytes().await.expect("content");
    assert_eq!(got, "one two", "pieces are joined");
    store.delete(&path).await.expect("delete");
}

async fn ranges(store: &dyn ObjectStore) {
    let path = Path::from("ranges/object");
    let bytes = pattern(1 << 20);
    store.put(&path, bytes.clone().into()).await.expect("put");
    let size = bytes.len() as u64;
    let wanted: [Range<u64>; 4] = [0..1, 10..4096, size - 1..size, 0..size];
    for range in wanted.clone() {
        let got = store.get_range(&path, range.clone()).await.expect("get_range");
        assert!(got == bytes[to_usize(&range)], "range {range:?}");
    }
    let all = store.get_ranges(&path, &wanted).await.expect("get_ranges");
    for (range, got) in wanted.iter().zip(all) {
        assert!(got == bytes[to_usize(range)], "range {range:?} of several");
    }
    let tail = GetOptions { range: Some(GetRange::Suffix(16)), ..GetOptions::default() };
    let got = store.get_opts(&path, tail).await.expect("get the end").bytes().await;
    assert!(got.expect("the end") == bytes[bytes.len() - 16..], "the last bytes");
    let beyond = store.get_range(&path, size..size + 1).await;
    assert!(beyond.is_err(), "a range beyond the end is an error");
    store.delete(&path).await.expect("delete");
}

async fn overwriting(store: &dyn ObjectStore) {
    let path = Path::from("sessions/one");
    store.put(&path, "old, and longer".into()).await.expect("put");
    store.put(&path, "new".into()).await.expect("put again");
    let got = store.get(&path).await.expect("get").bytes().await.expect("content");
    assert_eq!(got, "new", "an ordinary put replaces");
    store.delete(&path).await.expect("delete");
}

async fn put_if_absent(store: &dyn ObjectStore) {
    let path = Path::from("snapshots/one");
    let kept = honours_put_if_absent(store, &path).await.expect("probe");
    assert!(kept, "a second put-if-absent is refused, and changes nothing");
    // The name is free again after a deletion.
    put_new(store, &path, "again").await.expect("put after delete");
    store.delete(&path).await.expect("delete");
}

async fn race(store: &dyn ObjectStore) {
    let path = Path::from("snapshots/race");
    let contents: Vec<Bytes> = (0..WRITERS).map(|n| pattern(100_000 + n)).collect();
    let puts = contents.iter().map(|content| put_new(store, &path, content.clone()));
    let mut winner = None;
    for (content, outcome) in contents.iter().zip(join_all(puts).await) {
        match outcome {
            Ok(()) => {
                assert!(winner.replace(content).is_none(), "two writers won the same name");
            }
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => panic!("put if absent in a race: {error}"),
        }
    }
    let winner = winner.expect("no writer won");
    let got = store.get(&path).await.expect("get").bytes().await.expect("content");
    assert!(got == winner, "the content is not that of the winner");
    store.delete(&path).await.expect("delete");
}

async fn listing(store: &dyn ObjectStore) {
    let all: BTreeSet<String> = (0..30)
        .map(|n| format!("list/{:02x}/{n:03}", n % 3))
        .chain(["list/00-after".to_owned(), "listing".to_owned()])
        .collect();
    stream::iter(&all)
        .map(|name| async move { store.put(&Path::from(name.as_str()), "12345".into()).await })
        .buffer_unordered(8)
        .try_collect::<Vec<_>>()
        .await
        .expect("put");
    let under = |prefix: &str| -> Vec<String> {
        all.iter().filter(|name| name.starts_with(prefix)).cloned().collect()
    };
    assert_eq!(names(store, None).await, under(""), "all names");
    assert_eq!(names(store, Some("list")).await, under("list/"), "a prefix is a directory");
    assert_eq!(names(store, Some("list/00")).await, under("list/00/"), "a deeper prefix");
    assert_eq!(names(store, Some("nothing")).await, Vec::<String>::new(), "a prefix of nothing");

    let offset = Path::from("list/01/004");
    let after: Vec<_> = store
        .list_with_offset(Some(&Path::from("list")), &offset)
        .map_ok(|meta| meta.location.to_string())
        .try_collect::<BTreeSet<_>>()
        .await
        .expect("list after a name")
        .into_iter()
        .collect();
    let expected: Vec<_> =
        under("list/").into_iter().filter(|name| name.as_str() > offset.as_ref()).collect();
    assert_eq!(after, expected, "the names after an offset");

    let level = store.list_with_delimiter(Some(&Path::from("list"))).await.expect("one level");
    let directories: BTreeSet<_> = level.common_prefixes.iter().map(ToString::to_string).collect();
    let expected = ["list/00", "list/01", "list/02"].map(str::to_owned);
    assert_eq!(directories, BTreeSet::from(expected), "the directories of one level");
    let objects: Vec<_> = level.objects.iter().map(|meta| meta.location.to_string()).collect();
    assert_eq!(objects, ["list/00-after"], "the objects of one level");
    assert!(level.objects.iter().all(|meta| meta.size == 5), "a listing gives sizes");

    let paths = all.into_iter().map(|name| Ok(Path::from(name)));
    let deleted: Vec<_> = store.delete_stream(stream::iter(paths).boxed()).collect().await;
    assert_eq!(deleted.len(), 32, "each deletion has an outcome");
    for outcome in deleted {
        outcome.expect("delete many");
    }
}

async fn deleting(store: &dyn ObjectStore) {
    let path = Path::from("trash/one");
    store.put(&path, "x".into()).await.expect("put");
    store.delete(&path).await.expect("delete");
    let gone = store.head(&path).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "deleted, it says {gone:?}");
    match store.delete(&path).await {
        // Cloud stores do not tell, directories do.
        Ok(()) | Err(Error::NotFound { .. }) => {}
        Err(error) => panic!("delete what is not there: {error}"),
    }
}

async fn names(store: &dyn ObjectStore, prefix: Option<&str>) -> Vec<String> {
    let prefix = prefix.map(Path::from);
    let list = store.list(prefix.as_ref()).map_ok(|meta| meta.location.to_string());
    let mut names: Vec<_> = list.try_collect().await.expect("list");
    names.sort();
    names
}

fn to_usize(range: &Range<u64>) -> Range<usize> {
    let small = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    small(range.start)..small(range.end)
}

/// Bytes that differ from place to place, and with the length.
fn pattern(length: usize) -> Bytes {
    let mut state = length as u64 | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}
