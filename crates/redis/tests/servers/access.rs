//! How servers are reached, and who may.

use std::path::Path;
use std::process::Command;

use lifeboat_core::{ErrorKind, Source};
use lifeboat_redis::{ConnectOptions, RedisSource};
use lifeboat_testbed::redis::{Server, all, of_version};

use super::common::{back_up, key_count, run, source};

fn with_password(url: &str, password: &str) -> RedisSource {
    let mut options = ConnectOptions::parse(url).unwrap();
    options.password = Some(password.to_owned().into());
    RedisSource::new("cache", options)
}

#[test]
fn a_socket_serves_as_well() {
    let server = Server::start(of_version(7, 0).unwrap()).unwrap();
    server.run("SET a 1\n").unwrap();
    let url = format!("unix://{}", server.socket().display());
    let (_, completion) = run(back_up(&source(&url))).unwrap();
    assert_eq!(key_count(&completion), 1);
}

#[test]
fn two_rights_and_no_key_suffice() {
    for installation in all().unwrap() {
        let server = Server::start(installation).unwrap();
        server
            .run("SET a 1\nACL SETUSER backup on >hunter2 -@all +psync +replconf\n\
                  ACL SETUSER half on >hunter2 -@all +replconf\nACL SETUSER none on >hunter2 -@all\n")
            .unwrap();
        let port = server.port();
        let of = |user: &str| with_password(&format!("redis://{user}@127.0.0.1:{port}"), "hunter2");
        let (_, completion) = run(back_up(&of("backup"))).unwrap();
        assert_eq!(key_count(&completion), 1);
        let inspection = run(of("backup").inspect()).unwrap();
        assert_eq!(inspection.blockers().count(), 0, "{:?}", inspection.findings);

        for user in ["half", "none"] {
            let error = run(back_up(&of(user))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            let line = error.one_line();
            assert!(line.contains(&format!("ACL SETUSER {user} +psync +replconf")), "{line}");
        }
        let inspection = run(of("none").inspect()).unwrap();
        let codes: Vec<_> = inspection.blockers().map(|finding| finding.code.as_str()).collect();
        assert_eq!(codes, ["may_not_replicate"]);
    }
}

#[test]
fn the_doctor_asks_whether_replication_is_allowed() {
    let server = Server::start(of_version(7, 0).unwrap()).unwrap();
    server.run("ACL SETUSER half on >hunter2 -@all +replconf +acl\n").unwrap();
    let half = with_password(&format!("redis://half@127.0.0.1:{}", server.port()), "hunter2");
    let inspection = run(half.inspect()).unwrap();
    let codes: Vec<_> = inspection.blockers().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["may_not_replicate"], "{:?}", inspection.findings);
}

#[test]
fn a_wrong_password_is_told_and_not_repeated() {
    let server = Server::builder(of_version(7, 0).unwrap())
        .setting("requirepass", "hunter2")
        .start()
        .unwrap();
    run(back_up(&with_password(&server.url(), "hunter2"))).unwrap();
    let wrong = run(back_up(&with_password(&server.url(), "hunter3"))).unwrap_err();
    let missing = run(back_up(&source(&server.url()))).unwrap_err();
    for error in [wrong, missing] {
        assert_eq!(error.kind(), ErrorKind::Refused);
        let text = format!("{} {error:?}", error.one_line());
        assert!(text.contains("REDISCLI_AUTH") && !text.contains("hunter"), "{text}");
    }
    assert!(run(source(&server.url()).inspect()).is_err());
}

/// A certificate for `localhost` that vouches for itself.
#[test]
fn who_is_named_without_a_password_is_not_taken_for_another() {
    let server = Server::start(of_version(7, 0).unwrap()).unwrap();
    let users = "ACL SETUSER named on >hunter2 +@all ~*\nACL SETUSER open on nopass +@all ~*\n";
    server.run(users).unwrap();
    let of = |user: &str| source(&format!("redis://{user}@127.0.0.1:{}", server.port()));
    run(back_up(&of("open"))).unwrap();
    // The default user may do everything here.
    let error = run(back_up(&of("named"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.one_line().contains("WRONGPASS"), "{}", error.one_line());
}

fn certificate(dir: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-new", "-x509", "-days", "30", "-nodes", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:TRUE"])
        .arg("-keyout")
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// What the certificate says of itself makes it an authority, and those are not taken for servers.
fn signed(dir: &Path) {
    certificate(dir);
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    std::fs::write(file("ext"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    for arguments in [
        format!(
            "req -new -nodes -subj /CN=localhost -keyout {} -out {}",
            file("server.key"),
            file("server.csr")
        ),
        format!(
            "x509 -req -days 30 -in {} -CA {} -CAkey {} -CAcreateserial -extfile {} -out {}",
            file("server.csr"),
            file("cert.pem"),
            file("key.pem"),
            file("ext"),
            file("server.pem")
        ),
    ] {
        let made = Command::new("openssl").args(arguments.split(' ')).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

#[test]
fn tls_is_checked_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    signed(dir.path());
    let file = |name: &str| dir.path().join(name);
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let server = Server::builder(of_version(7, 0).unwrap())
        .setting("tls-port", &port.to_string())
        .setting("tls-cert-file", file("server.pem").to_str().unwrap())
        .setting("tls-key-file", file("server.key").to_str().unwrap())
        .setting("tls-ca-cert-file", file("cert.pem").to_str().unwrap())
        .start()
        .unwrap();
    server.run("SET a 1\n").unwrap();
    let options = |host: &str| ConnectOptions::parse(&format!("rediss://{host}:{port}")).unwrap();
    let mut good = options("localhost");
    good.tls_ca = Some(file("cert.pem"));
    good.tls_identity = Some((file("server.pem"), file("server.key")));
    let (_, completion) = run(back_up(&RedisSource::new("cache", good.clone()))).unwrap();
    assert_eq!(key_count(&completion), 1);

    // Nobody vouches for it; it is another host's; it wants to know who we are.
    let mut stranger = good.clone();
    stranger.tls_ca = None;
    let mut other_name = options("127.0.0.1");
    other_name.tls_ca = Some(file("cert.pem"));
    other_name.tls_identity.clone_from(&good.tls_identity);
    let mut nobody = good;
    nobody.tls_identity = None;
    for options in [stranger, other_name, nobody] {
        let error = run(back_up(&RedisSource::new("cache", options))).unwrap_err();
        assert!(!error.one_line().is_empty());
    }
}
