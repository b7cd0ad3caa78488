//! `lifeboat follow postgres`: a service that keeps the WAL of a server.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lifeboat_testbed::postgres::{Cluster, newest};
use serde_json::Value;

use crate::common::{Home, LIMIT};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

fn run_sql(cluster: &Cluster, sql: &str) {
    block_on(async {
        cluster.connect("postgres").await.unwrap().batch_execute(sql).await.unwrap();
    });
}

fn ask(cluster: &Cluster, sql: &str) -> String {
    block_on(async {
        cluster.connect("postgres").await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
    })
}

/// A position as PostgreSQL writes it: the high half, and the low one.
fn position(text: &Value) -> u64 {
    let (high, low) = text.as_str().unwrap().split_once('/').unwrap();
    (u64::from_str_radix(high, 16).unwrap() << 32) + u64::from_str_radix(low, 16).unwrap()
}

/// The service, with its events in a file. Dropping it kills it.
struct Service {
    child: Child,
    home: Home,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn start(home: Home, cluster: &Cluster, more: &[&str]) -> Self {
        let conninfo = cluster.conninfo();
        let mut arguments =
            vec!["follow", "postgres", "--name", "shop", "--conninfo", &conninfo, "--json"];
        arguments.extend(more);
        let out = fs::File::create(home.path("events")).unwrap();
        let said = fs::File::create(home.path("said")).unwrap();
        let mut command = home.command(&arguments);
        command.envs(cluster.password().map(|password| ("PGPASSWORD", password)));
        let child = command.stdin(Stdio::null()).stdout(out).stderr(said).spawn().unwrap();
        Self { child, home }
    }

    fn events(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.home.path("events")).unwrap();
        // The last line may still be on its way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let events = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["event"] == name).collect()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.home.path("said")).unwrap()
    }

    /// Waits until all that the server has is stored.
    fn catches_up(&mut self, cluster: &Cluster) {
        let flushed = position(&ask(cluster, "SELECT pg_current_wal_flush_lsn()::text").into());
        let began = Instant::now();
        loop {
            let stored = self.events("durable").into_iter().map(|event| position(&event["to"]));
            if stored.max().is_some_and(|stored| stored >= flushed) {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: {}", self.said());
            assert!(began.elapsed() < LIMIT, "it never caught up: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it as an operator's service manager does, and waits for its end.
    fn stop(mut self) -> Home {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < LIMIT, "it does not stop: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(0), "{}", self.said());
        let summary = self.events("summary").pop().unwrap();
        assert_eq!(summary["exit"], 0);
        // The service is over; what it stored stays.
        std::mem::replace(&mut self.home, Home::empty())
    }
}

#[test]
fn a_server_is_followed_until_the_service_is_stopped() {
    let cluster = Cluster::builder().installation(newest().unwrap()).password("hunter2").start();
    let cluster = cluster.unwrap();
    let mut service = Service::start(Home::new(), &cluster, &[]);
    run_sql(&cluster, "CREATE TABLE t AS SELECT generate_series(1, 10000) i");
    service.catches_up(&cluster);
    let begun = service.events("streaming").pop().unwrap();
    let id = ask(&cluster, "SELECT system_identifier::text FROM pg_control_system()");
    assert_eq!(
        (&begun["system_id"], &begun["timeline"]),
        (&Value::from(id.clone()), &Value::from(1))
    );
    assert!(service.said().contains("following 127.0.0.1"), "{}", service.said());
    // What it may forget is what is stored.
    let behind = "SELECT (restart_lsn >= pg_current_wal_flush_lsn() - 8192)::text \
                  FROM pg_replication_slots WHERE slot_name = 'lifeboat' AND active";
    let began = Instant::now();
    while ask(&cluster, behind) != "true" {
        assert!(began.elapsed() < LIMIT, "nothing was acknowledged");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!service.said().contains("hunter2"));
    let home = service.stop();
    let listed = home.run(&["journals", "--json"]).expect(0);
    let line = listed.events_of("timeline").pop().unwrap();
    assert_eq!(line["journal"], "postgres/shop/wal");
    assert_eq!(line["timeline"], format!("{id}/1"));
    assert_eq!(line["gaps"], 0);

    // It goes on where it was, with nothing lost in between.
    run_sql(&cluster, "INSERT INTO t SELECT generate_series(1, 10000); SELECT pg_switch_wal()");
    let mut service = Service::start(home, &cluster, &[]);
    run_sql(&cluster, "INSERT INTO t SELECT generate_series(1, 10000)");
    service.catches_up(&cluster);
    let home = service.stop();
    let listed = home.run(&["journals", "--json"]).expect(0);
    let again = listed.events_of("timeline").pop().unwrap();
    assert_eq!((&again["gaps"], &again["from"]), (&Value::from(0), &line["from"]));
    home.run(&["verify", "--every-byte"]).expect(0);
}

#[test]
fn what_cannot_be_followed_says_why() {
    let home = Home::new();
    let cluster = Cluster::builder().installation(newest().unwrap()).password("right").start();
    let cluster = cluster.unwrap();
    let conninfo = cluster.conninfo();
    let follow = ["follow", "postgres", "--name", "shop", "--conninfo", &conninfo];
    let ran = home.run(&follow).expect(1);
    ran.error_says(&["password", "PGPASSWORD"]);
    let mut command = home.command(&follow);
    command.env("PGPASSWORD", "wrong-secret");
    let ran = crate::common::run(&mut command).expect(1);
    ran.error_says(&["password authentication failed", "check the role's password"]);
    assert!(!ran.to_string().contains("wrong-secret"), "{ran}");
    let mut with_slot = follow.to_vec();
    with_slot.extend(["--slot", "Not a slot"]);
    home.run(&with_slot).expect(2).error_says(&["lower-case letters"]);
    let secret = ["follow", "postgres", "--name", "x", "--conninfo", "host=a password=b"];
    home.run(&secret).expect(2).error_says(&["PGPASSWORD"]);
}

#[test]
fn a_refused_server_keeps_nothing_of_it() {
    let start = || Cluster::builder().installation(newest().unwrap()).start().unwrap();
    let (one, other) = (start(), start());
    let mut service = Service::start(Home::new(), &one, &[]);
    service.catches_up(&one);
    let home = service.stop();
    let conninfo = other.conninfo();
    let follow = ["follow", "postgres", "--name", "shop", "--conninfo", &conninfo];
    home.run(&follow).expect(1).error_says(&["wal adopt"]);
    assert_eq!(ask(&other, "SELECT count(*)::text FROM pg_replication_slots"), "0");
}

#[test]
fn a_key_that_may_only_write_is_enough() {
    let cluster = Cluster::builder().installation(newest().unwrap()).start().unwrap();
    let mut home = Home::new();
    fs::write(home.path("other"), "another-passphrase-1f\n").unwrap();
    let other = home.arg("other");
    let add = ["key", "add", "--label", "server", "--write-only", "--new-passphrase-file", &other];
    home.run(&add).expect(0);
    // Twice: the second one finds pieces that it may not read.
    for rows in [1000, 2000] {
        let mut service = Service::start(home, &cluster, &["--passphrase-file", &other]);
        let sql = format!("CREATE TABLE t{rows} AS SELECT generate_series(1, {rows}) i");
        run_sql(&cluster, &sql);
        service.catches_up(&cluster);
        assert_eq!(service.events("warning"), [] as [Value; 0]);
        home = service.stop();
    }
    let listed = home.run(&["journals", "--json"]).expect(0);
    assert_eq!(listed.events_of("timeline").pop().unwrap()["gaps"], 0);
    home.run(&["verify", "--every-byte"]).expect(0);
}
