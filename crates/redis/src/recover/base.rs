//! A snapshot as the beginning of a recovery.

use lifeboat_core::journal::{Need, Timeline};
use lifeboat_core::{Completeness, SnapshotId, SnapshotInfo, Timestamp};

use crate::sink::AppendOnlyForm;
use crate::source::facts;
use crate::stream::STREAM;

/// A snapshot that says where in its server's history it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseSnapshot {
    /// Which one.
    pub snapshot: SnapshotId,
    /// Which history, by its replication id.
    pub timeline: Timeline,
    /// Where the server was reached, if the snapshot says so.
    pub server: Option<String>,
    /// Where in it, in bytes.
    pub offset: u64,
    /// From when on moments can be restored with what follows it.
    pub reached: Timestamp,
    /// In which database the stream goes on.
    pub database: u64,
    /// What its server reads.
    pub form: AppendOnlyForm,
}

impl BaseSnapshot {
    /// What a snapshot says of itself; `None` when it does not say where it is, or is not whole.
    pub fn of(info: &SnapshotInfo) -> Option<Self> {
        if info.completeness != Completeness::Whole {
            return None;
        }
        let need = Need::of(info, STREAM)?;
        Some(Self {
            snapshot: info.id,
            timeline: need.timeline,
            server: info.facts.text(facts::SERVER).map(ToOwned::to_owned),
            offset: need.from.0,
            reached: info.facts.text(facts::REACHED)?.parse().ok()?,
            database: info.facts.unsigned(facts::STREAM_DATABASE)?,
            form: AppendOnlyForm::of_version(info.facts.text(facts::VERSION).unwrap_or_default()),
        })
    }
}
