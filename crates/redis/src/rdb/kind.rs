//! The types of values, as their numbers in an RDB name them.

use super::Dialect;

/// What a key holds, as `TYPE` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ValueType {
    /// A string.
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    SortedSet,
    /// A hash.
    Hash,
    /// A stream.
    Stream,
    /// A value of a module, opaque to everybody else.
    Module,
}

impl ValueType {
    /// The word that `TYPE` answers; `module` for those of modules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::SortedSet => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
            Self::Module => "module",
        }
    }
}

/// How a value is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One string: a string, or a small collection packed into one.
    Blob,
    /// So many strings for each element.
    Strings(u64),
    /// A string and a number in words for each element.
    Scored,
    /// A string and so many bytes for each element.
    WithBytes(u64),
    /// Two strings and eight bytes (a time) for each element.
    PairsWithTime,
    /// A time; then for each element a number and two strings.
    TimedPairs,
    /// A time, and one string.
    TimedBlob,
    /// A number and a string for each element.
    Nodes,
    /// What streams are made of, in this version.
    Stream(u8),
    /// Numbers and strings, each announced by what it is.
    Module,
}

/// What a number means, or nothing when it is not known.
pub(super) fn lookup(code: u8, dialect: Dialect) -> Option<(ValueType, Shape)> {
    use ValueType::{Hash, List, Module, Set, SortedSet, Stream, String};
    Some(match (code, dialect) {
        (0, _) => (String, Shape::Blob),
        (1, _) => (List, Shape::Strings(1)),
        (2, _) => (Set, Shape::Strings(1)),
        (3, _) => (SortedSet, Shape::Scored),
        (4, _) => (Hash, Shape::Strings(2)),
        (5, _) => (SortedSet, Shape::WithBytes(8)),
        (7, _) => (Module, Shape::Module),
        // A zipmap, a ziplist or a listpack in a string.
        (9 | 13 | 16, _) => (Hash, Shape::Blob),
        (10, _) => (List, Shape::Blob),
        // An intset, a listpack.
        (11 | 20, _) => (Set, Shape::Blob),
        (12 | 17, _) => (SortedSet, Shape::Blob),
        // A list of ziplists.
        (14, _) => (List, Shape::Strings(1)),
        (15, _) => (Stream, Shape::Stream(1)),
        // A list of listpacks and of strings that are too large for one.
        (18, _) => (List, Shape::Nodes),
        (19, _) => (Stream, Shape::Stream(2)),
        (21, _) => (Stream, Shape::Stream(3)),
        // Fields that expire: the two went apart here.
        (22, Dialect::Valkey) => (Hash, Shape::PairsWithTime),
        (24, Dialect::Redis) => (Hash, Shape::TimedPairs),
        (25, Dialect::Redis) => (Hash, Shape::TimedBlob),
        _ => return None,
    })
}
