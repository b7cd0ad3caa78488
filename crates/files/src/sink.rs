//! A directory that a file tree is restored into.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use lifeboat_core::local::Root;
use lifeboat_core::{Context, Header, Result, Sink, Writing};

use crate::marker;
use crate::source::blocking;
use crate::target::Target;
use crate::writing::FilesWriting;

/// How a tree is restored.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SinkOptions {
    /// What happens to what is in the target.
    pub existing: Existing,
    /// Whose the restored files are.
    pub owners: Owners,
}

/// What happens to what is in the target of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Existing {
    /// The restore is refused, unless the target is empty or missing. An empty `lost+found` is
    /// a part of the file system and does not count.
    #[default]
    Refuse,
    /// It is moved aside within the target, and removed when the restore is durable; when the
    /// restore fails, it is put back. Needs room for both.
    Replace,
}

/// Whose the restored files are. Only root can give files to others: for anybody else, files
/// stay theirs, with one warning when that is not as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Owners {
    /// Those whose numbers the snapshot has.
    #[default]
    Numbers,
    /// Those whose names the snapshot has, where this machine knows them in `/etc/passwd` and
    /// `/etc/group`; the numbers otherwise.
    Names,
    /// The user that restores them. Set-id bits are left out.
    Mine,
}

/// What a target looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// There is no such directory.
    Missing,
    /// The directory is empty.
    Empty,
    /// A restore into it is running, or did not finish.
    Unfinished,
    /// It holds something, and no unfinished restore.
    Filled,
}

/// A directory, to restore a file tree into.
///
/// See the [crate's page](crate) for what is promised of a restore.
#[derive(Debug, Clone)]
pub struct FilesSink {
    path: PathBuf,
    options: SinkOptions,
}

impl FilesSink {
    /// A restore into the directory `path`, which is made when it does not exist. Nothing is
    /// touched yet.
    pub fn new(path: impl Into<PathBuf>, options: SinkOptions) -> Self {
        Self { path: path.into(), options }
    }

    /// The target.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the target looks like now.
    ///
    /// # Errors
    /// When it cannot be looked into, or is no directory.
    pub async fn state(&self) -> Result<State> {
        let path = self.path.clone();
        blocking(move || {
            if matches!(path.try_exists(), Ok(false)) {
                return Ok(State::Missing);
            }
            let root = Root::open(&path)?;
            Ok(if marker::is_there(&root)? {
                State::Unfinished
            } else if root.list(None)?.is_empty() {
                State::Empty
            } else {
                State::Filled
            })
        })
        .await
    }
}

#[async_trait]
impl Sink for FilesSink {
    async fn look(&self, _: &Header, _: &Context) -> Result<()> {
        let sink = self.clone();
        blocking(move || Target::look(&sink.path, sink.options.existing)).await
    }

    async fn write(&self, _: &Header, context: &Context) -> Result<Box<dyn Writing>> {
        let (sink, context) = (self.clone(), context.clone());
        let writing = blocking(move || {
            let target = Target::open(&sink.path, sink.options.existing)?;
            FilesWriting::new(target, sink.options.owners, context)
        });
        Ok(Box::new(writing.await?))
    }
}
