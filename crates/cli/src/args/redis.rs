//! The words for Redis.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use lifeboat_redis::Way;

use super::backup::Taking;
use super::which::Which;

/// How the server is reached.
#[derive(Debug, Args)]
pub(crate) struct RedisServer {
    /// Where the server is: redis://[user@]host[:port], rediss://… for TLS, unix:///path/of/socket, or
    /// redis+sentinel://[user@]host[:port],host[:port]/service for where Sentinels say that it is.
    /// Without a password: that comes from REDISCLI_AUTH, or from --password-file
    #[arg(long, default_value = "redis://127.0.0.1:6379", value_name = "URL")]
    pub(crate) url: String,
    /// Read the server's password from the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Read the password of the Sentinels, where they want one, from the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) sentinel_password_file: Option<PathBuf>,
    /// Trust the authorities in this file (PEM) to vouch for the server, and no others. Without this
    /// option, those of the operating system are trusted
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Show this certificate (PEM) to the server
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BackupRedis {
    #[command(flatten)]
    pub(crate) taking: Taking,
    #[command(flatten)]
    pub(crate) server: RedisServer,
    /// Back up this server alone, also when it is a node of a cluster
    #[arg(long)]
    pub(crate) alone: bool,
    /// Back up the append-only files that the server writes on this host, without asking it: the
    /// directory with the manifest (appendonlydir), or before 7.0 the one file
    #[arg(long, value_name = "PATH", conflicts_with_all = ["url", "alone", "by"])]
    pub(crate) aof: Option<PathBuf>,
    /// How the server is read. Without it: by replication, and where the server refuses that, key by
    /// key, with a warning
    #[arg(long, value_enum)]
    pub(crate) by: Option<By>,
}

/// How a server is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// As a replica does it: as of one moment, or not at all
    Replication,
    /// Key by key, with SCAN and DUMP: not of one moment
    Scan,
}

impl BackupRedis {
    pub(crate) fn way(&self) -> Way {
        match self.by {
            None => Way::Either,
            Some(By::Replication) => Way::Replication,
            Some(By::Scan) => Way::Scan,
        }
    }
}

pub(super) const BACKUP_REDIS: &str = "\
The server sends all its databases as of one moment, as it does to a new replica: with functions,
expiry times, and what modules keep. Nothing is written to its disk for it (unless it is set up so),
and no access to its host is needed. The user needs two rights and no key:
  ACL SETUSER backup on >… -@all +psync +replconf
Who has them can read everything, so keep the password as you keep the data. What arrives is read as
it passes: a snapshot that is damaged or cut off is none. Name a replica rather than the primary:
the server forks. `lifeboat doctor redis` says what stands in the way. See docs/redis.md.

A server that refuses replication, as managed services do, is read key by key: such a snapshot is not of
one moment, and says so; exit code 3. With --by scan that is what was asked for, and no warning.

With --aof, what the server has written to its append-only files is backed up, as of the last whole command,
also while it rewrites them. It comes back as such files, in a directory.

A node of a cluster stands for all of it: every shard comes at once, from a replica where one is fit,
into one snapshot. The user needs +info +cluster|nodes besides, on all nodes.

Examples:
  lifeboat backup redis --name cache
  lifeboat backup redis --name cache --url redis://backup@replica1 --password-file /etc/lifeboat/redis
  lifeboat backup redis --name cache --url rediss://cache:6380 --tls-ca /etc/ssl/redis-ca.pem
  lifeboat backup redis --name cache --url redis+sentinel://backup@s1,s2,s3/cache
  lifeboat backup redis --name cache --url unix:///run/redis/redis.sock --tag nightly
  lifeboat backup redis --name cache --aof /var/lib/redis/appendonlydir";

/// What is done with snapshots of Redis alone.
#[derive(Debug, Subcommand)]
pub(crate) enum Redis {
    /// List the keys in a snapshot
    #[command(after_help = REDIS_KEYS)]
    Keys(RedisKeys),
}

/// Which keys of which snapshot are listed.
#[derive(Debug, Args)]
pub(crate) struct RedisKeys {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Only keys that fit this pattern, as KEYS has it: 'session:*'. Can be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(crate) keys: Vec<String>,
    /// Only this database. Can be repeated
    #[arg(long = "db", value_name = "NUMBER")]
    pub(crate) databases: Vec<u64>,
}

const REDIS_KEYS: &str = "\
Each line has the database, the type, how many bytes the key takes in the snapshot (as it is
serialised, with its name), when it expires, and the name, in which control characters and what is not
UTF-8 are escaped. The order is that of the server's tables. All of the data is read and checked, with
constant memory: the end says how many keys there are. To look into values, make a file of some keys and
start a server from it:
  lifeboat restore latest --store redis/cache --to /tmp/look/dump.rdb --keys 'session:*'

Examples:
  lifeboat redis keys latest --store redis/cache
  lifeboat redis keys 3f2a91bc --keys 'session:*' --keys 'user:*' --db 0
  lifeboat redis keys latest --store redis/cache --json | jq 'select(.bytes > 1000000)'";

/// How a snapshot of Redis becomes a file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for Redis")]
pub(crate) struct IntoRdb {
    /// The redis.conf of the server that will read the file: when it says "appendonly yes", the
    /// server would not, and the restore is refused
    #[arg(long, value_name = "FILE")]
    pub(crate) redis_conf: Option<PathBuf>,
    /// Write the file also where append-only files would be read in its place
    #[arg(long)]
    pub(crate) force: bool,
}

/// How a snapshot of Redis goes into a running server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for a running Redis server")]
pub(crate) struct IntoServer {
    /// Restore into this running server, key by key, beside what it holds: redis://[user@]host[:port],
    /// rediss://…, unix:///path, without a password. A node of a cluster stands for all of it. Keys that
    /// are there stay as they are, unless --replace or --replace-all is given
    #[arg(long, value_name = "URL", conflicts_with = "to")]
    pub(crate) into: Option<String>,
    /// Only keys that fit this pattern, as KEYS has it: 'session:*'. Can be repeated. With --to, the
    /// RDB file holds these keys alone
    #[arg(long, value_name = "PATTERN")]
    pub(crate) keys: Vec<String>,
    /// Only this database; with a second number, into that one: 0, 0=5. Can be repeated
    #[arg(long = "db", value_name = "NUMBER[=NUMBER]", value_parser = database)]
    pub(crate) databases: Vec<(u64, u64)>,
    /// Replace everything that the server holds, all at once: it loads the snapshot itself, as a replica
    /// of this command, and is a primary again when that is done. So it is with --to-time and
    /// --to-latest as well; there, a server that holds nothing needs no such word
    #[arg(long, requires = "into", conflicts_with = "replace")]
    pub(crate) replace_all: bool,
    /// The address of this host at which the server reaches this command meanwhile. Unless said, the
    /// one from which the server is reached, and a free port
    #[arg(long, value_name = "ADDRESS[:PORT]", requires = "into")]
    pub(crate) listen: Option<String>,
    /// Read the server's password from the first line of this file; unless said, it comes from
    /// REDISCLI_AUTH
    #[arg(long, value_name = "FILE", requires = "into")]
    pub(crate) password_file: Option<PathBuf>,
    /// Read the password of the Sentinels, where they want one, from the first line of this file
    #[arg(long, value_name = "FILE", requires = "into")]
    pub(crate) sentinel_password_file: Option<PathBuf>,
    /// Trust the authorities in this file (PEM) to vouch for the server, and no others
    #[arg(long, value_name = "FILE", requires = "into")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Show this certificate (PEM) to the server
    #[arg(long, value_name = "FILE", requires = "into", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "into", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

impl IntoServer {
    /// One of its words that was said and that has a meaning for files of Redis, too.
    pub(crate) fn choosing_word(&self) -> Option<&'static str> {
        let said = [(!self.keys.is_empty(), "--keys"), (!self.databases.is_empty(), "--db")];
        said.into_iter().find_map(|(is_said, word)| is_said.then_some(word))
    }

    /// The server, when it is one.
    pub(crate) fn server(&self) -> Option<RedisServer> {
        Some(RedisServer {
            url: self.into.clone()?,
            password_file: self.password_file.clone(),
            sentinel_password_file: self.sentinel_password_file.clone(),
            tls_ca: self.tls_ca.clone(),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
        })
    }
}

/// `0` or `0=5`
fn database(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| text.parse::<u64>().ok();
    let (from, to) = text.split_once('=').unwrap_or((text, text));
    let bad = || "write the number of a database, or two with = between them: 0, 0=5".to_owned();
    number(from).zip(number(to)).ok_or_else(bad)
}

impl IntoRdb {
    /// One of its words that was said, for a snapshot of something else.
    pub(crate) fn word(&self) -> Option<&'static str> {
        let said = [(self.redis_conf.is_some(), "--redis-conf"), (self.force, "--force")];
        said.into_iter().find_map(|(is_said, word)| is_said.then_some(word))
    }
}
