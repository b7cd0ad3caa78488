//! A repository in a bucket.

use std::process::Command;

use lifeboat_testbed::s3::Server;

use crate::common::{Home, Ran, contents, run};

fn in_bucket(home: &Home, server: &Server, arguments: &[&str]) -> Ran {
    let mut command: Command = home.command(arguments);
    let url = format!("s3://bucket/prefix?endpoint={}", server.endpoint());
    command.env("LIFEBOAT_REPO", url);
    command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "hunter2");
    run(&mut command)
}

#[test]
fn a_bucket_holds_a_repository() {
    let server = Server::start().unwrap();
    let home = Home::empty();
    let tree = home.tree();
    let ran = in_bucket(&home, &server, &["init"]).expect(1);
    ran.error_says(&["NoSuchBucket", "lifeboat makes none"]);
    let line = ran.error();
    assert_eq!(line.matches(&server.endpoint()).count(), 1, "the place is told once: {line}");
    assert!(
        !line.contains("probe-") && !line.contains("%3A") && !line.contains("Generic"),
        "{line}"
    );
    server.create_bucket("bucket").unwrap();
    in_bucket(&home, &server, &["init"]).expect(0);
    in_bucket(&home, &server, &["init"]).expect(1).error_says(&["already"]);
    in_bucket(&home, &server, &["backup", "files", &tree, "--name", "tree"]).expect(0);
    in_bucket(&home, &server, &["verify", "--every-byte"]).expect(0);
    in_bucket(&home, &server, &["doctor"]).expect(0);
    in_bucket(&home, &server, &["restore", "latest", "--to", &home.arg("out")]).expect(0);
    let sizes = |dir: &str| -> Vec<_> {
        contents(&home.path(dir)).into_iter().map(|(_, bytes)| bytes).collect()
    };
    assert_eq!(sizes("out"), sizes("tree"));
    drop(server);
}

#[test]
fn a_store_that_is_down_is_reported_while_somebody_looks() {
    let home = Home::empty();
    let mut command = home.command(&["snapshots", "--json"]);
    command.env("LIFEBOAT_REPO", "s3://bucket?endpoint=http://127.0.0.1:1");
    command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "hunter2");
    let ran = run(&mut command).expect(1);
    ran.error_says(&["s3://bucket", "Connection refused", "check the endpoint"]);
    assert!(!ran.error().contains("Generic"), "{ran}");
    assert!(ran.0.stderr.contains("Connection refused (os error 111); trying again"), "{ran}");
    let retries = ran.events_of("retry");
    assert!(!retries.is_empty());
    let described = crate::json::described();
    crate::json::check(&ran.events(), &described);
    assert_eq!(ran.end()["retryable"], true);
    assert!(!ran.to_string().contains("hunter2"));
    assert!(ran.0.wall.as_secs() < 60);
}
