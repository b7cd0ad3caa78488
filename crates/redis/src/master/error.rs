//! Why a server is not replaced.

use std::borrow::Cow;
use std::io;

use lifeboat_core::{ErrorKind, Failure};

/// The situations in which a server is not replaced by a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MasterError {
    /// It holds something.
    #[error("replace {target}: it holds {keys} keys and {functions} libraries of functions")]
    Holds {
        /// The server.
        target: String,
        /// How many keys.
        keys: u64,
        /// How many libraries.
        functions: u64,
    },
    /// It is a replica.
    #[error("replace {target}: it is a replica of {primary}; nothing was changed")]
    Replica {
        /// The server.
        target: String,
        /// Its primary.
        primary: String,
    },
    /// It belongs to a cluster, or is no store at all.
    #[error("replace {target}: it is {what}, which cannot become our replica; nothing was changed")]
    Unfit {
        /// The server.
        target: String,
        /// What it is.
        what: &'static str,
    },
    /// It would speak TLS to us.
    #[error("replace {target}: it replicates over TLS (tls-replication), which is not served here")]
    Tls {
        /// The server.
        target: String,
    },
    /// It is older than the snapshot, or of another family.
    #[error(
        "replace {target}: it takes no values of RDB version {version} ({system}), which those of the snapshot are; nothing was changed"
    )]
    TooNew {
        /// The server.
        target: String,
        /// The version of the snapshot's format.
        version: u32,
        /// `Redis` or `Valkey`.
        system: &'static str,
    },
    /// It has no module, and the snapshot holds what modules keep.
    #[error(
        "replace {target}: the snapshot holds what modules keep, and the server has none; it keeps what it had"
    )]
    NoModules {
        /// The server.
        target: String,
    },
    /// The server could not be waited for.
    #[error("replace {target}: listen on {address}; nothing was changed")]
    Listen {
        /// The server.
        target: String,
        /// Where it would have come to.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// It was told to replicate, and did not come.
    #[error("replace {target}: it did not come to {address} within {seconds} s")]
    NotCome {
        /// The server.
        target: String,
        /// Where it was to come to.
        address: String,
        /// How long was waited.
        seconds: u64,
    },
    /// It said something that no replica says.
    #[error("replace {target}: it came as no replica does: {what}")]
    Strange {
        /// The server.
        target: String,
        /// What it said.
        what: String,
    },
    /// The connection that it had made to us broke.
    #[error("replace {target}: it broke off while {doing}")]
    Broke {
        /// The server.
        target: String,
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Nothing moved for too long.
    #[error("replace {target}: nothing moved for {seconds} s while {doing}")]
    Stuck {
        /// The server.
        target: String,
        /// What was being done.
        doing: &'static str,
        /// How long.
        seconds: u64,
    },
}

impl Failure for MasterError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Holds { .. } => ErrorKind::AlreadyExists,
            Self::Replica { .. } | Self::Tls { .. } => ErrorKind::Refused,
            Self::Unfit { .. } | Self::TooNew { .. } | Self::NoModules { .. } => {
                ErrorKind::Unsupported
            }
            Self::Listen { source, .. } => ErrorKind::of_io(source),
            Self::NotCome { .. } | Self::Broke { .. } | Self::Stuck { .. } => {
                ErrorKind::Unavailable
            }
            Self::Strange { .. } => ErrorKind::Corrupt,
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::Holds { .. } => {
                "--replace-all replaces everything that it holds; without it and without a moment, \
                 keys go beside what is there"
                    .into()
            }
            Self::Replica { .. } => {
                "name its primary; where that is a restore that was killed, make the server a \
                 primary first: redis-cli REPLICAOF NO ONE"
                    .into()
            }
            Self::Unfit { .. } => {
                "restore key by key, without --replace-all; or to files, and start servers from \
                 them"
                    .into()
            }
            Self::Tls { .. } => {
                "restore key by key, without --replace-all; or to a file; or turn tls-replication \
                 off while it is restored"
                    .into()
            }
            Self::TooNew { .. } => {
                "name a server of the snapshot's version or a newer one, of the same family".into()
            }
            Self::NoModules { .. } => {
                "let it load the modules of the server that was backed up (MODULE LIST there), or \
                 restore key by key: without --replace-all, keys that it cannot take are named"
                    .into()
            }
            Self::Listen { .. } => {
                "name an address of this host with --listen ADDRESS or --listen ADDRESS:PORT".into()
            }
            Self::NotCome { address, .. } => format!(
                "see that the server reaches {address} (firewalls, addresses that are translated); \
                 --listen ADDRESS:PORT names another one of this host"
            )
            .into(),
            Self::Strange { .. } => {
                "see that the address is that of the server itself, and no proxy".into()
            }
            Self::Broke { .. } => {
                "look into the server's log: it says why; it may lack a module that the snapshot \
                 needs, or memory"
                    .into()
            }
            Self::Stuck { .. } => "look into the server's log, and run the restore again".into(),
        })
    }
}
