//! History files: how a timeline came about.

use lifeboat_core::Bytes;

use super::{ArchiveError, WalLine};
use crate::lsn::Lsn;

/// No history file is larger. A line is about 60 bytes, one for each promotion.
pub(crate) const MAX_HISTORY: u64 = 256 << 10;

/// The history file of a timeline, understood and kept byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: u32,
    bytes: Bytes,
    parents: Vec<(u32, Lsn)>,
}

impl TimelineHistory {
    /// Understands the history file of `timeline`: on each line an ancestor, the position at which
    /// it was left, and a reason. Empty lines and comments count for nothing, as for the server.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](lifeboat_core::ErrorKind::Corrupt) when it names no parent, when a
    /// line makes no sense, when ancestors do not ascend up to the timeline, and when it is larger
    /// than 256 KiB.
    pub fn parse(timeline: u32, bytes: impl Into<Bytes>) -> Result<Self, ArchiveError> {
        let bytes = bytes.into();
        let bad = |why: String| ArchiveError::History { name: Self::name_of(timeline), why };
        if bytes.len() as u64 > MAX_HISTORY {
            return Err(bad(format!("it has {} bytes", bytes.len())));
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut parents: Vec<(u32, Lsn)> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let parent = words.next().and_then(|word| word.parse().ok());
            let at = words.next().and_then(|word| word.parse::<Lsn>().ok());
            let (Some(parent), Some(at)) = (parent, at) else {
                let shown: String = line.chars().take(60).flat_map(char::escape_debug).collect();
                return Err(bad(format!("\"{shown}\" is not a timeline and a position")));
            };
            let before = parents.last().map_or(0, |(timeline, _)| *timeline);
            if parent <= before || parent >= timeline {
                return Err(bad(format!("timeline {parent} cannot stand where it does")));
            }
            parents.push((parent, at));
        }
        if parents.is_empty() {
            return Err(bad("it names no parent".into()));
        }
        Ok(Self { timeline, bytes, parents })
    }

    /// The name of the history file of a timeline.
    pub fn name_of(timeline: u32) -> String {
        format!("{timeline:08X}.history")
    }

    /// Whose history it is.
    pub fn timeline(&self) -> u32 {
        self.timeline
    }

    /// The file, byte for byte.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The ancestors, the oldest first, each with the position at which it was left.
    pub fn parents(&self) -> &[(u32, Lsn)] {
        &self.parents
    }

    /// The parent, and the first position that is not its own any more.
    pub(crate) fn fork(&self, line: WalLine) -> Option<(WalLine, Lsn)> {
        self.parents.last().map(|(parent, at)| (line.sibling(*parent), *at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_as_the_server_reads_it() {
        // As PostgreSQL 17 wrote it after two promotions, with a comment as its documentation has.
        let text = "1\t0/3000000\tno recovery target specified\n\n# by hand\n2\t0/50001C8\tbefore 2026-01-01 00:00:00+00\n";
        let history = TimelineHistory::parse(3, text).unwrap();
        assert_eq!(history.parents(), [(1, Lsn(0x300_0000)), (2, Lsn(0x500_01C8))]);
        assert_eq!(history.bytes(), text.as_bytes());
        let fork = history.fork(WalLine::new(7, 3)).unwrap();
        assert_eq!(fork, (WalLine::new(7, 2), Lsn(0x500_01C8)));
        assert_eq!(TimelineHistory::name_of(26), "0000001A.history");
    }

    #[test]
    fn what_makes_no_history_is_refused() {
        let long = format!("1\t0/3000000\t{}\n", "x".repeat(300 << 10));
        for bad in ["", "\n# nothing\n", "1", "1\t", "x\t0/1", "1\t0:1", "2\t0/1", "3\t0/1", &long]
        {
            assert!(TimelineHistory::parse(2, bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(TimelineHistory::parse(5, "2\t0/1\ta\n1\t0/2\tb\n").is_err());
        assert!(TimelineHistory::parse(5, "2\t0/1\ta\n2\t0/2\tb\n").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes: Vec<u8>, timeline: u32) {
            if let Ok(history) = TimelineHistory::parse(timeline, bytes.clone()) {
                assert_eq!(history.bytes(), &bytes);
                assert!(history.parents().iter().all(|(parent, _)| *parent < timeline));
            }
        }
    }
}
