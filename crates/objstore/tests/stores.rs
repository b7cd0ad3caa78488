//! Directories and stores in memory: the suite, and what only a directory can suffer.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use futures_util::TryStreamExt;
use lifeboat_core::{ErrorKind, Failure};
use lifeboat_objstore::conformance::store_suite;
use lifeboat_objstore::{Error, Intent, Location, StoreOptions, classify, open};
use lifeboat_testbed::disk::SmallDisk;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

fn create(location: &Location) -> std::sync::Arc<dyn ObjectStore> {
    open(location, &StoreOptions::new(Intent::Create)).unwrap()
}

/// Every regular file beneath a directory.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_passes_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("with space, ümlaut, #7 and %41");
    store_suite(&create(&Location::directory(&odd).unwrap())).await;
    assert_eq!(files(dir.path()), Vec::<String>::new(), "nothing is left beside the objects");
}

#[tokio::test]
async fn memory_passes_the_suite() {
    store_suite(&create(&"memory://suite".parse().unwrap())).await;
    store_suite(&create(&"memory://suite/beneath/it".parse().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_leaves_no_part_of_an_object() {
    let disk = match SmallDisk::mount(1 << 20) {
        Ok(disk) => disk,
        Err(unavailable) => return eprintln!("passed over: {unavailable}"),
    };
    let location = Location::directory(disk.path().join("store")).unwrap();
    let store = create(&location);
    store.put(&"packs/fits".into(), vec![1; 256 << 10].into()).await.unwrap();
    for mode in [PutMode::Create, PutMode::Overwrite] {
        let big = vec![2; 2 << 20].into();
        let name = "packs/big".into();
        let put = store.put_opts(&name, big, PutOptions::from(mode));
        let source = put.await.unwrap_err();
        assert_eq!(classify(&source), ErrorKind::Exhausted);
        let error =
            Error::Store { action: "put packs/big".into(), location: location.clone(), source };
        assert!(error.hint().unwrap().contains("make room"), "{error:?}");
    }
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(files(disk.path()).len(), 1, "the room is free again");
    store.put(&"packs/small".into(), vec![3; 256 << 10].into()).await.unwrap();
}

#[tokio::test]
async fn what_a_killed_writer_left_is_no_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(&Location::directory(dir.path()).unwrap());
    store.put(&"packs/ab/whole".into(), "x".into()).await.unwrap();
    // The name that the store gives a file which it has not finished.
    fs::write(dir.path().join("packs/ab/part#1"), "half").unwrap();
    fs::write(dir.path().join("packs/ab/whole#1"), "half").unwrap();
    let listed: Vec<_> =
        store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
    assert_eq!(listed, ["packs/ab/whole"]);
    // And it is in nobody's way.
    let options = PutOptions::from(PutMode::Create);
    store.put_opts(&"packs/ab/part".into(), "y".into(), options).await.unwrap();
}

/// Runs this test program again, so that it can be killed while it writes.
#[test]
fn a_writer_killed_at_any_moment_leaves_whole_objects() {
    const VARIABLE: &str = "LIFEBOAT_TEST_WRITER";
    const SIZE: usize = 1 << 20;
    if let Some(dir) = std::env::var_os(VARIABLE) {
        return write_until_killed(Path::new(&dir), SIZE);
    }
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let round = dir.path().join(round.to_string());
        fs::create_dir(&round).unwrap();
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_writer_killed_at_any_moment_leaves_whole_objects"])
            .env(VARIABLE, &round)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Some objects are there, and the next is under way.
        while files(&round).len() < 8 {
            assert!(writer.try_wait().unwrap().is_none(), "the writer ended");
            std::thread::yield_now();
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = open(&Location::directory(&round).unwrap(), &StoreOptions::default()).unwrap();
        let listed: Vec<_> = runtime.block_on(store.list(None).try_collect()).unwrap();
        assert!(!listed.is_empty());
        for meta in listed {
            assert_eq!(meta.size, SIZE as u64, "{} is not whole", meta.location);
        }
    }
}

fn write_until_killed(dir: &Path, size: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store = create(&Location::directory(dir).unwrap());
    runtime.block_on(async {
        for n in 0..100_000 {
            let options = PutOptions::from(PutMode::Create);
            let path = object_store::path::Path::from(format!("packs/{:02x}/{n}", n % 7));
            store.put_opts(&path, vec![n as u8; size].into(), options).await.unwrap();
        }
    });
}

#[test]
fn a_directory_without_rights_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file/store");
    fs::write(dir.path().join("file"), "").unwrap();
    let error = open(&Location::directory(&path).unwrap(), &StoreOptions::new(Intent::Create));
    let line = lifeboat_core::Error::from(error.unwrap_err()).one_line();
    assert!(line.contains("file/store") && line.contains("a part of the path is a file"), "{line}");
}
