//! What is sealed of a segment besides its content.

use lifeboat_core::journal::{
    Fork, JournalName, Place, Position, Segment, SegmentInfo, Timeline, TimelineInfo,
};
use lifeboat_core::{Attributes, StoreRef, Timestamp};
use minicbor::{Decode, Encode};

use super::header::Identity;
use super::names::TimelineId;
use super::{FRAME, MAX_FRAMES};
use crate::crypto::{Keys, TAG};
use crate::error::{Error, Result};
use crate::tree::AttributesRecord;

/// The record of a segment, a recorded gap or a timeline.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Record {
    #[n(0)]
    kind: String,
    #[n(1)]
    name: String,
    #[n(2)]
    stream: String,
    #[n(3)]
    timeline: String,
    /// Times are nanoseconds since 1970 UTC.
    #[n(4)]
    first_time: Option<i64>,
    #[n(5)]
    last_time: Option<i64>,
    #[n(6)]
    facts: AttributesRecord,
    /// Bytes of content.
    #[n(7)]
    pub(super) size: u64,
    /// BLAKE3 of the content.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub(super) digest: [u8; 32],
    /// Of each frame: its stored length, and its encoding.
    #[n(9)]
    pub(super) frames: Vec<(u32, u8)>,
    /// Of a timeline: the one that it left, and where.
    #[n(10)]
    fork: Option<(String, u64)>,
    /// Of a gap: why there is one.
    #[n(11)]
    reason: Option<String>,
}

fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

fn timestamp(nanoseconds: i64) -> Timestamp {
    // Every i64 of nanoseconds is within the range of a timestamp.
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A frame, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) number: u32,
    pub(super) offset: u64,
    pub(super) stored: u32,
    pub(super) encoding: u8,
    pub(super) plain: u32,
}

impl Record {
    fn of(journal: &JournalName, timeline: &Timeline, facts: &Attributes) -> Self {
        Self {
            kind: journal.store().kind().to_owned(),
            name: journal.store().name().to_owned(),
            stream: journal.stream().to_owned(),
            timeline: timeline.as_str().to_owned(),
            first_time: None,
            last_time: None,
            facts: AttributesRecord::new(facts),
            size: 0,
            digest: *blake3::hash(b"").as_bytes(),
            frames: Vec::new(),
            fork: None,
            reason: None,
        }
    }

    pub(super) fn segment(journal: &JournalName, timeline: &Timeline, info: &SegmentInfo) -> Self {
        let mut record = Self::of(journal, timeline, &info.facts);
        record.first_time = info.first_time.map(nanoseconds);
        record.last_time = info.last_time.map(nanoseconds);
        record
    }

    pub(super) fn gap(
        journal: &JournalName,
        timeline: &Timeline,
        reason: &str,
        at: Timestamp,
    ) -> Self {
        let info = SegmentInfo::default().with_times(at, at);
        let mut record = Self::segment(journal, timeline, &info);
        record.reason = Some(reason.to_owned());
        record
    }

    /// Its digest is that of what makes one timeline another.
    pub(super) fn timeline(journal: &JournalName, info: &TimelineInfo) -> Result<Self> {
        let mut record = Self::of(journal, &info.timeline, &info.facts);
        let fork = info.fork.as_ref();
        record.fork = fork.map(|fork| (fork.parent.as_str().to_owned(), fork.at.0));
        let unreadable = |_| Error::Crypto { doing: "encode a timeline" };
        let told = minicbor::to_vec((&record.fork, &record.facts)).map_err(unreadable)?;
        record.digest = *blake3::hash(&told).as_bytes();
        Ok(record)
    }

    /// Which journal it belongs to.
    pub(super) fn journal(&self, object: &str) -> Result<JournalName> {
        let store = StoreRef::new(self.kind.clone(), self.name.clone());
        JournalName::new(store, self.stream.clone())
            .map_err(|error| Error::damaged(object, error.to_string()))
    }

    /// Checks that it belongs where it was found: sealing proves who wrote it, only this proves
    /// that it is what was asked for.
    pub(super) fn check(&self, keys: &Keys, object: &str, identity: &Identity) -> Result<()> {
        let own = TimelineId::of(keys, &self.kind, &self.name, &self.stream, &self.timeline)?;
        if own != identity.id {
            return Err(Error::damaged(object, "its names are others than its place says"));
        }
        Ok(())
    }

    /// The frames, with their places from `first` on. `stored` are the bytes that they must take
    /// together.
    pub(super) fn places(&self, object: &str, first: u64, stored: u32) -> Result<Vec<Frame>> {
        let damaged = || Error::damaged(object, "its table of frames is out of range");
        let count = usize::try_from(self.size.div_ceil(FRAME as u64)).ok();
        if self.frames.len() > MAX_FRAMES || count != Some(self.frames.len()) {
            return Err(damaged());
        }
        let mut offset = first;
        let mut left = self.size;
        let mut places = Vec::with_capacity(self.frames.len());
        for (number, &(stored, encoding)) in (0..).zip(&self.frames) {
            let plain = left.min(FRAME as u64) as u32;
            // What does not shrink is stored as it is.
            if stored as usize > FRAME + TAG {
                return Err(damaged());
            }
            places.push(Frame { number, offset, stored, encoding, plain });
            offset += u64::from(stored);
            left -= u64::from(plain);
        }
        if offset != first + u64::from(stored) {
            return Err(damaged());
        }
        Ok(places)
    }

    /// What is known of a segment or a recorded gap.
    pub(super) fn to_segment(&self, place: Place) -> Segment {
        let mut info = SegmentInfo::default().with_facts(self.facts.decode());
        info.first_time = self.first_time.map(timestamp);
        info.last_time = self.last_time.map(timestamp);
        Segment::new(place, self.size, self.digest).with_info(info).with_reason(self.reason.clone())
    }

    /// What is known of a timeline.
    pub(super) fn to_timeline(&self, object: &str) -> Result<TimelineInfo> {
        let named = |name: &str| {
            Timeline::new(name).map_err(|error| Error::damaged(object, error.to_string()))
        };
        let mut info = TimelineInfo::first(named(&self.timeline)?).with_facts(self.facts.decode());
        if let Some((parent, at)) = &self.fork {
            info.fork = Some(Fork { parent: named(parent)?, at: Position(*at) });
        }
        Ok(info)
    }
}
