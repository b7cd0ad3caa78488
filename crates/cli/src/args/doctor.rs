//! The words of `doctor`.

use std::path::PathBuf;

use clap::Subcommand;

use super::backup::{Server, Tree};
use super::database::Database;
use super::redis::RedisServer;

/// What to look at.
#[derive(Debug, Subcommand)]
pub(crate) enum Doctor {
    /// A PostgreSQL cluster
    Postgres {
        /// What the cluster is called in the repository: says whether what is there under this name
        /// is of this cluster
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// A database, for `backup database`
    Database(Box<Database>),
    /// A tree of files
    Files {
        /// The directory at the top of the tree
        path: PathBuf,
        #[command(flatten)]
        tree: Tree,
    },
    /// A Redis or Valkey server
    Redis(RedisServer),
    /// The repository, and the store it is in
    Repo,
}

pub(super) const DOCTOR: &str = "\
Exit code 1 means that something stands in the way of a backup.

Examples:
  lifeboat doctor
  lifeboat doctor postgres --conninfo 'host=/run/postgresql user=backup'
  lifeboat doctor postgres --name shop --conninfo 'host=/run/postgresql user=backup'
  lifeboat doctor database --conninfo dbname=shop
  lifeboat doctor postgres --remote --conninfo 'host=db1 user=backup'
  lifeboat doctor files /etc
  lifeboat doctor redis --url redis://backup@replica1";
