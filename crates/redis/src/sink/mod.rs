//! A snapshot as an RDB file, for a server that is stopped; or, with the changes behind it, as
//! append-only files.
//!
//! The file appears under its name only when all of it is on disk and was read once more as an RDB:
//! it is written beside its place, under a name with a dot before it, and then linked to it, which
//! never replaces anything.
//!
//! # Append-only files hide it
//!
//! A server with `appendonly yes` reads its append-only files and nothing else; where there are
//! none, it starts empty and leaves the RDB unread. So a restore is refused where such files lie in
//! the target's directory, or where the configuration that is given says that they are used.

mod append_only;
mod set;
mod shards;
mod slice;
mod writing;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{Context, Header, Sink, Writing};

pub use self::set::{AppendOnlyForm, AppendOnlyOptions, AppendOnlySink};
pub use self::shards::ShardsSink;
use crate::error::Error;
use crate::selection::KeySelection;

/// What is done where a server would read append-only files in place of what is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppendOnly {
    /// The restore is refused.
    #[default]
    Refuse,
    /// The file is written all the same.
    Ignore,
}

/// How a restore to a file is done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// The file to make. Its directory must be there.
    pub path: PathBuf,
    /// The configuration of the server that will read it.
    pub config: Option<PathBuf>,
    /// What is done where that server would not read it.
    pub append_only: AppendOnly,
    /// Which keys go into the file. When not all do, it is an RDB of these keys alone, without
    /// functions. Two databases cannot go into one.
    pub selection: KeySelection,
}

impl RestoreOptions {
    /// A restore to the file `path`, which must not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            config: None,
            append_only: AppendOnly::Refuse,
            selection: KeySelection::default(),
        }
    }
}

/// An RDB file that does not exist yet.
#[derive(Debug, Clone)]
pub struct RdbFileSink {
    options: RestoreOptions,
}

impl RdbFileSink {
    /// A file, and how it is made.
    pub fn new(options: RestoreOptions) -> Self {
        Self { options }
    }
}

#[async_trait]
impl Sink for RdbFileSink {
    async fn look(&self, _: &Header, _: &Context) -> lifeboat_core::Result<()> {
        let options = self.options.clone();
        let look = move || writing::FileWriting::look(&options).map(drop);
        let looked = tokio::task::spawn_blocking(look).await;
        Ok(looked.map_err(|source| Error::Panicked { source })??)
    }

    async fn write(
        &self,
        _header: &Header,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Writing>> {
        let options = self.options.clone();
        let begin = move || writing::FileWriting::begin(&options);
        let begun = tokio::task::spawn_blocking(begin).await;
        let writing = begun.map_err(|source| Error::Panicked { source })??;
        context.phase("write the file");
        let writing: Arc<writing::FileWriting> = Arc::new(writing);
        Ok(Box::new(writing::Shared(writing, context.clone())))
    }
}
