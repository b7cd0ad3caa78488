//! A page of the tree.

use std::cmp::Ordering;

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
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    // No component holds a zero byte, and the separator counts as one.
    let weight = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    match a.iter().zip(b).find(|(a, b)| a != b) {
        Some((a, b)) => weight(a).cmp(&weight(b)),
        None => a.len().cmp(&b.len()),
    }
}

impl Page {
    /// What a page above would say of this one; nothing of a page without entries.
    pub(crate) fn as_child(&self, page: ChunkId) -> Option<Child> {
        if self.level == 0 {
            let first = self.entries.first()?.raw_path().to_vec().into();
            let bytes = self.entries.iter().map(|entry| entry.size);
            let bytes = bytes.fold(0, u64::saturating_add);
            return Some(Child { first, page, entries: self.entries.len() as u64, bytes });
        }
        let first = self.children.first()?.first.clone();
        let sum =
            |part: fn(&Child) -> u64| self.children.iter().map(part).fold(0, u64::saturating_add);
        Some(Child { first, page, entries: sum(|it| it.entries), bytes: sum(|it| it.bytes) })
    }

    /// Where to begin when only what is not before `from` counts.
    pub(crate) fn first_from(&self, from: &[u8]) -> usize {
        if self.level == 0 {
            self.entries.partition_point(|entry| compare(entry.raw_path(), from).is_lt())
        } else {
            // The last page that begins at or before it may reach up to it.
            let after = self.children.partition_point(|child| compare(&child.first, from).is_le());
            after.saturating_sub(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_core::EntryPath;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stored_paths_have_the_order_of_paths(a in "[a-c.!/]{1,12}", b in "[a-c.!/]{1,12}") {
            if let (Ok(a), Ok(b)) = (EntryPath::new(&a), EntryPath::new(&b)) {
                prop_assert_eq!(compare(a.as_bytes(), b.as_bytes()), a.cmp(&b));
            }
        }
    }
}
