//! The words of a rehearsed restore.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lifeboat_redis::Sample;

use super::recovery::Target;
use super::redis::RedisServer;
use super::units::duration;
use super::which::{StoreName, store};

/// A restore into a scratch server, to see that it works.
#[derive(Debug, Args)]
#[command(next_help_heading = "Restore into a scratch server")]
pub(crate) struct Rehearsal {
    /// Restore this snapshot of a PostgreSQL cluster or of Redis (the first digits of its id, or
    /// `latest`) into a scratch server, and examine it there
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
    pub(crate) redis: RedisRehearsal,
    #[command(flatten)]
    pub(crate) place: ScratchPlace,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// How a snapshot of Redis is examined on a scratch server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Restore into a scratch server, of Redis")]
pub(crate) struct RedisRehearsal {
    /// How many keys are compared one by one, spread over the snapshot: a number, or `all`
    #[arg(long, value_name = "NUMBER|all", value_parser = compared, requires = "restore")]
    pub(crate) compare: Option<Sample>,
    /// Compare these keys with this running server, too: redis://[user@]host[:port], rediss://…,
    /// unix:///path, without a password, which comes from REDISCLI_AUTH. What differs is told
    #[arg(long, value_name = "URL", requires = "restore")]
    pub(crate) source: Option<String>,
    /// Read that server's password from the first line of this file
    #[arg(long, value_name = "FILE", requires = "source")]
    pub(crate) source_password_file: Option<PathBuf>,
    /// Trust the authorities in this file (PEM) to vouch for that server, and no others
    #[arg(long, value_name = "FILE", requires = "source")]
    pub(crate) source_tls_ca: Option<PathBuf>,
    /// Let the scratch server load this module, which wrote values of the snapshot. Can be repeated
    #[arg(long = "module", value_name = "FILE", requires = "restore")]
    pub(crate) modules: Vec<PathBuf>,
}

impl RedisRehearsal {
    /// One of its words that was said, for a snapshot of something else.
    pub(crate) fn word(&self) -> Option<&'static str> {
        let said = [
            (self.compare.is_some(), "--compare"),
            (self.source.is_some(), "--source"),
            (!self.modules.is_empty(), "--module"),
        ];
        said.into_iter().find_map(|(is_said, word)| is_said.then_some(word))
    }

    /// The running server, when there is one.
    pub(crate) fn server(&self) -> Option<RedisServer> {
        Some(RedisServer {
            url: self.source.clone()?,
            password_file: self.source_password_file.clone(),
            sentinel_password_file: None,
            tls_ca: self.source_tls_ca.clone(),
            tls_cert: None,
            tls_key: None,
        })
    }
}

fn compared(text: &str) -> Result<Sample, String> {
    match text {
        "all" => Ok(Sample::All),
        number => {
            let number = number.parse().ok().filter(|number| *number > 0);
            number.map(Sample::Keys).ok_or_else(|| "write a number of keys, or `all`".to_owned())
        }
    }
}

/// Where a scratch server is made, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Restore into a scratch server")]
pub(crate) struct ScratchPlace {
    /// The directory beneath which the server is made and removed again. It needs room for all of
    /// the snapshot
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// The directory with the programs of the server; without it, they are looked for
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: Option<PathBuf>,
    /// For PostgreSQL: the superuser of the cluster as which its databases are looked at
    #[arg(long, value_name = "ROLE", default_value = "postgres")]
    pub(crate) superuser: String,
    /// For PostgreSQL: the account that runs the server when this is run by root
    #[arg(long, value_name = "ACCOUNT", default_value = "postgres")]
    pub(crate) account: String,
    /// How long the server may take to recover, or to load its data
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub(crate) recovery_limit: Duration,
}
