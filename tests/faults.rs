//! A repository on a real S3 server, through a network and a service that fail: nothing is lost,
//! and what is tried again is counted and bounded.

#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use lifeboat::core::memory::MemoryStore;
use lifeboat::core::{Attributes, Entry, EntryPath, Layout, names};
use lifeboat::objstore::{Retries, Variables};
use lifeboat::{
    CheckOptions, Context, CopyOptions, ErrorKind, InitOptions, Location, Repository, Secret,
    Selection, StoreOptions, TransferOptions, WriteOptions, open, transfer,
};
use lifeboat_testbed::proxy::http::{Fault, Faults, HttpProxy};
use lifeboat_testbed::s3::Server;

/// One server for all tests; it goes with the process.
fn server() -> &'static Server {
    static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start().unwrap());
    &SERVER
}

/// Far shorter than anybody's in production, in the same proportions.
const BASE: Duration = Duration::from_secs(3);
const STALL: Duration = Duration::from_secs(4);

fn options() -> StoreOptions {
    let mut options = StoreOptions::default();
    let given = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    options.variables = Variables::Given(given.into());
    options.patience.base = BASE;
    options.patience.first_pause = Duration::from_millis(10);
    options.patience.longest_pause = Duration::from_millis(200);
    options.patience.first_contact = Duration::from_secs(60);
    options.patience.give_up = Duration::from_secs(120);
    options
}

fn secret() -> Secret {
    Secret::passphrase("correct horse battery staple")
}

fn place(endpoint: &str, bucket: &str) -> Location {
    let url = format!("s3://{bucket}/prefix?endpoint={endpoint}&region=us-east-1");
    url.parse().unwrap()
}

async fn opened(place: &Location, options: &StoreOptions) -> Repository {
    Repository::open(open(place, options).unwrap(), &secret()).await.unwrap()
}

/// A repository behind a proxy, and the count of what it had to ask for again.
struct Behind {
    proxy: HttpProxy,
    bucket: String,
    retries: Retries,
    repository: Repository,
}

impl Behind {
    async fn new(bucket: String, seed: u64, faults: &Faults) -> Self {
        server().create_bucket(&bucket).unwrap();
        let proxy = HttpProxy::start(server().address(), seed).await.unwrap();
        proxy.set(faults.clone());
        let (options, mut init) = (options(), InitOptions::default());
        init.parameters.chunk_min = 16 << 10;
        init.parameters.chunk_average = 64 << 10;
        init.parameters.chunk_max = 256 << 10;
        init.parameters.stretch = 256 << 10;
        init.parameters.pack = 1 << 20;
        let store = open(&place(&proxy.endpoint(), &bucket), &options).unwrap();
        let repository = Repository::init(store, &secret(), &init).await.unwrap();
        Self { proxy, bucket, retries: options.retries, repository }
    }

    /// Past the proxy: what is there is there for everybody.
    async fn direct(&self) -> Repository {
        opened(&place(&server().endpoint(), &self.bucket), &options()).await
    }

    fn faults(&self) -> u64 {
        self.proxy.injected().values().sum()
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(length).collect()
}

async fn change(store: &MemoryStore, seed: u64) {
    let insert = async |name: String, bytes: Vec<u8>, layout| {
        let path = EntryPath::new(name).unwrap();
        // What has the same times counts as the same.
        let times = Attributes::new().with(names::MODIFIED, seed.cast_signed());
        let entry = Entry::file(path, times, bytes).with_layout(layout);
        store.insert(entry).await.unwrap();
    };
    for number in 0..40 {
        insert(format!("many/{number}"), noise(seed + number, 3000), Layout::Stream).await;
    }
    insert("large".into(), noise(seed, 3_000_000), Layout::Stream).await;
    insert("pages".into(), noise(seed / 2, 1_000_000), Layout::Pages(8192)).await;
}

async fn assert_restores(repository: &Repository, store: &MemoryStore) {
    let info = repository.find("latest", None).await.unwrap();
    let snapshot = repository.snapshot(&info.id).await.unwrap();
    let target = MemoryStore::new("target");
    let options = TransferOptions::default();
    let source = snapshot.source(&Selection::all());
    transfer(&source, &target, &options, &Context::silent()).await.unwrap();
    let (came, expected) = (target.image(), store.image());
    assert!(came.keys().eq(expected.keys()), "other entries came back");
    for (path, entry) in expected.iter() {
        assert!(came[path] == *entry, "{path} came back different");
    }
}

async fn assert_sound(repository: &Repository) {
    let report = repository.check(&CheckOptions::every_byte(), &Context::silent()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.damage);
}

async fn back_up(store: &MemoryStore, repository: &Repository) -> lifeboat::Result<()> {
    let sink = repository.sink(&WriteOptions::default());
    let options = TransferOptions::default();
    transfer(store, &sink, &options, &Context::silent()).await.map(drop)
}

fn seeds() -> Vec<u64> {
    let given = std::env::var("LIFEBOAT_SEED").ok().and_then(|seed| seed.parse().ok());
    let first = u64::from(std::process::id()) * 1000;
    given.map_or_else(|| vec![first, first + 1], |seed| vec![seed])
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_in_any_weather() {
    for seed in seeds() {
        println!("seed: LIFEBOAT_SEED={seed}");
        let kinds = Fault::ALL.to_vec();
        let faults = Faults { kinds, chance: 0.15, stall: STALL, ..Faults::default() };
        let near = Behind::new(format!("near-{seed}"), seed, &faults).await;
        let far = Behind::new(format!("far-{seed}"), seed + 7, &faults).await;
        let store = MemoryStore::new("store");
        for round in 0..2 {
            change(&store, seed + round).await;
            back_up(&store, &near.repository).await.unwrap();
            assert_restores(&near.repository, &store).await;
            let (options, context) = (CopyOptions::default(), Context::silent());
            let copying = near.repository.copy_to(&far.repository, &options, &context);
            assert_eq!(copying.await.unwrap().copied.len(), 1);
            assert_restores(&far.repository, &store).await;
        }
        for behind in [&near, &far] {
            assert_sound(&behind.repository).await;
            let direct = behind.direct().await;
            assert_eq!(direct.snapshots().await.unwrap().snapshots.len(), 2);
            assert_sound(&direct).await;
            assert_restores(&direct, &store).await;
            let (tried, injected) = (behind.retries.count(), behind.faults());
            println!("{tried} tries again, {:?}", behind.proxy.injected());
            // Each failure leads to one more try at most, and is counted.
            assert!(tried > 0 && tried <= injected, "{tried} tries again for {injected} faults");
        }
    }
}

/// Each fault alone, on every third request.
#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_overcome() {
    for (number, kind) in Fault::ALL.into_iter().enumerate() {
        let is_slow = matches!(kind, Fault::Stall | Fault::LateAnswer);
        let chance = if is_slow { 0.1 } else { 0.3 };
        let faults = Faults { kinds: vec![kind], chance, stall: STALL, ..Faults::default() };
        let seed = 11 + number as u64;
        println!("{kind:?}: seed {seed}");
        let behind = Behind::new(format!("each-{number}"), seed, &faults).await;
        let store = MemoryStore::new("store");
        change(&store, seed).await;
        back_up(&store, &behind.repository).await.unwrap();
        assert_restores(&behind.repository, &store).await;
        let direct = behind.direct().await;
        assert_sound(&direct).await;
        assert_restores(&direct, &store).await;
        assert!(behind.retries.count() > 0 && behind.retries.count() <= behind.faults());
    }
}

/// An outage ends a backup within the time that it is given, leaves nothing half done, and the next
/// one succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_an_error_in_time_and_no_damage() {
    let behind = Behind::new("outage".into(), 3, &Faults::default()).await;
    let store = MemoryStore::new("store");
    change(&store, 1).await;
    back_up(&store, &behind.repository).await.unwrap();
    let mut short = options();
    short.patience.give_up = Duration::from_secs(2);
    let endpoint = behind.proxy.endpoint();
    let repository = opened(&place(&endpoint, &behind.bucket), &short).await;
    change(&store, 2).await;
    for kind in [Fault::SlowDown, Fault::InternalError, Fault::Reset, Fault::LostAnswer] {
        behind.proxy.set(Faults::always(kind));
        let began = Instant::now();
        let error = back_up(&store, &repository).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.one_line());
        assert!(error.is_retryable());
        assert!(began.elapsed() < Duration::from_secs(30), "{kind:?}: {:?}", began.elapsed());
        behind.proxy.heal();
        let direct = behind.direct().await;
        assert_eq!(direct.snapshots().await.unwrap().snapshots.len(), 1, "{kind:?}");
        assert_sound(&direct).await;
    }
    back_up(&store, &repository).await.unwrap();
    assert_restores(&behind.direct().await, &store).await;
}
