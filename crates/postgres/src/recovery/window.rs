//! What can be recovered: from when to when, with what is missing between.

use std::collections::BTreeMap;

use lifeboat_core::journal::{Gap, Position, TimelineInfo};
use lifeboat_core::{Result, Timestamp};

use super::BaseBackup;
use super::way::Way;
use crate::archive::{WalArchive, WalLine};
use crate::lsn::Lsn;

/// Moments that can be recovered, one after the other without a gap, on the way to one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Window {
    /// The timeline on which it ends.
    pub line: WalLine,
    /// Its earliest moment: the end of its oldest base.
    pub from: Lsn,
    /// The same by the server's clock.
    pub from_time: Timestamp,
    /// The end of the WAL that is there without a gap.
    pub to: Lsn,
    /// When the WAL up to there had been written, as far as that was recorded. The last transaction
    /// in it may have ended earlier.
    pub to_time: Option<Timestamp>,
    /// The snapshots from which a recovery can begin, the oldest first.
    pub bases: Vec<BaseBackup>,
}

/// The windows of a cluster, and what is missing between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Windows {
    /// In the order of their timelines and positions.
    pub windows: Vec<Window>,
    /// What is missing of the WAL after the oldest base.
    pub gaps: Vec<Gap>,
}

impl Windows {
    /// Finds what can be recovered from `bases`, which are of one store, and its archive.
    ///
    /// # Errors
    /// When the archive cannot be listed or read.
    pub async fn of(archive: &WalArchive, bases: &[BaseBackup]) -> Result<Self> {
        let known = archive.log().timelines().await?;
        let mut all = Self::default();
        let mut systems: BTreeMap<u64, Vec<&BaseBackup>> = BTreeMap::new();
        for base in bases {
            systems.entry(base.line.system_id).or_default().push(base);
        }
        for (system, mut bases) in systems {
            bases.sort_by_key(|base| (base.stop, base.taken));
            for line in lines(&known, system, &bases) {
                let Some(oldest) = bases.first() else { continue };
                let way = way_to(archive, &known, line, oldest.start).await?;
                let own = WindowsOn { way: &way, bases: &bases };
                all.windows.extend(own.find().await?);
                if known.iter().any(|info| WalLine::of(&info.timeline) == Some(line))
                    && let Some(base) = bases.iter().find(|base| way.passes(base))
                {
                    let from = Position(base.held().0);
                    let gaps = archive.log().gaps(&line.to_timeline()?, from).await?;
                    all.gaps.extend(gaps);
                }
            }
        }
        all.gaps.sort_by(|a, b| (&a.timeline, a.span).cmp(&(&b.timeline, b.span)));
        all.gaps.dedup();
        Ok(all)
    }
}

/// The timelines of a system, those of bases included, in order.
pub(super) fn lines(known: &[TimelineInfo], system: u64, bases: &[&BaseBackup]) -> Vec<WalLine> {
    let archived = known.iter().filter_map(|info| WalLine::of(&info.timeline));
    let of_bases = bases.iter().map(|base| base.line);
    let mut lines: Vec<_> =
        archived.chain(of_bases).filter(|line| line.system_id == system).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// The way to a timeline, of which the archive need not know anything: there may be none.
pub(super) async fn way_to(
    archive: &WalArchive,
    known: &[TimelineInfo],
    line: WalLine,
    from: Lsn,
) -> Result<Way> {
    let timeline = line.to_timeline()?;
    if known.iter().any(|info| info.timeline == timeline) {
        return Way::to(archive, known, line, from).await;
    }
    let mut known = known.to_vec();
    known.push(TimelineInfo::first(timeline));
    Way::to(archive, &known, line, from).await
}

struct WindowsOn<'a> {
    way: &'a Way,
    bases: &'a [&'a BaseBackup],
}

impl WindowsOn<'_> {
    /// Those that end on the timeline to which the way leads; others are found on theirs.
    async fn find(&self) -> Result<Vec<Window>> {
        let mut found: Vec<Window> = Vec::new();
        for base in self.bases.iter().filter(|base| self.way.passes(base)) {
            let reach = self.way.reach(base.held());
            // Behind the WAL that it holds there may be none in the archive.
            let to = if reach > base.held() { reach } else { base.stop };
            match found.last_mut() {
                Some(last) if base.stop <= last.to => {
                    last.bases.push((*base).clone());
                    last.to = last.to.max(to);
                }
                _ => found.push(Window {
                    line: self.way.line,
                    from: base.stop,
                    from_time: base.taken,
                    to,
                    to_time: Some(base.taken),
                    bases: vec![(*base).clone()],
                }),
            }
        }
        let fork = self.way.fork();
        let own = |window: &Window| {
            let based = window.bases.iter().any(|base| base.line == self.way.line);
            window.to > fork || based
        };
        found.retain(own);
        for window in &mut found {
            let last = window.bases.iter().map(|base| base.taken).max();
            window.to_time = self.way.time_of(window.to).await?.max(last);
        }
        Ok(found)
    }
}
