//! What goes wrong is told, and leaves nothing that could be taken for a snapshot or a restore.

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Context, Entry, EntryPath, ErrorKind, Source, TransferOptions, transfer,
};
use lifeboat_redis::{AppendOnly, RestoreOptions};
use lifeboat_testbed::proxy::{Direction, Proxy, Toxics};
use lifeboat_testbed::redis::{Server, newest};

use super::common::{back_up, dump, key_count, restore, restore_with, run, source};

/// So much that it does not come in one piece.
fn filled() -> Server {
    let server =
        Server::builder(newest().unwrap()).setting("rdbcompression", "no").start().unwrap();
    server.ask(&["DEBUG", "POPULATE", "30000", "key", "200"]).unwrap();
    server
}

fn behind_proxy(server: &Server) -> (Proxy, String) {
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into(), 7).unwrap();
    let url = format!("redis://{}", proxy.address());
    (proxy, url)
}

#[test]
fn what_is_cut_off_on_its_way_is_no_snapshot() {
    run(async {
        let server = filled();
        let (proxy, url) = behind_proxy(&server);
        for bytes in [3, 40, 150, 1_000_000, 6_000_000] {
            let toxics = Toxics { truncate_after: Some(bytes), ..Toxics::default() };
            proxy.set(Direction::ToClient, toxics);
            let snapshot = MemoryStore::new("cache");
            let (options, context) = (TransferOptions::default(), Context::silent());
            let outcome = transfer(&source(&url), &snapshot, &options, &context).await;
            let error = outcome.unwrap_err();
            assert!(error.is_retryable(), "{bytes}: {}", error.one_line());
            assert_eq!(snapshot.commits(), 0);
        }
        proxy.heal();
        let (_, completion) = back_up(&source(&url)).await.unwrap();
        assert_eq!(key_count(&completion), 30_000);
    });
}

#[test]
fn a_byte_that_changed_on_its_way_is_found() {
    run(async {
        let server = filled();
        let (proxy, url) = behind_proxy(&server);
        for at in [1_000, 300_000, 5_000_000] {
            let toxics = Toxics { flip_byte_at: Some(at), ..Toxics::default() };
            proxy.set(Direction::ToClient, toxics);
            let error = back_up(&source(&url)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.one_line());
        }
    });
}

#[test]
fn the_mark_is_found_however_it_is_cut() {
    run(async {
        let server = Server::start(newest().unwrap()).unwrap();
        server.run("SET a 1\nSET b 2\n").unwrap();
        let (whole, _) = back_up(&source(&server.url())).await.unwrap();
        let (proxy, url) = behind_proxy(&server);
        // A byte at a time, more or less.
        let slow = Toxics { rate: Some(2000), ..Toxics::default() };
        proxy.set(Direction::ToClient, slow);
        let (slow, _) = back_up(&source(&url)).await.unwrap();
        assert_eq!(dump(&slow).len(), dump(&whole).len());
    });
}

#[test]
fn a_replica_without_its_primary_says_so() {
    run(async {
        let server = Server::start(newest().unwrap()).unwrap();
        server.ask(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
        let error = back_up(&source(&server.url())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.one_line());
        let inspection = source(&server.url()).inspect().await.unwrap();
        let codes: Vec<_> = inspection.blockers().map(|finding| finding.code.as_str()).collect();
        assert_eq!(codes, ["replica_cut_off"]);
    });
}

#[test]
fn a_replica_gives_what_its_primary_has() {
    run(async {
        let primary = filled();
        let replica = Server::start(newest().unwrap()).unwrap();
        replica.ask(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).unwrap();
        let up =
            || replica.ask(&["INFO", "replication"]).unwrap().contains("master_link_status:up");
        while !up() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let (_, completion) = back_up(&source(&replica.url())).await.unwrap();
        assert_eq!(key_count(&completion), 30_000);
    });
}

#[test]
fn nobody_there_and_somebody_else_there_are_told_apart() {
    run(async {
        let error = back_up(&source("redis://127.0.0.1:1")).await.unwrap_err();
        assert!(error.is_retryable(), "{}", error.one_line());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let web = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let error = back_up(&source(&url)).await.unwrap_err();
        assert!(error.one_line().contains("HTTP/1.1 400"), "{}", error.one_line());
        web.await.unwrap();
    });
}

async fn one_key() -> MemoryStore {
    let server = Server::start(newest().unwrap()).unwrap();
    server.run("SET a 1\n").unwrap();
    back_up(&source(&server.url())).await.unwrap().0
}

#[test]
fn a_restore_replaces_nothing_and_is_not_hidden() {
    run(async {
        let snapshot = one_key().await;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dump.rdb");
        std::fs::write(&path, "precious").unwrap();
        let error = restore(&snapshot, &path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let error = restore(&snapshot, dir.path()).await.unwrap_err();
        assert!(error.one_line().contains("dump.rdb"), "{}", error.one_line());

        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(dir.path().join("appendonlydir")).unwrap();
        let error = restore(&snapshot, &path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.one_line().contains("appendonlydir"), "{}", error.one_line());
        assert!(!path.exists());
        let mut options = RestoreOptions::new(&path);
        options.append_only = AppendOnly::Ignore;
        restore_with(&snapshot, options).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), dump(&snapshot));
        // Nothing else is left.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    });
}

/// The trap itself, as a server falls into it: the reason for which a restore refuses.
#[test]
fn a_server_with_append_only_files_starts_empty() {
    run(async {
        let snapshot = one_key().await;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dump.rdb");
        restore(&snapshot, &path).await.unwrap();
        let start = |append_only: &str| {
            let builder = Server::builder(newest().unwrap()).rdb(&path);
            builder.setting("appendonly", append_only).start().unwrap()
        };
        assert_eq!(start("yes").ask(&["DBSIZE"]).unwrap(), "0");
        assert_eq!(start("no").ask(&["DBSIZE"]).unwrap(), "1");
    });
}

#[test]
fn a_damaged_snapshot_is_not_restored() {
    run(async {
        let mut bytes = dump(&one_key().await).to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let damaged = MemoryStore::new("cache");
        let path = EntryPath::new("dump.rdb").unwrap();
        damaged.insert(Entry::file(path, Attributes::new(), bytes)).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let error = restore(&damaged, &dir.path().join("dump.rdb")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);

        let strange = MemoryStore::new("cache");
        let path = EntryPath::new("etc/passwd").unwrap();
        strange.insert(Entry::file(path, Attributes::new(), "x")).await.unwrap();
        let error = restore(&strange, &dir.path().join("dump.rdb")).await.unwrap_err();
        assert!(error.one_line().contains("etc/passwd"), "{}", error.one_line());
        let empty = MemoryStore::new("cache");
        assert!(restore(&empty, &dir.path().join("dump.rdb")).await.is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    });
}
