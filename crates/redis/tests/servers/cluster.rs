//! A cluster as one store, and into clusters of other shapes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Baseline, Collecting, Completion, Context, EntryPath, Error, ErrorKind, Inspection,
    Reading, Result, Source, StoreRef, TransferOptions, transfer,
};
use lifeboat_redis::{
    ConnectOptions, Doing, LiveError, LiveOptions, LiveSink, RedisClusterSource, RestoreOptions,
    ShardsSink, facts, nodes_of,
};
use lifeboat_testbed::redis::{Cluster, Installation, Server, newest, of_version};

use super::common::{back_up, counts, key_count, run, source};

fn options(url: &str) -> ConnectOptions {
    ConnectOptions::parse(url).unwrap()
}

fn try_cluster(url: &str) -> Result<(MemoryStore, Completion)> {
    let source = RedisClusterSource::new("cache", options(url));
    let snapshot = MemoryStore::new("cache");
    let (how, context) = (TransferOptions::default(), Context::silent());
    let summary = run(transfer(&source, &snapshot, &how, &context))?;
    assert_eq!(summary.warnings, 0);
    Ok((snapshot, summary.completion))
}

fn snapshot_of(cluster: &Cluster) -> (MemoryStore, Completion) {
    try_cluster(&cluster.url()).unwrap_or_else(|error| panic!("{}", error.one_line()))
}

fn restore_with(source: &dyn Source, options: LiveOptions) -> Result<Attributes> {
    let told = Arc::new(Collecting::new());
    let context = Context::new(told.clone());
    let sink = LiveSink::new(options);
    let done = run(transfer(source, &sink, &TransferOptions::default(), &context))?;
    assert_eq!(told.warnings(), []);
    Ok(done.receipt.facts)
}

fn restore(source: &dyn Source, url: &str) -> Attributes {
    let done = restore_with(source, LiveOptions::new(options(url)));
    done.unwrap_or_else(|error| panic!("{}", error.one_line()))
}

fn why(error: &Error) -> &LiveError {
    let source = std::error::Error::source(error);
    source.and_then(|it| it.downcast_ref()).unwrap_or_else(|| panic!("{}", error.one_line()))
}

/// Values of all types, in database 0 of a server alone.
fn filled(installation: &Installation) -> Server {
    let server = Server::start(installation).unwrap();
    let mut commands = String::from(
        "SET {tag}:a 1\nSET {tag}:b 2\nSET \"a {b c} \\x00\" odd\nSET \"\" empty\nSET e 1 EX 86400\n\
         RPUSH l 1 2 three\nSADD s a b c\nZADD z 1 a 2.5 b\nHSET h f v g w\nXADD x 5-1 a b\n\
         EVAL \"for i=1,3000 do redis.call('SET','many:'..i,i) end\" 0\n\
         EVAL \"redis.call('SET','large',string.rep('x',3000000))\" 0\n\
         FUNCTION LOAD \"#!lua name=lib\\nredis.register_function('f', function() return 7 end)\"\n",
    );
    if installation.number() >= (7, 4) {
        commands += "HSET h:expires f v g w\nHPEXPIRE h:expires 86400000 FIELDS 1 f\n";
    }
    server.run(&commands).unwrap();
    server
}

/// The exclusive or of the digests of all keys. `DEBUG DIGEST` of a server that holds keys of
/// database 0 alone is that, and something that is the same for all.
fn digest<'a>(servers: impl IntoIterator<Item = &'a Server>) -> (u64, Vec<u8>) {
    let bytes = |text: &str| -> Vec<u8> {
        let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digits).collect()
    };
    let xor =
        |a: Vec<u8>, b: Vec<u8>| -> Vec<u8> { a.into_iter().zip(b).map(|(a, b)| a ^ b).collect() };
    let mut total = (0, vec![0; 20]);
    for server in servers {
        let keys: u64 = server.ask(&["DBSIZE"]).unwrap().parse().unwrap();
        if keys == 0 {
            continue;
        }
        // Of one key, of another one, and of both: what is the same for all remains.
        let probe = Server::start(server.installation()).unwrap();
        let mut same = vec![0; 20];
        for commands in ["SET a 1\n", "SET b 1\n", "DEL a\n"] {
            probe.run(commands).unwrap();
            same = xor(same, bytes(&probe.digest().unwrap()));
        }
        let own = xor(bytes(&server.digest().unwrap()), same);
        total = (total.0 + keys, xor(total.1, own));
    }
    total
}

#[test]
fn a_cluster_goes_into_any_shape_and_back() {
    for installation in [of_version(7, 0).unwrap(), newest().unwrap()] {
        println!("Redis {}", installation.version);
        let server = filled(installation);
        let expected = digest([&server]);
        let (alone, _) = run(back_up(&source(&server.url()))).unwrap();
        let three = Cluster::start(installation, 3, 0).unwrap();
        let facts = restore(&alone, &three.url());
        assert_eq!(facts.unsigned("redis.keys.written"), Some(expected.0));
        assert_eq!(facts.unsigned("redis.functions"), Some(1));
        assert_eq!(digest(&three.primaries), expected);
        for node in &three.primaries {
            assert_eq!(node.ask(&["FCALL", "f", "0"]).unwrap(), "7");
            assert!(node.ask(&["DBSIZE"]).unwrap().parse::<u64>().unwrap() > 500);
        }

        let (snapshot, completion) = snapshot_of(&three);
        assert_eq!(key_count(&completion), expected.0);
        assert_eq!(completion.facts.unsigned(facts::SHARDS), Some(3));
        assert_eq!(counts(&completion, facts::DATABASES)["0"], expected.0);
        for nodes in [1, 5] {
            let other = Cluster::start(installation, nodes, 0).unwrap();
            let facts = restore(&snapshot, &other.url());
            assert_eq!(facts.unsigned("redis.keys.written"), Some(expected.0), "{nodes}");
            assert_eq!(facts.unsigned("redis.functions"), Some(1));
            assert_eq!(digest(&other.primaries), expected, "{nodes}");
            // And back.
            let (snapshot, completion) = snapshot_of(&other);
            assert_eq!(completion.facts.unsigned(facts::SHARDS), Some(nodes as u64));
            let back = Cluster::start(installation, 3, 0).unwrap();
            restore(&snapshot, &back.url());
            assert_eq!(digest(&back.primaries), expected, "{nodes}");
        }
        let target = Server::start(installation).unwrap();
        restore(&snapshot, &target.url());
        assert_eq!(target.digest().unwrap(), server.digest().unwrap());
    }
}

#[test]
fn old_servers_make_clusters_too() {
    let old = of_version(6, 2).unwrap();
    let cluster = Cluster::start(old, 3, 1).unwrap();
    for key in 0..100 {
        cluster.ask(&["SET", &format!("key:{key}"), "value"]).unwrap();
    }
    let (snapshot, completion) = snapshot_of(&cluster);
    assert_eq!(key_count(&completion), 100);
    let target = Cluster::start(old, 1, 0).unwrap();
    restore(&snapshot, &target.url());
    assert_eq!(digest(&target.primaries), digest(&cluster.primaries));
}

#[test]
fn replicas_are_preferred_and_one_that_is_of_no_use_is_passed_over() {
    let installation = newest().unwrap();
    let cluster = Cluster::start(installation, 3, 1).unwrap();
    let nodes = run(nodes_of(&options(&cluster.url()))).unwrap().unwrap();
    assert_eq!((nodes.shards, nodes.replicas), (3, 3));
    let from = |completion: &Completion| -> Vec<String> {
        let servers = completion.facts.pairs(facts::SERVERS).unwrap();
        servers.iter().map(|(_, server)| String::from_utf8(server.clone()).unwrap()).collect()
    };
    let (_, completion) = snapshot_of(&cluster);
    let replica = |index: usize| format!("replica 127.0.0.1:{}", cluster.replicas[index].port());
    assert_eq!(from(&completion), [replica(0), replica(1), replica(2)]);
    assert_eq!(completion.facts.pairs(facts::PASSED_OVER), None);

    // It wants a password that is not known.
    cluster.replicas[1].ask(&["CONFIG", "SET", "requirepass", "secret"]).unwrap();
    let (_, completion) = snapshot_of(&cluster);
    let primary = format!("primary 127.0.0.1:{}", cluster.primaries[1].port());
    assert_eq!(from(&completion), [replica(0), primary, replica(2)]);
    let passed_over = completion.facts.pairs(facts::PASSED_OVER).unwrap();
    let [(server, why)] = passed_over else { panic!("{passed_over:?}") };
    assert_eq!(server, format!("127.0.0.1:{}", cluster.replicas[1].port()).as_bytes());
    assert!(String::from_utf8_lossy(why).contains("NOAUTH"), "{passed_over:?}");

    // The same of a primary is in the way of all.
    cluster.primaries[2].ask(&["CONFIG", "SET", "requirepass", "secret"]).unwrap();
    let error = try_cluster(&cluster.url()).unwrap_err();
    assert!(error.one_line().contains(&cluster.primaries[2].port().to_string()), "{error}");
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[test]
fn a_node_that_may_not_be_asked_for_the_others_says_what_is_missing() {
    let cluster = Cluster::start(newest().unwrap(), 1, 0).unwrap();
    let node = &cluster.primaries[0];
    node.ask(&["ACL", "SETUSER", "backup", "on", "nopass", "-@all", "+psync", "+replconf"])
        .unwrap();
    let url = cluster.url().replace("redis://", "redis://backup@");
    let mut connection = options(&url);
    connection.password = Some("any".into());
    let error = run(nodes_of(&connection)).unwrap_err();
    let error = Error::from(error);
    assert!(error.hint().unwrap().contains("+cluster|nodes"), "{error:?}");
    node.ask(&["ACL", "SETUSER", "backup", "+info", "+cluster|nodes"]).unwrap();
    let source = RedisClusterSource::new("cache", connection);
    let snapshot = MemoryStore::new("cache");
    run(transfer(&source, &snapshot, &TransferOptions::default(), &Context::silent())).unwrap();

    let alone = Server::start(newest().unwrap()).unwrap();
    assert_eq!(run(nodes_of(&options(&alone.url()))).unwrap(), None);
}

/// Gives a slot from one node to the other, as `redis-cli --cluster reshard` does.
fn give(
    cluster: &Cluster,
    slot: &str,
    from: usize,
    to: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let [from, to] = [from, to].map(|index| &cluster.primaries[index]);
    let (source, target) = (from.ask(&["CLUSTER", "MYID"])?, to.ask(&["CLUSTER", "MYID"])?);
    to.ask(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &source])?;
    from.ask(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &target])?;
    for node in [to, from] {
        node.ask(&["CLUSTER", "SETSLOT", slot, "NODE", &target])?;
    }
    Ok(())
}

#[test]
fn a_cluster_whose_slots_are_on_their_way_is_not_taken_for_whole() {
    let slow = |builder: lifeboat_testbed::redis::Builder| {
        builder.setting("repl-diskless-sync-delay", "1")
    };
    let cluster = Cluster::start_with(newest().unwrap(), 2, 0, slow).unwrap();
    let [a, b] = &cluster.primaries[..] else { unreachable!() };
    let id = |node: &Server| node.ask(&["CLUSTER", "MYID"]).unwrap();
    b.ask(&["CLUSTER", "SETSLOT", "5", "IMPORTING", &id(a)]).unwrap();
    let error = try_cluster(&cluster.url()).unwrap_err();
    assert!(error.one_line().contains("slot 5 is on its way"), "{}", error.one_line());
    assert!(error.is_retryable());
    b.ask(&["CLUSTER", "SETSLOT", "5", "STABLE"]).unwrap();

    // Each time while the servers wait before they fork.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for (from, to) in [(0, 1), (1, 0)] {
                    // Where they do not agree yet, one is refused.
                    let _ = give(&cluster, "0", from, to);
                }
            }
        });
        let done = try_cluster(&cluster.url());
        stop.store(true, Ordering::Relaxed);
        let line = done.unwrap_err().one_line();
        assert!(line.contains("changed each time"), "{line}");
    });
    cluster.settle().unwrap();
    snapshot_of(&cluster);
}

#[test]
fn a_cluster_that_is_not_whole_is_refused() {
    let cluster = Cluster::start(newest().unwrap(), 3, 0).unwrap();
    cluster.primaries[0].ask(&["CLUSTER", "DELSLOTS", "7"]).unwrap();
    let error = try_cluster(&cluster.url()).unwrap_err();
    assert!(error.one_line().contains("nobody serves the slots 7 to 7"), "{}", error.one_line());
    cluster.primaries[0].ask(&["CLUSTER", "ADDSLOTS", "7"]).unwrap();
    let Cluster { mut primaries, .. } = cluster;
    drop(primaries.pop());
    let error = try_cluster(&primaries[0].url()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.one_line());
}

/// Does something when the target has been looked at, and before the first entry comes.
struct Meanwhile<'a, F>(&'a dyn Source, F);

#[async_trait]
impl<F: Fn() + Send + Sync> Source for Meanwhile<'_, F> {
    fn store(&self) -> &StoreRef {
        self.0.store()
    }

    async fn inspect(&self) -> Result<Inspection> {
        self.0.inspect().await
    }

    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> Result<Box<dyn Reading>> {
        (self.1)();
        self.0.read(since, context).await
    }
}

#[test]
fn keys_follow_slots_that_move_meanwhile() {
    let installation = newest().unwrap();
    let server = filled(installation);
    let (snapshot, _) = run(back_up(&source(&server.url()))).unwrap();
    let cluster = Cluster::start(installation, 2, 0).unwrap();
    let slot = server_slot(&cluster, "{tag}");
    let [from, to] = if slot < 8192 { [0, 1] } else { [1, 0] };
    let slot = slot.to_string();
    // Half-way: new keys of this slot are sent on, one by one.
    let id = |index: usize| cluster.primaries[index].ask(&["CLUSTER", "MYID"]).unwrap();
    let half = || {
        let importing = ["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)];
        cluster.primaries[to].ask(&importing).unwrap();
        let migrating = ["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)];
        cluster.primaries[from].ask(&migrating).unwrap();
        // And this one has gone already.
        let other = server_slot(&cluster, "many:1");
        let [from, to] = if other < 8192 { [0, 1] } else { [1, 0] };
        give(&cluster, &other.to_string(), from, to).unwrap();
    };
    let facts = restore(&Meanwhile(&snapshot, half), &cluster.url());
    assert_eq!(facts.unsigned("redis.keys.written"), Some(digest([&server]).0));
    give(&cluster, &slot, from, to).unwrap();
    let held = cluster.primaries[to].ask(&["CLUSTER", "COUNTKEYSINSLOT", &slot]).unwrap();
    assert_eq!(held, "2");
    assert_eq!(digest(&cluster.primaries), digest([&server]));
}

fn server_slot(cluster: &Cluster, key: &str) -> u16 {
    cluster.primaries[0].ask(&["CLUSTER", "KEYSLOT", key]).unwrap().parse().unwrap()
}

#[test]
fn a_cluster_that_goes_down_is_waited_for_and_then_told() {
    let installation = newest().unwrap();
    let server = filled(installation);
    let (snapshot, _) = run(back_up(&source(&server.url()))).unwrap();
    let cluster = Cluster::start(installation, 2, 0).unwrap();
    let [a, b] = &cluster.primaries[..] else { unreachable!() };
    let down = || {
        for node in [a, b] {
            node.ask(&["CLUSTER", "DELSLOTS", "9000"]).unwrap();
        }
    };
    let mut into = LiveOptions::new(options(&cluster.url()));
    into.connection.patience = Duration::from_secs(2);
    let error = restore_with(&Meanwhile(&snapshot, down), into.clone()).unwrap_err();
    assert!(matches!(why(&error), LiveError::Stopped { .. }), "{}", error.one_line());
    assert!(error.one_line().contains("CLUSTERDOWN"), "{}", error.one_line());
    // It comes back in time.
    b.ask(&["CLUSTER", "ADDSLOTS", "9000"]).unwrap();
    cluster.settle().unwrap();
    into.existing = lifeboat_redis::Existing::Replace;
    into.connection.patience = Duration::from_secs(60);
    std::thread::scope(|scope| {
        let soon = || {
            down();
            scope.spawn(|| b.ask(&["CLUSTER", "ADDSLOTS", "9000"]).unwrap());
        };
        restore_with(&Meanwhile(&snapshot, soon), into).unwrap();
    });
    assert_eq!(digest(&cluster.primaries), digest([&server]));
}

#[test]
fn other_databases_are_refused_before_the_first_key_or_go_into_the_first() {
    let installation = newest().unwrap();
    let server = Server::start(installation).unwrap();
    server.run("SET a 1\nSET b 2\nSELECT 7\nSET c 3\n").unwrap();
    let (snapshot, completion) = run(back_up(&source(&server.url()))).unwrap();
    let cluster = Cluster::start(installation, 2, 0).unwrap();
    let into = LiveOptions::new(options(&cluster.url())).with_facts(&completion.facts);
    let error = restore_with(&snapshot, into.clone()).unwrap_err();
    assert!(matches!(why(&error), LiveError::ClusterDatabase { database: 7, .. }), "{error}");
    assert!(error.hint().unwrap().contains("--db 7=0"));
    assert_eq!(digest(&cluster.primaries).0, 0);
    let mut look = into.clone();
    look.databases = [(0, 0), (7, 0)].into();
    look.doing = Doing::Look;
    let facts = restore_with(&snapshot, look.clone()).unwrap();
    assert_eq!(facts.unsigned("redis.keys.written"), Some(3));
    assert_eq!(digest(&cluster.primaries).0, 0);
    look.doing = Doing::Write;
    restore_with(&snapshot, look).unwrap();
    assert_eq!(cluster.ask(&["GET", "c"]).unwrap(), "3");
    assert_eq!(digest(&cluster.primaries).0, 3);
}

#[test]
fn shards_become_files_that_servers_start_from() {
    let installation = newest().unwrap();
    let server = filled(installation);
    let (alone, _) = run(back_up(&source(&server.url()))).unwrap();
    let cluster = Cluster::start(installation, 3, 0).unwrap();
    restore(&alone, &cluster.url());
    let (snapshot, _) = snapshot_of(&cluster);
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("shards");
    let options = TransferOptions::default();
    let move_to = |sink: &ShardsSink| {
        run(transfer(&snapshot, sink, &options, &Context::silent())).map(|summary| summary.receipt)
    };
    let receipt = move_to(&ShardsSink::new(RestoreOptions::new(&target))).unwrap();
    assert!(receipt.facts.text("redis.next").unwrap().contains("CLUSTER MEET"));
    let mut names: Vec<_> = std::fs::read_dir(&target)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["cluster.nodes", "shard-00000", "shard-05461", "shard-10922"]);
    let map = snapshot.content(&EntryPath::new("cluster.nodes").unwrap()).unwrap();
    assert_eq!(std::fs::read(target.join("cluster.nodes")).unwrap(), map);

    let nodes = names[1..].iter().map(|shard| {
        let node = Cluster::node(installation).files(target.join(shard));
        node.start().unwrap()
    });
    let back = Cluster::of(nodes.collect()).unwrap();
    assert_eq!(digest(&back.primaries), digest([&server]));
    assert_eq!(back.ask(&["GET", "{tag}:b"]).unwrap(), "2");
    let id = |cluster: &Cluster| cluster.primaries[0].ask(&["CLUSTER", "MYID"]).unwrap();
    assert_ne!(id(&back), id(&cluster), "a node is never taken for one of the former cluster");

    // What is there stays; what does not do is refused.
    let error = move_to(&ShardsSink::new(RestoreOptions::new(&target))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let config = dir.path().join("redis.conf");
    std::fs::write(&config, "appendonly yes\n").unwrap();
    let other = dir.path().join("other");
    let mut refused = RestoreOptions::new(&other);
    refused.config = Some(config);
    assert_eq!(move_to(&ShardsSink::new(refused)).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 0);
    let file = RestoreOptions::new(dir.path().join("dump.rdb"));
    let sink = lifeboat_redis::RdbFileSink::new(file);
    let done = run(transfer(&snapshot, &sink, &options, &Context::silent()));
    assert_eq!(done.unwrap_err().kind(), ErrorKind::Corrupt);
}
