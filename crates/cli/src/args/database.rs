//! The words for databases, table by table: `backup database`, and what `restore` says of them.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use lifeboat_postgres::TableName;

use super::backup::Taking;
use super::units::duration;

#[derive(Debug, Args)]
pub(crate) struct BackupDatabase {
    #[command(flatten)]
    pub(crate) taking: Taking,
    #[command(flatten)]
    pub(crate) database: Database,
}

/// Which database, what of it, and how it is read.
#[derive(Debug, Args)]
pub(crate) struct Database {
    /// How to reach the database, as for psql: "host=… port=… user=… dbname=…" or a postgresql://
    /// URL, without a password. What is not said comes from PGHOST, PGUSER, PGDATABASE and so on;
    /// the password from PGPASSWORD or ~/.pgpass
    #[arg(long, default_value = "", value_name = "CONNINFO", hide_default_value = true)]
    pub(crate) conninfo: String,
    /// Only the schema, no rows
    #[arg(long, conflicts_with = "data_only")]
    pub(crate) schema_only: bool,
    /// Only the rows. This needs no pg_dump
    #[arg(long)]
    pub(crate) data_only: bool,
    /// Only this schema; * stands for any characters and ? for one. Can be repeated
    #[arg(long = "schema", value_name = "NAME")]
    pub(crate) schemas: Vec<String>,
    /// Only this table, such as shop.orders, with * and ? as for schemas. Its partitions belong to
    /// it. Can be repeated
    #[arg(long = "table", value_name = "SCHEMA.TABLE")]
    pub(crate) tables: Vec<String>,
    /// Leave out the rows of this table, not the table; can be repeated
    #[arg(long, value_name = "SCHEMA.TABLE")]
    pub(crate) without_rows: Vec<String>,
    /// Keep the server's roles as well: with the hashes of their passwords, unless said
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "with-passwords", value_name = "HOW")]
    pub(crate) roles: Option<KeptRoles>,
    /// How many sessions read side by side: 1 to 64. As many as there are processors, unless said
    #[arg(long, short, value_parser = clap::value_parser!(u8).range(1..=64), value_name = "N")]
    pub(crate) jobs: Option<u8>,
    /// Read tables whose file is larger in parts of this size: 64MiB. With another size than the
    /// last time, the rows of large tables are stored anew
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub(crate) part_size: ByteSize,
    /// How long to wait for a lock on a table: 5s, 1m
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration)]
    pub(crate) lock_timeout: Duration,
    /// The directory with pg_dump and pg_dumpall, when they are not where they usually are
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: Option<PathBuf>,
}

/// How roles are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeptRoles {
    /// With the hashes of their passwords, which only a superuser may read
    WithPasswords,
    /// Without
    WithoutPasswords,
}

pub(super) const BACKUP_DATABASE: &str = "\
The backup is logical: the schema of one database as pg_dump writes it, and its rows, all as of one
moment, read by several sessions. It needs no access to the server's files, and goes into any server
of the same major version or a newer one. Rows are counted, and compared when they are restored.
Tables that did not change take no room in the repository, but are read each time.

The role must be able to read all tables: GRANT pg_read_all_data TO it; `lifeboat doctor database`
says what is missing. pg_dump must be of the server's major version or newer.

Examples:
  lifeboat backup database --name shop --conninfo 'host=db user=backup dbname=shop'
  lifeboat backup database --name shop --conninfo dbname=shop --roles --jobs 8
  lifeboat backup database --name orders --conninfo dbname=shop --table 'shop.order*'";

/// How a database is restored.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for databases")]
pub(crate) struct IntoDatabase {
    /// How to reach the server, as for `backup database`. The database that it names is only used
    /// to create the other; postgres unless said
    #[arg(long, default_value = "", value_name = "CONNINFO", hide_default_value = true)]
    pub(crate) conninfo: String,
    /// Restore beside the database that --to names, compare the two, and let them change names in
    /// one go. The old one is kept as NAME_before_TIME, and owner, privileges and settings of the
    /// database itself stay what they are
    #[arg(long, conflicts_with_all = ["replace", "fill", "table"])]
    pub(crate) swap: bool,
    /// End the sessions that use the database while the names change. Without this, a database in
    /// use is refused. With --swap or --replace
    #[arg(long, conflicts_with_all = ["fill", "table"])]
    pub(crate) disconnect: bool,
    /// Fill a database that exists and is empty; or, with rows alone, tables that are empty
    #[arg(long, conflicts_with = "replace")]
    pub(crate) fill: bool,
    /// Give everything to the role that restores
    #[arg(long)]
    pub(crate) no_owner: bool,
    /// Leave privileges out
    #[arg(long)]
    pub(crate) no_privileges: bool,
    /// Make the roles that the server lacks, when the snapshot has them
    #[arg(long)]
    pub(crate) with_roles: bool,
    /// Try it also with a server that is older than the one that was backed up
    #[arg(long)]
    pub(crate) older_server: bool,
    /// How many sessions write side by side: 1 to 64. As many as there are processors, unless said
    #[arg(long, short, value_parser = clap::value_parser!(u8).range(1..=64), value_name = "N")]
    pub(crate) jobs: Option<u8>,
    /// Only the rows of this table, into the database that --to names, in one transaction; of a
    /// cluster, from the database of that name. With --replace in place of the rows that it has, else with --beside
    #[arg(long, value_name = "SCHEMA.TABLE", value_parser = table)]
    pub(crate) table: Option<TableName>,
    /// Make this new table for the rows of --table, in the form that the other has
    #[arg(long, value_name = "SCHEMA.TABLE", value_parser = table)]
    #[arg(requires = "table", conflicts_with_all = ["replace", "fill"])]
    pub(crate) beside: Option<TableName>,
}

impl IntoDatabase {
    /// One of its words that was said, for a snapshot of something else.
    pub(crate) fn word(&self) -> Option<&'static str> {
        let said = [
            (!self.conninfo.is_empty(), "--conninfo"),
            (self.swap, "--swap"),
            (self.disconnect, "--disconnect"),
            (self.fill, "--fill"),
            (self.no_owner, "--no-owner"),
            (self.no_privileges, "--no-privileges"),
            (self.with_roles, "--with-roles"),
            (self.older_server, "--older-server"),
            (self.jobs.is_some(), "--jobs"),
            (self.table.is_some(), "--table"),
            (self.beside.is_some(), "--beside"),
        ];
        said.into_iter().find_map(|(is_said, word)| is_said.then_some(word))
    }
}

/// The name of a table.
pub(super) fn table(text: &str) -> Result<TableName, String> {
    TableName::parse(text)
}
