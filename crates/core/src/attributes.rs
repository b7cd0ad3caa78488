//! What is known of an entry besides its content.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;

/// Names of attributes that several stores share. A store may add its own; it prefixes them with
/// its kind (`postgres.lsn`).
pub mod names {
    /// Permission bits and set-id bits, as in `st_mode & 0o7777`. Unsigned.
    pub const MODE: &str = "mode";
    /// Numeric owner. Unsigned.
    pub const UID: &str = "uid";
    /// Numeric group. Unsigned.
    pub const GID: &str = "gid";
    /// Owner's name. Text.
    pub const USER: &str = "user";
    /// Group's name. Text.
    pub const GROUP: &str = "group";
    /// Last change of the content, nanoseconds since 1970 UTC. Signed.
    pub const MODIFIED: &str = "mtime";
    /// Last change of content or metadata by the kernel's clock, nanoseconds since 1970. Signed.
    pub const CHANGED: &str = "ctime";
    /// Inode number. Unsigned.
    pub const INODE: &str = "ino";
    /// Device that holds the entry. Unsigned.
    pub const DEVICE: &str = "dev";
    /// Device number of a device node. Unsigned.
    pub const NODE: &str = "rdev";
    /// Where a symbolic link points, or the path of the entry that a hard link shares. Bytes.
    pub const TARGET: &str = "target";
    /// Extended attributes, name and value. Pairs.
    pub const XATTRS: &str = "xattrs";
}

/// The value of an attribute or a fact.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// A count, a size, an id.
    Unsigned(u64),
    /// A time in nanoseconds, a difference.
    Signed(i64),
    /// Text.
    Text(String),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// Named byte strings, sorted by name.
    Pairs(Vec<(Vec<u8>, Vec<u8>)>),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Unsigned(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Unsigned(value.into())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Signed(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

impl From<Vec<(Vec<u8>, Vec<u8>)>> for Value {
    fn from(mut value: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        value.sort();
        Self::Pairs(value)
    }
}

/// A small map from name to [`Value`], sorted by name.
///
/// It serves as the attributes of an entry and as the facts of a snapshot. Clones share what they
/// hold until one of them is changed, and are compared at no cost.
///
/// ```
/// use lifeboat_core::{Attributes, names};
/// let attributes = Attributes::new().with(names::MODE, 0o644_u32).with(names::UID, 1000_u32);
/// assert_eq!(attributes.unsigned(names::MODE), Some(0o644));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Attributes(Arc<Vec<(Cow<'static, str>, Value)>>);

impl Attributes {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// No attributes, and room for so many.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Arc::new(Vec::with_capacity(capacity)))
    }

    /// Sets `name`, and returns the map.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets `name`, replacing what it was.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        let (name, value) = (name.into(), value.into());
        let all = Arc::make_mut(&mut self.0);
        // Who knows many sets them in order.
        if all.last().is_none_or(|(last, _)| *last < name) {
            return all.push((name, value));
        }
        match all.binary_search_by(|(have, _)| have.as_ref().cmp(&name)) {
            Ok(at) => all[at].1 = value,
            Err(at) => all.insert(at, (name, value)),
        }
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self.0.binary_search_by(|(have, _)| have.as_ref().cmp(name)).ok()?;
        Some(&self.0[at].1)
    }

    /// The value of `name`, when it is unsigned.
    pub fn unsigned(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Unsigned(value) => Some(*value),
            _ => None,
        }
    }

    /// The value of `name`, when it is signed.
    pub fn signed(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Signed(value) => Some(*value),
            _ => None,
        }
    }

    /// The value of `name`, when it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(value) => Some(value),
            _ => None,
        }
    }

    /// The value of `name`, when it is bytes.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        match self.get(name)? {
            Value::Bytes(value) => Some(value),
            _ => None,
        }
    }

    /// The value of `name`, when it is pairs.
    pub fn pairs(&self, name: &str) -> Option<&[(Vec<u8>, Vec<u8>)]> {
        match self.get(name)? {
            Value::Pairs(value) => Some(value),
            _ => None,
        }
    }

    /// When the content last changed, if that is known.
    pub fn modified(&self) -> Option<Timestamp> {
        Timestamp::from_nanosecond(self.signed(names::MODIFIED)?.into()).ok()
    }

    /// All names and values, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<Cow<'static, str>>> FromIterator<(N, Value)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(pairs: I) -> Self {
        let mut attributes = Self::new();
        for (name, value) in pairs {
            attributes.set(name, value);
        }
        attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_setting_does_not_matter() {
        let one = Attributes::new().with("b", 1_u64).with("a", "x").with("b", 2_u64);
        let two = Attributes::new().with("a", "x").with("b", 2_u64);
        assert_eq!(one, two);
        assert_eq!(one.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(one.text("b"), None);
    }
}
