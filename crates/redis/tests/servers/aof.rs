//! Append-only files, taken from the disk of a server that writes them.

use std::path::{Path, PathBuf};

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Completion, Context, EntryPath, Error, Result, TransferOptions, transfer,
};
use lifeboat_redis::{AppendOnlyForm, AppendOnlyOptions, AppendOnlySink, AppendOnlySource, facts};
use lifeboat_testbed::redis::{Installation, Server, all, of_version};

use crate::common::{fill, run};
use crate::everything::builder;
use crate::following::eventually;

fn writing(installation: &Installation) -> lifeboat_testbed::redis::Builder {
    builder(installation).setting("appendonly", "yes").setting("appendfsync", "always")
}

fn files(server: &Server) -> PathBuf {
    match server.installation().number() >= (7, 0) {
        true => server.dir().join("appendonlydir"),
        false => server.dir().join("appendonly.aof"),
    }
}

async fn back_up(path: &Path) -> Result<(MemoryStore, Completion)> {
    let (source, snapshot) = (AppendOnlySource::new("cache", path), MemoryStore::new("cache"));
    let context = Context::silent();
    let summary = transfer(&source, &snapshot, &TransferOptions::default(), &context).await?;
    Ok((snapshot, summary.completion))
}

/// A server started from a snapshot of files.
async fn restored(snapshot: &MemoryStore, facts: &Attributes, like: &Installation) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("data");
    let form = AppendOnlyForm::of(facts).unwrap();
    let sink = AppendOnlySink::new(AppendOnlyOptions::new(&to, form));
    let options = TransferOptions::default();
    transfer(snapshot, &sink, &options, &Context::silent()).await.unwrap();
    // Nothing of it is forgiven.
    writing(like).setting("aof-load-truncated", "no").files(&to).start().unwrap()
}

fn content(snapshot: &MemoryStore, name: &str) -> Vec<u8> {
    snapshot.content(&EntryPath::new(name).unwrap()).unwrap().to_vec()
}

/// What is done to a file.
type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn what_a_server_has_written_comes_back() {
    for installation in all().unwrap() {
        println!("Redis {}", installation.version);
        for preamble in ["yes", "no"] {
            let number = installation.number();
            let mut server = writing(installation).setting("aof-use-rdb-preamble", preamble);
            if number >= (7, 0) {
                server = server.setting("aof-timestamp-enabled", "yes");
            }
            let server = server.start().unwrap();
            fill(&server);
            run(async {
                // Without a base that holds something.
                let (snapshot, completion) = back_up(&files(&server)).await.unwrap();
                let again = restored(&snapshot, &completion.facts, installation).await;
                assert_eq!(again.digest().unwrap(), server.digest().unwrap());

                server.ask(&["BGREWRITEAOF"]).unwrap();
                let done = async || {
                    let info = server.ask(&["INFO", "persistence"]).unwrap();
                    let idle = info.contains("aof_rewrite_in_progress:0")
                        && info.contains("aof_rewrite_scheduled:0");
                    idle.then_some(())
                };
                eventually("the rewrite ends", done).await;
                server
                    .run("SET after 1\nMULTI\nSET m 1\nINCR m\nEXEC\nSELECT 7\nDEL other\n")
                    .unwrap();
                let (snapshot, completion) = back_up(&files(&server)).await.unwrap();
                let facts = &completion.facts;
                let base = facts.unsigned(facts::BASE_KEYS).unwrap();
                assert_eq!(base > 0, preamble == "yes", "{facts:?}");
                assert!(facts.unsigned(facts::CHANGES).unwrap() > 0);
                // Of some modules no file of commands can be made: then the old set goes on.
                let files = facts.unsigned(facts::FILES).unwrap();
                assert!(if number >= (7, 0) { (2..=3).contains(&files) } else { files == 1 });
                let again = restored(&snapshot, facts, installation).await;
                assert_eq!(again.digest().unwrap(), server.digest().unwrap());
                assert_eq!(again.ask(&["GET", "m"]).unwrap(), "2");
            });
        }
    }
}

#[test]
fn while_a_server_rewrites_them_what_is_taken_is_a_state_that_it_had() {
    for installation in all().unwrap() {
        let server = writing(installation).start().unwrap();
        server.run("EVAL \"for i=1,200000 do redis.call('SET','k'..i,i) end\" 0\n").unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let taken = std::thread::scope(|scope| {
            scope.spawn(|| {
                // The two belong together.
                let pair = "for i=1,50 do redis.call('INCR','one') redis.call('INCR','two') end";
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    server.ask(&["EVAL", pair, "0"]).unwrap();
                    let _ = server.ask(&["BGREWRITEAOF"]);
                }
            });
            let mut taken = Vec::new();
            for _ in 0..15 {
                taken.push(run(back_up(&files(&server))));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            taken
        });
        let mut last = 0;
        for (at, snapshot) in taken.into_iter().enumerate() {
            let (snapshot, completion) = snapshot.unwrap();
            if at % 5 > 0 {
                continue;
            }
            run(async {
                let again = restored(&snapshot, &completion.facts, installation).await;
                let number = |key: &str| again.ask(&["GET", key]).unwrap().parse().unwrap_or(0_u64);
                assert_eq!(number("one"), number("two"));
                assert_eq!(again.ask(&["GET", "k200000"]).unwrap(), "200000");
                assert!(number("one") >= last && number("one") % 50 == 0);
                last = number("one");
            });
        }
        assert!(last > 0);
    }
}

#[test]
fn what_is_half_written_is_left_out_and_what_is_damaged_is_refused() {
    let installation = of_version(7, 0).unwrap();
    let server = writing(installation).start().unwrap();
    server.run("SET a 1\nMULTI\nSET b 2\nSET c 3\nEXEC\n").unwrap();
    let told = |error: Error| format!("{}; {}", error.one_line(), error.hint().unwrap_or_default());
    let copy = tempfile::tempdir().unwrap();
    let reset = || {
        for entry in std::fs::read_dir(files(&server)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    };
    let of_kind = |end: &str| {
        let mut found = std::fs::read_dir(copy.path()).unwrap().map(|it| it.unwrap().path());
        found.find(|path| path.to_string_lossy().ends_with(end)).unwrap()
    };
    run(async {
        reset();
        let (whole, _) = back_up(copy.path()).await.unwrap();
        let whole = content(&whole, "stream.aof");
        let increment = of_kind("incr.aof");
        let text = String::from_utf8(whole.clone()).unwrap();
        let transaction = text.find("*1\r\n$5\r\nMULTI").unwrap();
        // Cut within the transaction, and within the last word of it.
        for length in [whole.len() - 1, transaction + 40, transaction + 1] {
            std::fs::write(&increment, &whole[..length]).unwrap();
            let (cut, completion) = back_up(copy.path()).await.unwrap();
            assert_eq!(content(&cut, "stream.aof"), whole[..transaction], "{length}");
            let again = restored(&cut, &completion.facts, installation).await;
            assert_eq!(again.ask(&["DBSIZE"]).unwrap(), "1");
        }
        let damages: [(&str, Damage<'_>, &str); 4] = [
            ("incr.aof", &|bytes| bytes[transaction] = b'!', "is no part of a command"),
            ("base.rdb", &|bytes| bytes[12] ^= 1, "RDB"),
            ("base.rdb", &|bytes| bytes.truncate(30), "RDB"),
            ("manifest", &|bytes| bytes[0] = b'x', "makes no sense"),
        ];
        for (end, damage, what) in damages {
            reset();
            let path = of_kind(end);
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            let told = told(back_up(copy.path()).await.unwrap_err());
            assert!(told.contains(what) && told.contains("redis-check-aof"), "{end}: {told}");
        }
        reset();
        std::fs::remove_file(of_kind("incr.aof")).unwrap();
        let missing = told(back_up(copy.path()).await.unwrap_err());
        assert!(missing.contains("incr.aof"), "{missing}");
        let empty = tempfile::tempdir().unwrap();
        let none = told(back_up(empty.path()).await.unwrap_err());
        assert!(none.contains("it holds no manifest"), "{none}");
    });
}
