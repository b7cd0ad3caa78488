//! Rules at work.

use std::cmp::Reverse;
use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::period::Period;
use super::rule::{History, Opinion, Rule};
use super::zone::time_zone_name;
use super::{Decision, JournalNeed, KeepRules, Reason, RetentionPolicy, RuleKind, Verdict};
use crate::snapshot::SnapshotInfo;

/// The policy that [`KeepRules`] make. Its `Display` says the rules and the time zone.
///
/// ```
/// use lifeboat_core::{Count, KeepRules, RetentionPolicy, SnapshotId, SnapshotInfo, StoreRef, Verdict};
/// # fn main() -> lifeboat_core::Result<()> {
/// let day = |n: u8| {
///     let taken = format!("2026-03-{n:02}T00:00:00Z").parse().unwrap();
///     SnapshotInfo::new(SnapshotId::from_bytes([n; 32]), StoreRef::new("files", "etc"), taken)
/// };
/// let mut rules = KeepRules::default();
/// rules.last = Some(Count::Newest(2));
/// let policy = rules.policy()?;
/// assert_eq!(policy.to_string(), "the last 2 (time zone UTC)");
///
/// let all = [day(1), day(3), day(2)];
/// let decisions = policy.decide(&all, "2026-03-04T00:00:00Z".parse().unwrap());
/// assert_eq!(decisions[0].words(), "the newest; number 1 of the last 2");
/// let kept = decisions.iter().filter(|decision| decision.verdict == Verdict::Keep);
/// assert!(kept.map(|decision| decision.snapshot).eq([all[1].id, all[2].id]));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct KeepPolicy {
    rules: Vec<Rule>,
    zone: TimeZone,
}

/// Snapshots as a policy looks at them: from the future, and the rest, each the newest first.
fn divide<'a>(
    snapshots: &'a [SnapshotInfo],
    now: Timestamp,
    zone: &'a TimeZone,
) -> (Vec<&'a SnapshotInfo>, History<'a>) {
    let mut ordered: Vec<_> = snapshots.iter().collect();
    ordered.sort_by_key(|snapshot| Reverse((snapshot.taken, snapshot.id)));
    let (future, past) = ordered.into_iter().partition(|snapshot| snapshot.taken > now);
    (future, History { past, now, zone })
}

impl KeepPolicy {
    /// From rules that were checked.
    pub(super) fn new(rules: &KeepRules) -> Self {
        let periods = [
            (Period::Hour, rules.hourly),
            (Period::Day, rules.daily),
            (Period::Week, rules.weekly),
            (Period::Month, rules.monthly),
            (Period::Quarter, rules.quarterly),
            (Period::Year, rules.yearly),
        ];
        let mut all = vec![Rule::Newest, Rule::Pins];
        all.extend(rules.last.map(Rule::Last));
        all.extend(rules.within.map(Rule::Within));
        all.extend(
            periods
                .into_iter()
                .filter_map(|(period, count)| count.map(|count| Rule::Periodic(period, count))),
        );
        all.extend((!rules.tags.is_empty()).then(|| Rule::Tags(rules.tags.clone())));
        all.extend(rules.recoverable.map(Rule::Recoverable));
        Self { rules: all, zone: rules.time_zone.clone() }
    }

    /// Whether it has no rule but those that every policy has.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.iter().all(|rule| rule.describe().is_none())
    }

    /// Where its periods begin and end.
    pub fn time_zone(&self) -> &TimeZone {
        &self.zone
    }
}

impl RetentionPolicy for KeepPolicy {
    fn decide(&self, snapshots: &[SnapshotInfo], now: Timestamp) -> Vec<Decision> {
        let (future, history) = divide(snapshots, now, &self.zone);
        let mut keeps = vec![Vec::new(); history.past.len()];
        let mut passes = keeps.clone();
        for rule in &self.rules {
            for (at, opinion) in rule.judge(&history).into_iter().enumerate() {
                let (list, words) = match opinion {
                    Opinion::Keep(words) => (&mut keeps, words),
                    Opinion::Pass(words) => (&mut passes, words),
                    Opinion::None => continue,
                };
                list[at].push(Reason::new(rule.kind(), words));
            }
        }
        let words = "taken later than now: a clock is wrong, so no rule judges it";
        let from_future = future.into_iter().map(|snapshot| Decision {
            snapshot: snapshot.id,
            verdict: Verdict::Keep,
            reasons: vec![Reason::new(RuleKind::Future, words)],
        });
        let judged = history.past.iter().zip(keeps.into_iter().zip(passes));
        let judged = judged.map(|(snapshot, (keeps, passes))| {
            let (verdict, reasons) = match keeps.is_empty() {
                false => (Verdict::Keep, keeps),
                true => (Verdict::Remove, passes),
            };
            Decision { snapshot: snapshot.id, verdict, reasons }
        });
        from_future.chain(judged).collect()
    }

    fn journal_need(&self, snapshots: &[SnapshotInfo], now: Timestamp) -> Option<JournalNeed> {
        let (future, history) = divide(snapshots, now, &self.zone);
        let (rule, span) = self.rules.iter().find_map(|rule| match rule {
            Rule::Recoverable(span) => Some((rule, *span)),
            _ => None,
        })?;
        let opinions = rule.judge(&history);
        let needed = history.past.iter().zip(&opinions);
        let needed = needed.filter(|(_, opinion)| matches!(opinion, Opinion::Keep(_)));
        let needed = needed.map(|(snapshot, _)| *snapshot).chain(future);
        let base = needed.min_by_key(|snapshot| (snapshot.started, snapshot.id))?;
        Some(JournalNeed {
            base: base.id,
            from: base.started,
            position: base.position.clone(),
            recoverable: base.taken.max(history.before_latest(span)),
        })
    }
}

impl fmt::Display for KeepPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<_> = self.rules.iter().filter_map(Rule::describe).collect();
        write!(f, "{} (time zone {})", rules.join(", "), time_zone_name(&self.zone))
    }
}
