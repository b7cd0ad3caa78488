//! A directory as a sink: a cluster is restored into it.

mod goes;
mod owner;
mod tablespace;
mod target;
mod writing;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use lifeboat_core::{Attributes, Context, Header, Sink, Writing};

pub use self::owner::Ownership;
pub use self::tablespace::TablespaceMapping;
use self::writing::ClusterWriting;
use crate::recovery::RecoverySettings;
use crate::source::blocking;

/// Where a cluster is restored to, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// The data directory: new, or empty.
    pub target: PathBuf,
    /// Tablespaces that go elsewhere than they were. The others go where they were: into directories
    /// that exist and are empty.
    pub tablespaces: Vec<TablespaceMapping>,
    /// To whom the files belong afterwards, when this process may decide it.
    pub ownership: Ownership,
    /// The facts of the snapshot that will be restored. With them, tablespaces are checked before
    /// anything is touched; without, when the first file of each arrives.
    pub facts: Option<Attributes>,
    /// What the cluster is told about its recovery. Without it, it recovers the WAL of the snapshot
    /// and no more.
    pub recovery: Option<RecoverySettings>,
    /// Whether the cluster archives its WAL when it starts.
    pub archiving: Archiving,
}

/// Whether a restored cluster archives its WAL when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Archiving {
    /// As it is set in the snapshot.
    #[default]
    Kept,
    /// No: it is a copy beside the original, and must not write into the original's archive.
    Off,
}

impl RestoreOptions {
    /// Into `target`; everything else as usual.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self {
            target: target.into(),
            tablespaces: Vec::new(),
            ownership: Ownership::default(),
            facts: None,
            recovery: None,
            archiving: Archiving::default(),
        }
    }

    /// Puts a tablespace elsewhere.
    #[must_use]
    pub fn with_tablespace(mut self, mapping: TablespaceMapping) -> Self {
        self.tablespaces.push(mapping);
        self
    }

    /// Sets to whom the files belong afterwards.
    #[must_use]
    pub fn with_ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = ownership;
        self
    }

    /// Sets what the cluster is told about its recovery.
    #[must_use]
    pub fn with_recovery(mut self, recovery: RecoverySettings) -> Self {
        self.recovery = Some(recovery);
        self
    }

    /// Sets whether the cluster archives its WAL when it starts.
    #[must_use]
    pub fn with_archiving(mut self, archiving: Archiving) -> Self {
        self.archiving = archiving;
        self
    }

    /// Tells what is known of the snapshot, so that more can be checked beforehand.
    #[must_use]
    pub fn with_facts(mut self, facts: Attributes) -> Self {
        self.facts = Some(facts);
        self
    }
}

/// A directory that becomes a data directory.
///
/// It refuses, before anything is touched: a target that is not empty, one in which a server runs,
/// and (when the facts of the snapshot are given) a tablespace whose directory is not empty, and a
/// snapshot without its WAL.
///
/// Until the commit there is no `global/pg_control`, without which no server starts, and a file
/// [`MARKER`](Self::MARKER) says why. At the commit everything is made durable, and `pg_control`
/// gets its name last. The restored cluster recovers from `backup_label` and the WAL beside it: no
/// archive, no `recovery.signal`, unless [`RestoreOptions::recovery`] says more.
///
/// Facts of the receipt: `postgres.directory`; `postgres.next`, how to start the server; and
/// `postgres.note.*`, what to know before.
#[derive(Debug)]
pub struct ClusterSink {
    options: RestoreOptions,
}

impl ClusterSink {
    /// The name of the file that says that a restore is not finished.
    pub const MARKER: &str = "lifeboat-restore-unfinished";

    /// Nothing is looked at yet.
    pub fn new(options: RestoreOptions) -> Self {
        Self { options }
    }

    /// The data directory to be.
    pub fn target(&self) -> &Path {
        &self.options.target
    }
}

#[async_trait]
impl Sink for ClusterSink {
    async fn write(
        &self,
        _: &Header,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Writing>> {
        context.check()?;
        let options = self.options.clone();
        let writing = blocking(move || ClusterWriting::begin(options)).await?;
        Ok(Box::new(writing))
    }
}
