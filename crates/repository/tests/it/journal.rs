//! Journals in a repository.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lifeboat_core::conformance::{JournalHarness, journal_suite};
use lifeboat_core::journal::{
    Appended, JournalLog, JournalName, MAX_SEGMENT, Place, Position, SegmentInfo, Span, Timeline,
    TimelineInfo,
};
use lifeboat_core::{
    Attributes, Content, Context, ErrorKind, Extent, StoreRef, Timestamp, async_trait,
};
use lifeboat_repository::{
    CheckOptions, Exclusivity, JournalOptions, Promise, Repository, TimelineSurvey,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::{noise, repository, secret, small};
use crate::golden::second_reader;
use crate::hooked::{Fate, Hooked, Request};

fn name(stream: &str) -> JournalName {
    JournalName::new(StoreRef::new("postgres", "main"), stream).unwrap()
}

fn line(name: &str) -> Timeline {
    Timeline::new(name).unwrap()
}

fn span(from: u64, to: u64) -> Span {
    Span::new(Position(from), Position(to)).unwrap()
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

struct Harness(Repository);

#[async_trait]
impl JournalHarness for Harness {
    async fn journal(&self, stream: &str) -> Box<dyn JournalLog> {
        Box::new(self.0.journal(&name(stream), &JournalOptions::default()))
    }

    async fn again(&self, log: &dyn JournalLog) -> Box<dyn JournalLog> {
        Box::new(self.0.journal(log.name(), &JournalOptions::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_keeps_journals() {
    let (_, repository) = repository().await;
    journal_suite(&Harness(repository.clone())).await;
    let journals = repository.journals().await.unwrap();
    assert!(journals.damaged.is_empty());
    let mut streams: Vec<_> = journals.journals.iter().map(JournalName::stream).collect();
    streams.sort_unstable();
    assert_eq!(streams.len(), 10, "{streams:?}");
    let report = repository.check(&CheckOptions::every_byte(), &Context::silent()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.damage);
    assert_eq!(report.journals.journals, 10);
    assert!(report.journals.bytes > 8_000_000);
    let missing: Vec<_> = report.journals.gaps.iter().map(|gap| gap.journal.stream()).collect();
    assert!(missing.contains(&"gaps") && missing.contains(&"forks") && !missing.contains(&"order"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_keeps_journals() {
    let dir = tempfile::tempdir().unwrap();
    let store = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let repository = Repository::init(Arc::new(store), &secret(), &small()).await.unwrap();
    journal_suite(&Harness(repository)).await;
}

/// A journal with one timeline and one segment of three frames; its object's name.
async fn one_segment(
    repository: &Repository,
    store: &dyn ObjectStore,
) -> (impl JournalLog + use<>, Path) {
    let log = repository.journal(&name("wal"), &JournalOptions::default());
    log.begin(&TimelineInfo::first(line("1"))).await.unwrap();
    let content = Content::bytes(noise(1, 2_500_000));
    let info = SegmentInfo::default().with_times(second(0), second(1));
    log.append(&line("1"), span(0, 16), &info, content).await.unwrap();
    let listed = objects(store).await;
    let segment = listed.into_iter().find(|name| name.as_ref().ends_with("0010")).unwrap();
    (log, segment)
}

async fn objects(store: &dyn ObjectStore) -> Vec<Path> {
    use futures_util::TryStreamExt;
    let listed: Vec<_> = store.list(Some(&Path::from("journals"))).try_collect().await.unwrap();
    listed.into_iter().map(|meta| meta.location).collect()
}

async fn drain(content: Option<Content>) -> lifeboat_core::Result<u64> {
    let mut content = content.unwrap();
    let mut length = 0;
    while let Some(extent) = content.next().await? {
        length += extent.len();
    }
    Ok(length)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_changed_byte_is_found() {
    let (store, repository) = repository().await;
    let (log, object) = one_segment(&repository, store.as_ref()).await;
    let place = Place::sealed(&line("1"), span(0, 16));
    assert_eq!(drain(log.read(&place).await.unwrap()).await.unwrap(), 2_500_000);
    let sound = store.get(&object).await.unwrap().bytes().await.unwrap();
    let front = 0..500_usize;
    let frames = [600, 1 << 20, (1 << 20) + 600, 2 << 20, sound.len() - 1];
    for at in front.chain(frames) {
        let mut bytes = sound.to_vec();
        bytes[at] ^= 0x10;
        store.put(&object, bytes.into()).await.unwrap();
        let read = match log.read(&place).await {
            Ok(content) => drain(content).await,
            Err(error) => Err(error),
        };
        // An epoch that nobody knows may be one that came meanwhile: the key is the wrong one then.
        let is_epoch = (12..16).contains(&at);
        let kind = read.unwrap_err().kind();
        assert!(kind == ErrorKind::Corrupt || is_epoch && kind == ErrorKind::Refused, "byte {at}");
        let told = repository.check(&CheckOptions::every_byte(), &Context::silent()).await.unwrap();
        let told: Vec<_> = told.damage.iter().map(|damage| damage.object.as_str()).collect();
        assert_eq!(told, [object.as_ref()], "byte {at}");
    }
    for cut in [0, 1, 159, 160, 300, sound.len() - 1] {
        store.put(&object, sound.slice(..cut).into()).await.unwrap();
        let error = log.segment(&place).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "cut to {cut}");
        let again = Content::bytes(noise(1, 2_500_000));
        let again = log.append(&line("1"), span(0, 16), &SegmentInfo::default(), again).await;
        assert_eq!(again.unwrap_err().kind(), ErrorKind::Corrupt, "cut to {cut}");
        let told = repository.check(&CheckOptions::default(), &Context::silent()).await.unwrap();
        assert!(!told.is_sound(), "cut to {cut}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_is_good_in_its_own_place_only() {
    let (store, repository) = repository().await;
    let (log, object) = one_segment(&repository, store.as_ref()).await;
    let other = repository.journal(&name("other"), &JournalOptions::default());
    other.begin(&TimelineInfo::first(line("1"))).await.unwrap();
    other
        .append(&line("1"), span(0, 16), &SegmentInfo::default(), Content::bytes("x"))
        .await
        .unwrap();
    let elsewhere = objects(store.as_ref()).await;
    let elsewhere = elsewhere
        .into_iter()
        .find(|name| name.as_ref().ends_with("0010") && *name != object)
        .unwrap();
    let later = Path::from(object.as_ref().replace("0010", "0020"));
    let gap = Path::from(format!("{object}.gap"));
    for target in [&elsewhere, &later, &gap] {
        let bytes = store.get(&object).await.unwrap().bytes().await.unwrap();
        store.put(target, bytes.into()).await.unwrap();
    }
    let here = |to| Place::sealed(&line("1"), span(0, to));
    assert_eq!(other.segment(&here(16)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(log.segment(&here(32)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let gap = Place::gap(&line("1"), span(0, 16));
    assert_eq!(log.segment(&gap).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(log.segment(&here(16)).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_tell_an_outsider_nothing() {
    let (store, repository) = repository().await;
    let log = repository.journal(&name("telltale-stream"), &JournalOptions::default());
    log.begin(&TimelineInfo::first(line("telltale-timeline"))).await.unwrap();
    let here = span(0x1000, 0x2000);
    let content = || Content::bytes("telltale-content ".repeat(100));
    let timeline = line("telltale-timeline");
    log.append(&timeline, here, &SegmentInfo::default(), content()).await.unwrap();
    log.record_gap(&timeline, span(0x2000, 0x3000), "telltale-reason", second(1)).await.unwrap();
    for object in objects(store.as_ref()).await {
        let bytes = store.get(&object).await.unwrap().bytes().await.unwrap();
        for text in [object.as_ref().as_bytes(), &bytes[..]] {
            for telltale in [&b"telltale"[..], b"postgres", b"main"] {
                assert!(!text.windows(telltale.len()).any(|window| window == telltale), "{object}");
            }
        }
    }
    // The same journal of another repository has other names.
    let (other_store, other) = crate::common::repository().await;
    let other = other.journal(&name("telltale-stream"), &JournalOptions::default());
    other.begin(&TimelineInfo::first(line("telltale-timeline"))).await.unwrap();
    let ours = objects(store.as_ref()).await;
    assert!(objects(other_store.as_ref()).await.iter().all(|name| !ours.contains(name)));
}

/// Whatever fails while a segment is appended: it is there as a whole or not at all, and appending
/// it again succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_failed_is_done_again() {
    let store = Hooked::new();
    let repository = Repository::init(store.clone(), &secret(), &small()).await.unwrap();
    let log = repository.journal(&name("wal"), &JournalOptions::default());
    let timeline = line("1");
    log.begin(&TimelineInfo::first(timeline.clone())).await.unwrap();
    let append = async |bytes: &'static str| {
        log.append(&timeline, span(0, 1), &SegmentInfo::default(), Content::bytes(bytes)).await
    };
    store.hook(|request, name| match request {
        Request::Put if name.starts_with("journals") => Fate::Fails,
        _ => Fate::Done,
    });
    assert_eq!(append("one").await.unwrap_err().kind(), ErrorKind::Unavailable);
    store.hook(|_, _| Fate::Done);
    let place = Place::sealed(&timeline, span(0, 1));
    assert!(log.segment(&place).await.unwrap().is_none());
    assert_eq!(append("one").await.unwrap(), Appended::New);
    // An outage is no proof of absence.
    store.hook(|request, _| if request == Request::Get { Fate::Fails } else { Fate::Done });
    assert_eq!(log.segment(&place).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(log.read(&place).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(append("one").await.is_err());
    store.hook(|_, _| Fate::Done);
    assert_eq!(append("one").await.unwrap(), Appended::Same);
    assert_eq!(append("two").await.unwrap_err().kind(), ErrorKind::AlreadyExists);
}

/// A store that counts requests, and cannot make an object only where there is none.
mod simple {
    use super::*;
    use futures_util::stream::BoxStream;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMode,
        PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    };

    #[derive(Debug, Default)]
    pub(super) struct Simple {
        pub(super) inner: InMemory,
        pub(super) conditional: bool,
        pub(super) gets: AtomicU64,
    }

    impl std::fmt::Display for Simple {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Simple")
        }
    }

    #[async_trait]
    impl ObjectStore for Simple {
        async fn put_opts(
            &self,
            at: &Path,
            payload: PutPayload,
            options: PutOptions,
        ) -> Result<PutResult> {
            if options.mode == PutMode::Create && !self.conditional {
                return Err(object_store::Error::NotImplemented {
                    operation: "a conditional put".into(),
                    implementer: "Simple".into(),
                });
            }
            self.inner.put_opts(at, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            at: &Path,
            options: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(at, options).await
        }

        async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
            self.gets.fetch_add(1, Ordering::Relaxed);
            self.inner.get_opts(at, options).await
        }

        fn delete_stream(
            &self,
            at: BoxStream<'static, Result<Path>>,
        ) -> BoxStream<'static, Result<Path>> {
            self.inner.delete_stream(at)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_conditional_puts_is_refused_unless_told_so() {
    let store = Arc::new(simple::Simple::default());
    let mut options = small();
    options.promise = Promise::Weaker;
    let repository = Repository::init(store, &secret(), &options).await.unwrap();
    let strict = repository.journal(&name("wal"), &JournalOptions::default());
    let refused = strict.begin(&TimelineInfo::first(line("1"))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(strict.timelines().await.unwrap().is_empty());
    let looks = JournalOptions::default().with_exclusivity(Exclusivity::LookFirst);
    let looks = repository.journal(&name("wal"), &looks);
    looks.begin(&TimelineInfo::first(line("1"))).await.unwrap();
    let append = async |text: &'static str| {
        let content = Content::bytes(text);
        looks.append(&line("1"), span(0, 1), &SegmentInfo::default(), content).await
    };
    assert_eq!(append("one").await.unwrap(), Appended::New);
    assert_eq!(append("one").await.unwrap(), Appended::Same);
    assert_eq!(append("two").await.unwrap_err().kind(), ErrorKind::AlreadyExists);
}

/// The largest segment goes through, and a longer run is split where positions count bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_run_is_split_into_segments_that_join() {
    let (_, repository) = repository().await;
    let log = repository.journal(&name("wal"), &JournalOptions::default());
    let timeline = line("1");
    log.begin(&TimelineInfo::first(timeline.clone())).await.unwrap();
    let whole = span(1 << 30, (1 << 30) + 2 * MAX_SEGMENT + 5);
    let append = async |expected| {
        for part in whole.cut(MAX_SEGMENT) {
            let content = Content::extents([Extent::Hole(part.length())]);
            let appended =
                log.append(&timeline, part, &SegmentInfo::default(), content).await.unwrap();
            assert_eq!(appended, expected);
        }
    };
    append(Appended::New).await;
    append(Appended::Same).await;
    let listed = log.list(&timeline, Span::ALL).await.unwrap();
    assert_eq!(listed.len(), 3);
    let mut length = 0;
    for one in &listed {
        length += drain(log.read(&one.place).await.unwrap()).await.unwrap();
    }
    assert_eq!(length, whole.length());
    assert!(log.gaps(&timeline, whole.from()).await.unwrap().is_empty());
}

/// However many segments there are, finding a time reads what is known of a handful.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_is_found_by_few_reads() {
    let count = std::env::var("LIFEBOAT_SEGMENTS");
    let count: i64 = count.map_or(2000, |count| count.parse().unwrap());
    let store = Arc::new(simple::Simple { conditional: true, ..Default::default() });
    let repository = Repository::init(store.clone(), &secret(), &small()).await.unwrap();
    let log = repository.journal(&name("wal"), &JournalOptions::default());
    let timeline = line("1");
    log.begin(&TimelineInfo::first(timeline.clone())).await.unwrap();
    let start = std::time::Instant::now();
    for number in 0..count {
        let info = SegmentInfo::default().with_times(second(number), second(number + 1));
        let here = span(number as u64 * 16, number as u64 * 16 + 16);
        log.append(&timeline, here, &info, Content::bytes("a second of changes")).await.unwrap();
    }
    let appended = start.elapsed();
    let start = std::time::Instant::now();
    assert_eq!(log.list(&timeline, Span::ALL).await.unwrap().len() as i64, count);
    let listed = start.elapsed();
    let before = store.gets.load(Ordering::Relaxed);
    let start = std::time::Instant::now();
    let at = count * 7 / 9;
    let found = log.between(&timeline, second(at), second(at)).await.unwrap();
    let (sought, reads) = (start.elapsed(), store.gets.load(Ordering::Relaxed) - before);
    let found: Vec<_> = found.iter().map(|segment| segment.place.span.from().0 / 16).collect();
    assert_eq!(found, [at as u64 - 1, at as u64]);
    let start = std::time::Instant::now();
    assert!(log.gaps(&timeline, Position(0)).await.unwrap().is_empty());
    println!(
        "{count} segments: appended in {appended:?}, listed in {listed:?}, a time found in \
         {sought:?} by {reads} reads, gaps sought in {:?}",
        start.elapsed()
    );
    assert!(reads <= u64::from(count.ilog2()) + 4, "{reads} reads");
}

/// What is told of a journal whose timeline cannot be read any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_timeline_hides_no_other_damage() {
    let (store, repository) = repository().await;
    let (log, object) = one_segment(&repository, store.as_ref()).await;
    let timeline =
        Path::from(object.as_ref().replace("0000000000000000-0000000000000010", "timeline"));
    for damaged in [&object, &timeline] {
        let mut bytes = store.get(damaged).await.unwrap().bytes().await.unwrap().to_vec();
        bytes[200] ^= 1;
        store.put(damaged, bytes.into()).await.unwrap();
    }
    let told = repository.check(&CheckOptions::default(), &Context::silent()).await.unwrap();
    let told: Vec<_> = told.damage.iter().map(|damage| damage.object.as_str()).collect();
    assert_eq!(told, [object.as_ref(), timeline.as_ref()]);
    assert_eq!(log.timelines().await.unwrap_err().kind(), ErrorKind::Corrupt);
    let journals = repository.journals().await.unwrap();
    assert_eq!((journals.journals.len(), journals.damaged.len()), (0, 1));
}

/// The document is good enough to write a second reader from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_timeline_lacks_up_to_the_one_that_left_it_is_missing() {
    let (_, repository) = repository().await;
    let log = repository.journal(&name("wal"), &JournalOptions::default());
    log.begin(&TimelineInfo::first(line("1"))).await.unwrap();
    log.begin(&TimelineInfo::forked(line("2"), line("1"), Position(6))).await.unwrap();
    for (timeline, span) in [("1", span(0, 4)), ("2", span(6, 8))] {
        let info = SegmentInfo::default();
        log.append(&line(timeline), span, &info, Content::bytes("x")).await.unwrap();
    }
    let report = repository.check(&CheckOptions::default(), &Context::silent()).await.unwrap();
    let gaps: Vec<_> = report.journals.gaps.into_iter().map(|gap| gap.gap).collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!((&gaps[0].timeline, gaps[0].span), (&line("1"), span(4, 6)));
    let survey = repository.survey_journal(&name("wal")).await.unwrap();
    assert_eq!(survey.gaps, gaps);
    let spans: Vec<_> = survey.timelines.iter().map(TimelineSurvey::span).collect();
    assert_eq!(spans, [Some(span(0, 4)), Some(span(6, 8))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_reader_reads_journals() {
    let dir = tempfile::tempdir().unwrap();
    let store = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let repository = Repository::init(Arc::new(store), &secret(), &small()).await.unwrap();
    let log = repository.journal(&name("wal"), &JournalOptions::default());
    let facts = Attributes::new().with("postgres.history", b"1\t0/30\tno reason".to_vec());
    log.begin(&TimelineInfo::first(line("1"))).await.unwrap();
    let forked = TimelineInfo::forked(line("2"), line("1"), Position(48)).with_facts(facts.clone());
    log.begin(&forked).await.unwrap();
    let mut bytes = noise(1, 1_500_000);
    bytes.resize(3_000_000, 0);
    let info = SegmentInfo::default().with_times(second(1), second(2)).with_facts(facts);
    log.append(&line("2"), span(32, 64), &info, Content::bytes(bytes.clone())).await.unwrap();
    let empty = SegmentInfo::default();
    log.append(&line("1"), span(0, 16), &empty, Content::empty()).await.unwrap();
    log.record_gap(&line("1"), span(16, 32), "it was lost", second(3)).await.unwrap();

    let said = second_reader(&["read", dir.path().to_str().unwrap()]);
    let mut journals = said["journals"].as_array().unwrap().clone();
    journals
        .sort_by_key(|one| (one["names"].to_string(), one["from"].as_u64(), one["what"].as_u64()));
    let told =
        |n: usize| (journals[n]["what"].as_u64().unwrap(), journals[n]["from"].as_u64().unwrap());
    assert_eq!(
        [told(0), told(1), told(2), told(3), told(4)],
        [(1, 0), (2, 0), (3, 16), (1, 0), (2, 32)]
    );
    assert_eq!(journals[0]["names"], serde_json::json!(["postgres", "main", "wal", "1"]));
    assert_eq!(
        (journals[1]["size"].as_u64(), &journals[1]["times"][0]),
        (Some(0), &serde_json::Value::Null)
    );
    assert_eq!(journals[2]["reason"], "it was lost");
    assert_eq!(journals[3]["fork"], serde_json::json!(["1", 48]));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    assert_eq!(journals[4]["sha256"], hex::encode(digest.as_ref()));
    assert_eq!(journals[4]["times"][1], second(2).as_nanosecond() as i64);
    assert_eq!(journals[4]["facts"], journals[3]["facts"]);
}
