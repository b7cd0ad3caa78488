//! The client against real servers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use lifeboat_core::Error;
use lifeboat_testbed::postgres::{Cluster, Mode, all, oldest};

use super::*;
use crate::connect::ConnectOptions;
use crate::lsn::Lsn;

fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

fn options(cluster: &Cluster, words: &str) -> ConnectOptions {
    ConnectOptions::parse(&format!("host=127.0.0.1 port={} {words}", cluster.port())).unwrap()
}

fn slot(name: &str) -> SlotName {
    name.parse().unwrap()
}

async fn sql(cluster: &Cluster, text: &str) -> String {
    let client = cluster.connect("postgres").await.unwrap();
    client.query_one(text, &[]).await.unwrap().get(0)
}

async fn refused(options: &ConnectOptions) -> String {
    Client::connect(options).await.unwrap_err().one_line()
}

#[test]
fn a_server_tells_who_it_is() {
    run(async {
        for installation in all().unwrap() {
            let cluster = Cluster::builder()
                .installation(installation)
                .initdb_arg("--wal-segsize=64")
                .start()
                .unwrap();
            let mut client = Client::connect(&options(&cluster, "user=postgres")).await.unwrap();
            assert_eq!(client.major().unwrap(), installation.major);
            let who = client.identify().await.unwrap();
            let id = "select system_identifier::text from pg_control_system()";
            assert_eq!(who.system_id.to_string(), sql(&cluster, id).await);
            assert_eq!(who.timeline, 1);
            assert_eq!(client.segment_size().await.unwrap().bytes(), 64 << 20);

            let name = slot("one");
            if installation.major >= 15 {
                assert_eq!(client.read_slot(&name).await.unwrap(), None);
            }
            assert!(client.make_slot(&name).await.unwrap());
            assert!(!client.make_slot(&name).await.unwrap());
            let kept = "select restart_lsn::text from pg_replication_slots where slot_name = 'one'";
            let kept: Lsn = sql(&cluster, kept).await.parse().unwrap();
            if installation.major >= 15 {
                let slot = client.read_slot(&name).await.unwrap();
                assert_eq!(slot, Some(Slot { from: Some(kept) }));
            }
            // Errors leave the connection usable.
            let error = client.timeline_history(2).await.unwrap_err();
            assert_eq!(error.code(), Some("58P01"));
            let error = client.start(&slot("other"), 1, kept).await.unwrap_err();
            assert_eq!(error.code(), Some("42704"), "{error}");
            let gone = Lsn(64 << 20);
            assert!(kept > gone || client.start(&name, 1, Lsn(0)).await.is_err());
            let streaming = client.start(&name, 1, kept).await.unwrap();
            assert_eq!(streaming, Started::Streaming);
            // From the redo point of the last checkpoint on there is always something.
            let Received::Wal { from, bytes, .. } = client.receive().await.unwrap() else {
                panic!("something else than WAL");
            };
            assert!(from == kept && !bytes.is_empty());
            client.close().await.unwrap();

            let mut client = Client::connect(&options(&cluster, "user=postgres")).await.unwrap();
            client.drop_slot(&name).await.unwrap();
            assert_eq!(client.drop_slot(&name).await.unwrap_err().code(), Some("42704"));
        }
    });
}

#[test]
fn every_way_to_be_let_in() {
    run(async {
        let cluster =
            Cluster::builder().installation(oldest().unwrap()).password("ge:heim").start().unwrap();
        let with = |words: &str| options(&cluster, words).with_password("ge:heim".to_owned());
        let mut client = Client::connect(&with("user=postgres")).await.unwrap();
        client.identify().await.unwrap();
        let socket = format!("host={} user=postgres", cluster.socket_dir().display());
        let socket = ConnectOptions::parse(&format!("{socket} port={}", cluster.port())).unwrap();
        Client::connect(&socket.with_password("ge:heim".to_owned())).await.unwrap();

        let line = refused(&options(&cluster, "user=postgres")).await;
        assert!(line.contains("PGPASSWORD"), "{line}");
        let line = refused(&with("user=postgres").with_password("wrong".to_owned())).await;
        assert!(line.contains("check the role's password") && !line.contains("wrong"), "{line}");

        let superuser = cluster.connect("postgres").await.unwrap();
        let roles = "SET password_encryption = 'md5'; \
             CREATE ROLE weak LOGIN REPLICATION PASSWORD 'ge:heim'; \
             CREATE ROLE nobody LOGIN PASSWORD 'ge:heim'; \
             CREATE ROLE plain LOGIN REPLICATION PASSWORD 'ge:heim';";
        superuser.batch_execute(roles).await.unwrap();
        let hba = cluster.data_dir().join("pg_hba.conf");
        let text = "host replication weak 127.0.0.1/32 md5\n\
             host replication plain 127.0.0.1/32 password\n\
             host replication nobody 127.0.0.1/32 md5\n\
             host all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(&hba, text).unwrap();
        superuser.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let answered = async |words: &str| match Client::connect(&with(words)).await {
            Ok(_) => String::new(),
            Err(error) => error.one_line(),
        };
        // The server reads its settings when it gets to it.
        while answered("user=postgres").await.is_empty() {}
        assert!(answered("user=postgres").await.contains("pg_hba.conf has a line"));
        assert!(answered("user=nobody").await.contains("ALTER ROLE"));
        assert_eq!(answered("user=weak").await, "");
        assert_eq!(answered("user=plain").await, "");
        let bound = answered("user=postgres channel_binding=require").await;
        assert!(bound.contains("verify-full"), "{bound}");
        let standby = answered("user=plain target_session_attrs=read-only").await;
        assert!(standby.contains("the server is a primary"), "{standby}");
        let nobody_there = ConnectOptions::parse("host=127.0.0.1 port=1 user=x").unwrap();
        let error = Client::connect(&nobody_there).await.unwrap_err();
        assert!(error.is_retryable(), "{}", error.one_line());
        // The first one that answers is taken.
        let several = format!("host=127.0.0.1,127.0.0.1 port=1,{} user=weak", cluster.port());
        let several = ConnectOptions::parse(&several).unwrap().with_password("ge:heim".to_owned());
        Client::connect(&several).await.unwrap();
    });
}

#[test]
fn all_senders_and_slots_can_be_taken() {
    run(async {
        let cluster = Cluster::builder()
            .installation(oldest().unwrap())
            .setting("max_wal_senders", "1")
            .setting("max_replication_slots", "1")
            .start()
            .unwrap();
        let options = options(&cluster, "user=postgres");
        let mut client = Client::connect(&options).await.unwrap();
        let line = refused(&options).await;
        assert!(line.contains("raise max_wal_senders"), "{line}");
        client.make_slot(&slot("one")).await.unwrap();
        let error = Error::from(client.make_slot(&slot("two")).await.unwrap_err());
        assert!(error.one_line().contains("raise max_replication_slots"), "{}", error.one_line());
    });
}

/// A certificate for `localhost` that vouches for itself.
fn certificate(data: &Path) {
    let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
    let made = Command::new("openssl")
        .args(["req", "-new", "-x509", "-days", "30", "-nodes", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:TRUE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let owner = fs::metadata(data).unwrap();
    for file in [&key, &certificate] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
}

#[test]
fn tls_is_asked_for_and_checked() {
    run(async {
        let mut cluster = Cluster::start(oldest().unwrap()).unwrap();
        let line = refused(&options(&cluster, "user=postgres sslmode=require")).await;
        assert!(line.contains("does not offer TLS"), "{line}");
        Client::connect(&options(&cluster, "user=postgres sslmode=prefer")).await.unwrap();
        certificate(cluster.data_dir());
        let setting = "ALTER SYSTEM SET ssl = on";
        cluster.connect("postgres").await.unwrap().batch_execute(setting).await.unwrap();
        let hba = cluster.data_dir().join("pg_hba.conf");
        fs::write(&hba, "hostssl replication all all trust\nhost all all all trust\n").unwrap();
        cluster.stop(Mode::Fast).unwrap();
        cluster.start_again().unwrap();
        let mut client =
            Client::connect(&options(&cluster, "user=postgres sslmode=require")).await.unwrap();
        client.identify().await.unwrap();
        let root = cluster.data_dir().join("server.crt");
        let words = format!("user=postgres sslmode=verify-full sslrootcert={}", root.display());
        // The certificate is for localhost.
        assert!(Client::connect(&options(&cluster, &words)).await.is_err());
        let words = format!("host=localhost port={} {words}", cluster.port());
        Client::connect(&ConnectOptions::parse(&words).unwrap()).await.unwrap();
        let plain = refused(&options(&cluster, "user=postgres sslmode=disable")).await;
        assert!(plain.contains("pg_hba.conf"), "{plain}");
    });
}
