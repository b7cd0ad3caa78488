//! Journals: listed, checked, copied, and trimmed with the snapshots that need them.

use std::fs;
use std::sync::Arc;

use lifeboat_core::journal::{
    JournalLog, JournalName, Need, Position, SegmentInfo, Span, Timeline, TimelineInfo,
};
use lifeboat_core::{Completion, Content, Context, Header, Sink, StoreRef, Timestamp};
use lifeboat_repository::{JournalOptions, Repository, WriteOptions};

use crate::common::{Home, Ran, contents, library};
use crate::json::{check, described};

/// The length of a segment.
const STEP: u64 = 0x100_0000;

fn name() -> JournalName {
    JournalName::new(StoreRef::new("postgres", "shop"), "wal").unwrap()
}

fn line() -> Timeline {
    Timeline::new("1").unwrap()
}

fn span(number: u64) -> Span {
    Span::new(Position(number * STEP), Position((number + 1) * STEP)).unwrap()
}

fn hour(number: u64) -> Timestamp {
    let first: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    first + jiff::SignedDuration::from_hours(i64::try_from(number).unwrap())
}

/// A journal with these segments, each of an hour.
async fn archive(repository: &Repository, numbers: &[u64]) {
    let log = repository.journal(&name(), &JournalOptions::default());
    log.begin(&TimelineInfo::first(line())).await.unwrap();
    for number in numbers {
        let info = SegmentInfo::default().with_times(hour(*number), hour(number + 1));
        let content = Content::bytes(format!("segment {number} ").repeat(4000));
        log.append(&line(), span(*number), &info, content).await.unwrap();
    }
}

/// A snapshot that shows the beginning of an hour, and begins where that hour's segment does.
async fn base(repository: &Repository, number: u64) -> String {
    let context = Context::silent();
    let mut header = Header::new(name().store().clone());
    header.started = hour(number);
    let writing = repository.sink(&WriteOptions::default()).write(&header, &context).await.unwrap();
    let writing: Arc<dyn lifeboat_core::Writing> = Arc::from(writing);
    let mut completion = Completion::at(hour(number));
    let need = Need { timeline: line(), from: Position(number * STEP) };
    need.record("wal", &mut completion.facts);
    writing.commit(completion).await.unwrap().snapshot.unwrap().to_string()
}

fn segments(home: &Home) -> Vec<u64> {
    let events = home.run(&["journals", "shop", "--json"]).0.stdout;
    let events = events.lines().map(|line| serde_json::from_str(line).unwrap());
    let of = events.filter(|event: &serde_json::Value| event["event"] == "segment");
    of.map(|event| u64::from_str_radix(event["from"].as_str().unwrap(), 16).unwrap() / STEP)
        .collect()
}

fn json(home: &Home, arguments: &[&str], code: i32) -> Ran {
    let ran = home.run(&[arguments, &["--json"]].concat()).expect(code);
    check(&ran.events(), &described());
    ran
}

#[test]
fn journals_are_listed_and_what_they_lack_is_told() {
    let home = Home::new();
    let none = json(&home, &["journals"], 0);
    assert_eq!(none.end()["journals"], 0);
    home.run(&["journals", "shop"])
        .expect(1)
        .error_says(&["no journal \"shop\"", "has no journals"]);
    library(&home, async |repository| archive(&repository, &[2, 3, 5, 7]).await);

    let ran = json(&home, &["journals"], 0);
    let lines = ran.events_of("timeline");
    assert_eq!(lines.len(), 1, "{ran}");
    let line_of = |field: &str| lines[0][field].clone();
    assert_eq!((line_of("journal"), line_of("timeline")), ("postgres/shop/wal".into(), "1".into()));
    assert_eq!(
        (line_of("from"), line_of("to")),
        ("0000000002000000".into(), "0000000008000000".into())
    );
    assert_eq!((line_of("segments"), line_of("gaps")), (4.into(), 2.into()));
    assert_eq!(line_of("first_time"), "2026-03-01T02:00:00Z");
    assert_eq!(line_of("last_time"), "2026-03-01T08:00:00Z");
    assert!(line_of("stored").as_u64().unwrap() > 0);
    assert_eq!(ran.events_of("gap").len(), 2);
    assert_eq!(segments(&home), [2, 3, 5, 7]);
    let long = json(&home, &["journals", "postgres/shop/wal", "--long"], 0);
    let part = &long.events_of("segment")[1];
    assert_eq!(part["size"], "segment 3 ".len() * 4000);
    assert_eq!(part["first_time"], "2026-03-01T03:00:00Z");
    let shown = home.run(&["journals", "shop", "-l"]).expect(0);
    for words in ["0/2000000", "timeline 1 lacks 0/4000000 to 0/5000000", "nobody recorded why"] {
        assert!(shown.0.stdout.contains(words), "{words}: {shown}");
    }

    // A gap of which nobody knows needs attention; one that was recorded is told.
    let ran = json(&home, &["verify"], 3);
    assert_eq!((ran.end()["gaps"].clone(), ran.end()["segments"].clone()), (2.into(), 4.into()));
    assert_eq!(ran.end()["sound"], true);
    assert!(ran.0.stderr.contains("lacks 0/4000000 to 0/5000000"), "{ran}");
    library(&home, async |repository| {
        let log = repository.journal(&name(), &JournalOptions::default());
        for number in [4, 6] {
            log.record_gap(&line(), span(number), "the disk was full", hour(9)).await.unwrap();
        }
    });
    let ran = json(&home, &["verify"], 0);
    assert!(ran.0.stderr.contains("the disk was full"), "{ran}");
    let gap = &ran.events_of("gap")[0];
    assert_eq!(
        (&gap["reason"], &gap["from"]),
        (&"the disk was full".into(), &"0000000004000000".into())
    );
    assert!(ran.0.stderr.contains("take one"), "{ran}");
}

#[test]
fn without_a_key_each_segment_is_seen_to_be_where_it_belongs() {
    let home = Home::new();
    library(&home, async |repository| archive(&repository, &[2, 3]).await);
    let keyless = ["verify", "--without-key"];
    let ran = json(&home, &keyless, 0);
    assert_eq!(
        (ran.end()["journals"].clone(), ran.end()["segments"].clone()),
        (1.into(), 2.into())
    );
    let files = contents(&home.repo().join("journals"));
    let named =
        |end: &str| files.iter().find(|(path, _)| path.to_str().unwrap().ends_with(end)).unwrap();
    let (second, third) = (named("2000000-0000000003000000"), named("3000000-0000000004000000"));
    let record = named("/timeline");
    let mut cut = second.1.clone();
    cut.pop();
    for (path, bytes, words) in [
        (&second.0, Some(&cut), "instead of"),
        (&second.0, Some(&third.1), "another object than its name says"),
        (&second.0, Some(&b"nonsense".to_vec()), "no valid header"),
        (&record.0, None, "it is missing"),
    ] {
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let ran = json(&home, &keyless, 1);
        let damage = ran.events_of("damage");
        assert_eq!(damage.len(), 1, "{ran}");
        let object = path.strip_prefix(home.repo()).unwrap().to_str().unwrap();
        assert_eq!(damage[0]["object"], object, "{ran}");
        assert!(damage[0]["what"].as_str().unwrap().contains(words), "{ran}");
        for (path, bytes) in [second, record] {
            fs::write(path, bytes).unwrap();
        }
    }
    home.run(&keyless).expect(0);
}

#[test]
fn a_copy_has_the_journals_and_holds_what_was_held() {
    let home = Home::new();
    let other = home.arg("other");
    home.run(&["--repo", &other, "init"]).expect(0);
    let id = library(&home, async |repository| {
        archive(&repository, &[2, 3, 5]).await;
        let log = repository.journal(&name(), &JournalOptions::default());
        log.record_gap(&line(), span(4), "the disk was full", hour(9)).await.unwrap();
        base(&repository, 2).await
    });
    home.run(&["pin", &id[..8], "--reason", "legal hold", "--until", "2999-01-01"]).expect(0);
    let copy = ["copy", "--all", "--to", &other];
    let dry = json(&home, &[&copy[..], &["--dry-run"]].concat(), 0);
    assert_eq!(
        (dry.events_of("pin_planned").len(), dry.events_of("journal_planned").len()),
        (1, 1)
    );
    assert_eq!((dry.end()["segments"].clone(), dry.end()["gaps"].clone()), (3.into(), 1.into()));
    // What does not ask for all copies snapshots alone.
    let some = json(&home, &["copy", &id, "--to", &other], 0).end();
    assert_eq!((some["copied"].clone(), some["segments"].clone()), (1.into(), 0.into()));

    let ran = json(&home, &[&copy[..], &["--verify"]].concat(), 0);
    let end = ran.end();
    assert_eq!(
        (end["pins"].clone(), end["segments"].clone(), end["gaps"].clone()),
        (1.into(), 3.into(), 1.into())
    );
    let there = |arguments: &[&str]| json(&home, &[&["--repo", &other][..], arguments].concat(), 0);
    let (here, copied) = (json(&home, &["pins"], 0), there(&["pins"]));
    let (here, copied) = (&here.events_of("pin")[0], &copied.events_of("pin")[0]);
    for field in ["reason", "by", "made", "until"] {
        assert_eq!(here[field], copied[field]);
    }
    let snapshots = there(&["snapshots"]).events_of("snapshot");
    assert_eq!(copied["snapshot"], snapshots[0]["id"]);
    assert_ne!(copied["snapshot"], here["snapshot"]);
    let ended = there(&["verify", "--every-byte"]).end();
    assert_eq!((ended["segments"].clone(), ended["gaps"].clone()), (3.into(), 1.into()));

    // Nothing twice; and what is lost there, or new here, is copied by the next run.
    let again = json(&home, &copy, 0).end();
    assert_eq!(
        (again["pins"].clone(), again["segments"].clone(), again["gaps"].clone()),
        (0.into(), 0.into(), 0.into())
    );
    let lost = contents(&home.path("other").join("journals"));
    let lost = lost.iter().find(|(path, _)| path.to_str().unwrap().ends_with("0000000004000000"));
    fs::remove_file(&lost.unwrap().0).unwrap();
    library(&home, async |repository| archive(&repository, &[6]).await);
    assert_eq!(json(&home, &copy, 0).end()["segments"], 2);

    // A damaged segment does not keep the others from being copied.
    library(&home, async |repository| archive(&repository, &[7, 8]).await);
    let files = contents(&home.repo().join("journals"));
    let hurt = files.iter().find(|(path, _)| path.to_str().unwrap().ends_with("0000000008000000"));
    let (path, mut bytes) = hurt.unwrap().clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
    let ran = json(&home, &copy, 3);
    assert_eq!(
        (ran.end()["segments"].clone(), ran.end()["journal_failed"].clone()),
        (1.into(), 1.into())
    );
    assert!(ran.0.stderr.contains("it was not copied"), "{ran}");
}

#[test]
fn a_journal_goes_with_the_bases_that_need_it() {
    let home = Home::new();
    let ids = library(&home, async |repository| {
        archive(&repository, &(0..30).collect::<Vec<_>>()).await;
        let mut ids = Vec::new();
        for number in [2, 10, 20, 28] {
            ids.push(base(&repository, number).await);
        }
        ids
    });
    let rules = ["forget", "--keep-last", "1", "--recoverable", "12h"];
    let dry = [&rules[..], &["--dry-run"]].concat();

    // Without a promise of moments, all of it stays; and where only names are given, too.
    let ran = json(&home, &["forget", "--keep-last", "1", "--dry-run"], 0);
    let held = ran.events_of("trim")[0]["held"].clone();
    assert!(held.as_str().unwrap().contains("no rule says"), "{ran}");
    assert!(json(&home, &["forget", &ids[0], "--dry-run"], 0).events_of("trim").is_empty());

    let ran = json(&home, &dry, 0);
    assert_eq!(ran.events_of("journal")[0]["journals"], 1);
    let trim = &ran.events_of("trim")[0];
    assert_eq!(
        (&trim["base"], &trim["from"]),
        (&ids[1].as_str().into(), &"000000000a000000".into())
    );
    assert_eq!((&trim["segments"], &trim["stays"]), (&10.into(), &20.into()));
    let shown = home.run(&dry).expect(0).0.stdout;
    let keep = "from 0/A000000 on timeline 1 on, 20 segments, ";
    for words in [keep, &ids[1][..8], "remove  10 segments, "] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert_eq!(segments(&home).len(), 30);

    let ran = json(&home, &rules, 0);
    assert_eq!(
        (ran.end()["removed"].clone(), ran.end()["segments"].clone()),
        (1.into(), 10.into())
    );
    assert_eq!(ran.events_of("trimmed")[0]["segments"], 10);
    assert_eq!(segments(&home), (10..30).collect::<Vec<_>>());
    let again = json(&home, &rules, 0);
    assert_eq!(
        (again.end()["removed"].clone(), again.end()["segments"].clone()),
        (0.into(), 0.into())
    );
    home.run(&["verify", "--every-byte"]).expect(0);

    // A base that does not say where it begins keeps all of the journal.
    let mut kept = library(&home, async |repository| {
        let context = Context::silent();
        let mut header = Header::new(name().store().clone());
        header.started = hour(40);
        let sink = repository.sink(&WriteOptions::default());
        let writing: Arc<dyn lifeboat_core::Writing> =
            Arc::from(sink.write(&header, &context).await.unwrap());
        writing.commit(Completion::at(hour(40))).await.unwrap().snapshot.unwrap().to_string()
    });
    kept.truncate(8);
    let ran = json(&home, &rules, 0);
    let held = ran.events_of("trim")[0]["held"].as_str().unwrap().to_owned();
    assert!(held.contains(&kept) && held.contains("does not say where"), "{held}");
    assert_eq!(segments(&home), (10..30).collect::<Vec<_>>());
}
