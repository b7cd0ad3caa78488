//! Where a database is restored to, and how.

use lifeboat_core::Attributes;

use crate::connect::ConnectOptions;

/// What may be where the database is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Occupied {
    /// Nothing: the database is created.
    #[default]
    Refuse,
    /// An empty database, which is filled. For a snapshot of rows alone: a database with the
    /// tables, which must be empty.
    Fill,
    /// A database that is replaced, once the new one is complete and checked. Nobody may use it.
    Replace,
    /// A database whose name the new one takes in the same way, and which is kept as
    /// `<name>_before_<UTC time>`. What was restored is compared with it first, and what differs is
    /// told. Owner, privileges, settings and comment of the database itself stay what they are.
    Swap,
}

/// What becomes of those who use a database that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Others {
    /// They stay, and the database is not replaced: that is refused before anything is touched, and
    /// once more at the end.
    #[default]
    Refuse,
    /// Their sessions are ended while the names change.
    Disconnect,
}

/// Whether something that belongs to objects is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Keep {
    /// It is.
    #[default]
    Restore,
    /// It is not: everything belongs to the role that restores, with the privileges that follow
    /// from that.
    LeaveOut,
}

/// What to do when the server is older than the one that was backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OlderServer {
    /// Refuse, before anything is touched.
    #[default]
    Refuse,
    /// Try. What the server does not know fails.
    Try,
}

/// Where a database is restored to, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DatabaseRestoreOptions {
    /// The server and the role. The database that it names is only used to create another.
    pub connection: ConnectOptions,
    /// The name of the restored database.
    pub into: String,
    /// What may be there.
    pub occupied: Occupied,
    /// What becomes of those who use a database that is replaced.
    pub others: Others,
    /// Whether objects get their owners back.
    pub owners: Keep,
    /// Whether objects get their privileges back.
    pub privileges: Keep,
    /// Whether roles that the server lacks are made, when the snapshot has them. Those that it has
    /// are left as they are.
    pub roles: Keep,
    /// What to do when the server is older.
    pub older_server: OlderServer,
    /// How many sessions write rows and build indexes side by side: 1 to 64.
    pub jobs: usize,
    /// The facts of the snapshot. With them, more is refused before anything is touched.
    pub facts: Option<Attributes>,
}

impl DatabaseRestoreOptions {
    /// Into a new database called `into`.
    pub fn new(connection: ConnectOptions, into: impl Into<String>) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            connection,
            into: into.into(),
            occupied: Occupied::default(),
            others: Others::default(),
            owners: Keep::default(),
            privileges: Keep::default(),
            roles: Keep::LeaveOut,
            older_server: OlderServer::default(),
            jobs: processors.clamp(2, 8),
            facts: None,
        }
    }

    /// Tells what is known of the snapshot, so that more can be checked beforehand.
    #[must_use]
    pub fn with_facts(mut self, facts: Attributes) -> Self {
        self.facts = Some(facts);
        self
    }

    pub(super) fn sessions(&self) -> usize {
        self.jobs.clamp(1, 64)
    }
}
