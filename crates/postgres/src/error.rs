//! What can go wrong with a cluster.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use lifeboat_core::{ErrorKind, Failure};
use tokio_postgres::error::SqlState;

use crate::lsn::Lsn;
use crate::sink::ClusterSink;

/// A result whose error is [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The situations in which a backup or a restore of a cluster ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection string or a setting of the environment cannot be understood.
    #[error("read the connection settings: {what}")]
    BadConnection {
        /// What is wrong with them. Never holds a password.
        what: String,
    },
    /// A file that the connection needs (password file, root certificate) cannot be used.
    #[error("read {}", path.display())]
    ConnectionFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// TLS cannot be set up on this machine.
    #[error("set up TLS")]
    Tls {
        /// Why.
        source: rustls::Error,
    },
    /// No session could be opened.
    #[error("connect to PostgreSQL at {target}")]
    Connect {
        /// Host, port, user and database.
        target: String,
        /// What the server or the network said.
        source: Box<tokio_postgres::Error>,
    },
    /// The server did not answer in time.
    #[error("connect to PostgreSQL at {target}: no answer within {seconds} s")]
    ConnectTimeout {
        /// Host, port, user and database.
        target: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A statement failed.
    #[error("{what}")]
    Query {
        /// What was being done.
        what: &'static str,
        /// What the server said.
        source: Box<tokio_postgres::Error>,
    },
    /// The session in which the backup was begun is gone; with it the server ended the backup.
    #[error("the session that holds the backup was ended by the server or the network")]
    SessionLost,
    /// Two statements were answered by two server processes.
    #[error(
        "the connection goes through a pooler that changes the server process between statements"
    )]
    Pooler,
    /// A version for which no backup is known to be right.
    #[error("PostgreSQL {found} is not supported: it must be 14 to 18")]
    Version {
        /// What the server calls itself.
        found: String,
    },
    /// The server is a standby.
    #[error("the server at {target} is in recovery")]
    InRecovery {
        /// Host, port, user and database.
        target: String,
    },
    /// The role lacks the rights for a backup.
    #[error("the role {role} may not begin and end a backup")]
    MayNot {
        /// The role, quoted as an identifier.
        role: String,
        /// The statement that mends it.
        grant: String,
    },
    /// `wal_level` does not suffice.
    #[error("wal_level is minimal: the server writes too little WAL for a backup")]
    WalLevel,
    /// Where the data directory is cannot be asked.
    #[error("ask the server for its data directory: the role may not read that setting")]
    DataDirectoryHidden,
    /// The data directory is not there, or may not be read.
    #[error("read the data directory {}", path.display())]
    DataDirectory {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory belongs to another server than the one connected to.
    #[error("{} is not the data directory of the server at {target}: {why}", path.display())]
    OtherServer {
        /// The directory.
        path: PathBuf,
        /// Host, port, user and database.
        target: String,
        /// What differs.
        why: String,
    },
    /// `pg_control` cannot be understood.
    #[error("read {}: {why}", path.display())]
    Control {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The server answered a start or stop of a backup with something that makes no sense.
    #[error("{what}: the server's answer cannot be understood: {why}")]
    Answer {
        /// What was being done.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{what} {}", path.display())]
    File {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A thread of ours panicked.
    #[error("a file operation panicked")]
    Panicked {
        /// With what.
        source: tokio::task::JoinError,
    },
    /// A directory that holds data is a symbolic link, so that its data is outside the cluster.
    #[error("{} is a symbolic link: data beneath it is outside the data directory", path.display())]
    LinkedData {
        /// The link.
        path: PathBuf,
    },
    /// WAL that the backup needs has been removed by the server.
    #[error("the WAL segment {segment} was removed before it could be copied")]
    WalMissing {
        /// The segment's file name.
        segment: String,
    },
    /// A WAL segment holds something else than its name says.
    #[error("the WAL segment {segment} is not what its name says: {why}")]
    WalDamaged {
        /// The segment's file name.
        segment: String,
        /// What is wrong with it.
        why: String,
    },
    /// The reading was finished before all of it was read.
    #[error("the backup was ended before everything was read")]
    Unfinished,
    /// The server's position moved backwards.
    #[error("the backup ends at {stop}, before its start at {start}")]
    Backwards {
        /// Where it started.
        start: Lsn,
        /// Where it stopped.
        stop: Lsn,
    },

    /// The target of a restore holds something.
    #[error("restore to {}: the directory is not empty", path.display())]
    TargetNotEmpty {
        /// The target.
        path: PathBuf,
    },
    /// What is in the target of a restore is not the cluster whose files shall be used again.
    #[error("restore to {}, using what is there: {why}", path.display())]
    NotFormer {
        /// The target.
        path: PathBuf,
        /// Why it is not.
        why: String,
    },
    /// An earlier restore into the target was broken off.
    #[error("restore to {}: it holds a restore that was broken off", path.display())]
    TargetUnfinished {
        /// The target.
        path: PathBuf,
    },
    /// Files shall belong to another account, and this process may not give them away.
    #[error("give the restored files to the account {uid}: only root can")]
    NotRoot {
        /// The account.
        uid: u32,
    },
    /// A server runs in the target of a restore.
    #[error("restore to {}: a server runs there (process {pid})", path.display())]
    TargetRunning {
        /// The target.
        path: PathBuf,
        /// The postmaster's process id.
        pid: u32,
    },
    /// A path that must be absolute is not, or lies where it must not.
    #[error("restore to {}: {why}", path.display())]
    TargetPath {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The directory for a tablespace holds something.
    #[error("restore the tablespace {oid} to {}: the directory is not empty", path.display())]
    TablespaceNotEmpty {
        /// The tablespace.
        oid: String,
        /// Its directory.
        path: PathBuf,
    },
    /// The directory where a tablespace was is not there.
    #[error("restore the tablespace {oid} to {}: there is no such directory", path.display())]
    TablespaceNotThere {
        /// The tablespace.
        oid: String,
        /// Where it was.
        path: PathBuf,
    },
    /// A mapping names a tablespace that the snapshot does not have.
    #[error("no tablespace of the snapshot has the oid or the location {name}")]
    NoSuchTablespace {
        /// What the mapping names.
        name: String,
    },
    /// The snapshot is of something else, or lacks what a restore needs.
    #[error("the snapshot cannot be restored: {why}")]
    NotRestorable {
        /// What is missing or wrong.
        why: String,
    },
}

impl Failure for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::BadConnection { .. }
            | Self::TargetPath { .. }
            | Self::NoSuchTablespace { .. } => ErrorKind::InvalidInput,
            Self::ConnectionFile { source, .. }
            | Self::DataDirectory { source, .. }
            | Self::File { source, .. } => ErrorKind::of_io(source),
            Self::Tls { .. } | Self::Answer { .. } | Self::Unfinished | Self::Panicked { .. } => {
                ErrorKind::Other
            }
            Self::Connect { source, .. } | Self::Query { source, .. } => kind_of(source),
            Self::ConnectTimeout { .. } | Self::SessionLost | Self::WalMissing { .. } => {
                ErrorKind::Unavailable
            }
            Self::Version { .. } | Self::InRecovery { .. } | Self::Pooler => ErrorKind::Unsupported,
            Self::WalLevel
            | Self::DataDirectoryHidden
            | Self::OtherServer { .. }
            | Self::LinkedData { .. }
            | Self::MayNot { .. }
            | Self::NotRoot { .. }
            | Self::NotFormer { .. }
            | Self::TargetRunning { .. } => ErrorKind::Refused,
            Self::TargetNotEmpty { .. }
            | Self::TargetUnfinished { .. }
            | Self::TablespaceNotEmpty { .. } => ErrorKind::AlreadyExists,
            Self::TablespaceNotThere { .. } => ErrorKind::NotFound,
            Self::Control { .. }
            | Self::WalDamaged { .. }
            | Self::Backwards { .. }
            | Self::NotRestorable { .. } => ErrorKind::Corrupt,
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::BadConnection { .. } => {
                "give libpq's words, such as host=/var/run/postgresql user=postgres, or a postgresql:// URL".into()
            }
            Self::ConnectTimeout { .. } => "see that the server runs, and that host and port are right".into(),
            Self::Connect { source, .. } => return hint_of_connect(source),
            Self::Query { source, .. } => return hint_of_query(source),
            Self::SessionLost => {
                "no snapshot was made; see the server's log for the reason, and run the backup again".into()
            }
            Self::Pooler => "connect to the server itself, not to the pooler before it".into(),
            Self::InRecovery { .. } => {
                "take the backup from the primary, or have the standby send its files, with --remote".into()
            }
            Self::MayNot { grant, .. } => grant.clone().into(),
            Self::WalLevel => "set wal_level = replica, and restart the server".into(),
            Self::DataDirectoryHidden => {
                "GRANT pg_read_all_settings to the role, or name the data directory; or have the server send its files, with --remote".into()
            }
            Self::DataDirectory { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "run as the account that the server runs under, or as root".into()
                }
                _ => "run on the host that has the data directory, and name it if it is mounted elsewhere; or have the server send its files, with --remote".into(),
            },
            Self::OtherServer { .. } => {
                "correct the connection or the data directory: they must be of one server; a server on another host sends its files with --remote".into()
            }
            Self::LinkedData { .. } => {
                "move the data back into the data directory, or into a tablespace".into()
            }
            Self::WalMissing { .. } => {
                "give the role REPLICATION and leave a replication slot free, so that the server keeps WAL during a backup; or raise wal_keep_size or max_slot_wal_keep_size".into()
            }
            Self::WalDamaged { .. } => "no snapshot was made; check the server's disk, and run the backup again".into(),
            Self::TargetNotEmpty { .. } => "name a new or empty directory".into(),
            Self::NotFormer { .. } => {
                "name the directory of this cluster, or a new or empty one without --delta".into()
            }
            Self::TargetUnfinished { path } if path.join(ClusterSink::FORMER).exists() => {
                "restore with --delta again: it goes on".into()
            }
            Self::TargetUnfinished { .. } => {
                "empty the directory, and those of its tablespaces, and restore again".into()
            }
            Self::NotRoot { .. } => "run the restore as root, or as that account".into(),
            Self::TargetRunning { .. } => "stop that server, or name another directory".into(),
            Self::TablespaceNotEmpty { .. } => {
                "map the tablespace to a new or empty directory".into()
            }
            Self::TablespaceNotThere { .. } => {
                "make that directory, or map the tablespace to another".into()
            }
            Self::NotRestorable { .. } => "choose another snapshot".into(),
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => "free some space, and run it again".into(),
                io::ErrorKind::PermissionDenied => {
                    "run as the account that the server runs under, or as root".into()
                }
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// Whether the error says that the session is over, rather than that a statement failed.
pub(crate) fn ends_session(error: &tokio_postgres::Error) -> bool {
    error.is_closed()
        || io_cause(error).is_some()
        || matches!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN))
}

fn io_cause(error: &tokio_postgres::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

/// What the server's error means to callers.
pub(crate) fn kind_of(error: &tokio_postgres::Error) -> ErrorKind {
    let Some(code) = error.code() else {
        return match io_cause(error) {
            // A socket file that is not there means a server that is not there.
            Some(io) if io.kind() == io::ErrorKind::NotFound => ErrorKind::Unavailable,
            // What TLS says of a certificate.
            Some(io) if io.kind() == io::ErrorKind::InvalidData => ErrorKind::Refused,
            Some(io) => ErrorKind::of_io(io),
            None if error.is_closed() => ErrorKind::Unavailable,
            None => ErrorKind::Refused,
        };
    };
    match &code.code()[..2] {
        "28" | "42" => ErrorKind::Refused,
        "3D" => ErrorKind::NotFound,
        "08" | "57" | "53" => ErrorKind::Unavailable,
        _ => ErrorKind::Other,
    }
}

fn hint_of_connect(error: &tokio_postgres::Error) -> Option<Cow<'static, str>> {
    let Some(code) = error.code() else {
        return Some(match io_cause(error).map(io::Error::kind) {
            Some(io::ErrorKind::PermissionDenied) => {
                "this account may not use the server's socket".into()
            }
            Some(io::ErrorKind::InvalidData) => {
                "name the authority of the server's certificate in sslrootcert, or choose another sslmode".into()
            }
            Some(_) => "see that the server runs, and that host and port are right".into(),
            None if error
                .source()
                .is_some_and(|cause| cause.to_string().contains("password")) =>
            {
                "give the password in PGPASSWORD, a password file, or by a command".into()
            }
            None => return None,
        });
    };
    Some(match code.code() {
        "28P01" => "check the user's password".into(),
        "28000" => "see that the role exists, and that pg_hba.conf lets it in from here".into(),
        "3D000" => "name a database that exists, such as dbname=postgres".into(),
        "53300" => "all connections are taken: raise max_connections, or end some".into(),
        "57P03" => "the server is starting or stopping: try again in a moment".into(),
        _ => return None,
    })
}

fn hint_of_query(error: &tokio_postgres::Error) -> Option<Cow<'static, str>> {
    (error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)).then(|| {
        "grant the role what a backup needs: `lifeboat doctor postgres` prints the statements"
            .into()
    })
}
