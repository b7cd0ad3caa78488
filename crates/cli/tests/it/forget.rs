//! `forget`, `pin`, `unpin` and `pins`, as an operator meets them.

use crate::common::{Home, Ran};
use crate::json::{check, described};

/// A home with so many snapshots of one tree, the oldest first.
fn with_snapshots(count: usize) -> (Home, Vec<String>) {
    let home = Home::new();
    let tree = home.tree();
    let back_up = |number: usize| {
        let tag = format!("t{number}");
        let arguments = ["backup", "files", &tree, "--name", "t", "--tag", &tag, "--json"];
        let end = home.run(&arguments).expect(0).end();
        end["snapshot"].as_str().unwrap().to_owned()
    };
    let ids = (0..count).map(back_up).collect();
    (home, ids)
}

fn ids(home: &Home) -> Vec<String> {
    let events = home.run(&["snapshots", "--json"]).expect(0).events_of("snapshot");
    events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn shows(ran: &Ran, text: &str, verdict: &str, id: &str, reason: &str) {
    let line = text.lines().find(|line| line.contains(&id[..8]));
    let line = line.unwrap_or_else(|| panic!("{id} is not shown: {ran}"));
    assert!(line.trim_start().starts_with(verdict) && line.contains(reason), "{line}");
}

#[test]
fn a_dry_run_shows_all_with_reasons_and_a_run_does_just_that() {
    let (home, all) = with_snapshots(4);
    let rules = ["forget", "--keep-last", "2", "--keep-tag", "t0", "--time-zone", "Europe/Berlin"];
    let dry = home.run(&[&rules[..], &["--dry-run"]].concat()).expect(0);
    let shown = dry.0.stdout.clone();
    shows(&dry, &shown, "keep", &all[3], "the newest; number 1 of the last 2");
    shows(&dry, &shown, "keep", &all[2], "number 2 of the last 2");
    shows(&dry, &shown, "remove", &all[1], "not of the last 2; not tagged so");
    shows(&dry, &shown, "keep", &all[0], "tagged t0");
    let told = "to keep: the last 2, what is tagged t0 (time zone Europe/Berlin)";
    assert!(dry.0.stderr.contains(told), "{dry}");
    assert!(dry.0.stderr.contains("1 snapshot would be forgotten, 3 stay"), "{dry}");
    assert_eq!(ids(&home), all);

    let ran = home.run(&rules).expect(0);
    shows(&ran, &ran.0.stdout, "remove", &all[1], "not tagged so");
    assert!(!ran.0.stdout.contains(&all[0][..8]), "only what goes is shown: {ran}");
    assert!(ran.0.stderr.contains("1 snapshot forgotten, 3 stay"), "{ran}");
    assert!(ran.0.stderr.contains("lifeboat prune"), "{ran}");
    assert_eq!(ids(&home), [&all[..1], &all[2..]].concat());

    let again = home.run(&[&rules[..], &["--json"]].concat()).expect(0);
    let end = again.end();
    assert_eq!((end["kept"].as_u64(), end["removed"].as_u64()), (Some(3), Some(0)));
    home.run(&["restore", "latest", "--to", &home.arg("out")]).expect(0);
    home.run(&["verify", "--every-byte"]).expect(0);
}

#[test]
fn a_pin_holds_until_it_is_released() {
    let (home, all) = with_snapshots(2);
    let reason = "before the migration";
    let pinned = home.run(&["pin", &all[0][..10], "--reason", reason, "--json"]).expect(0);
    let pin = pinned.end()["pin"].as_str().unwrap().to_owned();

    let listed = home.run(&["pins"]).expect(0);
    assert!(listed.0.stdout.contains(&pin[..8]) && listed.0.stdout.contains(reason), "{listed}");
    let listed = home.run(&["snapshots"]).expect(0);
    assert!(listed.0.stdout.contains("pinned: before the migration"), "{listed}");

    let dry = home.run(&["forget", "--keep-last", "1", "-n"]).expect(0);
    shows(&dry, &dry.0.stdout, "keep", &all[0], "pinned: before the migration");
    let refused = home.run(&["forget", &all[0][..8]]).expect(1);
    refused.error_says(&["it is pinned (before the migration)", "lifeboat unpin"]);
    assert_eq!(ids(&home).len(), 2);

    home.run(&["unpin", &pin[..8]]).expect(0);
    home.run(&["unpin", &pin[..8]]).expect(1).error_says(&["there is none", "lifeboat pins"]);
    home.run(&["forget", &all[0][..8]]).expect(0);
    // By all its digits it may be named again.
    let gone = home.run(&["forget", &all[0]]).expect(0);
    assert!(gone.0.stderr.contains("1 snapshot gone already"), "{gone}");
    home.run(&["forget", &all[0][..8]]).expect(1).error_says(&["there is none"]);
}

#[test]
fn the_last_snapshot_goes_only_when_its_store_was_named() {
    let (home, all) = with_snapshots(1);
    let refused = home.run(&["forget", &all[0][..8]]).expect(1);
    refused.error_says(&["files/t would have none left", "--allow-remove-last files/t"]);
    home.run(&["forget", &all[0][..8], "--allow-remove-last", "t"]).expect(2);
    let done = home.run(&["forget", &all[0][..8], "--allow-remove-last", "files/t"]).expect(0);
    assert!(done.0.stderr.contains("1 snapshot forgotten"), "{done}");
    assert!(ids(&home).is_empty());
}

#[test]
fn rules_that_make_no_sense_are_refused_before_anything_is_looked_at() {
    let (home, all) = with_snapshots(1);
    let two = |arguments: &[&str], words: &[&str]| {
        let ran = home.run(arguments).expect(2);
        for word in words {
            assert!(ran.0.stderr.contains(word), "{word}: {ran}");
        }
    };
    two(&["forget"], &["no rule says what to keep", "--keep-within 14d"]);
    two(&["forget", "--store", "files/t"], &["no rule says what to keep"]);
    two(&["forget", "--keep-within", "3m"], &["months (3mo)"]);
    two(&["forget", "--keep-last", "0"], &["a rule that keeps 0 snapshots is none"]);
    two(&["forget", "--keep-last", "1", "--time-zone", "local"], &["Europe/Berlin"]);
    two(&["forget", "--keep-tag", "a,,b"], &["release,verified"]);
    two(&["forget", &all[0], "--keep-last", "1"], &["cannot be used with"]);
    two(&["pin", &all[0], "--reason", "x", "--until", "soon"], &["2027-01-31"]);
    home.run(&["pin", &all[0], "--reason", " "]).expect(1).error_says(&["1 to 1024 bytes"]);
    home.run(&["pin", &all[0], "--reason", "x", "--until", "2020-01-01"])
        .expect(1)
        .error_says(&["run out already"]);
    assert_eq!(ids(&home), all);
}

#[test]
fn a_pin_that_cannot_be_read_stands_in_the_way_until_it_is_released() {
    let (home, all) = with_snapshots(2);
    let pinned = home.run(&["pin", &all[1], "--reason", "hold", "--json"]).expect(0);
    let pin = pinned.end()["pin"].as_str().unwrap().to_owned();
    std::fs::write(home.repo().join("pins").join(&pin), "damage").unwrap();
    let refused = home.run(&["forget", "--keep-last", "1"]).expect(1);
    refused.error_says(&[&pin[..8], "cannot be read", "lifeboat unpin"]);
    let listed = home.run(&["pins"]).expect(3);
    assert!(listed.0.stderr.contains("nothing is forgotten"), "{listed}");
    home.run(&["verify"]).expect(1);
    home.run(&["unpin", &pin]).expect(0);
    home.run(&["forget", "--keep-last", "1"]).expect(0);
    assert_eq!(ids(&home), all[1..]);
}

#[test]
fn every_event_is_described() {
    let (home, all) = with_snapshots(3);
    let described = described();
    let json = |arguments: &[&str], code: i32| {
        let ran = home.run(&[arguments, &["--json"]].concat()).expect(code);
        check(&ran.events(), &described);
        ran
    };
    let pinned = json(&["pin", &all[0], "--reason", "hold", "--until", "2999-01-01"], 0).end();
    let pins = json(&["pins"], 0).events_of("pin");
    assert_eq!((&pins[0]["id"], &pins[0]["live"]), (&pinned["pin"], &true.into()));
    let shown = json(&["snapshots"], 0).events_of("snapshot");
    assert_eq!(shown[0]["pins"][0]["reason"], "hold");

    let rules = ["forget", "--keep-last", "1", "--recoverable", "14d", "--group-by", "store,host"];
    let dry = json(&[&rules[..], &["--dry-run"]].concat(), 0);
    let decisions = dry.events_of("decision");
    assert_eq!(decisions.len(), 3);
    assert_eq!(decisions[2]["snapshot"], all[0].as_str());
    for decision in &decisions {
        for reason in decision["reasons"].as_array().unwrap() {
            let rule = reason["rule"].as_str().unwrap();
            assert!(described.contains(rule), "the rule {rule} is not described");
        }
    }
    let journal = &dry.events_of("journal")[0];
    assert_eq!((&journal["base"], &journal["journals"]), (&all[0].as_str().into(), &0.into()));
    // Nobody must believe in moments of which no journal is kept.
    let told = home.run(&[&rules[..], &["--dry-run"]].concat()).expect(0);
    assert!(told.0.stdout.contains("no journal of it is kept"), "{told}");
    assert!(dry.events_of("outcome").is_empty());

    let done = json(&["forget", "--keep-last", "1"], 0);
    let outcomes = done.events_of("outcome");
    assert_eq!(outcomes.len(), 1);
    assert_eq!(
        (&outcomes[0]["snapshot"], &outcomes[0]["outcome"]),
        (&all[1].as_str().into(), &"removed".into())
    );
    json(&["forget", &all[0]], 1);
    json(&["unpin", pinned["pin"].as_str().unwrap()], 0);
    assert_eq!(ids(&home), [all[0].clone(), all[2].clone()]);
}
