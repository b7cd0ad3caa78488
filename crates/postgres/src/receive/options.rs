//! How WAL is received.

use std::time::Duration;

use super::gather::Pace;
use crate::archive::NewSystem;
use crate::connect::ConnectOptions;
use crate::replication::SlotName;

/// How WAL is received.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReceiverOptions {
    /// How the server is reached. The role needs `REPLICATION`. `application_name` is the name under
    /// which the server knows the receiver, also in `synchronous_standby_names`; `lifeboat` unless
    /// said.
    pub connection: ConnectOptions,
    /// The replication slot, which is made when it is not there: with it the server keeps all WAL
    /// that is not durable here yet.
    pub slot: SlotName,
    /// When pieces of an unfinished segment are sealed.
    pub freshness: Freshness,
    /// When so many bytes of the server's WAL are not durable here, somebody is warned: the slot
    /// makes the server keep them. 4 GiB unless said.
    pub warn_behind: u64,
    /// The longest pause between two attempts to connect; 30 seconds unless said.
    pub longest_pause: Duration,
    /// What becomes of a system that the archive does not know, where it knows another one.
    pub new_system: NewSystem,
}

impl ReceiverOptions {
    /// The defaults, for this server and slot.
    pub fn new(connection: ConnectOptions, slot: SlotName) -> Self {
        Self {
            connection,
            slot,
            freshness: Freshness::default(),
            warn_behind: 4 << 30,
            longest_pause: Duration::from_secs(30),
            new_system: NewSystem::default(),
        }
    }

    /// Sets when pieces of an unfinished segment are sealed.
    #[must_use]
    pub fn with_freshness(mut self, freshness: Freshness) -> Self {
        self.freshness = freshness;
        self
    }

    /// Sets from how many bytes on somebody is warned.
    #[must_use]
    pub fn with_warn_behind(mut self, bytes: u64) -> Self {
        self.warn_behind = bytes;
        self
    }

    /// Sets the longest pause between two attempts to connect.
    #[must_use]
    pub fn with_longest_pause(mut self, pause: Duration) -> Self {
        self.longest_pause = pause;
        self
    }
}

/// When pieces of an unfinished segment are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Freshness {
    /// A second after the first change that is not durable, or after a MiB: what is lost with the
    /// server is about a second.
    #[default]
    Second,
    /// At once. For a receiver that `synchronous_standby_names` names: a commit waits until it is
    /// durable here, and nothing that was committed is lost with the server. Every commit that
    /// waits alone becomes an object in the repository.
    Synchronous,
}

impl Freshness {
    pub(super) fn pace(self) -> Pace {
        let every = match self {
            Self::Second => Duration::from_secs(1),
            Self::Synchronous => Duration::ZERO,
        };
        Pace { every, bytes: 1 << 20 }
    }
}
