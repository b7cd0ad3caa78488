//! A running cluster as a source: a physical backup, on the host that has the data directory.

mod backup;
mod cluster;
mod content;
mod damage;
mod doctor;
pub(crate) mod facts;
mod habits;
mod label;
pub(crate) mod lineage;
mod listing;
mod reading;
mod slots;
mod summaries;
mod walk;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{Baseline, Context, Inspection, Reading, Source, StoreRef};
use tokio::sync::Mutex;

pub use self::backup::Checkpoint;
pub(crate) use self::cluster::{blocking, lock_file};
pub(crate) use self::damage::{Damage, Pages, known_damage};
pub(crate) use self::label::Label;
use self::reading::{ClusterReading, Prepared};
pub(crate) use self::reading::{RECOVERY, nanoseconds, recovery_name};
pub use self::walk::ServerLogs;
pub(crate) use self::walk::{CLUSTER, bytes_to_path, is_later, left_out};
use crate::connect::ConnectOptions;
use crate::error::Result;

/// Whether the checksums of pages are looked at while they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum VerifyPages {
    /// They are, when the cluster has them. Damage is a warning: the backup goes on.
    #[default]
    Verify,
    /// They are not.
    Skip,
}

/// How files are recognised that are the same as in the last backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Unchanged {
    /// By size, modification time, change time and inode: such files are not opened.
    ///
    /// This is safe on a local file system: the kernel sets the change time at every write and
    /// nobody can set it back, so a file whose change time is as the last backup saw it, and older
    /// than that backup's beginning by more than any clock's tick, has exactly the bytes that were
    /// read then. On network file systems another host's clock and this host's cache stand in
    /// between; files there are recognised and always read.
    #[default]
    ByChangeTime,
    /// Not at all: every file is read.
    ReadAll,
}

/// What is backed up, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClusterOptions {
    /// How the server is reached. The backup is controlled over this connection; the data does not
    /// go through it.
    pub connection: ConnectOptions,
    /// Where the data directory is on this host. By default the server says it.
    pub data_directory: Option<PathBuf>,
    /// How the checkpoint is done with which the backup begins.
    pub checkpoint: Checkpoint,
    /// What the server writes into `backup_label`, for people. By default `lifeboat`.
    pub label: String,
    /// Whether page checksums are looked at.
    pub verify_pages: VerifyPages,
    /// Whether the server's log files belong to the backup.
    pub server_logs: ServerLogs,
    /// How files are recognised that the last backup has already.
    pub unchanged: Unchanged,
}

impl ClusterOptions {
    /// The server behind `connection`; everything else as usual.
    pub fn new(connection: ConnectOptions) -> Self {
        Self {
            connection,
            data_directory: None,
            checkpoint: Checkpoint::default(),
            label: "lifeboat".to_owned(),
            verify_pages: VerifyPages::default(),
            server_logs: ServerLogs::default(),
            unchanged: Unchanged::default(),
        }
    }

    /// Names the data directory on this host.
    #[must_use]
    pub fn with_data_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_directory = Some(path.into());
        self
    }
}

/// A running PostgreSQL cluster whose data directory is on this host.
///
/// Needs a role that may run the functions for a backup and read the settings, and an account that
/// may read the data directory; [`inspect`](Source::inspect) says what is missing.
///
/// While a reading is open, the server is in backup mode, and one session is open that keeps it so.
/// The first entry beneath `recovery` is given only when the contents of all entries before it have
/// been read or dropped: so contents must be read beside, not after, the calls of
/// [`next`](Reading::next), as [`transfer`](lifeboat_core::transfer()) does.
#[derive(Debug)]
pub struct ClusterSource {
    store: StoreRef,
    options: ClusterOptions,
    prepared: Mutex<Option<Prepared>>,
}

impl ClusterSource {
    /// The cluster that its owner calls `name`. Nothing is connected to yet.
    pub fn new(name: impl Into<String>, options: ClusterOptions) -> Self {
        let (store, prepared) = (StoreRef::new("postgres", name), Mutex::default());
        Self { store, options, prepared }
    }

    /// Connects to the server, asks whether it can be backed up, and has it keep its WAL.
    ///
    /// Reading does that by itself. Called before, it can go on beside other preparations, such as
    /// opening a repository; the next reading goes on from there. Dropping the source ends it.
    ///
    /// # Errors
    /// Those with which a reading would fail: the server is down, refuses, or is another one.
    pub async fn prepare(&self) -> Result<()> {
        let prepared = Prepared::make(&self.options).await?;
        *self.prepared.lock().await = Some(prepared);
        Ok(())
    }
}

#[async_trait]
impl Source for ClusterSource {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    async fn inspect(&self) -> lifeboat_core::Result<Inspection> {
        Ok(doctor::inspect(&self.options).await?)
    }

    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Reading>> {
        context.check()?;
        let prepared = self.prepared.lock().await.take();
        let reading = ClusterReading::start(&self.options, prepared, since, context).await?;
        Ok(Box::new(reading))
    }
}
