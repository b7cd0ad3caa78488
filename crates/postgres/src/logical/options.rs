//! What of a database is read, and how.

use std::path::PathBuf;
use std::time::Duration;

use super::layout::Parts;
use crate::connect::ConnectOptions;

/// Whether the roles of the server are kept with a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Roles {
    /// They are not.
    #[default]
    LeaveOut,
    /// Their names, attributes, memberships and settings, and the tablespaces.
    WithoutPasswords,
    /// And the hashes of their passwords, which only a superuser may read.
    WithPasswords,
}

/// Which database is read, what of it, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DatabaseOptions {
    /// The server, the role, and the database.
    pub connection: ConnectOptions,
    /// Schema and rows, or one of them.
    pub parts: Parts,
    /// Only these schemas; in their names, `*` stands for any characters and `?` for one. Empty
    /// means all, unless tables are named.
    pub schemas: Vec<String>,
    /// Only these tables, as `schema.table`, with `*` and `?` as for schemas. A partitioned table
    /// stands for its partitions. Empty means all, unless schemas are named.
    pub tables: Vec<String>,
    /// Of these tables, named in the same way, no rows are read.
    pub without_rows: Vec<String>,
    /// Whether the server's roles are kept as well.
    pub roles: Roles,
    /// How many sessions read rows side by side: 1 to 64.
    pub jobs: usize,
    /// Tables larger than this are read in parts of this size, in bytes of the table's file: 1 MiB
    /// to 1 TiB. Another size next time makes the rows to be stored anew.
    pub part_size: u64,
    /// How long to wait for a lock on a table.
    pub lock_timeout: Duration,
    /// Where `pg_dump` and `pg_dumpall` are; where they usually are, when nothing is said.
    pub programs: Option<PathBuf>,
}

impl DatabaseOptions {
    /// All of the database that `connection` names.
    pub fn new(connection: ConnectOptions) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            connection,
            parts: Parts::default(),
            schemas: Vec::new(),
            tables: Vec::new(),
            without_rows: Vec::new(),
            roles: Roles::default(),
            jobs: processors.clamp(2, 8),
            part_size: 64 << 20,
            lock_timeout: Duration::from_secs(60),
            programs: None,
        }
    }

    /// Whether only some schemas or tables are read.
    pub(crate) fn is_selection(&self) -> bool {
        !self.schemas.is_empty() || !self.tables.is_empty()
    }

    pub(crate) fn sessions(&self) -> usize {
        self.jobs.clamp(1, 64)
    }

    pub(crate) fn part_bytes(&self) -> u64 {
        self.part_size.clamp(1 << 20, 1 << 40)
    }
}
