//! What is missing before a segment that is archived.
//!
//! A server archives in order, so what is missing when a later segment comes is either on its way
//! (its `.ready` file is there), or the server counts it as archived and will never offer it. The
//! latter happens when `archive_command` was something else for a while, and at every promotion:
//! a standby does not archive what it received, and the old primary may have died before it could.
//! Such segments are often still in `pg_wal`. Then they are archived; if not, they are lost, and
//! the gap is recorded.

use lifeboat_core::journal::{MAX_SEGMENT, Place, Position, SegmentKind, Span, missing};
use lifeboat_core::{Context, Result, Timestamp};

use super::local::{Held, Local, blocking};
use super::name::Bounds;
use super::push::Pushed;
use super::{TimelineHistory, WalArchive, WalLine};
use crate::lsn::Lsn;

impl WalArchive {
    /// Sees that nothing is missing between the end of the archive and a segment. What is missing
    /// and in `pg_wal` is archived; what is not, and does not wait to be, is recorded as a gap.
    pub(super) async fn mind_gap(
        &self,
        local: &Local,
        timeline: u32,
        segment: u64,
        pushed: &mut Pushed,
        context: &Context,
    ) -> Result<()> {
        let from = local.size.start_of(segment);
        let (line, first) = self.owner_before(local, local.line(timeline), from).await?;
        if segment == 0 || self.has_before(local, line, segment).await? {
            return Ok(());
        }
        let Some(hole) = self.hole_before(local, line, first, from).await? else {
            return Ok(());
        };
        let reader = local.clone();
        let held = blocking(move || reader.segments()).await?;
        let within = |one: &&Held| {
            let bounds = Bounds::of(one.segment, local.size);
            one.timeline == line.timeline && bounds.to.0 <= from.0 && bounds.to.0 > hole.from().0
        };
        let mut there = Vec::new();
        for one in held.iter().filter(within) {
            let bounds = Bounds::of(one.segment, local.size);
            let span = Span::new(Position(bounds.from.0), Position(bounds.to.0))?;
            if !one.ready {
                let path = local.wal().join(local.size.name(line.timeline, one.segment));
                match self.segment_at(local, &path, line.timeline, one.segment).await {
                    Ok(_) => pushed.filled += 1,
                    // A file that is damaged fills no hole, and must not stop the archiving of
                    // what comes after it.
                    Err(error) if error.kind() == lifeboat_core::ErrorKind::Corrupt => {
                        context.warn(&path.display(), error.one_line());
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            there.push(span);
        }
        for lost in missing(hole, there) {
            let reason = format!(
                "the server did not have it in pg_wal any more when the WAL from {from} on was archived"
            );
            let timeline = line.to_timeline()?;
            self.wal.record_gap(&timeline, lost, &reason, Timestamp::now()).await?;
            let (lost_from, lost_to) = (Lsn(lost.from().0), Lsn(lost.to().0));
            let message = format!(
                "the WAL from {lost_from} to {lost_to} is missing and lost: no moment from there on can be recovered but from a later snapshot; take one now"
            );
            context.warn(&format!("timeline {}", line.timeline), message);
            pushed.lost.push((lost_from, lost_to));
        }
        Ok(())
    }

    /// Which timeline has what comes right before `from` in the history of `line`, and where that
    /// timeline's own segments begin: its beginning, if it is known.
    async fn owner_before(
        &self,
        local: &Local,
        line: WalLine,
        from: Lsn,
    ) -> Result<(WalLine, Option<Lsn>)> {
        if line.timeline == 1 {
            return Ok((line, None));
        }
        // The server has the history of the timeline that it writes.
        let reader = local.clone();
        let history = blocking(move || reader.history(&reader.wal(), line.timeline)).await?;
        let history = match history {
            Some(history) => Some(history),
            None => match self.history(line).await? {
                Some(bytes) => Some(TimelineHistory::parse(line.timeline, bytes)?),
                None => None,
            },
        };
        let mut owner = (line, None);
        for (parent, at) in history.iter().flat_map(|history| history.parents().iter().rev()) {
            if at.0 < from.0 {
                return Ok((owner.0, Some(*at)));
            }
            owner.0 = line.sibling(*parent);
        }
        Ok(owner)
    }

    /// Whether the segment before another one is there as a whole.
    async fn has_before(&self, local: &Local, line: WalLine, segment: u64) -> Result<bool> {
        let before = Bounds::of(segment.saturating_sub(1), local.size);
        let whole = Span::new(Position(before.from.0), Position(before.to.0))?;
        // Its runs are archived one after the other, so the last one tells.
        let Some(last) = whole.cut(MAX_SEGMENT).last() else {
            return Ok(false);
        };
        let place = Place::sealed(&line.to_timeline()?, last);
        self.wal.has(&place).await
    }

    /// What is missing right before `from`. `None` when nothing is, or when nothing before is
    /// known: then the archive begins here.
    async fn hole_before(
        &self,
        local: &Local,
        line: WalLine,
        first: Option<Lsn>,
        from: Lsn,
    ) -> Result<Option<Span>> {
        let timeline = line.to_timeline()?;
        let Some(before) = Span::checked(Position::MIN, Position(from.0)) else {
            return Ok(None);
        };
        let listed = self.wal.list(&timeline, before).await?;
        let sealed = listed.iter().filter(|one| one.place.kind == SegmentKind::Sealed);
        let end = sealed.map(|one| one.place.span.to()).max();
        // Of a timeline that was forked, the first segment is the one that holds the fork.
        let begins = first.map(|at| Position(local.size.start_of(local.size.holding(at)).0));
        Ok(end.max(begins).and_then(|end| Span::checked(end, Position(from.0))))
    }
}
