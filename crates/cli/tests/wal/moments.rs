//! Any moment back: servers under load whose state is written down at many moments, lost, and
//! recovered to some of them.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lifeboat_testbed::postgres::{Cluster, Installation, Mode, installations};
use serde_json::Value;

use crate::scene::{LIMIT, Scene, Shop, block_on};
use crate::streamed::{Service, position};

/// What the server says of itself just after a step was committed, and before the next began.
#[derive(Debug, Clone)]
struct Moment {
    step: i64,
    time: String,
    lsn: String,
    xid: String,
}

/// A table to which one step after the other is added, beside others' load.
struct Steps {
    client: tokio_postgres::Client,
    done: i64,
    moments: Vec<Moment>,
    /// When each step was acknowledged.
    acknowledged: Vec<Instant>,
}

impl Steps {
    async fn open(cluster: &Cluster) -> Self {
        let client = cluster.connect("postgres").await.unwrap();
        let tables = "CREATE TABLE steps (n bigint PRIMARY KEY); CREATE TABLE tally (total bigint); \
                      INSERT INTO tally VALUES (0); CREATE TABLE noise (id bigserial, what text)";
        client.batch_execute(tables).await.unwrap();
        Self { client, done: 0, moments: Vec::new(), acknowledged: Vec::new() }
    }

    async fn step(&mut self) {
        let n = self.done + 1;
        let work = format!(
            "WITH step AS (INSERT INTO steps VALUES ({n}) RETURNING n) \
             UPDATE tally SET total = total + step.n FROM step RETURNING pg_current_xact_id()::text"
        );
        let xid = self.client.query_one(&work, &[]).await.unwrap().get(0);
        self.acknowledged.push(Instant::now());
        self.done = n;
        let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', \
                   'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), pg_current_wal_insert_lsn()::text";
        let row = self.client.query_one(now, &[]).await.unwrap();
        self.moments.push(Moment { step: n, time: row.get(0), lsn: row.get(1), xid });
    }

    async fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step().await;
        }
    }
}

/// Others who write meanwhile. Dropping it does not stop them; [`Load::stop`] does.
struct Load {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    async fn start(cluster: &Cluster) -> Self {
        let client = cluster.connect("postgres").await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let insert = "INSERT INTO noise (what) SELECT repeat(md5(n::text), 9) FROM generate_series(1, 40) n";
            // It ends with the server, too.
            while !told.load(Ordering::Relaxed) && client.batch_execute(insert).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

/// Restores to a target, lets the server recover, and says at which step it stands.
async fn step_at(scene: &Scene, installation: &Installation, name: &str, target: &[&str]) -> i64 {
    let cluster = recovered(scene, installation, name, target).await;
    let client = cluster.connect("postgres").await.unwrap();
    let row = client
        .query_one(
            "SELECT coalesce(max(n), 0), count(*), coalesce(sum(n), 0)::bigint, \
             (SELECT total FROM tally) FROM steps",
            &[],
        )
        .await
        .unwrap();
    let (last, count, sum, total): (i64, i64, i64, i64) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!((count, sum), (last, total), "{target:?} is no moment:\n{}", cluster.log());
    last
}

async fn recovered(
    scene: &Scene,
    installation: &Installation,
    name: &str,
    target: &[&str],
) -> Cluster {
    let data = restore(scene, name, target);
    let cluster = Cluster::builder().installation(installation).patience(LIMIT);
    let cluster = cluster.adopt(&data).unwrap();
    cluster.wait_until_writable(LIMIT).await.unwrap();
    cluster
}

fn restore(scene: &Scene, name: &str, target: &[&str]) -> PathBuf {
    let data = scene.path(name);
    let to = data.to_str().unwrap();
    let mut arguments = vec!["restore", "latest", "--store", "postgres/shop", "--to", to];
    arguments.extend(["--no-archiving"].iter().chain(target));
    scene.run(&arguments, 0);
    data
}

/// The error that a target is refused with; nothing is made.
fn refused(scene: &Scene, target: &[&str]) -> String {
    let data = scene.path("refused");
    let to = data.to_str().unwrap();
    let mut arguments = vec!["restore", "latest", "--store", "postgres/shop", "--to", to];
    arguments.extend(target);
    let ended = scene.run(&arguments, 1);
    assert!(!data.exists());
    ended.stderr
}

fn backup(scene: &Scene, cluster: &Cluster) {
    let conninfo = cluster.conninfo();
    scene.run(&["backup", "postgres", "--name", "shop", "--conninfo", &conninfo], 0);
}

fn events(text: &str, name: &str) -> Vec<Value> {
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == name).collect()
}

/// A server under load, streamed, backed up twice, and killed.
async fn lost(scene: &Scene, installation: &Installation) -> (Steps, Instant, String) {
    let mut cluster = Cluster::start(installation).unwrap();
    let service = Service::start(scene, &cluster);
    let mut steps = Steps::open(&cluster).await;
    let before: String = {
        let sql = "SELECT pg_current_wal_insert_lsn()::text";
        steps.client.query_one(sql, &[]).await.unwrap().get(0)
    };
    let load = Load::start(&cluster).await;
    steps.steps(5).await;
    backup(scene, &cluster);
    steps.steps(40).await;
    let name = "SELECT pg_create_restore_point('before the sale')";
    steps.client.execute(name, &[]).await.unwrap();
    steps.steps(40).await;
    backup(scene, &cluster);
    steps.steps(60).await;
    // Everything so far is in the repository.
    let flushed = &steps.moments.last().unwrap().lsn.clone();
    let begun = Instant::now();
    while service.stored() < position(flushed) {
        assert!(begun.elapsed() < LIMIT, "{flushed} is not stored");
        steps.step().await;
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        steps.step().await;
    }
    cluster.kill().unwrap();
    let killed = Instant::now();
    load.stop().await;
    // The service is given no time to receive more than it had.
    drop(service);
    (steps, killed, before)
}

fn any_moment(installation: &Installation, targets: usize) {
    let scene = Scene::new();
    let seed = RandomState::new().hash_one(0);
    println!("seed {seed}");
    let random = |n: usize, of: usize| {
        // Weyl's sequence: well spread, and the seed repeats it.
        let turned = seed.wrapping_add((n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        (turned >> 33) as usize % of
    };
    block_on(async {
        let (steps, killed, before) = lost(&scene, installation).await;
        // From the first backup's end on, and up to what is known to be stored.
        let known: Vec<_> = steps.moments.iter().filter(|m| (6..=145).contains(&m.step)).collect();
        for n in 0..targets {
            let moment = known[random(n, known.len())];
            let exclusive = if random(n + 100, 2) == 0 { &["--exclusive"][..] } else { &[] };
            let (words, expected) = match n % 3 {
                0 => (["--to-time", &moment.time], moment.step),
                1 => (["--to-lsn", &moment.lsn], moment.step),
                _ if exclusive.is_empty() => (["--to-xid", &moment.xid], moment.step),
                _ => (["--to-xid", &moment.xid], moment.step - 1),
            };
            let mut words = words.to_vec();
            words.extend(exclusive);
            // Half of them with the repository at hand, as a server has it.
            if random(n + 200, 2) == 0 {
                words.extend(["--wal", "command"]);
            }
            println!("{n}: {words:?} should be step {expected}");
            let found = step_at(&scene, installation, &format!("to{n}"), &words).await;
            assert_eq!(found, expected, "seed {seed}, {words:?}");
        }
        let name = ["--to-name", "before the sale"];
        assert_eq!(step_at(&scene, installation, "named", &name).await, 45);

        // The end: what was acknowledged two seconds before the kill is there.
        let enough = steps
            .acknowledged
            .iter()
            .take_while(|at| killed.duration_since(**at) > Duration::from_secs(2))
            .count();
        let found = step_at(&scene, installation, "latest", &["--to-latest"]).await;
        assert!(found >= i64::try_from(enough).unwrap() && found <= steps.done + 1, "{found}");
        bad_targets(&scene, &steps, &before);
    });
}

fn bad_targets(scene: &Scene, steps: &Steps, before: &str) {
    let first = &steps.moments[0];
    for (words, said) in [
        (["--to-time", &first.time], "before the first moment"),
        (["--to-lsn", before], "before the first moment"),
        (["--to-time", "2099-01-01T00:00:00Z"], "the WAL ends at"),
        (["--to-lsn", "7F/0"], "the WAL ends at"),
        (["--to-xid", "4000000000"], "is not in the WAL"),
        (["--to-name", "never made"], "is not in the WAL"),
    ] {
        let told = refused(scene, &words);
        assert!(told.contains(said), "{words:?}: {told}");
    }
    let told = refused(scene, &["--to-latest", "--timeline", "7"]);
    assert!(told.contains("no timeline 7; it knows 1"), "{told}");
    let window = scene.run(&["window", "--json"], 0).stdout;
    let windows = events(&window, "window");
    assert_eq!(windows.len(), 1, "{window}");
    assert_eq!(windows[0]["bases"].as_array().unwrap().len(), 2);
    assert!(position(windows[0]["to"].as_str().unwrap()) >= position(&steps.moments[144].lsn));
    let dry = scene.path("dry");
    let to = dry.to_str().unwrap();
    let arguments =
        ["restore", "latest", "--store", "shop", "--to", to, "--to-latest", "--dry-run", "--json"];
    let plan = scene.run(&arguments, 0).stdout;
    assert_eq!(events(&plan, "plan").len(), 1, "{plan}");
    assert!(!dry.exists());
}

#[test]
fn any_moment_of_the_newest_server_comes_back() {
    any_moment(installations().last().unwrap(), 10);
}

#[test]
fn any_moment_of_the_others_comes_back() {
    let all = installations();
    for installation in &all[..all.len() - 1] {
        any_moment(installation, 3);
    }
}

/// Nothing happened between the last transaction and the moment that is wanted: the server alone
/// would not start.
#[test]
fn a_moment_after_the_last_transaction_comes_back() {
    let installation = &installations()[0];
    let scene = Scene::new();
    let mut cluster = scene.cluster(installation).start().unwrap();
    block_on(async {
        let shop = Shop::open(&cluster).await;
        shop.sell(10).await;
        backup(&scene, &cluster);
        let rows = shop.sell(10).await;
        // Within the second in which the segment is ended.
        let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', \
                   'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        let time: String = shop.0.query_one(now, &[]).await.unwrap().get(0);
        shop.archive(&cluster).await;
        cluster.kill().unwrap();
        let second = recovered(&scene, installation, "quiet", &["--to-time", &time]).await;
        assert_eq!(Shop::of(&second).await.count().await, rows);
    });
}

async fn timeline(cluster: &Cluster) -> i32 {
    let client = cluster.connect("postgres").await.unwrap();
    let sql = "SELECT timeline_id FROM pg_control_checkpoint()";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// A server that was set back, and the one before it: each timeline comes back, and the one that
/// is not taken is told of.
#[test]
fn both_timelines_of_a_server_that_was_set_back_come_back() {
    let installation = installations().pop().unwrap();
    let scene = Scene::new();
    let mut first = scene.cluster(&installation).start().unwrap();
    block_on(async {
        let shop = Shop::open(&first).await;
        shop.sell(10).await;
        backup(&scene, &first);
        let early = shop.sell(10).await;
        let sql = "SELECT pg_create_restore_point('early')";
        shop.0.execute(sql, &[]).await.unwrap();
        shop.archive(&first).await;
        shop.sell(10).await;
        shop.archive(&first).await;
        let late = shop.sell(10).await;
        shop.archive(&first).await;
        first.stop(Mode::Fast).unwrap();

        // Set back, and it goes on in timeline 2, into the same archive.
        let data = scene.path("second");
        let to = data.to_str().unwrap();
        let store = ["restore", "latest", "--store", "shop", "--to", to, "--to-name", "early"];
        scene.run(&store, 0);
        let mut second =
            Cluster::builder().installation(&installation).patience(LIMIT).adopt(&data).unwrap();
        second.wait_until_writable(LIMIT).await.unwrap();
        let shop = Shop::of(&second).await;
        assert_eq!(shop.count().await, early);
        let other = shop.sell(7).await;
        shop.archive(&second).await;
        second.stop(Mode::Fast).unwrap();

        let newest = recovered(&scene, &installation, "newest", &["--to-latest"]).await;
        assert_eq!(Shop::of(&newest).await.count().await, other, "{}", newest.log());
        let old =
            recovered(&scene, &installation, "old", &["--to-latest", "--timeline", "1"]).await;
        assert_eq!(Shop::of(&old).await.count().await, late, "{}", old.log());
        // Timeline 2 is taken.
        assert_eq!(timeline(&old).await, 3);
        let plain = recovered(&scene, &installation, "plain", &[]).await;
        assert_eq!(timeline(&plain).await, 3);
        let dry = scene.path("dry");
        let dry = dry.to_str().unwrap();
        let told = scene.run(
            &["restore", "latest", "--store", "shop", "--to", dry, "--to-latest", "--dry-run"],
            0,
        );
        assert!(told.stderr.contains("--timeline 1 goes there"), "{}", told.stderr);
        let window = scene.run(&["window", "--json"], 0).stdout;
        let lines: Vec<_> =
            events(&window, "window").iter().map(|one| one["timeline"].as_u64()).collect();
        assert_eq!(lines, [Some(1), Some(2)], "{window}");

        // A standby of the second, from the archive alone: it stays a standby.
        let data = scene.path("standby");
        let to = data.to_str().unwrap();
        let store = ["restore", "latest", "--store", "shop", "--to", to, "--as-standby"];
        scene.run(&store, 0);
        assert!(stands_by(&installation, &data, other).await);
    });
}

/// Whether a server is in recovery, and stays there, once it has these rows.
async fn stands_by(installation: &Installation, data: &Path, rows: i64) -> bool {
    let cluster = Cluster::builder().installation(installation).patience(LIMIT);
    let cluster = cluster.adopt(data).unwrap();
    let begun = Instant::now();
    loop {
        if let Ok(client) = cluster.connect("postgres").await {
            let shop = Shop(client);
            if shop.count().await == rows {
                let row = shop.0.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap();
                return row.get(0);
            }
        }
        assert!(begun.elapsed() < LIMIT, "{}", cluster.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A segment in the middle is lost: what is before the gap comes back, and what is after it from a
/// later base; nothing pretends to go over it.
#[test]
fn a_gap_is_never_recovered_over() {
    let installation = installations().pop().unwrap();
    let scene = Scene::new();
    let mut cluster = scene.cluster(&installation).start().unwrap();
    block_on(async {
        let shop = Shop::open(&cluster).await;
        backup(&scene, &cluster);
        let before = shop.sell(10).await;
        shop.archive(&cluster).await;
        shop.sell(10).await;
        let lost = shop.archive(&cluster).await;
        shop.sell(10).await;
        shop.archive(&cluster).await;
        cluster.kill().unwrap();
        let place = scene.segments().into_iter().find(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let segment = u64::from_str_radix(&name[..16], 16).unwrap() >> 24;
            format!("{:024X}", (1_u128 << 64) + u128::from(segment)) == lost
        });
        std::fs::remove_file(place.unwrap()).unwrap();
        let told = refused(&scene, &["--to-latest"]);
        assert!(told.contains("has a gap from"), "{told}");
        let upto = told.split("--to-lsn ").nth(1).unwrap().split(';').next().unwrap().to_owned();
        let second = recovered(&scene, &installation, "before", &["--to-lsn", &upto]).await;
        assert_eq!(Shop::of(&second).await.count().await, before, "{}", second.log());
        let window = scene.run(&["window"], 3).stdout;
        assert!(window.contains("lacks"), "{window}");
    });
}

/// A cluster whose disk was set back goes on in its old timeline with another history. The WAL of the first one leads nowhere from its snapshots, and is not taken for it.
#[test]
fn wal_of_another_history_is_not_replayed() {
    let installation = &installations()[0];
    let scene = Scene::new();
    let mut cluster = scene.cluster(installation).start().unwrap();
    block_on(async {
        let shop = Shop::open(&cluster).await;
        shop.sell(10).await;
        backup(&scene, &cluster);
        let first = shop.sell(1000).await;
        for _ in 0..3 {
            shop.sell(10).await;
            shop.archive(&cluster).await;
        }
        cluster.stop(Mode::Fast).unwrap();

        let data = scene.path("again");
        let to = data.to_str().unwrap();
        scene.run(&["restore", "latest", "--store", "shop", "--to", to, "--no-archiving"], 0);
        let again = Cluster::builder().installation(installation).patience(LIMIT);
        let again = again.adopt_in_old_timeline(&data).unwrap();
        let shop = Shop::of(&again).await;
        assert!(shop.sell(7).await < first);
        backup(&scene, &again);

        let told = refused(&scene, &["--to-latest"]);
        assert!(told.contains("two histories"), "{told}");
        let told = refused(&scene, &["--to-latest", "--wal", "command"]);
        assert!(told.contains("two histories"), "{told}");
        // By itself it comes back.
        let alone = recovered(&scene, installation, "alone", &[]).await;
        assert!(Shop::of(&alone).await.count().await < first);
    });
}
