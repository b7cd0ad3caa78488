//! A journal in memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::collect;
use crate::attributes::Attributes;
use crate::content::Content;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{
    Appended, JournalLog, JournalName, ListedSegment, MAX_SEGMENT, Need, Place, Segment,
    SegmentInfo, Span, Timeline, TimelineInfo, Trim, removable,
};
use crate::path::EntryPath;

/// A journal whose segments live in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct MemoryJournal {
    name: JournalName,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    timelines: BTreeMap<Timeline, TimelineInfo>,
    segments: BTreeMap<Place, (Segment, Bytes)>,
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new(name: JournalName) -> Self {
        Self { name, state: Arc::default() }
    }

    fn add(&self, segment: Segment, content: Bytes) -> Result<Appended> {
        let mut state = self.state.lock();
        if !state.timelines.contains_key(&segment.place.timeline) {
            let message = format!("timeline {} was not begun", segment.place.timeline);
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        match state.segments.entry(segment.place.clone()) {
            Slot::Occupied(slot) if slot.get().1 == content => Ok(Appended::Same),
            Slot::Occupied(slot) => Err(another(slot.key())),
            Slot::Vacant(slot) => {
                slot.insert((segment, content));
                Ok(Appended::New)
            }
        }
    }
}

fn another(what: &impl std::fmt::Display) -> Error {
    let message = format!("append {what}: there is another one in its place");
    Error::new(ErrorKind::AlreadyExists, message)
}

#[async_trait]
impl JournalLog for MemoryJournal {
    fn name(&self) -> &JournalName {
        &self.name
    }

    async fn begin(&self, timeline: &TimelineInfo) -> Result<Appended> {
        match self.state.lock().timelines.entry(timeline.timeline.clone()) {
            Slot::Occupied(slot) if slot.get() == timeline => Ok(Appended::Same),
            Slot::Occupied(slot) => Err(another(slot.key())),
            Slot::Vacant(slot) => {
                slot.insert(timeline.clone());
                Ok(Appended::New)
            }
        }
    }

    async fn timeline(&self, timeline: &Timeline) -> Result<Option<TimelineInfo>> {
        Ok(self.state.lock().timelines.get(timeline).cloned())
    }

    async fn timelines(&self) -> Result<Vec<TimelineInfo>> {
        Ok(self.state.lock().timelines.values().cloned().collect())
    }

    async fn append(
        &self,
        timeline: &Timeline,
        span: Span,
        info: &SegmentInfo,
        content: Content,
    ) -> Result<Appended> {
        let entry = Entry::file(EntryPath::new("segment")?, Attributes::new(), Bytes::new())
            .with_content(0, content);
        let (_, bytes) = collect(entry, None).await?;
        let size = bytes.len() as u64;
        if size > MAX_SEGMENT {
            let message = format!("append {timeline}/{span}: it is larger than a segment may be");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let digest = *blake3::hash(&bytes).as_bytes();
        let segment = Segment::new(Place::sealed(timeline, span), size, digest);
        self.add(segment.with_info(info.clone()), bytes)
    }

    async fn record_gap(
        &self,
        timeline: &Timeline,
        span: Span,
        reason: &str,
        at: Timestamp,
    ) -> Result<Appended> {
        let digest = *blake3::hash(b"").as_bytes();
        let segment = Segment::new(Place::gap(timeline, span), 0, digest)
            .with_info(SegmentInfo::default().with_times(at, at))
            .with_reason(Some(reason.to_owned()));
        self.add(segment, Bytes::new())
    }

    async fn segment(&self, place: &Place) -> Result<Option<Segment>> {
        Ok(self.state.lock().segments.get(place).map(|(segment, _)| segment.clone()))
    }

    async fn read(&self, place: &Place) -> Result<Option<Content>> {
        let state = self.state.lock();
        Ok(state.segments.get(place).map(|(_, bytes)| Content::bytes(bytes.clone())))
    }

    async fn list(&self, timeline: &Timeline, within: Span) -> Result<Vec<ListedSegment>> {
        let state = self.state.lock();
        let mut listed: Vec<_> = state
            .segments
            .iter()
            .filter(|(place, _)| place.timeline == *timeline)
            .filter(|(place, _)| place.span.intersect(&within).is_some())
            .map(|(place, (_, bytes))| ListedSegment {
                place: place.clone(),
                stored: bytes.len() as u64,
            })
            .collect();
        listed.sort();
        Ok(listed)
    }

    async fn trim(&self, needs: &[Need], mode: Trim) -> Result<Vec<ListedSegment>> {
        let timelines = self.timelines().await?;
        let mut segments = Vec::new();
        for info in &timelines {
            segments.extend(self.list(&info.timeline, Span::ALL).await?);
        }
        let gone = removable(&timelines, &segments, needs)?;
        if mode == Trim::Delete {
            let mut state = self.state.lock();
            for one in &gone {
                state.segments.remove(&one.place);
            }
        }
        Ok(gone)
    }
}
