//! What holds a snapshot, whatever a policy says.

use std::fmt;

use jiff::Timestamp;

use crate::id::{PinId, SnapshotId};

/// A reason for which a snapshot must stay: a legal hold, the state before a migration.
///
/// While it is live nothing removes its snapshot: no policy, and no command that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// Its name, by which it is released.
    pub id: PinId,
    /// The snapshot that it holds.
    pub snapshot: SnapshotId,
    /// Why, in the words of whoever made it.
    pub reason: String,
    /// Who made it: `user@host`, as that host said. For people; nothing vouches for it.
    pub by: String,
    /// When it was made.
    pub made: Timestamp,
    /// When it runs out by itself; `None` holds until it is released.
    pub until: Option<Timestamp>,
}

impl Pin {
    /// A pin without an end.
    pub fn new(id: PinId, snapshot: SnapshotId, reason: impl Into<String>) -> Self {
        let made = Timestamp::UNIX_EPOCH;
        Self { id, snapshot, reason: reason.into(), by: String::new(), made, until: None }
    }

    /// Whether it still holds at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl fmt::Display for Pin {
    /// The reason and the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match self.until {
            Some(until) => write!(f, ", until {until}"),
            None => Ok(()),
        }
    }
}
