//! `archive_command`: a file of `pg_wal` goes into the archive.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use lifeboat_core::journal::{
    Appended, MAX_SEGMENT, Position, SegmentInfo, Span, Timeline, TimelineInfo,
};
use lifeboat_core::{Bytes, Content, Context, Result, Timestamp};

use super::local::{Local, blocking, read_small};
use super::name::WalName;
use super::notes::Notes;
use super::{ArchiveError, NewSystem, WalArchive, WalLine};
use crate::lsn::Lsn;

/// How WAL is archived.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PushOptions {
    /// The data directory of the cluster. The server runs its commands there.
    pub data_directory: PathBuf,
    /// How many bytes of segments that wait behind the one asked for are archived with it. 0:
    /// none. 128 MiB unless said.
    pub ahead: u64,
    /// Where it is noted which of them are archived, so that their own calls end at once. Without
    /// it, nothing is archived ahead.
    pub notes: Option<Notes>,
}

/// No more segments than these are archived ahead, whatever their size.
const MOST_AHEAD: usize = 64;
/// How many segments are on their way at once.
const AT_ONCE: usize = 4;

impl PushOptions {
    /// For the cluster in this data directory.
    pub fn new(data_directory: impl Into<PathBuf>) -> Self {
        Self { data_directory: data_directory.into(), ahead: 128 << 20, notes: None }
    }

    /// Sets how many bytes are archived ahead.
    #[must_use]
    pub fn with_ahead(mut self, bytes: u64) -> Self {
        self.ahead = bytes;
        self
    }

    /// Sets where it is noted what was archived ahead.
    #[must_use]
    pub fn with_notes(mut self, notes: Notes) -> Self {
        self.notes = Some(notes);
        self
    }
}

/// What came of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// Whether the file was there already.
    pub appended: Appended,
    /// The timeline that was begun with it.
    pub begun: Option<WalLine>,
    /// How many segments behind it were archived with it.
    pub ahead: usize,
    /// What was found to be missing before it, and is lost; recorded as gaps.
    pub lost: Vec<(Lsn, Lsn)>,
    /// How many segments were missing before it and still in `pg_wal`; they are archived now.
    pub filled: usize,
}

impl WalArchive {
    /// Archives the file at `path`, which the server wants archived. Where it returns without an
    /// error, the file is durable in the archive, just as it is; so is what it acknowledges in the
    /// notes.
    ///
    /// Segments that wait behind it are archived as well, several side by side. Which of them are
    /// durable without one missing before is noted; the first that fails ends that, and is reported
    /// by its own call.
    ///
    /// WAL that is missing between the end of the archive and the segment is archived too if it is
    /// still in `pg_wal`, as it is on a standby that was promoted; otherwise it is recorded as a
    /// gap, unless it waits to be archived itself.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](lifeboat_core::ErrorKind::AlreadyExists) when a file of that
    /// name and another content is there; [`ErrorKind::Corrupt`](lifeboat_core::ErrorKind::Corrupt)
    /// when it is not what its name says; those of [`WalArchive::begin`]; when it cannot be read or
    /// stored. Trying again is always right.
    pub async fn push(
        &self,
        path: &Path,
        options: &PushOptions,
        context: &Context,
    ) -> Result<Pushed> {
        let directory = options.data_directory.clone();
        let local = blocking(move || Local::read(&directory)).await?;
        let path = local.directory.join(path);
        let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(name) = WalName::parse(file_name, local.size) else {
            return Err(ArchiveError::name(file_name).into());
        };
        let mut pushed =
            Pushed { appended: Appended::Same, begun: None, ahead: 0, lost: Vec::new(), filled: 0 };
        match name {
            WalName::History { timeline } => {
                let bytes = blocking(move || read_small(&path)).await?;
                let history = super::TimelineHistory::parse(timeline, bytes)?;
                let line = local.line(timeline);
                pushed.appended = self.begin(line, Some(&history), NewSystem::Refuse).await?;
                pushed.begun = (pushed.appended == Appended::New).then_some(line);
            }
            WalName::Segment { timeline, segment } => {
                pushed.begun = self.ensure(&local, timeline, &path).await?;
                pushed.appended = self.segment_at(&local, &path, timeline, segment).await?;
                self.mind_gap(&local, timeline, segment, &mut pushed, context).await?;
                if let Some(notes) = &options.notes {
                    let after = (timeline, segment);
                    pushed.ahead = self.push_ahead(&local, after, options, notes, context).await?;
                }
            }
            WalName::Partial { timeline, segment } => {
                pushed.begun = self.ensure(&local, timeline, &path).await?;
                pushed.appended =
                    self.keep_partial(&local, &path, timeline, segment, file_name).await?;
            }
            WalName::Backup { timeline, .. } => {
                pushed.begun = self.ensure(&local, timeline, &path).await?;
                let bytes = blocking({
                    let path = path.clone();
                    move || read_small(&path)
                })
                .await?;
                let kept = self.begin_kept(&local, file_name).await?;
                pushed.appended = self.keep(&kept, 0, bytes).await?;
            }
        }
        Ok(pushed)
    }

    /// Makes the cluster in a data directory known to the archive, though it holds another one:
    /// its present timeline is begun.
    ///
    /// # Errors
    /// As [`WalArchive::begin`].
    pub async fn adopt(&self, data_directory: &Path) -> Result<WalLine> {
        let directory = data_directory.to_owned();
        let (local, timeline) = blocking(move || {
            let control = crate::control::Control::read(&directory)?;
            Local::read(&directory).map(|local| (local, control.timeline))
        })
        .await?;
        let line = local.line(timeline);
        let history = blocking(move || local.history(&local.wal(), timeline)).await?;
        self.begin(line, history.as_ref(), NewSystem::Adopt).await?;
        Ok(line)
    }

    /// Begins the timeline of a file, with the history that lies beside it, unless it was begun.
    async fn ensure(&self, local: &Local, timeline: u32, path: &Path) -> Result<Option<WalLine>> {
        let line = local.line(timeline);
        if self.has(line).await? {
            return Ok(None);
        }
        let beside = path.parent().map_or_else(|| local.wal(), Path::to_owned);
        let reader = local.clone();
        let history = blocking(move || reader.history(&beside, timeline)).await?;
        let begun = self.begin(line, history.as_ref(), NewSystem::Refuse).await?;
        Ok((begun == Appended::New).then_some(line))
    }

    /// Archives one segment.
    pub(super) async fn segment_at(
        &self,
        local: &Local,
        path: &Path,
        timeline: u32,
        segment: u64,
    ) -> Result<Appended> {
        let (reader, at) = (local.clone(), path.to_owned());
        let file = blocking(move || reader.open_segment(&at, timeline, segment)).await?;
        let file = Arc::new(file);
        let mut info = SegmentInfo::default();
        // The server writes a segment to its end, and then no more.
        info.last_time = file.metadata().ok().and_then(|meta| {
            Timestamp::new(meta.mtime(), i32::try_from(meta.mtime_nsec()).ok()?).ok()
        });
        let mut appended = Appended::Same;
        for (from, run) in runs(&file, path, local.size.bytes()) {
            let bytes = run.await?;
            let from = Lsn(local.size.start_of(segment).0 + from);
            if self.append(local.line(timeline), from, bytes, &info).await? == Appended::New {
                appended = Appended::New;
            }
        }
        Ok(appended)
    }

    /// Keeps the last segment of a timeline that was left within it.
    async fn keep_partial(
        &self,
        local: &Local,
        path: &Path,
        timeline: u32,
        segment: u64,
        name: &str,
    ) -> Result<Appended> {
        let (reader, at) = (local.clone(), path.to_owned());
        let file = blocking(move || reader.open_segment(&at, timeline, segment)).await?;
        let file = Arc::new(file);
        let kept = self.begin_kept(local, name).await?;
        let mut appended = Appended::Same;
        for (from, run) in runs(&file, path, local.size.bytes()) {
            if self.keep(&kept, from, run.await?).await? == Appended::New {
                appended = Appended::New;
            }
        }
        Ok(appended)
    }

    /// Begins the timeline of a file that is no WAL to be replayed.
    async fn begin_kept(&self, local: &Local, name: &str) -> Result<Timeline> {
        let timeline = kept_as(local, name)?;
        self.files.begin(&TimelineInfo::first(timeline.clone())).await?;
        Ok(timeline)
    }

    /// Keeps a part of such a file.
    async fn keep(&self, timeline: &Timeline, from: u64, bytes: Bytes) -> Result<Appended> {
        let span = Span::new(Position(from), Position(from + bytes.len() as u64))?;
        let content = Content::bytes(bytes);
        self.files.append(timeline, span, &SegmentInfo::default(), content).await
    }

    /// Archives segments that wait behind one, and notes it.
    async fn push_ahead(
        &self,
        local: &Local,
        (timeline, segment): (u32, u64),
        options: &PushOptions,
        notes: &Notes,
        context: &Context,
    ) -> Result<usize> {
        let reader = local.clone();
        let held = blocking(move || reader.segments()).await?;
        let many = (options.ahead / local.size.bytes()) as usize;
        // Only a run without a hole: what comes after one is minded by its own call.
        let run = held
            .into_iter()
            .filter(|one| one.timeline == timeline && one.segment > segment)
            .zip(segment + 1..)
            .take_while(|(one, next)| one.segment == *next && one.ready)
            .take(many.min(MOST_AHEAD));
        let work = run.map(|(one, _)| async move {
            let path = local.wal().join(local.size.name(timeline, one.segment));
            // Before its content is read: what changes it afterwards changes this too.
            let noted = notes.identify(&path);
            let done = self.segment_at(local, &path, timeline, one.segment).await;
            (noted, done)
        });
        let mut done = stream::iter(work).buffered(AT_ONCE);
        let mut archived = Vec::new();
        while let Some((noted, result)) = done.next().await {
            match (noted, result) {
                (Some(noted), Ok(_)) => archived.push(noted),
                (None, _) => break,
                (_, Err(error)) => {
                    context.note("segments that wait", format!("left for later: {error}"));
                    break;
                }
            }
        }
        let count = archived.len();
        notes.write(archived).await;
        Ok(count)
    }
}

/// The timeline of a file that is no WAL to be replayed.
pub(super) fn kept_as(local: &Local, name: &str) -> Result<Timeline> {
    Timeline::new(format!("{}/{name}", local.system_id))
}

/// The runs of a file that are archived each by itself: where each begins, and its bytes when they
/// are wanted.
fn runs<'a>(
    file: &'a Arc<File>,
    path: &'a Path,
    length: u64,
) -> impl Iterator<Item = (u64, impl Future<Output = Result<Bytes>> + 'a)> + 'a {
    let whole = Span::checked(Position(0), Position(length));
    whole.into_iter().flat_map(|whole| whole.cut(MAX_SEGMENT)).map(move |run| {
        let (file, path) = (Arc::clone(file), path.to_owned());
        let read =
            blocking(move || {
                let mut bytes = vec![0; run.length() as usize];
                file.read_exact_at(&mut bytes, run.from().0)
                    .map_err(|source| ArchiveError::File { what: "read", path, source })?;
                Ok::<_, ArchiveError>(Bytes::from(bytes))
            });
        (run.from().0, read)
    })
}
