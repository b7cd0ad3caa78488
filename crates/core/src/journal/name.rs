//! Which journal, and which of its timelines.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::store::StoreRef;

/// No name of a stream or a timeline has more bytes.
const MAX_NAME: usize = 255;

/// Which journal: the store whose history it is, and which stream of it (`wal`, `records/orders`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JournalName {
    store: StoreRef,
    stream: String,
}

impl JournalName {
    /// The journal of one stream of a store.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `stream` is empty, has more than 255 bytes, or holds
    /// control characters.
    pub fn new(store: StoreRef, stream: impl Into<String>) -> Result<Self> {
        let stream = stream.into();
        check(&stream, "a stream")?;
        Ok(Self { store, stream })
    }

    /// The store whose history it is.
    pub fn store(&self) -> &StoreRef {
        &self.store
    }

    /// Which stream of it.
    pub fn stream(&self) -> &str {
        &self.stream
    }
}

impl fmt::Display for JournalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.store, self.stream)
    }
}

/// One line of a journal's positions, in the words of the store: the timeline of a PostgreSQL
/// cluster, the replication id of a Redis server, the partition of a topic.
///
/// Positions are compared within one timeline only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timeline(String);

impl Timeline {
    /// The timeline called `name`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is empty, has more than 255 bytes, or holds control
    /// characters.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        check(&name, "a timeline")?;
        Ok(Self(name))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(name: &str, what: &str) -> Result<()> {
    let why = match name {
        "" => "it is empty",
        _ if name.len() > MAX_NAME => "it has more than 255 bytes",
        _ if name.chars().any(char::is_control) => "it holds control characters",
        _ => return Ok(()),
    };
    let shown: String = name.chars().take(60).flat_map(char::escape_debug).collect();
    Err(Error::new(ErrorKind::InvalidInput, format!("\"{shown}\" cannot name {what}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_when_they_are_made() {
        for bad in ["", "a\nb", "\u{1b}[2J", &"x".repeat(256)] {
            assert!(Timeline::new(bad).is_err(), "{bad:?}");
            assert!(JournalName::new(StoreRef::new("files", "etc"), bad).is_err(), "{bad:?}");
        }
        let name = JournalName::new(StoreRef::new("postgres", "main"), "wal").unwrap();
        assert_eq!(name.to_string(), "postgres/main/wal");
        assert_eq!(Timeline::new("../é").unwrap().as_str(), "../é");
    }
}
