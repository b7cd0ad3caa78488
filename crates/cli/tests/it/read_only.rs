//! A repository that may be read and not written, as with the credentials of whoever restores.

use lifeboat_testbed::proxy::http::{Faults, HttpProxy};
use lifeboat_testbed::s3::Server;

use crate::common::{Home, Ran, contents, run};

fn at(endpoint: &str, home: &Home, arguments: &[&str]) -> Ran {
    let mut command = home.command(arguments);
    command.env("LIFEBOAT_REPO", format!("s3://bucket/prefix?endpoint={endpoint}"));
    command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "hunter2");
    run(&mut command)
}

#[test]
fn what_reads_works_and_what_cannot_be_noted_is_no_warning() {
    let server = Server::start().unwrap();
    server.create_bucket("bucket").unwrap();
    let home = Home::empty();
    let tree = home.tree();
    at(&server.endpoint(), &home, &["init"]).expect(0);
    at(&server.endpoint(), &home, &["backup", "files", &tree, "--name", "tree"]).expect(0);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let upstream = server.endpoint().trim_start_matches("http://").parse().unwrap();
    let proxy = runtime.block_on(HttpProxy::start(upstream, 1)).unwrap();
    proxy.set(Faults::read_only());
    let reading = |arguments: &[&str]| at(&proxy.endpoint(), &home, arguments);
    let refused = reading(&["backup", "files", &tree, "--name", "tree"]).expect(1);
    refused.error_says(&["403"]);

    let ran = reading(&["verify", "--every-byte", "--json"]).expect(0);
    let notices = ran.events_of("notice");
    assert_eq!(notices.len(), 1, "{ran}");
    assert!(notices[0]["message"].as_str().unwrap().contains("is not noted"), "{ran}");
    assert!(ran.events_of("warning").is_empty(), "{ran}");
    // A check that goes round needs its notes: without them it never comes round.
    let ran = reading(&["verify", "--within", "30d", "--json"]).expect(3);
    let warnings = ran.events_of("warning");
    assert!(warnings[0]["message"].as_str().unwrap().contains("reads the same again"), "{ran}");

    reading(&["snapshots"]).expect(0);
    reading(&["ls", "latest"]).expect(0);
    reading(&["restore", "latest", "--to", &home.arg("out")]).expect(0);
    assert_eq!(contents(&home.path("out")).len(), contents(&home.path("tree")).len());
}
