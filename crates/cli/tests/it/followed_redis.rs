//! `lifeboat follow redis`, and the way back to any moment.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lifeboat_testbed::redis::{Server, newest};
use serde_json::Value;

use crate::common::{Home, LIMIT};

/// The service, with its events in a file. Dropping it kills it.
struct Service {
    child: Child,
    events: std::path::PathBuf,
    said: std::path::PathBuf,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn start(home: &Home, url: &str) -> Self {
        Self::start_with(home, url, &[])
    }

    fn start_with(home: &Home, url: &str, more: &[&str]) -> Self {
        let (events, said) = (home.path("events"), home.path("said"));
        let follow = ["follow", "redis", "--name", "cache", "--url", url, "--json"];
        let mut command = home.command(&[&follow[..], more].concat());
        command.stdout(fs::File::create(&events).unwrap());
        command.stderr(fs::File::create(&said).unwrap()).stdin(Stdio::null());
        Self { child: command.spawn().unwrap(), events, said }
    }

    fn events(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.events).unwrap();
        // The last line may still be on its way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let events = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["event"] == name).collect()
    }

    fn waits(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            let said = fs::read_to_string(&self.said).unwrap();
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: {said}");
            assert!(began.elapsed() < LIMIT, "never: {what}: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn has_base(&mut self) {
        self.waits("a base", |it| !it.events("base").is_empty());
    }

    /// Waits until all that the server has done is stored.
    fn catches_up(&mut self, server: &Server) {
        let info = server.ask(&["INFO", "replication"]).unwrap();
        let offset = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
        let offset: u64 = offset.unwrap().trim().parse().unwrap();
        let to = |event: &Value| event["to"].as_str().unwrap().parse::<u64>().unwrap();
        self.waits("all is stored", |it| it.events("durable").iter().any(|one| to(one) >= offset));
    }

    /// Stops it as a service manager does.
    fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < LIMIT, "it does not stop");
            std::thread::sleep(Duration::from_millis(20));
        };
        let said = fs::read_to_string(&self.said).unwrap();
        assert_eq!(status.code(), Some(0), "{said}");
        assert_eq!(self.events("summary").pop().unwrap()["exit"], 0);
    }
}

/// Now, as `--to-time` takes it.
fn now() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_server_comes_back_as_it_was_at_any_moment() {
    let home = Home::new();
    let server = Server::start(newest().unwrap()).unwrap();
    let before_all = now();
    server.run("SET a 1\nSELECT 4\nHSET h f v\n").unwrap();
    let mut service = Service::start(&home, &server.url());
    service.has_base();
    server.run("SET a 2\nMULTI\nRPUSH l 1\nRPUSH l 2\nEXEC\n").unwrap();
    service.catches_up(&server);
    let (then, digest) = (now(), server.digest().unwrap());
    server.run("FLUSHALL\nSET oops 1\n").unwrap();
    service.catches_up(&server);
    service.stop();
    // A second run goes on where the first one ended.
    server.run("SET again 1\n").unwrap();
    let mut service = Service::start(&home, &server.url());
    service.catches_up(&server);
    assert!(service.events("base").is_empty());
    assert_eq!(service.events("warning"), [] as [Value; 0]);
    service.stop();
    let (last, server_url) = (server.digest().unwrap(), server.url());
    drop(server);

    let listed = home.run(&["window", "--store", "redis/cache", "--json"]).expect(0);
    let window = listed.events_of("window").pop().unwrap();
    assert_eq!(window["bases"].as_array().unwrap().len(), 1);
    assert!(window["from_time"].as_str().unwrap() < then.as_str(), "{window}");
    assert!(window["to_time"].as_str().unwrap() > then.as_str(), "{window}");
    let listed = home.run(&["journals", "--json"]).expect(0);
    let line = listed.events_of("timeline").pop().unwrap();
    assert_eq!((&line["journal"], &line["gaps"]), (&"redis/cache/stream".into(), &0.into()));
    assert_eq!(line["timeline"], window["replication_id"]);

    let file = home.arg("alone.rdb");
    let ran = home.run(&["restore", "latest", "--store", "redis/cache", "--to", &file]).expect(0);
    assert!(ran.0.stderr.contains("--to-latest restores that"), "{ran}");
    let to = home.arg("then");
    let restore = |at: &str, more: &[&str]| {
        let words = ["restore", "latest", "--store", "redis/cache", "--to", &to, "--to-time", at];
        home.run(&[&words[..], more].concat())
    };
    restore(&before_all, &[]).expect(1).error_says(&["the first moment that can is", "window"]);
    restore("2125-01-01T00:00:00Z", &[]).expect(1).error_says(&["ends at", "--to-latest"]);
    restore(&then, &["--exclusive"]).expect(2).error_says(&["--exclusive is for PostgreSQL"]);
    restore(&then, &["--force"]).expect(2).error_says(&["--force"]);
    let plan = restore(&then, &["--dry-run", "--json"]).expect(0).events_of("plan").pop().unwrap();
    assert_eq!(plan["replication_id"], window["replication_id"]);
    assert!(!home.path("then").exists());
    let ran = restore(&then, &[]).expect(0);
    assert!(ran.0.stderr.contains("next: start the server with \"appendonly yes\""), "{ran}");
    let names = |dir: &str| {
        let entries = fs::read_dir(home.path(dir)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("then"), ["appendonlydir"]);
    let (base, incr) = ("appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof");
    assert_eq!(names("then/appendonlydir"), [base, incr, "appendonly.aof.manifest"]);
    let restored = |dir: &str| {
        let builder = Server::builder(newest().unwrap()).setting("appendonly", "yes");
        builder.files(home.path(dir)).start().unwrap()
    };
    assert_eq!(restored("then").digest().unwrap(), digest);
    // What is there is not touched.
    for more in [&[][..], &["--dry-run"]] {
        restore(&then, more).expect(1).error_says(&["there is something in it already"]);
    }
    let latest = home.arg("latest");
    let all = ["restore", "latest", "--store", "cache", "--to", &latest, "--to-latest"];
    home.run(&all).expect(0);
    assert_eq!(restored("latest").digest().unwrap(), last);
    let programs = newest().unwrap().directory().unwrap();
    let programs = ["--programs", programs.path().to_str().unwrap()];
    let rehearse = ["verify", "--restore", "latest", "--store", "cache", "--to-latest", "--json"];
    let summary = home.run(&[&rehearse[..], &programs].concat()).expect(0).end();
    // FLUSHALL, and then two keys.
    assert_eq!((&summary["keys"], &summary["sound"]), (&2.into(), &true.into()), "{summary}");
    let before = ["verify", "--restore", "latest", "--store", "cache", "--to-time", &then];
    let ran = home.run(&[&before[..], &programs].concat()).expect(0);
    assert!(ran.0.stderr.contains("sound: 3 keys in 2 databases"), "{ran}");
    home.run(&["verify", "--every-byte"]).expect(0);
    // Into a running server: one that is empty, or that may be replaced.
    let running = Server::start(newest().unwrap()).unwrap();
    let url = running.url();
    let into = ["restore", "latest", "--store", "cache", "--into", &url, "--to-time", &then];
    home.run(&into).expect(0);
    assert_eq!(running.digest().unwrap(), digest);
    let into = ["restore", "latest", "--store", "cache", "--into", &url, "--to-latest"];
    home.run(&into).expect(1).error_says(&["it holds 3 keys", "--replace-all"]);
    home.run(&[&into[..], &["--dry-run"]].concat()).expect(1).error_says(&["--replace-all"]);
    home.run(&[&into[..], &["--dry-run", "--replace-all"]].concat()).expect(0);
    assert_eq!(running.digest().unwrap(), digest);
    home.run(&[&into[..], &["--replace-all"]].concat()).expect(0);
    assert_eq!(running.digest().unwrap(), last);

    // The server comes back empty: its end is not what was lost, and that is said.
    let look = ["restore", "latest", "--store", "cache", "--to-latest", "--dry-run"];
    assert!(!home.run(&look).expect(0).0.stderr.contains("does not go on"));
    let empty = Server::start(newest().unwrap()).unwrap();
    empty.ask(&["SET", "new", "1"]).unwrap();
    // At another address, it may be another server.
    let follow = ["follow", "redis", "--name", "cache", "--url", &empty.url()];
    let known = server_url.trim_start_matches("redis://");
    home.run(&follow).expect(1).error_says(&[known, "--adopt"]);
    let mut service = Service::start_with(&home, &empty.url(), &["--adopt"]);
    service.has_base();
    service.catches_up(&empty);
    drop(service);
    // It is the one that counts now.
    let mut service = Service::start(&home, &empty.url());
    service.waits("it is followed", |it| !it.events("streaming").is_empty());
    drop(service);
    let ran = home.run(&look).expect(0);
    let told = ran.0.stderr.split_once("does not go on from").unwrap().1;
    let at = told.split_once("--to-time ").unwrap().1.split_once(' ').unwrap().0;
    let former = home.arg("former");
    let words = ["restore", "latest", "--store", "cache", "--to", &former, "--to-time", at];
    home.run(&words).expect(0);
    assert_eq!(restored("former").digest().unwrap(), last);
}

#[test]
fn what_cannot_be_followed_says_why() {
    let home = Home::new();
    let server =
        Server::builder(newest().unwrap()).setting("requirepass", "hunter2-9f").start().unwrap();
    let follow = ["follow", "redis", "--name", "cache", "--url", &server.url()];
    let ran = home.run(&follow).expect(1);
    ran.error_says(&["NOAUTH", "REDISCLI_AUTH"]);
    fs::write(home.path("password"), "wrong-9f\n").unwrap();
    let password = home.arg("password");
    let ran = home.run(&[&follow[..], &["--password-file", &password]].concat()).expect(1);
    ran.error_says(&["WRONGPASS"]);
    assert!(!ran.to_string().contains("wrong-9f"), "{ran}");
}

#[test]
fn a_key_that_may_only_write_is_enough() {
    let home = Home::new();
    fs::write(home.path("other"), "another-passphrase-1f\n").unwrap();
    let other = home.arg("other");
    let add = ["key", "add", "--label", "server", "--write-only", "--new-passphrase-file", &other];
    home.run(&add).expect(0);
    let server = Server::start(newest().unwrap()).unwrap();
    for value in ["1", "2"] {
        let more = ["--passphrase-file", &*other];
        let mut service = Service::start_with(&home, &server.url(), &more);
        service.has_base();
        server.ask(&["SET", "a", value]).unwrap();
        service.catches_up(&server);
        service.stop();
    }
    let digest = server.digest().unwrap();
    let to = home.arg("data");
    home.run(&["restore", "latest", "--store", "cache", "--to", &to, "--to-latest"]).expect(0);
    let builder = Server::builder(newest().unwrap()).setting("appendonly", "yes");
    let restored = builder.files(home.path("data")).start().unwrap();
    assert_eq!(restored.digest().unwrap(), digest);
}
