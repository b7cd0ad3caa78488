//! Repositories of every format version are read for ever, and by more than one reader.
//!
//! `fixtures/golden-v1` holds a repository of format 1 and a manifest, which was written from the
//! source data and never went through the repository. It is read here by this crate, and by
//! `fixtures/second_reader.py`, a program of its own that was written from `docs/format.md`. What
//! today's writer writes must pass the same tests, so that neither the format nor its
//! description can drift.
//!
//! `fixtures/golden-v1-blocks` is of the same version, with small chunks in blocks.
//!
//! The golden repository is written once for each format version, and then never again:
//!
//! ```text
//! LIFEBOAT_WRITE_GOLDEN=crates/repository/tests/fixtures/golden-vN \
//!     cargo test -p lifeboat-repository --test it golden::what_is_written_today
//! ```

mod scene;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Context, Entry, EntryInfo, EntryKind, Extent, Layout, SnapshotId, SnapshotInfo,
    TransferOptions, Value, transfer,
};
use lifeboat_repository::{
    CheckOptions, ObjectId, Repository, Selection, WriteOptions, check_without_key,
};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use serde_json::{Map, Value as Json, json};

use crate::common::{assert_restores, back_up, noise, path, restore, secret, small};
use scene::{Scene, scenes};

const PASSPHRASE: &str = "correct horse battery staple";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_golden_repository_of_format_1_is_read() {
    let met = read_golden("golden-v1").await;
    assert_meets(&met, &[("chunks of kind 2", 5), ("highest level of a tree", 1)]);
    assert_meets(&met, &[("pages that ended by name", 2)]);
    assert!(met["blocks"].is_null(), "it is from before there were blocks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_golden_repository_with_blocks_is_read() {
    let met = read_golden("golden-v1-blocks").await;
    assert_meets(&met, &[("blocks", 3), ("chunks in blocks", 20)]);
}

/// The repository is read as it was, and with another snapshot that today's writer adds to it.
async fn read_golden(name: &str) -> Json {
    let golden = fixtures().join(name);
    let before = files(&golden);
    assert!(before.len() > 8, "the fixture is not whole");
    let scratch = tempfile::tempdir().unwrap();
    for (path, bytes) in &before {
        put(&scratch.path().join(path.strip_prefix(&golden).unwrap()), bytes);
    }
    let met = verify(scratch.path()).await;
    // Checks take notes; nothing else is changed by reading.
    let after = files(scratch.path()).into_iter().filter_map(|(path, bytes)| {
        let path = path.strip_prefix(scratch.path()).unwrap().to_owned();
        (!path.starts_with("repository/checks")).then(|| (golden.join(path), bytes))
    });
    assert!(before == after.collect(), "reading changed the repository");

    let repository = Repository::open(open(scratch.path()), &secret()).await.unwrap();
    let store = MemoryStore::new("later");
    for number in 0..50 {
        let file = Entry::file(path(&format!("{number}")), Attributes::new(), noise(number, 300));
        store.insert(file).await.unwrap();
    }
    let (id, _) = back_up(&store, &repository).await;
    assert_restores(&repository, id, &store).await;
    let said = second_reader(&["read", scratch.path().join("repository").to_str().unwrap()]);
    let (was, is) = (&met["blocks"], &said["met"]["blocks"]);
    // Whoever can read a repository can still read it after a later program has written to it.
    assert_eq!(was.is_null(), is.is_null(), "{was} {is}");
    met
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_today_is_read_the_same_way() {
    let scratch = tempfile::tempdir().unwrap();
    let chosen = std::env::var_os("LIFEBOAT_WRITE_GOLDEN").map(|dir| workspace().join(dir));
    let dir = chosen.unwrap_or_else(|| scratch.path().to_owned());
    write(&dir).await;
    assert_meets(&verify(&dir).await, &[("blocks", 3), ("chunks in blocks", 20)]);
}

/// Names that are no id, areas and keys of later versions: left alone, and in nobody's way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_leave_behind_is_passed_over() {
    let scratch = tempfile::tempdir().unwrap();
    let golden = fixtures().join("golden-v1");
    for (path, bytes) in files(&golden) {
        put(&scratch.path().join(path.strip_prefix(&golden).unwrap()), &bytes);
    }
    let unknown = [
        r#"{"version":2,"repository":"","label":"","holder":{"kind":"passphrase"}}"#,
        r#"{"version":1,"repository":"","label":"","holder":{"kind":"recipient","public":""}}"#,
        "no JSON",
    ];
    let keys = unknown.map(|key| format!("keys/{}", ObjectId::of(key.as_bytes())));
    let id = "ab".repeat(32);
    let reserved = ["leases", "checks", "sessions", "marks", "later"];
    let reserved = reserved.map(|area| format!("{area}/{id}"));
    let texts = unknown.into_iter().chain(std::iter::repeat("a stray"));
    for (name, text) in keys.iter().chain(&reserved).zip(texts) {
        put(&scratch.path().join("repository").join(name), text.as_bytes());
    }
    assert_meets(&verify(scratch.path()).await, &[("keys of unknown form", 3)]);
    let strays = ["keys/.key.tmp", "snapshots/README", "snapshots/abcd", "index/.x", "packs/ab/x"];
    for name in strays {
        put(&scratch.path().join("repository").join(name), b"a stray");
    }
    verify(scratch.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_long_names_end_before_they_are_too_large() {
    // 32 names of 32 KiB fill a page, and so do 31 pages below.
    let store = MemoryStore::new("long");
    let rest = "n".repeat(32_000);
    for number in 0..1200 {
        store.insert(Entry::directory(path(&format!("{number:04}/{rest}")))).await.unwrap();
    }
    // Where a key ends an inner page by name, in one of six, too little is left to fill another.
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("repository")).unwrap();
        let repository = Repository::init(open(dir.path()), &secret(), &small()).await.unwrap();
        let (id, _) = back_up(&store, &repository).await;
        assert_restores(&repository, id, &store).await;
        // It refuses pages that end elsewhere.
        let said = second_reader(&["read", dir.path().join("repository").to_str().unwrap()]);
        assert_eq!(said["snapshots"][0]["entries"], 1200);
        assert_meets(&said["met"], &[("leaves that ended by size", 20)]);
        if said["met"]["inner pages that ended by size"].is_u64() {
            return assert_meets(&said["met"], &[("highest level of a tree", 2)]);
        }
    }
    panic!("no inner page of ten trees was full");
}

#[test]
fn the_second_reader_cuts_where_the_first_does() {
    let said = second_reader(&["cuts"]);
    let own = include_str!("../../src/chunk/golden_cuts.txt");
    let own: Vec<u64> = own.lines().map(|line| line.parse().unwrap()).collect();
    let cuts: Vec<u64> =
        said["cuts"].as_array().unwrap().iter().map(|cut| cut.as_u64().unwrap()).collect();
    assert!(cuts.last().unwrap() > &(8 << 20), "too few: {cuts:?}");
    assert_eq!(cuts, own[..cuts.len()]);
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn open(dir: &Path) -> Arc<dyn ObjectStore> {
    Arc::new(LocalFileSystem::new_with_prefix(dir.join("repository")).unwrap())
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Every file beneath a directory, with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.append(&mut files(&path));
        } else {
            all.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    all
}

/// Writes a repository of three snapshots, and the manifest of what went into it.
async fn write(dir: &Path) {
    std::fs::create_dir_all(dir.join("repository")).unwrap();
    let repository = Repository::init(open(dir), &secret(), &small()).await.unwrap();
    let mut manifest = Vec::new();
    for scene in scenes() {
        let mut options = TransferOptions::default();
        options.tags.clone_from(&scene.tags);
        let sink = repository.sink(&WriteOptions::default());
        transfer(&scene, &sink, &options, &Context::silent()).await.unwrap();
        manifest.push(describe_scene(&scene));
    }
    // A line for each entry: to be read by people, too.
    let text = serde_json::to_string(&json!({ "snapshots": manifest })).unwrap();
    let text = text.replace("{\"attributes\"", "\n{\"attributes\"") + "\n";
    std::fs::write(dir.join("manifest.json"), text).unwrap();
}

/// Checks it, and reads it with both readers. The result is what the second reader met.
async fn verify(dir: &Path) -> Json {
    let repository = Repository::open(open(dir), &secret()).await.unwrap();
    let every_byte = CheckOptions::every_byte();
    let report = repository.check(&every_byte, &Context::silent()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.damage);
    assert_eq!((report.snapshots, report.unreferenced), (3, 0));
    let keyless = check_without_key(open(dir), &every_byte, &Context::silent()).await.unwrap();
    assert!(keyless.is_sound(), "{:?}", keyless.damage);
    read(dir).await
}

/// Reads every byte with both readers, and compares with the manifest.
async fn read(dir: &Path) -> Json {
    let manifest = std::fs::read(dir.join("manifest.json")).unwrap();
    let manifest: Json = serde_json::from_slice(&manifest).unwrap();
    let expected = manifest["snapshots"].as_array().unwrap();
    let repository = Repository::open(open(dir), &secret()).await.unwrap();

    // In the order in which they were taken.
    let mut listed = repository.snapshots().await.unwrap();
    assert!(listed.damaged.is_empty());
    listed.snapshots.sort_by_key(|info| info.committed);
    let mut found = Vec::new();
    for info in &listed.snapshots {
        found.push(describe_snapshot(&repository, info).await);
    }
    compare(expected, &found, "this crate");
    let ids: Vec<SnapshotId> = listed.snapshots.iter().map(|info| info.id).collect();
    let parents: Vec<_> = listed.snapshots.iter().map(|info| info.parent).collect();
    assert_eq!(parents, [None, Some(ids[0]), None]);

    let second = second_reader(&["read", dir.join("repository").to_str().unwrap()]);
    let snapshots = second["snapshots"].as_array().unwrap();
    let described: Vec<_> = snapshots.iter().map(|one| one["described"].clone()).collect();
    compare(expected, &described, "the second reader");
    for (one, info) in snapshots.iter().zip(&listed.snapshots) {
        assert_eq!(one["id"], json!(info.id.to_string()));
        assert_eq!(one["parent"], json!(info.parent.map(|id| id.to_string())));
        assert_eq!(one["entries"], json!(info.entries));
        assert_eq!(one["bytes"], json!(info.bytes));
    }
    // A golden repository is of use only where all is in it. How many leaves a tree has depends on
    // the repository's key, so that nothing is asked of it here.
    let least = [
        ("index objects", 3),
        ("packs of data", 3),
        ("packs of trees", 3),
        ("chunks of kind 1", 40),
        ("chunks of kind 2", 3),
        ("chunks of kind 3", 2),
        ("chunks of kind 4", 2),
        ("chunks as they are", 1),
        ("chunks compressed", 10),
        ("deepest list", 1),
        ("pieces of grouped pages", 3),
        ("holes", 700),
        ("fingerprints compared", 300),
        ("fingerprints unknown", 20),
        ("streams cut alike", 2),
    ];
    assert_meets(&second["met"], &least);
    second["met"].clone()
}

fn assert_meets(met: &Json, least: &[(&str, u64)]) {
    for (what, least) in least {
        let found = met[what].as_u64().unwrap_or(0);
        assert!(found >= *least, "{what}: {found} instead of {least}, {met}");
    }
}

fn compare(expected: &[Json], found: &[Json], who: &str) {
    assert_eq!(expected.len(), found.len(), "{who} finds other snapshots");
    for (expected, found) in expected.iter().zip(found) {
        let entries = |one: &Json| one["entries"].as_array().unwrap().clone();
        let (left, right) = (entries(expected), entries(found));
        for (one, other) in left.iter().zip(&right) {
            assert_eq!(one, other, "{who} reads another entry");
        }
        assert_eq!(left.len(), right.len(), "{who} finds other entries");
        assert_eq!(expected, found, "{who} reads another header");
    }
}

fn describe_scene(scene: &Scene) -> Json {
    let entries = scene.items.iter();
    let entries: Vec<_> = entries.map(|item| describe_entry(&item.info, &item.bytes())).collect();
    header(
        (scene.store.kind(), scene.store.name()),
        &scene.tags,
        i64::try_from(scene.completion.taken.as_nanosecond()).unwrap(),
        &scene.completion.position,
        &scene.completion.facts,
        &entries,
    )
}

async fn describe_snapshot(repository: &Repository, info: &SnapshotInfo) -> Json {
    let restored = restore(repository, info.id).await.image();
    let entries: Vec<_> =
        restored.values().map(|(info, bytes)| describe_entry(info, bytes)).collect();
    // A listing says the same as a restore, and holes come back as holes.
    let snapshot = repository.snapshot(&info.id).await.unwrap();
    assert_eq!((entries.len() as u64, info.committed >= info.started), (info.entries, true));
    let mut listing = snapshot.list(None);
    let mut holes = 0;
    for (known, _) in restored.values() {
        assert_eq!(listing.next().await.unwrap().as_ref(), Some(known));
        let mut content = snapshot.content(&known.path).await.unwrap().unwrap();
        while let Some(extent) = content.next().await.unwrap() {
            holes += u32::from(matches!(extent, Extent::Hole(_)));
        }
    }
    assert!(listing.next().await.unwrap().is_none());
    assert_eq!(holes, if info.store.name() == "alpha" { 701 } else { 0 });
    let source = snapshot.source(&Selection::all());
    assert_eq!(lifeboat_core::Source::store(&source), &info.store);
    header(
        (info.store.kind(), info.store.name()),
        &info.tags,
        i64::try_from(info.taken.as_nanosecond()).unwrap(),
        &info.position,
        &info.facts,
        &entries,
    )
}

fn header(
    (kind, name): (&str, &str),
    tags: &[String],
    taken: i64,
    position: &str,
    facts: &Attributes,
    entries: &[Json],
) -> Json {
    json!({
        "store": { "kind": kind, "name": name },
        "tags": tags,
        "taken": taken,
        "position": position,
        "facts": describe_values(facts),
        "entries": entries,
    })
}

fn describe_entry(info: &EntryInfo, bytes: &[u8]) -> Json {
    let page = match info.layout {
        Layout::Pages(page) => page,
        Layout::Records => 1,
        Layout::Stream => 0,
    };
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let digest = (info.kind == EntryKind::File).then(|| hex::encode(digest.as_ref()));
    assert_eq!(info.size, bytes.len() as u64);
    json!({
        "path": escape(info.path.as_bytes()),
        "kind": info.kind.as_str(),
        "page": page,
        "size": info.size,
        "sha256": digest,
        "attributes": describe_values(&info.attributes),
    })
}

fn describe_values(values: &Attributes) -> Json {
    let describe = |(name, value): (&str, &Value)| {
        let value = match value {
            Value::Unsigned(value) => json!({ "unsigned": value }),
            Value::Signed(value) => json!({ "signed": value }),
            Value::Text(text) => json!({ "text": text }),
            Value::Bytes(bytes) => json!({ "bytes": hex::encode(bytes) }),
            Value::Pairs(pairs) => {
                let pairs = pairs.iter();
                let pairs = pairs.map(|(name, value)| [hex::encode(name), hex::encode(value)]);
                json!({ "pairs": pairs.collect::<Vec<_>>() })
            }
        };
        (name.to_owned(), value)
    };
    values.iter().map(describe).collect::<Map<_, _>>().into()
}

/// Paths as text that any JSON can hold: all bytes but the plainest as `%` and two digits.
fn escape(path: &[u8]) -> String {
    let mut text = String::new();
    for byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' => {
                text.push(char::from(*byte));
            }
            other => write!(text, "%{other:02x}").unwrap(),
        }
    }
    text
}

/// Runs the second reader with the Python packages that setup installed for it.
pub(crate) fn second_reader(arguments: &[&str]) -> Json {
    let requirements = include_str!("../fixtures/second_reader.txt");
    // As in the setup of xtask: what is installed is named by its versions.
    let versions: Vec<_> =
        requirements.lines().filter_map(|line| line.split("==").nth(1)).collect();
    let name = format!("second-reader-{}", versions.join("-"));
    let installed = lifeboat_testbed::home::search_dirs().into_iter().map(|dir| dir.join(&name));
    let installed = installed.into_iter().find(|dir| dir.join("cbor2").is_dir());
    let installed = installed.unwrap_or_else(|| {
        panic!("the Python packages of the second reader are missing: run `cargo xtask setup`")
    });
    let output = Command::new("python3")
        .arg("-B")
        .arg(fixtures().join("second_reader.py"))
        .args(arguments)
        .env("PYTHONPATH", installed)
        .env("LIFEBOAT_PASSPHRASE", PASSPHRASE)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the second reader refuses it:\n{complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}
