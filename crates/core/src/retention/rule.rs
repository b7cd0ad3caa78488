//! One rule, and what it says of each snapshot.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use super::period::Period;
use super::{Count, RuleKind};
use crate::snapshot::SnapshotInfo;

/// What a rule says of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opinion {
    /// Keeps it, and why.
    Keep(String),
    /// Does not keep it, and why.
    Pass(String),
    /// Has nothing to say.
    None,
}

impl Opinion {
    fn when(keeps: bool, keep: String, pass: String) -> Self {
        if keeps { Self::Keep(keep) } else { Self::Pass(pass) }
    }
}

/// The snapshots that are judged.
pub(super) struct History<'a> {
    /// The newest first; none of them taken after `now`.
    pub(super) past: Vec<&'a SnapshotInfo>,
    pub(super) now: Timestamp,
    pub(super) zone: &'a TimeZone,
}

impl History<'_> {
    fn local(&self, moment: Timestamp) -> Zoned {
        moment.to_zoned(self.zone.clone())
    }

    /// The beginning of the time `span` before the latest snapshot. What lies before all that the
    /// calendar knows is the beginning of the calendar.
    pub(super) fn before_latest(&self, span: Span) -> Timestamp {
        let latest = self.past.first().map_or(self.now, |latest| latest.taken);
        let begins = self.local(latest).checked_sub(span);
        begins.map_or(Timestamp::MIN, |begins| begins.timestamp())
    }
}

/// One rule.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    Newest,
    Pins,
    Last(Count),
    Within(Span),
    Periodic(Period, Count),
    Tags(Vec<Vec<String>>),
    Recoverable(Span),
}

impl Rule {
    pub(super) fn kind(&self) -> RuleKind {
        match self {
            Self::Newest => RuleKind::Newest,
            Self::Pins => RuleKind::Pin,
            Self::Last(_) => RuleKind::Last,
            Self::Within(_) => RuleKind::Within,
            Self::Periodic(period, _) => period.rule(),
            Self::Tags(_) => RuleKind::Tags,
            Self::Recoverable(_) => RuleKind::Recoverable,
        }
    }

    /// One opinion for each snapshot of the past, in its order.
    ///
    /// What is said of a snapshot must depend on those that are newer only: see the module above.
    pub(super) fn judge(&self, history: &History<'_>) -> Vec<Opinion> {
        let past = history.past.iter();
        match self {
            Self::Newest => past
                .enumerate()
                .map(|(at, _)| match at {
                    0 => Opinion::Keep("the newest".to_owned()),
                    _ => Opinion::None,
                })
                .collect(),
            Self::Pins => past.map(|snapshot| pinned(snapshot, history.now)).collect(),
            Self::Last(count) => past
                .enumerate()
                .map(|(at, _)| {
                    let rank = at + 1;
                    let keep = format!("number {rank} of the last {count}");
                    Opinion::when(count.covers(rank), keep, format!("not of the last {count}"))
                })
                .collect(),
            Self::Within(span) => {
                let begins = history.before_latest(*span);
                let keep = format!("within {span:#} of the latest");
                let pass = format!("not within {span:#} of the latest");
                past.map(|snapshot| {
                    Opinion::when(snapshot.taken >= begins, keep.clone(), pass.clone())
                })
                .collect()
            }
            Self::Periodic(period, count) => periodic(history, *period, *count),
            Self::Tags(lists) => past.map(|snapshot| tagged(snapshot, lists)).collect(),
            Self::Recoverable(span) => recoverable(history, *span),
        }
    }

    /// The rule in a few words.
    pub(super) fn describe(&self) -> Option<String> {
        Some(match self {
            Self::Newest | Self::Pins => return None,
            Self::Last(Count::All) => "all snapshots".to_owned(),
            Self::Last(count) => format!("the last {count}"),
            Self::Within(span) => format!("all within {span:#} of the latest"),
            Self::Periodic(period, Count::All) => format!("one for every {}", period.noun()),
            Self::Periodic(period, count) => format!("{count} {}", period.rule().as_str()),
            Self::Tags(lists) => {
                let lists: Vec<_> = lists.iter().map(|tags| tags.join("+")).collect();
                format!("what is tagged {}", lists.join(" or "))
            }
            Self::Recoverable(span) => format!("what recovery within {span:#} needs"),
        })
    }
}

fn pinned(snapshot: &SnapshotInfo, now: Timestamp) -> Opinion {
    let live = snapshot.pins.iter().filter(|pin| pin.is_live(now));
    let words: Vec<_> = live.map(ToString::to_string).collect();
    if words.is_empty() {
        Opinion::None
    } else {
        Opinion::Keep(format!("pinned: {}", words.join("; pinned: ")))
    }
}

fn periodic(history: &History<'_>, period: Period, count: Count) -> Vec<Opinion> {
    let noun = period.noun();
    // Not only the last one: a clock set back across midnight returns to the day before.
    let mut seen = HashMap::new();
    let judge = |snapshot: &&SnapshotInfo| {
        let name = period.of(&history.local(snapshot.taken));
        let next = seen.len() + 1;
        let rank = *seen.entry(name.clone()).or_insert(next);
        if !count.covers(rank) {
            Opinion::Pass(format!("{noun} {name} is not of the newest {count}"))
        } else if rank < next {
            Opinion::Pass(format!("{noun} {name} has a newer one"))
        } else {
            Opinion::Keep(format!("{noun} {name}, number {rank} of {count}"))
        }
    };
    history.past.iter().map(judge).collect()
}

fn tagged(snapshot: &SnapshotInfo, lists: &[Vec<String>]) -> Opinion {
    let has = |tags: &&Vec<String>| tags.iter().all(|tag| snapshot.tags.contains(tag));
    match lists.iter().find(has) {
        Some(tags) => Opinion::Keep(format!("tagged {}", tags.join(", "))),
        None => Opinion::Pass("not tagged so".to_owned()),
    }
}

fn recoverable(history: &History<'_>, span: Span) -> Vec<Opinion> {
    let begins = history.before_latest(span);
    let mut reached = false;
    let judge = |snapshot: &&SnapshotInfo| {
        if reached {
            return Opinion::Pass(format!("recovery within {span:#} does not need it"));
        }
        reached = snapshot.taken <= begins;
        Opinion::Keep(match reached {
            true => format!("recovery within {span:#} begins from it"),
            false => format!("recovery within {span:#} needs it"),
        })
    };
    history.past.iter().map(judge).collect()
}
