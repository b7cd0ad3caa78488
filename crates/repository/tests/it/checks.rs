//! Checks that read a part, and checks beside others that write and delete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Collecting, Context, Entry, TransferOptions, transfer};
use lifeboat_repository::{
    Budget, CheckOptions, CheckReport, Depth, Repository, Sample, SampleSize, WriteOptions,
    check_without_key,
};
use object_store::ObjectStore;
use tokio::sync::Semaphore;

use crate::common::{
    back_up, delete, noise, objects, path, put, repository, secret, small, small_sample,
};
use crate::hooked::{Fate, Hooked};

const DAY: Duration = Duration::from_hours(24);

async fn check(store: &Arc<dyn ObjectStore>, options: &CheckOptions) -> CheckReport {
    let repository = Repository::open(Arc::clone(store), &secret()).await.unwrap();
    repository.check(options, &Context::silent()).await.unwrap()
}

/// A repository of ten packs or so.
async fn scene() -> (Arc<dyn ObjectStore>, usize) {
    let (store, repository) = repository().await;
    back_up(&small_sample().await, &repository).await;
    let large = MemoryStore::new("large");
    let entry = Entry::file(path("noise"), Default::default(), noise(9, 6_000_000));
    large.insert(entry).await.unwrap();
    back_up(&large, &repository).await;
    let packs = objects(store.as_ref(), "packs").await.len();
    assert!(packs > 6, "{packs}");
    (store, packs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_check_comes_round_and_finds_what_is_damaged() {
    let (store, packs) = scene().await;
    let (name, mut bytes) = objects(store.as_ref(), "packs").await.pop_last().unwrap();
    let whole = bytes.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    put(store.as_ref(), &name, bytes).await;
    let mut budget = Budget::default();
    // Less than any pack: one is read in each run.
    budget.bytes = Some(1);
    let options = CheckOptions::rolling(budget);
    let mut found = 0;
    let mut left = packs as u64;
    for _ in 0..packs {
        let report = check(&store, &options).await;
        assert_eq!(report.packs_read, 1);
        let told = report.damage.iter().any(|damage| damage.object == name);
        found += usize::from(told);
        // Every later one tells it as well.
        assert_eq!(told, found > 0);
        let rolling = report.rolling.unwrap();
        assert!(rolling.never_read == left || rolling.never_read + 1 == left, "{rolling:?}");
        left = rolling.never_read;
    }
    assert!(found > 0);
    // From now on the damaged one is read first, and nothing else.
    let report = check(&store, &options).await;
    assert_eq!((report.packs_read, report.damage.len()), (1, 1));
    put(store.as_ref(), &name, whole).await;
    for _ in 0..packs {
        assert!(check(&store, &options).await.is_sound());
    }
    let report = check(&store, &options).await;
    assert_eq!(report.rolling.unwrap().never_read, 0);
    let notes = objects(store.as_ref(), "checks").await.len();
    assert!(notes <= 2 * 17 + 1, "{notes} objects are not merged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pace_that_does_not_suffice_is_told() {
    let (store, packs) = scene().await;
    let repository = Repository::open(Arc::clone(&store), &secret()).await.unwrap();
    let run = async |bytes, days: u32| {
        let observer = Arc::new(Collecting::new());
        let mut budget = Budget::default();
        (budget.bytes, budget.within) = (bytes, Some(days * DAY));
        let context = Context::new(observer.clone());
        let report = repository.check(&CheckOptions::rolling(budget), &context).await.unwrap();
        for note in objects(store.as_ref(), "checks").await.into_keys() {
            delete(store.as_ref(), &note).await;
        }
        (report.rolling.unwrap(), observer.warnings())
    };
    let (rolling, warnings) = run(Some(1), 2).await;
    assert!(warnings[0].1.starts_with("at this pace everything is read in "), "{warnings:?}");
    assert!(rolling.full_round.unwrap() > 3 * DAY, "{rolling:?}");
    let (rolling, warnings) = run(None, 2).await;
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(rolling.bytes <= rolling.share.unwrap() && rolling.bytes > 1_000_000, "{rolling:?}");
    let (rolling, warnings) = run(Some(u64::MAX), 30).await;
    assert!(warnings.is_empty() && rolling.never_read == 0, "{rolling:?} of {packs}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_draws_the_same_sample_again() {
    let (store, packs) = scene().await;
    let size = SampleSize::PartsPerMillion(300_000);
    let first = check(&store, &CheckOptions::sample(size)).await;
    assert!(first.packs_read > 0 && first.packs_read < packs as u64, "{}", first.packs_read);
    let mut options = CheckOptions::default();
    options.depth = Depth::Sample(Sample { size, seed: first.seed });
    let again = check(&store, &options).await;
    assert_eq!((again.packs_read, again.seed), (first.packs_read, first.seed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_a_round_reads_every_pack() {
    let (store, packs) = scene().await;
    let mut budget = Budget::default();
    budget.within = Some(DAY);
    let (options, context) = (CheckOptions::rolling(budget), Context::silent());
    let report = check_without_key(store, &options, &context).await.unwrap();
    assert_eq!(report.packs_read, packs as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_those_at_work_are_looked_at_and_strangers_are_not() {
    let (store, _) = scene().await;
    let name = |area: &str, length: usize| format!("{area}/{}", "ab".repeat(length / 2));
    let damaged = [
        name("sessions", 32),
        name("trash", 64),
        format!("leases/maintenance-{:020}", 1),
        name("checks/damaged-", 64).replace("-/", "-"),
    ];
    let strangers = [
        format!("{}.alive", name("sessions", 32)),
        "leases/clock-1".to_owned(),
        "checks/notes.txt".to_owned(),
        "trash/.DS_Store".to_owned(),
    ];
    for name in damaged.iter().chain(&strangers) {
        put(store.as_ref(), name, b"nonsense".to_vec()).await;
    }
    let report = check(&store, &CheckOptions::default()).await;
    let told: Vec<_> = report.damage.iter().map(|damage| &damage.object).collect();
    let mut expected: Vec<_> = damaged.iter().collect();
    expected.sort();
    assert_eq!(told, expected);
    assert!(report.damage.iter().all(|damage| damage.snapshots.is_empty()));
}

/// What somebody else does at one moment of a check.
struct Meanwhile {
    put: BTreeMap<String, Vec<u8>>,
    delete: Vec<String>,
}

/// Checks while somebody else does something, at each moment in turn at which the check asks the
/// store for an object. No damage may be told.
async fn at_every_moment(hooked: &Arc<Hooked>, meanwhile: &Meanwhile) {
    let store: Arc<dyn ObjectStore> = Arc::clone(hooked) as _;
    let before = objects(store.as_ref(), "").await;
    let mut moments = 0;
    loop {
        let repository = Repository::open(Arc::clone(&store), &secret()).await.unwrap();
        let (gate, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        {
            let (gate, asked) = (Arc::clone(&gate), Arc::clone(&asked));
            hooked.hook(move |_, _| match asked.fetch_add(1, Ordering::Relaxed) {
                at if at == moments => Fate::Waits(Arc::clone(&gate)),
                _ => Fate::Done,
            });
        }
        let work = tokio::spawn(async move {
            repository.check(&CheckOptions::every_byte(), &Context::silent()).await.unwrap()
        });
        while asked.load(Ordering::Relaxed) <= moments && !work.is_finished() {
            tokio::task::yield_now().await;
        }
        let reached = asked.load(Ordering::Relaxed) > moments;
        hooked.hook(|_, _| Fate::Done);
        for (name, bytes) in &meanwhile.put {
            put(store.as_ref(), name, bytes.clone()).await;
        }
        for name in &meanwhile.delete {
            delete(store.as_ref(), name).await;
        }
        gate.add_permits(1);
        let report = work.await.unwrap();
        assert!(report.is_sound(), "moment {moments}: {:?}", report.damage);
        for name in objects(store.as_ref(), "").await.into_keys() {
            delete(store.as_ref(), &name).await;
        }
        for (name, bytes) in &before {
            put(store.as_ref(), name, bytes.clone()).await;
        }
        if !reached {
            break;
        }
        moments += 1;
    }
    assert!(moments > 15, "{moments}");
}

async fn two_stores() -> (Arc<Hooked>, Vec<String>) {
    let hooked = Hooked::new();
    let store: Arc<dyn ObjectStore> = Arc::clone(&hooked) as _;
    let repository = Repository::init(Arc::clone(&store), &secret(), &small()).await.unwrap();
    let one = MemoryStore::new("one");
    let entry = Entry::file(path("noise"), Default::default(), noise(1, 700_000));
    one.insert(entry).await.unwrap();
    back_up(&one, &repository).await;
    let first: Vec<_> = objects(store.as_ref(), "").await.into_keys().collect();
    let two = MemoryStore::new("two");
    let entry = Entry::file(path("other"), Default::default(), noise(2, 700_000));
    two.insert(entry).await.unwrap();
    back_up(&two, &repository).await;
    let mut second: Vec<_> = objects(store.as_ref(), "").await.into_keys().collect();
    second.retain(|name| !first.contains(name));
    // The snapshot goes first, then what the index says of it, then the packs.
    second.sort_by_key(|name| (!name.starts_with("snapshots"), !name.starts_with("index")));
    (hooked, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_forgotten_and_pruned_meanwhile_is_no_damage() {
    let (hooked, second) = two_stores().await;
    at_every_moment(&hooked, &Meanwhile { put: BTreeMap::new(), delete: second }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_move_to_other_packs_meanwhile_are_no_damage() {
    let (hooked, _) = two_stores().await;
    let store: Arc<dyn ObjectStore> = Arc::clone(&hooked) as _;
    let before = objects(store.as_ref(), "").await;
    let old = |name: &&String| name.starts_with("index") || name.starts_with("packs");
    let old: Vec<_> = before.keys().filter(old).cloned().collect();
    for name in old.iter().filter(|name| name.starts_with("index")) {
        delete(store.as_ref(), name).await;
    }
    // With an empty index everything is stored again, as a repack does.
    let repository = Repository::open(Arc::clone(&store), &secret()).await.unwrap();
    for (name, seed, store) in [("one", 1, "noise"), ("two", 2, "other")] {
        let again = MemoryStore::new(name);
        let entry = Entry::file(path(store), Default::default(), noise(seed, 700_000));
        again.insert(entry).await.unwrap();
        back_up(&again, &repository).await;
    }
    let mut new = objects(store.as_ref(), "").await;
    new.retain(|name, _| !before.contains_key(name) && !name.starts_with("snapshots"));
    for name in objects(store.as_ref(), "").await.into_keys() {
        delete(store.as_ref(), &name).await;
    }
    for (name, bytes) in &before {
        put(store.as_ref(), name, bytes.clone()).await;
    }
    at_every_moment(&hooked, &Meanwhile { put: new, delete: old }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_beside_a_check_are_no_damage() {
    let (store, _) = scene().await;
    let writer = {
        let repository = Repository::open(Arc::clone(&store), &secret()).await.unwrap();
        tokio::spawn(async move {
            for round in 0..6 {
                let one = MemoryStore::new("busy");
                let entry = Entry::file(path("noise"), Default::default(), noise(round, 900_000));
                one.insert(entry).await.unwrap();
                let sink = repository.sink(&WriteOptions::default());
                let context = Context::silent();
                transfer(&one, &sink, &TransferOptions::default(), &context).await.unwrap();
            }
        })
    };
    let mut rounds = 0;
    while !writer.is_finished() || rounds == 0 {
        let report = check(&store, &CheckOptions::every_byte()).await;
        assert!(report.is_sound(), "{:?}", report.damage);
        rounds += 1;
    }
    writer.await.unwrap();
}
