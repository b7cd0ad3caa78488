//! Policies against expectations that were worked out by hand, and against what must always hold.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Span, ToSpan};
use proptest::prelude::*;

use super::*;
use crate::id::PinId;
use crate::pin::Pin;
use crate::store::StoreRef;

fn at(taken: &str) -> Timestamp {
    taken.parse().unwrap()
}

/// Snapshots taken at these moments, numbered as they are given.
fn taken(moments: &[&str]) -> Vec<SnapshotInfo> {
    let info = |(number, moment): (usize, &&str)| {
        let id = SnapshotId::from_bytes([u8::try_from(number).unwrap(); 32]);
        SnapshotInfo::new(id, StoreRef::new("files", "etc"), at(moment))
    };
    moments.iter().enumerate().map(info).collect()
}

fn rules(set: impl FnOnce(&mut KeepRules)) -> KeepPolicy {
    let mut rules = KeepRules::default();
    set(&mut rules);
    rules.policy().unwrap()
}

fn kept(policy: &KeepPolicy, snapshots: &[SnapshotInfo], now: Timestamp) -> Vec<SnapshotInfo> {
    let decisions = policy.decide(snapshots, now);
    let verdicts: BTreeMap<_, _> =
        decisions.iter().map(|decision| (decision.snapshot, decision.verdict)).collect();
    let stays = |info: &&SnapshotInfo| verdicts[&info.id] == Verdict::Keep;
    snapshots.iter().filter(stays).cloned().collect()
}

/// Fails unless of `moments` just those stay that are marked with a star.
#[track_caller]
fn expect(what: &str, policy: &KeepPolicy, moments: &[&str]) {
    let bare: Vec<_> = moments.iter().map(|moment| moment.trim_end_matches('*')).collect();
    let kept: Vec<_> = kept(policy, &taken(&bare), at("2100-01-01T00:00:00Z"))
        .iter()
        .map(|info| bare[usize::from(info.id.as_bytes()[0])])
        .collect();
    let expected: Vec<_> = moments.iter().filter_map(|moment| moment.strip_suffix('*')).collect();
    assert_eq!(kept, expected, "{what}");
}

const NEWEST_THREE: Option<Count> = Some(Count::Newest(3));

#[test]
fn each_period_keeps_its_newest() {
    expect(
        "hourly",
        &rules(|rules| rules.hourly = NEWEST_THREE),
        &[
            "2026-03-01T07:59:00Z",
            "2026-03-01T08:00:00Z",
            "2026-03-01T08:59:59Z*",
            // Nothing at nine and at ten: hours without a snapshot do not count.
            "2026-03-01T11:10:00Z",
            "2026-03-01T11:20:00Z*",
            "2026-03-01T12:00:00Z*",
        ],
    );
    expect(
        "daily",
        &rules(|rules| rules.daily = NEWEST_THREE),
        &[
            "2026-02-27T23:00:00Z",
            "2026-02-28T01:00:00Z",
            "2026-02-28T23:59:59Z*",
            "2026-03-01T00:00:00Z*",
            "2026-03-09T00:00:00Z",
            "2026-03-09T05:00:00Z*",
        ],
    );
    expect(
        "weekly, around New Year: 28 December to 3 January is one week, W53 of 2026",
        &rules(|rules| rules.weekly = NEWEST_THREE),
        &[
            "2026-12-20T12:00:00Z",
            "2026-12-21T12:00:00Z",
            "2026-12-27T12:00:00Z*",
            "2026-12-28T12:00:00Z",
            "2026-12-31T12:00:00Z",
            "2027-01-01T12:00:00Z",
            "2027-01-03T23:00:00Z*",
            "2027-01-04T00:00:00Z*",
        ],
    );
    expect(
        "monthly, with the ends of months and a leap day",
        &rules(|rules| rules.monthly = NEWEST_THREE),
        &[
            "2027-12-31T23:59:59Z",
            "2028-01-31T12:00:00Z*",
            "2028-02-28T12:00:00Z",
            "2028-02-29T12:00:00Z*",
            "2028-03-01T00:00:00Z*",
        ],
    );
    expect(
        "quarterly",
        &rules(|rules| rules.quarterly = NEWEST_THREE),
        &[
            "2026-03-31T23:59:59Z",
            "2026-04-01T00:00:00Z",
            "2026-06-30T23:59:59Z*",
            "2026-12-31T23:59:59Z*",
            "2027-01-01T00:00:00Z",
            "2027-03-31T00:00:00Z*",
        ],
    );
    expect(
        "yearly",
        &rules(|rules| rules.yearly = Some(Count::All)),
        &[
            "2019-12-31T23:59:59Z*",
            "2020-01-01T00:00:00Z",
            "2020-02-29T00:00:00Z*",
            "2023-01-01T00:00:00Z*",
        ],
    );
}

#[test]
fn periods_are_those_of_the_time_zone() {
    // Berlin is two hours ahead of UTC in summer, one in winter.
    let berlin = parse_time_zone("Europe/Berlin").unwrap();
    expect(
        "a day in Berlin ends at 22:00 or 23:00 UTC",
        &rules(|rules| {
            rules.daily = NEWEST_THREE;
            rules.time_zone = berlin.clone();
        }),
        &[
            "2026-03-27T22:30:00Z",
            "2026-03-28T22:59:59Z*", // still Saturday the 28th
            "2026-03-28T23:00:00Z",  // Sunday the 29th, on which the clocks go forward
            "2026-03-29T21:59:59Z*", // its last second
            "2026-03-29T22:00:00Z",
            "2026-03-30T20:00:00Z*",
        ],
    );
    expect(
        "the hour that comes twice in autumn is two hours",
        &rules(|rules| {
            rules.hourly = Some(Count::All);
            rules.time_zone = berlin.clone();
        }),
        &[
            "2026-10-25T00:10:00Z", // 02:10, summer time
            "2026-10-25T00:50:00Z*",
            "2026-10-25T01:10:00Z", // 02:10 once more
            "2026-10-25T01:50:00Z*",
            "2026-10-25T02:10:00Z*",
        ],
    );
    expect(
        "and in UTC nothing is special about it",
        &rules(|rules| rules.daily = NEWEST_THREE),
        &["2026-10-24T23:00:00Z*", "2026-10-25T00:10:00Z", "2026-10-25T22:10:00Z*"],
    );
    expect(
        "a day before noon after the clocks went forward is 23 hours long",
        &rules(|rules| {
            rules.within = Some(1.day());
            rules.time_zone = berlin;
        }),
        &["2026-03-28T10:59:59Z", "2026-03-28T11:00:00Z*", "2026-03-29T10:00:00Z*"],
    );
    // In St. John's the clocks went back at one minute past midnight: 31 October began, and then
    // the 30th had another hour.
    expect(
        "a day that is left and entered again is one day",
        &rules(|rules| {
            rules.daily = NEWEST_THREE;
            rules.time_zone = parse_time_zone("America/St_Johns").unwrap();
        }),
        &[
            "2009-10-31T12:00:00Z",  // 31 October, 09:30
            "2009-11-01T02:00:00Z",  // 23:30
            "2009-11-01T02:30:30Z",  // 1 November, 00:00:30
            "2009-11-01T02:31:00Z*", // 31 October again, 23:01
            "2009-11-01T04:00:00Z*", // 1 November, 00:30
        ],
    );
}

#[test]
fn a_time_is_measured_from_the_latest_snapshot() {
    expect(
        "a week, to the second",
        &rules(|rules| rules.within = Some(7.days())),
        &["2026-02-22T11:59:59Z", "2026-02-22T12:00:00Z*", "2026-03-01T12:00:00Z*"],
    );
    expect(
        "a month before 31 March is 28 February",
        &rules(|rules| rules.within = Some(1.month())),
        &["2026-02-27T12:00:00Z", "2026-02-28T12:00:00Z*", "2026-03-31T12:00:00Z*"],
    );
    expect(
        "a year before 29 February is 28 February",
        &rules(|rules| rules.within = Some(1.year())),
        &["2027-02-28T11:59:59Z", "2027-02-28T12:00:00Z*", "2028-02-29T12:00:00Z*"],
    );
    expect(
        "more than the calendar has keeps all",
        &rules(|rules| rules.within = Some(19_000.years())),
        &["1900-01-01T00:00:00Z*", "2026-03-31T12:00:00Z*"],
    );
}

#[test]
fn rules_add_up_and_all_of_them_give_their_reasons() {
    let policy = rules(|rules| {
        rules.last = Some(Count::Newest(1));
        rules.daily = Some(Count::Newest(2));
        rules.weekly = Some(Count::Newest(2));
    });
    let shown = "the last 1, 2 daily, 2 weekly (time zone UTC)";
    assert_eq!(policy.to_string(), shown);
    // 1 and 2 March 2026 are a Sunday and a Monday.
    let all = taken(&[
        "2026-02-28T10:00:00Z",
        "2026-03-01T10:00:00Z",
        "2026-03-02T10:00:00Z",
        "2026-03-03T10:00:00Z",
    ]);
    let decisions = policy.decide(&all, at("2026-03-03T11:00:00Z"));
    let told: Vec<_> =
        decisions.iter().map(|decision| (decision.verdict, decision.words())).collect();
    let expected = [
        (
            Verdict::Keep,
            "the newest; number 1 of the last 1; day 2026-03-03, number 1 of 2; \
             week 2026-W10, number 1 of 2",
        ),
        (Verdict::Keep, "day 2026-03-02, number 2 of 2"),
        (Verdict::Keep, "week 2026-W09, number 2 of 2"),
        (
            Verdict::Remove,
            "not of the last 1; day 2026-02-28 is not of the newest 2; \
             week 2026-W09 has a newer one",
        ),
    ];
    let expected: Vec<_> =
        expected.map(|(verdict, words)| (verdict, words.to_owned())).into_iter().collect();
    assert_eq!(told, expected);
}

#[test]
fn tags_are_joined_by_and_within_a_list_and_by_or_between_lists() {
    let mut all = taken(&[
        "2026-03-01T00:00:00Z",
        "2026-03-02T00:00:00Z",
        "2026-03-03T00:00:00Z",
        "2026-03-04T00:00:00Z",
    ]);
    for (info, tags) in all.iter_mut().zip([&["a", "b"][..], &["a"], &["c"], &[]]) {
        info.tags = tags.iter().map(ToString::to_string).collect();
    }
    let policy = rules(|rules| {
        rules.tags = vec![vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]];
    });
    let kept = kept(&policy, &all, at("2026-03-05T00:00:00Z"));
    assert_eq!(kept, [all[0].clone(), all[2].clone(), all[3].clone()], "the last is the newest");
}

#[test]
fn what_was_taken_after_now_stays_and_takes_no_place() {
    let mut all = taken(&[
        "2026-03-01T00:00:00Z",
        "2026-03-02T00:00:00Z",
        "2031-01-01T00:00:00Z",
        "2032-01-01T00:00:00Z",
    ]);
    let policy = rules(|rules| {
        rules.last = Some(Count::Newest(2));
        rules.within = Some(1.day());
    });
    let now = at("2026-03-02T00:00:00Z");
    assert_eq!(kept(&policy, &all, now).len(), 4, "none of the two places is taken by them");
    let decisions = policy.decide(&all, now);
    assert_eq!(decisions[0].reasons[0].rule, RuleKind::Future);
    // When only such are there, nothing else can be said either.
    all.drain(..2);
    assert_eq!(kept(&policy, &all, now).len(), 2);
}

#[test]
fn a_pin_holds_until_it_runs_out() {
    let mut all = taken(&["2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"]);
    let mut pin = Pin::new(PinId::from_bytes([7; 32]), all[0].id, "legal hold");
    pin.until = Some(at("2026-04-01T00:00:00Z"));
    all[0].pins.push(pin);
    let policy = rules(|rules| rules.last = Some(Count::Newest(1)));
    let decisions = policy.decide(&all, at("2026-03-31T23:59:59Z"));
    assert_eq!(decisions[1].verdict, Verdict::Keep);
    assert_eq!(decisions[1].words(), "pinned: legal hold, until 2026-04-01T00:00:00Z");
    assert_eq!(kept(&policy, &all, at("2026-04-01T00:00:00Z")).len(), 1);
}

#[test]
fn a_window_keeps_the_base_from_which_it_begins_and_the_journal_from_there() {
    let policy = rules(|rules| rules.recoverable = Some(14.days()));
    let moments = [
        "2026-02-01T00:00:00Z",
        "2026-02-08T00:00:00Z*", // the newest at or before 15 February 12:00
        "2026-02-16T00:00:00Z*",
        "2026-03-01T12:00:00Z*",
    ];
    expect("14 days", &policy, &moments);
    expect(
        "a base at the very beginning of the window is enough",
        &policy,
        &["2026-02-15T11:59:59Z", "2026-02-15T12:00:00Z*", "2026-03-01T12:00:00Z*"],
    );

    let mut all = taken(&moments.map(|moment| moment.trim_end_matches('*')));
    all[1].started = at("2026-02-07T23:00:00Z");
    all[1].position = "0/3000060".to_owned();
    let need = policy.journal_need(&all, at("2026-03-02T00:00:00Z")).unwrap();
    assert_eq!(need.base, all[1].id);
    assert_eq!(need.from, at("2026-02-07T23:00:00Z"));
    assert_eq!(need.position, "0/3000060");
    assert_eq!(need.recoverable, at("2026-02-15T12:00:00Z"));

    // A young store has no base that is as old as the window: it promises what it has.
    let need = policy.journal_need(&all[2..], at("2026-03-02T00:00:00Z")).unwrap();
    assert_eq!((need.base, need.recoverable), (all[2].id, all[2].taken));
    // With a wrong clock, too.
    let need = policy.journal_need(&all[2..], at("2026-02-20T00:00:00Z")).unwrap();
    assert_eq!(need.base, all[2].id);
    let need = policy.journal_need(&all[2..], at("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!((need.base, need.recoverable), (all[2].id, all[2].taken));
    // Nobody may conclude from silence that the journal can go.
    assert_eq!(policy.journal_need(&[], at("2026-03-02T00:00:00Z")), None);
    let others = rules(|rules| rules.last = Some(Count::All));
    assert_eq!(others.journal_need(&all, at("2026-03-02T00:00:00Z")), None);
}

const DAYS: i64 = 86_400;

/// A history of up to forty snapshots over about two years, some at the same moment, some tagged,
/// some pinned, some after `now`.
fn history() -> impl Strategy<Value = Vec<SnapshotInfo>> {
    let seconds = prop_oneof![0..700 * DAYS, (0..700_i64).prop_map(|day| day * DAYS), 0..3 * DAYS];
    let one = (seconds, any::<[bool; 3]>(), prop::option::weighted(0.2, -50 * DAYS..50 * DAYS));
    prop::collection::vec(one, 0..40).prop_map(|all| {
        let info = |(number, (seconds, tags, pin)): (usize, (i64, [bool; 3], Option<i64>))| {
            let id = SnapshotId::from_bytes([u8::try_from(number).unwrap(); 32]);
            let taken = now().checked_sub(Span::new().seconds(seconds - 20 * DAYS)).unwrap();
            let mut info = SnapshotInfo::new(id, StoreRef::new("files", "etc"), taken);
            let tagged = ["a", "b", "c"].into_iter().zip(tags).filter(|(_, has)| *has);
            info.tags = tagged.map(|(tag, _)| tag.to_owned()).collect();
            if let Some(left) = pin {
                let mut pin = Pin::new(PinId::from_bytes([0; 32]), id, "hold");
                pin.until = Some(now().checked_add(Span::new().seconds(left)).unwrap());
                info.pins.push(pin);
            }
            info
        };
        all.into_iter().enumerate().map(info).collect()
    })
}

fn now() -> Timestamp {
    at("2027-01-03T12:00:00Z")
}

fn policy() -> impl Strategy<Value = KeepPolicy> {
    let count = || {
        let count = prop_oneof![4 => (1..6_u32).prop_map(Count::Newest), 1 => Just(Count::All)];
        prop::option::weighted(0.3, count)
    };
    let span = || {
        let span = prop_oneof![
            (1..400_i64).prop_map(|days| Span::new().days(days)),
            (1..20_i64).prop_map(|months| Span::new().months(months)),
            (1..90_i64).prop_map(|hours| Span::new().hours(hours)),
        ];
        prop::option::weighted(0.3, span)
    };
    let tag = prop::sample::select(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]);
    let tags = prop::collection::vec(prop::collection::vec(tag, 1..3), 0..2);
    let zone = prop::sample::select(vec!["UTC", "Europe/Berlin", "America/St_Johns", "+12:45"]);
    let counts = (count(), count(), count(), count(), count(), count(), count());
    (counts, span(), span(), tags, zone).prop_map(|(counts, within, recoverable, tags, zone)| {
        let (last, hourly, daily, weekly, monthly, quarterly, yearly) = counts;
        let time_zone = parse_time_zone(zone).unwrap();
        let mut rules = KeepRules {
            last,
            within,
            hourly,
            daily,
            weekly,
            monthly,
            quarterly,
            yearly,
            tags,
            recoverable,
            time_zone,
        };
        rules.policy().unwrap_or_else(|_| {
            rules.last = Some(Count::Newest(1));
            rules.policy().unwrap()
        })
    })
}

fn ids(snapshots: &[SnapshotInfo]) -> BTreeSet<SnapshotId> {
    snapshots.iter().map(|info| info.id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_snapshot_is_decided_once_and_with_reasons(all in history(), policy in policy()) {
        let decisions = policy.decide(&all, now());
        prop_assert_eq!(decisions.len(), all.len());
        let decided: BTreeSet<_> = decisions.iter().map(|decision| decision.snapshot).collect();
        prop_assert_eq!(decided, ids(&all));
        for decision in &decisions {
            prop_assert!(!decision.words().is_empty());
        }
    }

    #[test]
    fn deciding_again_removes_nothing_also_after_time_has_passed(
        all in history(),
        policy in policy(),
    ) {
        let once = kept(&policy, &all, now());
        prop_assert_eq!(&kept(&policy, &once, now()), &once);
        // As long as nothing from the future comes to pass, time removes nothing.
        let future = once.iter().map(|info| info.taken).filter(|taken| *taken > now()).min();
        let later = future.unwrap_or(at("2090-01-01T00:00:00Z"));
        let later = later.checked_sub(Span::new().seconds(1)).unwrap().max(now());
        let mut unpinned = once.clone();
        unpinned.retain(|info| info.pins.is_empty());
        let unpinned = kept(&policy, &unpinned, now());
        prop_assert_eq!(&kept(&policy, &unpinned, later), &unpinned);
    }

    #[test]
    fn the_newest_the_pinned_and_the_future_stay(all in history(), policy in policy()) {
        let stays = ids(&kept(&policy, &all, now()));
        let past = all.iter().filter(|info| info.taken <= now());
        if let Some(newest) = past.max_by_key(|info| (info.taken, info.id)) {
            prop_assert!(stays.contains(&newest.id));
        }
        for info in &all {
            let held = info.pins.iter().any(|pin| pin.is_live(now()));
            prop_assert!(stays.contains(&info.id) || !(held || info.taken > now()));
        }
    }

    #[test]
    fn an_older_snapshot_changes_nothing_for_the_newer(
        all in history(),
        policy in policy(),
        which in any::<prop::sample::Index>(),
    ) {
        prop_assume!(!all.is_empty());
        let added = which.get(&all).clone();
        let without: Vec<_> = all.iter().filter(|info| info.id != added.id).cloned().collect();
        let newer = |info: &SnapshotInfo| (info.taken, info.id) > (added.taken, added.id);
        let verdicts = |snapshots: &[SnapshotInfo]| -> Vec<_> {
            let newer: BTreeSet<_> =
                snapshots.iter().filter(|info| newer(info)).map(|info| info.id).collect();
            let decisions = policy.decide(snapshots, now());
            decisions.into_iter().filter(|decision| newer.contains(&decision.snapshot)).collect()
        };
        prop_assert_eq!(verdicts(&without), verdicts(&all));
    }

    #[test]
    fn every_moment_of_the_window_has_a_base_that_the_journal_reaches(
        all in history(),
        days in 1..300_i64,
    ) {
        let mut all = all;
        all.iter_mut().for_each(|info| info.pins.clear());
        let past: Vec<_> = all.iter().filter(|info| info.taken <= now()).collect();
        let Some(latest) = past.iter().map(|info| info.taken).max() else { return Ok(()) };
        let window = rules(|rules| rules.recoverable = Some(Span::new().days(days)));
        let stays = kept(&window, &all, now());
        let need = window.journal_need(&all, now()).unwrap();
        // What is needed does not depend on whether the rest was removed already.
        prop_assert_eq!(Some(need.clone()), window.journal_need(&stays, now()));
        let begins = latest.checked_sub(Span::new().hours(24 * days)).unwrap();
        for moment in past.iter().map(|info| info.taken).chain([begins]) {
            let base = |from: &[SnapshotInfo]| {
                from.iter().map(|info| info.taken).filter(|taken| *taken <= moment).max()
            };
            if moment >= begins && base(&all).is_some() {
                prop_assert_eq!(base(&stays), base(&all));
                prop_assert!(base(&stays) >= Some(need.from));
            }
        }
    }
}
