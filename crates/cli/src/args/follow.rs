//! The words of `follow`.

use clap::{Args, Subcommand};

use super::redis::RedisServer;
use super::units::bytes;
use super::which::name;

/// Which kind of store.
#[derive(Debug, Subcommand)]
pub(crate) enum Follow {
    /// The WAL of a PostgreSQL cluster, over the network or a socket
    #[command(after_help = FOLLOW_POSTGRES)]
    Postgres(FollowPostgres),
    /// Every change that a Redis or Valkey server makes, over the network or a socket
    #[command(after_help = FOLLOW_REDIS)]
    Redis(FollowRedis),
}

#[derive(Debug, Args)]
pub(crate) struct FollowRedis {
    /// What the server is called in the repository: the name of its snapshots
    #[arg(long, value_parser = name)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) server: RedisServer,
    /// The server takes the place of another one, whose changes are kept under this name: go on
    /// with it, behind a gap. Needed once; a promoted replica does not need it
    #[arg(long)]
    pub(crate) adopt: bool,
}

const FOLLOW_REDIS: &str = "\
Runs until it is stopped (SIGTERM, SIGINT), as a service. It is to the server a replica that never
answers for it, and needs the same two rights as a backup: +psync +replconf. It begins with a
snapshot, unless the journal goes on from one that is there; from then on what the server changed is
in the repository about a second later, and acknowledged to the server only then. Any moment can be
restored: `lifeboat restore … --to-time`. Snapshots by `lifeboat backup redis` under the same name
make that faster, and let the journal be trimmed.

Lost connections, and a repository that does not answer, are tried again for ever, and nothing is
lost while the server's repl-backlog-size has it (1 MiB unless it was raised: raise it to what is
written in ten minutes). What was lost is recorded as a gap, which `lifeboat window` shows, and a new
snapshot is taken at once. Promotions of replicas are followed.

It ends with 0 when it was stopped, and with 1 when trying again cannot help: a wrong password at the
start, or a server that is not the one whose history the repository has.

Examples:
  lifeboat follow redis --name cache
  lifeboat follow redis --name cache --url redis://backup@cache1 --password-file /etc/lifeboat/redis
  lifeboat follow redis --name cache --url rediss://cache:6380 --tls-ca /etc/ssl/redis-ca.pem --json";

#[derive(Debug, Args)]
pub(crate) struct FollowPostgres {
    /// What the cluster is called in the repository: the name of its snapshots
    #[arg(long, value_parser = name)]
    pub(crate) name: String,
    /// How to reach the server, as for psql: "host=… port=… user=…" or a postgresql:// URL, without
    /// a password. What is not said comes from PGHOST, PGUSER and so on; the password from
    /// PGPASSWORD or ~/.pgpass. With several hosts, the first that answers is followed
    #[arg(long, default_value = "", value_name = "CONNINFO", hide_default_value = true)]
    pub(crate) conninfo: String,
    /// The replication slot, which is made when it is not there. It makes the server keep all WAL
    /// that is not in the repository yet: drop it when the cluster is not followed any more
    #[arg(long, default_value = "lifeboat", value_name = "NAME")]
    pub(crate) slot: String,
    /// Store every commit at once: for a server with this receiver's application_name (lifeboat,
    /// unless --conninfo says another) in synchronous_standby_names, whose commits then wait until
    /// they are in the repository
    #[arg(long)]
    pub(crate) synchronous: bool,
    /// Warn when so much of the server's WAL is not in the repository yet
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "4GiB")]
    pub(crate) warn_behind: u64,
    /// Where to listen for `wal push` and `wal get`, which then cost milliseconds; unless said, in
    /// the directory for caches, where the calls look for it
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<std::path::PathBuf>,
}

const FOLLOW_POSTGRES: &str = "\
Runs until it is stopped (SIGTERM, SIGINT), as a service: docs/postgres-streaming.md has a unit for
systemd. The role needs REPLICATION and a line of type \"replication\" in pg_hba.conf. What the
server wrote is in the repository about a second later, and acknowledged to the server only then.
Lost connections, and a repository that does not answer, are tried again for ever. Promotions are
followed to the new timeline. WAL that the server has removed before it was received is recorded
as a gap: `lifeboat journals` shows it.

It ends with 0 when it was stopped, and with 1 when trying again cannot help: a wrong password at
the start, or another cluster than the one whose WAL the repository holds under this name.

Examples:
  lifeboat follow postgres --name shop
  lifeboat follow postgres --name shop --conninfo 'host=db1.example user=backup sslmode=verify-full'
  lifeboat follow postgres --name shop --synchronous --json";
