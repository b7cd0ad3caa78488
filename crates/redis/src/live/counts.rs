//! What became of the keys.

use std::fmt;

use lifeboat_core::Attributes;

/// What became of the keys of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LiveCounts {
    /// Written, or to be written.
    pub written: u64,
    /// There already, and left as they are; when only looked at with
    /// [`Existing::Replace`](super::Existing::Replace): to be replaced.
    pub existing: u64,
    /// Expired meanwhile, and left out.
    pub expired: u64,
    /// Not wanted.
    pub unwanted: u64,
    /// Refused by the server, each for a reason of its own, or too large to be sent.
    pub refused: u64,
    /// Libraries of functions that were written, or would be.
    pub functions: u64,
}

impl LiveCounts {
    /// For people, when nothing is written.
    pub(super) fn seen(&self) -> String {
        self.words("to be written")
    }

    fn words(&self, written: &str) -> String {
        format!(
            "{} keys and {} libraries of functions {written}, {} keys there already, {} expired, \
             {} refused, {} not wanted",
            self.written, self.functions, self.existing, self.expired, self.refused, self.unwanted
        )
    }

    /// As facts of a restore.
    pub(super) fn facts(&self) -> Attributes {
        Attributes::new()
            .with("redis.keys.written", self.written)
            .with("redis.keys.existing", self.existing)
            .with("redis.keys.expired", self.expired)
            .with("redis.keys.unwanted", self.unwanted)
            .with("redis.keys.refused", self.refused)
            .with("redis.functions", self.functions)
    }
}

impl fmt::Display for LiveCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words("written"))
    }
}
