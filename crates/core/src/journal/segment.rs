//! What a journal is made of.

use jiff::Timestamp;

use super::{Position, Span, Timeline};
use crate::attributes::Attributes;

/// No segment has more bytes of content: 64 MiB, so that each can be sealed in memory and stored
/// by one request that either makes all of it or nothing.
///
/// Where a store's own segments are larger, [`Span::cut`] splits them.
pub const MAX_SEGMENT: u64 = 64 << 20;

/// A timeline, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimelineInfo {
    /// Which one.
    pub timeline: Timeline,
    /// Where it left another one; `None` for a first one.
    pub fork: Option<Fork>,
    /// What the store says of it, such as the content of its history file. At most 512 KiB.
    pub facts: Attributes,
}

impl TimelineInfo {
    /// A timeline that comes from no other.
    pub fn first(timeline: Timeline) -> Self {
        Self { timeline, fork: None, facts: Attributes::new() }
    }

    /// A timeline that goes on where `parent` had come to `at`.
    pub fn forked(timeline: Timeline, parent: Timeline, at: Position) -> Self {
        Self { timeline, fork: Some(Fork { parent, at }), facts: Attributes::new() }
    }

    /// Sets the facts.
    #[must_use]
    pub fn with_facts(mut self, facts: Attributes) -> Self {
        self.facts = facts;
        self
    }
}

/// Where a timeline left another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The other one.
    pub parent: Timeline,
    /// The first position that is the new timeline's own.
    pub at: Position,
}

/// What a place of a journal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SegmentKind {
    /// Content.
    Sealed,
    /// The record that there is none, made when that became known.
    Gap,
}

/// The exact name of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// On which timeline.
    pub timeline: Timeline,
    /// From where to where.
    pub span: Span,
    /// What is there.
    pub kind: SegmentKind,
}

impl Place {
    /// A place for content.
    pub fn sealed(timeline: &Timeline, span: Span) -> Self {
        Self { timeline: timeline.clone(), span, kind: SegmentKind::Sealed }
    }

    /// A place for the record of a gap.
    pub fn gap(timeline: &Timeline, span: Span) -> Self {
        Self { timeline: timeline.clone(), span, kind: SegmentKind::Gap }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.kind == SegmentKind::Gap { " (gap)" } else { "" };
        write!(f, "{}/{}{kind}", self.timeline, self.span)
    }
}

/// What is known of a segment's content by who appends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// The time of the first change in it, by the store's clock, where that is known.
    pub first_time: Option<Timestamp>,
    /// The time of the last one.
    pub last_time: Option<Timestamp>,
    /// What else the store says of it. At most 512 KiB.
    pub facts: Attributes,
}

impl SegmentInfo {
    /// Sets the times of the first and the last change.
    #[must_use]
    pub fn with_times(mut self, first: Timestamp, last: Timestamp) -> Self {
        (self.first_time, self.last_time) = (Some(first), Some(last));
        self
    }

    /// Sets the facts.
    #[must_use]
    pub fn with_facts(mut self, facts: Attributes) -> Self {
        self.facts = facts;
        self
    }
}

/// All that is known of a segment without reading its content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// Where it is.
    pub place: Place,
    /// What who appended it knew. Of a gap: the time at which it was recorded, in both times.
    pub info: SegmentInfo,
    /// Bytes of content.
    pub size: u64,
    /// The BLAKE3 hash of the content.
    pub digest: [u8; 32],
    /// Of a gap: why there is one.
    pub reason: Option<String>,
}

impl Segment {
    /// A segment, with nothing known of it but its content.
    pub fn new(place: Place, size: u64, digest: [u8; 32]) -> Self {
        Self { place, info: SegmentInfo::default(), size, digest, reason: None }
    }

    /// Sets what who appended it knew.
    #[must_use]
    pub fn with_info(mut self, info: SegmentInfo) -> Self {
        self.info = info;
        self
    }

    /// Sets why there is a gap.
    #[must_use]
    pub fn with_reason(mut self, reason: Option<String>) -> Self {
        self.reason = reason;
        self
    }
}

/// A segment in a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedSegment {
    /// Where it is.
    pub place: Place,
    /// How many bytes it takes where it is stored.
    pub stored: u64,
}

/// What came of adding something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Appended {
    /// It is there now.
    New,
    /// It was there already, with the same content.
    Same,
}

/// A run of positions that no segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// On which timeline.
    pub timeline: Timeline,
    /// From where to where.
    pub span: Span,
    /// The record that was made when it became known, if one was.
    pub record: Option<GapRecord>,
}

/// What was recorded of a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapRecord {
    /// When it was recorded.
    pub at: Option<Timestamp>,
    /// Why there is one, in words for a person.
    pub reason: String,
}

/// From where on something that is kept needs the journal: the position at which a base backup
/// begins to depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// On which timeline.
    pub timeline: Timeline,
    /// From where on.
    pub from: Position,
}

/// What [`JournalLog::trim`](super::JournalLog::trim) does with what nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trim {
    /// Tells it.
    DryRun,
    /// Deletes it.
    Delete,
}
