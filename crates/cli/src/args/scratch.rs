//! The words of a rehearsed restore.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::recovery::Target;
use super::units::duration;
use super::which::{StoreName, store};

/// A restore into a scratch server, to see that it works.
#[derive(Debug, Args)]
#[command(next_help_heading = "Restore into a scratch server")]
pub(crate) struct Rehearsal {
    /// Restore this snapshot of a PostgreSQL cluster (the first digits of its id, or `latest`) into a
    /// scratch server, and examine it there
    #[arg(long, value_name = "SNAPSHOT")]
    #[arg(conflicts_with_all = ["every_byte", "sample", "budget", "max_duration", "within", "without_key"])]
    pub(crate) restore: Option<String>,
    /// Of this store, such as postgres/shop; its name alone when no other has it
    #[arg(long, value_name = "KIND/NAME", value_parser = store, requires = "restore")]
    pub(crate) store: Option<StoreName>,
    /// Queries and what they should answer: a JSON file, described in docs/postgres-verify.md
    #[arg(long, value_name = "FILE", requires = "restore")]
    pub(crate) checks: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: ScratchPlace,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Where a scratch server is made, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Restore into a scratch server")]
pub(crate) struct ScratchPlace {
    /// The directory beneath which the server is made and removed again. It needs room for all of
    /// the cluster
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// The directory with the programs of the server; without it, they are looked for
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: Option<PathBuf>,
    /// The superuser of the cluster as which its databases are looked at
    #[arg(long, value_name = "ROLE", default_value = "postgres")]
    pub(crate) superuser: String,
    /// The account that runs the server when this is run by root
    #[arg(long, value_name = "ACCOUNT", default_value = "postgres")]
    pub(crate) account: String,
    /// How long the server may take to recover
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub(crate) recovery_limit: Duration,
}
