//! `restore_command`: a file comes back from the archive.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream;
use lifeboat_core::journal::{MAX_SEGMENT, Place, Position, SegmentKind, Span};
use lifeboat_core::{Content, Extent, Result};

use super::local::{Local, blocking};
use super::name::{Bounds, WalName};
use super::push::kept_as;
use super::reading::joined;
use super::{ArchiveError, Spool, WalArchive, WalLine};
use crate::lsn::Lsn;

/// What is done where a segment is missing and later WAL of its history is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AtGap {
    /// It is an error: recovery would end there, and what comes later would be lost unseen.
    #[default]
    Stop,
    /// The segment is not there, and that is said.
    End,
}

/// What is done with a segment of which only the beginning is there, and nothing after it: the last
/// one of a server that was received as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Tail {
    /// It is given with zeros up to the length of a segment. Recovery replays all of it, and then
    /// ends as it does where a crashed server stopped writing.
    #[default]
    Give,
    /// The segment is not there, and that is said: it may come yet.
    Withhold,
}

/// How WAL is given back.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GetOptions {
    /// The data directory of the cluster that recovers. The server runs its commands there.
    pub data_directory: PathBuf,
    /// What is done at a gap.
    pub at_gap: AtGap,
    /// What is done with an unfinished segment.
    pub tail: Tail,
    /// Where segments are left that are fetched ahead. Without it, none is.
    pub spool: Option<Spool>,
}

impl GetOptions {
    /// For the cluster in this data directory.
    pub fn new(data_directory: impl Into<PathBuf>) -> Self {
        let data_directory = data_directory.into();
        Self { data_directory, at_gap: AtGap::default(), tail: Tail::default(), spool: None }
    }

    /// Sets what is done at a gap.
    #[must_use]
    pub fn with_at_gap(mut self, at_gap: AtGap) -> Self {
        self.at_gap = at_gap;
        self
    }

    /// Sets where segments are left that are fetched ahead.
    #[must_use]
    pub fn with_spool(mut self, spool: Spool) -> Self {
        self.spool = Some(spool);
        self
    }

    /// Sets what is done with an unfinished segment.
    #[must_use]
    pub fn with_tail(mut self, tail: Tail) -> Self {
        self.tail = tail;
        self
    }
}

/// What came of a get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// The file is where it was wanted.
    Given,
    /// The file does not exist in the archive, and that is proved.
    Absent,
}

impl WalArchive {
    /// Gives the file `name` of the archive to the server, at `to`: as a whole or not at all, and
    /// on the disk when this returns.
    ///
    /// [`Got::Absent`] is said only when the archive has no such file, knows the cluster, and has
    /// nothing of its history that comes after the file.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](lifeboat_core::ErrorKind::Refused) when the archive knows nothing of
    /// the cluster, and at a gap; when anything cannot be told, read or written. None of them means
    /// that the file does not exist.
    pub async fn get(&self, name: &str, to: &Path, options: &GetOptions) -> Result<Got> {
        let directory = options.data_directory.clone();
        let local = blocking(move || Local::read(&directory)).await?;
        let Some(file) = WalName::parse(name, local.size) else {
            return Err(ArchiveError::name(name).into());
        };
        let to = local.directory.join(to);
        let line = local.line(file.timeline());
        let (content, length) = match file {
            WalName::History { .. } => match self.history(line).await? {
                Some(bytes) => {
                    let length = bytes.len() as u64;
                    (Some(Content::bytes(bytes)), length)
                }
                None => (None, 0),
            },
            WalName::Segment { segment, .. } => {
                let content = self.segment(&local, line, segment, name, options).await?;
                (content, local.size.bytes())
            }
            WalName::Backup { .. } | WalName::Partial { .. } => self.kept(&local, name).await?,
        };
        let Some(content) = content else {
            // Asked at last: an archive that answers here was there all the time before.
            if !self.knows(local.system_id).await? {
                let (journal, system_id) = (self.name().to_string(), local.system_id);
                return Err(ArchiveError::Unknown { journal, system_id }.into());
            }
            // Recovery ends here, or goes on in another timeline.
            if let (WalName::Segment { .. }, Some(spool)) = (file, &options.spool) {
                spool.keep_only(Vec::new()).await;
            }
            return Ok(Got::Absent);
        };
        let writing = write(content, length, name, &to);
        match (file, &options.spool) {
            (WalName::Segment { segment, .. }, Some(spool)) => {
                let ahead = self.fetch_ahead(&local, line, segment, spool);
                futures_util::join!(writing, ahead).0?;
            }
            _ => writing.await?,
        }
        Ok(Got::Given)
    }

    /// The content of a segment, in one or another way; `None` when it does not exist.
    async fn segment(
        &self,
        local: &Local,
        line: WalLine,
        segment: u64,
        name: &str,
        options: &GetOptions,
    ) -> Result<Option<Content>> {
        let Bounds { from, to } = Bounds::of(segment, local.size);
        if let Some(content) = self.read(line, from, to).await? {
            return Ok(Some(content));
        }
        if let Some((tail, end)) = self.read_tail(line, from, to).await? {
            return Ok(match options.tail {
                Tail::Give => Some(padded(tail, to.0 - end.0)),
                Tail::Withhold => None,
            });
        }
        match self.next_after(line, from, to).await? {
            Some(next) if options.at_gap == AtGap::Stop => {
                Err(ArchiveError::Gap { name: name.to_owned(), next }.into())
            }
            _ => Ok(None),
        }
    }

    /// Where WAL begins that is there, belongs to the history of `line`, and comes after a segment
    /// that is missing.
    async fn next_after(&self, line: WalLine, from: Lsn, to: Lsn) -> Result<Option<Lsn>> {
        let timelines = self.wal.timelines().await?;
        let timeline = line.to_timeline()?;
        let own = timelines.iter().find(|info| info.timeline == timeline);
        let fork = own.and_then(|info| info.fork.as_ref()).map_or(Position::MIN, |fork| fork.at);
        if fork.0 >= to.0 {
            // That is the parent's.
            return Ok(None);
        }
        let Some(rest) = Span::checked(Position(from.0), Position::MAX) else {
            return Ok(None);
        };
        let listed = self.wal.list(&timeline, rest).await?;
        let sealed = listed.iter().filter(|one| one.place.kind == SegmentKind::Sealed);
        let later = sealed.map(|one| one.place.span.from().max(rest.from())).min();
        // What left this timeline later needs all of it up to there.
        let left = timelines.iter().filter_map(|info| info.fork.as_ref());
        let left = left.filter(|fork| fork.parent == timeline && fork.at.0 > to.0);
        let left = left.map(|fork| fork.at).min();
        Ok(later.or(left).map(|position| Lsn(position.0)))
    }

    /// A file that is no WAL to be replayed, and its length.
    async fn kept(&self, local: &Local, name: &str) -> Result<(Option<Content>, u64)> {
        let timeline = kept_as(local, name)?;
        if self.files.timeline(&timeline).await?.is_none() {
            return Ok((None, 0));
        }
        let Some(end) = self.files.end(&timeline).await? else {
            return Ok((None, 0));
        };
        let runs = Span::new(Position::MIN, end)?.cut(MAX_SEGMENT);
        let parts = runs.map(|run| (Place::sealed(&timeline, run), 0, run.length()));
        Ok((Some(joined(Arc::clone(&self.files), parts.collect())), end.0))
    }
}

/// Content with zeros behind it.
pub(crate) fn padded(content: Content, zeros: u64) -> Content {
    let state = (content, zeros);
    Content::stream(stream::try_unfold(state, async |(mut content, zeros)| {
        let next = match content.next().await? {
            Some(extent) => Some((extent, (content, zeros))),
            None if zeros > 0 => Some((Extent::Hole(zeros), (Content::empty(), 0))),
            None => None,
        };
        Ok(next)
    }))
}

/// Writes a file beside its place, and moves it there when all of it is on the disk.
pub(super) async fn write(mut content: Content, length: u64, name: &str, to: &Path) -> Result<()> {
    // One call at a time asks for a place, so one that was killed leaves what the next one removes.
    let mut beside = to.as_os_str().to_owned();
    beside.push(".lifeboat");
    let beside = PathBuf::from(beside);
    let failed = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| ArchiveError::File { what, path, source }
    };
    let path = beside.clone();
    let mut file = blocking(move || {
        let _ = fs::remove_file(&path);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(&path).map_err(failed("make", &path))
    })
    .await?;
    let mut found = 0;
    while let Some(extent) = content.next().await? {
        found += extent.len();
        if found > length {
            break;
        }
        let path = beside.clone();
        file = blocking(move || {
            let written = match extent {
                Extent::Data(bytes) => file.write_all(&bytes),
                Extent::Hole(zeros) | Extent::Unchanged(zeros) => write_zeros(&mut file, zeros),
            };
            written.map(|()| file).map_err(failed("write", &path))
        })
        .await?;
    }
    if found != length {
        let _ = fs::remove_file(&beside);
        let name = name.to_owned();
        return Err(ArchiveError::Length { name, expected: length, found }.into());
    }
    let to = to.to_owned();
    blocking(move || {
        file.sync_all().map_err(failed("flush", &beside))?;
        fs::rename(&beside, &to).map_err(failed("move to its place", &to))
    })
    .await
}

fn write_zeros(file: &mut fs::File, mut count: u64) -> std::io::Result<()> {
    let zeros = vec![0; 1 << 20];
    while count > 0 {
        let part = count.min(zeros.len() as u64);
        file.write_all(&zeros[..part as usize])?;
        count -= part;
    }
    Ok(())
}
