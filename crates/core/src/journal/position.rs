//! Where in a timeline.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// A place in a timeline: a log sequence number, an offset in a partition or in a replication
/// stream, a moment in nanoseconds. Written as 16 lower-case hexadecimal digits, so that text is
/// ordered as numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

impl Position {
    /// Before all others.
    pub const MIN: Self = Self(0);
    /// After all others.
    pub const MAX: Self = Self(u64::MAX);
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::new(ErrorKind::InvalidInput, format!("\"{text}\" is no position"));
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 16 || !text.bytes().all(digits) {
            return Err(bad());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| bad())
    }
}

/// The positions from one on, up to and without another. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    from: Position,
    to: Position,
}

impl Span {
    /// All positions.
    pub const ALL: Self = Self { from: Position::MIN, to: Position::MAX };

    /// The positions from `from` on, without `to`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there are none.
    pub fn new(from: Position, to: Position) -> Result<Self> {
        Self::checked(from, to).ok_or_else(|| {
            let message = format!("there is no position from {from} to {to}");
            Error::new(ErrorKind::InvalidInput, message)
        })
    }

    /// As [`Span::new`]; `None` when there are none.
    pub fn checked(from: Position, to: Position) -> Option<Self> {
        (from < to).then_some(Self { from, to })
    }

    /// The first one.
    pub fn from(&self) -> Position {
        self.from
    }

    /// The one after the last.
    pub fn to(&self) -> Position {
        self.to
    }

    /// How many there are.
    pub fn length(&self) -> u64 {
        self.to.0 - self.from.0
    }

    /// Whether all of `other` is in it.
    pub fn contains(&self, other: &Self) -> bool {
        self.from <= other.from && other.to <= self.to
    }

    /// What both have.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        Self::checked(self.from.max(other.from), self.to.min(other.to))
    }

    /// It cut into runs of `step` positions, on the grid of its first: how a stream whose
    /// positions count bytes is split into segments that are small enough. The last run has what
    /// is left. A step of 0 does not cut.
    pub fn cut(self, step: u64) -> impl Iterator<Item = Self> {
        let step = if step == 0 { u64::MAX } else { step };
        let mut next = Some(self.from);
        std::iter::from_fn(move || {
            let from = next?;
            let to = Position(from.0.saturating_add(step)).min(self.to);
            next = (to < self.to).then_some(to);
            Self::checked(from, to)
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (from, to) = text.split_once('-').ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, format!("\"{text}\" is no span of positions"))
        })?;
        Self::new(from.parse()?, to.parse()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(from: u64, to: u64) -> Span {
        Span::new(Position(from), Position(to)).unwrap()
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for bad in [
            "",
            "-",
            "0000000000000001-0000000000000001",
            "0000000000000002-0000000000000001",
            "000000000000000A-000000000000000B",
            "+000000000000001-0000000000000002",
            "0000000000000001-0000000000000002-",
            "0000000000000001-0000000000000002.gap",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn text_is_ordered_as_numbers_are(a: u64, b: u64) {
            let text = |number: u64| Position(number).to_string();
            prop_assert_eq!(a.cmp(&b), text(a).cmp(&text(b)));
            prop_assert_eq!(text(a).parse::<Position>().unwrap(), Position(a));
            if let Some(span) = Span::checked(Position(a), Position(b)) {
                prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
            }
        }

        #[test]
        fn runs_join_seamlessly(from: u64, length in 1_u64..10_000, step in 0_u64..3000) {
            let whole = span(from.min(u64::MAX - length), from.min(u64::MAX - length) + length);
            let runs: Vec<_> = whole.cut(step).collect();
            prop_assert_eq!(runs.first().unwrap().from(), whole.from());
            prop_assert_eq!(runs.last().unwrap().to(), whole.to());
            prop_assert!(runs.windows(2).all(|two| two[0].to() == two[1].from()));
            prop_assert!(step == 0 || runs.iter().all(|run| run.length() <= step));
        }
    }
}
