//! Names of a journal's objects.

use lifeboat_core::journal::{JournalName, SegmentKind, Span, Timeline};

use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::objects::JOURNALS;

/// Bytes of the keyed hash of a journal's or a timeline's name.
pub(super) const ID: usize = 16;
/// The object that tells of a timeline, within its folder.
const TIMELINE: &str = "timeline";
/// What ends the name of a recorded gap.
const GAP: &str = ".gap";

/// What stands for a timeline of a journal where outsiders can see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TimelineId {
    pub(super) journal: [u8; ID],
    pub(super) timeline: [u8; ID],
}

impl TimelineId {
    pub(super) fn new(keys: &Keys, journal: &JournalName, timeline: &Timeline) -> Result<Self> {
        Self::of(
            keys,
            journal.store().kind(),
            journal.store().name(),
            journal.stream(),
            timeline.as_str(),
        )
    }

    pub(super) fn of(
        keys: &Keys,
        kind: &str,
        name: &str,
        stream: &str,
        timeline: &str,
    ) -> Result<Self> {
        Ok(Self {
            journal: id(keys, &[kind, name, stream])?,
            timeline: id(keys, &[kind, name, stream, timeline])?,
        })
    }

    /// The one whose objects are in a folder.
    pub(super) fn in_folder(folder: &str) -> Option<Self> {
        let (journal, timeline) =
            folder.strip_prefix(JOURNALS)?.strip_prefix('/')?.split_once('/')?;
        let mut id = Self { journal: [0; ID], timeline: [0; ID] };
        hex::decode_to_slice(journal, &mut id.journal).ok()?;
        hex::decode_to_slice(timeline, &mut id.timeline).ok()?;
        (id.folder() == folder).then_some(id)
    }

    /// Where its objects are.
    pub(super) fn folder(&self) -> String {
        format!("{JOURNALS}/{}/{}", hex::encode(self.journal), hex::encode(self.timeline))
    }

    /// The object of a segment or a recorded gap.
    pub(super) fn segment(&self, span: Span, kind: SegmentKind) -> String {
        let end = if kind == SegmentKind::Gap { GAP } else { "" };
        format!("{}/{span}{end}", self.folder())
    }
}

/// The folder of a whole journal.
pub(super) fn journal_folder(keys: &Keys, journal: &JournalName) -> Result<String> {
    let store = journal.store();
    let id = id(keys, &[store.kind(), store.name(), journal.stream()])?;
    Ok(format!("{JOURNALS}/{}", hex::encode(id)))
}

/// The object that tells of the timeline in a folder.
pub(super) fn timeline_record(folder: &str) -> String {
    format!("{folder}/{TIMELINE}")
}

/// The length of the array and of each text keep one list of names from being taken for another.
fn id(keys: &Keys, names: &[&str]) -> Result<[u8; ID]> {
    let unreadable = |_| Error::Crypto { doing: "encode a name" };
    Ok(keys.journal_id(&minicbor::to_vec(names).map_err(unreadable)?))
}

/// What the last part of an object's name says; `None` for what is no segment.
pub(super) fn parse(name: &str) -> Option<(Span, SegmentKind)> {
    let last = name.rsplit('/').next()?;
    match last.strip_suffix(GAP) {
        Some(span) => Some((span.parse().ok()?, SegmentKind::Gap)),
        None => Some((last.parse().ok()?, SegmentKind::Sealed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootKey;
    use crate::id::RepositoryId;
    use lifeboat_core::StoreRef;
    use lifeboat_core::journal::Position;

    #[test]
    fn names_hide_who_and_show_where() {
        let keys = Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([3; 16]));
        let id = |store: &str, stream: &str, timeline: &str| {
            let name = JournalName::new(StoreRef::new("postgres", store), stream).unwrap();
            TimelineId::new(&keys, &name, &Timeline::new(timeline).unwrap()).unwrap()
        };
        let (one, other) = (id("main", "wal", "1"), id("main", "wal", "2"));
        assert_eq!((one.journal, one.timeline == other.timeline), (other.journal, false));
        // Where one name ends and the next begins makes a difference.
        assert_eq!(TimelineId::in_folder(&one.folder()), Some(one));
        for stray in ["journals", "journals/x/y", "packs/00", &one.folder().to_uppercase()] {
            assert_eq!(TimelineId::in_folder(stray), None);
        }
        assert_ne!(id("a", "bc", "1").journal, id("ab", "c", "1").journal);
        let span = Span::new(Position(0x3000), Position(0x4000)).unwrap();
        let name = one.segment(span, SegmentKind::Gap);
        assert!(!name.contains("main") && !name.contains("wal"));
        assert_eq!(parse(&name), Some((span, SegmentKind::Gap)));
        assert_eq!(
            parse(&one.segment(span, SegmentKind::Sealed)),
            Some((span, SegmentKind::Sealed))
        );
        assert_eq!(parse(&timeline_record(&one.folder())), None);
        let elsewhere = Keys::derive(&RootKey::fixed(2), RepositoryId::from_bytes([3; 16]));
        let name = JournalName::new(StoreRef::new("postgres", "main"), "wal").unwrap();
        assert_ne!(
            journal_folder(&keys, &name).unwrap(),
            journal_folder(&elsewhere, &name).unwrap()
        );
    }
}
