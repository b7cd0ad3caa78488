//! Reading back: from packs to entries.
//!
//! Every byte is checked on its way: the sealed chunk must be authentic for just this name, kind,
//! length and place, and what it opens to must hash to the name that was asked for.

mod ahead;
mod chunks;
mod copies;
mod open;
mod pieces;
mod source;
mod sparing;

pub(crate) use chunks::{ChunkReader, read_unit};
pub use copies::SnapshotCopies;
pub(crate) use open::{Sealed, pick};
pub(crate) use pieces::{FingerprintCursor, PieceCursor, is_there, list_page};
pub use source::Selection;
pub(crate) use source::{SnapshotSource, decode, fetch, read, read_range};
