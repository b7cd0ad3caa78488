//! A snapshot of a cluster, as recovery sees it.

use lifeboat_core::journal::Need;
use lifeboat_core::{Completeness, SnapshotId, SnapshotInfo, Timestamp};

use crate::archive::{WAL, WalLine};
use crate::lsn::{Lsn, SegmentSize};
use crate::source::facts;

/// A snapshot of a cluster from which a recovery can begin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseBackup {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The moment that it shows, by the server's clock.
    pub taken: Timestamp,
    /// The timeline on which it was taken.
    pub line: WalLine,
    /// From where on recovery reads WAL.
    pub start: Lsn,
    /// The end of the WAL that the snapshot itself holds: there the cluster is consistent.
    pub stop: Lsn,
    /// The major version of the server.
    pub major: u32,
    pub(crate) segment_size: SegmentSize,
    standby: bool,
}

impl BaseBackup {
    /// What a snapshot says of itself; `None` when it is no whole snapshot of a cluster, or one of
    /// which the WAL cannot be found because it does not say where it begins.
    pub fn of(info: &SnapshotInfo) -> Option<Self> {
        if info.store.kind() != "postgres" || info.completeness != Completeness::Whole {
            return None;
        }
        let lsn = |name| info.facts.text(name)?.parse::<Lsn>().ok();
        let need = Need::of(info, WAL)?;
        let size = u32::try_from(info.facts.unsigned(facts::SEGMENT_SIZE)?).ok()?;
        let version = info.facts.text(facts::VERSION)?;
        Some(Self {
            snapshot: info.id,
            taken: info.taken,
            line: WalLine::of(&need.timeline)?,
            start: lsn(facts::START)?,
            stop: lsn(facts::STOP)?,
            major: version.split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok()?,
            segment_size: SegmentSize::new(size)?,
            standby: info.facts.text(facts::STANDBY) == Some("on"),
        })
    }

    /// Up to where the snapshot holds WAL. A primary ends the segment in which a backup ends, and a
    /// standby cannot.
    pub(crate) fn held(&self) -> Lsn {
        if self.standby {
            return self.stop;
        }
        let last = self.segment_size.ending_at(self.stop);
        self.segment_size.start_of(last + 1)
    }
}
