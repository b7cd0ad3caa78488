//! Ways to reach a server: sockets, password files, TLS.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use lifeboat_core::{ErrorKind, Source};
use lifeboat_postgres::{ClusterOptions, ClusterSource, ConnectOptions, TlsMode};
use lifeboat_testbed::postgres::{Cluster, Mode, oldest};

use crate::common::{Backup, run};

async fn reaches(options: ConnectOptions) -> Result<(), lifeboat_core::Error> {
    let source = ClusterSource::new("main", ClusterOptions::new(options));
    let inspection = source.inspect().await?;
    assert_eq!(inspection.blockers().count(), 0, "{:?}", inspection.findings);
    Ok(())
}

#[test]
fn sockets_and_password_files() {
    run(async {
        let cluster =
            Cluster::builder().installation(oldest().unwrap()).password("a:b\\c").start().unwrap();
        let socket = format!(
            "host={} port={} user=postgres",
            cluster.socket_dir().display(),
            cluster.port()
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pgpass");
        fs::write(&file, format!("localhost:{}:*:postgres:a\\:b\\\\c\n", cluster.port())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let with_file =
            ConnectOptions::parse(&format!("{socket} passfile={}", file.display())).unwrap();
        reaches(with_file.clone()).await.unwrap();
        let url = format!("postgresql://postgres:a%3Ab%5Cc@127.0.0.1:{}/postgres", cluster.port());
        let url = ConnectOptions::parse(&url).unwrap();
        assert!(!format!("{url:?}").contains("a:b"));
        reaches(url).await.unwrap();

        let backup =
            Backup::take(&ClusterSource::new("main", ClusterOptions::new(with_file))).await;
        assert_eq!(backup.warnings, []);

        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let open = ConnectOptions::parse(&format!("{socket} passfile={}", file.display())).unwrap();
        let error = reaches(open).await.unwrap_err();
        assert!(error.one_line().contains("chmod 0600"), "{}", error.one_line());
    });
}

/// A certificate for `localhost` that vouches for itself.
fn certificate(data: &Path) {
    let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
    let made = Command::new("openssl")
        .args(["req", "-new", "-x509", "-days", "30", "-nodes", "-subj", "/CN=localhost"])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
        ])
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
fn tls_is_as_strict_as_it_is_asked_to_be() {
    run(async {
        let mut cluster = Cluster::start(oldest().unwrap()).unwrap();
        let via = |cluster: &Cluster, host: &str, words: &str| {
            let text = format!("host={host} port={} user=postgres {words}", cluster.port());
            ConnectOptions::parse(&text).unwrap()
        };
        let error = reaches(via(&cluster, "localhost", "sslmode=require")).await.unwrap_err();
        assert!(error.one_line().contains("TLS"), "{}", error.one_line());
        reaches(via(&cluster, "localhost", "sslmode=prefer")).await.unwrap();

        certificate(cluster.data_dir());
        let setting = "ALTER SYSTEM SET ssl = on";
        cluster.connect("postgres").await.unwrap().batch_execute(setting).await.unwrap();
        // Nobody gets in without.
        let hba = cluster.data_dir().join("pg_hba.conf");
        let text = fs::read_to_string(&hba).unwrap();
        fs::write(&hba, format!("hostssl all postgres all trust\n{text}")).unwrap();
        cluster.stop(Mode::Fast).unwrap();
        cluster.start_again().unwrap();

        let root = cluster.data_dir().join("server.crt");
        reaches(via(&cluster, "localhost", "sslmode=require")).await.unwrap();
        reaches(via(&cluster, "127.0.0.1", "sslmode=prefer")).await.unwrap();
        reaches(
            via(&cluster, "localhost", "")
                .with_tls(TlsMode::VerifyFull)
                .with_root_certificate(&root),
        )
        .await
        .unwrap();
        let error = reaches(via(&cluster, "localhost", "sslmode=verify-full")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{}", error.one_line());
        assert!(error.one_line().contains("sslrootcert"), "{}", error.one_line());
        // The name is looked at by verify-full only.
        let other_name =
            |words: &str| via(&cluster, "127.0.0.1", words).with_root_certificate(&root);
        reaches(other_name("sslmode=verify-ca")).await.unwrap();
        reaches(other_name("sslmode=require")).await.unwrap();
        assert!(reaches(other_name("sslmode=verify-full")).await.is_err());
    });
}
