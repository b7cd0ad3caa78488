//! Journals: sealed segments of a store's history, each to be read alone.
//!
//! ```text
//! header   160 bytes in the clear: what it is, where it belongs, a salt, a tag, lengths
//! record   sealed: names, times, facts, size and digest of the content, the table of frames
//! frames   the content in frames of 1 MiB, each compressed and sealed by itself
//! ```
//!
//! - **One object is one segment.** A segment is bounded ([`MAX_SEGMENT`]), so that it is sealed in
//!   memory and stored by one conditional request: it is there as a whole or not at all, and of
//!   two writers one wins. What is larger is split by who appends it and knows what positions
//!   mean ([`Span::cut`](lifeboat_core::journal::Span::cut)). The record stands first, so that one
//!   short read tells all about a segment, and one pass reads it.
//! - **Names** hold the positions in the clear, so that the store itself lists segments in order
//!   and answers for one exact name. Of journals and timelines they hold keyed hashes; the clear
//!   names are sealed within.
//! - **The same again** is known by the tag: a keyed hash of the place and the digest of the
//!   content, in the header. So pushing a segment again costs a read of 160 bytes, and takes no key
//!   that opens anything: who may write and not read can do it.
//! - **Salts are random**, as everywhere: no key ever seals two things under one nonce, whatever
//!   is tried again after a crash.
//! - **Times** are in the records only. Within a timeline they ascend with positions, so that a
//!   time is found by bisection: 17 short reads among 100 000 segments. Summaries beside the
//!   segments would have to be kept true by every writer; this needs nothing.

mod check;
mod contents;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod header;
mod log;
mod names;
mod record;
mod seal;
mod survey;

use futures_util::{StreamExt, stream};
use lifeboat_core::journal::{JournalLog, JournalName, MAX_SEGMENT, Place};

use crate::error::{Error, Result};
use crate::objects::JOURNALS;
use crate::repository::{Compression, Repository, Shared};
use header::Kind;
use log::RepositoryJournal;
use names::TimelineId;
use record::Record;

pub use check::{JournalGap, JournalReport};
pub(crate) use check::{check, check_without_key};
pub use survey::{JournalSurvey, TimelineSurvey};

/// Bytes of content in each frame but the last.
const FRAME: usize = 1 << 20;
/// No segment has more frames.
const MAX_FRAMES: usize = MAX_SEGMENT as usize / FRAME;
/// No record is larger, stored or opened.
const MAX_RECORD: usize = 1 << 20;
/// How many records are read at once.
const FETCHES: usize = 16;

/// How a journal is written.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct JournalOptions {
    /// How hard content is compressed.
    pub compression: Compression,
    /// What the object store has to promise.
    pub exclusivity: Exclusivity,
}

impl JournalOptions {
    /// Sets how hard content is compressed.
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets what the object store has to promise.
    #[must_use]
    pub fn with_exclusivity(mut self, exclusivity: Exclusivity) -> Self {
        self.exclusivity = exclusivity;
        self
    }
}

/// What keeps two writers of one journal from overwriting each other.
///
/// Elsewhere in a repository names are hashes, so that a race can only write the same bytes twice.
/// The names of segments are positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Exclusivity {
    /// The store makes an object only where there is none. One that cannot is refused.
    #[default]
    Store,
    /// The writer looks before it writes. Of two that append different segments to the same place
    /// in the same instant, the later one wins, and neither is told. For stores that cannot do
    /// better, where a journal has one writer.
    LookFirst,
}

/// The journals of a repository.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct JournalList {
    /// Those that can be told, by name.
    pub journals: Vec<JournalName>,
    /// Timelines whose records cannot be read, and why.
    pub damaged: Vec<(String, String)>,
}

impl Repository {
    /// A journal of this repository: a place to append segments to, and to read them from. It
    /// comes to be with its first timeline.
    pub fn journal(
        &self,
        name: &JournalName,
        options: &JournalOptions,
    ) -> impl JournalLog + Clone + use<> {
        RepositoryJournal::new(self.shared().clone(), name.clone(), options.clone())
    }

    /// Which journals there are. One that cannot be read does not hide the others.
    ///
    /// # Errors
    /// When the store cannot be listed or read.
    pub async fn journals(&self) -> Result<JournalList> {
        let read = read_timelines(self.shared()).await?;
        let mut list = JournalList::default();
        for (id, result) in read {
            let name = names::timeline_record(&id.folder());
            let journal = result.and_then(|record| match record {
                Some(record) => record.journal(&name),
                None => Err(Error::damaged(&name, "it is missing")),
            });
            match journal {
                Ok(journal) => list.journals.push(journal),
                Err(Error::Damaged { what, .. }) => list.damaged.push((name, what)),
                Err(Error::Rotated { epoch }) => {
                    list.damaged.push((name, format!("it names epoch {epoch}, which has no key")));
                }
                Err(error) => return Err(error),
            }
        }
        list.journals.sort();
        list.journals.dedup();
        list.damaged.sort();
        Ok(list)
    }
}

/// The object in which a segment or the record of a gap is.
pub(crate) fn object_of(shared: &Shared, journal: &JournalName, place: &Place) -> Result<String> {
    let id = TimelineId::new(&shared.keys, journal, &place.timeline)?;
    Ok(id.segment(place.span, place.kind))
}

/// The records of all timelines of all journals.
async fn read_timelines(shared: &Shared) -> Result<Vec<(TimelineId, Result<Option<Record>>)>> {
    let mut ids = Vec::new();
    for journal in shared.objects.folders(JOURNALS).await? {
        let folders = shared.objects.folders(&journal).await?;
        ids.extend(folders.iter().filter_map(|folder| TimelineId::in_folder(folder)));
    }
    let read = stream::iter(ids).map(async |id| {
        let name = names::timeline_record(&id.folder());
        (id, log::read_any(shared, &name, Kind::Timeline).await)
    });
    Ok(read.buffer_unordered(FETCHES).collect().await)
}
