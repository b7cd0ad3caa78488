//! Forgetting snapshots, and what must never be forgotten.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use lifeboat_core::{
    Completion, Context, Count, Entry, ErrorKind, Failure, Header, KeepPolicy, KeepRules, PinId,
    Sink, SnapshotId, Span, StoreRef, Timestamp, Verdict,
};
use lifeboat_repository::{
    CheckOptions, Error, ForgetOptions, ForgetPlan, PinOptions, Repository, WriteOptions,
};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::Semaphore;

use crate::common::{restore, secret, small};
use crate::hooked::{Fate, Hooked, Request};

async fn hooked() -> (Arc<Hooked>, Repository) {
    let store = Hooked::new();
    let place: Arc<dyn ObjectStore> = store.clone();
    let repository = Repository::init(place, &secret(), &small()).await.unwrap();
    (store, repository)
}

fn day(number: i64) -> Timestamp {
    let first: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    first.checked_add(Span::new().hours(24 * (number - 1))).unwrap()
}

/// Takes a snapshot that shows the given day.
async fn take(repository: &Repository, name: &str, number: i64) -> SnapshotId {
    let context = Context::silent();
    let header = Header::new(StoreRef::new("memory", name));
    let writing = repository.sink(&WriteOptions::default()).write(&header, &context).await.unwrap();
    let writing: Arc<dyn lifeboat_core::Writing> = Arc::from(writing);
    let content = format!("{name} on day {number}");
    let entry = Entry::file(crate::common::path("diary"), Default::default(), content);
    writing.put(0, entry).await.unwrap();
    let receipt = writing.commit(Completion::at(day(number))).await.unwrap();
    receipt.snapshot.unwrap()
}

async fn days(repository: &Repository, name: &str, count: i64) -> Vec<SnapshotId> {
    let mut ids = Vec::new();
    for number in 1..=count {
        ids.push(take(repository, name, number).await);
    }
    ids
}

fn last(count: u32) -> KeepPolicy {
    let mut rules = KeepRules::default();
    rules.last = Some(Count::Newest(count));
    rules.policy().unwrap()
}

async fn plan(repository: &Repository, policy: &KeepPolicy) -> Result<ForgetPlan, Error> {
    let list = repository.snapshots().await.unwrap();
    ForgetPlan::of_policy(&list, policy, &ForgetOptions::default(), day(300))
}

async fn named(repository: &Repository, ids: &[SnapshotId]) -> Result<ForgetPlan, Error> {
    let list = repository.snapshots().await.unwrap();
    ForgetPlan::of_snapshots(&list, ids, &ForgetOptions::default(), day(300))
}

async fn there(repository: &Repository) -> Vec<SnapshotId> {
    let list = repository.snapshots().await.unwrap();
    assert!(list.damaged.is_empty());
    list.snapshots.into_iter().map(|info| info.id).collect()
}

async fn names(store: &Hooked, area: &str) -> Vec<String> {
    let listed: Vec<_> = store.list(Some(&Path::from(area))).try_collect().await.unwrap();
    let mut names: Vec<_> = listed.into_iter().map(|meta| meta.location.to_string()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_plan_is_carried_out_once_and_touches_nothing_but_roots() {
    let (store, repository) = hooked().await;
    let (a, b) = (days(&repository, "a", 40).await, days(&repository, "b", 2).await);
    let before = (names(&store, "packs").await, names(&store, "index").await);

    let first = plan(&repository, &last(3)).await.unwrap();
    let verdicts: Vec<_> = first.groups[0].rows().map(|(_, decision)| decision.verdict).collect();
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Keep).count(), 3);
    assert_eq!(there(&repository).await.len(), 42, "a plan changes nothing");

    let done = repository.forget(&first, &Context::silent()).await.unwrap();
    assert_eq!(done.removed, a[..37], "the oldest first");
    assert!(done.failed.is_empty() && done.spared.is_empty() && done.absent.is_empty());
    let mut left = [&a[37..], &b[..]].concat();
    let mut found = there(&repository).await;
    left.sort();
    found.sort();
    assert_eq!(found, left);
    assert_eq!((names(&store, "packs").await, names(&store, "index").await), before);
    assert!(names(&store, "leases").await.is_empty());
    for id in left {
        assert_eq!(restore(&repository, id).await.image().len(), 1);
    }

    // What was kept is kept again, and what is gone is no error.
    assert!(plan(&repository, &last(3)).await.unwrap().removals().is_empty());
    let again = repository.forget(&first, &Context::silent()).await.unwrap();
    assert_eq!(again.absent, a[..37]);
    assert!(again.removed.is_empty());
}

#[tokio::test]
async fn only_the_stores_that_were_asked_for_are_judged() {
    let (_, repository) = hooked().await;
    let (a, b) = (days(&repository, "a", 3).await, days(&repository, "b", 3).await);
    let list = repository.snapshots().await.unwrap();
    let mut options = ForgetOptions::default();
    options.stores = vec![StoreRef::new("memory", "b")];
    let plan = ForgetPlan::of_policy(&list, &last(1), &options, day(300)).unwrap();
    let done = repository.forget(&plan, &Context::silent()).await.unwrap();
    assert_eq!(done.removed, b[..2]);
    assert_eq!(there(&repository).await.len(), a.len() + 1);
}

#[tokio::test]
async fn a_pin_holds_against_policies_and_against_names() {
    let (store, repository) = hooked().await;
    let ids = days(&repository, "a", 3).await;
    let mut options = PinOptions::new("before the migration");
    options.by = "anna@db1".to_owned();
    let pin = repository.pin(&ids[0], &options).await.unwrap();

    let list = repository.snapshots().await.unwrap();
    assert_eq!(list.snapshots[0].pins, std::slice::from_ref(&pin));
    assert_eq!((pin.by.as_str(), pin.until), ("anna@db1", None));
    let removals = plan(&repository, &last(1)).await.unwrap();
    let removals: Vec<_> = removals.removals().iter().map(|info| info.id).collect();
    assert_eq!(removals, ids[1..2]);

    let error = named(&repository, &ids[..2]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let line = lifeboat_core::Error::from(error).one_line();
    assert!(line.contains("before the migration"), "{line}");
    assert!(line.contains(&format!("lifeboat unpin {}", pin.id)), "{line}");

    assert!(repository.unpin(&pin.id).await.unwrap());
    assert!(!repository.unpin(&pin.id).await.unwrap(), "it was released already");
    assert!(names(&store, "pins").await.is_empty());
    let plan = named(&repository, &ids[..2]).await.unwrap();
    let done = repository.forget(&plan, &Context::silent()).await.unwrap();
    assert_eq!(done.removed, ids[..2]);
    let error = repository.pin(&ids[0], &options).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchSnapshot { .. }));
}

#[tokio::test]
async fn a_pin_runs_out_by_the_clock_of_the_store_and_no_other() {
    let (store, repository) = hooked().await;
    let ids = days(&repository, "a", 2).await;
    let mut options = PinOptions::new("for an hour");
    options.until = Some(Timestamp::now() + Duration::from_secs(3600));
    repository.pin(&ids[0], &options).await.unwrap();
    options.reason = "for a moment".to_owned();
    options.until = Some(Timestamp::now() + Duration::from_mins(2));
    repository.pin(&ids[0], &options).await.unwrap();

    // The plan is told that it is a year later, and takes the pins for out of date.
    let list = repository.snapshots().await.unwrap();
    let later = Timestamp::now() + Duration::from_secs(365 * 86_400);
    let plan = ForgetPlan::of_policy(&list, &last(1), &ForgetOptions::default(), later).unwrap();
    assert_eq!(plan.removals().len(), 1);
    let done = repository.forget(&plan, &Context::silent()).await.unwrap();
    assert_eq!(done.spared.len(), 1);
    assert_eq!(there(&repository).await, ids);

    let long = list.snapshots[0].pins.iter().find(|pin| pin.reason == "for an hour").unwrap();
    repository.unpin(&long.id).await.unwrap();
    // The other one still holds; and by the store's clock it runs out.
    let done = repository.forget(&plan, &Context::silent()).await.unwrap();
    assert_eq!(done.spared.len(), 1);
    store.put_ahead(Duration::from_mins(3));
    let done = repository.forget(&plan, &Context::silent()).await.unwrap();
    assert_eq!(done.removed, ids[..1]);
}

#[tokio::test]
async fn a_senseless_pin_is_refused() {
    let (store, repository) = hooked().await;
    let ids = days(&repository, "a", 1).await;
    let mut over = PinOptions::new("over");
    over.until = Some(day(1));
    for options in [PinOptions::new(" "), PinOptions::new("x".repeat(1025)), over] {
        let error = repository.pin(&ids[0], &options).await.unwrap_err();
        assert!(matches!(error, Error::BadPin { .. }), "{error}");
    }
    assert!(names(&store, "pins").await.is_empty());
}

#[tokio::test]
async fn nothing_is_forgotten_while_a_pin_cannot_be_read() {
    let (store, repository) = hooked().await;
    let ids = days(&repository, "a", 3).await;
    let sound = plan(&repository, &last(1)).await.unwrap();
    let pin = repository.pin(&ids[2], &PinOptions::new("hold")).await.unwrap();
    let name = format!("pins/{}", pin.id);
    store.put(&Path::from(name.as_str()), "damage".into()).await.unwrap();

    let damaged = |error: &Error| matches!(error, Error::DamagedPin { .. });
    assert!(damaged(&plan(&repository, &last(1)).await.unwrap_err()));
    assert!(damaged(&named(&repository, &ids[..1]).await.unwrap_err()));
    let error = repository.forget(&sound, &Context::silent()).await.unwrap_err();
    assert!(damaged(&error));
    assert_eq!(there(&repository).await, ids, "the snapshots are read all the same");

    let report = repository.check(&CheckOptions::default(), &Context::silent()).await.unwrap();
    let damage: Vec<_> = report.damage.iter().map(|damage| damage.object.as_str()).collect();
    assert_eq!(damage, [name.as_str()]);

    // It can be released by its name.
    let pins = repository.pins().await.unwrap();
    assert_eq!(pins.find(&pin.id.short()).unwrap(), pin.id);
    assert!(matches!(pins.find("zz"), Err(Error::NoSuchPin { .. })));
    assert!(repository.unpin(&pin.id).await.unwrap());
    let done = repository.forget(&sound, &Context::silent()).await.unwrap();
    assert_eq!(done.removed, ids[..2]);
}

/// Runs `during` while a forget stands still before its first deletion.
async fn during_the_deletion(
    store: &Arc<Hooked>,
    repository: &Repository,
    plan: ForgetPlan,
    during: impl AsyncFnOnce(),
) -> Result<lifeboat_repository::Forgotten, Error> {
    let (gate, reached) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (shut, tell) = (Arc::clone(&gate), Arc::clone(&reached));
    store.hook(move |request, name| match request {
        Request::Delete if name.starts_with("snapshots/") => {
            tell.add_permits(1);
            Fate::Waits(Arc::clone(&shut))
        }
        _ => Fate::Done,
    });
    let forgetting = tokio::spawn({
        let repository = repository.clone();
        async move { repository.forget(&plan, &Context::silent()).await }
    });
    reached.acquire().await.unwrap().forget();
    during().await;
    gate.add_permits(100);
    forgetting.await.unwrap()
}

#[tokio::test]
async fn what_is_pinned_while_it_is_forgotten_comes_back() {
    let (store, repository) = hooked().await;
    let ids = days(&repository, "a", 3).await;
    let plan = plan(&repository, &last(1)).await.unwrap();
    let done = during_the_deletion(&store, &repository, plan, async || {
        repository.pin(&ids[0], &PinOptions::new("hold")).await.unwrap();
    });
    let done = done.await.unwrap();
    assert_eq!(done.removed, ids[1..2]);
    assert_eq!(done.spared.len(), 1);
    assert!(done.spared[0].0 == ids[0] && done.spared[0].1.contains("pinned"));
    assert_eq!(there(&repository).await, [ids[0], ids[2]]);
    assert_eq!(restore(&repository, ids[0]).await.image().len(), 1);
}

#[tokio::test]
async fn a_pin_that_comes_too_late_says_so() {
    let (store, repository) = hooked().await;
    let ids = days(&repository, "a", 2).await;
    let (gate, reached) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (shut, tell) = (Arc::clone(&gate), Arc::clone(&reached));
    store.hook(move |request, name| match request {
        Request::Put if name.starts_with("pins/") => {
            tell.add_permits(1);
            Fate::Waits(Arc::clone(&shut))
        }
        _ => Fate::Done,
    });
    let pinning = tokio::spawn({
        let (repository, id) = (repository.clone(), ids[0]);
        async move { repository.pin(&id, &PinOptions::new("hold")).await }
    });
    reached.acquire().await.unwrap().forget();
    let plan = plan(&repository, &last(1)).await.unwrap();
    let done = repository.forget(&plan, &Context::silent()).await.unwrap();
    assert_eq!(done.removed, ids[..1]);
    gate.add_permits(100);
    let error = pinning.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::NoSuchSnapshot { .. }), "{error}");
    assert!(names(&store, "pins").await.is_empty(), "it holds nothing, so it is not left behind");
}

#[tokio::test]
async fn when_nobody_can_look_again_all_of_it_stays() {
    let (store, repository) = hooked().await;
    let ids = days(&repository, "a", 5).await;
    let plan = plan(&repository, &last(1)).await.unwrap();
    let forgetting = during_the_deletion(&store, &repository, plan, async || {
        repository.pin(&ids[1], &PinOptions::new("hold")).await.unwrap();
        store.hook(|request, name| match request {
            Request::Get if name.starts_with("pins/") => Fate::Fails,
            _ => Fate::Done,
        });
    });
    forgetting.await.unwrap_err();
    store.hook(|_, _| Fate::Done);
    assert_eq!(there(&repository).await, ids);
}

#[tokio::test]
async fn the_last_snapshot_of_a_store_goes_only_when_its_name_was_said() {
    let (_, repository) = hooked().await;
    let (a, b) = (days(&repository, "a", 2).await, days(&repository, "b", 1).await);
    let error = named(&repository, &a).await.unwrap_err();
    assert!(matches!(&error, Error::LastSnapshot { store } if store.name() == "a"));
    let line = lifeboat_core::Error::from(error).one_line();
    assert!(line.contains("--allow-remove-last memory/a"), "{line}");

    let list = repository.snapshots().await.unwrap();
    let mut options = ForgetOptions::default();
    options.may_lose_all = vec![StoreRef::new("memory", "b")];
    let error = ForgetPlan::of_snapshots(&list, &a, &options, day(300)).unwrap_err();
    assert!(matches!(error, Error::LastSnapshot { .. }), "another one was named");
    options.may_lose_all.push(StoreRef::new("memory", "a"));
    let plan = ForgetPlan::of_snapshots(&list, &a, &options, day(300)).unwrap();
    let done = repository.forget(&plan, &Context::silent()).await.unwrap();
    assert_eq!(done.removed, a);
    assert_eq!(there(&repository).await, b);
}

#[tokio::test]
async fn two_who_forget_at_once_do_not_leave_a_store_empty() {
    let (_, repository) = hooked().await;
    let ids = days(&repository, "a", 2).await;
    let plans = [
        named(&repository, &ids[..1]).await.unwrap(),
        named(&repository, &ids[1..]).await.unwrap(),
    ];
    let first = repository.forget(&plans[0], &Context::silent()).await.unwrap();
    assert_eq!(first.removed, ids[..1]);
    let second = repository.forget(&plans[1], &Context::silent()).await.unwrap();
    assert!(second.removed.is_empty());
    assert!(second.spared[0].1.contains("last one of its store"), "{:?}", second.spared);
    assert_eq!(there(&repository).await, ids[1..]);
}

#[tokio::test]
async fn what_the_store_does_not_delete_is_told_one_by_one() {
    let (store, repository) = hooked().await;
    let ids = days(&repository, "a", 5).await;
    let plan = plan(&repository, &last(1)).await.unwrap();
    let name = |at: usize| format!("snapshots/{}", ids[at]);
    let (refused, pretended, lost) = (name(0), name(1), name(2));
    store.hook(move |request, name| match request {
        Request::Delete if name == refused => Fate::Fails,
        Request::Delete if name == pretended => Fate::Pretended,
        Request::Delete if name == lost => Fate::FailsWhenDone,
        _ => Fate::Done,
    });
    let done = repository.forget(&plan, &Context::silent()).await.unwrap();
    assert_eq!(done.removed, ids[2..4], "what is gone is gone, whatever the answer was");
    let failed: Vec<_> = done.failed.iter().map(|(id, _)| *id).collect();
    assert_eq!(failed, [ids[1], ids[0]]);
    assert_eq!(there(&repository).await, [ids[0], ids[1], ids[4]]);
}

#[tokio::test]
async fn a_clock_that_is_off_forgets_nothing() {
    let (store, repository) = hooked().await;
    let ids = days(&repository, "a", 3).await;
    let plan = plan(&repository, &last(1)).await.unwrap();
    store.put_ahead(Duration::from_secs(400));
    let error = repository.forget(&plan, &Context::silent()).await.unwrap_err();
    assert!(matches!(error, Error::ClockSkew { .. }), "{error}");
    assert_eq!(there(&repository).await, ids);
    store.put_ahead(Duration::from_secs(200));
    let done = repository.forget(&plan, &Context::silent()).await.unwrap();
    assert_eq!(done.removed, ids[..2]);
}

#[tokio::test]
async fn an_unknown_snapshot_is_no_plan() {
    let (_, repository) = hooked().await;
    days(&repository, "a", 1).await;
    let unknown = SnapshotId::from_bytes([9; 32]);
    let error = named(&repository, &[unknown]).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchSnapshot { .. }));
    assert!(!repository.unpin(&PinId::from_bytes([9; 32])).await.unwrap());
}
