//! What can go wrong with a database that is read or restored table by table.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use lifeboat_core::{ErrorKind, Failure};
use tokio_postgres::error::SqlState;

use crate::error::{Error, kind_of};

/// A result whose error is [`DatabaseError`].
pub(crate) type Result<T, E = DatabaseError> = std::result::Result<T, E>;

/// The situations in which a logical backup or restore ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The server cannot be reached, or refuses a statement.
    #[error(transparent)]
    Server(#[from] Error),
    /// An entry cannot be read or named.
    #[error("{}", source.one_line())]
    Entry {
        /// What the other side said.
        source: lifeboat_core::Error,
    },
    /// A version of the server for which nothing is known to be right.
    #[error("PostgreSQL {found} is not supported: it must be 14 to 18")]
    Version {
        /// What the server calls itself.
        found: String,
    },
    /// What was asked for does not exist.
    #[error("the database {database} has no {what} {name}")]
    NoSuch {
        /// Where it was looked for.
        database: String,
        /// A table, a schema.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// There is a table of the name that a new one shall have.
    #[error("the database {database} has a table {table} already")]
    TableThere {
        /// The database.
        database: String,
        /// The table.
        table: String,
    },
    /// The table cannot be emptied.
    #[error("the rows of {table} cannot be replaced: {by} refers to it with a foreign key")]
    ReferredTo {
        /// The table.
        table: String,
        /// The tables that refer to it.
        by: String,
    },
    /// A name cannot be understood.
    #[error("\"{text}\" names no table: {why}")]
    BadName {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// So many tables were named one by one that no program takes them as arguments.
    #[error("{count} tables were named, and {most} is the most")]
    TooManyNamed {
        /// How many.
        count: usize,
        /// How many may be.
        most: usize,
    },
    /// A lock was not to be had.
    #[error("{what}: somebody holds a lock on it")]
    Locked {
        /// What was being done, to which tables.
        what: String,
        /// What the server said.
        source: Box<tokio_postgres::Error>,
    },
    /// Tables are made faster than they can be locked.
    #[error("lock the tables of {database}: others are made all the time")]
    NeverStill {
        /// The database.
        database: String,
    },
    /// Policies would hide rows.
    #[error("read {table}: policies of row security hide rows from the role")]
    RowSecurity {
        /// The table.
        table: String,
    },
    /// A statement about one table failed.
    #[error("{what}")]
    Table {
        /// What was being done, to which table.
        what: String,
        /// What the server said.
        source: Box<tokio_postgres::Error>,
    },
    /// There is no program that can write the schema.
    #[error(
        "write the schema of a server of PostgreSQL {major}: no {program} that is new enough was found{found}"
    )]
    NoProgram {
        /// `pg_dump` or `pg_dumpall`.
        program: &'static str,
        /// The server's major version.
        major: u32,
        /// What was found, and is too old.
        found: String,
    },
    /// A program does not run.
    #[error("run {}", path.display())]
    ProgramRun {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed ({status}): {said}")]
    ProgramFailed {
        /// `pg_dump` or `pg_dumpall`.
        program: &'static str,
        /// How it ended.
        status: String,
        /// The last that it said.
        said: String,
    },
    /// The reading was finished before all of it was read.
    #[error("the backup was ended before everything was read")]
    Unfinished,
    /// The server ended the rows of a table in the middle of one.
    #[error("read {table}: the last row has no end")]
    HalfRow {
        /// The table.
        table: String,
    },

    /// The snapshot is of something else, or not what it must be.
    #[error("the snapshot cannot be restored: {what}")]
    NotASnapshot {
        /// What is wrong with it.
        what: String,
    },
    /// The snapshot does not have what a directory archive needs.
    #[error("the snapshot cannot become a directory for pg_restore: {why}")]
    NoContents {
        /// What is missing.
        why: &'static str,
    },
    /// The snapshot was written by a newer version.
    #[error("the snapshot has form {found}, which this version does not know")]
    NewerForm {
        /// Its form.
        found: u32,
    },
    /// The target exists already.
    #[error("restore into the database {database}: it exists already")]
    Exists {
        /// The database.
        database: String,
    },
    /// The target does not exist.
    #[error("restore into the database {database}: it does not exist")]
    Missing {
        /// The database.
        database: String,
    },
    /// The target holds something.
    #[error("restore into the database {database}: it is not empty: it has {what}")]
    NotEmpty {
        /// The database.
        database: String,
        /// What it has.
        what: String,
    },
    /// Others use the database that is to be replaced.
    #[error("replace the database {database}: {sessions} use it")]
    InUse {
        /// The database.
        database: String,
        /// How many sessions, and whose.
        sessions: String,
    },
    /// What was restored is whole, and the names did not change.
    #[error(
        "swap {database}: {why}; what was restored is complete and checked, as the database {restored}, and {database} is as it was"
    )]
    NotSwapped {
        /// The database whose name is wanted.
        database: String,
        /// What the restored one is called.
        restored: String,
        /// Why the names did not change.
        why: String,
        /// The statements that change them.
        by_hand: String,
    },
    /// The connection was lost while the names changed, and the server cannot be asked.
    #[error("swap {database}: the connection was lost while the names changed")]
    SwapUnknown {
        /// The database whose name is wanted.
        database: String,
        /// What the restored one is called, if they did not.
        restored: String,
        /// What the other one is called, if they did.
        kept: String,
    },
    /// The database may not be replaced at all.
    #[error("replace the database {database}: {why}")]
    Irreplaceable {
        /// The database.
        database: String,
        /// Why.
        why: String,
    },
    /// The server is older than the one that was backed up.
    #[error("the snapshot is of PostgreSQL {taken}, and the server is {server}, which is older")]
    OlderServer {
        /// The version of the server that was backed up.
        taken: String,
        /// The version of the server to restore into.
        server: String,
    },
    /// A script cannot be understood.
    #[error("{script}: {why}")]
    Script {
        /// Which.
        script: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The server refused a statement of a script.
    #[error("run \"{statement}\"")]
    Statement {
        /// Its beginning.
        statement: String,
        /// What the server said.
        source: Box<tokio_postgres::Error>,
    },
    /// Other rows came than were counted at the backup.
    #[error("restore {table}: {found} came, and the backup counted {expected}")]
    Differs {
        /// The table.
        table: String,
        /// Rows and digest of what came.
        found: String,
        /// Rows and digest of what was backed up.
        expected: String,
    },
    /// The server took another number of rows than it was given.
    #[error("restore {table}: the server took {taken} rows of {given}")]
    Taken {
        /// The table.
        table: String,
        /// What the server says it took.
        taken: u64,
        /// What it was given.
        given: u64,
    },
}

impl Failure for DatabaseError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Server(error) => error.kind(),
            Self::Entry { source } => source.kind(),
            Self::BadName { .. } | Self::TooManyNamed { .. } => ErrorKind::InvalidInput,
            Self::Version { .. }
            | Self::NewerForm { .. }
            | Self::NoContents { .. }
            | Self::NoProgram { .. } => ErrorKind::Unsupported,
            Self::NoSuch { .. } | Self::Missing { .. } => ErrorKind::NotFound,
            Self::Locked { .. } | Self::NeverStill { .. } => ErrorKind::Unavailable,
            Self::Table { source, .. } | Self::Statement { source, .. } => kind_of(source),
            Self::ProgramRun { source, .. } => ErrorKind::of_io(source),
            Self::ProgramFailed { .. } | Self::Unfinished => ErrorKind::Other,
            Self::SwapUnknown { .. } => ErrorKind::Other,
            Self::HalfRow { .. }
            | Self::NotASnapshot { .. }
            | Self::Script { .. }
            | Self::Differs { .. }
            | Self::Taken { .. } => ErrorKind::Corrupt,
            Self::Exists { .. } | Self::NotEmpty { .. } | Self::TableThere { .. } => {
                ErrorKind::AlreadyExists
            }
            Self::ReferredTo { .. } => ErrorKind::Refused,
            Self::RowSecurity { .. }
            | Self::InUse { .. }
            | Self::NotSwapped { .. }
            | Self::Irreplaceable { .. }
            | Self::OlderServer { .. } => ErrorKind::Refused,
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::Server(error) => return error.hint(),
            Self::Entry { source } => return source.hint().map(|hint| hint.to_owned().into()),
            Self::NoSuch { .. } => {
                "see how it is written with \\d in psql: letters count as they stand".into()
            }
            Self::TableThere { .. } => "name another one with --beside".into(),
            Self::ReferredTo { .. } => {
                "restore it with --beside, and take from there what is missing; or drop the foreign key first".into()
            }
            Self::BadName { .. } => "write SCHEMA.TABLE, such as shop.orders".into(),
            Self::TooManyNamed { .. } => "name their schemas instead".into(),
            Self::Locked { .. } => {
                "no snapshot was made; run it again when nobody changes the table's form, or wait longer for locks".into()
            }
            Self::NeverStill { .. } => "run it again when fewer tables are made".into(),
            Self::RowSecurity { .. } => {
                "use a role with BYPASSRLS, or the owner of the table".into()
            }
            Self::Table { source, .. } => return hint_of(source),
            Self::Statement { source, .. } => return hint_of(source),
            Self::NoProgram { major, .. } => format!(
                "install the client programs of PostgreSQL {major} or newer, name their directory, or back up the data alone"
            )
            .into(),
            Self::ProgramFailed { .. } => {
                "no snapshot was made; mend what the program says, and run the backup again".into()
            }
            Self::NotASnapshot { .. } | Self::Differs { .. } | Self::HalfRow { .. } => {
                "check the repository with `lifeboat verify`, or choose another snapshot".into()
            }
            Self::NoContents { .. } => {
                "take it out as SQL, or as CSV a table at a time; or take a new, whole snapshot".into()
            }
            Self::NewerForm { .. } => "use the version that took the snapshot, or a newer one".into(),
            Self::Exists { .. } => {
                "name another database; or say --replace, or --swap to keep the one that is there".into()
            }
            Self::Missing { .. } => "create it, or let the restore create it".into(),
            Self::NotEmpty { .. } => "name an empty database, or a new one".into(),
            Self::InUse { database, .. } => format!(
                "stop what uses it, say --disconnect to have its sessions ended, or end them with: {}; \
                 or restore beside it under another name; nothing was touched",
                super::swap::end_sessions(database)
            )
            .into(),
            Self::NotSwapped { database, restored, by_hand, .. } => format!(
                "end what is in the way, such as the sessions with: {}; then swap them \
                 with: {by_hand}; or remove what was restored: DROP DATABASE {}",
                super::swap::end_sessions(database),
                super::name::identifier(restored)
            )
            .into(),
            Self::SwapUnknown { restored, kept, .. } => format!(
                "see \\l in psql: if there is {kept}, they changed; if there is {restored}, which is \
                 complete, they did not"
            )
            .into(),
            Self::OlderServer { .. } => {
                "restore into a server of that major version or a newer one; nothing was touched".into()
            }
            Self::Irreplaceable { .. } => "restore under another name".into(),
            Self::Version { .. }
            | Self::ProgramRun { .. }
            | Self::Unfinished
            | Self::Script { .. }
            | Self::Taken { .. } => return None,
        })
    }
}

/// What to do about what the server said of a table or of a statement.
fn hint_of(error: &tokio_postgres::Error) -> Option<Cow<'static, str>> {
    let said = error.as_db_error()?;
    Some(match *said.code() {
        SqlState::INSUFFICIENT_PRIVILEGE => {
            "give the role the right, such as membership in pg_read_all_data for a backup; for a restore, use a superuser, or leave owners and privileges out".into()
        }
        SqlState::UNDEFINED_OBJECT if said.message().starts_with("role ") => {
            "create the role, restore the roles as well, or leave owners and privileges out".into()
        }
        SqlState::FEATURE_NOT_SUPPORTED if said.message().contains("foreign key") => {
            "other tables refer to this one: restore the table beside it, and bring the rows over yourself".into()
        }
        SqlState::FOREIGN_KEY_VIOLATION => {
            "rows that it refers to are missing: restore those tables first, or restore the table beside it".into()
        }
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN => {
            "the table is not there in the form that it had at the backup: restore it beside, or as CSV".into()
        }
        SqlState::UNDEFINED_FILE => {
            "install the extension's files on the server".into()
        }
        _ => return None,
    })
}

impl DatabaseError {
    /// Whether what was restored is whole, and stays.
    pub(super) fn leaves_whole(&self) -> bool {
        matches!(self, Self::NotSwapped { .. } | Self::SwapUnknown { .. })
    }
}

impl From<lifeboat_core::Error> for DatabaseError {
    fn from(source: lifeboat_core::Error) -> Self {
        Self::Entry { source }
    }
}
