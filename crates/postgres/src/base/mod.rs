//! A base backup over the network: a running server sends its own files.
//!
//! This is the way for a server whose disk this host does not see: one connection of the
//! replication protocol, on which the server copies the whole cluster (`BASE_BACKUP`). A standby
//! can do it as well, so that the primary has no work with it. Who runs beside the server is faster
//! with [`ClusterSource`](crate::ClusterSource), which reads files side by side and leaves out those
//! that did not change; snapshots have the same form either way, and share what is stored.
//!
//! # How it goes
//!
//! ```text
//! server ── one stream of archives ──▸ pump ── entries, buffers ──▸ reading ──▸ transfer
//!                                       │ tar · CRC-32C of each file · pages · WAL
//!                                       └ the manifest is held against what arrived
//! ```
//!
//! 1. The server is asked who it is, and takes a temporary slot, so that the WAL that the backup
//!    needs stays. Both end with the connection, however that ends: nothing is left behind.
//! 2. It begins the backup, and sends the tablespaces, the data directory, `pg_control` last of all
//!    files, and then the WAL from start to end, each as an archive of tar.
//! 3. A task of its own takes the stream apart (`pump`), a few buffers ahead of whoever takes the
//!    entries. Files of up to 1 MiB are given as a whole; of larger ones the content comes as it
//!    arrives, one file after the other. What no backup has is left out here as it is there.
//! 4. At the end, and before the last entry counts: every file must have the size and the CRC-32C
//!    that the server's manifest says, none may be missing or too many, and the manifest must have
//!    its own SHA-256; every page of the WAL must be what its place says, and the checkpoint with
//!    which the backup begins must lie in it.
//!
//! If any of this fails, there is no snapshot. Damaged pages are no such failure: the server says at
//! the end that it found some, after it has sent everything. They are found here, too, by the same
//! rules, and so named one by one as a backup beside the server names them.
//!
//! # Only what changed
//!
//! A server from version 17 on that summarises its WAL is told of the last snapshot, by a manifest
//! that is made of it (`prior`), and then sends of a relation only the pages that changed since
//! (`changes`). What it does not send becomes [`Extent::Unchanged`]: the snapshot is as complete as any.
//! `backup_label` is freed of the two lines that would make it less. Where that cannot be, everything
//! is sent, and a note says why.
//!
//! [`Extent::Unchanged`]: lifeboat_core::Extent::Unchanged
//!
//! # The order
//!
//! The server sends files as its directories have them, so entries do not come in the order of
//! their names ([`Order::AsTheyCome`]), and not every sink can take them; a repository can.

mod changed;
mod changes;
mod doctor;
mod error;
mod files;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod manifest;
mod member;
mod prior;
mod proof;
mod pump;
mod reading;
mod server;
mod tar;
mod tops;

use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{Baseline, Context, Inspection, Order, Reading, Result, Source, StoreRef};
use tokio::sync::Mutex;

pub use self::error::BaseBackupError;
use self::reading::BaseReading;
use self::server::Server;
use crate::connect::ConnectOptions;
use crate::source::{Checkpoint, ServerLogs, VerifyPages};

/// How a base backup is taken.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BaseBackupOptions {
    /// How the server is reached, for its replication protocol: the role needs `REPLICATION`, and
    /// `pg_hba.conf` a line of the type `replication` for it.
    pub connection: ConnectOptions,
    /// How the checkpoint is done with which the backup begins.
    pub checkpoint: Checkpoint,
    /// What the server writes into `backup_label`, for people. By default `lifeboat`.
    pub label: String,
    /// Whether page checksums are looked at, by the server and here.
    pub verify_pages: VerifyPages,
    /// Whether the server's log files belong to the backup. The server sends them in any case.
    pub server_logs: ServerLogs,
}

impl BaseBackupOptions {
    /// The server behind `connection`; everything else as usual.
    pub fn new(connection: ConnectOptions) -> Self {
        Self {
            connection,
            checkpoint: Checkpoint::default(),
            label: "lifeboat".to_owned(),
            verify_pages: VerifyPages::default(),
            server_logs: ServerLogs::default(),
        }
    }
}

/// A running PostgreSQL cluster, primary or standby, that sends its files over the network.
///
/// PostgreSQL 15 to 18. A reading holds one connection, and with it one WAL sender and one
/// replication slot of the server, until it is dropped. Contents must be read beside the calls of
/// [`next`](Reading::next), as [`transfer`](lifeboat_core::transfer()) does: the server sends one
/// file after the other.
#[derive(Debug)]
pub struct BaseBackupSource {
    store: StoreRef,
    options: BaseBackupOptions,
    prepared: Mutex<Option<Server>>,
}

impl BaseBackupSource {
    /// The cluster that its owner calls `name`: the same name as for a backup beside the server
    /// makes one history of both. Nothing is connected to yet.
    pub fn new(name: impl Into<String>, options: BaseBackupOptions) -> Self {
        let (store, prepared) = (StoreRef::new("postgres", name), Mutex::default());
        Self { store, options, prepared }
    }

    /// Connects to the server, asks whether it can be backed up, and has it keep its WAL.
    ///
    /// Reading does that by itself. Called before, it can go on beside other preparations, such as
    /// opening a repository; the next reading goes on from there. Dropping the source ends it.
    ///
    /// # Errors
    /// Those with which a reading would fail: the server is down, refuses, or is of a version that
    /// cannot be backed up so.
    pub async fn prepare(&self) -> Result<()> {
        let server = Server::open(&self.options.connection).await?;
        *self.prepared.lock().await = Some(server);
        Ok(())
    }
}

#[async_trait]
impl Source for BaseBackupSource {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    fn order(&self) -> Order {
        Order::AsTheyCome
    }

    async fn inspect(&self) -> Result<Inspection> {
        doctor::inspect(&self.options.connection).await
    }

    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> Result<Box<dyn Reading>> {
        context.check()?;
        let prepared = self.prepared.lock().await.take();
        let server = match prepared {
            Some(server) => server,
            None => Server::open(&self.options.connection).await?,
        };
        Ok(Box::new(BaseReading::start(server, since, &self.options, context).await?))
    }
}
