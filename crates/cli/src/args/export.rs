//! The words of `export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lifeboat_postgres::TableName;

use super::database::table;
use super::storage::Thawing;
use super::which::Which;

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) which: Which,
    /// What is written; with --table, CSV unless said, else SQL
    #[arg(long = "as", value_enum, value_name = "FORM")]
    pub(crate) form: Option<Form>,
    /// Only the rows of this table
    #[arg(long, value_name = "SCHEMA.TABLE", value_parser = table)]
    pub(crate) table: Option<TableName>,
    /// Write into this new file or directory; to standard output, unless said
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// Leave out whose objects are. Not for a directory: pg_restore has this word itself
    #[arg(long)]
    pub(crate) no_owner: bool,
    /// Leave privileges out. Not for a directory: pg_restore has this word itself
    #[arg(long)]
    pub(crate) no_privileges: bool,
    #[command(flatten)]
    pub(crate) thawing: Thawing,
}

/// What an export writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A script for psql
    Sql,
    /// One table as CSV, with the names of its columns first
    Csv,
    /// A directory for pg_restore, as `pg_dump --format=directory` writes it
    Directory,
}

pub(super) const EXPORT: &str = "\
Snapshots of databases (`backup database`) come out in forms that need no Lifeboat. A script makes
everything in an empty database of the same encoding; the roles are in the entry 2-roles.sql, when
they were kept. A directory is for pg_restore of the same major version as the pg_dump of the backup
or of a newer one: it restores in parallel (-j), or single objects (-t, -L). Rows are compared with
what the backup counted: a script that is complete says so in its last line, a directory gets its
name when it is complete, and the exit code says it for all.

Examples:
  lifeboat export latest --store database/shop | psql -X -v ON_ERROR_STOP=1 -d shop_copy
  lifeboat export latest --store database/shop --no-owner --no-privileges --to shop.sql
  lifeboat export latest --store database/shop --table shop.orders --to orders.csv
  lifeboat export latest --store database/shop --as directory --to /srv/shop.dir
  pg_restore --create --jobs 4 --dbname postgres /srv/shop.dir";
