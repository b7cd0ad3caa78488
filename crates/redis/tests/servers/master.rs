//! In place of what a running server holds.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Baseline, Bytes, Collecting, Completion, Content, Context, Entry, EntryKind,
    EntryPath, Error, ErrorKind, Extent, Inspection, Reading, Result, Source, StoreRef, Timestamp,
    TransferOptions, transfer,
};
use lifeboat_redis::{
    ConnectOptions, Holding, MasterError, MasterOptions, MasterSink, Moment, RecoverySource,
};
use lifeboat_testbed::redis::{Cluster, Server, all, newest, of_version};
use tokio::sync::Notify;

use super::common::{back_up, dump, fill, run, source};
use super::everything::builder;
use super::following::{AtWork, Kept, eventually};

fn into(server: &Server) -> MasterOptions {
    MasterOptions::new(ConnectOptions::parse(&server.url()).unwrap())
}

fn replacing(server: &Server) -> MasterOptions {
    let mut options = into(server);
    options.holding = Holding::Replace;
    options
}

async fn restore(source: &dyn Source, options: MasterOptions) -> Result<Attributes> {
    let (sink, context) = (MasterSink::new(options), Context::silent());
    let done = transfer(source, &sink, &TransferOptions::default(), &context).await;
    done.map(|summary| summary.receipt.facts)
}

fn why(error: &Error) -> &MasterError {
    let source = std::error::Error::source(error);
    source.and_then(|it| it.downcast_ref()).unwrap_or_else(|| panic!("{}", error.one_line()))
}

/// It is a primary, takes writes, and holds this.
fn is_primary(server: &Server, digest: &str) {
    let info = server.ask(&["INFO", "replication"]).unwrap();
    assert!(info.contains("role:master"), "{info}");
    assert_eq!(server.digest().unwrap(), digest);
    server.ask(&["SET", "writes", "1"]).unwrap();
    server.ask(&["DEL", "writes"]).unwrap();
}

fn snapshot_of(server: &Server) -> MemoryStore {
    run(back_up(&source(&server.url()))).unwrap().0
}

#[test]
fn a_server_is_replaced_by_a_snapshot() {
    for installation in all().unwrap() {
        println!("Redis {}", installation.version);
        let server = builder(installation).start().unwrap();
        fill(&server);
        server.run("EVAL \"redis.call('SET','large',string.rep('x',20000000))\" 0\n").unwrap();
        let snapshot = snapshot_of(&server);
        // As from any primary: what it would say to one does not matter.
        let target = builder(installation)
            .setting("masterauth", "some")
            .setting("masteruser", "one")
            .start()
            .unwrap();
        target.run("SET mine 1\nSELECT 9\nSET mine 2\n").unwrap();
        let before = target.digest().unwrap();
        let error = run(restore(&snapshot, into(&target))).unwrap_err();
        assert!(matches!(why(&error), MasterError::Holds { keys: 2, functions: 0, .. }), "{error}");
        is_primary(&target, &before);

        let facts = run(restore(&snapshot, replacing(&target))).unwrap();
        is_primary(&target, &server.digest().unwrap());
        let size = |database: &str| -> u64 {
            server.ask(&["-n", database, "DBSIZE"]).unwrap().parse().unwrap()
        };
        assert_eq!(facts.unsigned("redis.keys.held"), Some(size("0") + size("7")));
        if installation.number() >= (7, 0) {
            assert_eq!(target.ask(&["FCALL", "f", "0"]).unwrap(), "7");
        }
        // One that is empty takes it without a word; a socket is a way as well.
        let empty = builder(installation).start().unwrap();
        let socket = format!("unix://{}", empty.socket().display());
        let options = MasterOptions::new(ConnectOptions::parse(&socket).unwrap());
        run(restore(&snapshot, options)).unwrap();
        is_primary(&empty, &server.digest().unwrap());
    }
}

#[test]
fn a_server_is_brought_to_any_moment() {
    for installation in all().unwrap() {
        println!("Redis {}", installation.version);
        run(async {
            let server = builder(installation).start().unwrap();
            fill(&server);
            let kept = Kept::new();
            let follower = AtWork::start(&kept, &server.url());
            follower.has_base().await;
            let mut moments = Vec::new();
            for round in 0..3 {
                let commands = format!(
                    "SET s:{round} {round}\nMULTI\nINCR n\nRPUSH l {round}\nSELECT 3\nSADD set \
                     {round}\nEXEC\nEVAL \"for i=1,500 do redis.call('ZADD','z',i,'m'..i..ARGV[1]) \
                     end\" 0 {round}\nSELECT 0\nSET e:{round} 1 PX 86400000\nDEL l:large\n"
                );
                server.run(&commands).unwrap();
                follower.catches_up(&server).await;
                moments.push((Moment::Time(Timestamp::now()), server.digest().unwrap()));
            }
            server.run("SET last 1\n").unwrap();
            follower.catches_up(&server).await;
            follower.stop().await;
            moments.push((Moment::Latest, server.digest().unwrap()));
            let target = builder(installation).start().unwrap();
            for (moment, digest) in moments {
                let plan = kept.plan(moment).await.unwrap();
                let snapshot = kept.shelf.get(plan.base.snapshot);
                let source = RecoverySource::new(&snapshot, kept.journal(), &plan).as_sent();
                restore(&source, replacing(&target)).await.unwrap();
                is_primary(&target, &digest);
            }
            assert!(!target.log().contains("CRITICAL"), "{}", target.log());
        });
    }
}

#[test]
fn an_older_server_is_refused_before_it_empties_itself() {
    let server = Server::start(of_version(7, 4).unwrap()).unwrap();
    server.run("SET a 1\nHSET h f v\n").unwrap();
    let snapshot = snapshot_of(&server);
    for (major, minor) in [(7, 0), (6, 2)] {
        let target = Server::start(of_version(major, minor).unwrap()).unwrap();
        target.run("SET mine 1\n").unwrap();
        let before = target.digest().unwrap();
        let error = run(restore(&snapshot, replacing(&target))).unwrap_err();
        assert!(matches!(why(&error), MasterError::TooNew { version: 12, .. }), "{error}");
        is_primary(&target, &before);
        assert!(!target.log().contains("REPLICAOF"), "{}", target.log());
    }
}

#[test]
fn what_cannot_be_replaced_is_told_and_stays() {
    let installation = newest().unwrap();
    let server = Server::start(installation).unwrap();
    server.run("SET a 1\n").unwrap();
    let snapshot = snapshot_of(&server);
    let replica = Server::start(installation).unwrap();
    let port = server.port().to_string();
    replica.ask(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
    let error = run(restore(&snapshot, replacing(&replica))).unwrap_err();
    let primary = format!("127.0.0.1:{port}");
    assert!(matches!(why(&error), MasterError::Replica { primary: it, .. } if *it == primary));
    assert!(error.hint().unwrap().contains("REPLICAOF NO ONE"));

    let node = Cluster::start(installation, 1, 0).unwrap();
    let error = run(restore(&snapshot, replacing(&node.primaries[0]))).unwrap_err();
    assert!(matches!(why(&error), MasterError::Unfit { .. }), "{error}");

    let target = Server::start(installation).unwrap();
    target.ask(&["FUNCTION", "LOAD", FUNCTION]).unwrap();
    let error = run(restore(&snapshot, into(&target))).unwrap_err();
    assert!(matches!(why(&error), MasterError::Holds { keys: 0, functions: 1, .. }), "{error}");
    let mut elsewhere = replacing(&target);
    elsewhere.listen = Some("192.0.2.1".to_owned());
    let error = run(restore(&snapshot, elsewhere)).unwrap_err();
    assert!(matches!(why(&error), MasterError::Listen { .. }), "{error}");
    assert_eq!(target.ask(&["FCALL", "f", "0"]).unwrap(), "7");
}

const FUNCTION: &str = "#!lua name=lib\nredis.register_function('f', function() return 7 end)";

#[test]
fn few_rights_are_enough_and_without_them_nothing_changes() {
    for installation in all().unwrap() {
        let server = Server::start(installation).unwrap();
        server.run("SET a 1\n").unwrap();
        let snapshot = snapshot_of(&server);
        let target = Server::start(installation).unwrap();
        let may = |rights: &[&str]| {
            let user = ["ACL", "SETUSER", "restorer", "reset", "on", ">any", "-@all"];
            target.ask(&[&user[..], rights].concat()).unwrap();
            let url = target.url().replace("redis://", "redis://restorer@");
            let mut connection = ConnectOptions::parse(&url).unwrap();
            connection.password = Some("any".into());
            run(restore(&snapshot, MasterOptions::new(connection)))
        };
        for rights in [&["+info", "+restore", "~*"][..], &["+info", "+replicaof"], &["+replicaof"]]
        {
            let error = may(rights).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            let info = target.ask(&["INFO", "replication"]).unwrap();
            assert!(info.contains("role:master"), "{info}");
        }
        may(&["+info", "+restore", "+replicaof", "~lifeboat:no-key:*"]).unwrap();
        is_primary(&target, &server.digest().unwrap());
    }
}

#[test]
fn who_comes_from_elsewhere_is_turned_away_and_the_server_waited_for() {
    let installation = newest().unwrap();
    let server = Server::start(installation).unwrap();
    server.run("SET a 1\n").unwrap();
    let snapshot = snapshot_of(&server);
    let odd = Server::builder(installation).setting("bind-source-addr", "127.0.0.5");
    let target = odd.start().unwrap();
    let mut options = into(&target);
    options.connection.patience = Duration::from_secs(2);
    let error = run(restore(&snapshot, options.clone())).unwrap_err();
    assert!(matches!(why(&error), MasterError::NotCome { seconds: 2, .. }), "{error}");
    let empty = "0".repeat(40);
    is_primary(&target, &empty);
    // Told where to listen, it is served.
    options.holding = Holding::Replace;
    for address in ["127.0.0.1", "0.0.0.0:0", "localhost:0"] {
        options.listen = Some(address.to_owned());
        run(restore(&snapshot, options.clone())).unwrap();
        is_primary(&target, &server.digest().unwrap());
    }
}

/// It would end at once when it met them.
#[test]
fn a_server_without_modules_is_not_given_what_they_keep() {
    let installation = newest().unwrap();
    let server = builder(installation).start().unwrap();
    server.run("SET a 1\nJSON.SET j $ \"[1]\"\n").unwrap();
    let snapshot = snapshot_of(&server);
    let target = Server::start(installation).unwrap();
    target.run("SET mine 1\n").unwrap();
    let before = target.digest().unwrap();
    let error = run(restore(&snapshot, replacing(&target))).unwrap_err();
    assert!(matches!(why(&error), MasterError::NoModules { .. }), "{}", error.one_line());
    is_primary(&target, &before);
}

/// An RDB of which a part comes, and the rest when it is told to; and perhaps changes.
struct Halting {
    store: StoreRef,
    parts: Vec<(&'static str, Bytes)>,
    reached: Arc<Notify>,
}

struct HaltingReading(Vec<Entry>);

#[async_trait]
impl Source for Halting {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    async fn inspect(&self) -> Result<Inspection> {
        Err(Error::cancelled())
    }

    async fn read(
        &self,
        _since: Option<Arc<dyn Baseline>>,
        _context: &Context,
    ) -> Result<Box<dyn Reading>> {
        let last = self.parts.len() - 1;
        let entries = self.parts.iter().enumerate().map(|(index, (path, bytes))| {
            let (reached, bytes) = (Arc::clone(&self.reached), bytes.clone());
            let first = stream::once(async move { Ok(Extent::Data(bytes)) });
            let halt = stream::once(async move {
                if index == last {
                    reached.notify_one();
                    std::future::pending::<()>().await;
                }
                Ok(Extent::Data(Bytes::new()))
            });
            let entry =
                Entry::new(EntryPath::new(*path).unwrap(), EntryKind::File, Attributes::new());
            entry.with_content(0, Content::stream(first.chain(halt)))
        });
        let mut entries: Vec<_> = entries.collect();
        entries.reverse();
        Ok(Box::new(HaltingReading(entries)))
    }
}

#[async_trait]
impl Reading for HaltingReading {
    async fn next(&mut self) -> Result<Option<Entry>> {
        Ok(self.0.pop())
    }

    async fn finish(self: Box<Self>) -> Result<Completion> {
        Ok(Completion::at(Timestamp::now()))
    }
}

#[test]
fn one_that_is_stopped_half_way_leaves_a_primary_and_says_what_it_holds() {
    for installation in all().unwrap() {
        println!("Redis {}", installation.version);
        let server = Server::start(installation).unwrap();
        server.run("SET a 1\nEVAL \"redis.call('SET','b',string.rep('x',3000000))\" 0\n").unwrap();
        let all = dump(&snapshot_of(&server));
        let half = vec![("dump.rdb", all.slice(..all.len() / 2))];
        let changes = Bytes::from_static(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*2\r\n$4\r\nINCR");
        let amidst = vec![("dump.rdb", all), ("stream.aof", changes)];
        let target = Server::start(installation).unwrap();
        target.run("SET mine 1\n").unwrap();
        let mine = target.digest().unwrap();
        for (parts, digest) in [(half, &mine), (amidst, &server.digest().unwrap())] {
            let told = Arc::new(Collecting::new());
            let context = Context::new(told.clone());
            let reached = Arc::new(Notify::new());
            let store = StoreRef::new("redis", "cache");
            let source = Halting { store, parts, reached: Arc::clone(&reached) };
            let sink = MasterSink::new(replacing(&target));
            let how = TransferOptions::default();
            for cancelled in [true, false] {
                run(async {
                    let moving = transfer(&source, &sink, &how, &context);
                    let stop = async {
                        reached.notified().await;
                        let info = target.ask(&["INFO", "replication"]).unwrap();
                        assert!(info.contains("role:slave"), "{info}");
                    };
                    if cancelled {
                        let other = Context::new(told.clone());
                        let moving = transfer(&source, &sink, &how, &other);
                        let (done, ()) = tokio::join!(moving, async {
                            stop.await;
                            other.cancel();
                        });
                        assert_eq!(done.unwrap_err().kind(), ErrorKind::Cancelled);
                    } else {
                        tokio::select! {
                            _ = moving => panic!("it ended"),
                            () = stop => {}
                        }
                    }
                    eventually("it is a primary", async || {
                        let info = target.ask(&["INFO", "replication"]).ok()?;
                        info.contains("role:master").then_some(())
                    })
                    .await;
                    let warnings = if cancelled { 1 } else { 2 };
                    eventually("it is told", async || {
                        (told.warnings().len() == warnings).then_some(())
                    })
                    .await;
                });
                is_primary(&target, digest);
            }
            for (_, warning) in told.warnings() {
                assert!(warning.contains("is a primary again, and holds"), "{warning}");
            }
        }
    }
}

#[test]
fn a_damaged_snapshot_costs_nothing() {
    let installation = newest().unwrap();
    let server = Server::start(installation).unwrap();
    server.run("SET a 1\nSET b 2\n").unwrap();
    let mut bytes = dump(&snapshot_of(&server)).to_vec();
    let middle = bytes.len() - 20;
    bytes[middle] ^= 1;
    let target = Server::start(installation).unwrap();
    target.run("SET mine 1\n").unwrap();
    let before = target.digest().unwrap();
    let damaged = MemoryStore::new("cache");
    let halting = |bytes: Vec<u8>| Damaged(StoreRef::new("redis", "cache"), bytes.into());
    let (how, context) = (TransferOptions::default(), Context::silent());
    run(transfer(&halting(bytes), &damaged, &how, &context)).unwrap();
    let error = run(restore(&damaged, replacing(&target))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    is_primary(&target, &before);
}

/// A snapshot with this as its dump.rdb.
struct Damaged(StoreRef, Bytes);

#[async_trait]
impl Source for Damaged {
    fn store(&self) -> &StoreRef {
        &self.0
    }

    async fn inspect(&self) -> Result<Inspection> {
        Err(Error::cancelled())
    }

    async fn read(
        &self,
        _since: Option<Arc<dyn Baseline>>,
        _context: &Context,
    ) -> Result<Box<dyn Reading>> {
        let path = EntryPath::new("dump.rdb").unwrap();
        let entry = Entry::file(path, Attributes::new(), self.1.clone());
        Ok(Box::new(HaltingReading(vec![entry])))
    }
}
