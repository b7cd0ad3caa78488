//! A server that refuses replication, read key by key.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Completion, Context, Error, Result, Severity, Source, TransferOptions, transfer,
};
use lifeboat_redis::{ConnectOptions, RedisSource, Way, facts};
use lifeboat_testbed::redis::{Installation, Server, all, of_version};

use crate::common::{dump, fill, key_count, keys, restore, run};
use crate::everything::builder;

/// What a user needs who may not replicate.
fn rights(installation: &Installation) -> &'static str {
    match installation.number() >= (7, 0) {
        true => {
            "~* -@all +info +select +scan +dump +pttl +time +multi +exec +pexpiretime \
             +function|dump"
        }
        false => "~* -@all +info +select +scan +dump +pttl +time +multi +exec",
    }
}

fn user(server: &Server, name: &str, rights: &str) -> RedisSource {
    server.run(&format!("ACL SETUSER {name} on >hunter2 {rights}\n")).unwrap();
    let url = format!("redis://{name}@127.0.0.1:{}", server.port());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let options = ConnectOptions::parse(&url).unwrap().with_password_file(file).unwrap();
    RedisSource::new("cache", options)
}

/// Takes a snapshot, and says how many things need attention.
async fn back_up(source: &RedisSource) -> Result<(MemoryStore, Completion, u64)> {
    let snapshot = MemoryStore::new("cache");
    let context = Context::silent();
    let summary = transfer(source, &snapshot, &TransferOptions::default(), &context).await?;
    Ok((snapshot, summary.completion, summary.warnings))
}

/// Has the server's own program look at an RDB.
fn sound(installation: &Installation, path: &Path) {
    let output = installation.command().arg0("redis-check-rdb").arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("RDB looks OK"), "{said}");
}

fn told(error: &Error) -> String {
    format!("{}; {}", error.one_line(), error.hint().unwrap_or_default())
}

#[test]
fn everything_comes_back_of_a_server_that_may_not_be_replicated() {
    for installation in all().unwrap() {
        println!("Redis {}", installation.version);
        let server = builder(installation).start().unwrap();
        fill(&server);
        let expires = |server: &Server| server.ask(&["PTTL", "e:ms"]).unwrap().parse::<i64>();
        let source = user(&server, "backup", rights(installation));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dump.rdb");
        run(async {
            let findings = source.inspect().await.unwrap().findings;
            let found = findings.iter().find(|it| it.code == "may_not_replicate").unwrap();
            assert_eq!(found.severity, Severity::Warning, "{found:?}");
            assert!(found.what.contains("not of one moment"), "{found:?}");

            let (snapshot, completion, warnings) = back_up(&source).await.unwrap();
            assert_eq!(warnings, 1);
            let facts = &completion.facts;
            assert_eq!(facts.text(facts::CONSISTENCY), Some(facts::KEY_BY_KEY));
            let moment = |name| facts.text(name).unwrap().parse::<lifeboat_core::Timestamp>();
            let (began, ended) = (moment(facts::SCAN_BEGAN), moment(facts::SCAN_ENDED));
            assert!(completion.taken == began.clone().unwrap() && began.unwrap() <= ended.unwrap());
            assert_eq!(facts.text(facts::VERSION), Some(installation.version.as_str()));
            assert_eq!(facts.text(facts::REPLICATION_ID), None);
            assert_eq!(facts.unsigned(facts::VANISHED), Some(0));
            assert_eq!(completion.position, "");

            // In the order of names, each once.
            let records = keys(&dump(&snapshot));
            let names: Vec<_> = records.iter().map(|it| (it.database, it.name.clone())).collect();
            let sorted: Vec<_> =
                names.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
            assert_eq!(names, sorted);

            restore(&snapshot, &path).await.unwrap();
            sound(installation, &path);
            let restored = builder(installation).rdb(&path).start().unwrap();
            assert_eq!(restored.digest().unwrap(), server.digest().unwrap());
            let apart = expires(&restored).unwrap() - expires(&server).unwrap();
            assert!(apart.abs() < 2000, "{apart}");
            if installation.number() >= (7, 0) {
                let ask = |server: &Server| server.ask(&["PEXPIRETIME", "e:ms"]).unwrap();
                assert_eq!(ask(&restored), ask(&server));
                let list = |server: &Server| server.ask(&["FUNCTION", "LIST"]).unwrap();
                assert_eq!(list(&restored), list(&server));
            }
        });
    }
}

#[test]
fn what_is_written_meanwhile_breaks_nothing() {
    let installation = of_version(7, 0).unwrap();
    let server = Server::start(installation).unwrap();
    server
        .run(
            "EVAL \"for i=1,20000 do redis.call('SET','stays:'..i,i) end\" 0\n\
             EVAL \"for i=1,150000 do redis.call('SET','goes:'..i,string.rep('x',50)) end\" 0\n",
        )
        .unwrap();
    let source = user(&server, "backup", rights(installation)).with_way(Way::Scan);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dump.rdb");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Tables shrink and grow: that is when names come twice.
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                let delete = "for i=1,150000 do redis.call('DEL','goes:'..i) end";
                let make =
                    "for i=1,150000 do redis.call('SET','goes:'..i,ARGV[1],'PX',9000000) end";
                server.ask(&["EVAL", delete, "0"]).unwrap();
                server.ask(&["EVAL", make, "0", &round.to_string()]).unwrap();
            }
        });
        let taken = run(back_up(&source));
        stop.store(true, Ordering::Relaxed);
        let (snapshot, completion, warnings) = taken.unwrap();
        assert_eq!(warnings, 0, "it was asked for");
        assert!(key_count(&completion) >= 20_000);
        run(restore(&snapshot, &path)).unwrap();
    });
    // A server refuses a file in which a name is twice.
    sound(installation, &path);
    let restored = Server::builder(installation).rdb(&path).start().unwrap();
    let count = "local n=0 for i=1,20000 do \
                 if redis.call('GET','stays:'..i)==tostring(i) then n=n+1 end end return n";
    assert_eq!(restored.ask(&["EVAL", count, "0"]).unwrap(), "20000");
    // What goes and comes had an expiry whenever it had a number: value and expiry are of one moment.
    let odd = "local n=0 for i=1,150000 do local v=redis.call('GET','goes:'..i) \
               if v and (#v<50) ~= (redis.call('PTTL','goes:'..i)>0) then n=n+1 end end return n";
    assert_eq!(restored.ask(&["EVAL", odd, "0"]).unwrap(), "0");
}

#[test]
fn large_values_and_empty_servers_pass() {
    for installation in all().unwrap() {
        let server = Server::start(installation).unwrap();
        let source = user(&server, "backup", rights(installation)).with_way(Way::Scan);
        let directory = tempfile::tempdir().unwrap();
        let (empty, large) =
            (directory.path().join("empty.rdb"), directory.path().join("large.rdb"));
        run(async {
            let (snapshot, completion, _) = back_up(&source).await.unwrap();
            assert_eq!(key_count(&completion), 0);
            restore(&snapshot, &empty).await.unwrap();
            sound(installation, &empty);
            server
                .run(
                    "CONFIG SET rdbcompression no\nSETRANGE large 30000000 end\n\
                     EVAL \"for i=1,200000 do redis.call('RPUSH','list','element '..i) end\" 0\n",
                )
                .unwrap();
            let (snapshot, _, _) = back_up(&source).await.unwrap();
            assert!(dump(&snapshot).len() > 30_000_000);
            restore(&snapshot, &large).await.unwrap();
            let restored = Server::builder(installation).rdb(&large).start().unwrap();
            assert_eq!(restored.digest().unwrap(), server.digest().unwrap());
        });
    }
}

#[test]
fn a_command_that_is_not_there_is_a_refusal_and_what_was_forbidden_is_not_done() {
    let installation = of_version(7, 0).unwrap();
    let server = Server::builder(installation).setting("rename-command", "PSYNC ").start().unwrap();
    server.run("SET a 1\n").unwrap();
    let options = ConnectOptions::parse(&server.url()).unwrap();
    let source = RedisSource::new("cache", options);
    run(async {
        let (_, completion, warnings) = back_up(&source).await.unwrap();
        assert_eq!((key_count(&completion), warnings), (1, 1));
        let error = back_up(&source.clone().with_way(Way::Replication)).await.unwrap_err();
        assert!(told(&error).contains("lifeboat doctor redis"), "{}", told(&error));
        // Neither way: the first refusal is told, and the doctor knows both.
        let neither = user(&server, "neither", "~* -@all +info +select +scan +psync +replconf");
        let error = back_up(&neither.clone().with_way(Way::Scan)).await.unwrap_err();
        let line = told(&error);
        assert!(line.contains("ACL SETUSER neither ~* +info") && line.contains("+dump"), "{line}");
        let findings = neither.inspect().await.unwrap().findings;
        let codes: Vec<_> = findings.iter().map(|it| (it.severity, it.code.as_str())).collect();
        assert!(!codes.contains(&(Severity::Warning, "may_not_replicate")), "{codes:?}");
    });
    // Functions that may not be asked for are missed, and that is told.
    let most = rights(installation).replace(" +function|dump", "");
    let source = user(&server, "most", &most).with_way(Way::Scan);
    let (_, _, warnings) = run(back_up(&source)).unwrap();
    assert_eq!(warnings, 1);
}
