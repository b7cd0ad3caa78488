//! Everything a server holds goes into a snapshot, is counted, and comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use lifeboat_core::Source;
use lifeboat_redis::facts;
use lifeboat_redis::rdb::Eviction;
use lifeboat_testbed::redis::{Builder, Installation, Server, all, newest};

use super::common::{back_up, counts, dump, fill, key_count, keys, restore, run, source};

/// With the module of JSON, where there is one.
pub(crate) fn builder(installation: &Installation) -> Builder {
    let builder = Server::builder(installation);
    match &installation.module {
        Some(module) => builder.setting("loadmodule", module.to_str().unwrap()),
        None => builder,
    }
}

/// The numbers of the types that a server of this version writes for what [`fill`] made.
fn encodings((major, minor): (u32, u32)) -> BTreeSet<u8> {
    let codes: &[u8] = match (major, minor) {
        // ziplists
        (6, _) => &[0, 2, 4, 5, 11, 12, 13, 14, 15],
        (7, 0) => &[0, 2, 4, 5, 11, 16, 17, 18, 19],
        // sets in listpacks, streams with the time of activity
        (7, 2) => &[0, 2, 4, 5, 11, 16, 17, 18, 20, 21],
        // fields that expire, and the module of this installation
        (7, 4) => &[0, 2, 4, 5, 7, 11, 16, 17, 18, 20, 21, 24, 25],
        other => panic!("say what {other:?} writes"),
    };
    codes.iter().copied().collect()
}

fn round_trip(installation: &Installation, settings: &[(&str, &str)]) {
    println!("Redis {}", installation.version);
    let with = |builder: Builder| {
        settings.iter().fold(builder, |builder, (name, value)| builder.setting(name, value))
    };
    let server = with(builder(installation)).start().unwrap();
    fill(&server);
    let before = server.digest().unwrap();
    let (snapshot, completion) = run(back_up(&source(&server.url()))).unwrap();
    let rdb = dump(&snapshot);
    let found = keys(&rdb);

    // Counted as the server counts.
    let size = |db: &str| server.ask(&["-n", db, "DBSIZE"]).unwrap().parse::<u64>().unwrap();
    let databases = BTreeMap::from([("0".to_owned(), size("0")), ("7".to_owned(), size("7"))]);
    assert_eq!(counts(&completion, facts::DATABASES), databases);
    assert_eq!(key_count(&completion), size("0") + size("7"));
    assert_eq!(completion.facts.text(facts::VERSION), Some(installation.version.as_str()));
    assert_eq!(completion.facts.unsigned(facts::BYTES), Some(rdb.len() as u64));
    assert_eq!(completion.facts.text(facts::CHECKSUM), Some("right"));
    let functions = u64::from(installation.number() >= (7, 0));
    assert_eq!(completion.facts.unsigned(facts::FUNCTIONS), Some(functions));
    let mut types = BTreeMap::<String, u64>::new();
    for key in &found {
        // Each key is there under its name, with the type and the expiry that the server says.
        let (db, name) = (key.database.to_string(), String::from_utf8(key.name.clone()).unwrap());
        let kind = server.ask(&["-n", &db, "TYPE", &name]).unwrap();
        let kind = if kind == "ReJSON-RL" { "module".to_owned() } else { kind };
        assert_eq!(kind, key.kind.as_str(), "{name}");
        if installation.number() >= (7, 0) {
            let expires = server.ask(&["-n", &db, "PEXPIRETIME", &name]).unwrap();
            assert_eq!(expires, key.expires.unwrap_or(-1).to_string(), "{name}");
        }
        *types.entry(kind).or_default() += 1;
    }
    assert_eq!(counts(&completion, facts::TYPES), types);
    let written: BTreeSet<u8> = found.iter().map(|key| key.encoding).collect();
    assert_eq!(written, encodings(installation.number()));

    // The checker of the newest server that is older finds nothing wrong with it, and another
    // server has the same data from it.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dump.rdb");
    run(restore(&snapshot, &path)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), rdb);
    if installation.number() <= (7, 0) {
        let checked = Command::new("redis-check-rdb").arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success() && text.contains("RDB looks OK"), "{text}");
        assert!(text.contains(&format!("{} keys read", found.len())), "{text}");
    }
    let restored = with(builder(installation)).rdb(&path).start().unwrap();
    assert_eq!(restored.digest().unwrap(), before);
    if installation.number() >= (7, 0) {
        assert_eq!(restored.ask(&["FCALL", "f", "0"]).unwrap(), "7");
    }
}

#[test]
fn every_type_and_encoding_comes_back() {
    for installation in all().unwrap() {
        round_trip(installation, &[]);
    }
}

#[test]
fn a_server_that_goes_through_its_disk_is_read_as_well() {
    for installation in all().unwrap() {
        round_trip(installation, &[("repl-diskless-sync", "no")]);
    }
}

#[test]
fn values_that_are_not_compressed_come_back() {
    round_trip(newest().unwrap(), &[("rdbcompression", "no")]);
}

#[test]
fn what_is_noted_for_eviction_is_found() {
    let noted = |policy: &str| {
        let server = Server::builder(newest().unwrap())
            .setting("maxmemory", "1gb")
            .setting("maxmemory-policy", policy)
            .start()
            .unwrap();
        server.run("SET a 1\nSET b 2\n").unwrap();
        let (snapshot, _) = run(back_up(&source(&server.url()))).unwrap();
        keys(&dump(&snapshot)).into_iter().map(|key| key.eviction.unwrap()).collect::<Vec<_>>()
    };
    assert!(matches!(noted("allkeys-lru")[..], [Eviction::Idle(_), Eviction::Idle(_)]));
    assert!(matches!(noted("allkeys-lfu")[..], [Eviction::Frequency(_), Eviction::Frequency(_)]));
}

#[test]
fn an_empty_server_comes_back_empty() {
    let server = Server::start(newest().unwrap()).unwrap();
    let (snapshot, completion) = run(back_up(&source(&server.url()))).unwrap();
    assert_eq!(key_count(&completion), 0);
    let dir = tempfile::tempdir().unwrap();
    run(restore(&snapshot, &dir.path().join("dump.rdb"))).unwrap();
    let restored = Server::builder(newest().unwrap());
    let restored = restored.rdb(dir.path().join("dump.rdb")).start().unwrap();
    assert_eq!(restored.ask(&["DBSIZE"]).unwrap(), "0");
}

/// What one server says: no replica stays behind, and the position is where its history is.
#[test]
fn a_server_notices_no_more_than_a_passing_replica() {
    let server = Server::start(newest().unwrap()).unwrap();
    server.run("SET a 1\n").unwrap();
    let (_, completion) = run(back_up(&source(&server.url()))).unwrap();
    let info = server.ask(&["INFO", "replication"]).unwrap();
    let id = info.lines().find_map(|line| line.trim().strip_prefix("master_replid:")).unwrap();
    assert!(completion.position.starts_with(&format!("{id}:")), "{}", completion.position);
    let gone = || server.ask(&["INFO", "replication"]).unwrap().contains("connected_slaves:0");
    let waited = (0..400).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(25));
        gone()
    });
    assert!(waited, "{}", server.ask(&["INFO", "replication"]).unwrap());
}

#[test]
fn the_doctor_knows_the_server() {
    for installation in all().unwrap() {
        let server = Server::start(installation).unwrap();
        server.run("SET a 1\nSELECT 3\nSET b 1\n").unwrap();
        let inspection = run(source(&server.url()).inspect()).unwrap();
        assert_eq!(inspection.version, installation.version);
        assert_eq!(inspection.facts.unsigned(facts::KEYS), Some(2));
        assert_eq!(inspection.blockers().count(), 0, "{:?}", inspection.findings);
        let codes: Vec<_> = inspection.findings.iter().map(|f| f.code.as_str()).collect();
        assert!(codes.contains(&"no_persistence"), "{codes:?}");
        assert!(codes.contains(&"small_backlog"), "{codes:?}");
        server.ask(&["CONFIG", "SET", "repl-diskless-sync", "no"]).unwrap();
        server.ask(&["CONFIG", "SET", "repl-backlog-size", "64mb"]).unwrap();
        let inspection = run(source(&server.url()).inspect()).unwrap();
        assert!(inspection.findings.iter().all(|finding| finding.code != "small_backlog"));
        assert!(inspection.findings.iter().any(|finding| finding.code == "through_disk"));
    }
}
