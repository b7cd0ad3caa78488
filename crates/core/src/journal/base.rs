//! Where a snapshot begins to depend on a journal.

use super::{Need, Position, Timeline};
use crate::attributes::Attributes;
use crate::snapshot::SnapshotInfo;

/// The names of the facts in which a snapshot says it: the timeline, text; and the position,
/// unsigned.
fn names(stream: &str) -> [String; 2] {
    [format!("journal.{stream}.timeline"), format!("journal.{stream}.from")]
}

impl Need {
    /// From where on `base` needs the journal of `stream` of its store, so that moments after it
    /// can be recovered: as its source recorded it with [`Need::record`]. `None` when it did not.
    pub fn of(base: &SnapshotInfo, stream: &str) -> Option<Self> {
        let [timeline, from] = names(stream);
        let timeline = Timeline::new(base.facts.text(&timeline)?).ok()?;
        Some(Self { timeline, from: Position(base.facts.unsigned(&from)?) })
    }

    /// Records it in the facts of a snapshot. A source whose store has a journal does so: only
    /// then can be told which part of the journal nobody needs any more.
    pub fn record(&self, stream: &str, facts: &mut Attributes) {
        let [timeline, from] = names(stream);
        facts.set(timeline, self.timeline.as_str());
        facts.set(from, self.from.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SnapshotId;
    use crate::store::StoreRef;
    use jiff::Timestamp;

    #[test]
    fn a_base_says_where_it_begins_in_each_stream() {
        let store = StoreRef::new("postgres", "main");
        let mut base =
            SnapshotInfo::new(SnapshotId::from_bytes([1; 32]), store, Timestamp::UNIX_EPOCH);
        let need = Need { timeline: Timeline::new("3").unwrap(), from: Position(0x300_0028) };
        need.record("wal", &mut base.facts);
        assert_eq!(base.facts.text("journal.wal.timeline"), Some("3"));
        assert_eq!(base.facts.unsigned("journal.wal.from"), Some(0x300_0028));
        assert_eq!(Need::of(&base, "wal"), Some(need));
        assert_eq!(Need::of(&base, "records/orders"), None);
        // What is no name of a timeline says nothing.
        base.facts.set("journal.wal.timeline", "");
        assert_eq!(Need::of(&base, "wal"), None);
    }
}
