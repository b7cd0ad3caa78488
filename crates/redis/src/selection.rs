//! Which keys are meant.

use std::collections::BTreeMap;

use crate::live::KeyPattern;

/// Some of the keys of a snapshot; all, unless said.
#[derive(Debug, Clone, Default)]
pub struct KeySelection {
    /// Only keys that fit one of these; all without any.
    pub keys: Vec<KeyPattern>,
    /// Only these databases, and where each goes; all, each to its own number, when empty.
    pub databases: BTreeMap<u64, u64>,
}

impl KeySelection {
    /// Whether all keys are meant, each where it is.
    pub fn is_everything(&self) -> bool {
        self.keys.is_empty() && self.databases.is_empty()
    }

    /// To which database a key goes; `None` when it is not meant.
    pub fn place_of(&self, database: u64, key: &[u8]) -> Option<u64> {
        place_of(&self.keys, &self.databases, database, key)
    }

    /// Two databases that would go into the same one, if there are such.
    pub fn clash(&self) -> Option<(u64, u64)> {
        let mut from = BTreeMap::new();
        let mut clashes = self
            .databases
            .iter()
            .filter_map(|(database, to)| Some((from.insert(to, *database)?, *database)));
        clashes.next()
    }
}

/// To which database a key goes when only keys that fit one of these patterns, and keys of these
/// databases, are meant.
pub(crate) fn place_of(
    keys: &[KeyPattern],
    databases: &BTreeMap<u64, u64>,
    database: u64,
    key: &[u8],
) -> Option<u64> {
    let to = match databases.is_empty() {
        true => database,
        false => *databases.get(&database)?,
    };
    let fits = keys.is_empty() || keys.iter().any(|pattern| pattern.matches(key));
    fits.then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_chosen_by_pattern_and_database() {
        let all = KeySelection::default();
        assert!(all.is_everything());
        assert_eq!(all.place_of(3, b"x"), Some(3));
        let some = KeySelection {
            keys: vec![KeyPattern::new("a*"), KeyPattern::new("b*")],
            databases: [(0, 5), (2, 2)].into(),
        };
        assert_eq!(some.place_of(0, b"a1"), Some(5));
        assert_eq!(some.place_of(2, b"b"), Some(2));
        assert_eq!(some.place_of(1, b"a1"), None);
        assert_eq!(some.place_of(0, b"c"), None);
        assert_eq!(some.clash(), None);
        let clash = KeySelection { databases: [(0, 5), (1, 1), (5, 5)].into(), ..all };
        assert_eq!(clash.clash(), Some((0, 5)));
    }
}
