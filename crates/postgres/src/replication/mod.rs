//! PostgreSQL's replication protocol, as far as it is needed to receive WAL and base backups.
//!
//! `tokio-postgres` speaks neither this kind of session nor its copies in both directions, so this
//! is a small client of its own, over the building blocks of `postgres-protocol`: it is told by the
//! same [`ConnectOptions`](crate::ConnectOptions) where to connect to, and holds one connection
//! ([`Client`]). TLS is asked for and checked as for every other connection; the channel is not
//! bound to the password's proof, so `sslmode=verify-full` is what keeps another server out.
//!
//! What comes from the wire is checked before it is used (`frame`, `copy`, `base`), every wait has a limit,
//! and what a server refuses becomes an error with the next step.

mod base;
mod client;
mod copy;
mod dial;
mod error;
mod frame;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod link;
mod slot;
mod startup;
#[cfg(test)]
mod tests;

pub(crate) use self::base::{BaseBackup, Begun, Sent, Stopped};
#[cfg(test)]
pub(crate) use self::client::Slot;
pub(crate) use self::client::{Client, Identity, Started};
pub(crate) use self::copy::{Received, Status};
pub use self::error::{ReplicationError, ServerAnswer};
pub(crate) use self::frame::Notice;
pub use self::slot::SlotName;
