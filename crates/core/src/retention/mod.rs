//! Which snapshots stay.
//!
//! A [`RetentionPolicy`] says of each snapshot of one [`Group`] whether it stays, and why. The one
//! that people use is a [`KeepPolicy`], made from [`KeepRules`]. A snapshot stays when any rule
//! keeps it; a decision lists the reasons of all of them.
//!
//! # What holds for every set of rules
//!
//! - **The newest snapshot of a group stays.** A snapshot is whole or it is none, so this is the
//!   newest whole one.
//! - **A live pin holds its snapshot.**
//! - **What was taken after `now` stays**, takes no place in any count, and is never "the latest":
//!   a clock is wrong, and a wrong clock must not remove anything.
//! - **Deciding again removes nothing.** Every rule judges a snapshot by the snapshots that are
//!   newer than it, and by nothing else. Taking others away can only bring it nearer to the front,
//!   so what a rule kept once it keeps again. (That is why there is no rule "also the oldest, while
//!   there is room": an older snapshot would then take the place of a newer one.)
//! - **Time alone removes nothing.** Durations are counted back from the latest snapshot, not from
//!   `now`. A store that is no longer backed up keeps what it has.
//! - **An older snapshot never costs a newer one its place**, by the same argument.
//!
//! # Periods
//!
//! Hours, days, ISO weeks, months, quarters and years are those of the calendar in the policy's
//! own time zone, which is UTC unless it says otherwise. A period keeps its newest snapshot.
//! Periods without snapshots do not count: "7 daily" are the newest seven days that have one. The
//! hour that an autumn night repeats is two hours. A week belongs to the year in which its Thursday
//! lies (ISO 8601), so that the week around New Year is one.

mod group;
mod journal;
mod period;
mod policy;
mod rule;
mod rules;
mod span;
mod zone;

use std::fmt;

use jiff::Timestamp;

use crate::id::SnapshotId;
use crate::snapshot::SnapshotInfo;

pub use group::{Group, GroupBy, group};
pub use journal::JournalNeed;
pub use policy::KeepPolicy;
pub use rules::{Count, KeepRules};
pub use span::parse_span;
pub use zone::{parse_time_zone, time_zone_name};

/// What becomes of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It may go.
    Remove,
}

impl Verdict {
    /// A stable lower-case word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Remove => "remove",
        }
    }
}

/// Which rule speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RuleKind {
    /// The newest snapshot stays.
    Newest,
    /// What was taken after now stays.
    Future,
    /// A pin holds it.
    Pin,
    /// The last so many.
    Last,
    /// All within a time.
    Within,
    /// One an hour.
    Hourly,
    /// One a day.
    Daily,
    /// One an ISO week.
    Weekly,
    /// One a month.
    Monthly,
    /// One a quarter.
    Quarterly,
    /// One a year.
    Yearly,
    /// Those with certain tags.
    Tags,
    /// Those that recovery to any moment of a window needs.
    Recoverable,
    /// Somebody named it.
    Named,
}

impl RuleKind {
    /// A stable lower-case word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Future => "future",
            Self::Pin => "pin",
            Self::Last => "last",
            Self::Within => "within",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Quarterly => "quarterly",
            Self::Yearly => "yearly",
            Self::Tags => "tags",
            Self::Recoverable => "recoverable",
            Self::Named => "named",
        }
    }
}

/// Why a rule keeps a snapshot, or why it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reason {
    /// The rule.
    pub rule: RuleKind,
    /// In words for a person. Never empty.
    pub words: String,
}

impl Reason {
    /// What `rule` says.
    pub fn new(rule: RuleKind, words: impl Into<String>) -> Self {
        Self { rule, words: words.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// What a policy decided of one snapshot, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// What becomes of it.
    pub verdict: Verdict,
    /// All that speaks for the verdict: of what stays, every rule that keeps it; of what goes, why
    /// each rule does not. Never empty.
    pub reasons: Vec<Reason>,
}

impl Decision {
    /// The reasons on one line.
    pub fn words(&self) -> String {
        let words: Vec<_> = self.reasons.iter().map(|reason| reason.words.as_str()).collect();
        words.join("; ")
    }
}

/// Decides which snapshots stay.
///
/// # Contract
/// - There is exactly one decision for each snapshot given.
/// - It is idempotent: of the snapshots that it keeps, it keeps all.
/// - It depends on its arguments only, never on the clock.
/// - It removes nothing that was taken after `now`, and nothing that a live pin holds.
pub trait RetentionPolicy: Send + Sync {
    /// Decides of `snapshots` of one [`Group`], in any order, as of `now`.
    fn decide(&self, snapshots: &[SnapshotInfo], now: Timestamp) -> Vec<Decision>;

    /// From where on the store's journal must stay, so that the moments which the policy promises
    /// can be recovered from the snapshots that it keeps. `None` when it promises none, or has no
    /// snapshot to begin from: then all of the journal stays.
    fn journal_need(&self, snapshots: &[SnapshotInfo], now: Timestamp) -> Option<JournalNeed> {
        let _ = (snapshots, now);
        None
    }
}

#[cfg(test)]
mod tests;
