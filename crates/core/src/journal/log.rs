//! The place where a journal is kept.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    Appended, Gap, GapRecord, JournalName, ListedSegment, Need, Place, Position, Segment,
    SegmentInfo, SegmentKind, Span, Timeline, TimelineInfo, Trim, current, lineage, missing,
};
use crate::content::Content;
use crate::error::Result;

/// A journal that can be appended to, listed and read.
///
/// # Contract
/// - What was acknowledged is durable.
/// - A segment is there as a whole or not at all, whatever happens while it is appended; dropping
///   a future is such a thing.
/// - What is there is never changed. The same segment again is [`Appended::Same`], told by its
///   content alone; another content at the same place is an error of kind
///   [`AlreadyExists`](crate::ErrorKind::AlreadyExists), and what was there stays.
/// - Any number of processes may append at once.
/// - A listing is no proof of absence. `None` from [`JournalLog::timeline`],
///   [`JournalLog::segment`] and [`JournalLog::read`] is, and so is `false` from
///   [`JournalLog::has_begun`] and [`JournalLog::has`]: it is said only when the place where the journal is kept was asked
///   for just this name and answered that there is no such thing. Whatever else goes wrong is an
///   error.
#[async_trait]
pub trait JournalLog: Send + Sync {
    /// Which journal.
    fn name(&self) -> &JournalName;

    /// Adds a timeline. Nothing can be appended to one that was not begun.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when it is known with another origin or
    /// other facts; when it cannot be stored.
    async fn begin(&self, timeline: &TimelineInfo) -> Result<Appended>;

    /// What is known of one timeline; `None` is proof that it was not begun.
    ///
    /// # Errors
    /// When that cannot be told.
    async fn timeline(&self, timeline: &Timeline) -> Result<Option<TimelineInfo>>;

    /// All timelines, by name.
    ///
    /// # Errors
    /// When they cannot be listed or read.
    async fn timelines(&self) -> Result<Vec<TimelineInfo>>;

    /// Adds a segment with `content`, of [`MAX_SEGMENT`](super::MAX_SEGMENT) bytes at most. Holes
    /// in it are zeros.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when the place has another content;
    /// [`NotFound`](crate::ErrorKind::NotFound) when the timeline was not begun;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the content is too large; those of
    /// the content; when it cannot be stored.
    async fn append(
        &self,
        timeline: &Timeline,
        span: Span,
        info: &SegmentInfo,
        content: Content,
    ) -> Result<Appended>;

    /// Records that what `span` should hold is lost, at the time `at` and for a reason in words
    /// for a person. A segment can still come later, should the content be found after all.
    ///
    /// A gap that was recorded already keeps its first record.
    ///
    /// # Errors
    /// As [`JournalLog::append`].
    async fn record_gap(
        &self,
        timeline: &Timeline,
        span: Span,
        reason: &str,
        at: Timestamp,
    ) -> Result<Appended>;

    /// What is known of one segment or recorded gap; `None` is proof that there is none.
    ///
    /// # Errors
    /// When that cannot be told.
    async fn segment(&self, place: &Place) -> Result<Option<Segment>>;

    /// The content of one segment; `None` is proof that there is none.
    ///
    /// # Errors
    /// When that cannot be told. Damage that is met while the content is read is an error of the
    /// content; what came before it is as it was appended.
    async fn read(&self, place: &Place) -> Result<Option<Content>>;

    /// The segments and recorded gaps of a timeline that have something of `within`, in order.
    ///
    /// # Errors
    /// When they cannot be listed.
    async fn list(&self, timeline: &Timeline, within: Span) -> Result<Vec<ListedSegment>>;

    /// Finds what none of `needs` depends on, and deletes it where `mode` says so; see
    /// [`removable`](super::removable) for what that is. What went, or would go, is the result.
    ///
    /// Who calls it names all that is kept, and all that is being made now.
    ///
    /// # Errors
    /// Those of [`removable`](super::removable), before anything is deleted; when something cannot
    /// be deleted. What was deleted before an error stays so; calling again goes on.
    async fn trim(&self, needs: &[Need], mode: Trim) -> Result<Vec<ListedSegment>>;

    /// Whether a timeline was begun; `false` is proof that it was not. Unlike
    /// [`JournalLog::timeline`], who may append and not read can ask this.
    ///
    /// # Errors
    /// When that cannot be told.
    async fn has_begun(&self, timeline: &Timeline) -> Result<bool> {
        Ok(self.timeline(timeline).await?.is_some())
    }

    /// Whether there is a segment or recorded gap; `false` is proof that there is none. Unlike
    /// [`JournalLog::segment`], who may append and not read can ask this.
    ///
    /// # Errors
    /// When that cannot be told.
    async fn has(&self, place: &Place) -> Result<bool> {
        Ok(self.segment(place).await?.is_some())
    }

    /// The position after the last segment of a timeline; `None` without any.
    ///
    /// # Errors
    /// When the segments cannot be listed.
    async fn end(&self, timeline: &Timeline) -> Result<Option<Position>> {
        let listed = self.list(timeline, Span::ALL).await?;
        let sealed = listed.iter().filter(|one| one.place.kind == SegmentKind::Sealed);
        Ok(sealed.map(|one| one.place.span.to()).max())
    }

    /// What is missing of the history of a timeline, its ancestors included, from `from` up to
    /// the end of its last segment.
    ///
    /// A run that was recorded in part is told in parts.
    ///
    /// # Errors
    /// When timelines, segments or records of gaps cannot be read.
    async fn gaps(&self, timeline: &Timeline, from: Position) -> Result<Vec<Gap>> {
        let timelines = self.timelines().await?;
        let mut sealed = Vec::new();
        let mut recorded = Vec::new();
        let mut end = from;
        let history = lineage(&timelines, timeline)?;
        for part in &history {
            // The first segment of a timeline may begin before the fork: it repeats its parent's.
            let within = Span::checked(Position::MIN, part.span.to()).unwrap_or(Span::ALL);
            for one in self.list(&part.timeline, within).await? {
                let counts = one.place.span.intersect(&within);
                match one.place.kind {
                    SegmentKind::Sealed => sealed.extend(counts),
                    SegmentKind::Gap => recorded.push(one.place),
                }
            }
            // An ancestor counts up to the fork, whether it has so much or not.
            let known = recorded.iter().map(|place: &Place| place.span.to());
            let own = sealed.iter().map(Span::to).chain(known).max().unwrap_or(from);
            end = end.max(if part.timeline == *timeline { own } else { part.span.to() });
        }
        let Some(whole) = Span::checked(from, end) else {
            return Ok(Vec::new());
        };
        let mut gaps = Vec::new();
        for run in missing(whole, sealed) {
            for part in &history {
                let Some(run) = run.intersect(&part.span) else { continue };
                let mut open = vec![run];
                for place in recorded.iter().filter(|place| place.timeline == part.timeline) {
                    let told: Vec<_> =
                        open.iter().filter_map(|run| run.intersect(&place.span)).collect();
                    if told.is_empty() {
                        continue;
                    }
                    let record = self.segment(place).await?.map(|segment| GapRecord {
                        at: segment.info.last_time,
                        reason: segment.reason.unwrap_or_default(),
                    });
                    open = open.iter().flat_map(|run| missing(*run, [place.span])).collect();
                    gaps.extend(told.into_iter().map(|span| Gap {
                        timeline: part.timeline.clone(),
                        span,
                        record: record.clone(),
                    }));
                }
                gaps.extend(open.into_iter().map(|span| Gap {
                    timeline: part.timeline.clone(),
                    span,
                    record: None,
                }));
            }
        }
        gaps.sort_by_key(|gap| gap.span);
        Ok(gaps)
    }

    /// The segments of a timeline with changes from `earliest` to `latest`, superseded ones left
    /// out, in order.
    ///
    /// The first one is found by bisection, which reads what is known of a handful of segments,
    /// however many there are. That takes times to ascend with positions: where a store's clock
    /// was set back, more or less may be found there.
    ///
    /// # Errors
    /// When segments cannot be listed or read.
    async fn between(
        &self,
        timeline: &Timeline,
        earliest: Timestamp,
        latest: Timestamp,
    ) -> Result<Vec<Segment>> {
        let listed = current(&self.list(timeline, Span::ALL).await?);
        let (mut low, mut high) = (0, listed.len());
        while low < high {
            let middle = low.midpoint(high);
            // Segments without times say nothing: the next one that has some speaks for them.
            let mut probe = middle;
            let mut last = None;
            while probe < high && last.is_none() {
                let segment = self.segment(&listed[probe].place).await?;
                last = segment.and_then(|segment| segment.info.last_time);
                probe += usize::from(last.is_none());
            }
            match last {
                Some(time) if time < earliest => low = probe + 1,
                _ => high = middle,
            }
        }
        let mut found = Vec::new();
        for one in &listed[low..] {
            let Some(segment) = self.segment(&one.place).await? else { continue };
            if segment.info.first_time.is_some_and(|first| first > latest) {
                break;
            }
            found.push(segment);
        }
        Ok(found)
    }
}
