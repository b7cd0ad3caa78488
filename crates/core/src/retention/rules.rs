//! What a policy is told to keep.

use std::fmt;
use std::str::FromStr;

use jiff::Span;
use jiff::tz::TimeZone;

use super::policy::KeepPolicy;
use crate::error::{Error, ErrorKind, Result};

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Count {
    /// The newest so many; at least 1.
    Newest(u32),
    /// All of them.
    All,
}

impl Count {
    /// Whether the one of this rank, from 1 on, is among them.
    pub(super) fn covers(self, rank: usize) -> bool {
        match self {
            Self::Newest(count) => rank <= count as usize,
            Self::All => true,
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest(count) => count.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

impl FromStr for Count {
    type Err = Error;

    /// A number from 1 on, or `all`.
    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(0) => Err(none_at_all()),
            Ok(count) => Ok(Self::Newest(count)),
            Err(_) if text == "all" => Ok(Self::All),
            Err(_) => {
                let message = format!("\"{text}\" is neither a number from 1 on nor \"all\"");
                Err(Error::new(ErrorKind::InvalidInput, message))
            }
        }
    }
}

fn none_at_all() -> Error {
    Error::new(ErrorKind::InvalidInput, "a rule that keeps 0 snapshots is none")
        .with_hint("leave the rule out")
}

/// What a policy is told to keep. A snapshot stays when any of these keeps it.
///
/// Nothing is set by default; [`KeepRules::policy`] refuses rules of which none is set.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeepRules {
    /// The last snapshots.
    pub last: Option<Count>,
    /// All that were taken within this time before the latest one, which the calendar of the time
    /// zone measures: a month before 31 March is 28 February. Positive.
    pub within: Option<Span>,
    /// The newest of each of the newest hours that have a snapshot.
    pub hourly: Option<Count>,
    /// As `hourly`, for days.
    pub daily: Option<Count>,
    /// As `hourly`, for ISO weeks.
    pub weekly: Option<Count>,
    /// As `hourly`, for months.
    pub monthly: Option<Count>,
    /// As `hourly`, for quarters of a year.
    pub quarterly: Option<Count>,
    /// As `hourly`, for years.
    pub yearly: Option<Count>,
    /// All that have every tag of one of these lists.
    pub tags: Vec<Vec<String>>,
    /// For a store with a journal: what is needed so that every moment from this time before the
    /// latest snapshot on can be recovered. Those are the snapshots within, and the newest one at
    /// or before the window's beginning. Positive.
    pub recoverable: Option<Span>,
    /// Where the periods begin and end.
    pub time_zone: TimeZone,
}

impl Default for KeepRules {
    fn default() -> Self {
        Self {
            last: None,
            within: None,
            hourly: None,
            daily: None,
            weekly: None,
            monthly: None,
            quarterly: None,
            yearly: None,
            tags: Vec::new(),
            recoverable: None,
            time_zone: TimeZone::UTC,
        }
    }
}

impl KeepRules {
    /// Makes a policy of them.
    ///
    /// # Errors
    /// When no rule is set, a count is 0, a time is not positive, or a list of tags is empty.
    pub fn policy(&self) -> Result<KeepPolicy> {
        let counts = [
            self.last,
            self.hourly,
            self.daily,
            self.weekly,
            self.monthly,
            self.quarterly,
            self.yearly,
        ];
        if counts.contains(&Some(Count::Newest(0))) {
            return Err(none_at_all());
        }
        for span in [self.within, self.recoverable].into_iter().flatten() {
            if !span.is_positive() {
                let message = format!("\"{span:#}\" is no time to keep snapshots for");
                return Err(Error::new(ErrorKind::InvalidInput, message)
                    .with_hint("write a positive time, such as 14d, 3mo or 1y"));
            }
        }
        if self.tags.iter().any(|tags| tags.is_empty() || tags.iter().any(String::is_empty)) {
            let message = "a rule for tags names a tag that is empty";
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .with_hint("write the tags with commas between them, such as nightly,verified"));
        }
        let policy = KeepPolicy::new(self);
        if policy.is_empty() {
            let message = "no rule says what to keep";
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .with_hint("give at least one, such as: keep the last 7, or all within 3mo"));
        }
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_say_nothing_are_refused_in_words() {
        let mut rules = KeepRules::default();
        assert!(rules.policy().unwrap_err().one_line().contains("no rule says what to keep"));
        rules.last = Some(Count::Newest(0));
        assert!(rules.policy().is_err());
        rules.last = Some(Count::Newest(1));
        assert!(rules.policy().is_ok());
        rules.within = Some(Span::new());
        assert!(rules.policy().is_err());
        rules.within = Some(Span::new().days(-1));
        assert!(rules.policy().is_err());
        rules.within = None;
        rules.tags = vec![vec![]];
        assert!(rules.policy().is_err());
        rules.tags = vec![vec![String::new()]];
        assert!(rules.policy().is_err());
    }

    #[test]
    fn counts_survive_their_text_form() {
        for text in ["1", "7", "all"] {
            assert_eq!(text.parse::<Count>().unwrap().to_string(), text);
        }
        for bad in ["0", "-1", "", "many"] {
            assert!(bad.parse::<Count>().is_err(), "{bad}");
        }
    }
}
