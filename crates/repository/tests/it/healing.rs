//! After damage, a backup of the same data makes the old snapshots whole again.

use std::sync::Arc;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Collecting, Comparison, Context, Entry, TransferOptions, transfer};
use lifeboat_repository::{CheckOptions, CheckReport, PruneOptions, Repository, WriteOptions};
use object_store::ObjectStore;

use crate::common::{
    assert_restores, back_up, delete, noise, objects, open, path, put, repository, small_sample,
};

async fn check(store: &Arc<dyn ObjectStore>) -> CheckReport {
    let repository = open(store).await;
    repository.check(&CheckOptions::every_byte(), &Context::silent()).await.unwrap()
}

/// What is done to an object, and whether a backup sees it without a check.
const HARMS: [(&str, bool); 5] =
    [("flip", false), ("flip the end", false), ("cut", true), ("empty", true), ("remove", true)];

async fn harm(store: &dyn ObjectStore, name: &str, bytes: &[u8], harm: &str) {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    match harm {
        "flip" => bytes[middle] ^= 4,
        "flip the end" => *bytes.last_mut().unwrap() ^= 4,
        "cut" => bytes.truncate(middle),
        "empty" => bytes.clear(),
        _ => return delete(store, name).await,
    }
    put(store, name, bytes).await;
}

/// Backs up as a person does who runs it again when it says so.
async fn back_up_again(
    source: &MemoryStore,
    repository: &Repository,
    comparison: Comparison,
) -> lifeboat_core::SnapshotId {
    let mut options = TransferOptions::default();
    options.comparison = comparison;
    let sink = repository.sink(&WriteOptions::default());
    let context = Context::silent();
    let summary = match transfer(source, &sink, &options, &context).await {
        Err(error) if error.is_retryable() => {
            transfer(source, &sink, &options, &context).await.unwrap()
        }
        done => done.unwrap(),
    };
    summary.receipt.snapshot.unwrap()
}

async fn every_harm_heals(comparison: Comparison) {
    let (store, repository) = repository().await;
    let source = small_sample().await;
    let (old, _) = back_up(&source, &repository).await;
    let whole = objects(store.as_ref(), "").await;
    let harmed = ["packs/", "index/"];
    let targets = whole.iter().filter(|(name, _)| harmed.iter().any(|area| name.starts_with(area)));
    let mut hurt = 0;
    for (name, bytes) in targets {
        for (what, seen) in HARMS {
            let scene = format!("{name} {what}");
            harm(store.as_ref(), name, bytes, what).await;
            if !seen && name.starts_with("packs/") {
                let report = check(&store).await;
                assert!(!report.is_sound(), "{scene}");
                hurt += usize::from(report.damage.iter().any(|it| it.snapshots.contains(&old)));
            }
            let new = back_up_again(&source, &open(&store).await, comparison).await;
            let report = check(&store).await;
            let hurts = report.damage.iter().any(|damage| !damage.snapshots.is_empty());
            assert!(!hurts, "{scene}: {:?}", report.damage);
            let later = open(&store).await;
            for id in [old, new] {
                assert_restores(&later, id, &source).await;
            }
            for area in ["packs", "index", "snapshots", "checks"] {
                for made in objects(store.as_ref(), area).await.into_keys() {
                    delete(store.as_ref(), &made).await;
                }
            }
            for (name, bytes) in &whole {
                put(store.as_ref(), name, bytes.clone()).await;
            }
        }
    }
    assert!(hurt > 2, "{hurt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_reads_everything_heals() {
    every_harm_heals(Comparison::Nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_usual_backup_heals() {
    every_harm_heals(Comparison::Newest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_baseline_costs_work_and_nothing_else() {
    let (store, repository) = repository().await;
    let source = small_sample().await;
    let (old, _) = back_up(&source, &repository).await;
    // Of each pack of trees, each chunk in turn.
    for (name, pack) in objects(store.as_ref(), "packs").await {
        let trailer = pack.len() - 44;
        let count = u32::from_le_bytes(pack[trailer + 32..trailer + 36].try_into().unwrap());
        let mut offset = 64;
        for entry in pack[trailer - 42 * count as usize..trailer].chunks(42) {
            let start = offset;
            offset += u32::from_le_bytes(entry[32..36].try_into().unwrap()) as usize;
            let kind = entry[41];
            if kind == 1 {
                break;
            }
            let mut bytes = pack.clone();
            bytes[start] ^= 1;
            put(store.as_ref(), &name, bytes).await;
            // Nobody has checked, and the data have changed a little.
            let changed = small_sample().await;
            let entry = Entry::file(path("many/0100"), Default::default(), noise(5, 900));
            changed.insert(entry).await.unwrap();
            let new = back_up_again(&changed, &open(&store).await, Comparison::Newest).await;
            println!("{name}: the chunk at {start} of kind {kind}");
            assert_restores(&open(&store).await, new, &changed).await;
            delete(store.as_ref(), &format!("snapshots/{new}")).await;
            for made in objects(store.as_ref(), "checks").await.into_keys() {
                delete(store.as_ref(), &made).await;
            }
            put(store.as_ref(), &name, pack.clone()).await;
        }
    }
    assert_restores(&open(&store).await, old, &source).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_says_that_packs_are_missing() {
    let (store, repository) = repository().await;
    let source = small_sample().await;
    back_up(&source, &repository).await;
    let name = objects(store.as_ref(), "packs").await.into_keys().next().unwrap();
    delete(store.as_ref(), &name).await;
    let observer = Arc::new(Collecting::new());
    let context = Context::new(observer.clone());
    let sink = repository.sink(&WriteOptions::default());
    transfer(&source, &sink, &TransferOptions::default(), &context).await.unwrap();
    let warnings = observer.warnings();
    assert!(warnings.iter().any(|(subject, _)| subject == "packs"), "{warnings:?}");
}

/// Of a chunk that a damaged and a sound pack have, a prune keeps the sound one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prune_keeps_what_has_healed() {
    let (store, repository) = repository().await;
    let source = small_sample().await;
    let (old, _) = back_up(&source, &repository).await;
    for (name, bytes) in objects(store.as_ref(), "packs").await {
        harm(store.as_ref(), &name, &bytes, "flip").await;
    }
    check(&store).await;
    let new = back_up_again(&source, &open(&store).await, Comparison::Newest).await;
    let mut options = PruneOptions::default();
    (options.keep_marked, options.max_waste) = (std::time::Duration::ZERO, 0.0);
    for _ in 0..2 {
        open(&store).await.prune(&options, &Context::silent()).await.unwrap();
    }
    let later = open(&store).await;
    for id in [old, new] {
        assert_restores(&later, id, &source).await;
    }
    let report = check(&store).await;
    assert!(report.is_sound(), "{:?}", report.damage);
}
