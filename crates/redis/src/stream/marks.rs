//! By when how much of the stream had come.

use std::time::Duration;

use lifeboat_core::Timestamp;
use lifeboat_core::journal::{SegmentInfo, Span};
use lifeboat_core::{Attributes, Error, ErrorKind};

/// The fact of a segment: pairs of numbers of 32 bits, the lower byte first: so many bytes from
/// its beginning on had come so many milliseconds after its first time.
const MARKS: &str = "redis.marks";
/// The fact of a segment: so many bytes from its beginning on is the end of its last command that
/// is no part of an unfinished transaction.
const BOUNDARY: &str = "redis.boundary";

/// Marks that are closer than this become one.
const APART: Duration = Duration::from_millis(20);
/// So many are kept of one segment: what describes it is read with its first 4 KiB.
const MOST: usize = 240;

/// What is before this place had come by this time, by the clock of who received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) position: u64,
    pub(crate) time: Timestamp,
}

/// The marks of a segment, and its last boundary.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    /// When the first byte had come.
    pub(crate) first: Option<Timestamp>,
    /// When the last mark was opened, which moves on while others fall into it.
    opened: Option<Timestamp>,
    /// In order of places and times; the last one is at the end.
    pub(crate) marks: Vec<Mark>,
    /// The end of the last whole command, where one ends in the segment and that is known.
    pub(crate) boundary: Option<u64>,
}

impl Marks {
    /// Notes that everything before `position` has come. Time never goes back.
    pub(crate) fn note(&mut self, position: u64, time: Timestamp) {
        let time = self.marks.last().map_or(time, |last| last.time.max(time));
        self.first.get_or_insert(time);
        let opened = *self.opened.get_or_insert(time);
        let apart = time.duration_since(opened).unsigned_abs() >= APART;
        let full = self.marks.len() >= MOST;
        match self.marks.last_mut() {
            // What came by then seems to have come a little later.
            Some(last) if !apart || full => *last = Mark { position, time },
            _ => {
                self.opened = Some(time);
                self.marks.push(Mark { position, time });
            }
        }
    }

    /// Joins those of the segment that follows.
    pub(crate) fn append(&mut self, next: &Self) {
        self.first = self.first.or(next.first);
        self.opened = next.opened;
        let not_before = self.marks.last().map(|last| last.time);
        let later = |mark: &Mark| Mark {
            time: not_before.max(Some(mark.time)).unwrap_or(mark.time),
            ..*mark
        };
        self.marks.extend(next.marks.iter().map(later));
        self.boundary = next.boundary.or(self.boundary);
    }

    /// By when all before `position` had come.
    pub(crate) fn by(&self, position: u64) -> Option<Timestamp> {
        self.marks.iter().find(|mark| mark.position >= position).map(|mark| mark.time)
    }

    /// Takes those of what lies before `position`, and leaves those of what comes after it.
    pub(crate) fn split_to(&mut self, position: u64) -> Self {
        let count = self.marks.partition_point(|mark| mark.position < position);
        let mut before = Self { first: self.first, ..Self::default() };
        before.marks = self.marks.drain(..count).collect();
        if let Some(next) = self.marks.first().copied() {
            before.marks.push(Mark { position, time: next.time });
            if next.position == position {
                self.marks.remove(0);
            }
        }
        self.first = self.marks.first().map(|mark| mark.time);
        if self.marks.is_empty() {
            self.opened = None;
        }
        before
    }

    /// What a segment says of itself.
    pub(crate) fn to_info(&self, span: Span) -> SegmentInfo {
        let mut facts = Attributes::new();
        let info = SegmentInfo::default();
        let (Some(first), Some(last)) = (self.first, self.marks.last()) else {
            return info;
        };
        let mut bytes = Vec::with_capacity(8 * self.marks.len());
        for mark in &self.marks {
            let offset = mark.position.saturating_sub(span.from().0);
            // Never too early, so that nothing is restored that was not there yet.
            let later = (mark.time.duration_since(first).as_nanos() + 999_999) / 1_000_000;
            for number in [i128::from(offset), later] {
                // No segment has so many bytes; one that was open for so long is dated too late.
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        facts.set(MARKS, bytes);
        if let Some(boundary) = self.boundary {
            facts.set(BOUNDARY, boundary.saturating_sub(span.from().0));
        }
        info.with_times(first, last.time).with_facts(facts)
    }

    /// What a segment said of itself.
    ///
    /// # Errors
    /// When it makes no sense.
    pub(crate) fn of(span: Span, info: &SegmentInfo) -> lifeboat_core::Result<Self> {
        let bad = || {
            let message = format!("the segment {span} of the journal makes no sense of its times");
            Error::new(ErrorKind::Corrupt, message)
        };
        let (Some(first), Some(last)) = (info.first_time, info.last_time) else {
            return Err(bad());
        };
        let bytes = info.facts.bytes(MARKS).ok_or_else(bad)?;
        let (pairs, rest) = bytes.as_chunks::<8>();
        let mut marks = Vec::with_capacity(pairs.len());
        for [a, b, c, d, e, f, g, h] in pairs {
            let offset = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
            let later = u64::from(u32::from_le_bytes([*e, *f, *g, *h]));
            let time = first.checked_add(Duration::from_millis(later)).map_err(|_| bad())?;
            marks.push(Mark { position: span.from().0 + offset, time: time.min(last) });
        }
        let ordered = marks
            .is_sorted_by(|one, two| one.position < two.position && one.time <= two.time)
            && marks.last().is_some_and(|mark| mark.position == span.to().0);
        let boundary = info.facts.unsigned(BOUNDARY).map(|offset| span.from().0 + offset);
        let inside = boundary.is_none_or(|at| at > span.from().0 && at <= span.to().0);
        if !rest.is_empty() || !ordered || !inside {
            return Err(bad());
        }
        Ok(Self { first: Some(first), opened: None, marks, boundary })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifeboat_core::journal::Position;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap()
    }

    fn mark(position: u64, millis: i64) -> Mark {
        Mark { position, time: at(millis) }
    }

    fn span(from: u64, to: u64) -> Span {
        Span::new(Position(from), Position(to)).unwrap()
    }

    #[test]
    fn what_a_segment_says_is_read_back() {
        let mut marks = Marks::default();
        for (position, millis) in [(110, 0), (115, 15), (120, 19), (150, 30), (190, 700)] {
            marks.note(position, at(millis));
        }
        assert_eq!(marks.marks, [mark(120, 19), mark(150, 30), mark(190, 700)]);
        marks.boundary = Some(185);
        let info = marks.to_info(span(100, 190));
        assert_eq!((info.first_time, info.last_time), (Some(at(0)), Some(at(700))));
        let read = Marks::of(span(100, 190), &info).unwrap();
        assert_eq!((read.first, read.marks, read.boundary), (marks.first, marks.marks, Some(185)));
        // Of another segment it makes no sense.
        assert!(Marks::of(span(100, 191), &info).is_err());
        assert!(Marks::of(span(100, 190), &SegmentInfo::default()).is_err());
    }

    #[test]
    fn time_never_goes_back() {
        let mut marks = Marks::default();
        marks.note(10, at(100));
        marks.note(20, at(50));
        assert_eq!(marks.marks, [mark(20, 100)]);
    }

    #[test]
    fn they_are_split_with_the_bytes() {
        let mut marks = Marks::default();
        for (position, millis) in [(110, 0), (150, 100), (190, 200)] {
            marks.note(position, at(millis));
        }
        let mut within = marks.clone();
        let before = within.split_to(130);
        assert_eq!(before.marks, [mark(110, 0), mark(130, 100)]);
        assert_eq!(
            (within.first, &within.marks[..]),
            (Some(at(100)), &[mark(150, 100), mark(190, 200)][..])
        );
        let before = marks.split_to(150);
        assert_eq!(before.marks, [mark(110, 0), mark(150, 100)]);
        assert_eq!((marks.first, &marks.marks[..]), (Some(at(200)), &[mark(190, 200)][..]));
        marks.split_to(190);
        assert!(marks.first.is_none() && marks.marks.is_empty());
    }

    #[test]
    fn those_of_segments_that_follow_one_another_are_joined() {
        let mut marks = Marks::default();
        for (position, millis) in [(110, 0), (150, 100), (190, 200)] {
            marks.note(position, at(millis));
        }
        let mut parts = [marks.split_to(130), marks.split_to(160), marks];
        parts[0].boundary = Some(130);
        let mut joined = parts[0].clone();
        joined.append(&parts[1]);
        assert_eq!(joined.boundary, Some(130));
        parts[2].boundary = Some(185);
        joined.append(&parts[2]);
        let read = Marks::of(span(100, 190), &joined.to_info(span(100, 190))).unwrap();
        let all = [mark(110, 0), mark(130, 100), mark(150, 100), mark(160, 200), mark(190, 200)];
        assert_eq!(
            (read.first, &read.marks[..], read.boundary),
            (Some(at(0)), &all[..], Some(185))
        );
        // A clock that was set back does not bring them out of order.
        let mut late = Marks::default();
        late.note(200, at(50));
        joined.append(&late);
        assert_eq!(joined.marks.last(), Some(&mark(200, 200)));
    }

    #[test]
    fn there_are_never_too_many() {
        let mut marks = Marks::default();
        for number in 1..10_000_u32 {
            marks.note(number.into(), at(i64::from(number) * 50));
        }
        assert_eq!(marks.marks.len(), MOST);
        assert_eq!(marks.marks.last(), Some(&mark(9999, 9999 * 50)));
    }
}
