//! The stream of events, against the page that describes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Home, bare, contents, run};

/// What the page says: every word in backquotes.
pub(crate) fn described() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli-json.md");
    let page = fs::read_to_string(page).unwrap();
    let words = page.split('`').skip(1).step_by(2);
    words.map(ToOwned::to_owned).collect()
}

/// Fails unless every event and every field of it is described.
pub(crate) fn check(events: &[Value], described: &BTreeSet<String>) {
    for event in events {
        let name = event["event"].as_str().unwrap();
        assert!(described.contains(name), "the event {name} is not described");
        for field in event.as_object().unwrap().keys() {
            assert!(described.contains(field), "{name}.{field} is not described");
        }
    }
    let ends = ["summary", "error"];
    let is_end = |event: &Value| ends.contains(&event["event"].as_str().unwrap());
    assert_eq!(events.iter().filter(|event| is_end(event)).count(), 1, "one event is the end");
    assert!(is_end(events.last().unwrap()), "the end comes last");
}

#[test]
fn every_verb_keeps_to_the_page() {
    let described = described();
    let home = Home::empty();
    let tree = home.tree();
    let (out, second) = (home.arg("out"), home.arg("second"));
    fs::write(home.path("second"), "another one\n").unwrap();
    let (other, twice) = (home.arg("other"), home.arg("twice"));
    home.run(&["--repo", &other, "init"]).expect(0);
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"tree/odd\xff\n");
    fs::write(home.path("").join(odd), "odd").unwrap();
    for (arguments, code, command) in [
        (&["init", "--json"][..], 0, "init"),
        (&["backup", "files", &tree, "--name", "t", "--json"], 0, "backup files"),
        (&["snapshots", "--json"], 0, "snapshots"),
        (&["ls", "latest", "-R", "--json"], 0, "ls"),
        (&["find", "greeting", "--json"], 0, "find"),
        (&["diff", "latest", "latest", "--json"], 0, "diff"),
        (&["cat", "latest", "greeting", "--json"], 2, "cat"),
        (&["stats", "--json"], 0, "stats"),
        (&["restore", "latest", "--to", &out, "--json"], 0, "restore"),
        (&["restore", "latest", "--to", &out, "--json"], 1, "restore"),
        (&["verify", "--json"], 0, "verify"),
        (&["key", "add", "--label", "two", "--new-passphrase-file", &tree, "--json"], 1, "key add"),
        (
            &["key", "add", "--label", "two", "--new-passphrase-file", &second, "--json"],
            0,
            "key add",
        ),
        (&["key", "list", "--json"], 0, "key list"),
        (&["key", "remove", "two", "--json"], 0, "key remove"),
        (&["key", "rotate", "--json"], 0, "key rotate"),
        (&["copy", "--all", "--to", &other, "--dry-run", "--json"], 0, "copy"),
        (&["copy", "--all", "--to", &other, "--json"], 0, "copy"),
        (&["restore", "latest", "--to", &twice, "--or-from", &other, "--json"], 0, "restore"),
        (&["doctor", "--json"], 0, "doctor repo"),
        (&["doctor", "files", &tree, "--json"], 0, "doctor files"),
        (&["doctor", "files", "/nothing", "--json"], 1, "doctor files"),
        (
            &["doctor", "postgres", "--conninfo", "host=127.0.0.1 port=1", "--json"],
            1,
            "doctor postgres",
        ),
        (
            &["backup", "postgres", "--name", "x", "--conninfo", "host=127.0.0.1 port=1", "--json"],
            1,
            "backup postgres",
        ),
    ] {
        let ran = home.run(arguments).expect(code);
        let events = ran.events();
        check(&events, &described);
        assert_eq!(events[0]["event"], "started");
        assert_eq!(events[0]["command"], command);
        ran.end();
    }
    let entries = home.run(&["ls", "latest", "--json"]).expect(0).events_of("entry");
    let odd = entries.iter().find(|entry| entry["path_hex"].is_string()).unwrap();
    assert_eq!(odd["path"], "odd\\xff\\n");
    assert_eq!(odd["path_hex"], "6f6464ff0a");
    for (path, _) in contents(&home.repo().join("packs")) {
        fs::remove_file(path).unwrap();
    }
    let ran = home.run(&["verify", "--json"]).expect(1);
    check(&ran.events(), &described);
    assert!(!ran.events_of("damage").is_empty());
}

#[test]
fn a_mistake_on_the_command_line_is_an_event_too() {
    let described = described();
    for arguments in [
        &["--json", "frobnicate"][..],
        &["snapshots", "--json"],
        &["--json", "--repo", "ftp://x", "snapshots"],
    ] {
        let ran = run(&mut bare(arguments)).expect(2);
        check(&ran.events(), &described);
        assert_eq!(ran.end()["kind"], "usage");
    }
}

#[test]
fn without_json_no_event_is_written() {
    let home = Home::new();
    let ran = home.run(&["backup", "files", &home.tree(), "--name", "t"]).expect(0);
    assert_eq!(ran.0.stdout, "");
    assert!(ran.0.stderr.contains("snapshot "), "{ran}");
    let ran = home.run(&["backup", "files", &home.tree(), "--name", "t", "--quiet"]).expect(0);
    assert_eq!((ran.0.stdout.as_str(), ran.0.stderr.as_str()), ("", ""));
}
