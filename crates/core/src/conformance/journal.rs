//! The suite for places where journals are kept.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use crate::attributes::Attributes;
use crate::content::{Content, Extent};
use crate::error::{Error, ErrorKind};
use crate::journal::{
    Appended, Gap, JournalLog, MAX_SEGMENT, Need, Place, Position, SegmentInfo, SegmentKind, Span,
    Timeline, TimelineInfo, Trim, current,
};

/// What the suite needs to know of a place where journals are kept.
#[async_trait]
pub trait JournalHarness: Send + Sync {
    /// A journal of this stream that has never been used. Each stream is asked for once.
    async fn journal(&self, stream: &str) -> Box<dyn JournalLog>;

    /// Another handle on the same journal, as another process would have.
    async fn again(&self, log: &dyn JournalLog) -> Box<dyn JournalLog>;
}

/// Runs every case on journals from `harness`.
///
/// # Panics
/// When the contract is broken.
pub async fn journal_suite(harness: &dyn JournalHarness) {
    contents_come_back(harness).await;
    the_same_again_is_fine_and_another_is_not(harness).await;
    a_segment_is_whole_or_not_there(harness).await;
    of_many_at_once_one_wins(harness).await;
    timelines_are_begun_once(harness).await;
    listings_are_in_order(harness).await;
    gaps_are_found_and_recorded(harness).await;
    gaps_go_through_forks(harness).await;
    times_are_found(harness).await;
    trimming_leaves_what_is_needed(harness).await;
}

fn line(name: &str) -> Timeline {
    Timeline::new(name).expect("a name")
}

fn span(from: u64, to: u64) -> Span {
    Span::new(Position(from), Position(to)).expect("a span")
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

async fn begun(harness: &dyn JournalHarness, stream: &str) -> (Box<dyn JournalLog>, Timeline) {
    let log = harness.journal(stream).await;
    let timeline = line("1");
    let began = log.begin(&TimelineInfo::first(timeline.clone())).await;
    assert_eq!(began.expect("a timeline can be begun"), Appended::New);
    (log, timeline)
}

async fn add(log: &dyn JournalLog, timeline: &Timeline, span: Span) {
    let content = Content::bytes(span.to_string());
    let added = log.append(timeline, span, &SegmentInfo::default(), content).await;
    assert_eq!(added.expect("a segment can be appended"), Appended::New);
}

async fn bytes_of(log: &dyn JournalLog, place: &Place) -> Option<Vec<u8>> {
    let mut content = log.read(place).await.expect("a segment can be read")?;
    let mut bytes = Vec::new();
    while let Some(extent) = content.next().await.expect("its content can be read") {
        match extent {
            Extent::Data(data) => bytes.extend_from_slice(&data),
            Extent::Hole(length) => bytes.resize(bytes.len() + length as usize, 0),
            Extent::Unchanged(_) => panic!("a journal says unchanged"),
        }
    }
    Some(bytes)
}

async fn contents_come_back(harness: &dyn JournalHarness) {
    let (log, timeline) = begun(harness, "contents").await;
    let noise: Vec<u8> = (0..3_200_000_u32)
        .scan(7_u32, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*state >> 24) as u8)
        })
        .collect();
    let facts = Attributes::new().with("memory.answer", 42_u64).with("memory.raw", vec![0_u8, 255]);
    let info = SegmentInfo::default().with_times(second(1), second(2)).with_facts(facts);
    for (number, size) in [0, 1, 100, 1 << 20, (1 << 20) + 1, 3_200_000].into_iter().enumerate() {
        let here = span(number as u64 * 10, number as u64 * 10 + 10);
        let content = Content::bytes(Bytes::copy_from_slice(&noise[..size]));
        let added = log.append(&timeline, here, &info, content).await;
        assert_eq!(added.expect("a segment can be appended"), Appended::New);
    }
    let other = harness.again(log.as_ref()).await;
    for (number, size) in [0, 1, 100, 1 << 20, (1 << 20) + 1, 3_200_000].into_iter().enumerate() {
        let place = Place::sealed(&timeline, span(number as u64 * 10, number as u64 * 10 + 10));
        let bytes = bytes_of(other.as_ref(), &place).await.expect("what was appended is there");
        assert!(bytes == noise[..size], "{size} bytes came back different");
        let known = other.segment(&place).await.expect("it can be told").expect("it is there");
        assert_eq!((&known.place, &known.info, known.size), (&place, &info, size as u64));
        assert_eq!(known.digest, *blake3::hash(&noise[..size]).as_bytes());
    }
    // Holes are zeros, however the content is cut.
    let extents = [Extent::Data("ab".into()), Extent::Hole(3_000_000), Extent::Data("c".into())];
    let here = span(1000, 1001);
    let added = log.append(&timeline, here, &info, Content::extents(extents)).await;
    assert_eq!(added.expect("holes can be appended"), Appended::New);
    let mut whole = b"ab".to_vec();
    whole.resize(3_000_002, 0);
    whole.push(b'c');
    let same = log.append(&timeline, here, &info, Content::bytes(whole.clone())).await;
    assert_eq!(same.expect("the same bytes, cut otherwise"), Appended::Same);
    let place = Place::sealed(&timeline, here);
    assert!(bytes_of(other.as_ref(), &place).await == Some(whole), "holes came back different");
}

async fn the_same_again_is_fine_and_another_is_not(harness: &dyn JournalHarness) {
    let (log, timeline) = begun(harness, "again").await;
    let here = span(0, 16);
    add(log.as_ref(), &timeline, here).await;
    let other = harness.again(log.as_ref()).await;
    // What is known of it plays no part.
    let info = SegmentInfo::default().with_times(second(8), second(9));
    let same = other.append(&timeline, here, &info, Content::bytes(here.to_string())).await;
    assert_eq!(same.expect("the same content again"), Appended::Same);
    for different in ["", "something else", "0000000000000000-0000000000000011"] {
        let result = other.append(&timeline, here, &info, Content::bytes(different)).await;
        let kind = result.expect_err("another content must be refused").kind();
        assert_eq!(kind, ErrorKind::AlreadyExists);
    }
    let place = Place::sealed(&timeline, here);
    let kept = bytes_of(other.as_ref(), &place).await.expect("the first one stays");
    assert!(kept == here.to_string().as_bytes(), "the first content was replaced");
    let known = other.segment(&place).await.expect("it can be told").expect("it is there");
    assert_eq!(known.info, SegmentInfo::default());
    // The same content elsewhere is something else.
    let result = log.append(&timeline, span(0, 17), &info, Content::bytes(here.to_string())).await;
    assert_eq!(result.expect("another place"), Appended::New);
}

async fn a_segment_is_whole_or_not_there(harness: &dyn JournalHarness) {
    let (log, timeline) = begun(harness, "whole").await;
    let info = SegmentInfo::default();
    let here = span(0, 1);
    let place = Place::sealed(&timeline, here);
    let cut = stream::iter([
        Ok(Extent::Data(vec![1; 2 << 20].into())),
        Err(Error::new(ErrorKind::Unavailable, "the server is gone")),
    ]);
    let result = log.append(&timeline, here, &info, Content::stream(cut)).await;
    assert_eq!(result.expect_err("the content failed").kind(), ErrorKind::Unavailable);
    let too_large = Content::extents([Extent::Hole(MAX_SEGMENT), Extent::Data("x".into())]);
    let result = log.append(&timeline, here, &info, too_large).await;
    assert_eq!(result.expect_err("it is too large").kind(), ErrorKind::InvalidInput);
    let never = stream::iter([Ok(Extent::Data("x".into()))]).chain(stream::pending());
    let waiting = log.append(&timeline, here, &info, Content::stream(never));
    let dropped = tokio::time::timeout(std::time::Duration::from_millis(20), waiting).await;
    assert!(dropped.is_err(), "a segment ended before its content");
    assert!(log.segment(&place).await.expect("it can be told").is_none());
    assert!(log.read(&place).await.expect("it can be told").is_none());
    assert!(log.list(&timeline, Span::ALL).await.expect("it can be listed").is_empty());
    assert_eq!(log.end(&timeline).await.expect("it can be listed"), None);
    add(log.as_ref(), &timeline, here).await;
    assert_eq!(log.end(&timeline).await.expect("it can be listed"), Some(Position(1)));
}

async fn of_many_at_once_one_wins(harness: &dyn JournalHarness) {
    let (log, timeline) = begun(harness, "many").await;
    let (log, timeline) = (log.as_ref(), &timeline);
    for different in [false, true] {
        let here = span(u64::from(different), 100);
        let append = |number: usize| async move {
            let text = if different { format!("this is {number}") } else { "the same".to_owned() };
            let info = SegmentInfo::default();
            log.append(timeline, here, &info, Content::bytes(text)).await
        };
        let results: Vec<_> =
            stream::iter(0..8).map(append).buffer_unordered(8).collect::<Vec<_>>().await;
        let new = results.iter().filter(|result| matches!(result, Ok(Appended::New))).count();
        let same = results.iter().filter(|result| matches!(result, Ok(Appended::Same))).count();
        let refused = results
            .iter()
            .filter(|result| {
                result.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists)
            })
            .count();
        let expected = if different { (1, 0, 7) } else { (1, 7, 0) };
        assert_eq!((new, same, refused), expected);
        let winner = bytes_of(log, &Place::sealed(timeline, here)).await.expect("one is there");
        assert!(winner.starts_with(if different { b"this is " } else { b"the same" }));
    }
}

async fn timelines_are_begun_once(harness: &dyn JournalHarness) {
    let log = harness.journal("timelines").await;
    assert!(log.timelines().await.expect("there are none").is_empty());
    let here = span(0, 1);
    let stray = log.append(&line("1"), here, &SegmentInfo::default(), Content::bytes("x")).await;
    assert_eq!(stray.expect_err("it was not begun").kind(), ErrorKind::NotFound);
    let facts = Attributes::new().with("postgres.history", b"1\t0/3000000\tno recovery".to_vec());
    let all = [
        TimelineInfo::first(line("1")),
        TimelineInfo::forked(line("2"), line("1"), Position(50)).with_facts(facts),
        TimelineInfo::first(line("../../\"odd\" ½ name/")),
    ];
    for info in &all {
        assert_eq!(log.begin(info).await.expect("it can be begun"), Appended::New);
        assert_eq!(log.begin(info).await.expect("the same again"), Appended::Same);
    }
    let other = harness.again(log.as_ref()).await;
    for info in &all {
        let told = other.timeline(&info.timeline).await.expect("it can be told");
        assert_eq!(told.as_ref(), Some(info));
    }
    assert_eq!(other.timeline(&line("3")).await.expect("it can be told"), None);
    assert!(!other.has_begun(&line("3")).await.expect("it can be told"));
    assert!(other.has_begun(&line("2")).await.expect("it can be told"));
    let changed = TimelineInfo::forked(line("2"), line("1"), Position(51));
    let kind = other.begin(&changed).await.expect_err("it is known otherwise").kind();
    assert_eq!(kind, ErrorKind::AlreadyExists);
    let mut listed = other.timelines().await.expect("they can be listed");
    listed.sort_by(|a, b| b.timeline.cmp(&a.timeline));
    let mut expected = all.to_vec();
    expected.sort_by(|a, b| b.timeline.cmp(&a.timeline));
    assert_eq!(listed, expected);
    for info in &all {
        add(other.as_ref(), &info.timeline, here).await;
    }
    assert_eq!(other.list(&line("2"), Span::ALL).await.expect("it can be listed").len(), 1);
}

async fn listings_are_in_order(harness: &dyn JournalHarness) {
    let (log, timeline) = begun(harness, "order").await;
    for from in [70_u64, 10, 30, 0, 20, 50, 60, 40] {
        add(log.as_ref(), &timeline, span(from, from + 10)).await;
    }
    // Sealed while it was being written, and at last whole.
    add(log.as_ref(), &timeline, span(80, 83)).await;
    add(log.as_ref(), &timeline, span(83, 90)).await;
    add(log.as_ref(), &timeline, span(80, 96)).await;
    let spans = |listed: &[crate::journal::ListedSegment]| -> Vec<_> {
        listed.iter().map(|one| (one.place.span.from().0, one.place.span.to().0)).collect()
    };
    let all = log.list(&timeline, Span::ALL).await.expect("it can be listed");
    let mut expected: Vec<_> = (0..8).map(|number| (number * 10, number * 10 + 10)).collect();
    expected.extend([(80, 83), (80, 96), (83, 90)]);
    assert_eq!(spans(&all), expected);
    assert!(all.iter().all(|one| one.stored > 0 && one.place.kind == SegmentKind::Sealed));
    assert_eq!(spans(&current(&all))[8..], [(80, 96)]);
    let some = log.list(&timeline, span(15, 31)).await.expect("it can be listed");
    assert_eq!(spans(&some), [(10, 20), (20, 30), (30, 40)]);
    assert!(log.list(&timeline, span(96, 200)).await.expect("it can be listed").is_empty());
}

fn told(gaps: &[Gap]) -> Vec<(String, u64, u64, bool)> {
    let one = |gap: &Gap| {
        let (from, to) = (gap.span.from().0, gap.span.to().0);
        (gap.timeline.to_string(), from, to, gap.record.is_some())
    };
    gaps.iter().map(one).collect()
}

async fn gaps_are_found_and_recorded(harness: &dyn JournalHarness) {
    let (log, timeline) = begun(harness, "gaps").await;
    let gaps = async || log.gaps(&timeline, Position(5)).await.expect("gaps can be told");
    assert!(gaps().await.is_empty());
    for (from, to) in [(0, 10), (10, 20), (30, 40), (60, 70)] {
        add(log.as_ref(), &timeline, span(from, to)).await;
    }
    let here = |from, to, recorded| ("1".to_owned(), from, to, recorded);
    assert_eq!(told(&gaps().await), [here(20, 30, false), here(40, 60, false)]);
    let recorded = log.record_gap(&timeline, span(45, 60), "the slot was dropped", second(3)).await;
    assert_eq!(recorded.expect("a gap can be recorded"), Appended::New);
    let again = log.record_gap(&timeline, span(45, 60), "in other words", second(4)).await;
    assert_eq!(again.expect("and again"), Appended::Same);
    let found = gaps().await;
    assert_eq!(told(&found), [here(20, 30, false), here(40, 45, false), here(45, 60, true)]);
    let record = found[2].record.as_ref().expect("it is recorded");
    assert_eq!((record.reason.as_str(), record.at), ("the slot was dropped", Some(second(3))));
    // Found after all.
    add(log.as_ref(), &timeline, span(45, 60)).await;
    assert_eq!(told(&gaps().await), [here(20, 30, false), here(40, 45, false)]);
    let place = Place::gap(&timeline, span(45, 60));
    assert!(log.segment(&place).await.expect("it can be told").is_some());
    assert!(log.read(&Place::gap(&timeline, span(1, 2))).await.expect("it can be told").is_none());
    // One at the end, after which nothing came yet.
    let recorded = log.record_gap(&timeline, span(70, 80), "the backlog was lost", second(5)).await;
    assert_eq!(recorded.expect("a gap can be recorded"), Appended::New);
    assert_eq!(told(&gaps().await).last(), Some(&here(70, 80, true)));
}

async fn gaps_go_through_forks(harness: &dyn JournalHarness) {
    let (log, first) = begun(harness, "forks").await;
    for (from, to) in [(0, 16), (16, 32), (48, 64)] {
        add(log.as_ref(), &first, span(from, to)).await;
    }
    let forked = |name, parent, at| TimelineInfo::forked(line(name), line(parent), Position(at));
    log.begin(&forked("2", "1", 40)).await.expect("it can be begun");
    log.begin(&forked("3", "2", 70)).await.expect("it can be begun");
    // As PostgreSQL does: the first segment repeats what came before the fork.
    add(log.as_ref(), &line("2"), span(32, 48)).await;
    let gaps = async |name| told(&log.gaps(&line(name), Position(0)).await.expect("they are told"));
    assert!(gaps("2").await.is_empty());
    assert_eq!(gaps("1").await, [("1".to_owned(), 32, 48, false)]);
    add(log.as_ref(), &line("3"), span(80, 96)).await;
    let expected = [("2".to_owned(), 48, 70, false), ("3".to_owned(), 70, 80, false)];
    assert_eq!(gaps("3").await, expected);
    let unknown = log.gaps(&line("9"), Position(0)).await.expect_err("there is no such timeline");
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

async fn times_are_found(harness: &dyn JournalHarness) {
    let (log, timeline) = begun(harness, "times").await;
    for number in 0..40_u64 {
        let here = span(number * 10, number * 10 + 10);
        let start = number as i64 * 60;
        let info = match number {
            // An idle stretch of which no times are known.
            20..24 => SegmentInfo::default(),
            _ => SegmentInfo::default().with_times(second(start), second(start + 59)),
        };
        let content = Content::bytes(here.to_string());
        log.append(&timeline, here, &info, content).await.expect("a segment can be appended");
        // A part that was sealed before.
        let part = span(number * 10, number * 10 + 3);
        let info = SegmentInfo::default().with_times(second(start), second(start + 10));
        log.append(&timeline, part, &info, Content::bytes("part")).await.expect("and a part");
    }
    let between = async |from: i64, to: i64| -> Vec<u64> {
        let found = log.between(&timeline, second(from), second(to)).await;
        let found = found.expect("times can be found");
        found.iter().map(|segment| segment.place.span.from().0 / 10).collect()
    };
    assert_eq!(between(0, 59).await, [0]);
    assert_eq!(between(119, 120).await, [1, 2]);
    assert_eq!(between(30 * 60 + 5, 31 * 60 + 5).await, [30, 31]);
    assert_eq!(between(-100, -50).await, [0_u64; 0]);
    assert_eq!(between(40 * 60, 50 * 60).await, [0_u64; 0]);
    assert_eq!(between(19 * 60, 24 * 60).await, [19, 20, 21, 22, 23, 24]);
}

async fn trimming_leaves_what_is_needed(harness: &dyn JournalHarness) {
    let (log, timeline) = begun(harness, "trim").await;
    for number in 0..6 {
        add(log.as_ref(), &timeline, span(number * 10, number * 10 + 10)).await;
    }
    add(log.as_ref(), &timeline, span(50, 53)).await;
    log.record_gap(&timeline, span(3, 5), "long ago", second(1)).await.expect("it is recorded");
    let need = [Need { timeline: timeline.clone(), from: Position(25) }];
    let would = log.trim(&need, Trim::DryRun).await.expect("it can be told");
    let listed = async || log.list(&timeline, Span::ALL).await.expect("it can be listed").len();
    assert_eq!((would.len(), listed().await), (4, 8));
    assert!(log.trim(&[], Trim::Delete).await.is_err(), "all of it was to go");
    assert_eq!(log.trim(&need, Trim::Delete).await.expect("it can be deleted"), would);
    let left = log.list(&timeline, Span::ALL).await.expect("it can be listed");
    let left: Vec<_> = left.iter().map(|one| one.place.span.from().0).collect();
    assert_eq!(left, [20, 30, 40, 50]);
    assert!(log.trim(&need, Trim::Delete).await.expect("nothing is left to do").is_empty());
    let gone = Place::sealed(&timeline, span(0, 10));
    assert!(log.segment(&gone).await.expect("it can be told").is_none());
    assert!(!log.has(&gone).await.expect("it can be told"));
    let there = Place::sealed(&timeline, span(20, 30));
    assert!(log.has(&there).await.expect("it can be told"));
    assert!(log.read(&gone).await.expect("it can be told").is_none());
    // It goes on as before.
    add(log.as_ref(), &timeline, span(60, 70)).await;
    assert_eq!(log.timelines().await.expect("they can be listed").len(), 1);
}
