//! Inode numbers that are places.

/// What an inode number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    /// A directory or link above the snapshots, by its number in the layout.
    Above(u32),
    /// The top of a snapshot.
    Top {
        /// The snapshot's number.
        snapshot: u32,
    },
    /// An entry of a snapshot.
    Entry {
        /// The snapshot's number.
        snapshot: u32,
        /// The entry's number in it.
        number: u64,
    },
    /// A directory that a snapshot has no entry for: the first so many components of the path of
    /// the first entry beneath it.
    Implied {
        /// The snapshot's number.
        snapshot: u32,
        /// The number of the entry.
        number: u64,
        /// How many components.
        depth: u8,
    },
}

/// From the top down: the snapshot's number and 1, the depth, the entry's number.
const NUMBER_BITS: u32 = 36;
const DEPTH_BITS: u32 = 8;
/// So many snapshots can be told apart, and so many entries in one.
pub(crate) const MAX_SNAPSHOTS: usize = (1 << (64 - NUMBER_BITS - DEPTH_BITS)) - 2;
const MAX_NUMBER: u64 = (1 << NUMBER_BITS) - 1;
/// The depth that stands for the top.
const TOP: u64 = (1 << DEPTH_BITS) - 1;

impl Node {
    /// The inode number; none for what lies beyond all bounds.
    pub(crate) fn inode(self) -> Option<u64> {
        let pack = |snapshot: u32, depth: u64, number: u64| {
            (number <= MAX_NUMBER).then(|| {
                (u64::from(snapshot) + 1) << (NUMBER_BITS + DEPTH_BITS)
                    | depth << NUMBER_BITS
                    | number
            })
        };
        match self {
            // The top of all has to be 1.
            Self::Above(number) => Some(u64::from(number) + 1),
            Self::Top { snapshot } => pack(snapshot, TOP, 0),
            Self::Entry { snapshot, number } => pack(snapshot, 0, number),
            Self::Implied { depth: 0, .. } => None,
            Self::Implied { depth, .. } if u64::from(depth) == TOP => None,
            Self::Implied { snapshot, number, depth } => pack(snapshot, depth.into(), number),
        }
    }

    /// What an inode number stands for.
    pub(crate) fn of(inode: u64) -> Option<Self> {
        let snapshot = (inode >> (NUMBER_BITS + DEPTH_BITS)) as u32;
        let depth = inode >> NUMBER_BITS & TOP;
        let number = inode & MAX_NUMBER;
        match (snapshot.checked_sub(1), depth) {
            (None, 0) => u32::try_from(number.checked_sub(1)?).ok().map(Self::Above),
            (None, _) => None,
            (Some(snapshot), 0) => Some(Self::Entry { snapshot, number }),
            (Some(snapshot), TOP) => Some(Self::Top { snapshot }),
            (Some(snapshot), depth) => Some(Self::Implied { snapshot, number, depth: depth as u8 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_a_number_of_its_own() {
        let last = MAX_SNAPSHOTS as u32;
        let nodes = [
            Node::Above(0),
            Node::Above(7),
            Node::Top { snapshot: 0 },
            Node::Top { snapshot: last },
            Node::Entry { snapshot: 0, number: 0 },
            Node::Entry { snapshot: last, number: MAX_NUMBER },
            Node::Implied { snapshot: 0, number: 0, depth: 1 },
            Node::Implied { snapshot: last, number: MAX_NUMBER, depth: 254 },
        ];
        let inodes: Vec<_> = nodes.iter().map(|node| node.inode().unwrap()).collect();
        let distinct: std::collections::BTreeSet<_> = inodes.iter().collect();
        assert_eq!(distinct.len(), nodes.len());
        assert_eq!(inodes[0], 1);
        for (node, inode) in nodes.iter().zip(&inodes) {
            assert_eq!(Node::of(*inode), Some(*node));
        }
        assert_eq!(Node::of(0), None);
        assert_eq!(Node::Entry { snapshot: 0, number: MAX_NUMBER + 1 }.inode(), None);
        assert_eq!(Node::Implied { snapshot: 0, number: 1, depth: 255 }.inode(), None);
    }
}
