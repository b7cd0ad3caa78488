//! PostgreSQL as a store of Lifeboat: physical backup and restore of a whole cluster, on the host
//! that has the data directory.
//!
//! | what | where |
//! |---|---|
//! | how the server is reached: address, user, secret, TLS | [`ConnectOptions`], [`TlsMode`] |
//! | a running cluster to back up, and what stands in the way | [`ClusterSource`], [`ClusterOptions`] |
//! | the same over the network, also from a standby | [`BaseBackupSource`], [`BaseBackupOptions`] |
//! | a directory to restore into | [`ClusterSink`], [`RestoreOptions`] |
//! | the WAL of a cluster in a journal | [`WalArchive`] |
//! | any moment back: what can be recovered, how, and to where | [`Windows`], [`RecoveryPlan`], [`RecoverySource`] |
//! | a snapshot on a server of its own, and what it is examined for | [`Scratch`], [`examine()`] |
//! | how far replicas are behind, and one that takes the primary's place | [`ServerStatus`], [`promote()`] |
//! | WAL by streaming: a server that is followed | [`Receiver`], [`ReceiverOptions`] |
//! | what can go wrong | [`enum@Error`], [`ArchiveError`], [`ReplicationError`], [`ReceiveError`] |
//!
//! PostgreSQL 14 to 18, from a primary. Backup and restore are a [`Source`] and a [`Sink`], moved
//! by [`transfer()`]; this crate knows no repository.
//!
//! # Example
//!
//! ```no_run
//! use lifeboat_core::{Context, Sink, Source, TransferOptions, transfer};
//! use lifeboat_postgres::{
//!     ClusterOptions, ClusterSink, ClusterSource, ConnectOptions, RestoreOptions,
//! };
//!
//! # async fn example(repository: &dyn Sink, snapshot: &dyn Source) -> lifeboat_core::Result<()> {
//! // Back up. The repository is any sink, and gives the last snapshot to compare with.
//! let connection = ConnectOptions::parse("host=/var/run/postgresql user=postgres")?
//!     .with_environment()?;
//! let cluster = ClusterSource::new("main", ClusterOptions::new(connection));
//! for finding in cluster.inspect().await?.blockers() {
//!     eprintln!("{}: {}", finding.what, finding.remedy);
//! }
//! let context = Context::silent();
//! let options = TransferOptions::default();
//! let summary = transfer(&cluster, repository, &options, &context).await?;
//! println!("recovers to {}", summary.completion.position);
//!
//! // Restore. A snapshot is any source.
//! let target = ClusterSink::new(RestoreOptions::new("/var/lib/postgresql/15/restored"));
//! let summary = transfer(snapshot, &target, &options, &context).await?;
//! println!("{}", summary.receipt.facts.text("postgres.next").unwrap_or_default());
//! # Ok(()) }
//! ```
//!
//! # How a backup is taken
//!
//! 1. One session is opened and stays open. It takes a temporary replication slot, so that no WAL
//!    goes that the backup needs, and begins the backup (`pg_backup_start`). Both end with the
//!    session, however that ends: nothing is left behind at the server.
//! 2. The data directory is proved to be that of this server: system identifier, lock file, and the
//!    very checkpoint with which the backup has just begun.
//! 3. The files are listed and read in the order of their paths, several side by side. A file is
//!    opened before it is announced, so that it may be removed while it waits; it is read up to the
//!    length that it had; what shrinks, grows or is torn meanwhile is mended by the WAL.
//! 4. When the last content has been read, `pg_control` is read, and the backup ended
//!    (`pg_backup_stop`, on the same session).
//! 5. The WAL from start to end follows, every page of it checked to be what its place says.
//!
//! If any of this fails, there is no snapshot. A damaged page is not such a failure: it is a
//! warning that names the relation, and a fact of the snapshot.
//!
//! # What a snapshot looks like
//!
//! ```text
//! cluster/…                             the data directory; tablespaces beneath pg_tblspc/<oid>
//! recovery/00000001000000000000002A     WAL from start to end
//! recovery/00000002.history             how the present timeline came about
//! recovery/backup_label                 as the server gave it, byte for byte
//! recovery/pg_control                   read last
//! recovery/tablespace_map               as the server gave it, when there are tablespaces
//! ```
//!
//! Relation files are given as [`Layout::Pages`], so that a repository compares and stores them page
//! by page. [`Unchanged::ByChangeTime`] says why files can be left unread that did not change.
//!
//! Not part of a snapshot: what the server rebuilds at every start (`pg_wal`, `pg_replslot`,
//! `pg_notify`, `pg_subtrans`, `pg_serial`, `pg_snapshots`, `pg_dynshmem`, `pg_stat_tmp`, caches),
//! temporary relations, the content of unlogged relations, files of transactions prepared after the
//! beginning (they come back from the WAL), and files outside the data directory.
//!
//! # Facts of a snapshot
//!
//! `postgres.version`, `.system_id`, `.catalog_version`, `.control_version`, `.block_size`,
//! `.wal_segment_size`, `.checksum_version`, `.start_lsn`, `.stop_lsn`, `.checkpoint_lsn`,
//! `.timeline`, `.started`, `.stopped`, `.databases` (oid and name), `.tablespaces` (oid and
//! location), `.devices`, `.pages`, `.damaged_pages`, `.damaged` (path and page numbers),
//! `.archive_mode`, `.standby`, `.wal_summaries`; and `journal.wal.timeline` and `.from`: where in its WAL a later moment begins to
//! depend on it. Give them to [`RestoreOptions::with_facts`], so that a restore can check more
//! before it begins.
//!
//! [`Source`]: lifeboat_core::Source
//! [`Sink`]: lifeboat_core::Sink
//! [`transfer()`]: lifeboat_core::transfer()
//! [`Layout::Pages`]: lifeboat_core::Layout::Pages

mod accounts;
mod archive;
mod base;
mod checksum;
mod connect;
mod control;
mod crc;
mod error;
mod examine;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod logical;
mod lsn;
mod receive;
mod recovery;
mod relation;
mod replica;
mod replication;
mod scratch;
mod sink;
mod source;
mod wal;

pub use self::archive::{
    ArchiveError, AtGap, GetOptions, Got, NewSystem, Notes, PushOptions, Pushed, Spool, Tail,
    TimelineHistory, WalArchive, WalLine,
};
pub use self::base::{BaseBackupError, BaseBackupOptions, BaseBackupSource};
pub use self::connect::{ConnectOptions, TlsMode};
pub use self::error::{Error, Result};
pub use self::examine::{Counted, Examination, ExamineOptions, ExpectedResult, Problem, examine};
pub use self::logical::{
    DatabaseError, DatabaseOptions, DatabaseRestoreOptions, DatabaseSink, DatabaseSource,
    DirectorySink, ExportForm, ExportOptions, ExportSink, Keep, Occupied, OlderServer, Others,
    Parts, Roles, TableName, TableOptions, TablePlace, TableSink,
};
pub use self::lsn::Lsn;
pub use self::receive::{Following, Freshness, ReceiveError, Receiver, ReceiverOptions, Watch};
pub use self::recovery::{
    BaseBackup, Bound, RecoveryError, RecoveryOptions, RecoveryPlan, RecoverySettings,
    RecoverySource, RecoveryTarget, TargetAction, TargetTimeline, WalSupply, Window, Windows,
};
pub use self::replica::{
    Fencing, PromoteOptions, Promoted, Replica, ReplicaError, Role, ServerStatus, promote,
};
pub use self::replication::{ReplicationError, ServerAnswer, SlotName};
pub use self::scratch::{Scratch, ScratchError, ScratchOptions, ScratchServer};
pub use self::sink::{
    Archiving, ClusterSink, Existing, Ownership, RestoreOptions, TablespaceMapping,
};
pub use self::source::{
    Checkpoint, ClusterOptions, ClusterSource, ServerLogs, Unchanged, VerifyPages,
};
