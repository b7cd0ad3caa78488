//! The words of `backup`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::database::{BACKUP_DATABASE, BackupDatabase};
use super::redis::{BACKUP_REDIS, BackupRedis};
use super::which::name;

/// Which kind of store.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// A PostgreSQL cluster, beside its server or over the network
    #[command(after_help = BACKUP_POSTGRES)]
    Postgres(BackupPostgres),
    /// A database of a PostgreSQL server, table by table
    #[command(after_help = BACKUP_DATABASE)]
    Database(BackupDatabase),
    /// A tree of files
    #[command(after_help = BACKUP_FILES)]
    Files(BackupFiles),
    /// A Redis or Valkey server, over the network
    #[command(after_help = BACKUP_REDIS)]
    Redis(BackupRedis),
}

/// How every store is backed up.
#[derive(Debug, Args)]
pub(crate) struct Taking {
    /// What the store is called in the repository. Snapshots of one name form one history
    #[arg(long, value_parser = name)]
    pub(crate) name: String,
    /// Read everything, also what is the same as in the last snapshot. Nothing is stored twice
    #[arg(long)]
    pub(crate) full: bool,
    /// A word for this snapshot, shown in lists; can be repeated
    #[arg(long = "tag", value_name = "WORD")]
    pub(crate) tags: Vec<String>,
}

/// How the server is reached.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// How to reach the server, as for psql: "host=… port=… user=… dbname=…" or a postgresql://
    /// URL, without a password. What is not said comes from PGHOST, PGUSER and so on; the password
    /// from PGPASSWORD or ~/.pgpass
    #[arg(long, default_value = "", value_name = "CONNINFO", hide_default_value = true)]
    pub(crate) conninfo: String,
    /// Where the data directory is on this host, when the server may not say it
    #[arg(long, value_name = "DIR")]
    pub(crate) data_directory: Option<PathBuf>,
    /// Have the server send its files, instead of reading its data directory: for a server on
    /// another host, and for a standby
    #[arg(long, conflicts_with = "data_directory")]
    pub(crate) remote: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BackupPostgres {
    #[command(flatten)]
    pub(crate) taking: Taking,
    #[command(flatten)]
    pub(crate) server: Server,
    /// How the backup's checkpoint is made: at once, or spread out as the server's own
    #[arg(long, value_enum, default_value_t = Checkpoint::Fast)]
    pub(crate) checkpoint: Checkpoint,
    /// Leave the server's log files out
    #[arg(long)]
    pub(crate) without_logs: bool,
}

const BACKUP_POSTGRES: &str = "\
The backup is physical: the files of the whole cluster, with the WAL that makes them consistent, so
that every snapshot restores by itself. The role needs the rights for a backup, and this user must
be able to read the data directory; `lifeboat doctor postgres` says what is missing. Damaged pages
are reported as warnings.

With --remote the server sends its files over the replication protocol (BASE_BACKUP): the role needs
REPLICATION, pg_hba.conf a line of the type replication for it, and the server may be a standby
(PostgreSQL 15 and later). Both ways make the same snapshots, under one name; the one beside the
server is faster, and leaves unread what did not change.

Examples:
  lifeboat backup postgres --name shop
  lifeboat backup postgres --name shop --conninfo 'host=/run/postgresql user=backup' --tag nightly
  lifeboat backup postgres --name shop --remote --conninfo 'host=db1 user=backup sslmode=verify-full'";

/// How the checkpoint is made with which a backup begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Checkpoint {
    /// At once: the backup begins within seconds.
    Fast,
    /// Slowly: the backup begins after minutes, and nobody notices it.
    Spread,
}

#[derive(Debug, Args)]
pub(crate) struct BackupFiles {
    /// The directory at the top of the tree
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) taking: Taking,
    #[command(flatten)]
    pub(crate) tree: Tree,
}

/// What of a tree is read.
#[derive(Debug, Args)]
pub(crate) struct Tree {
    /// Leave out what matches: a name such as '*.tmp', or a path from the top of the tree such as
    /// /var/cache; ** stands for any number of directories. Can be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Do not go into other file systems that are mounted in the tree
    #[arg(long)]
    pub(crate) one_file_system: bool,
}

const BACKUP_FILES: &str = "\
Modes, owners, times, links, extended attributes, holes, pipes and device nodes are kept. Files
that are the same as in the last snapshot are not read. Those that change or vanish while they are
read are warnings, and the command ends with 3.

Examples:
  lifeboat backup files /etc --name etc
  lifeboat backup files /srv/www --name www --exclude '*.tmp' --exclude /cache --tag before-upgrade";
