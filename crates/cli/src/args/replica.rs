//! The words of `replica`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::units::duration;

/// What is done with replicas.
#[derive(Debug, Subcommand)]
pub(crate) enum Replica {
    /// Say how far the replicas of a PostgreSQL server are behind, and whether it is one itself
    #[command(after_help = STATUS)]
    Status(ReplicaStatus),
    /// Let a PostgreSQL standby take the primary's place, when that is safe
    #[command(after_help = PROMOTE)]
    Promote(ReplicaPromote),
}

#[derive(Debug, Args)]
pub(crate) struct ReplicaStatus {
    /// How to reach the server, as for psql, without a password
    #[arg(long, default_value = "", value_name = "CONNINFO", hide_default_value = true)]
    pub(crate) conninfo: String,
    /// Exit with 3 when a replica is further behind than this
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) max_lag: Option<Duration>,
    /// Write the figures to this file, too, in Prometheus's text format, for the textfile collector
    /// of node_exporter
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReplicaPromote {
    /// How to reach the standby, as for psql, without a password
    #[arg(long, default_value = "", value_name = "CONNINFO", hide_default_value = true)]
    pub(crate) conninfo: String,
    /// How to reach the primary: it is asked how far it is, and whether it takes writes
    #[arg(long, value_name = "CONNINFO")]
    pub(crate) primary: Option<String>,
    /// Say that nobody writes to the primary any more, and nobody will
    #[arg(long)]
    pub(crate) fenced: bool,
    /// How long the standby may take to catch up, and then to promote
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration)]
    pub(crate) wait: Duration,
}

const STATUS: &str = "\
Exit codes:
  0  no replica is further behind than --max-lag
  3  one is, or does not stream

Examples:
  lifeboat replica status --conninfo 'host=db1.example user=monitor'
  lifeboat replica status --conninfo 'host=db2.example' --max-lag 10s --json";

const PROMOTE: &str = "\
Two servers that take writes are two histories, of which one will be lost. So the standby must have
replayed all it has, and all the primary has where that answers; and the primary must say itself that it
takes no writes, or you must say with --fenced that nobody can reach it. That it does not answer is no
proof. With --fenced and a primary that answers, the standby must have caught up with it.

Examples:
  lifeboat replica promote --conninfo 'host=db2.example user=postgres' --fenced
  lifeboat replica promote --conninfo 'host=db2.example' --primary 'host=db1.example' --fenced --wait 5m";
