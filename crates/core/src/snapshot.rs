//! What is known of a snapshot without opening it.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::attributes::Attributes;
use crate::error::{Error, ErrorKind};
use crate::store::StoreRef;

/// The name of a snapshot: 32 bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId([u8; 32]);

impl SnapshotId {
    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight digits, enough for a person to tell snapshots apart.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for SnapshotId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::new(ErrorKind::InvalidInput, format!("\"{text}\" is no snapshot id"));
        if text.len() != 64 || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

/// A snapshot, as listings and retention policies see it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Its name.
    pub id: SnapshotId,
    /// What it is a snapshot of.
    pub store: StoreRef,
    /// The host that took it.
    pub host: String,
    /// Words that its owner gave it.
    pub tags: Vec<String>,
    /// When the backup began.
    pub started: Timestamp,
    /// The moment that the snapshot shows.
    pub taken: Timestamp,
    /// When it was committed.
    pub committed: Timestamp,
    /// How many entries it has.
    pub entries: u64,
    /// How many bytes of content it has.
    pub bytes: u64,
    /// How many bytes it added to the repository.
    pub stored: u64,
    /// How many things in it need a person's attention.
    pub warnings: u64,
    /// Where in the store's own history it stands, in the store's own words.
    pub position: String,
    /// What the source recorded: versions, identities, counts, digests.
    pub facts: Attributes,
    /// The snapshot that it was compared with while it was taken.
    pub parent: Option<SnapshotId>,
}

impl SnapshotInfo {
    /// A snapshot of `store` called `id` that shows the moment `taken`; all else is empty.
    pub fn new(id: SnapshotId, store: StoreRef, taken: Timestamp) -> Self {
        Self {
            id,
            store,
            host: String::new(),
            tags: Vec::new(),
            started: taken,
            taken,
            committed: taken,
            entries: 0,
            bytes: 0,
            stored: 0,
            warnings: 0,
            position: String::new(),
            facts: Attributes::new(),
            parent: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_form() {
        let id = SnapshotId::from_bytes(std::array::from_fn(|at| at as u8 * 7));
        assert_eq!(id.to_string().parse::<SnapshotId>().unwrap(), id);
        for bad in ["", "12", &"g".repeat(64), &"é".repeat(32)] {
            assert!(bad.parse::<SnapshotId>().is_err());
        }
    }
}
