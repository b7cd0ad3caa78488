//! Names of entries inside a snapshot.

use std::cmp::Ordering;
use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// The longest path that is accepted, in bytes.
pub const MAX_PATH: usize = 32 * 1024;

/// The name of an entry: one or more components of raw bytes, joined by `/`.
///
/// A path never is absolute, and no component is empty, `.`, `..`, or holds `/` or NUL, whatever
/// it was made from: a snapshot from a stranger cannot name anything outside its own tree.
/// Components need not be UTF-8.
///
/// Paths are ordered component by component, so that a directory comes just before everything
/// beneath it. This is the order in which entries are read, stored and listed.
///
/// ```
/// use lifeboat_core::EntryPath;
/// let folder = EntryPath::new("etc")?;
/// let file = folder.join("hosts")?;
/// assert!(folder < file && file < EntryPath::new("etc-old")?);
/// assert!(EntryPath::new("../etc/shadow").is_err());
/// # Ok::<(), lifeboat_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// A path from its text form.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the path or one of its components is not allowed.
    pub fn new(path: impl AsRef<[u8]>) -> Result<Self> {
        let path = path.as_ref();
        if path.len() > MAX_PATH {
            return Err(invalid(path, "it is longer than 32 KiB"));
        }
        for component in path.split(|byte| *byte == b'/') {
            check_component(component, path)?;
        }
        Ok(Self(path.to_vec()))
    }

    /// This path with one more component.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the component is not allowed.
    pub fn join(&self, component: impl AsRef<[u8]>) -> Result<Self> {
        let component = component.as_ref();
        check_component(component, component)?;
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + component.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(component);
        if bytes.len() > MAX_PATH {
            return Err(invalid(&bytes, "it is longer than 32 KiB"));
        }
        Ok(Self(bytes))
    }

    /// The path as bytes, components joined by `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components, first to last. There is at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }

    /// The last component.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|byte| *byte == b'/').next().unwrap_or(&self.0)
    }

    /// The path without its last component, or `None` at the top.
    pub fn parent(&self) -> Option<Self> {
        let cut = self.0.iter().rposition(|byte| *byte == b'/')?;
        Some(Self(self.0[..cut].to_vec()))
    }

    /// Whether this path is `other` or lies beneath it.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.0.strip_prefix(other.0.as_slice()).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
    }

    /// The path relative to `other`, when it lies beneath it.
    pub fn strip_prefix(&self, other: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(other.0.as_slice())?.strip_prefix(b"/")?;
        Some(Self(rest.to_vec()))
    }
}

fn check_component(component: &[u8], path: &[u8]) -> Result<()> {
    match component {
        b"" => Err(invalid(path, "it has an empty component")),
        b"." | b".." => Err(invalid(path, "it has a component . or ..")),
        _ if component.iter().any(|byte| matches!(byte, b'/' | 0)) => {
            Err(invalid(path, "a component holds / or NUL"))
        }
        _ => Ok(()),
    }
}

fn invalid(path: &[u8], why: &str) -> Error {
    let shown = &path[..path.len().min(200)];
    Error::new(
        ErrorKind::InvalidInput,
        format!("\"{}\" cannot name an entry: {why}", shown.escape_ascii()),
    )
}

impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // The separator sorts below every byte that a component may hold.
        let shared = self.0.iter().zip(&other.0).position(|(a, b)| a != b);
        match shared {
            None => self.0.len().cmp(&other.0.len()),
            Some(at) => match (self.0[at], other.0[at]) {
                (b'/', _) => Ordering::Less,
                (_, b'/') => Ordering::Greater,
                (a, b) => a.cmp(&b),
            },
        }
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntryPath {
    /// UTF-8 where the name is UTF-8; other bytes and control characters are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl TryFrom<Vec<u8>> for EntryPath {
    type Error = Error;
    fn try_from(bytes: Vec<u8>) -> Result<Self> {
        Self::new(&bytes).map(|_| Self(bytes))
    }
}

impl std::str::FromStr for EntryPath {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_are_refused() {
        for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\0b"] {
            assert!(EntryPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(EntryPath::new(vec![b'a'; MAX_PATH + 1]).is_err());
        assert!(EntryPath::new("...").is_ok());
        assert!(EntryPath::new([0xff, b'/', 0xfe]).is_ok());
    }

    #[test]
    fn names_print_without_tricks() {
        let path = EntryPath::new(b"caf\xc3\xa9/\xff\x1b[2J").unwrap();
        assert_eq!(path.to_string(), "café/\\xff\\u{1b}[2J");
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_components(
            a in "[a-c.!/]{1,12}", b in "[a-c.!/]{1,12}"
        ) {
            if let (Ok(a), Ok(b)) = (EntryPath::new(&a), EntryPath::new(&b)) {
                let expected = a.components().cmp(b.components());
                prop_assert_eq!(a.cmp(&b), expected);
            }
        }
    }
}
