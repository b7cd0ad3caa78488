//! What of a journal goes with the bases that needed it, and when nothing goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lifeboat_core::journal::{
    JournalLog, JournalName, Need, Position, SegmentInfo, Span, Timeline, TimelineInfo,
};
use lifeboat_core::{
    Completion, Content, Context, Header, KeepRules, Sink, SnapshotId, StoreRef, Timestamp,
};
use lifeboat_repository::{
    Error, ForgetOptions, ForgetPlan, JournalOptions, PlannedTrim, PruneOptions, Repository,
    WriteOptions,
};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::{secret, small};
use crate::hooked::{Fate, Hooked, Request};

fn name() -> JournalName {
    JournalName::new(StoreRef::new("postgres", "main"), "wal").unwrap()
}

fn line(name: &str) -> Timeline {
    Timeline::new(name).unwrap()
}

fn hour(number: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + number * 3600).unwrap()
}

async fn append(repository: &Repository, timeline: &str, positions: std::ops::Range<u64>) {
    let log = repository.journal(&name(), &JournalOptions::default());
    for at in positions {
        let span = Span::new(Position(at), Position(at + 1)).unwrap();
        let content = Content::bytes(format!("{timeline} {at}"));
        log.append(&line(timeline), span, &SegmentInfo::default(), content).await.unwrap();
    }
}

async fn begin(repository: &Repository, timeline: &TimelineInfo) {
    let log = repository.journal(&name(), &JournalOptions::default());
    log.begin(timeline).await.unwrap();
}

/// A base that shows an hour, and begins at a position.
async fn base(repository: &Repository, at: i64, timeline: &str, from: u64) -> SnapshotId {
    let context = Context::silent();
    let mut header = Header::new(name().store().clone());
    header.started = hour(at);
    let writing = repository.sink(&WriteOptions::default()).write(&header, &context).await.unwrap();
    let writing: Arc<dyn lifeboat_core::Writing> = Arc::from(writing);
    let mut completion = Completion::at(hour(at));
    Need { timeline: line(timeline), from: Position(from) }.record("wal", &mut completion.facts);
    writing.commit(completion).await.unwrap().snapshot.unwrap()
}

async fn planned(repository: &Repository, hours: i64) -> PlannedTrim {
    let mut rules = KeepRules::default();
    rules.recoverable = Some(lifeboat_core::Span::new().hours(hours));
    let list = repository.snapshots().await.unwrap();
    let policy = rules.policy().unwrap();
    let plan = ForgetPlan::of_policy(&list, &policy, &ForgetOptions::default(), hour(1000));
    let mut trims = repository.plan_trims(&plan.unwrap()).await.unwrap();
    assert_eq!(trims.len(), 1);
    trims.remove(0)
}

async fn left(repository: &Repository) -> Vec<String> {
    let log = repository.journal(&name(), &JournalOptions::default());
    let mut left = Vec::new();
    for info in log.timelines().await.unwrap() {
        for one in log.list(&info.timeline, Span::ALL).await.unwrap() {
            left.push(format!("{}:{}", info.timeline, one.place.span.from().0));
        }
    }
    left
}

/// Bases at 2 and 6 of timeline 1, which has ten segments; timeline 2 left it at 4.
async fn scene() -> (Arc<Hooked>, Repository) {
    let store = Hooked::new();
    let place: Arc<dyn ObjectStore> = store.clone();
    let repository = Repository::init(place, &secret(), &small()).await.unwrap();
    begin(&repository, &TimelineInfo::first(line("1"))).await;
    begin(&repository, &TimelineInfo::forked(line("2"), line("1"), Position(4))).await;
    append(&repository, "1", 0..10).await;
    append(&repository, "2", 4..6).await;
    base(&repository, 2, "1", 2).await;
    base(&repository, 6, "1", 6).await;
    (store, repository)
}

#[tokio::test]
async fn what_lies_before_the_oldest_base_goes_and_nothing_else() {
    let (_, repository) = scene().await;
    let context = Context::silent();
    // The older base is needed still: the window begins before the newer one.
    let trim = planned(&repository, 1).await;
    assert_eq!((trim.segments(), trim.stays, &trim.held), (2, 10, &None), "{trim:?}");
    assert_eq!(trim.from.as_ref().unwrap().from, Position(2));
    base(&repository, 9, "1", 9).await;
    let trim = planned(&repository, 1).await;
    assert_eq!(trim.from.as_ref().unwrap().from, Position(6));
    let done = repository.trim(std::slice::from_ref(&trim), &context).await.unwrap();
    assert_eq!((done[0].segments, done[0].stored, done[0].failed.len()), (6, trim.stored(), 0));
    // Timeline 2 leads to no base: the server may be on it.
    assert_eq!(left(&repository).await, ["1:6", "1:7", "1:8", "1:9", "2:4", "2:5"]);
    // Again, and by a plan that is old.
    repository.trim(&[trim], &context).await.unwrap();
    let trim = planned(&repository, 1).await;
    assert!(trim.goes.is_empty() && trim.held.is_none(), "{trim:?}");
    assert!(repository.trim(&[trim], &context).await.unwrap().is_empty());
    assert_eq!(left(&repository).await.len(), 6);
}

/// Pieces go a day after the whole that has the same, and not before; what is in no whole stays.
#[tokio::test]
async fn pieces_go_when_the_whole_has_been_there_for_a_day() {
    let store: Arc<dyn ObjectStore> = Hooked::new();
    let repository = Repository::init(store, &secret(), &small()).await.unwrap();
    begin(&repository, &TimelineInfo::first(line("1"))).await;
    let log = repository.journal(&name(), &JournalOptions::default());
    let seal = async |from: u64, to: u64, at: i64| {
        let span = Span::new(Position(from), Position(to)).unwrap();
        let info = SegmentInfo::default().with_times(hour(at), hour(at));
        let content = Content::bytes("x".repeat((to - from) as usize));
        log.append(&line("1"), span, &info, content).await.unwrap();
    };
    // Two segments of ten, and one that is being written.
    for (segment, at) in [(0, 0), (10, 20), (20, 43)] {
        seal(segment, segment + 3, at).await;
        seal(segment + 3, segment + 8, at).await;
        if segment < 20 {
            seal(segment, segment + 10, at).await;
        }
    }
    base(&repository, 0, "1", 0).await;
    let gone = async || -> Vec<(u64, u64)> {
        let trim = planned(&repository, 2000).await;
        assert!(trim.held.is_none(), "{trim:?}");
        let spans = trim.goes.iter().map(|one| one.place.span);
        spans.map(|span| (span.from().0, span.to().0)).collect()
    };
    assert_eq!(gone().await, [(0, 3), (3, 8)]);
    let trim = planned(&repository, 2000).await;
    repository.trim(&[trim], &Context::silent()).await.unwrap();
    assert!(gone().await.is_empty());
    seal(28, 30, 44).await;
    assert_eq!(gone().await, [(10, 13), (13, 18)]);
    let missing = log.gaps(&line("1"), Position(0)).await.unwrap();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn where_it_cannot_be_told_nothing_goes() {
    let (store, repository) = scene().await;
    let lost = base(&repository, 9, "1", 9).await;
    let holds = async |words: &str| {
        let trim = planned(&repository, 1).await;
        let held = trim.held.clone().unwrap_or_default();
        assert!(held.contains(words), "{words}: {held}");
        assert!(trim.goes.is_empty());
        assert_eq!(trim.stays, 12);
    };
    // A snapshot that cannot be read may be a base that begins before all others.
    let root = Path::from(format!("snapshots/{lost}"));
    let sound = store.get(&root).await.unwrap().bytes().await.unwrap();
    store.put(&root, "nonsense".into()).await.unwrap();
    holds("which may be a base, cannot be read").await;
    store.put(&root, sound.into()).await.unwrap();
    assert!(planned(&repository, 1).await.held.is_none());
    // One that begins where this journal has nothing.
    base(&repository, 10, "7", 9).await;
    holds("begins on timeline 7, which it lacks").await;
}

#[tokio::test]
async fn a_plan_that_was_overtaken_and_a_store_that_refuses_leave_what_there_is() {
    let (store, repository) = scene().await;
    let context = Context::silent();
    let newest = base(&repository, 9, "1", 9).await;
    let trim = planned(&repository, 1).await;
    let root = Path::from(format!("snapshots/{newest}"));
    let sound = store.get(&root).await.unwrap().bytes().await.unwrap();
    store.delete(&root).await.unwrap();
    let done = repository.trim(std::slice::from_ref(&trim), &context).await.unwrap();
    assert!(done[0].spared.as_ref().unwrap().contains("is gone meanwhile"), "{done:?}");
    assert_eq!(left(&repository).await.len(), 12);
    store.put(&root, sound.into()).await.unwrap();

    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    store.hook(move |request, name| {
        let segment = request == Request::Delete && name.starts_with("journals/");
        match segment && count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            true => Fate::Fails,
            false => Fate::Done,
        }
    });
    let done = repository.trim(std::slice::from_ref(&trim), &context).await.unwrap();
    assert_eq!((done[0].segments, done[0].failed.len()), (3, 3), "{done:?}");
    store.hook(|_, _| Fate::Done);
    let done = repository.trim(&[planned(&repository, 1).await], &context).await.unwrap();
    assert_eq!((done[0].segments, done[0].failed.len()), (3, 0), "{done:?}");
    assert_eq!(left(&repository).await, ["1:6", "1:7", "1:8", "1:9", "2:4", "2:5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_somebody_who_deletes_nothing_goes() {
    let (store, repository) = scene().await;
    base(&repository, 9, "1", 9).await;
    let trim = planned(&repository, 1).await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (closed, reached) = (Arc::clone(&gate), Arc::new(tokio::sync::Notify::new()));
    let here = Arc::clone(&reached);
    // A prune stores what it learnt while it holds the lease.
    store.hook(move |request, name| {
        match request == Request::Put && name.starts_with("references") {
            true => {
                here.notify_one();
                Fate::Waits(Arc::clone(&closed))
            }
            false => Fate::Done,
        }
    });
    let other = repository.clone();
    let prune =
        tokio::spawn(
            async move { other.prune(&PruneOptions::default(), &Context::silent()).await },
        );
    reached.notified().await;
    let refused = repository.trim(std::slice::from_ref(&trim), &Context::silent()).await;
    assert!(matches!(refused, Err(Error::LeaseHeld { .. })), "{refused:?}");
    assert_eq!(left(&repository).await.len(), 12);
    gate.add_permits(1000);
    prune.await.unwrap().unwrap();
    let done = repository.trim(&[trim], &Context::silent()).await.unwrap();
    assert_eq!(done[0].segments, 6);
}
