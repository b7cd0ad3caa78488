//! The stream of changes that a server sends to its replicas, and what its journal says of it.
//!
//! The stream is commands, one after the other, each an array of strings as RESP2 writes them. Its
//! places are counted in bytes since the history began, under the *replication id* of that history.
//!
//! [`Walker`] finds out where commands end, without holding more than a command's name; a
//! transaction (`MULTI` to `EXEC`) counts as one. [`Marks`] say by when how much of it had come.

mod marks;
mod walker;

pub(crate) use self::marks::Marks;
pub(crate) use self::walker::Walker;

/// The journal's stream.
pub(crate) const STREAM: &str = "stream";
