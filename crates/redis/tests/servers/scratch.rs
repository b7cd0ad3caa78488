//! A snapshot on a scratch server, examined.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Completion, Context, Entry, EntryPath, Error, Result, TransferOptions, transfer,
};
use lifeboat_redis::{
    ConnectOptions, Examination, ExamineOptions, Sample, Scratch, ScratchOptions, ScratchServer,
    examine,
};
use lifeboat_testbed::redis::{Installation, Server, all, newest, of_version};

use crate::common::{back_up, dump, fill, key_count, run, source};
use crate::everything::builder;
use crate::following::eventually;

fn options(place: &Path, programs: &Path, installation: &Installation) -> ScratchOptions {
    let mut options = ScratchOptions::new(place);
    options.programs = Some(programs.to_owned());
    options.modules = installation.module.clone().into_iter().collect();
    options
}

async fn raise(
    snapshot: &MemoryStore,
    completion: &Completion,
    options: &ScratchOptions,
) -> Result<ScratchServer> {
    let scratch = Scratch::prepare(&completion.facts, options).await?;
    let context = Context::silent();
    transfer(snapshot, &scratch.sink(), &TransferOptions::default(), &context).await?;
    scratch.start(&context).await
}

async fn examined(server: &ScratchServer, source: Option<&Server>, sample: Sample) -> Examination {
    let mut options = ExamineOptions::default();
    options.sample = sample;
    options.source = source.map(|it| ConnectOptions::parse(&it.url()).unwrap());
    examine(server, &options, &Context::silent()).await.unwrap()
}

/// Has a client of its own change the scratch server.
fn change(place: &Path, words: &[&str]) {
    let directory = std::fs::read_dir(place).unwrap().next().unwrap().unwrap().path();
    let socket = directory.join("redis.sock");
    let output = Command::new("redis-cli").arg("-e").arg("-s").arg(socket).args(words).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

fn told(error: &Error) -> String {
    format!("{}; {}", error.one_line(), error.hint().unwrap_or_default())
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn every_key_of_a_snapshot_is_compared_and_nothing_stays() {
    for installation in all().unwrap() {
        println!("Redis {}", installation.version);
        let server = builder(installation).start().unwrap();
        fill(&server);
        let (place, programs) = (tempfile::tempdir().unwrap(), installation.directory().unwrap());
        run(async {
            let (snapshot, completion) = back_up(&source(&server.url())).await.unwrap();
            let options = options(place.path(), programs.path(), installation);
            let scratch = raise(&snapshot, &completion, &options).await.unwrap();
            assert_eq!(scratch.version(), installation.version);
            let found = examined(&scratch, Some(&server), Sample::All).await;
            assert_eq!((found.problem_count, &found.problems[..]), (0, &[][..]));
            assert_eq!(found.unchecked, Vec::<String>::new());
            let keys = key_count(&completion);
            assert_eq!((found.keys, found.compared, found.expired), (keys, keys, 0));
            assert_eq!(found.databases, 2);
            assert_eq!(found.libraries, (installation.number() >= (7, 0)).then_some(1));
            let there = found.source.unwrap();
            assert_eq!((there.compared, there.same, there.gone), (keys, keys, 0));

            // A part of them.
            let some = examined(&scratch, None, Sample::Keys(10)).await;
            assert!((1..=10).contains(&some.compared) && some.problem_count == 0, "{some:?}");

            // Where it is, nobody else can look.
            let mode = std::fs::read_dir(place.path()).unwrap().next().unwrap().unwrap();
            assert_eq!(mode.metadata().unwrap().permissions().mode() & 0o777, 0o700);
            scratch.stop().await.unwrap();
            assert!(is_empty(place.path()));
        });
    }
}

#[test]
fn what_differs_is_found() {
    let installation = newest().unwrap();
    let server = builder(installation).start().unwrap();
    fill(&server);
    let (place, programs) = (tempfile::tempdir().unwrap(), installation.directory().unwrap());
    run(async {
        let (snapshot, completion) = back_up(&source(&server.url())).await.unwrap();
        let options = options(place.path(), programs.path(), installation);
        let scratch = raise(&snapshot, &completion, &options).await.unwrap();
        change(place.path(), &["SET", "s:text", "other"]);
        change(place.path(), &["DEL", "l:large"]);
        change(place.path(), &["PERSIST", "e:ms"]);
        change(place.path(), &["-n", "7", "PEXPIRE", "leaving", "1000000"]);
        change(place.path(), &["-n", "3", "SET", "more", "1"]);
        let found = examined(&scratch, None, Sample::All).await;
        let whats: Vec<_> =
            found.problems.iter().map(|it| (&*it.key, it.database, &*it.what)).collect();
        let has = |key: &str, database: u64, what: &str| {
            assert!(
                whats.iter().any(|it| it.0 == key && it.1 == database && it.2.contains(what)),
                "{key}: {what} is not in {whats:?}"
            );
        };
        has("s:text", 0, "value is not the one in the file");
        has("l:large", 0, "not there");
        has("e:ms", 0, "another moment");
        has("leaving", 7, "another moment");
        has("", 3, "holds 1 keys, and the file 0");
        has("", 0, "the server holds");
        // The value of e:ms differs, too: its digest tells whether it expires.
        assert_eq!(found.problem_count, 7, "{whats:?}");
        scratch.stop().await.unwrap();

        // The file is not what was taken.
        server.run("SET one:more 1\n").unwrap();
        let (later, _) = back_up(&source(&server.url())).await.unwrap();
        let scratch = raise(&later, &completion, &options).await.unwrap();
        let found = examined(&scratch, None, Sample::Keys(5)).await;
        let what = &found.problems[0].what;
        assert!(found.problem_count == 1 && what.contains("when it was taken"), "{found:?}");
        scratch.stop().await.unwrap();
    });
}

#[test]
fn a_running_server_is_compared_without_the_right_to_debug() {
    let installation = newest().unwrap();
    let server = builder(installation).setting("enable-debug-command", "no").start().unwrap();
    server
        .run("SET a 1\nSET b 2\nSET c 3\nSADD s z y x w v u 1 2 3 4\nSET t 4 EX 100000\nSET u 5\n")
        .unwrap();
    let (place, programs) = (tempfile::tempdir().unwrap(), installation.directory().unwrap());
    run(async {
        let (snapshot, completion) = back_up(&source(&server.url())).await.unwrap();
        let options = options(place.path(), programs.path(), installation);
        let scratch = raise(&snapshot, &completion, &options).await.unwrap();
        // The same set, built in another order.
        server
            .run("DEL a\nSET b 22\nDEL s\nSADD s 4 3 2 1 u v w x y z\nPERSIST t\nSET new 1\n")
            .unwrap();
        let found = examined(&scratch, Some(&server), Sample::All).await;
        assert_eq!(found.problem_count, 0, "{found:?}");
        let there = found.source.unwrap();
        assert_eq!((there.compared, there.same, there.changed, there.gone), (6, 3, 2, 1));
        let mut different: Vec<_> =
            there.different.iter().map(|it| (&*it.key, &*it.what)).collect();
        different.sort_unstable();
        assert_eq!(
            different,
            [
                ("a", "it is not there any more"),
                ("b", "it has another value"),
                ("t", "it expires on one side only"),
            ]
        );
        scratch.stop().await.unwrap();
    });
}

#[test]
fn keys_that_expired_since_are_no_loss() {
    for installation in all().unwrap() {
        let server = Server::start(installation).unwrap();
        server.run("SET stays 1\nSET leaves 2 PX 800\nSET later 3 EX 10000\n").unwrap();
        let (place, programs) = (tempfile::tempdir().unwrap(), installation.directory().unwrap());
        run(async {
            let (snapshot, completion) = back_up(&source(&server.url())).await.unwrap();
            assert_eq!(key_count(&completion), 3);
            let left = async || (server.ask(&["EXISTS", "leaves"]).unwrap() == "0").then_some(());
            eventually("the key expires", left).await;
            let mut options = options(place.path(), programs.path(), installation);
            options.modules.clear();
            let scratch = raise(&snapshot, &completion, &options).await.unwrap();
            let found = examined(&scratch, None, Sample::All).await;
            assert_eq!((found.keys, found.expired, found.compared), (2, 1, 2), "{found:?}");
            assert_eq!(found.problem_count, 0, "{found:?}");
            scratch.stop().await.unwrap();
        });
    }
}

#[test]
fn what_cannot_be_loaded_says_why_and_leaves_nothing() {
    let (old, new) = (of_version(6, 2).unwrap(), newest().unwrap());
    let server = builder(new).start().unwrap();
    fill(&server);
    let place = tempfile::tempdir().unwrap();
    let (old_programs, new_programs) = (old.directory().unwrap(), new.directory().unwrap());
    run(async {
        let (snapshot, completion) = back_up(&source(&server.url())).await.unwrap();
        let refused = async |options: &ScratchOptions, snapshot: &MemoryStore| {
            let error = raise(snapshot, &completion, options).await.unwrap_err();
            assert!(is_empty(place.path()));
            told(&error)
        };
        let too_old = refused(&options(place.path(), old_programs.path(), new), &snapshot).await;
        assert!(too_old.contains(&old.version) && too_old.contains("--programs"), "{too_old}");
        let none = refused(&options(place.path(), place.path(), new), &snapshot).await;
        assert!(none.contains("there is no redis-server") && none.contains("--programs"), "{none}");
        let here = options(place.path(), new_programs.path(), new);
        if new.module.is_some() {
            let mut without = here.clone();
            without.modules.clear();
            let lacking = refused(&without, &snapshot).await;
            assert!(lacking.contains("--module FILE"), "{lacking}");
        }
        let mut damaged = dump(&snapshot).to_vec();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 4;
        let path = EntryPath::new("dump.rdb").unwrap();
        let entry = Entry::file(path, Attributes::new(), damaged);
        snapshot.insert(entry).await.unwrap();
        let damaged = refused(&here, &snapshot).await;
        assert!(damaged.contains("verify --every-byte"), "{damaged}");
    });
}
