//! The words of `restore`, and of a second repository.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use lifeboat_core::EntryPath;

use super::database::IntoDatabase;
use super::recovery::Recovery;
use super::redis::{IntoRdb, IntoServer};
use super::scratch::ScratchPlace;
use super::storage::Thawing;
use super::units::duration;
use super::which::{Which, path};

#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The directory to restore into: new, or empty. Of a snapshot of a database: the name of the
    /// database to create; of Redis: the RDB file to make, or with a recovery target the directory
    #[arg(long, value_name = "DIR", required_unless_present_any = ["into", "dry_run"])]
    to: Option<PathBuf>,
    /// Only this entry, with what is beneath it; can be repeated. For files
    #[arg(long = "path", value_name = "PATH", value_parser = path)]
    pub(crate) paths: Vec<EntryPath>,
    /// Put a tablespace elsewhere: OLD is its former directory or its oid. For PostgreSQL; can be
    /// repeated
    #[arg(long = "tablespace", value_name = "OLD=NEW", value_parser = mapping)]
    pub(crate) tablespaces: Vec<(String, PathBuf)>,
    /// Replace what is in the directory. For files; it is put back when the restore fails. For
    /// databases: replace the database, which nobody may use, once the new one is complete. With
    /// --into: replace keys that are there
    #[arg(long, visible_alias = "clean")]
    pub(crate) replace: bool,
    /// Use the stopped cluster in the directory again: only its pages that differ are fetched and
    /// written, and what the snapshot does not have is removed, but for the WAL, which stays in
    /// pg_wal.former. When it is broken off, run it again. For PostgreSQL
    #[arg(long)]
    pub(crate) delta: bool,
    /// Whose the files are afterwards. For files
    #[arg(long, value_enum, default_value_t = Owners::Numbers)]
    pub(crate) owners: Owners,
    /// A second repository with copies of the snapshots (see `lifeboat copy`): what the first one
    /// cannot give comes from there. It serves alone when the first cannot be opened
    #[arg(long, value_name = "LOCATION")]
    pub(crate) or_from: Option<String>,
    /// How long to wait for an answer of the first repository's store before the second one is
    /// asked: 5s, 1m. Where the second one cannot help, the first is given all the time it needs
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration)]
    #[arg(requires = "or_from")]
    pub(crate) or_after: Duration,
    #[command(flatten)]
    pub(crate) other: OtherSecret,
    #[command(flatten)]
    pub(crate) thawing: Thawing,
    #[command(flatten)]
    pub(crate) recovery: Recovery,
    #[command(flatten)]
    pub(crate) database: IntoDatabase,
    #[command(flatten)]
    pub(crate) redis: IntoRdb,
    #[command(flatten)]
    pub(crate) live: IntoServer,
    #[command(flatten)]
    pub(crate) scratch: ScratchPlace,
}

impl Restore {
    /// The place to restore to; empty for a running Redis server.
    pub(crate) fn to(&self) -> &Path {
        self.to.as_deref().unwrap_or(Path::new(""))
    }

    /// What is restored to, for people.
    pub(crate) fn target(&self) -> String {
        self.live.into.clone().unwrap_or_else(|| self.to().display().to_string())
    }
}

/// Whose restored files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Owners {
    /// The users and groups of the same number
    Numbers,
    /// Those of the same name, where this host has them
    Names,
    /// The user who restores
    Mine,
}

pub(super) const RESTORE: &str = "\
Every byte is checked on its way. A restore that fails or is stopped leaves nothing that could be
taken for the whole; a directory that is not empty is refused. A PostgreSQL snapshot becomes a data
directory that the server starts from, one of Redis the file that a stopped server is started from;
the last lines say how. With --into, the keys of a Redis snapshot go into a server that runs, or
replace all that it holds.

With one of the --to-… targets, a PostgreSQL cluster (or, to a time, a Redis server) is recovered to that moment from the snapshot that
is best for it (`latest`), or from the one that is named, and from the WAL in the repository. Whether
the target can be reached is found out before anything is touched. See docs/postgres-recovery.md.

With --table, one table of a cluster comes back into a running server, from any snapshot and moment: the
cluster is restored into a scratch server for that (see `lifeboat verify --restore`).

Examples:
  lifeboat restore latest --store postgres/shop --to /var/lib/postgresql/15/main
  lifeboat restore latest --store postgres/shop --to /srv/copy --tablespace /mnt/fast=/srv/fast
  lifeboat restore latest --store postgres/shop --to /srv/copy --to-time '2026-11-22 03:00:00+01'
  lifeboat restore latest --store postgres/shop --to /srv/copy --to-latest --dry-run
  lifeboat restore latest --store postgres/shop --to /var/lib/postgresql/15/main --delta --to-latest
  lifeboat restore latest --store postgres/shop --to-time '2026-11-22 03:00:00+01' \
    --to shop --table public.orders --beside public.orders_before
  lifeboat restore 3f2a91bc --to /tmp/etc --path ssh --path hosts
  lifeboat restore latest --store files/etc --to /tmp/etc --or-from s3://offsite/backups
  lifeboat restore latest --store files/etc --to /tmp/etc --thaw=bulk
  lifeboat restore latest --store database/shop --to shop_old --conninfo host=db
  lifeboat restore latest --store database/shop --to shop --swap --disconnect --conninfo host=db
  lifeboat restore latest --store database/shop --to shop --table shop.orders --beside shop.orders_old
  lifeboat restore latest --store redis/cache --to /var/lib/redis/dump.rdb --redis-conf /etc/redis/redis.conf
  lifeboat restore latest --store redis/cache --to-time '2026-11-22 03:00:00+01' --to /var/lib/redis-new
  lifeboat restore latest --store redis/cache --into redis://admin@cache --keys 'session:*' --dry-run
  lifeboat restore latest --store redis/cache --into redis://admin@cache --replace-all
  lifeboat restore latest --store redis/cache --to-time '2026-11-22 03:00:00+01' --into redis://admin@new";

/// How the other repository of a command is opened.
#[derive(Debug, Args)]
pub(crate) struct OtherSecret {
    /// Read the passphrase of the other repository from the first line of this file. Without this
    /// and the next option, it comes from LIFEBOAT_OTHER_PASSPHRASE, from the file that
    /// LIFEBOAT_OTHER_PASSPHRASE_FILE names, or from the command in
    /// LIFEBOAT_OTHER_PASSPHRASE_COMMAND; or it is asked for on a terminal
    #[arg(long, value_name = "FILE")]
    pub(crate) other_passphrase_file: Option<PathBuf>,
    /// Run this with `sh -c`, and take what it prints as the passphrase of the other repository
    #[arg(long, value_name = "COMMAND")]
    pub(crate) other_passphrase_command: Option<String>,
}

fn mapping(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && new.starts_with('/') => {
            Ok((old.to_owned(), new.into()))
        }
        _ => Err("write OLD=NEW, with an absolute path as NEW".to_owned()),
    }
}
