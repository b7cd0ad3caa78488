//! What an unfinished backup had stored: shown, looked into, and brought back when it is asked for.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::{
    Attributes, Baseline, Context, Entry, EntryPath, Inspection, Reading, Result, Source, StoreRef,
    TransferOptions, async_trait, names, transfer,
};
use lifeboat_repository::WriteOptions;

use crate::common::{Home, contents, library};
use crate::json::{check, described};

/// So many files are read before the source stands still, as one whose server hangs.
const FILES: usize = 3;

/// More than enough for a checkpoint on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);

struct Halting {
    store: StoreRef,
}

#[async_trait]
impl Source for Halting {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    async fn inspect(&self) -> Result<Inspection> {
        Ok(Inspection::default())
    }

    async fn read(&self, _: Option<Arc<dyn Baseline>>, _: &Context) -> Result<Box<dyn Reading>> {
        Ok(Box::new(Halted { next: 0 }))
    }
}

struct Halted {
    next: usize,
}

#[async_trait]
impl Reading for Halted {
    async fn next(&mut self) -> Result<Option<Entry>> {
        if self.next == FILES {
            std::future::pending::<()>().await;
        }
        let number = self.next;
        self.next += 1;
        let path = EntryPath::new(format!("file-{number}"))?;
        let mode = Attributes::new().with(names::MODE, 0o640_u32);
        Ok(Some(Entry::file(path, mode, content(number))))
    }

    async fn finish(self: Box<Self>) -> Result<lifeboat_core::Completion> {
        unreachable!("it never comes to its end")
    }
}

fn content(number: usize) -> Vec<u8> {
    format!("content {number} ").repeat(5000).into_bytes()
}

/// Begins a backup, and ends it when some of it is in a checkpoint: its id, and how many files.
fn interrupted(home: &Home, store: &StoreRef) -> (String, usize) {
    library(home, async |repository| {
        let mut options = WriteOptions::default();
        options.checkpoint_every = Some(Duration::ZERO);
        let (source, sink) = (Halting { store: store.clone() }, repository.sink(&options));
        let backup = tokio::spawn(async move {
            transfer(&source, &sink, &TransferOptions::default(), &Context::silent()).await
        });
        let newest = async || {
            let list = repository.checkpoints().await.unwrap().snapshots;
            let own = list.into_iter().filter(|info| info.store == *store);
            own.max_by_key(|info| info.entries)
        };
        let seen = async {
            while newest().await.is_none() {
                assert!(!backup.is_finished(), "it ended by itself");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, seen).await.expect("no checkpoint came");
        backup.abort();
        assert!(backup.await.unwrap_err().is_cancelled());
        let last = newest().await.unwrap();
        (last.id.to_string(), usize::try_from(last.entries).unwrap())
    })
}

#[test]
fn an_unfinished_backup_is_shown_last_and_restored_by_its_id_only() {
    let home = Home::new();
    let described = described();
    let (id, files) = interrupted(&home, &StoreRef::new("files", "big"));
    home.run(&["ls", "latest"]).expect(1);
    let tree = home.tree();
    home.run(&["backup", "files", &tree, "--name", "t"]).expect(0);

    let shown = home.run(&["snapshots"]).expect(0);
    let lines: Vec<_> = shown.0.stdout.lines().collect();
    let at = |word: &str| lines.iter().position(|line| line.contains(word)).unwrap();
    assert!(at("files/t") < at("Incomplete:") && at("Incomplete:") < at(&id[..8]), "{shown}");
    assert!(lines[at(&id[..8])].contains("incomplete"), "{shown}");
    let ran = home.run(&["snapshots", "--json"]).expect(0);
    check(&ran.events(), &described);
    assert_eq!(ran.events_of("snapshot").len(), 1, "{ran}");
    let checkpoints = ran.events_of("checkpoint");
    assert_eq!(
        (&checkpoints[0]["id"], &checkpoints[0]["entries"]),
        (&id.as_str().into(), &files.into())
    );
    assert_eq!(ran.end()["checkpoints"], 1);
    let other = home.run(&["snapshots", "--store", "files/t", "--json"]).expect(0);
    assert!(other.events_of("checkpoint").is_empty(), "{other}");

    // Looking into it says what it is.
    let last = format!("file-{}", files - 1);
    let until = &format!("up to \"{last}\"")[..];
    for arguments in
        [&["ls", &id[..8]][..], &["cat", &id[..8], "file-0"], &["find", "file-0", "--in", &id[..8]]]
    {
        let ran = home.run(arguments).expect(0);
        assert!(ran.0.stderr.contains("it is incomplete") && ran.0.stderr.contains(until), "{ran}");
        assert!(!ran.0.stdout.is_empty(), "{ran}");
    }
    // It is never found without being named, and nothing but these commands takes it.
    home.run(&["ls", "latest", "--store", "files/big"]).expect(1);
    assert_eq!(home.run(&["find", "file-0"]).expect(0).0.stdout, "");
    home.run(&["pin", &id[..8], "--reason", "x"]).expect(1).error_says(&["there is none"]);
    home.run(&["forget", &id[..8]]).expect(1).error_says(&["there is none"]);

    let ran = home.run(&["restore", &id[..8], "--to", &home.arg("out"), "--json"]).expect(3);
    check(&ran.events(), &described);
    let warning = ran.events_of("warning")[0]["message"].as_str().unwrap().to_owned();
    assert!(warning.contains("a backup that did not finish") && warning.contains(until), "{ran}");
    let incomplete = &ran.end()["incomplete"];
    assert_eq!(
        (&incomplete["entries"], &incomplete["until"]),
        (&files.into(), &last.as_str().into())
    );
    for number in 0..files {
        let restored = fs::read(home.path("out").join(format!("file-{number}"))).unwrap();
        assert_eq!(restored, content(number));
    }
    let missing = ["restore", &id[..8], "--to", &home.arg("none"), "--path", "file-9"];
    home.run(&missing).expect(2).error_says(&["has no entry \"file-9\"", until]);
    let whole = home.run(&["restore", "latest", "--to", &home.arg("whole"), "--json"]).expect(0);
    assert!(whole.end()["incomplete"].is_null(), "{whole}");
}

#[test]
fn half_a_cluster_is_not_restored() {
    let home = Home::new();
    let (id, _) = interrupted(&home, &StoreRef::new("postgres", "shop"));
    let ran = home.run(&["restore", &id[..8], "--to", &home.arg("out")]).expect(2);
    ran.error_says(&["it is incomplete", "lifeboat snapshots", "lifeboat cat"]);
    assert!(!home.path("out").exists());
}

#[test]
fn a_hurt_checkpoint_hurts_no_snapshot() {
    let home = Home::new();
    let tree = home.tree();
    home.run(&["backup", "files", &tree, "--name", "t"]).expect(0);
    let before: Vec<_> = contents(&home.repo()).into_iter().map(|(path, _)| path).collect();
    let (id, _) = interrupted(&home, &StoreRef::new("files", "big"));
    home.run(&["verify", "--every-byte"]).expect(0);
    for (path, _) in contents(&home.repo().join("packs")) {
        if !before.contains(&path) {
            fs::remove_file(path).unwrap();
        }
    }
    let ran = home.run(&["verify", "--json"]).expect(1);
    check(&ran.events(), &described());
    let damage = ran.events_of("damage");
    assert!(damage.iter().all(|it| it["snapshots"].as_array().unwrap().is_empty()), "{ran}");
    let hurt = |it: &serde_json::Value| it["checkpoints"].as_array().unwrap() == &[id.as_str()];
    assert!(damage.iter().any(hurt), "{ran}");
    assert!(ran.0.stderr.contains("checkpoints of unfinished backups"), "{ran}");
    assert_eq!(ran.end()["checkpoints"], 1);
    home.run(&["restore", "latest", "--to", &home.arg("out")]).expect(0);
}
