//! Into a server that runs, beside what it holds.

use std::sync::Arc;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Attributes, Collecting, Context, Error, ErrorKind, TransferOptions, transfer};
use lifeboat_redis::{
    ConnectOptions, Doing, Existing, KeyPattern, LiveCounts, LiveError, LiveOptions, LiveSink,
};
use lifeboat_testbed::redis::{Server, all, newest, of_version};

use super::common::{back_up, fill, run, source};
use super::everything::builder;

fn into(server: &Server) -> LiveOptions {
    LiveOptions::new(ConnectOptions::parse(&server.url()).unwrap())
}

fn snapshot_of(server: &Server) -> MemoryStore {
    run(back_up(&source(&server.url()))).unwrap().0
}

/// What a restore says, and its warnings.
fn restore(
    snapshot: &MemoryStore,
    options: LiveOptions,
) -> (Result<Attributes, Error>, Vec<(String, String)>) {
    let told = Arc::new(Collecting::new());
    let context = Context::new(told.clone());
    let sink = LiveSink::new(options);
    let options = TransferOptions::default();
    let done = run(transfer(snapshot, &sink, &options, &context));
    (done.map(|summary| summary.receipt.facts), told.warnings())
}

fn written(snapshot: &MemoryStore, options: LiveOptions) -> Attributes {
    let (done, warnings) = restore(snapshot, options);
    let facts = done.unwrap_or_else(|error| panic!("{}", error.one_line()));
    assert_eq!(warnings, []);
    facts
}

fn why(error: &Error) -> &LiveError {
    let source = std::error::Error::source(error);
    source.and_then(|it| it.downcast_ref()).unwrap_or_else(|| panic!("{}", error.one_line()))
}

fn size(server: &Server, database: &str) -> u64 {
    server.ask(&["-n", database, "DBSIZE"]).unwrap().parse().unwrap()
}

#[test]
fn everything_goes_into_a_running_server() {
    for installation in all().unwrap() {
        println!("Redis {}", installation.version);
        let server = builder(installation).start().unwrap();
        fill(&server);
        server.run("EVAL \"redis.call('SET','large',string.rep('x',20000000))\" 0\n").unwrap();
        let lua = "EVAL \"for i=1,30000 do redis.call('SET','many:'..i,i) end\" 0\n";
        server.run(lua).unwrap();
        let snapshot = snapshot_of(&server);
        let keys = size(&server, "0") + size(&server, "7");
        // A small window, so that answers are waited for all the time.
        for ahead in [1 << 12, 4 << 20] {
            let target = builder(installation).start().unwrap();
            let mut options = into(&target);
            options.ahead = ahead;
            let facts = written(&snapshot, options);
            assert_eq!(facts.unsigned("redis.keys.written"), Some(keys));
            assert_eq!(target.digest().unwrap(), server.digest().unwrap());
            if installation.number() >= (7, 0) {
                assert_eq!(target.ask(&["FCALL", "f", "0"]).unwrap(), "7");
                assert_eq!(facts.unsigned("redis.functions"), Some(1));
            }
        }
    }
}

#[test]
fn a_newer_server_takes_what_an_older_one_had() {
    let old = Server::start(&all().unwrap()[0]).unwrap();
    old.run("SET a 1\nHSET h f v\nRPUSH l 1 2 three\nZADD z 1 a 2.5 b\nSADD s 1 2 x\n").unwrap();
    let target = Server::start(newest().unwrap()).unwrap();
    written(&snapshot_of(&old), into(&target));
    assert_eq!(target.digest().unwrap(), old.digest().unwrap());
}

#[test]
fn an_older_server_is_refused_before_the_first_key() {
    let server = Server::start(of_version(7, 4).unwrap()).unwrap();
    fill_some(&server);
    let snapshot = snapshot_of(&server);
    for (major, minor) in [(7, 0), (6, 2)] {
        let target = Server::start(of_version(major, minor).unwrap()).unwrap();
        let (done, _) = restore(&snapshot, into(&target));
        let error = done.unwrap_err();
        assert!(matches!(why(&error), LiveError::TooNew { version: 12, .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(size(&target, "0") + size(&target, "7"), 0);
    }
}

fn fill_some(server: &Server) {
    server.run("SET a 1\nSET session:1 x\nSET session:2 y\nSELECT 7\nSET session:3 z\n").unwrap();
}

#[test]
fn what_is_there_stays_unless_it_is_to_be_replaced() {
    let installation = newest().unwrap();
    let server = Server::start(installation).unwrap();
    fill_some(&server);
    server.ask(&["FUNCTION", "LOAD", FUNCTION]).unwrap();
    let snapshot = snapshot_of(&server);
    let target = Server::start(installation).unwrap();
    target.run("SET a mine\nSET other 1\n").unwrap();
    target.ask(&["FUNCTION", "LOAD", FUNCTION]).unwrap();
    let before = target.digest().unwrap();
    let look = |existing| {
        let mut options = into(&target);
        (options.doing, options.existing) = (Doing::Look, existing);
        let (done, warnings) = restore(&snapshot, options);
        let facts = done.unwrap();
        assert_eq!(target.digest().unwrap(), before, "looking changes nothing");
        (
            facts.unsigned("redis.keys.written"),
            facts.unsigned("redis.keys.existing"),
            warnings.len(),
        )
    };
    assert_eq!(look(Existing::Keep), (Some(3), Some(1), 1));
    assert_eq!(look(Existing::Replace), (Some(4), Some(1), 0));

    let (done, warnings) = restore(&snapshot, into(&target));
    let facts = done.unwrap();
    assert_eq!(facts.unsigned("redis.keys.written"), Some(3));
    assert_eq!(facts.unsigned("redis.keys.existing"), Some(1));
    let named = warnings.iter().any(|(key, what)| key == "a" && what.contains("stays as it is"));
    assert!(named && warnings.len() == 2, "{warnings:?}");
    assert_eq!(target.ask(&["GET", "a"]).unwrap(), "mine");
    // Doing it again writes nothing more.
    let (done, _) = restore(&snapshot, into(&target));
    assert_eq!(done.unwrap().unsigned("redis.keys.written"), Some(0));

    let mut options = into(&target);
    options.existing = Existing::Replace;
    written(&snapshot, options);
    assert_eq!(target.ask(&["GET", "a"]).unwrap(), "1");
    assert_eq!(target.ask(&["GET", "other"]).unwrap(), "1");
}

const FUNCTION: &str = "#!lua name=lib\nredis.register_function('f', function() return 7 end)";

#[test]
fn keys_and_databases_are_chosen() {
    let installation = newest().unwrap();
    let server = Server::start(installation).unwrap();
    fill_some(&server);
    let names = [
        "h?llo", "hello", "hallo", "hbllo", "hcllo", "hllo", "heeello", "a:b:1", ":x:1:1", "a*b",
        "axb", "ab", "]", "\\", "a", "aa", "aaab", "aab", "aabb", "^", "-",
    ];
    for name in names {
        server.ask(&["SET", name, "1"]).unwrap();
    }
    let snapshot = snapshot_of(&server);
    // A pattern chooses what the server itself finds by it.
    for pattern in [
        "*",
        "h?llo",
        "h[ae]llo",
        "h[^e]llo",
        "h[a-b]llo",
        "h[b-a]llo",
        "a\\*b",
        "*:*:1",
        "a**b",
        "[a",
        "[\\]]",
        "*a*b",
        "",
        "[^]",
        "a\\",
        "[a-",
        "h*l*o",
        "\\a",
        "[^a-z]",
    ] {
        let target = Server::start(installation).unwrap();
        let mut options = into(&target);
        options.keys = vec![KeyPattern::new(pattern)];
        options.databases = [(0, 0)].into();
        let (done, warnings) = restore(&snapshot, options);
        done.unwrap();
        // One that fits nothing is told.
        assert_eq!(warnings.is_empty(), size(&target, "0") > 0, "{pattern} {warnings:?}");
        let found = |server: &Server| {
            let told = server.ask(&["KEYS", pattern]).unwrap();
            let mut keys: Vec<_> = told.lines().map(ToOwned::to_owned).collect();
            keys.sort();
            keys
        };
        let all = size(&target, "0");
        let wanted = found(&server).iter().filter(|key| !key.is_empty()).count();
        assert_eq!((found(&target), all), (found(&server), wanted as u64), "{pattern}");
    }
    let target = Server::start(installation).unwrap();
    let mut options = into(&target);
    options.keys = vec![KeyPattern::new("session:*"), KeyPattern::new("nothing")];
    options.databases = [(7, 3)].into();
    let facts = written(&snapshot, options);
    assert_eq!(target.ask(&["-n", "3", "GET", "session:3"]).unwrap(), "z");
    assert_eq!((size(&target, "0"), size(&target, "3"), size(&target, "7")), (0, 1, 0));
    let unwanted = size(&server, "0");
    assert_eq!(facts.unsigned("redis.keys.unwanted"), Some(unwanted));
}

#[test]
fn what_expired_meanwhile_is_left_out_and_the_rest_expires_when_it_did() {
    let installation = newest().unwrap();
    let server = Server::start(installation).unwrap();
    server.run("SET soon 1 PX 6000\nSET later 1 PX 86400123\nSET never 1\n").unwrap();
    let at = server.ask(&["PEXPIRETIME", "later"]).unwrap();
    let snapshot = snapshot_of(&server);
    while server.ask(&["EXISTS", "soon"]).unwrap() == "1" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let target = Server::start(installation).unwrap();
    let facts = written(&snapshot, into(&target));
    assert_eq!(facts.unsigned("redis.keys.expired"), Some(1));
    assert_eq!(target.ask(&["PEXPIRETIME", "later"]).unwrap(), at);
    assert_eq!(size(&target, "0"), 2);
}

#[test]
fn a_server_that_is_full_says_how_many_keys_it_took() {
    let installation = newest().unwrap();
    let server = Server::start(installation).unwrap();
    let lua = "EVAL \"for i=1,20000 do redis.call('SET','k'..i,string.rep('x',1000)) end\" 0\n";
    server.run(lua).unwrap();
    let target = Server::builder(installation).setting("maxmemory", "8mb").start().unwrap();
    let (done, _) = restore(&snapshot_of(&server), into(&target));
    let error = done.unwrap_err();
    let LiveError::Stopped { counts, .. } = why(&error) else { panic!("{error}") };
    let there = size(&target, "0");
    assert!(there > 100 && there < 20_000, "{there}");
    assert_eq!(counts.written, there, "{}", error.one_line());
    assert!(error.one_line().contains("OOM"), "{}", error.one_line());
}

#[test]
fn a_key_that_the_server_cannot_take_is_named_and_the_rest_is_there() {
    let with = all().unwrap().iter().find(|installation| installation.module.is_some()).unwrap();
    let server = builder(with).start().unwrap();
    fill(&server);
    let snapshot = snapshot_of(&server);
    let target = Server::start(with).unwrap();
    let (done, warnings) = restore(&snapshot, into(&target));
    let error = done.unwrap_err();
    let LiveError::Refused { keys: 1, first, counts, .. } = why(&error) else { panic!("{error}") };
    assert_eq!(first, "j");
    let LiveCounts { written, refused, .. } = **counts;
    assert_eq!((written, refused), (size(&target, "0") + size(&target, "7"), 1));
    assert_eq!(written + 1, size(&server, "0") + size(&server, "7"));
    assert!(warnings.iter().any(|(key, _)| key == "j"), "{warnings:?}");
    // So is one that is larger than what is held.
    let target = builder(with).start().unwrap();
    let mut options = into(&target);
    options.largest = 5000;
    let (done, _) = restore(&snapshot, options);
    let error = done.unwrap_err();
    let LiveError::Refused { keys, .. } = why(&error) else { panic!("{error}") };
    assert_eq!(size(&target, "0") + size(&target, "7"), written + 1 - keys);
}

#[test]
fn what_may_not_be_written_to_is_not_touched() {
    let installation = newest().unwrap();
    let server = Server::start(installation).unwrap();
    fill_some(&server);
    let snapshot = snapshot_of(&server);
    let refused = |target: &Server, user: Option<&str>| {
        let mut options = into(target);
        options.connection.user = user.map(ToOwned::to_owned);
        options.connection.password = user.map(|_| "hunter2-9f".to_owned().into());
        let (done, _) = restore(&snapshot, options);
        done.unwrap_err()
    };
    let target = Server::start(installation).unwrap();
    target.ask(&["ACL", "SETUSER", "reader", "on", ">hunter2-9f", "~*", "+get"]).unwrap();
    let error = refused(&target, Some("reader")).one_line();
    assert!(error.contains("NOPERM") && error.contains("+restore"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    let rights = ["+restore", "+select", "+time", "+function|restore"];
    let user = ["ACL", "SETUSER", "writer", "on", ">hunter2-9f", "~*", "-@all"];
    target.ask(&[&user[..], &rights].concat()).unwrap();
    let mut options = into(&target);
    options.connection.user = Some("writer".into());
    options.connection.password = Some("hunter2-9f".to_owned().into());
    written(&snapshot, options);
    assert_eq!(target.digest().unwrap(), server.digest().unwrap());

    let replica = Server::start(installation).unwrap();
    replica.ask(&["REPLICAOF", "127.0.0.1", &target.port().to_string()]).unwrap();
    let error = refused(&replica, None).one_line();
    assert!(error.contains("READONLY"), "{error}");
    let node = Server::builder(installation).setting("cluster-enabled", "yes").start().unwrap();
    let error = refused(&node, None).one_line();
    assert!(error.contains("nobody serves the slots 0 to 16383"), "{error}");
}

/// A server that refuses `SELECT` stays in the database where it was: what was sent behind it would
/// overwrite keys there.
#[test]
fn what_belongs_into_a_database_that_cannot_be_selected_goes_nowhere() {
    for installation in all().unwrap() {
        println!("Redis {}", installation.version);
        let server = Server::start(installation).unwrap();
        server.run("SET zero 1\nSELECT 3\nSET a theirs\nSET b theirs\n").unwrap();
        let (snapshot, completion) = run(back_up(&source(&server.url()))).unwrap();
        let target = Server::builder(installation).setting("databases", "2").start().unwrap();
        target.run("SET a mine\nSET c mine\n").unwrap();
        let rights = ["~*", "+@all", "-select"];
        let user = ["ACL", "SETUSER", "writer", "on", ">hunter2-9f"];
        target.ask(&[&user[..], &rights].concat()).unwrap();
        let before = target.digest().unwrap();
        // Into which, as whom, and which database is named.
        let cases = [
            (None, None, "database 3 "),
            (Some((3, 9)), None, "database 9 "),
            (Some((3, 1)), Some("writer"), "database 1 "),
            (None, Some("writer"), "database "),
        ];
        for (mapping, user, named) in cases {
            for existing in [Existing::Replace, Existing::Keep] {
                for doing in [Doing::Look, Doing::Write] {
                    let mut options = into(&target).with_facts(&completion.facts);
                    options.databases = mapping.into_iter().collect();
                    (options.existing, options.doing) = (existing, doing);
                    options.connection.user = user.map(ToOwned::to_owned);
                    options.connection.password = user.map(|_| "hunter2-9f".to_owned().into());
                    let (done, _) = restore(&snapshot, options);
                    assert_eq!(target.digest().unwrap(), before, "{mapping:?} {user:?}");
                    let error = done.unwrap_err();
                    assert!(matches!(why(&error), LiveError::NotBegun { .. }), "{error}");
                    assert_eq!(error.kind(), ErrorKind::Refused);
                    let line = error.one_line();
                    assert!(line.contains("nothing was written"), "{line}");
                    let step = if user.is_some() { "+select" } else { "--db FROM=TO" };
                    assert!(line.contains(named) && line.contains(step), "{line}");
                }
            }
        }

        // Where nothing is known of the snapshot, its own database 0 is all that is written.
        for doing in [Doing::Look, Doing::Write] {
            let mut options = into(&target);
            (options.existing, options.doing) = (Existing::Replace, doing);
            let (done, _) = restore(&snapshot, options);
            let error = done.unwrap_err();
            let LiveError::Stopped { counts, .. } = why(&error) else { panic!("{error}") };
            assert_eq!(counts.written, 1);
            let line = error.one_line();
            assert!(line.contains("database 3 "), "{line}");
            match doing {
                Doing::Look => {
                    assert!(line.contains("nothing was written"), "{line}");
                    assert!(!line.contains("functions written"), "{line}");
                    assert_eq!(target.digest().unwrap(), before);
                }
                Doing::Write => assert!(line.contains("until then: 1 keys"), "{line}"),
            }
        }
        let here = ["zero", "a", "b", "c"].map(|key| target.ask(&["GET", key]).unwrap());
        assert_eq!(here, ["1", "mine", "", "mine"]);
        target.ask(&["DEL", "zero"]).unwrap();
        assert_eq!(target.digest().unwrap(), before);

        let mut options = into(&target).with_facts(&completion.facts);
        (options.existing, options.databases) = (Existing::Replace, [(3, 1)].into());
        written(&snapshot, options);
        assert_eq!(target.ask(&["-n", "1", "GET", "a"]).unwrap(), "theirs");
        assert_eq!((size(&target, "0"), size(&target, "1")), (2, 2));
        // Nothing is selected for what is in database 0 alone.
        let mut options = into(&target);
        options.databases = [(0, 0)].into();
        options.connection.user = Some("writer".into());
        options.connection.password = Some("hunter2-9f".to_owned().into());
        written(&snapshot, options);
        assert_eq!(target.ask(&["GET", "zero"]).unwrap(), "1");
    }
}
