//! Redis: there and back, and what stands in the way.

use lifeboat_testbed::redis::{Cluster, Server, newest};

use crate::common::Home;

#[test]
fn a_server_comes_back() {
    let home = Home::new();
    let server = Server::start(newest().unwrap()).unwrap();
    server.run("SET a 1\nEXPIRE a 100000\nRPUSH l 1 2 3\nSELECT 4\nHSET h f v\n").unwrap();
    let digest = server.digest().unwrap();
    let url = server.url();
    let ran = home.run(&["doctor", "redis", "--url", &url]).expect(0);
    let told = ["redis: version 7.4", "run id ", "warning: the server keeps nothing on disk"];
    assert!(told.iter().all(|words| ran.0.stderr.contains(words)), "{ran}");

    let take = ["backup", "redis", "--name", "cache", "--url", &url];
    let ran = home.run(&take).expect(0);
    assert!(ran.0.stderr.contains("keys       3 keys"), "{ran}");
    let summary = home.run(&[&take[..], &["--json"]].concat()).expect(0).end();
    let facts = &summary["facts"];
    assert_eq!(facts["redis.keys"], 3, "{summary}");
    let pair = |name: &str, value: &str| serde_json::json!({"name": name, "value": value});
    assert_eq!(facts["redis.databases"][0], pair("0", "2"), "{summary}");
    assert_eq!(facts["redis.types"][0], pair("hash", "1"), "{summary}");
    assert_eq!(facts["redis.checksum"], "right", "{summary}");
    assert!(summary["position"].as_str().unwrap().contains(':'), "{summary}");

    // Beside append-only files, and with a configuration that wants them, it is refused.
    std::fs::create_dir_all(home.path("data/appendonlydir")).unwrap();
    let file = home.arg("data/dump.rdb");
    let restore = ["restore", "latest", "--store", "redis/cache", "--to", &file];
    home.run(&restore).expect(1).error_says(&["appendonlydir", "--force"]);
    std::fs::remove_dir(home.path("data/appendonlydir")).unwrap();
    std::fs::write(home.path("redis.conf"), "appendonly yes\n").unwrap();
    let config = home.arg("redis.conf");
    let with_config = [&restore[..], &["--redis-conf", &config]].concat();
    home.run(&with_config).expect(1).error_says(&["appendonly yes", "CONFIG SET appendonly yes"]);
    assert!(!home.path("data/dump.rdb").exists());

    let ran = home.run(&restore).expect(0);
    assert!(ran.0.stderr.contains("next: with the server stopped"), "{ran}");
    let restored = Server::builder(newest().unwrap()).rdb(home.path("data/dump.rdb"));
    assert_eq!(restored.start().unwrap().digest().unwrap(), digest);
    home.run(&restore).expect(1).error_says(&["there already"]);
    let elsewhere = home.arg("other.rdb");
    let forced = [&restore[..5], &[&elsewhere, "--redis-conf", &config, "--force"]].concat();
    home.run(&forced).expect(0);
}

#[test]
fn another_server_under_a_used_name_is_told() {
    let home = Home::new();
    let start = || Server::start(newest().unwrap()).unwrap();
    let (server, replica, other) = (start(), start(), start());
    let take = |of: &Server| home.run(&["backup", "redis", "--name", "cache", "--url", &of.url()]);
    take(&server).expect(0);
    // A replica has the same history, and keeps it when it is promoted.
    let port = server.port().to_string();
    replica.ask(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
    let began = std::time::Instant::now();
    while !replica.ask(&["INFO", "replication"]).unwrap().contains("master_link_status:up") {
        assert!(began.elapsed() < crate::common::LIMIT);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    take(&replica).expect(0);
    replica.ask(&["REPLICAOF", "NO", "ONE"]).unwrap();
    take(&replica).expect(0);
    let ran = take(&other).expect(3);
    let address = other.url();
    let address = address.trim_start_matches("redis://");
    let told = ["is of another server", address, "a mistake, forget it"];
    assert!(told.iter().all(|words| ran.0.stderr.contains(words)), "{ran}");
    take(&other).expect(0);
}

#[test]
fn what_is_for_others_is_refused() {
    let home = Home::new();
    let server = Server::start(newest().unwrap()).unwrap();
    home.run(&["backup", "redis", "--name", "cache", "--url", &server.url()]).expect(0);
    home.run(&["backup", "files", &home.tree(), "--name", "tree"]).expect(0);
    let to = home.arg("x");
    for word in ["--replace", "--no-owner", "--no-archiving"] {
        let ran = home.run(&["restore", "latest", "--store", "redis/cache", "--to", &to, word]);
        ran.expect(2).error_says(&[word]);
    }
    let ran = home.run(&["restore", "latest", "--store", "files/tree", "--to", &to, "--force"]);
    ran.expect(2).error_says(&["--force is for Redis"]);
}

#[test]
fn passwords_stay_out_of_arguments_and_errors() {
    let home = Home::new();
    let server =
        Server::builder(newest().unwrap()).setting("requirepass", "hunter2-9f").start().unwrap();
    let port = server.port();
    let open = format!("redis://:hunter2-9f@127.0.0.1:{port}");
    let ran = home.run(&["backup", "redis", "--name", "cache", "--url", &open]).expect(2);
    ran.error_says(&["REDISCLI_AUTH", "--password-file"]);
    let url = server.url();
    let take = ["backup", "redis", "--name", "cache", "--url", &url];
    home.run(&take).expect(1).error_says(&["NOAUTH", "REDISCLI_AUTH"]);
    let doctor = home.run(&["doctor", "redis", "--url", &url]).expect(1);
    assert!(doctor.0.stderr.contains("blocker: log in"), "{doctor}");
    std::fs::write(home.path("password"), "hunter2-9f\n").unwrap();
    let password = home.arg("password");
    home.run(&[&take[..], &["--password-file", &password]].concat()).expect(0);
}

#[test]
fn a_snapshot_goes_into_a_running_server() {
    let home = Home::new();
    let server = Server::start(newest().unwrap()).unwrap();
    server.run("SET session:1 a\nSET session:2 b\nSET other 1\nSELECT 4\nSET x 1\n").unwrap();
    home.run(&["backup", "redis", "--name", "cache", "--url", &server.url()]).expect(0);
    home.run(&["backup", "files", &home.tree(), "--name", "tree"]).expect(0);
    let target =
        Server::builder(newest().unwrap()).setting("requirepass", "hunter2-9f").start().unwrap();
    let ask = |words: &[&str]| target.ask(&[&["-a", "hunter2-9f"][..], words].concat()).unwrap();
    let url = target.url();
    let restore = ["restore", "latest", "--store", "redis/cache", "--into", &url];
    home.run(&restore).expect(1).error_says(&["NOAUTH", "REDISCLI_AUTH"]);
    std::fs::write(home.path("password"), "hunter2-9f\n").unwrap();
    let password = home.arg("password");
    let with =
        |more: &[&str]| home.run(&[&restore[..], &["--password-file", &password], more].concat());
    let looked = with(&["--keys", "session:*", "--dry-run", "--json"]).expect(0).end();
    assert_eq!(looked["facts"]["redis.keys.written"], 2, "{looked}");
    assert_eq!((&looked["target"], ask(&["DBSIZE"])), (&url.as_str().into(), "0".into()));
    let ran = with(&["--keys", "session:*", "--db", "0=2"]).expect(0);
    assert!(ran.0.stderr.contains("done: 2 keys and 0 libraries of functions written"), "{ran}");
    assert_eq!(ask(&["-n", "2", "GET", "session:2"]), "b");
    // What is there is told, and stays.
    ask(&["SET", "other", "mine"]);
    let ran = with(&[]).expect(3);
    assert!(ran.0.stderr.contains("other: the key is there already, and stays as it is"), "{ran}");
    assert_eq!(
        (ask(&["GET", "other"]), ask(&["-n", "4", "GET", "x"])),
        ("mine".into(), "1".into())
    );
    with(&["--replace"]).expect(0);
    assert_eq!(ask(&["GET", "other"]), "1");

    with(&["--db", "x"]).expect(2);
    with(&["--db", "0=1", "--db", "0=2"]).expect(2).error_says(&["two others"]);
    with(&["--to", "x"]).expect(2);
    with(&["--redis-conf", "x"]).expect(2).error_says(&["--redis-conf"]);
    with(&["--to-latest", "--keys", "x"]).expect(2).error_says(&["--keys"]);
    with(&["--listen", "127.0.0.1"]).expect(2).error_says(&["--replace-all"]);
    with(&["--replace-all", "--replace"]).expect(2);
    with(&["--replace-all", "--db", "0"]).expect(2).error_says(&["--db"]);
    ask(&["SET", "unknown", "1"]);
    let ran = with(&["--replace-all", "--dry-run"]).expect(0);
    assert!(ran.0.stderr.contains("which all go"), "{ran}");
    assert_eq!(ask(&["EXISTS", "unknown"]), "1");
    // A pattern that fits nothing is no success.
    let ran = with(&["--keys", "sesion:*"]).expect(3);
    assert!(ran.0.stderr.contains("no key of the snapshot is what was chosen"), "{ran}");
    let ran = with(&["--replace-all"]).expect(0);
    let told = ["note: the server was replaced", "primary again, and holds 4 keys"];
    assert!(told.iter().all(|words| ran.0.stderr.contains(words)), "{ran}");
    assert_eq!((ask(&["EXISTS", "unknown"]), ask(&["DBSIZE"])), ("0".into(), "3".into()));
    home.run(&["restore", "latest", "--store", "redis/cache"]).expect(2);
    let ran = home.run(&["restore", "latest", "--store", "tree", "--into", &url]);
    ran.expect(2).error_says(&["--into is for Redis"]);
}

#[test]
fn a_server_with_fewer_databases_is_not_touched() {
    let home = Home::new();
    let server = Server::start(newest().unwrap()).unwrap();
    server.run("SELECT 3\nSET a theirs\nSET b theirs\n").unwrap();
    home.run(&["backup", "redis", "--name", "cache", "--url", &server.url()]).expect(0);
    let target = Server::builder(newest().unwrap()).setting("databases", "2").start().unwrap();
    target.run("SET a mine\nSET c mine\n").unwrap();
    let (before, url) = (target.digest().unwrap(), target.url());
    let restore = ["restore", "latest", "--store", "redis/cache", "--into", &url, "--replace"];
    let with = |more: &[&str]| {
        let ran = home.run(&[&restore[..], more].concat());
        assert_eq!(target.digest().unwrap(), before, "{ran}");
        ran
    };
    for more in [&[][..], &["--dry-run"], &["--db", "3=7"], &["--db", "3=7", "--dry-run"]] {
        let number = if more.contains(&"3=7") { "database 7 of" } else { "database 3 of" };
        with(more).expect(1).error_says(&[number, "nothing was written", "--db FROM=TO"]);
    }
    with(&["--db", "3=1", "--dry-run"]).expect(0);
    home.run(&[&restore[..], &["--db", "3=1"]].concat()).expect(0);
    assert_eq!(target.ask(&["GET", "a"]).unwrap(), "mine");
    assert_eq!(target.ask(&["-n", "1", "GET", "a"]).unwrap(), "theirs");
}

#[test]
fn keys_are_listed_and_sliced() {
    let home = Home::new();
    let server = Server::start(newest().unwrap()).unwrap();
    server
        .run(
            "SET session:1 a PXAT 1900000000123\nSET session:2 b\nRPUSH user:1 1 2 3\n\
             SET \"odd\\x00\\xff\" x\nSELECT 4\nSET session:4 c\n",
        )
        .unwrap();
    home.run(&["backup", "redis", "--name", "cache", "--url", &server.url()]).expect(0);
    let keys = ["redis", "keys", "latest", "--store", "redis/cache"];
    let ran = home.run(&keys).expect(0);
    assert_eq!(ran.0.stdout.lines().count(), 5, "{ran}");
    assert!(ran.0.stdout.contains("odd\\x00\\xff"), "{ran}");
    assert!(ran.0.stderr.contains("5 keys of 5"), "{ran}");
    let some = [&keys[..], &["--keys", "session:*", "--db", "0", "--json"]].concat();
    let ran = home.run(&some).expect(0);
    let events = ran.0.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    let events: Vec<serde_json::Value> =
        events.filter(|event: &serde_json::Value| event["event"] == "key").collect();
    assert_eq!(events.len(), 2, "{ran}");
    let first = events.iter().find(|event| event["key"] == "session:1").unwrap();
    assert_eq!(first["expires"], "2030-03-17T17:46:40.123Z");
    assert_eq!((&first["database"], &first["type"]), (&0.into(), &"string".into()));
    let summary = ran.end();
    assert_eq!((&summary["keys"], &summary["of"]), (&2.into(), &5.into()), "{summary}");

    let file = home.arg("slice.rdb");
    let restore = ["restore", "latest", "--store", "redis/cache", "--to", &file];
    let ran = home.run(&[&restore[..], &["--keys", "session:*", "--db", "4=0"]].concat()).expect(0);
    assert!(ran.0.stderr.contains("holds 1 of the 5 keys"), "{ran}");
    let slice = Server::builder(newest().unwrap()).rdb(home.path("slice.rdb")).start().unwrap();
    assert_eq!(slice.ask(&["KEYS", "*"]).unwrap(), "session:4");
    assert_eq!(slice.ask(&["GET", "session:4"]).unwrap(), "c");
    home.run(&["backup", "files", &home.tree(), "--name", "tree"]).expect(0);
    let none = home.arg("none.rdb");
    let restore = ["restore", "latest", "--store", "redis/cache", "--to", &none];
    let ran = home.run(&[&restore[..], &["--keys", "no such"]].concat()).expect(3);
    assert!(ran.0.stderr.contains("no key of the snapshot fits"), "{ran}");
    home.run(&["redis", "keys", "latest", "--store", "files/tree"])
        .expect(2)
        .error_says(&["lifeboat ls"]);
    let other = home.arg("other");
    let files = ["restore", "latest", "--store", "files/tree", "--to", &other, "--keys", "a"];
    home.run(&files).expect(2).error_says(&["--keys is for Redis"]);
}

#[test]
fn a_cluster_comes_back() {
    let home = Home::new();
    let cluster = Cluster::start(newest().unwrap(), 3, 0).unwrap();
    for key in 0..60 {
        cluster.ask(&["SET", &format!("key:{key}"), "value"]).unwrap();
    }
    let url = cluster.url();
    let ran = home.run(&["doctor", "redis", "--url", &url]).expect(0);
    assert!(ran.0.stderr.contains("of which a snapshot holds all shards"), "{ran}");
    let take = ["backup", "redis", "--name", "cache", "--url", &url];
    let ran = home.run(&take).expect(0);
    let told = ["backed up whole: 3 shards, 0 replicas", "keys       60 keys", "moment of its own"];
    assert!(told.iter().all(|words| ran.0.stderr.contains(words)), "{ran}");
    let held = |ran: serde_json::Value| ran["facts"]["redis.keys"].as_u64().unwrap();
    let json = |words: &[&str]| home.run(&[words, &["--json"]].concat()).expect(0).end();
    assert_eq!(held(json(&take)), 60);

    let target = Cluster::start(newest().unwrap(), 2, 0).unwrap();
    let into = target.url();
    let restore = ["restore", "latest", "--store", "redis/cache"];
    let done = json(&[&restore[..], &["--into", &into]].concat());
    assert_eq!(done["facts"]["redis.keys.written"], 60, "{done}");
    assert_eq!(target.ask(&["GET", "key:7"]).unwrap(), "value");
    let files = home.arg("shards");
    let ran = home.run(&[&restore[..], &["--to", &files]].concat()).expect(0);
    assert!(ran.0.stderr.contains("CLUSTER MEET"), "{ran}");
    assert!(home.path("shards/shard-05461/nodes.conf").exists());
    let listed = json(&["redis", "keys", "latest", "--store", "redis/cache"]);
    assert_eq!(listed["keys"], 60, "{listed}");
    let programs = newest().unwrap().directory().unwrap();
    let programs = ["--programs", programs.path().to_str().unwrap()];
    let verify = ["verify", "--restore", "latest", "--store", "redis/cache", "--compare", "all"];
    let verify = [&verify[..], &programs].concat();
    let proved = json(&verify);
    assert_eq!((&proved["keys"], &proved["compared"]), (&60.into(), &60.into()), "{proved}");
    home.run(&[&verify[..], &["--source", &url]].concat()).expect(2).error_says(&["--source"]);

    home.run(&[&restore[..], &["--into", &into, "--replace-all"]].concat())
        .expect(2)
        .error_says(&["snapshot of a cluster"]);

    // What is no part of this cluster, or only a part of it, is told under its name.
    let one = Server::start(newest().unwrap()).unwrap();
    let follow = ["follow", "redis", "--name", "cache", "--url", &url];
    home.run(&follow).expect(1).error_says(&["snapshots of a cluster", "--adopt"]);
    for (url, more, told) in [
        (&into, &[][..], "is of another cluster"),
        (&url, &[], "is of another cluster"),
        (&url, &["--alone"], "is of a cluster, and this is one server"),
        (&url, &[], "is of one server, and this is a cluster"),
        (&one.url(), &[], "is of a cluster, and this is one server"),
    ] {
        let take = ["backup", "redis", "--name", "cache", "--url", url];
        let ran = home.run(&[&take[..], more].concat()).expect(3);
        assert!(ran.0.stderr.contains(told), "{told}: {ran}");
    }

    // One shard alone, when that is what is meant.
    let alone = json(&["backup", "redis", "--name", "shard", "--url", &url, "--alone"]);
    assert!((1..60).contains(&held(alone)));
    let node = &cluster.primaries[0];
    node.ask(&["ACL", "SETUSER", "few", "on", "nopass", "-@all", "+psync", "+replconf"]).unwrap();
    let few = url.replace("redis://", "redis://few@");
    std::fs::write(home.path("password"), "x\n").unwrap();
    let take = ["backup", "redis", "--name", "few", "--url", &few, "--password-file"];
    let password = home.arg("password");
    let take = [&take[..], &[&password]].concat();
    home.run(&take).expect(1).error_says(&["+cluster|nodes", "--alone"]);
    home.run(&[&take[..], &["--alone"]].concat()).expect(0);
}

#[test]
fn a_server_that_refuses_replication_is_read_key_by_key() {
    let home = Home::new();
    let server = Server::start(newest().unwrap()).unwrap();
    server
        .run(
            "SET a 1\nSELECT 4\nHSET h f v\nACL SETUSER backup on >hunter2 ~* -@all +info +select +scan \
             +dump +pttl +time +multi +exec +pexpiretime +function|dump\n",
        )
        .unwrap();
    let digest = server.digest().unwrap();
    let url = format!("redis://backup@127.0.0.1:{}", server.port());
    std::fs::write(home.path("password"), "hunter2\n").unwrap();
    let password = home.arg("password");
    let reach = ["--url", &url, "--password-file", &password];
    let ran = home.run(&[&["doctor", "redis"][..], &reach].concat()).expect(0);
    assert!(ran.0.stderr.contains("snapshots are read key by key, and not of one moment"), "{ran}");

    let take = [&["backup", "redis", "--name", "cache"][..], &reach].concat();
    let ran = home.run(&take).expect(3);
    let told = ["refuses replication", "not of one moment: its keys were read one by one until"];
    assert!(told.iter().all(|words| ran.0.stderr.contains(words)), "{ran}");
    let by = |way: &str| home.run(&[&take[..], &["--by", way]].concat());
    by("scan").expect(0);
    by("replication").expect(1).error_says(&["ACL SETUSER backup +psync +replconf"]);
    let ran = home.run(&["snapshots"]).expect(0);
    assert!(ran.0.stdout.contains("not of one moment"), "{ran}");
    let listed = home.run(&["snapshots", "--json"]).expect(0).events_of("snapshot").pop().unwrap();
    assert_eq!(listed["facts"]["redis.consistency"], "key by key");
    // Moments of a journal cannot begin with one.
    let ran = home.run(&["window", "--store", "redis/cache"]).expect(0);
    assert!(ran.0.stderr.contains("0 windows"), "{ran}");

    let file = home.arg("dump.rdb");
    home.run(&["restore", "latest", "--store", "redis/cache", "--to", &file]).expect(0);
    let restored = Server::builder(newest().unwrap()).rdb(home.path("dump.rdb")).start().unwrap();
    assert_eq!(restored.digest().unwrap(), digest);
    let programs = newest().unwrap().directory().unwrap();
    let verify = ["verify", "--restore", "latest", "--programs", programs.path().to_str().unwrap()];
    home.run(&verify).expect(0);
}

#[test]
fn append_only_files_come_back_as_such() {
    let home = Home::new();
    let installation = newest().unwrap();
    let server = Server::builder(installation)
        .setting("appendonly", "yes")
        .setting("appendfsync", "always")
        .start()
        .unwrap();
    server.run("SET a 1\nSELECT 4\nHSET h f v\n").unwrap();
    let files = server.dir().join("appendonlydir");
    let files = files.to_str().unwrap();
    let take = ["backup", "redis", "--name", "cache", "--aof", files];
    let summary = home.run(&[&take[..], &["--json"]].concat()).expect(0).end();
    assert_eq!(summary["facts"]["redis.aof.form"], "multi-part", "{summary}");
    home.run(&[&take[..], &["--by", "scan"]].concat()).expect(2);

    let data = home.arg("data");
    let ran = home.run(&["restore", "latest", "--store", "redis/cache", "--to", &data]).expect(0);
    assert!(ran.0.stderr.contains("appendonly yes"), "{ran}");
    let restored = Server::builder(installation).setting("appendonly", "yes");
    let restored = restored.files(home.path("data")).start().unwrap();
    assert_eq!(restored.digest().unwrap(), server.digest().unwrap());

    let programs = installation.directory().unwrap();
    let programs = ["--programs", programs.path().to_str().unwrap()];
    let verify = ["verify", "--restore", "latest", "--store", "redis/cache"];
    let ran = home.run(&[&verify[..], &programs].concat()).expect(0);
    assert!(ran.0.stderr.contains("sound: 2 keys in 2 databases"), "{ran}");
    home.run(&[&verify[..], &["--compare", "all"]].concat()).expect(2).error_says(&["counted"]);
    let url = server.url();
    home.run(&["restore", "latest", "--store", "redis/cache", "--into", &url])
        .expect(2)
        .error_says(&["start a server from that directory"]);
    home.run(&["redis", "keys", "latest", "--store", "redis/cache"])
        .expect(2)
        .error_says(&["start a server from that directory"]);
    let none = home.arg("no such directory");
    home.run(&["backup", "redis", "--name", "cache", "--aof", &none]).expect(1);
}
