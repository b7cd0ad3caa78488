//! A page of the tree.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::entry::EntryRecord;
use crate::id::ChunkId;

/// A page: a leaf with entries, or an inner page with pages below.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Page {
    /// 0 for leaves; one more than the pages below.
    #[n(0)]
    pub(crate) level: u8,
    #[n(1)]
    pub(crate) entries: Vec<EntryRecord>,
    #[n(2)]
    pub(crate) children: Vec<Child>,
}

/// A page below an inner page.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Child {
    /// The path of the first entry beneath.
    #[n(0)]
    pub(crate) first: ByteVec,
    #[n(1)]
    pub(crate) page: ChunkId,
    /// How many entries are beneath.
    #[n(2)]
    pub(crate) entries: u64,
    /// How many bytes of content they have.
    #[n(3)]
    pub(crate) bytes: u64,
}

/// A tree of more levels has more entries than anyone.
pub(crate) const MAX_LEVEL: u8 = 12;

/// Compares stored paths component by component, as [`lifeboat_core::EntryPath`] does.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    a.split(|byte| *byte == b'/').cmp(b.split(|byte| *byte == b'/'))
}
