//! Data in an archive, and a bucket with locks, as an operator meets them: against moto.
//!
//! What moto does not do as the real service: it neither waits nor bills, and takes a thaw for done
//! at once or after a number of looks; it lets every tier pass.

use std::fs;

use lifeboat_testbed::s3::Server;
use serde_json::Value;

use crate::common::{Home, Ran, contents, run};

struct Scene {
    home: Home,
    server: Server,
    bucket: &'static str,
}

impl Scene {
    fn new() -> Self {
        let server = Server::start().unwrap();
        server.create_bucket("bucket").unwrap();
        Self { home: Home::empty(), server, bucket: "bucket" }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.home.command(arguments);
        let url = format!("s3://{}/prefix?endpoint={}", self.bucket, self.server.endpoint());
        command.env("LIFEBOAT_REPO", url);
        command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret");
        run(&mut command)
    }

    /// Runs it and checks its events against the page; the last one.
    fn json(&self, arguments: &[&str], code: i32) -> Value {
        let ran = self.run(&[arguments, &["--json"]].concat()).expect(code);
        crate::json::check(&ran.events(), &crate::json::described());
        ran.end()
    }

    fn same(&self, one: &str, other: &str) {
        let all = |dir: &str| -> Vec<_> {
            contents(&self.home.path(dir)).into_iter().map(|(_, bytes)| bytes).collect()
        };
        assert_eq!(all(one), all(other));
    }
}

#[test]
fn data_in_an_archive_is_seen_at_once_and_restored_after_a_thaw() {
    let scene = Scene::new();
    scene.server.slow_thaws(4).unwrap();
    let tree = scene.home.tree();
    let made = scene.json(&["init", "--data-class", "deep_archive"], 0);
    assert_eq!((&made["data_class"], &made["pack"]), (&"DEEP_ARCHIVE".into(), &(64 << 20).into()));
    scene.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);
    fs::write(scene.home.path("tree/new"), "a new one").unwrap();
    scene.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);

    // All that needs no content works without a thaw.
    let listed = scene.run(&["snapshots", "--json"]).expect(0);
    assert_eq!(listed.events_of("snapshot").len(), 2);
    assert!(scene.run(&["ls", "latest", "-R"]).expect(0).0.stdout.contains("greeting"));
    let first = listed.events_of("snapshot")[0]["id"].as_str().unwrap().to_owned();
    assert!(scene.run(&["diff", &first, "latest"]).expect(0).0.stdout.contains("new"));
    scene.run(&["verify"]).expect(0);
    scene.run(&["stats"]).expect(0);
    scene.run(&["forget", &first]).expect(0);
    let pruned = scene.json(&["prune", "--dry-run"], 0);
    assert_eq!(pruned["deleted"]["packs"], 0);

    // What needs it says what it would take.
    let out = scene.home.arg("out");
    let refused = scene.run(&["restore", "latest", "--to", &out]).expect(1);
    refused.error_says(&["lie in an archive", "--thaw"]);
    assert!(refused.0.stderr.contains("(DEEP_ARCHIVE)"), "{refused}");
    assert!(refused.0.stderr.contains("bulk up to 48 h"), "{refused}");
    assert!(!scene.home.path("out").exists());
    scene.run(&["verify", "--every-byte"]).expect(1).error_says(&["archive", "--thaw"]);
    scene.run(&["cat", "latest", "greeting"]).expect(1).error_says(&["archive"]);
    let sample = scene.json(&["verify", "--sample", "100%"], 0);
    assert!(sample["archived"].as_u64().unwrap() > 0 && sample["sound"] == true, "{sample}");
    let hasty = ["restore", "latest", "--to", &out, "--thaw=expedited"];
    scene.run(&hasty).expect(1).error_says(&["expedited", "it has bulk, standard"]);

    // It is asked for, and a second run goes on where the first one ended.
    let restore = ["restore", "latest", "--to", &out, "--thaw=bulk", "--thaw-poll", "1s"];
    let soon = scene.json(&[&restore[..], &["--thaw-wait", "0s"]].concat(), 1);
    assert_eq!((&soon["kind"], &soon["retryable"]), (&"unavailable".into(), &true.into()));
    let ran = scene.run(&[&restore[..], &["--json"]].concat()).expect(0);
    crate::json::check(&ran.events(), &crate::json::described());
    let plan = &ran.events_of("thaw")[0];
    assert_eq!(plan["archived"]["packs"], 0, "{plan}");
    assert_eq!((&plan["asked"], &plan["tiers"][1]["seconds"]), (&"bulk".into(), &43_200.into()));
    scene.same("tree", "out");
    scene.run(&["verify", "--every-byte", "--thaw", "--thaw-poll", "1s"]).expect(0);
}

#[test]
fn a_class_is_changed_later_and_prune_waits_for_its_least_time() {
    let scene = Scene::new();
    let tree = scene.home.tree();
    scene.run(&["init"]).expect(0);
    assert_eq!(scene.json(&["data-class"], 0)["data_class"], Value::Null);
    scene.run(&["data-class", "NO_SUCH_CLASS"]).expect(1).error_says(&["InvalidStorageClass"]);
    let changed = scene.run(&["data-class", "glacier_ir"]).expect(0);
    assert!(changed.0.stderr.contains("billed for 90 days"), "{changed}");
    assert_eq!(scene.json(&["data-class"], 0)["data_class"], "GLACIER_IR");
    scene.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);
    let out = scene.home.arg("out");
    scene.run(&["restore", "latest", "--to", &out]).expect(0);
    scene.same("tree", "out");

    // Nothing of what was is needed any more: whatever was stored together is idle.
    fs::remove_dir_all(&tree).unwrap();
    fs::create_dir(&tree).unwrap();
    fs::write(scene.home.path("tree/new"), vec![9; 400_000]).unwrap();
    scene.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);
    scene.run(&["forget", "--keep-last", "1"]).expect(0);
    let prune = ["prune", "--keep-marked", "0s", "--max-waste", "0"];
    let report = scene.json(&prune, 0);
    assert!(report["young"]["packs"].as_u64().unwrap() > 0, "{report}");
    let until: jiff::Timestamp = report["young_until"].as_str().unwrap().parse().unwrap();
    let hours = until.duration_since(jiff::Timestamp::now()).as_hours();
    assert!((89 * 24..=90 * 24).contains(&hours), "{hours}");
    let said = scene.run(&prune).expect(0);
    assert!(said.0.stderr.contains("not old enough"), "{said}");
    let report = scene.json(&[&prune[..], &["--least-age", "0s"]].concat(), 0);
    assert_eq!(report["young"]["packs"], 0, "{report}");
    scene.run(&["verify", "--every-byte"]).expect(0);
}

#[test]
fn a_directory_has_no_classes() {
    let home = Home::empty();
    let ran = home.run(&["init", "--data-class", "GLACIER"]).expect(1);
    ran.error_says(&["no classes", "leave the class out"]);
    home.run(&["init"]).expect(0);
    home.run(&["data-class", "GLACIER"]).expect(1).error_says(&["no classes"]);
}

#[test]
fn a_bucket_with_locks_is_told_used_and_pruned_in_plain_words() {
    let server = Server::start().unwrap();
    server.create_locked_bucket("locked", 30).unwrap();
    let scene = Scene { home: Home::empty(), server, bucket: "locked" };
    let tree = scene.home.tree();
    let made = scene.run(&["init"]).expect(0);
    assert!(made.0.stderr.contains("locks every object for 30 days (compliance"), "{made}");
    scene.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);
    fs::write(scene.home.path("tree/sub/data"), vec![9; 400_000]).unwrap();
    scene.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);
    scene.run(&["forget", "--keep-last", "1"]).expect(0);
    // The packs may seem to be of the backup that just ended: clocks of stores are coarse.
    let prune = ["prune", "--keep-marked", "0s", "--max-waste", "0"];
    let report = scene.json(&prune, 0);
    assert_eq!((&report["versions"], &report["refused"]["packs"]), (&true.into(), &0.into()));
    let deleted = report["deleted"]["packs"].as_u64().unwrap();
    assert!(deleted > 0, "{report}");
    let until: jiff::Timestamp = report["locked_until"].as_str().unwrap().parse().unwrap();
    let hours = until.duration_since(jiff::Timestamp::now()).as_hours();
    assert!((29 * 24..=30 * 24).contains(&hours), "{hours}");

    // What was hidden is stored again when it is needed again.
    fs::write(scene.home.path("tree/sub/data"), vec![7; 300_000]).unwrap();
    scene.run(&["backup", "files", &tree, "--name", "tree"]).expect(0);
    scene.run(&["verify", "--every-byte"]).expect(0);
    scene.run(&["key", "list"]).expect(0);
    scene.run(&["restore", "latest", "--to", &scene.home.arg("out")]).expect(0);
    scene.same("tree", "out");
}
