//! How a server is followed.

use std::time::Duration;

use crate::connect::ConnectOptions;
use crate::recover::BaseSnapshot;

/// How a server is followed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FollowOptions {
    /// How the server is reached. The user needs `+psync +replconf`.
    pub connection: ConnectOptions,
    /// The snapshots of this store that are there already. Where the journal goes on from one of
    /// them without a gap, it is continued; otherwise a new one is taken.
    pub bases: Vec<BaseSnapshot>,
    /// The longest pause between two attempts to connect; 30 seconds unless said.
    pub longest_pause: Duration,
}

impl FollowOptions {
    /// The defaults, for this server.
    pub fn new(connection: ConnectOptions) -> Self {
        Self { connection, bases: Vec::new(), longest_pause: Duration::from_secs(30) }
    }

    /// Sets the snapshots that are there already.
    #[must_use]
    pub fn with_bases(mut self, bases: Vec<BaseSnapshot>) -> Self {
        self.bases = bases;
        self
    }

    /// Sets the longest pause between two attempts to connect.
    #[must_use]
    pub fn with_longest_pause(mut self, pause: Duration) -> Self {
        self.longest_pause = pause;
        self
    }
}
