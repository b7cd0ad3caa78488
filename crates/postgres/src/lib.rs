//! PostgreSQL.

mod accounts;
mod checksum;
mod connect;
mod control;
mod error;
mod gate;
mod lsn;
mod relation;
mod sink;
mod source;
mod wal;

pub use self::connect::{ConnectOptions, TlsMode};
pub use self::error::{Error, Result};
pub use self::lsn::Lsn;
pub use self::sink::{ClusterSink, Ownership, RestoreOptions, TablespaceMapping};
pub use self::source::{
    Checkpoint, ClusterOptions, ClusterSource, ServerLogs, Unchanged, VerifyPages,
};
