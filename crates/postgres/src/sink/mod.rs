//! A directory as a sink: a cluster is restored into it.

mod finish;
mod former;
mod goes;
mod owner;
mod tablespace;
mod target;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::local::FormerFiles;
use lifeboat_core::{Attributes, Bytes, Context, Header, Sink, Writing};

pub use self::owner::Ownership;
pub use self::tablespace::TablespaceMapping;
use self::writing::{ClusterWriting, Plan};
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
    /// What the cluster is told about its recovery. By default it recovers the WAL of the snapshot
    /// and no more, and goes on in a new timeline.
    pub recovery: RecoverySettings,
    /// The histories of timelines that there are already, by their numbers: the restored cluster
    /// takes a number for its own that none of them has. See
    /// [`WalArchive::histories`](crate::WalArchive::histories).
    pub histories: Vec<(u32, Bytes)>,
    /// Whether the cluster archives its WAL when it starts.
    pub archiving: Archiving,
    /// What is done with a cluster that is in the target.
    pub existing: Existing,
}

/// What is done with a cluster that is in the target of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Existing {
    /// The target is refused.
    #[default]
    Refuse,
    /// It becomes the restored one: of its files, only the pages that differ are written, and what
    /// the snapshot does not have is removed. It must be the same cluster, by its system
    /// identifier, and no server may run in it. What it holds besides is lost, but for its WAL,
    /// which stays in `pg_wal.former`; a restore that is broken off leaves no cluster, and can be
    /// run again. [`RestoreOptions::facts`] are needed.
    Reuse,
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
            recovery: RecoverySettings::default(),
            histories: Vec::new(),
            archiving: Archiving::default(),
            existing: Existing::default(),
        }
    }

    /// Sets what is done with a cluster that is in the target.
    #[must_use]
    pub fn with_existing(mut self, existing: Existing) -> Self {
        self.existing = existing;
        self
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
        self.recovery = recovery;
        self
    }

    /// Tells which timelines there are already.
    #[must_use]
    pub fn with_histories(mut self, histories: Vec<(u32, Bytes)>) -> Self {
        self.histories = histories;
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
/// gets its name last. The restored cluster recovers from `backup_label` and the WAL beside it,
/// unless [`RestoreOptions::recovery`] says more, and then begins a new timeline: what it writes
/// from there on is another history than what the original wrote, and both may be archived.
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
    /// The name of the directory in which the former files are while they are
    /// [used again](Existing::Reuse).
    pub const FORMER: &str = "lifeboat-restore-former";

    /// Nothing is looked at yet.
    pub fn new(options: RestoreOptions) -> Self {
        Self { options }
    }

    /// The files that the target has from before, when they are [used again](Existing::Reuse): for a
    /// source that leaves out what is the same in them.
    pub fn former_files(&self) -> Option<Arc<dyn FormerFiles>> {
        let reused = self.options.existing == Existing::Reuse;
        reused.then(|| former::files(&self.options.target)).flatten()
    }

    /// The data directory to be.
    pub fn target(&self) -> &Path {
        &self.options.target
    }
}

#[async_trait]
impl Sink for ClusterSink {
    async fn look(&self, _: &Header, _: &Context) -> lifeboat_core::Result<()> {
        let options = self.options.clone();
        blocking(move || Plan::of(&options).map(drop)).await
    }

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
