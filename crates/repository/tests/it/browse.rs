//! Looking into snapshots: what is found, and what it costs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Comparison, Context, Entry, EntryKind, EntryPath, Extent, Layout, SnapshotId,
    Source, Timestamp, TransferOptions, names, transfer,
};
use lifeboat_repository::{
    ChangeKind, DiffOptions, Error, Found, Query, Repository, SnapshotFile, WriteOptions,
};
use object_store::ObjectStore;
use proptest::prelude::*;

use crate::common::{self, noise, path, repository, sample, secret, small};
use crate::hooked::{Fate, Hooked, Request};
use crate::scripted::Scripted;

/// A store that counts how often a pack was read.
struct Counted {
    store: Arc<Hooked>,
    reads: Arc<AtomicUsize>,
}

impl Counted {
    async fn new() -> (Self, Repository) {
        let store = Hooked::new();
        let reads = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&reads);
        store.hook(move |request, name| {
            if request == Request::Get && name.starts_with("packs/") {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Fate::Done
        });
        let place: Arc<dyn ObjectStore> = store.clone();
        let repository = Repository::init(place, &secret(), &small()).await.unwrap();
        (Self { store, reads }, repository)
    }

    /// The repository, opened by somebody who has read nothing of it yet.
    async fn afresh(&self) -> Repository {
        let place: Arc<dyn ObjectStore> = self.store.clone();
        let repository = Repository::open(place, &secret()).await.unwrap();
        self.reads.store(0, Ordering::Relaxed);
        repository
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

/// Reads everything: the store in memory believes attributes, and these tests change content alone.
async fn back_up(source: &dyn Source, repository: &Repository) -> SnapshotId {
    let mut options = TransferOptions::default();
    options.comparison = Comparison::Nothing;
    let sink = repository.sink(&WriteOptions::default());
    let summary = transfer(source, &sink, &options, &Context::silent()).await.unwrap();
    summary.receipt.snapshot.unwrap()
}

async fn insert(store: &MemoryStore, name: &str, mode: u32, content: &[u8]) {
    let attributes = Attributes::new().with(names::MODE, mode);
    store.insert(Entry::file(path(name), attributes, content.to_vec())).await.unwrap();
}

async fn many(files: u64) -> MemoryStore {
    let store = MemoryStore::new("many");
    for number in 0..files {
        let name = format!("folder-{:03}/file-{number:05}", number % 100);
        insert(&store, &name, 0o644, &number.to_le_bytes()).await;
    }
    store
}

/// Each change as one line.
async fn diff(repository: &Repository, one: SnapshotId, two: SnapshotId) -> Vec<String> {
    diff_beneath(repository, one, two, None).await
}

async fn diff_beneath(
    repository: &Repository,
    one: SnapshotId,
    two: SnapshotId,
    beneath: Option<&str>,
) -> Vec<String> {
    let mut options = DiffOptions::default();
    options.beneath = beneath.map(path);
    let mut diff = repository.diff(&one, &two, &options).await.unwrap();
    let mut lines = Vec::new();
    while let Some(change) = diff.next().await.unwrap() {
        let (kind, attributes) = (change.kind.as_str(), change.attributes().join(","));
        let path = &change.entry().unwrap().path;
        lines.push(format!("{kind} {path} {attributes}").trim_end().to_owned());
    }
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diff_costs_what_differs() {
    let (counted, repository) = Counted::new().await;
    let store = many(50_000).await;
    let first = back_up(&store, &repository).await;
    insert(&store, "folder-010/file-00010", 0o600, &10_u64.to_le_bytes()).await;
    insert(&store, "folder-050/file-00050", 0o644, b"others").await;
    assert!(store.remove(&path("folder-090/file-00090")));
    let second = back_up(&store, &repository).await;

    let repository = counted.afresh().await;
    let found = diff(&repository, first, second).await;
    let expected = [
        "attributes folder-010/file-00010 mode",
        "content folder-050/file-00050",
        "removed folder-090/file-00090",
    ];
    assert_eq!(found, expected);
    // Of each tree the three leaves and the pages above them, and perhaps one beside where a name
    // at which a page ended is gone. There are 400 in all.
    assert!(counted.reads() <= 20, "{} reads", counted.reads());

    let repository = counted.afresh().await;
    assert!(diff(&repository, second, second).await.is_empty());
    assert!(counted.reads() <= 1, "{} reads", counted.reads());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_of_different_heights_share_their_pages() {
    let (counted, repository) = Counted::new().await;
    // One directory of many: a tree of few pages, or even of one, within a tree of many.
    let (large, some) = (many(30_000).await, MemoryStore::new("many"));
    for (name, (info, content)) in large.image().iter() {
        if name.as_bytes().starts_with(b"folder-00") {
            let entry = Entry::file(name.clone(), info.attributes.clone(), content.clone());
            some.insert(entry).await.unwrap();
        }
    }
    let all = back_up(&large, &repository).await;
    let few = back_up(&some, &repository).await;
    let repository = counted.afresh().await;
    let removed = diff(&repository, all, few).await;
    let reads = counted.reads();
    assert_eq!(removed.len(), 27_000);
    assert!(removed.iter().all(|line| line.starts_with("removed folder-0")));
    assert!(removed.is_sorted());
    let repository = counted.afresh().await;
    let added = diff(&repository, few, all).await;
    assert_eq!(added.len(), 27_000);
    // Whatever both have is passed over: no page is read twice, and few are read of the small one.
    let repository = counted.afresh().await;
    let everything = search(&repository, &[all], &Query::default()).await;
    assert_eq!(everything.len(), 30_000);
    let pages = counted.reads();
    assert!(reads < pages, "{reads} reads to compare, {pages} to read all");
}

/// What the model holds of an entry: a directory, or the mode and the content of a file.
type Model = BTreeMap<EntryPath, Option<(u32, u8)>>;

fn model() -> impl Strategy<Value = Model> {
    let value = prop_oneof![
        1 => Just(None),
        6 => (0_u32..2, 0_u8..3).prop_map(Some),
    ];
    let entry = (0_u16..900, value);
    proptest::collection::vec(entry, 0..900).prop_map(|entries| {
        let name = |number: u16| path(&format!("d{}/f{number}", number % 7));
        entries.into_iter().map(|(number, value)| (name(number), value)).collect()
    })
}

async fn store_of(model: &Model) -> MemoryStore {
    let store = MemoryStore::new("model");
    for (name, value) in model {
        let entry = match value {
            None => Entry::directory(name.clone()),
            Some((mode, content)) => {
                let attributes = Attributes::new().with(names::MODE, *mode);
                Entry::file(name.clone(), attributes, vec![*content; 3])
            }
        };
        store.insert(entry).await.unwrap();
    }
    store
}

fn expected(before: &Model, after: &Model) -> Vec<String> {
    let paths: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let line = |name: &EntryPath| match (before.get(name), after.get(name)) {
        (None, _) => Some(format!("added {name}")),
        (_, None) => Some(format!("removed {name}")),
        (Some(one), Some(two)) if one == two => None,
        (Some(Some((m, c))), Some(Some((n, d)))) => {
            let attributes = if m == n { "" } else { " mode" };
            let kind = if c == d { "attributes" } else { "content" };
            Some(format!("{kind} {name}{attributes}"))
        }
        (Some(one), Some(two)) => {
            assert!(one.is_none() != two.is_none());
            Some(format!("replaced {name} mode"))
        }
    };
    paths.into_iter().filter_map(line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_diff_is_what_a_model_says(before in model(), after in model()) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let (_, repository) = repository().await;
            let first = back_up(&store_of(&before).await, &repository).await;
            let second = back_up(&store_of(&after).await, &repository).await;
            let told = diff(&repository, first, second).await;
            assert_eq!(told, expected(&before, &after));
            let part = diff_beneath(&repository, first, second, Some("d3")).await;
            let lies_there = |line: &String| line.contains(" d3/");
            let expected: Vec<_> = expected(&before, &after).into_iter().filter(lies_there).collect();
            assert_eq!(part, expected);
            // Every entry is found once, with the snapshots that have it.
            let found = search(&repository, &[first, second], &Query::default()).await;
            for (id, model) in [(first, &before), (second, &after)] {
                let has = found.iter().filter(|it| it.snapshots.contains(&id));
                assert!(has.map(|it| &it.entry.path).eq(model.keys()));
            }
            let same = before.iter().filter(|(name, value)| after.get(*name) == Some(value));
            let shared = found.iter().filter(|it| it.snapshots.len() == 2);
            assert!(shared.map(|it| &it.entry.path).eq(same.map(|(name, _)| name)));
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_is_the_same_however_it_is_stored() {
    const PAGE: usize = 4096;
    let (_, repository) = repository().await;
    let layout = Layout::Pages(PAGE as u32);
    let pages =
        |seeds: &[u64]| -> Vec<u8> { seeds.iter().flat_map(|seed| noise(*seed, PAGE)).collect() };
    let data = |bytes: &[u8]| Extent::Data(bytes.to_vec().into());
    let first: Vec<u64> = (1..=300).collect();
    let mut second = first.clone();
    second[77] = 7000;
    let (first, second) = (pages(&first), pages(&second));
    let zeros = [noise(5, 200_000), vec![0; 100_000], noise(6, 200_000)].concat();
    let holed = [data(&zeros[..200_000]), Extent::Hole(100_000), data(&zeros[300_000..])];
    let cut = [data(&zeros[..100_000]), data(&zeros[100_000..])];
    let source = |content: &[u8], stream: Vec<Extent>| {
        Scripted::new("one").file("pages", layout, vec![data(content)]).file(
            "stream",
            Layout::Stream,
            stream,
        )
    };
    let mut ids = Vec::new();
    for (content, stream) in
        [(&first, vec![data(&zeros)]), (&second, holed.to_vec()), (&first, cut.to_vec())]
    {
        ids.push(common::back_up(&source(content, stream), &repository).await.0);
    }
    assert_eq!(diff(&repository, ids[0], ids[1]).await, ["content pages"]);
    assert!(diff(&repository, ids[0], ids[2]).await.is_empty());
    assert_eq!(diff(&repository, ids[1], ids[2]).await, ["content pages"]);
}

async fn search(repository: &Repository, snapshots: &[SnapshotId], query: &Query) -> Vec<Found> {
    let mut search = repository.search(snapshots, query).await.unwrap();
    let mut all = Vec::new();
    while let Some(found) = search.next().await.unwrap() {
        all.push(found);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_snapshots_share_is_searched_once() {
    let (counted, repository) = Counted::new().await;
    let store = many(20_000).await;
    let mut ids = vec![back_up(&store, &repository).await];
    let alone = {
        let repository = counted.afresh().await;
        assert_eq!(search(&repository, &ids, &Query::default()).await.len(), 20_000);
        counted.reads()
    };
    for round in 0..9 {
        insert(&store, "folder-033/file-00033", 0o644, &[round]).await;
        ids.push(back_up(&store, &repository).await);
    }
    let mut query = Query::default();
    query.patterns = vec!["file-0003?".parse().unwrap()];
    let repository = counted.afresh().await;
    let found = search(&repository, &ids, &query).await;
    assert_eq!(found.len(), 9 + 10);
    for found in &found {
        let changes = found.entry.path == path("folder-033/file-00033");
        assert_eq!(found.snapshots.len(), if changes { 1 } else { 10 }, "{found:?}");
    }
    let versions: Vec<_> =
        found.iter().filter(|it| it.snapshots.len() == 1).map(|it| it.snapshots[0]).collect();
    assert_eq!(versions, ids);
    assert!(counted.reads() <= alone + 9 * 3, "{} reads, {alone} alone", counted.reads());

    // What lies elsewhere, or has too few bytes beneath, is not read.
    query.beneath = Some(path("folder-033"));
    let repository = counted.afresh().await;
    assert_eq!(search(&repository, &ids[..1], &query).await.len(), 1);
    assert!(counted.reads() <= 6, "{} reads", counted.reads());
    query.beneath = None;
    query.min_size = Some(1 << 20);
    let repository = counted.afresh().await;
    assert!(search(&repository, &ids[..1], &query).await.is_empty());
    assert!(counted.reads() <= 1, "{} reads", counted.reads());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_snapshots_than_are_searched_at_once_are_all_searched() {
    let (_, repository) = repository().await;
    let store = MemoryStore::new("many");
    insert(&store, "always", 0o644, b"x").await;
    let mut ids = Vec::new();
    for round in 0..70_u8 {
        insert(&store, "changes", 0o644, &[round]).await;
        ids.push(back_up(&store, &repository).await);
    }
    let found = search(&repository, &ids, &Query::default()).await;
    let always = found.iter().filter(|it| it.entry.path == path("always"));
    let snapshots: Vec<_> = always.flat_map(|it| it.snapshots.clone()).collect();
    assert_eq!(snapshots, ids);
    assert_eq!(found.iter().filter(|it| it.entry.path == path("changes")).count(), 70);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_finds_what_all_conditions_meet() {
    let (_, repository) = repository().await;
    let store = sample().await;
    let time = |second: i64| Timestamp::from_second(second).unwrap();
    for (name, second) in [("times/early", 100_i64), ("times/late", 200)] {
        let attributes = Attributes::new().with(names::MODIFIED, second * 1_000_000_000);
        store.insert(Entry::file(path(name), attributes, "x")).await.unwrap();
    }
    let id = back_up(&store, &repository).await;
    let names = async |build: &dyn Fn(&mut Query)| -> Vec<String> {
        let mut query = Query::default();
        build(&mut query);
        let found = search(&repository, &[id], &query).await;
        found.iter().map(|found| found.entry.path.to_string()).collect()
    };
    assert_eq!(names(&|it| it.kinds = vec![EntryKind::Directory]).await, ["a"]);
    assert_eq!(names(&|it| it.kinds = vec![EntryKind::Symlink]).await, ["z-link"]);
    assert_eq!(names(&|it| it.min_size = Some(1_000_000)).await, ["large", "pages"]);
    let none = names(&|it| (it.min_size, it.max_size) = (Some(1), Some(5)));
    assert_eq!(none.await, ["a/small", "times/early", "times/late"]);
    let empty = names(&|it| {
        it.max_size = Some(0);
        it.beneath = Some(path("a"));
    });
    assert_eq!(empty.await, ["a/empty"]);
    let pattern = names(&|it| it.patterns = vec!["a/*".parse().unwrap(), "lar*".parse().unwrap()]);
    assert_eq!(pattern.await, ["a/empty", "a/small", "large"]);
    assert_eq!(names(&|it| it.modified_from = Some(time(200))).await, ["times/late"]);
    assert_eq!(names(&|it| it.modified_before = Some(time(200))).await, ["times/early"]);
    assert!(names(&|it| it.beneath = Some(path("nothing"))).await.is_empty());
}

async fn content(file: &SnapshotFile, range: std::ops::Range<u64>) -> Vec<u8> {
    let mut content = file.read(range);
    let mut bytes = Vec::new();
    while let Some(extent) = content.next().await.unwrap() {
        match extent {
            Extent::Data(data) => bytes.extend_from_slice(&data),
            other => bytes.resize(bytes.len() + other.len() as usize, 0),
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_a_file_is_read_without_what_lies_before_it() {
    let (counted, repository) = Counted::new().await;
    let large = noise(3, 20_000_000);
    let hole = vec![0_u8; 500_000];
    let source = Scripted::new("one").file(
        "large",
        Layout::Stream,
        vec![
            Extent::Data(large.clone().into()),
            Extent::Hole(hole.len() as u64),
            Extent::Data(b"end".to_vec().into()),
        ],
    );
    let id = back_up(&source, &repository).await;
    let whole = [large, hole, b"end".to_vec()].concat();
    let size = whole.len() as u64;

    let repository = counted.afresh().await;
    let snapshot = repository.snapshot(&id).await.unwrap();
    let file = snapshot.file(&path("large")).await.unwrap();
    assert_eq!(file.info().size, size);
    let before = counted.reads();
    assert_eq!(content(&file, 15_000_000..15_000_010).await, whole[15_000_000..15_000_010]);
    // A page of the list on each level, and a chunk or two.
    let reads = counted.reads() - before;
    assert!(reads <= 4, "{reads} reads");
    for range in [0..0, 0..1, 0..size, 19_999_990..20_000_010, size - 4..size, size - 1..size + 9] {
        let end = range.end.min(size) as usize;
        let expected = &whole[range.start as usize..end];
        assert!(content(&file, range.clone()).await == expected, "{range:?}");
    }
    assert!(content(&file, size..size + 1).await.is_empty());
    assert!(content(&file, u64::MAX - 1..u64::MAX).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hard_link_is_the_file_that_it_names() {
    let (_, repository) = repository().await;
    let store = sample().await;
    let link = Attributes::new().with(names::TARGET, b"a/small".to_vec());
    store.insert(Entry::new(path("b"), EntryKind::HardLink, link)).await.unwrap();
    let id = back_up(&store, &repository).await;
    let snapshot = repository.snapshot(&id).await.unwrap();
    let file = snapshot.file(&path("b")).await.unwrap();
    assert_eq!(content(&file, 1..4).await, b"ell");
    let refused = async |name| snapshot.file(&path(name)).await.unwrap_err();
    assert!(matches!(refused("a").await, Error::NotAFile { kind: "directory", .. }));
    assert!(matches!(refused("z-link").await, Error::NotAFile { kind: "symlink", .. }));
    assert!(matches!(refused("c").await, Error::NoSuchEntry { .. }));
}

#[test]
fn the_words_for_changes_are_stable() {
    use ChangeKind::{Added, Attributes, Content, Removed, Replaced};
    let words = [Added, Removed, Replaced, Content, Attributes].map(ChangeKind::as_str);
    assert_eq!(words, ["added", "removed", "replaced", "content", "attributes"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_listed_without_what_lies_deeper() {
    let (counted, repository) = Counted::new().await;
    let store = many(30_000).await;
    for odd in ["folder-004", "folder-004/sub", "folder-004\u{1}", "folder-004.d/x/y"] {
        let entry = if odd.ends_with('y') {
            Entry::file(path(odd), Attributes::new(), "y")
        } else {
            Entry::directory(path(odd))
        };
        store.insert(entry).await.unwrap();
    }
    let id = back_up(&store, &repository).await;
    let repository = counted.afresh().await;
    let snapshot = repository.snapshot(&id).await.unwrap();
    let members = async |of: Option<&str>| {
        let mut members = snapshot.members(of.map(path).as_ref());
        let mut found = Vec::new();
        while let Some(member) = members.next().await.unwrap() {
            assert_eq!(snapshot.member(&member.entry.path).await.unwrap(), Some(member.clone()));
            let numbered = snapshot.nth(member.number).await.unwrap().unwrap();
            if member.implied {
                assert!(numbered.path.starts_with(&member.entry.path));
                assert!(snapshot.entry(&member.entry.path).await.unwrap().is_none());
            } else {
                assert_eq!(numbered, member.entry);
            }
            found.push(member);
        }
        found
    };
    let inner = members(Some("folder-033")).await;
    assert_eq!(inner.len(), 300);
    // One of a hundred directories: the way down to it, and a page or a few for its entries.
    assert!(counted.reads() <= 8, "{} reads", counted.reads());
    let top = members(None).await;
    let names: Vec<_> = top.iter().map(|it| it.entry.path.to_string()).collect();
    let expected: Vec<_> = (0..100)
        .flat_map(|number| {
            let odd = ["folder-004\\u{1}", "folder-004.d"].iter().filter(move |_| number == 4);
            [format!("folder-{number:03}")].into_iter().chain(odd.map(ToString::to_string))
        })
        .collect();
    assert_eq!(names, expected);
    assert_eq!(top.iter().filter(|it| !it.implied).count(), 2);
    let deeper = members(Some("folder-004.d")).await;
    assert_eq!(deeper.len(), 1);
    assert!(deeper[0].implied && deeper[0].entry.path == path("folder-004.d/x"));
    assert_eq!(members(Some("folder-004")).await.len(), 301);
    assert!(members(Some("folder-004/sub")).await.is_empty());
    assert!(members(Some("nothing")).await.is_empty());
    assert_eq!(snapshot.member(&path("folder-0")).await.unwrap(), None);
    assert_eq!(snapshot.member(&path("zzz")).await.unwrap(), None);
    assert_eq!(snapshot.nth(30_004).await.unwrap(), None);
    assert_eq!(snapshot.nth(u64::MAX).await.unwrap(), None);
}
