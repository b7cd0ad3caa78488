//! A timeline of one cluster, as a journal names it.

use std::fmt;

use lifeboat_core::journal::Timeline;

/// A timeline of one cluster.
///
/// Journals name it `<system identifier>/<timeline>`, both as decimal numbers: every cluster has a
/// timeline 1, and `pg_upgrade` makes a new cluster out of an old one. What belongs to two systems
/// can so never be mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WalLine {
    /// The system identifier, as `pg_controldata` shows it.
    pub system_id: u64,
    /// The number of the timeline, from 1 on.
    pub timeline: u32,
}

impl WalLine {
    /// The timeline `timeline` of the cluster `system_id`.
    pub fn new(system_id: u64, timeline: u32) -> Self {
        Self { system_id, timeline }
    }

    /// Another timeline of the same cluster.
    pub(crate) fn sibling(self, timeline: u32) -> Self {
        Self { timeline, ..self }
    }

    /// As a journal names it.
    ///
    /// # Errors
    /// Never: digits and a slash are a name.
    pub fn to_timeline(self) -> lifeboat_core::Result<Timeline> {
        Timeline::new(self.to_string())
    }

    /// Which timeline of which cluster a journal's timeline is; `None` when it is another thing.
    pub fn of(timeline: &Timeline) -> Option<Self> {
        let (system, number) = timeline.as_str().split_once('/')?;
        let line = Self { system_id: system.parse().ok()?, timeline: number.parse().ok()? };
        // Only what is written as it is written here: no sign, no zeros before it.
        (line.timeline > 0 && line.to_string() == timeline.as_str()).then_some(line)
    }
}

impl fmt::Display for WalLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.system_id, self.timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_named_one_way() {
        let line = WalLine::new(u64::MAX, 17);
        let timeline = line.to_timeline().unwrap();
        assert_eq!(timeline.as_str(), "18446744073709551615/17");
        assert_eq!(WalLine::of(&timeline), Some(line));
        for bad in
            ["17", "/17", "1/", "1/0", "01/1", "+1/1", "1/+1", "1/4294967296", "a/1", "1/1/1"]
        {
            assert_eq!(WalLine::of(&Timeline::new(bad).unwrap()), None, "{bad}");
        }
    }
}
