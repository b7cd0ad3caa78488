//! The words of `wal`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::units::bytes_or_none;
use super::which::name;

/// What is done with the WAL of a PostgreSQL cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Wal {
    /// Archive a file of pg_wal: PostgreSQL's archive_command
    #[command(after_help = PUSH)]
    Push(WalPush),
    /// Bring a file of the archive back: PostgreSQL's restore_command
    #[command(after_help = GET)]
    Get(WalGet),
    /// Let the WAL of another cluster into a journal, when it takes the place of the one before
    #[command(after_help = ADOPT)]
    Adopt(WalAdopt),
    /// Answer for `wal push` and `wal get` on a socket, so that a call costs milliseconds
    #[command(after_help = SERVE)]
    Serve(WalServe),
}

/// Whose WAL it is.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    /// The name of the cluster in the repository, as `lifeboat backup postgres --name` has it
    #[arg(long, value_parser = name)]
    pub(crate) name: String,
    /// The data directory; the current directory unless said, since PostgreSQL runs its commands
    /// there
    #[arg(long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub(crate) data_directory: PathBuf,
    /// The socket of the service that does the work where it runs (`lifeboat follow postgres`,
    /// `lifeboat wal serve`); unless said, in the directory for caches
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct WalPush {
    /// The file, as PostgreSQL gives it in %p: beneath the data directory
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// How much of what waits behind it is archived with it; 0 for none. Whether that is done is
    /// noted in the directory for caches (see --no-cache), so that the calls for it end at once
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = bytes_or_none)]
    pub(crate) ahead: u64,
}

#[derive(Debug, Args)]
pub(crate) struct WalGet {
    /// The file that is wanted, as PostgreSQL gives it in %f
    pub(crate) file: String,
    /// Where it is wanted, as PostgreSQL gives it in %p: beneath the data directory
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// For a standby, which asks again and must not stop: where it cannot be told whether the file
    /// exists, try for some seconds, then end with 1. Never give this for a recovery
    #[arg(long)]
    pub(crate) standby: bool,
    /// How much of what comes next is fetched with it, so that the calls for that end at once; 0 for
    /// nothing. It waits in the directory for caches (see --no-cache)
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = bytes_or_none)]
    pub(crate) ahead: u64,
    /// What is done where a segment is missing, and WAL that comes after it is there
    #[arg(long, value_enum, default_value_t = Gap::Stop)]
    pub(crate) at_gap: Gap,
}

/// What is done at a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Gap {
    /// Stop the server: what comes later would be lost unseen
    Stop,
    /// Let recovery end there
    End,
}

#[derive(Debug, Args)]
pub(crate) struct WalAdopt {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

#[derive(Debug, Args)]
pub(crate) struct WalServe {
    /// The name of the cluster in the repository
    #[arg(long, value_parser = name)]
    pub(crate) name: String,
    /// Where to listen; unless said, in the directory for caches, where the calls look for it
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

const SERVE: &str = "\
Opens the repository once, and answers until it is stopped. Run it as the account of the server, beside
a server that archives by command and is not followed: `lifeboat follow postgres` answers as well. Where
it does not run, or stops, a call does the work alone. See docs/postgres-wal.md.

Examples:
  lifeboat wal serve --name shop";

const PUSH: &str = "\
The file is durable in the repository when this ends with 0. The same file again is fine; another
content under the same name is refused, and so is the WAL of another cluster. See docs/postgres-wal.md.

Exit codes:
  0       it is durable in the repository, just as it is
  1..125  it is not known to be; PostgreSQL keeps it, and asks again

Examples:
  lifeboat wal push pg_wal/000000010000000A000000FF --name shop
  archive_command = 'lifeboat wal push %p --name shop --repo /srv/backups'";

const GET: &str = "\
PostgreSQL takes any exit code from 1 to 125 for the end of the archive: it then ends its recovery, and
takes writes. So 1 is kept for what was proved not to exist. See docs/postgres-wal.md.

Exit codes:
  0    the file is where it was wanted
  1    the repository has proved that it has no such file; with --standby, also: it cannot be told
  126  it cannot be told: a recovering server stops, and recovers further when it is started again
  143  stopped by SIGTERM, as by a server that is being stopped

Examples:
  lifeboat wal get 000000010000000A000000FF pg_wal/RECOVERYXLOG --name shop
  restore_command = 'lifeboat wal get %f %p --name shop --repo /srv/backups'";

const ADOPT: &str = "\
A journal belongs to one cluster, known by its system identifier; two that write to it would be told
from each other, and the second one is refused. After pg_upgrade, or when a cluster was made anew, run
this once in the data directory of the new one. What is there of the old one stays.

Examples:
  lifeboat wal adopt --name shop --data-directory /var/lib/postgresql/18/main";
