//! The WAL of clusters in a journal: what is archived of it, and what is given back.
//!
//! A [`WalArchive`] stands over two journals of one store:
//!
//! | stream | timelines | positions |
//! |---|---|---|
//! | `wal` | `<system identifier>/<timeline>` ([`WalLine`]) | positions in the WAL |
//! | `wal-files` | `<system identifier>/<file name>` | bytes of the file |
//!
//! - **A whole segment** is sealed as `[n * size, (n + 1) * size)`, cut every 64 MiB from its
//!   beginning on where it is larger. **Pieces** of an unfinished one are shorter; the whole
//!   supersedes them. A request for a whole segment can be met by pieces only if they cover all of
//!   it.
//! - **A history file** belongs to its timeline: parent and position come from it, and its bytes are
//!   the fact `postgres.history`. A timeline but the first cannot be begun without it.
//! - **`.backup` and `.partial`** files are in the other stream, each on a timeline of its own, so
//!   that their places make no gaps. Neither is ever given for a request for something else.
//! - **One journal, one system.** Timelines of another system identifier are refused, unless that
//!   is said in words ([`NewSystem::Adopt`]). The first one is taken as it is. (Whoever may write and
//!   not read cannot see whose journal it is, and is not asked.)
//! - **Not there** is said only when the place where the journal is kept was asked for the exact
//!   names, and when it proved to know the cluster at all ([`WalArchive::knows`]): a mistyped name
//!   or a volume that is not mounted must not read as the end of the archive.

mod error;
mod frontier;
mod gap;
mod get;
mod history;
mod line;
mod local;
mod name;
mod notes;
mod push;
mod reading;
mod spool;

use std::sync::Arc;

use lifeboat_core::journal::{
    Appended, JournalLog, JournalName, MAX_SEGMENT, Position, SegmentInfo, Span, TimelineInfo,
};
use lifeboat_core::{Attributes, Bytes, Content, ErrorKind, Result, StoreRef};

use crate::lsn::Lsn;

pub use error::ArchiveError;
pub use get::{AtGap, GetOptions, Got, Tail};
pub use history::TimelineHistory;
pub use line::WalLine;
pub(crate) use name::WalName;
pub use notes::Notes;
pub use push::{PushOptions, Pushed};
pub use spool::Spool;

pub(crate) use get::padded;
pub(crate) use reading::joined;

/// The stream of WAL.
pub(crate) const WAL: &str = "wal";
/// The stream of the files that are no WAL to be replayed.
const FILES: &str = "wal-files";
/// The fact of a timeline that holds its history file.
const HISTORY: &str = "postgres.history";

/// What becomes of a system that a journal does not know, where it knows another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NewSystem {
    /// It is an error: two clusters write to one journal.
    #[default]
    Refuse,
    /// It is made known: somebody said that it takes the other one's place.
    Adopt,
}

/// The archive of a cluster's WAL.
#[derive(Clone)]
pub struct WalArchive {
    wal: Arc<dyn JournalLog>,
    files: Arc<dyn JournalLog>,
}

impl WalArchive {
    /// The archive of a store. `journal` gives the journals that it consists of.
    ///
    /// # Errors
    /// Never: the names of the streams are names.
    pub fn open(
        store: &StoreRef,
        mut journal: impl FnMut(&JournalName) -> Arc<dyn JournalLog>,
    ) -> Result<Self> {
        let wal = journal(&JournalName::new(store.clone(), WAL)?);
        let files = journal(&JournalName::new(store.clone(), FILES)?);
        Ok(Self { wal, files })
    }

    /// The journal of WAL.
    pub(crate) fn log(&self) -> Arc<dyn JournalLog> {
        Arc::clone(&self.wal)
    }

    /// Its name, for messages.
    pub fn name(&self) -> &JournalName {
        self.wal.name()
    }

    /// Whether anything of a system was ever begun. `false` is no proof: it may come from a listing
    /// that is behind.
    ///
    /// # Errors
    /// When the timelines cannot be listed or read.
    pub async fn knows(&self, system_id: u64) -> Result<bool> {
        Ok(self.systems().await?.contains(&system_id))
    }

    /// The system identifiers that have timelines, in order.
    ///
    /// # Errors
    /// When the timelines cannot be listed or read.
    pub async fn systems(&self) -> Result<Vec<u64>> {
        let timelines = self.wal.timelines().await?;
        let lines = timelines.iter().filter_map(|info| WalLine::of(&info.timeline));
        let mut systems: Vec<_> = lines.map(|line| line.system_id).collect();
        systems.sort_unstable();
        systems.dedup();
        Ok(systems)
    }

    /// Begins a timeline. All but the first of a cluster come with their history.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](lifeboat_core::ErrorKind::Refused) when the journal belongs to
    /// another system, and `new` does not say that this one takes its place, or when there is no
    /// history; [`ErrorKind::AlreadyExists`](lifeboat_core::ErrorKind::AlreadyExists) when the
    /// timeline is known with another one; when it cannot be stored.
    pub async fn begin(
        &self,
        line: WalLine,
        history: Option<&TimelineHistory>,
        new: NewSystem,
    ) -> Result<Appended> {
        let timeline = line.to_timeline()?;
        let history = history.filter(|history| history.timeline() == line.timeline);
        let known = self.wal.has_begun(&timeline).await?;
        let info = match history {
            Some(history) => {
                let Some((parent, at)) = history.fork(line) else {
                    return Err(ArchiveError::NoHistory { line }.into());
                };
                let facts = Attributes::new().with(HISTORY, history.bytes().to_vec());
                TimelineInfo::forked(timeline, parent.to_timeline()?, Position(at.0))
                    .with_facts(facts)
            }
            // Who has no history with him may go on with a timeline that others began.
            None if known => return Ok(Appended::Same),
            None if line.timeline == 1 => TimelineInfo::first(timeline),
            None => return Err(ArchiveError::NoHistory { line }.into()),
        };
        if known {
            return self.wal.begin(&info).await.map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => {
                    let name = TimelineHistory::name_of(line.timeline);
                    ArchiveError::HistoryDiffers { name }.into()
                }
                _ => error,
            });
        }
        let systems = match self.systems().await {
            // Who may write and not read cannot tell whose journal it is. What belongs to two
            // systems is kept apart by the names of timelines all the same.
            Err(error) if error.kind() == ErrorKind::Refused => Vec::new(),
            systems => systems?,
        };
        let foreign = !systems.is_empty() && !systems.contains(&line.system_id);
        if foreign && new == NewSystem::Refuse {
            let known: Vec<_> = systems.iter().map(u64::to_string).collect();
            return Err(ArchiveError::OtherSystem {
                journal: self.name().to_string(),
                known: known.join(", "),
                found: line.system_id,
            }
            .into());
        }
        self.wal.begin(&info).await
    }

    /// Whether a timeline was begun; `false` is proof that it was not.
    ///
    /// # Errors
    /// When that cannot be told.
    pub async fn has(&self, line: WalLine) -> Result<bool> {
        self.wal.has_begun(&line.to_timeline()?).await
    }

    /// The history files of all timelines of a system that have one, by their numbers: for
    /// [`RestoreOptions::histories`](crate::RestoreOptions::histories).
    ///
    /// # Errors
    /// When the timelines cannot be listed or read.
    pub async fn histories(&self, system_id: u64) -> Result<Vec<(u32, Bytes)>> {
        let mut histories = Vec::new();
        for info in self.wal.timelines().await? {
            let line = WalLine::of(&info.timeline).filter(|line| line.system_id == system_id);
            if let (Some(line), Some(bytes)) = (line, info.facts.bytes(HISTORY)) {
                histories.push((line.timeline, Bytes::copy_from_slice(bytes)));
            }
        }
        Ok(histories)
    }

    /// The history file of a timeline, byte for byte; `None` is proof that there is none.
    ///
    /// # Errors
    /// When that cannot be told.
    pub async fn history(&self, line: WalLine) -> Result<Option<Bytes>> {
        let Some(info) = self.wal.timeline(&line.to_timeline()?).await? else {
            return Ok(None);
        };
        Ok(info.facts.bytes(HISTORY).map(Bytes::copy_from_slice))
    }

    /// Appends WAL of a timeline that was begun, from `from` on: a piece of a segment, a whole one,
    /// or of one that is larger than 64 MiB each run of 64 MiB from its beginning on. What is
    /// longer is cut so. It is durable when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](lifeboat_core::ErrorKind::AlreadyExists) when just these
    /// positions have another content; [`ErrorKind::NotFound`](lifeboat_core::ErrorKind::NotFound)
    /// when the timeline was not begun; when it cannot be stored.
    pub async fn append(
        &self,
        line: WalLine,
        from: Lsn,
        mut bytes: Bytes,
        info: &SegmentInfo,
    ) -> Result<Appended> {
        let timeline = line.to_timeline()?;
        let to = Position(from.0.saturating_add(bytes.len() as u64));
        let mut appended = Appended::Same;
        for span in Span::new(Position(from.0), to)?.cut(MAX_SEGMENT) {
            // No run is longer than 64 MiB, and all of them together are the bytes.
            let part = bytes.split_to(bytes.len().min(span.length() as usize));
            let done = self.wal.append(&timeline, span, info, Content::bytes(part)).await?;
            if done == Appended::New {
                appended = Appended::New;
            }
        }
        Ok(appended)
    }

    /// The position after the last WAL of a timeline that is there; `None` without any. It comes
    /// from a listing.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub async fn end(&self, line: WalLine) -> Result<Option<Lsn>> {
        let end = self.wal.end(&line.to_timeline()?).await?;
        Ok(end.map(|position| Lsn(position.0)))
    }
}

#[cfg(test)]
mod tests;
