//! Which snapshot, which store, and which entry is meant.

use std::fmt;

use clap::Args;
use lifeboat_core::{EntryPath, StoreRef};

/// A store, as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreName {
    /// Kind and name.
    Whole(StoreRef),
    /// The name alone.
    Name(String),
}

impl StoreName {
    /// Whether this can be the store that is meant.
    pub(crate) fn means(&self, store: &StoreRef) -> bool {
        match self {
            Self::Whole(whole) => whole == store,
            Self::Name(name) => name == store.name(),
        }
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(store) => store.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Which snapshot is meant.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The first digits of a snapshot's id, or `latest`, which needs --store where there are
    /// snapshots of several stores
    pub(crate) snapshot: String,
    /// Only among the snapshots of this store, such as files/etc; its name alone when no other has
    /// it
    #[arg(long, value_name = "KIND/NAME", value_parser = store)]
    pub(crate) store: Option<StoreName>,
}

pub(super) fn name(text: &str) -> Result<String, String> {
    let fits = (1..=128).contains(&text.len()) && !text.contains(['/', '\n', '\0']);
    if fits && !text.starts_with('-') && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 128 bytes, and no / in it".to_owned())
    }
}

pub(super) fn store(text: &str) -> Result<StoreName, String> {
    match text.split_once('/') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => {
            Ok(StoreName::Whole(StoreRef::new(kind, name)))
        }
        None if !text.is_empty() => Ok(StoreName::Name(text.to_owned())),
        _ => Err("a store is written KIND/NAME, such as postgres/shop".to_owned()),
    }
}

/// People write paths as they are on disk; entries are named from the top of the tree.
pub(super) fn path(text: &str) -> Result<EntryPath, String> {
    let text = text.strip_prefix("./").unwrap_or(text);
    let text = text.trim_start_matches('/').trim_end_matches('/');
    EntryPath::new(unescaped(text)?).map_err(|error| error.to_string())
}

/// Takes back the escapes with which `ls` shows what is not UTF-8.
fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                let byte = u8::from_str_radix(digits, 16);
                bytes.push(byte.map_err(|_| "\\x is followed by two hexadecimal digits")?);
                rest = after;
            }
            (byte, _) => bytes.push(*byte),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_as_people_write_them() {
        for text in ["etc/ssh", "/etc/ssh", "./etc/ssh/", "//etc/ssh"] {
            assert_eq!(path(text).unwrap(), EntryPath::new("etc/ssh").unwrap());
        }
        assert_eq!(path("a\\xff").unwrap().as_bytes(), b"a\xff");
        for bad in ["", "/", "..", "a/../b", "a\\xzz"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
