//! How a server is followed.

use std::time::Duration;

use crate::connect::ConnectOptions;
use crate::recover::BaseSnapshot;

/// What becomes of a server that is not the one whose changes are kept under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NewServer {
    /// It is an error: the name may be mistyped.
    #[default]
    Refuse,
    /// Its changes follow those of the other one: somebody said that it takes the other one's place.
    Adopt,
}

/// How a server is followed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FollowOptions {
    /// How the server is reached. The user needs `+psync +replconf`.
    pub connection: ConnectOptions,
    /// The snapshots of this store that are there already. Where the journal goes on from one of
    /// them without a gap, it is continued; otherwise a new one is taken.
    pub bases: Vec<BaseSnapshot>,
    /// What becomes of another server than the one that the newest of them is of.
    pub new_server: NewServer,
    /// The longest pause between two attempts to connect; 30 seconds unless said.
    pub longest_pause: Duration,
}

impl FollowOptions {
    /// The defaults, for this server. Of a service that Sentinels watch it is a replica, where one is
    /// fit, and they are asked anew at each connection.
    pub fn new(connection: ConnectOptions) -> Self {
        Self {
            connection: connection.preferring_replicas(),
            bases: Vec::new(),
            new_server: NewServer::default(),
            longest_pause: Duration::from_secs(30),
        }
    }

    /// Sets the snapshots that are there already.
    #[must_use]
    pub fn with_bases(mut self, bases: Vec<BaseSnapshot>) -> Self {
        self.bases = bases;
        self
    }

    /// Sets what becomes of another server.
    #[must_use]
    pub fn with_new_server(mut self, new_server: NewServer) -> Self {
        self.new_server = new_server;
        self
    }

    /// Sets the longest pause between two attempts to connect.
    #[must_use]
    pub fn with_longest_pause(mut self, pause: Duration) -> Self {
        self.longest_pause = pause;
        self
    }
}
