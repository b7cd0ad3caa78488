//! Where a receiver goes on, and what it found to be lost.

use jiff::Timestamp;
use lifeboat_core::Result;
use lifeboat_core::journal::{Position, SegmentKind, Span, missing};

use super::{WalArchive, WalLine};
use crate::lsn::Lsn;

impl WalArchive {
    /// The first position from `from` on that is not there, by a listing.
    ///
    /// # Errors
    /// When the segments cannot be listed.
    pub(crate) async fn first_missing(&self, line: WalLine, from: Lsn) -> Result<Lsn> {
        let within = Span::new(Position(from.0), Position::MAX)?;
        let listed = self.wal.list(&line.to_timeline()?, within).await?;
        let sealed = listed.iter().filter(|one| one.place.kind == SegmentKind::Sealed);
        let missing = missing(within, sealed.map(|one| one.place.span));
        Ok(missing.first().map_or(Lsn(u64::MAX), |first| Lsn(first.from().0)))
    }

    /// The newest timeline of a system that was begun, by a listing.
    ///
    /// # Errors
    /// When the timelines cannot be listed.
    pub(crate) async fn newest(&self, system_id: u64) -> Result<Option<u32>> {
        let timelines = self.wal.timelines().await?;
        let lines = timelines.iter().filter_map(|info| WalLine::of(&info.timeline));
        Ok(lines.filter(|line| line.system_id == system_id).map(|line| line.timeline).max())
    }

    /// Records that the WAL from `from` up to `to` is lost.
    ///
    /// # Errors
    /// When it cannot be stored; when `to` is not after `from`.
    pub(crate) async fn record_gap(
        &self,
        line: WalLine,
        from: Lsn,
        to: Lsn,
        reason: &str,
    ) -> Result<()> {
        let span = Span::new(Position(from.0), Position(to.0))?;
        let timeline = line.to_timeline()?;
        self.wal.record_gap(&timeline, span, reason, Timestamp::now()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lifeboat_core::journal::{JournalLog, SegmentInfo};
    use lifeboat_core::memory::MemoryJournal;
    use lifeboat_core::{Bytes, StoreRef};

    use super::*;
    use crate::archive::NewSystem;

    #[tokio::test]
    async fn a_hole_before_the_end_is_found() {
        let store = StoreRef::new("postgres", "main");
        let archive = WalArchive::open(&store, |name| {
            Arc::new(MemoryJournal::new(name.clone())) as Arc<dyn JournalLog>
        })
        .unwrap();
        let line = WalLine::new(7, 1);
        archive.begin(line, None, NewSystem::Refuse).await.unwrap();
        assert_eq!(archive.first_missing(line, Lsn(30)).await.unwrap(), Lsn(30));
        for (from, length) in [(0_u64, 40_usize), (40, 10), (60, 10)] {
            let bytes = Bytes::from(vec![1; length]);
            archive.append(line, Lsn(from), bytes, &SegmentInfo::default()).await.unwrap();
        }
        assert_eq!(archive.first_missing(line, Lsn(30)).await.unwrap(), Lsn(50));
        assert_eq!(archive.first_missing(line, Lsn(65)).await.unwrap(), Lsn(70));
        // That something is known to be lost does not make it be there.
        archive.record_gap(line, Lsn(50), Lsn(60), "lost").await.unwrap();
        assert_eq!(archive.first_missing(line, Lsn(0)).await.unwrap(), Lsn(50));
        assert_eq!(archive.newest(7).await.unwrap(), Some(1));
        assert_eq!(archive.newest(8).await.unwrap(), None);
    }
}
