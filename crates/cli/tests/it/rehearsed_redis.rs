//! `verify --restore` of Redis: a scratch server that is examined, and gone afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lifeboat_testbed::redis::{Server, newest, of_version};

use crate::common::Home;

const LIMIT: Duration = Duration::from_secs(60);

fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < LIMIT, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_snapshot_is_examined_on_a_server_of_its_own() {
    let home = Home::new();
    let installation = newest().unwrap();
    let server = Server::start(installation).unwrap();
    server.run("SET a 1\nSET b 2\nRPUSH l 1 2 3\nSELECT 4\nHSET h f v\n").unwrap();
    home.run(&["backup", "redis", "--name", "cache", "--url", &server.url()]).expect(0);
    home.run(&["backup", "files", &home.tree(), "--name", "tree"]).expect(0);
    let programs = installation.directory().unwrap();
    let programs = programs.path().to_str().unwrap();
    fs::create_dir(home.path("scratch")).unwrap();
    let scratch = home.arg("scratch");
    let verify = ["verify", "--restore", "latest", "--store", "redis/cache", "--scratch", &scratch];
    let here = [&verify[..], &["--programs", programs]].concat();
    let is_empty = || fs::read_dir(home.path("scratch")).unwrap().next().is_none();

    let ran = home.run(&here).expect(0);
    let told = ["the restored data is sound: 4 keys in 2 databases, 0 expired", "4 compared"];
    assert!(told.iter().all(|words| ran.0.stderr.contains(words)), "{ran}");
    assert!(is_empty());

    server.run("SET a other\nDEL b\n").unwrap();
    let url = server.url();
    let compared = [&here[..], &["--compare", "all", "--source", &url, "--json"]].concat();
    let ran = home.run(&compared).expect(3);
    let summary = ran.end();
    assert_eq!(summary["sound"], true, "{summary}");
    let counts = serde_json::json!({"compared": 4, "same": 2, "changed": 1, "gone": 1});
    assert_eq!(summary["source"], counts, "{summary}");
    assert_eq!(
        (&summary["keys"], &summary["server"]),
        (&4.into(), &(*installation.version).into())
    );
    let differences = ran.events_of("difference");
    assert!(differences.iter().any(|it| it["key"] == "b" && it["database"] == 0), "{ran}");

    // What stands in the way, with the next step.
    let old = of_version(6, 2).unwrap().directory().unwrap();
    let old = [&verify[..], &["--programs", old.path().to_str().unwrap()]].concat();
    home.run(&old).expect(1).error_says(&["the newest server here", "--programs"]);
    let none = [&verify[..], &["--programs", &scratch]].concat();
    home.run(&none).expect(1).error_says(&["there is no redis-server", "install the server"]);
    home.run(&[&here[..], &["--checks", "x"]].concat()).expect(2).error_says(&["--checks"]);
    home.run(&[&here[..], &["--to-latest", "--compare", "5"]].concat())
        .expect(2)
        .error_says(&["counted and not compared"]);
    let tree = ["verify", "--restore", "latest", "--store", "files/tree"];
    home.run(&tree).expect(2).error_says(&["cannot be restored into a scratch server"]);
    assert!(is_empty());
}

/// A server that never has its data.
fn stuck(directory: &Path) {
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && { echo 'Redis server v=99.0.0 sha=0'; exit; }\n\
                  echo $$ > server.pid\nexec sleep 1000\n";
    fs::write(directory.join("redis-server"), script).unwrap();
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.join("redis-server"), mode).unwrap();
}

/// The process of the scratch server, once it runs.
fn process(scratch: &Path) -> String {
    eventually("the scratch server runs", || {
        let entry = fs::read_dir(scratch).unwrap().next()?.ok()?;
        let text = fs::read_to_string(entry.path().join("data/server.pid")).ok()?;
        text.ends_with('\n').then(|| text.trim().to_owned())
    })
}

fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn a_scratch_server_goes_with_who_made_it() {
    let home = Home::new();
    let server = Server::start(newest().unwrap()).unwrap();
    server.run("SET a 1\n").unwrap();
    home.run(&["backup", "redis", "--name", "cache", "--url", &server.url()]).expect(0);
    for directory in ["scratch", "programs"] {
        fs::create_dir(home.path(directory)).unwrap();
    }
    stuck(&home.path("programs"));
    let (scratch, programs) = (home.arg("scratch"), home.arg("programs"));
    let verify = ["verify", "--restore", "latest", "--scratch", &scratch, "--programs", &programs];
    for name in ["-TERM", "-KILL"] {
        let mut command = home.command(&verify);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let running = process(&home.path("scratch"));
        signal(&child, name);
        let status = child.wait().unwrap();
        assert!(name == "-KILL" || status.code() == Some(130), "{status}");
        let gone = || {
            let is_empty = fs::read_dir(home.path("scratch")).unwrap().next().is_none();
            let ended = !Path::new("/proc").join(&running).join("cwd").exists();
            (is_empty && ended).then_some(())
        };
        if name == "-TERM" {
            assert!(gone().is_some(), "something is left");
        }
        eventually("it is gone", gone);
    }
    let impatient = [&verify[..], &["--recovery-limit", "1s"]].concat();
    home.run(&impatient).expect(1).error_says(&["did not load within 1 s"]);
}
