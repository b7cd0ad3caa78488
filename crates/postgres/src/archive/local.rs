//! The data directory in which the server runs the commands.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lifeboat_core::{Bytes, Result};

use super::history::MAX_HISTORY;
use super::name::WalName;
use super::{ArchiveError, TimelineHistory, WalLine};
use crate::control::Control;
use crate::lsn::SegmentSize;
use crate::wal::{Expected, PAGE, magic};
use crate::{Error, Lsn};

/// What the data directory says of its cluster.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    pub(crate) directory: PathBuf,
    pub(crate) system_id: u64,
    pub(crate) size: SegmentSize,
}

impl Local {
    /// Reads `pg_control`. Blocks.
    pub(crate) fn read(directory: &Path) -> Result<Self, Error> {
        let control = Control::read(directory)?;
        let (system_id, size) = (control.system_id, control.segment_size);
        Ok(Self { directory: directory.to_owned(), system_id, size })
    }

    pub(crate) fn line(&self, timeline: u32) -> WalLine {
        WalLine::new(self.system_id, timeline)
    }

    /// Where the WAL of the cluster is.
    pub(crate) fn wal(&self) -> PathBuf {
        self.directory.join("pg_wal")
    }

    /// The history of a timeline, as the directory `beside` has it.
    pub(crate) fn history(
        &self,
        beside: &Path,
        timeline: u32,
    ) -> Result<Option<TimelineHistory>, ArchiveError> {
        let path = beside.join(TimelineHistory::name_of(timeline));
        match read_small(&path) {
            Ok(bytes) => TimelineHistory::parse(timeline, bytes).map(Some),
            Err(ArchiveError::File { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a segment, or what there is of one, and sees that it is what its name says: as long as
    /// a segment is, and its first page of this cluster, this version and this place. Blocks.
    pub(crate) fn open_segment(
        &self,
        path: &Path,
        timeline: u32,
        segment: u64,
    ) -> Result<File, ArchiveError> {
        let file = File::open(path).map_err(|source| open_failed(path, source))?;
        let failed = |source| ArchiveError::File { what: "read", path: path.to_owned(), source };
        let length = file.metadata().map_err(failed)?.len();
        let bad = |why| ArchiveError::NotItsName { path: path.to_owned(), why };
        if length != self.size.bytes() {
            let size = self.size.bytes();
            return Err(bad(format!("it has {length} bytes, and segments here have {size}")));
        }
        let mut page = vec![0; PAGE];
        file.read_exact_at(&mut page, 0).map_err(failed)?;
        self.check_page(&page, timeline, segment).map_err(|error| match error {
            ArchiveError::NotItsName { why, .. } => bad(why),
            other => other,
        })?;
        Ok(file)
    }

    /// Sees that the first page of a segment is of this cluster, this version and this place. Blocks.
    pub(crate) fn check_page(
        &self,
        page: &[u8],
        timeline: u32,
        segment: u64,
    ) -> Result<(), ArchiveError> {
        let expected = Expected {
            magic: magic(self.major()?),
            system_id: self.system_id,
            timelines: 1..=timeline,
            size: self.size,
            segment,
            end: Lsn(u64::MAX),
        };
        let path = || self.wal().join(self.size.name(timeline, segment));
        expected.check(0, page).map_err(|why| ArchiveError::NotItsName { path: path(), why })
    }

    /// The major version of the server.
    fn major(&self) -> Result<u32, ArchiveError> {
        let path = self.directory.join("PG_VERSION");
        let bytes = read_small(&path)?;
        let text = String::from_utf8_lossy(&bytes);
        text.trim()
            .parse()
            .map_err(|_| ArchiveError::NotItsName { path, why: "it holds no version".to_owned() })
    }

    /// The segments that the server holds in `pg_wal`, with a mark of whether each waits to be
    /// archived. Blocks.
    pub(crate) fn segments(&self) -> Result<Vec<Held>, ArchiveError> {
        let names = |path: &Path| -> Result<Vec<String>, ArchiveError> {
            let failed =
                |source| ArchiveError::File { what: "list", path: path.to_owned(), source };
            let mut names = Vec::new();
            for entry in fs::read_dir(path).map_err(failed)? {
                names.extend(entry.map_err(failed)?.file_name().into_string());
            }
            Ok(names)
        };
        let ready: std::collections::HashSet<_> = names(&self.wal().join("archive_status"))?
            .into_iter()
            .filter_map(|name| Some(name.strip_suffix(".ready")?.to_owned()))
            .collect();
        let mut held: Vec<_> = names(&self.wal())?
            .into_iter()
            .filter_map(|name| match WalName::parse(&name, self.size)? {
                WalName::Segment { timeline, segment } => {
                    Some(Held { timeline, segment, ready: ready.contains(&name) })
                }
                _ => None,
            })
            .collect();
        held.sort_unstable();
        Ok(held)
    }
}

/// A segment in `pg_wal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Held {
    pub(crate) timeline: u32,
    pub(crate) segment: u64,
    /// Whether the server waits for it to be archived.
    pub(crate) ready: bool,
}

fn open_failed(path: &Path, source: std::io::Error) -> ArchiveError {
    ArchiveError::File { what: "open", path: path.to_owned(), source }
}

/// A file that is small, whatever else it is: no more than a history file may have. Blocks.
pub(crate) fn read_small(path: &Path) -> Result<Bytes, ArchiveError> {
    let file = File::open(path).map_err(|source| open_failed(path, source))?;
    let mut bytes = Vec::new();
    file.take(MAX_HISTORY + 1).read_to_end(&mut bytes).map_err(|source| ArchiveError::File {
        what: "read",
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > MAX_HISTORY {
        let why = format!("it has more than {MAX_HISTORY} bytes");
        return Err(ArchiveError::NotItsName { path: path.to_owned(), why });
    }
    Ok(bytes.into())
}

/// Runs what blocks, beside the runtime.
pub(crate) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    E: Into<lifeboat_core::Error> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(source) => Err(ArchiveError::Panicked { source }.into()),
    }
}
