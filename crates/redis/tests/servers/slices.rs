//! Some of the keys of a snapshot: listed, and as an RDB of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt;
use std::path::Path;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Content, Error};
use lifeboat_redis::rdb::Record;
use lifeboat_redis::{KeyListing, KeyPattern, KeySelection, RestoreOptions};
use lifeboat_testbed::redis::{Installation, Server, all, newest};

use crate::common::{back_up, dump, fill, restore_with, run, source};
use crate::everything::builder;

fn selection(patterns: &[&str], databases: &[(u64, u64)]) -> KeySelection {
    KeySelection {
        keys: patterns.iter().map(|pattern| KeyPattern::new(*pattern)).collect(),
        databases: databases.iter().copied().collect(),
    }
}

async fn listed(snapshot: &MemoryStore, selection: KeySelection) -> Vec<Record> {
    let content = Content::bytes(dump(snapshot));
    let mut listing = KeyListing::new("the snapshot", content, selection);
    let mut records = Vec::new();
    while let Some(record) = listing.next().await.unwrap() {
        records.push(record);
    }
    assert!(listing.keys().unwrap() >= records.len() as u64);
    records
}

/// The names that a server has, as `redis-cli` prints them.
fn names(server: &Server, database: u64, pattern: &str) -> BTreeSet<String> {
    let number = database.to_string();
    let text = server.ask(&["-n", &number, "--no-raw", "KEYS", pattern]).unwrap();
    let quoted = text.lines().filter_map(|line| line.split_once(") "));
    quoted.map(|(_, name)| name.trim_matches('"').to_owned()).collect()
}

/// What a server says of each key of a database: a digest of its value, and when it expires.
fn values(server: &Server, database: u64, names: &BTreeSet<String>) -> BTreeMap<String, String> {
    let number = database.to_string();
    let ask = |words: &[&str]| server.ask(&[&["-n", &number], words].concat()).unwrap();
    let of = |name: &String| {
        let mut said = ask(&["DEBUG", "DIGEST-VALUE", name]);
        if server.installation().number() >= (7, 0) {
            said += &ask(&["PEXPIRETIME", name]);
        }
        (name.clone(), said)
    };
    names.iter().map(of).collect()
}

/// Has the server's own program look at an RDB.
fn sound(installation: &Installation, path: &Path) {
    let mut command = installation.command();
    let output = command.arg0("redis-check-rdb").arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("RDB looks OK"), "{said}");
}

/// Patterns, and databases with where they go.
type Choice<'a> = (&'a [&'a str], &'a [(u64, u64)]);

#[test]
fn keys_are_listed_as_the_server_has_them() {
    for installation in all().unwrap() {
        let server = builder(installation).start().unwrap();
        fill(&server);
        run(async {
            let (snapshot, completion) = back_up(&source(&server.url())).await.unwrap();
            let all = listed(&snapshot, KeySelection::default()).await;
            assert_eq!(all.len() as u64, crate::common::key_count(&completion));
            for (database, pattern) in [(0, "*"), (0, "h:*"), (7, "*"), (7, "l?[ab]*"), (3, "*")] {
                let found = listed(&snapshot, selection(&[pattern], &[(database, database)])).await;
                let found_names = found.iter().map(|key| key.name.escape_ascii().to_string());
                let expected = names(&server, database, pattern);
                assert_eq!(found_names.collect::<BTreeSet<_>>(), expected, "{pattern}");
                for key in found.iter().filter(|key| key.name.len() < 100) {
                    let name = String::from_utf8(key.name.clone()).unwrap();
                    let number = database.to_string();
                    let kind = server.ask(&["-n", &number, "TYPE", &name]).unwrap();
                    assert!(kind == key.kind.as_str() || key.kind.as_str() == "module", "{name}");
                }
            }
        });
    }
}

#[test]
fn a_slice_is_loaded_by_the_server_and_holds_what_was_wanted() {
    for installation in all().unwrap() {
        let server = builder(installation).start().unwrap();
        fill(&server);
        let directory = tempfile::tempdir().unwrap();
        run(async {
            let (snapshot, _) = back_up(&source(&server.url())).await.unwrap();
            let cases: [Choice<'_>; 4] = [
                (&["s:*", "x:*", "e:*", "j", "kkk*"], &[]),
                (&["*large*"], &[(0, 3)]),
                (&[], &[(7, 7)]),
                (&["no such key"], &[]),
            ];
            for (at, (patterns, databases)) in cases.into_iter().enumerate() {
                let path = directory.path().join(format!("{at}.rdb"));
                let mut options = RestoreOptions::new(&path);
                options.selection = selection(patterns, databases);
                let receipt = restore_with(&snapshot, options).await.unwrap();
                let note = receipt.facts.text("redis.note.slice").unwrap().to_owned();
                sound(installation, &path);
                let slice = builder(installation).rdb(&path).start().unwrap();
                let mut held = 0;
                for from in [0, 7] {
                    let to = match databases {
                        [] => from,
                        [(wanted, to)] if *wanted == from => *to,
                        _ => continue,
                    };
                    let mut wanted = BTreeSet::new();
                    for pattern in if patterns.is_empty() { &["*"] } else { patterns } {
                        wanted.extend(names(&server, from, pattern));
                    }
                    assert_eq!(names(&slice, to, "*"), wanted, "case {at}, database {from}");
                    assert_eq!(values(&slice, to, &wanted), values(&server, from, &wanted));
                    held += wanted.len();
                }
                let info = slice.ask(&["INFO", "keyspace"]).unwrap();
                let counts = info.split("keys=").skip(1);
                let counts = counts.map(|rest| rest.split(',').next().unwrap().parse::<usize>());
                assert_eq!(counts.sum::<Result<usize, _>>().unwrap(), held);
                assert!(held == 0 || note.contains(&format!("holds {held} of")), "{note}");
                assert!(held > 0 || note.contains("holds none of"), "{note}");
                if installation.number() >= (7, 0) {
                    assert_eq!(slice.ask(&["FUNCTION", "LIST"]).unwrap(), "");
                }
            }
        });
    }
}

#[test]
fn what_cannot_become_a_slice_is_refused_and_leaves_nothing() {
    let server = builder(newest().unwrap()).start().unwrap();
    fill(&server);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("slice.rdb");
    let refused = |snapshot: MemoryStore, selection: KeySelection| {
        let mut options = RestoreOptions::new(&path);
        options.selection = selection;
        let error: Error = run(async { restore_with(&snapshot, options).await.unwrap_err() });
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let hint = error.hint().unwrap_or_default().to_owned();
        format!("{}; {hint}", error.one_line())
    };
    let taken = || run(async { back_up(&source(&server.url())).await.unwrap().0 });
    let told = refused(taken(), selection(&[], &[(0, 4), (7, 4)]));
    assert!(told.contains("databases 0 and 7") && told.contains("a file of its own"), "{told}");
    for flip in [20, 4000] {
        let snapshot = taken();
        let mut bytes = dump(&snapshot).to_vec();
        bytes[flip] ^= 1;
        let path = lifeboat_core::EntryPath::new("dump.rdb").unwrap();
        let entry =
            lifeboat_core::Entry::file(path, lifeboat_core::Attributes::new(), bytes.clone());
        run(async { snapshot.insert(entry).await.unwrap() });
        let told = refused(snapshot, selection(&["s:*"], &[]));
        assert!(told.contains("verify --every-byte"), "{told}");
        let listing = async {
            let content = Content::bytes(bytes);
            let mut listing = KeyListing::new("this one", content, KeySelection::default());
            loop {
                match listing.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("damage was not found"),
                    Err(error) => return error.one_line(),
                }
            }
        };
        let told = run(listing);
        assert!(told.contains("list the keys of this one"), "{told}");
    }
}
