//! What can go wrong on the replication protocol, and what helps.

use std::borrow::Cow;
use std::fmt;
use std::io;

use lifeboat_core::{ErrorKind, Failure};

/// A result whose error is [`ReplicationError`].
pub(crate) type Result<T, E = ReplicationError> = std::result::Result<T, E>;

/// The situations in which something asked of a server by the replication protocol fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicationError {
    /// The network did not lead to a server.
    #[error("connect to PostgreSQL at {target} for replication")]
    Unreachable {
        /// Host, port and user.
        target: String,
        /// What the operating system or TLS said.
        source: io::Error,
    },
    /// Something stands in the way that the server did not say, but the connection settings do.
    #[error("connect to PostgreSQL at {target} for replication: {why}")]
    Unsuitable {
        /// Host, port and user.
        target: String,
        /// What.
        why: String,
        /// What helps.
        remedy: &'static str,
    },
    /// The server refused what was asked.
    #[error("{what}: {answer}")]
    Server {
        /// What was being done.
        what: String,
        /// What the server said.
        answer: Box<ServerAnswer>,
    },
    /// The server sent something that the protocol does not allow.
    #[error("{what}: the server's answer cannot be understood: {why}")]
    Protocol {
        /// What was being done.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The connection ended.
    #[error("{what}: the connection was lost")]
    Lost {
        /// What was being done.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server said nothing for too long.
    #[error("{what}: no answer within {seconds} s")]
    Silent {
        /// What was being done.
        what: String,
        /// How long was waited.
        seconds: u64,
    },
}

impl ReplicationError {
    pub(crate) fn protocol(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Protocol { what: what.into(), why: why.into() }
    }

    /// The SQLSTATE of the server's answer, if it was the server that refused.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Server { answer, .. } => Some(&answer.code),
            _ => None,
        }
    }

    /// Whether the server answered that it does not have the file that it was asked for.
    pub(crate) fn is_missing_file(&self) -> bool {
        self.code() == Some("58P01")
    }
}

impl Failure for ReplicationError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidData => ErrorKind::Refused,
                io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
                // A name that is not known now, or a socket that is not there, may come.
                _ => ErrorKind::Unavailable,
            },
            Self::Unsuitable { .. } => ErrorKind::Refused,
            Self::Lost { .. } | Self::Silent { .. } => ErrorKind::Unavailable,
            Self::Protocol { .. } => ErrorKind::Corrupt,
            Self::Server { answer, .. } => answer.kind(),
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::Unreachable { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "this account may not use the server's socket".into()
                }
                io::ErrorKind::InvalidData => {
                    "name the authority of the server's certificate in sslrootcert, or choose another sslmode".into()
                }
                _ => "see that the server runs, and that host and port are right".into(),
            },
            Self::Unsuitable { remedy, .. } => (*remedy).into(),
            Self::Server { answer, .. } => return answer.remedy().map(Cow::Borrowed),
            Self::Protocol { .. } => {
                "see that host and port are those of a PostgreSQL server, and not of a pooler or of something else".into()
            }
            Self::Lost { .. } | Self::Silent { .. } => {
                "see the server's log for the reason, and the network between".into()
            }
        })
    }
}

/// What a server says when it refuses something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerAnswer {
    /// The SQLSTATE: five characters that do not depend on the language.
    pub code: String,
    /// What is wrong, in the server's language.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What the server thinks that would help.
    pub hint: Option<String>,
}

impl ServerAnswer {
    fn kind(&self) -> ErrorKind {
        match self.code.as_str() {
            "42704" | "58P01" => ErrorKind::NotFound,
            "42710" => ErrorKind::AlreadyExists,
            "55006" => ErrorKind::Unavailable,
            // Slots or senders are all taken: somebody must change a setting, or end something.
            "53400" | "55000" => ErrorKind::Refused,
            code => match code.get(..2) {
                Some("28" | "42") => ErrorKind::Refused,
                Some("08" | "53" | "57") => ErrorKind::Unavailable,
                _ => ErrorKind::Other,
            },
        }
    }

    fn remedy(&self) -> Option<&'static str> {
        Some(match self.code.as_str() {
            "28P01" => "check the role's password: PGPASSWORD, a password file, or a command",
            "28000" => {
                "see that the role exists and may log in, and that pg_hba.conf has a line of type \"replication\" for it and for this address (host replication ROLE ADDRESS scram-sha-256); then reload the server"
            }
            "42501" => "let the role replicate: ALTER ROLE … REPLICATION",
            "53300" => {
                "all of the server's WAL senders or connections are taken: raise max_wal_senders, or end another receiver"
            }
            "53400" => {
                "all of the server's replication slots are taken: raise max_replication_slots, or drop one that nobody uses (pg_drop_replication_slot)"
            }
            "55006" => {
                "another receiver uses this slot: end it, or name another slot. After a lost connection the server notices at wal_sender_timeout that it is free"
            }
            "42704" => "see in pg_replication_slots which slots there are",
            "58P01" => {
                "the server no longer has this WAL: keep more of it (a slot of its own, max_slot_wal_keep_size, wal_keep_size), and take a new base backup"
            }
            "57P03" => "the server is starting or stopping: it is tried again in a moment",
            _ => return None,
        })
    }
}

impl fmt::Display for ServerAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever the server says.
        let line = |text: &str| text.replace(|c: char| c.is_control(), " ");
        f.write_str(&line(&self.message))?;
        for more in [&self.detail, &self.hint].into_iter().flatten() {
            write!(f, " ({})", line(more))?;
        }
        Ok(())
    }
}
