//! What the journal has without interruption behind a snapshot.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use lifeboat_core::journal::{
    JournalLog, ListedSegment, Place, SegmentKind, Span, Timeline, TimelineInfo, current, lineage,
};
use lifeboat_core::{Error, ErrorKind, Extent, Result, Timestamp};

use super::{BaseSnapshot, RecoveryError};
use crate::stream::Marks;

/// All that a journal lists.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) timelines: Vec<TimelineInfo>,
    /// Segments in order, superseded ones left out.
    segments: BTreeMap<Timeline, Vec<ListedSegment>>,
    /// The first position of each timeline, records of gaps counted.
    pub(crate) firsts: BTreeMap<Timeline, u64>,
}

impl Survey {
    pub(crate) async fn of(log: &dyn JournalLog) -> Result<Self> {
        let timelines = log.timelines().await?;
        let (mut segments, mut firsts) = (BTreeMap::new(), BTreeMap::new());
        for info in &timelines {
            let listed = log.list(&info.timeline, Span::ALL).await?;
            if let Some(first) = listed.iter().map(|one| one.place.span.from().0).min() {
                firsts.insert(info.timeline.clone(), first);
            }
            segments.insert(info.timeline.clone(), current(&listed));
        }
        Ok(Self { timelines, segments, firsts })
    }

    /// What is there from `base` on, along the history of `leaf`; `None` when that does not pass
    /// through the base.
    ///
    /// # Errors
    /// When the timelines make no sense.
    pub(crate) fn chain(&self, base: &BaseSnapshot, leaf: &Timeline) -> Result<Option<Chain>> {
        let history = lineage(&self.timelines, leaf)?;
        let holds = |span: &Span| span.from().0 <= base.offset && base.offset <= span.to().0;
        let begins = history.iter().position(|it| it.timeline == base.timeline && holds(&it.span));
        let Some(begins) = begins else {
            return Ok(None);
        };
        let mut chain =
            Chain { base: base.clone(), leaf: leaf.clone(), parts: Vec::new(), to: base.offset };
        for stretch in &history[begins..] {
            let end = stretch.span.to().0;
            for one in self.segments.get(&stretch.timeline).into_iter().flatten() {
                let span = one.place.span;
                if chain.to >= end || span.from().0 > chain.to {
                    break;
                }
                let to = span.to().0.min(end);
                if to > chain.to && one.place.kind == SegmentKind::Sealed {
                    chain.parts.push(Part { place: one.place.clone(), from: chain.to, to });
                    chain.to = to;
                }
            }
            if chain.to < end {
                break;
            }
        }
        Ok(Some(chain))
    }
}

/// A snapshot, and what the journal has without interruption behind it.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) base: BaseSnapshot,
    /// Along the history of this timeline.
    pub(crate) leaf: Timeline,
    pub(crate) parts: Vec<Part>,
    /// Where it ends.
    pub(crate) to: u64,
}

/// A part of a chain: all or some of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) place: Place,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Chain {
    /// What a journal that may be read has behind `base` along the history of `leaf`.
    pub(crate) async fn find(
        log: &dyn JournalLog,
        bases: &[BaseSnapshot],
        leaf: &Timeline,
    ) -> Result<Vec<Self>> {
        let survey = Survey::of(log).await?;
        let mut found = Vec::new();
        for base in bases {
            found.extend(survey.chain(base, leaf)?);
        }
        Ok(found)
    }

    /// Whether `other` has all of this, and more.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        let longer = other.parts.len() > self.parts.len();
        self.base == other.base && longer && other.parts.starts_with(&self.parts)
    }

    /// The last moment of which all that came is here.
    pub(crate) async fn end_time(&self, log: &dyn JournalLog) -> Result<Timestamp> {
        match self.parts.last() {
            Some(part) => {
                let marks = part.marks(log).await?;
                Ok(marks.by(part.to).unwrap_or(self.base.reached).max(self.base.reached))
            }
            None => Ok(self.base.reached),
        }
    }
}

impl Part {
    /// When the bytes of its segment came.
    pub(crate) async fn marks(&self, log: &dyn JournalLog) -> Result<Marks> {
        let segment = log.segment(&self.place).await?;
        let segment = segment.ok_or_else(|| self.gone())?;
        Marks::of(self.place.span, &segment.info)
    }

    /// Its bytes up to `to`.
    pub(crate) async fn read(&self, log: &dyn JournalLog, to: u64) -> Result<Bytes> {
        let mut content = log.read(&self.place).await?.ok_or_else(|| self.gone())?;
        let length = self.place.span.length();
        let mut bytes = BytesMut::new();
        let wrong = || {
            let message =
                format!("read the journal's {}: it is not as long as it says", self.place);
            Error::new(ErrorKind::Corrupt, message)
        };
        while let Some(extent) = content.next().await? {
            if bytes.len() as u64 + extent.len() > length {
                return Err(wrong());
            }
            match extent {
                Extent::Data(data) => bytes.extend_from_slice(&data),
                // There is no run of zeros of this kind in what commands are made of.
                Extent::Hole(_) | Extent::Unchanged(_) => return Err(wrong()),
            }
        }
        if bytes.len() as u64 != length {
            return Err(wrong());
        }
        let begins = self.place.span.from().0;
        let within = |at: u64| usize::try_from(at - begins).unwrap_or(usize::MAX);
        let range = within(self.from)..within(self.to.min(to).max(self.from));
        Ok(bytes.freeze().slice(range))
    }

    /// As [`Part::read`], in stretches that came within one second, each with that second.
    pub(crate) async fn read_by_second(
        &self,
        log: &dyn JournalLog,
        to: u64,
    ) -> Result<Vec<(i64, Bytes)>> {
        let marks = self.marks(log).await?.marks;
        let mut bytes = self.read(log, to).await?;
        let (mut at, mut stretches) = (self.from, Vec::<(i64, Bytes)>::new());
        for same in marks.chunk_by(|one, two| one.time.as_second() == two.time.as_second()) {
            let [.., last] = same else { continue };
            let length = usize::try_from(last.position.saturating_sub(at)).unwrap_or(usize::MAX);
            let stretch = bytes.split_to(length.min(bytes.len()));
            at += stretch.len() as u64;
            if !stretch.is_empty() {
                stretches.push((last.time.as_second(), stretch));
            }
        }
        Ok(stretches)
    }

    fn gone(&self) -> Error {
        RecoveryError::Gone { place: self.place.to_string() }.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifeboat_core::SnapshotId;
    use lifeboat_core::journal::Position;

    use crate::sink::AppendOnlyForm;

    fn line(name: &str) -> Timeline {
        Timeline::new(name).unwrap()
    }

    fn base(timeline: &str, offset: u64) -> BaseSnapshot {
        BaseSnapshot {
            server: None,
            snapshot: SnapshotId::from_bytes([1; 32]),
            timeline: line(timeline),
            offset,
            reached: Timestamp::UNIX_EPOCH,
            database: 0,
            form: AppendOnlyForm::MultiPart,
        }
    }

    fn survey(timelines: Vec<TimelineInfo>, segments: &[(&str, u64, u64)]) -> Survey {
        let mut sorted: BTreeMap<Timeline, Vec<ListedSegment>> = BTreeMap::new();
        for (timeline, from, to) in segments {
            let span = Span::new(Position(*from), Position(*to)).unwrap();
            let place = Place::sealed(&line(timeline), span);
            sorted.entry(line(timeline)).or_default().push(ListedSegment { place, stored: 1 });
        }
        let segments = sorted.into_iter().map(|(line, listed)| (line, current(&listed))).collect();
        Survey { timelines, segments, firsts: BTreeMap::new() }
    }

    fn spans(chain: &Chain) -> Vec<(String, u64, u64)> {
        let told = |part: &Part| (part.place.timeline.to_string(), part.from, part.to);
        chain.parts.iter().map(told).collect()
    }

    #[test]
    fn a_chain_ends_where_something_is_missing() {
        let survey = survey(
            vec![TimelineInfo::first(line("a"))],
            &[("a", 10, 20), ("a", 20, 40), ("a", 50, 60)],
        );
        let chain = |at| survey.chain(&base("a", at), &line("a")).unwrap().unwrap();
        assert_eq!(spans(&chain(15)), [("a".into(), 15, 20), ("a".into(), 20, 40)]);
        assert_eq!((chain(40).parts.len(), chain(40).to), (0, 40));
        assert_eq!(chain(50).to, 60);
        assert_eq!(chain(5).to, 5);
        assert!(survey.chain(&base("b", 15), &line("a")).unwrap().is_none());
        assert!(!chain(20).is_within(&chain(20)) && !chain(15).is_within(&chain(20)));
    }

    #[test]
    fn a_chain_follows_a_promotion_and_not_what_the_old_one_did_after_it() {
        let timelines = vec![
            TimelineInfo::first(line("a")),
            TimelineInfo::forked(line("b"), line("a"), Position(30)),
        ];
        let survey = survey(timelines, &[("a", 10, 40), ("b", 30, 50)]);
        let along = |at, leaf| survey.chain(&base("a", at), &line(leaf)).unwrap();
        let both = along(10, "b").unwrap();
        assert_eq!(spans(&both), [("a".into(), 10, 30), ("b".into(), 30, 50)]);
        assert_eq!(spans(&along(10, "a").unwrap()), [("a".into(), 10, 40)]);
        // A snapshot of what the old one did alone is none of the new history.
        assert!(along(35, "b").is_none());
        assert_eq!(along(30, "b").unwrap().to, 50);
    }
}
