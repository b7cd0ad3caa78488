//! Snapshots in another repository.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use futures_util::TryStreamExt;
use lifeboat_core::journal::{
    JournalLog, JournalName, Place, Position, SegmentInfo, Span, Timeline, TimelineInfo,
};
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Comparison, Completion, Content, Context, Entry, ErrorKind, Extent, Failure,
    Layout, SnapshotId, SnapshotInfo, StoreRef, TransferOptions, names, transfer,
};
use lifeboat_repository::{
    CheckOptions, CopyOptions, CopyReport, CopySelection, JournalOptions, PinOptions, Promise,
    Repository, Selection, Verification, WriteOptions,
};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::{
    assert_restores, back_up, noise, path, repository, secret, small, small_sample,
};
use crate::hooked::{Fate, Hooked, Request};

async fn hooked() -> (Arc<Hooked>, Repository) {
    let store = Hooked::new();
    let place: Arc<dyn ObjectStore> = store.clone();
    let repository = Repository::init(place, &secret(), &small()).await.unwrap();
    (store, repository)
}

async fn reopened(store: &Arc<Hooked>) -> Repository {
    let place: Arc<dyn ObjectStore> = store.clone();
    Repository::open(place, &secret()).await.unwrap()
}

async fn listed(store: &dyn ObjectStore, area: &str) -> Vec<Path> {
    let listed: Vec<_> = store.list(Some(&Path::from(area))).try_collect().await.unwrap();
    listed.into_iter().map(|meta| meta.location).collect()
}

/// The packs with data, by the ninth byte of their header.
async fn data_packs(store: &dyn ObjectStore) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in listed(store, "packs").await {
        if store.get_range(&name, 8..9).await.unwrap()[0] == 1 {
            found.insert(name.to_string());
        }
    }
    found
}

/// Counts the requests that read data from now on.
async fn count_data(store: &Arc<Hooked>) -> Arc<AtomicU64> {
    store.hook(|_, _| Fate::Done);
    let packs = data_packs(store.as_ref()).await;
    assert!(!packs.is_empty());
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    store.hook(move |request, name| {
        if request == Request::Get && packs.contains(name) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        Fate::Done
    });
    count
}

async fn copy(from: &Repository, to: &Repository) -> CopyReport {
    from.copy_to(to, &CopyOptions::default(), &Context::silent()).await.unwrap()
}

async fn image(store: &MemoryStore) -> MemoryStore {
    lifeboat_core::conformance::read_all(store).await.unwrap()
}

/// A file that changed now: the store takes one for unchanged when all but its content is.
fn changed(name: &str, bytes: Vec<u8>) -> Entry {
    static NOW: AtomicI64 = AtomicI64::new(0);
    let now = NOW.fetch_add(1, Ordering::Relaxed);
    Entry::file(path(name), Attributes::new().with(names::MODIFIED, now), bytes)
}

async fn file(store: &MemoryStore, name: &str, bytes: Vec<u8>) {
    store.insert(changed(name, bytes)).await.unwrap();
}

async fn only(repository: &Repository) -> SnapshotInfo {
    let list = repository.snapshots().await.unwrap();
    assert!(list.damaged.is_empty(), "{:?}", list.damaged);
    assert_eq!(list.snapshots.len(), 1);
    list.snapshots.into_iter().next().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_the_same_says_the_same_and_is_made_once() {
    let (_, from) = repository().await;
    let (_, to) = repository().await;
    let store = small_sample().await;
    let mut options = TransferOptions::default();
    options.tags = vec!["nightly".into()];
    let sink = from.sink(&WriteOptions::default());
    let context = Context::silent();
    context.warn("a/small", "it changed while it was read");
    let taken = transfer(&store, &sink, &options, &context).await.unwrap();
    let first = taken.receipt.snapshot.unwrap();
    let first_image = image(&store).await;
    file(&store, "a/small", b"other".to_vec()).await;
    let (second, _) = back_up(&store, &from).await;
    let other = MemoryStore::new("other");
    file(&other, "alone", noise(9, 100_000)).await;
    let (third, _) = back_up(&other, &from).await;

    let report = copy(&from, &to).await;
    let copied: Vec<_> = report.copied.iter().map(|copied| copied.original.id).collect();
    assert_eq!(copied, [first, second, third]);
    assert!(report.present.is_empty() && report.failed.is_empty());
    for (copied, right) in report.copied.iter().zip([&first_image, &store, &other]) {
        assert_restores(&to, copied.copy.id, right).await;
        let (a, b) = (&copied.original, &copied.copy);
        assert_eq!((&a.store, &a.host, &a.tags), (&b.store, &b.host, &b.tags));
        assert_eq!((a.started, a.taken, a.warnings), (b.started, b.taken, b.warnings));
        assert_eq!((a.entries, a.bytes, &a.position), (b.entries, b.bytes, &b.position));
        assert_eq!(a.facts, b.facts);
        let origin = b.origin.clone().unwrap();
        assert_eq!((origin.repository, origin.snapshot), (from.id().to_string(), a.id));
    }
    assert_eq!(report.copied[1].copy.parent, Some(report.copied[0].copy.id));
    assert_eq!(report.copied[2].copy.parent, None);

    let again = copy(&from, &to).await;
    assert!(again.copied.is_empty() && again.present.len() == 3);
    assert_eq!(to.snapshots().await.unwrap().snapshots.len(), 3);
    let sound = to.check(&CheckOptions::every_byte(), &Context::silent()).await.unwrap();
    assert!(sound.is_sound(), "{:?}", sound.damage);
    // The warnings of a snapshot are its own, not those of the ones before.
    let mine = from.snapshots().await.unwrap().snapshots;
    assert!(mine.iter().all(|info| info.warnings == 0), "{mine:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_originals_warnings_are_the_copys() {
    let (_, from) = repository().await;
    let (_, to) = repository().await;
    let (_, last) = repository().await;
    let sink = from.sink(&WriteOptions::default());
    let context = Context::silent();
    let store = lifeboat_core::StoreRef::new("memory", "x");
    let header = lifeboat_core::Header::new(store);
    let writing = lifeboat_core::Sink::write(&sink, &header, &context);
    let writing = writing.await.unwrap();
    context.warn("x", "it vanished");
    let completion = Completion::at("2026-01-01T00:00:00Z".parse().unwrap());
    Arc::<dyn lifeboat_core::Writing>::from(writing).commit(completion).await.unwrap();
    copy(&from, &to).await;
    copy(&to, &last).await;
    assert_eq!(only(&to).await.warnings, 1);
    assert_eq!(only(&last).await.warnings, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_snapshot_is_copied_without_reading_content() {
    let (place, from) = hooked().await;
    let (_, to) = repository().await;
    let store = small_sample().await;
    back_up(&store, &from).await;
    let first = copy(&from, &to).await;
    assert_eq!(first.copied[0].read, first.copied[0].original.bytes);
    back_up(&store, &from).await;

    let from = reopened(&place).await;
    let count = count_data(&place).await;
    let plan = from.plan_copy(&to, &CopyOptions::default()).await.unwrap();
    assert_eq!(plan.estimate(&Context::silent()).await.unwrap(), [0]);
    let second = copy(&from, &to).await;
    let copied = &second.copied[0];
    assert_eq!(count.load(Ordering::Relaxed), 0, "content was read");
    assert_eq!((copied.read, copied.new), (0, 0));
    assert_eq!(copied.unchanged, copied.original.bytes);
    assert_restores(&to, copied.copy.id, &store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_reads_what_changed() {
    const PAGE: usize = 8192;
    let (place, from) = hooked().await;
    let (_, to) = repository().await;
    let store = MemoryStore::new("one");
    let (mut pages, stream) = (noise(1, 1000 * PAGE), noise(2, 4_000_000));
    for number in 0..100 {
        file(&store, &format!("many/{number}"), noise(number + 10, 20_000)).await;
    }
    let insert = async |pages: &[u8], stream: &[u8]| {
        let entry = changed("pages", pages.to_vec());
        store.insert(entry.with_layout(Layout::Pages(PAGE as u32))).await.unwrap();
        file(&store, "stream", stream.to_vec()).await;
    };
    insert(&pages, &stream).await;
    back_up(&store, &from).await;
    copy(&from, &to).await;

    // One page in a hundred, one file in a hundred, and one chunk of the stream in its middle.
    for (number, page) in pages.chunks_mut(PAGE).step_by(100).enumerate() {
        page.copy_from_slice(&noise(7000 + number as u64, PAGE));
    }
    let mut stream = stream;
    stream[2_000_000..2_000_100].copy_from_slice(&noise(3, 100));
    stream.extend_from_slice(&noise(4, 1000));
    insert(&pages, &stream).await;
    file(&store, "many/7", noise(99, 20_000)).await;
    back_up(&store, &from).await;

    let from = reopened(&place).await;
    let plan = from.plan_copy(&to, &CopyOptions::default()).await.unwrap();
    let estimate = plan.estimate(&Context::silent()).await.unwrap()[0];
    let count = count_data(&place).await;
    let report = copy(&from, &to).await;
    let copied = &report.copied[0];
    // What was changed, and what shares chunks with it: 64 KiB at most for each place.
    let most = 10 * PAGE as u64 + 20_000 + 4 * (64 << 10);
    assert!(copied.read <= most, "{} of {} bytes were read", copied.read, copied.original.bytes);
    assert!(copied.read * 40 < copied.original.bytes);
    assert_eq!((estimate, copied.read + copied.unchanged), (copied.read, copied.original.bytes));
    let requests = count.load(Ordering::Relaxed);
    assert!(requests <= 40, "{requests} requests for content");
    // Changed pages go together, as a backup would have grouped them.
    assert!(copied.copy.stored < 3 * most, "{} bytes were stored", copied.copy.stored);
    assert_restores(&to, copied.copy.id, &store).await;

    // Compared with nothing, all of it is read, and little stored: what was patched is cut anew.
    let (_, third) = repository().await;
    copy(&from, &third).await;
    let mut options = CopyOptions::default();
    options.comparison = Comparison::Nothing;
    back_up(&store, &from).await;
    let full = from.copy_to(&third, &options, &Context::silent()).await.unwrap();
    assert_eq!(full.copied[0].read, full.copied[0].original.bytes);
    assert!(full.copied[0].copy.stored < 1_000_000, "{}", full.copied[0].copy.stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_destination_lost_is_read_again() {
    let (_, from) = repository().await;
    let (place, to) = hooked().await;
    let store = small_sample().await;
    file(&store, "larger", noise(8, 6_000_000)).await;
    back_up(&store, &from).await;
    let first = copy(&from, &to).await.copied[0].copy.id;
    file(&store, "a/small", b"other".to_vec()).await;
    back_up(&store, &from).await;
    // Index objects are lost, all that can be without losing what tells of the tree.
    let is_listed = async || -> Option<()> {
        let snapshot = reopened(&place).await.snapshot(&first).await.ok()?;
        let mut listing = snapshot.list(None);
        while listing.next().await.ok()?.is_some() {}
        Some(())
    };
    let mut lost = 0;
    for name in listed(place.as_ref(), "index").await {
        let bytes = place.get(&name).await.unwrap().bytes().await.unwrap();
        place.delete(&name).await.unwrap();
        match is_listed().await {
            Some(()) => lost += 1,
            None => drop(place.put(&name, bytes.into()).await.unwrap()),
        }
    }
    assert!(lost > 0);
    let to = reopened(&place).await;
    let damaged = to.check(&CheckOptions::default(), &Context::silent()).await.unwrap();
    assert!(!damaged.is_sound());
    let report = copy(&from, &to).await;
    let copied = &report.copied[0];
    assert_restores(&to, copied.copy.id, &store).await;
    // It is whole, whatever the one before it lost.
    assert!(copied.read > 3_000_000, "{copied:?}");
    assert!(copied.read + copied.unchanged >= copied.original.bytes);
    let healed = to.check(&CheckOptions::every_byte(), &Context::silent()).await.unwrap();
    let hurt = healed.damage.iter().any(|damage| damage.snapshots.contains(&copied.copy.id));
    assert!(!hurt, "{:?}", healed.damage);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_copies_are_known_as_what_they_are() {
    let (_, a) = repository().await;
    let (_, b) = repository().await;
    let (_, c) = repository().await;
    let store = small_sample().await;
    back_up(&store, &a).await;
    copy(&a, &b).await;
    let report = copy(&b, &c).await;
    assert_eq!(report.copied[0].copy.origin.as_ref().unwrap().repository, a.id().to_string());
    assert_eq!(copy(&a, &c).await.present.len(), 1);
    assert_eq!(copy(&c, &a).await.present.len(), 1);
    // Only the difference goes on, whichever way it comes.
    file(&store, "new", noise(5, 50_000)).await;
    back_up(&store, &a).await;
    let report = copy(&a, &c).await;
    assert_eq!(report.copied[0].read, 50_000);
    assert_eq!(copy(&c, &b).await.copied[0].read, 50_000);
    let same = a.copy_to(&a.clone(), &CopyOptions::default(), &Context::silent()).await;
    assert_eq!(same.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_snapshots_are_chosen() {
    let (_, from) = repository().await;
    let (_, to) = repository().await;
    let one = MemoryStore::new("one");
    let mut ids = Vec::new();
    for number in 0..4 {
        file(&one, "file", noise(number, 10_000)).await;
        ids.push(back_up(&one, &from).await.0);
    }
    let other = MemoryStore::new("other");
    file(&other, "file", noise(9, 10_000)).await;
    back_up(&other, &from).await;
    let list = from.snapshots().await.unwrap().snapshots;
    let mut options = CopyOptions::default();
    options.selection = CopySelection::Since(list[2].taken);
    options.store = Some(list[0].store.clone());
    let missing = async |options: &CopyOptions| -> Vec<SnapshotId> {
        let plan = from.plan_copy(&to, options).await.unwrap();
        plan.missing().iter().map(|info| info.id).collect()
    };
    assert_eq!(missing(&options).await, ids[2..]);
    options.selection = CopySelection::Snapshots(vec![ids[3], ids[1]]);
    assert_eq!(missing(&options).await, [ids[1], ids[3]]);
    from.copy_to(&to, &options, &Context::silent()).await.unwrap();
    assert!(missing(&options).await.is_empty());
    // What comes before all that was copied is compared as well.
    options.selection = CopySelection::All;
    assert_eq!(missing(&options).await, [ids[0], ids[2]]);
    options.selection = CopySelection::Snapshots(vec![SnapshotId::from_bytes([7; 32])]);
    let none = from.plan_copy(&to, &options).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_does_not_keep_the_others() {
    let (place, from) = hooked().await;
    let (_, to) = repository().await;
    let one = MemoryStore::new("one");
    file(&one, "file", noise(1, 100_000)).await;
    let (first, _) = back_up(&one, &from).await;
    let broken = data_packs(place.as_ref()).await;
    let other = MemoryStore::new("other");
    file(&other, "file", noise(2, 100_000)).await;
    back_up(&other, &from).await;
    for name in broken {
        place.delete(&Path::from(name.as_str())).await.unwrap();
    }
    let report = copy(&from, &to).await;
    assert_eq!(report.failed.iter().map(|(info, _)| info.id).collect::<Vec<_>>(), [first]);
    assert_eq!(report.copied.len(), 1);
    assert_restores(&to, only(&to).await.id, &other).await;
    // Nothing that could be taken for a copy is left, and the next run tries again.
    assert_eq!(copy(&from, &to).await.failed.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_stopped_goes_on() {
    let (_, from) = repository().await;
    let (place, to) = hooked().await;
    let store = MemoryStore::new("one");
    file(&store, "file", noise(1, 12_000_000)).await;
    back_up(&store, &from).await;
    let puts = AtomicU64::new(0);
    place.hook(move |request, name| match request {
        Request::Put if name.starts_with("packs/") => {
            let many = puts.fetch_add(1, Ordering::Relaxed) >= 8;
            if many { Fate::Fails } else { Fate::Done }
        }
        _ => Fate::Done,
    });
    from.copy_to(&to, &CopyOptions::default(), &Context::silent()).await.unwrap_err();
    place.hook(|_, _| Fate::Done);
    let to = reopened(&place).await;
    assert!(to.snapshots().await.unwrap().snapshots.is_empty());
    let mut options = CopyOptions::default();
    options.verification = Verification::EveryByte;
    let report = from.copy_to(&to, &options, &Context::silent()).await.unwrap();
    // Eight packs of 1 MiB were there, and the index named four of them at least.
    assert!(report.copied[0].new < 9_000_000, "{} bytes again", report.copied[0].new);
    assert_restores(&to, report.copied[0].copy.id, &store).await;
}

/// Random histories: what is changed, taken, copied and lost, and each copy is what was taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories_are_copied_as_they_were() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    let given = std::env::var("LIFEBOAT_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in given.map_or(0..12, |seed: u64| seed..seed + 1) {
        println!("seed: LIFEBOAT_SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let (from_place, from) = repository().await;
        let (to_place, to) = repository().await;
        let store = MemoryStore::new("one");
        let mut taken: Vec<(SnapshotId, MemoryStore)> = Vec::new();
        for step in 0..14 {
            for _ in 0..rng.random_range(1..4) {
                let name =
                    path(&format!("d{}/f{}", rng.random_range(0..3), rng.random_range(0..6)));
                let mut bytes =
                    store.content(&name).map(|bytes| bytes.to_vec()).unwrap_or_default();
                let with = noise(rng.random(), rng.random_range(1..40_000));
                match rng.random_range(0..5) {
                    0 => bytes = with,
                    1 => bytes.extend(with),
                    2 => bytes.truncate(rng.random_range(0..=bytes.len())),
                    3 => drop(bytes.splice(0..0, with)),
                    _ => {
                        let at = rng.random_range(0..=bytes.len());
                        let end = (at + with.len()).min(bytes.len());
                        bytes[at..end].copy_from_slice(&with[..end - at]);
                    }
                }
                if rng.random_bool(0.1) {
                    store.remove(&name);
                    continue;
                }
                let layout =
                    if name.as_bytes()[1] == b'0' { Layout::Pages(4096) } else { Layout::Stream };
                let entry = changed(&name.to_string(), bytes).with_layout(layout);
                store.insert(entry).await.unwrap();
            }
            taken.push((back_up(&store, &from).await.0, image(&store).await));
            if rng.random_bool(0.2) {
                // One is forgotten here, or a copy there.
                let forget = async |place: &Arc<dyn ObjectStore>, rng: &mut StdRng| {
                    let all = listed(place.as_ref(), "snapshots").await;
                    if all.len() > 1 {
                        let one = &all[rng.random_range(0..all.len())];
                        place.delete(one).await.unwrap();
                    }
                };
                forget(if rng.random_bool(0.5) { &from_place } else { &to_place }, &mut rng).await;
            }
            if rng.random_bool(0.6) || step == 13 {
                let mut options = CopyOptions::default();
                options.verification = Verification::EveryByte;
                let report = from.copy_to(&to, &options, &Context::silent()).await.unwrap();
                assert!(report.failed.is_empty(), "{:?}", report.failed);
                for info in to.snapshots().await.unwrap().snapshots {
                    let origin = info.origin.clone().unwrap().snapshot;
                    let right = taken.iter().find(|(id, _)| *id == origin).unwrap();
                    assert_restores(&to, info.id, &right.1).await;
                }
            }
        }
        let sound = to.check(&CheckOptions::every_byte(), &Context::silent()).await.unwrap();
        assert!(sound.is_sound(), "{:?}", sound.damage);
        let _ = Selection::all();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pins_and_journals_come_along_once_and_only_where_they_can_be_kept() {
    let (_, from) = repository().await;
    let (id, _) = back_up(&small_sample().await, &from).await;
    let pin = from.pin(&id, &PinOptions::new("legal hold")).await.unwrap();
    let name = JournalName::new(StoreRef::new("postgres", "main"), "wal").unwrap();
    let line = Timeline::new("1").unwrap();
    let span = |at| Span::new(Position(at), Position(at + 1)).unwrap();
    let log = from.journal(&name, &JournalOptions::default());
    log.begin(&TimelineInfo::first(line.clone())).await.unwrap();
    let append = async |at: u64, text: &'static str| {
        let info = SegmentInfo::default();
        log.append(&line, span(at), &info, Content::bytes(text)).await.unwrap();
    };
    append(0, "a").await;
    append(1, "b").await;

    let (_, to) = hooked().await;
    let copy = async |to: &Repository| {
        from.copy_to(to, &CopyOptions::default(), &Context::silent()).await.unwrap()
    };
    let report = copy(&to).await;
    assert_eq!((report.copied.len(), report.segments, report.failed_segments.len()), (1, 2, 0));
    let held = &report.pins[0];
    assert_eq!((&held.reason, held.made, &held.by), (&pin.reason, pin.made, &pin.by));
    assert_eq!(held.snapshot, report.copied[0].copy.id);
    let there = to.journal(&name, &JournalOptions::default());
    let place = Place::sealed(&line, span(1));
    let mut content = there.read(&place).await.unwrap().unwrap();
    assert!(matches!(content.next().await.unwrap(), Some(Extent::Data(data)) if data == "b"));

    let report = copy(&to).await;
    assert_eq!((report.copied.len(), report.segments, report.pins.len()), (0, 0, 0));
    // What the destination has in the same place stays as it is.
    let info = SegmentInfo::default();
    there.append(&line, span(2), &info, Content::bytes("other")).await.unwrap();
    append(2, "c").await;
    append(3, "d").await;
    assert_eq!(copy(&to).await.segments, 1);
    let place = Place::sealed(&line, span(2));
    let mut content = there.read(&place).await.unwrap().unwrap();
    assert!(matches!(content.next().await.unwrap(), Some(Extent::Data(data)) if data == "other"));

    // A store that cannot keep journals gets the snapshots all the same.
    let weak = Hooked::new();
    weak.be_heedless();
    let place: Arc<dyn ObjectStore> = weak.clone();
    let mut options = small();
    options.promise = Promise::Weaker;
    let weak = Repository::init(place, &secret(), &options).await.unwrap();
    let report = copy(&weak).await;
    assert_eq!((report.copied.len(), report.pins.len(), report.segments), (1, 1, 0));
    assert_eq!(report.failed_segments[0].1.kind(), ErrorKind::Unsupported);
}
