//! Reading WAL back: whole segments, or pieces that make up the whole.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;
use lifeboat_core::journal::{
    JournalLog, MAX_SEGMENT, Place, Position, SegmentKind, Span, Timeline, current, missing,
};
use lifeboat_core::{Content, Error, ErrorKind, Extent, Result};

use super::{WalArchive, WalLine};
use crate::lsn::Lsn;

impl WalArchive {
    /// The WAL from `from` up to `to`, without a gap: as it was appended in one, or put together
    /// from pieces. `None` when not all of it is there. That is proof as far as runs are asked for
    /// that were appended as they are; of pieces only a listing tells.
    ///
    /// # Errors
    /// When that cannot be told; when `to` is not after `from`. Damage that is met while the content
    /// is read is an error of the content.
    pub async fn read(&self, line: WalLine, from: Lsn, to: Lsn) -> Result<Option<Content>> {
        let timeline = line.to_timeline()?;
        let whole = Span::new(Position(from.0), Position(to.0))?;
        let mut parts = VecDeque::new();
        for run in whole.cut(MAX_SEGMENT) {
            let place = Place::sealed(&timeline, run);
            if self.wal.segment(&place).await?.is_some() {
                parts.push_back((place, 0, run.length()));
                continue;
            }
            let Some(pieces) = self.pieces(&timeline, run).await? else {
                return Ok(None);
            };
            parts.extend(pieces);
        }
        Ok(Some(joined(Arc::clone(&self.wal), parts)))
    }

    /// The WAL of a segment that was not finished: from its beginning up to where its pieces reach
    /// without a gap. `None` when there are none, or when there is WAL beyond a gap.
    ///
    /// # Errors
    /// As [`WalArchive::read`].
    pub async fn read_tail(
        &self,
        line: WalLine,
        from: Lsn,
        limit: Lsn,
    ) -> Result<Option<(Content, Lsn)>> {
        let Some(end) = self.end(line).await? else {
            return Ok(None);
        };
        if end <= from || end > limit {
            return Ok(None);
        }
        let content = self.read(line, from, end).await?;
        Ok(content.map(|content| (content, end)))
    }

    /// What of which segments makes up `run`: the place, how much of it to leave out, how much to
    /// take.
    async fn pieces(
        &self,
        timeline: &Timeline,
        run: Span,
    ) -> Result<Option<Vec<(Place, u64, u64)>>> {
        let listed = self.wal.list(timeline, run).await?;
        let sealed: Vec<_> =
            listed.into_iter().filter(|one| one.place.kind == SegmentKind::Sealed).collect();
        if !missing(run, sealed.iter().map(|one| one.place.span)).is_empty() {
            return Ok(None);
        }
        let mut next = run.from();
        let mut parts = Vec::new();
        for one in current(&sealed) {
            let span = one.place.span;
            let to = span.to().min(run.to());
            if to <= next {
                continue;
            }
            parts.push((one.place, next.0 - span.from().0, to.0 - next.0));
            next = to;
        }
        Ok(Some(parts))
    }
}

/// The content of parts of segments, one after the other. Each is read to its end, so that all of
/// it is checked.
pub(crate) fn joined(log: Arc<dyn JournalLog>, parts: VecDeque<(Place, u64, u64)>) -> Content {
    struct Open {
        place: Place,
        content: Content,
        skip: u64,
        take: u64,
    }
    let state = (log, parts, None::<Open>);
    Content::stream(stream::try_unfold(state, async |(log, mut parts, mut open)| {
        loop {
            let Some(mut part) = open.take() else {
                let Some((place, skip, take)) = parts.pop_front() else {
                    return Ok(None);
                };
                let Some(content) = log.read(&place).await? else {
                    let message = format!("read {place}: it was there, and is gone");
                    return Err(Error::new(ErrorKind::Unavailable, message)
                        .with_hint("somebody trims the journal meanwhile: try again"));
                };
                open = Some(Open { place, content, skip, take });
                continue;
            };
            let Some(extent) = part.content.next().await? else {
                if part.take > 0 {
                    let message = format!("read {}: it is shorter than its place", part.place);
                    return Err(
                        Error::new(ErrorKind::Corrupt, message).with_hint("run `lifeboat verify`")
                    );
                }
                continue;
            };
            let (extent, skipped) = without(extent, part.skip);
            part.skip -= skipped;
            let extent = first_of(extent, part.take);
            part.take -= extent.len();
            open = Some(part);
            if !extent.is_empty() {
                return Ok::<_, Error>(Some((extent, (log, parts, open))));
            }
        }
    }))
}

/// An extent without its first bytes, and how many those were.
fn without(extent: Extent, count: u64) -> (Extent, u64) {
    let count = count.min(extent.len());
    let rest = match extent {
        Extent::Data(mut bytes) => Extent::Data(bytes.split_off(count as usize)),
        Extent::Hole(length) => Extent::Hole(length - count),
        Extent::Unchanged(length) => Extent::Unchanged(length - count),
    };
    (rest, count)
}

fn first_of(extent: Extent, count: u64) -> Extent {
    let count = count.min(extent.len());
    match extent {
        Extent::Data(bytes) => Extent::Data(bytes.slice(..count as usize)),
        Extent::Hole(_) => Extent::Hole(count),
        Extent::Unchanged(_) => Extent::Unchanged(count),
    }
}
