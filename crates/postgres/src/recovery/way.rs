//! The way that recovery goes through the archive: from timeline to timeline up to one of them, and
//! what WAL there is of it.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use lifeboat_core::journal::{
    JournalLog, Place, Position, SegmentKind, Span, Stretch, TimelineInfo, current, lineage,
    missing,
};
use lifeboat_core::{Content, Extent, Result, Timestamp};

use super::BaseBackup;
use super::records::{Event, Records};
use crate::archive::{WalArchive, WalLine, joined};
use crate::lsn::Lsn;
use crate::wal;

/// The history of a timeline from some position on, and the WAL that there is of it.
pub(crate) struct Way {
    log: Arc<dyn JournalLog>,
    /// The timeline to which it leads.
    pub(crate) line: WalLine,
    /// On which timeline it is from where to where, in order.
    pub(crate) stretches: Vec<(WalLine, Span)>,
    /// What is there, in order. A timeline's first segment repeats what its parent had of it.
    parts: Vec<(Place, Span)>,
}

impl Way {
    /// The way from `from` on to `line`.
    pub(crate) async fn to(
        archive: &WalArchive,
        timelines: &[TimelineInfo],
        line: WalLine,
        from: Lsn,
    ) -> Result<Self> {
        let log = archive.log();
        let mut stretches = Vec::new();
        let mut parts = Vec::new();
        for Stretch { timeline, span } in lineage(timelines, &line.to_timeline()?)? {
            let Some(within) = Span::checked(Position(from.0), span.to()) else { continue };
            let Some(own) = WalLine::of(&timeline) else { continue };
            stretches.extend(span.intersect(&within).map(|span| (own, span)));
            let mut listed = log.list(&timeline, within).await?;
            listed.retain(|one| one.place.kind == SegmentKind::Sealed);
            parts.extend(current(&listed).into_iter().filter_map(|one| {
                let counts = one.place.span.intersect(&within)?;
                Some((one.place, counts))
            }));
        }
        parts.sort_by_key(|(_, span)| (span.from(), span.to()));
        Ok(Self { log, line, stretches, parts })
    }

    /// Whether a base lies on it.
    pub(crate) fn passes(&self, base: &BaseBackup) -> bool {
        let on = |(line, span): &(WalLine, Span)| {
            // What ends just where the timeline is left is still of it.
            *line == base.line && span.from().0 <= base.stop.0 && base.stop.0 <= span.to().0
        };
        self.stretches.iter().any(on)
    }

    /// Where the timeline to which it leads begins; 0 for a first one.
    pub(crate) fn fork(&self) -> Lsn {
        let own = self.stretches.iter().find(|(line, _)| *line == self.line);
        own.map_or(Lsn(u64::MAX), |(_, span)| Lsn(span.from().0))
    }

    /// The first position from `from` on that is not there.
    pub(crate) fn reach(&self, from: Lsn) -> Lsn {
        let Some(whole) = Span::checked(Position(from.0), Position::MAX) else { return from };
        let missing = missing(whole, self.parts.iter().map(|(_, span)| *span));
        missing.first().map_or(Lsn(u64::MAX), |first| Lsn(first.from().0))
    }

    /// The first position from `from` on that is there.
    pub(crate) fn next(&self, from: Lsn) -> Option<Lsn> {
        let ahead = self.parts.iter().filter(|(_, span)| span.to().0 > from.0);
        ahead.map(|(_, span)| Lsn(span.from().0.max(from.0))).min()
    }

    /// When the WAL up to `to` had been written, as far as who archived it knew.
    pub(crate) async fn time_of(&self, to: Lsn) -> Result<Option<Timestamp>> {
        let holds = |span: &Span| span.from().0 < to.0 && to.0 <= span.to().0;
        let mut latest = None;
        for (place, _) in self.parts.iter().filter(|(_, span)| holds(span)) {
            let known = self.log.segment(place).await?;
            latest = latest.max(known.and_then(|known| known.info.last_time));
        }
        Ok(latest)
    }

    /// A position from `from` on before which everything was written before `time`; as near as it
    /// can be told without reading WAL.
    pub(crate) async fn before(&self, from: Lsn, time: Timestamp) -> Result<Lsn> {
        let parts: Vec<_> = self.parts.iter().filter(|(_, span)| span.to().0 > from.0).collect();
        let (mut low, mut high) = (0, parts.len());
        while low < high {
            let middle = low.midpoint(high);
            let known = self.log.segment(&parts[middle].0).await?;
            match known.and_then(|known| known.info.last_time) {
                Some(last) if last < time => low = middle + 1,
                _ => high = middle,
            }
        }
        // Clocks are not exact, and neither are the times of files: one before is looked at too.
        let first = low.checked_sub(1).map_or(from, |at| Lsn(parts[at].1.from().0));
        Ok(first.max(from))
    }

    /// The WAL from `from` up to `to`; `None` when not all of it is there.
    pub(crate) fn read(&self, from: Lsn, to: Lsn) -> Option<Content> {
        let mut wanted = VecDeque::new();
        let mut next = from.0;
        let mut ahead = self.parts.iter().peekable();
        while next < to.0 {
            let mut best: Option<&(Place, Span)> = None;
            while let Some(part) = ahead.next_if(|(_, span)| span.from().0 <= next) {
                if best.is_none_or(|best| best.1.to() <= part.1.to()) {
                    best = Some(part);
                }
            }
            let (place, span) = best.filter(|(_, span)| span.to().0 > next)?;
            let until = span.to().0.min(to.0);
            wanted.push_back((place.clone(), next - place.span.from().0, until - next));
            next = until;
        }
        Some(joined(Arc::clone(&self.log), wanted))
    }

    /// Shows `each` what recovery could stop at, from the first record after `from` on up to `to`,
    /// until it has seen enough; and the first record at `sought`. Returns where the last record
    /// began that was read.
    pub(crate) async fn scan(
        &self,
        base: &BaseBackup,
        (from, to): (Lsn, Lsn),
        sought: Option<Lsn>,
        mut each: impl FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<Option<Lsn>> {
        let size = base.segment_size;
        // What the base itself holds need not be in the archive.
        let from = if self.reach(from) == from { from.max(base.held()) } else { from };
        let mut begin = size.start_of(size.holding(from));
        if self.reach(begin) < from {
            // Only the end of that segment is there; a page is where reading can begin.
            begin = Lsn(from.0.next_multiple_of(wal::PAGE as u64));
        }
        let Some(mut content) = (begin < to).then(|| self.read(begin, to)).flatten() else {
            return Ok(None);
        };
        let mut records = Records::new(wal::magic(base.major), size, begin).seeking(sought);
        let mut events = Vec::new();
        while let Some(extent) = content.next().await? {
            match extent {
                Extent::Data(bytes) => records.feed(&bytes, &mut events),
                Extent::Hole(zeros) | Extent::Unchanged(zeros) => {
                    records.feed_zeros(zeros, &mut events);
                }
            }
            for event in events.drain(..).filter(|event| event.at >= from) {
                if each(&event).is_break() {
                    return Ok(Some(event.at));
                }
            }
        }
        Ok(records.last())
    }
}
