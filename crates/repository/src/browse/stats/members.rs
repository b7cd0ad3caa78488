//! Which snapshots have something: sets of them, each kept once.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// The number of a set.
pub(super) type SetId = u32;

/// Numbers of snapshots, as ranges in order that do not touch. Snapshots of one store stand side
/// by side, and what they have in common lasts for a while: so most sets are one range.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Members(Arc<[(u32, u32)]>);

impl Members {
    fn union(&self, other: &Self) -> Self {
        let mut all: Vec<_> = self.0.iter().chain(other.0.iter()).copied().collect();
        all.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(all.len());
        for (start, end) in all {
            match merged.last_mut() {
                Some((_, last)) if *last >= start => *last = end.max(*last),
                _ => merged.push((start, end)),
            }
        }
        Self(merged.into())
    }
}

/// All the sets that occur.
#[derive(Debug, Default)]
pub(super) struct Sets {
    sets: Vec<Members>,
    numbers: HashMap<Members, SetId>,
    /// Few pairs are united again and again.
    unions: HashMap<(SetId, SetId), SetId>,
}

impl Sets {
    /// The set of one snapshot.
    pub(super) fn one(&mut self, snapshot: u32) -> SetId {
        self.number(Members([(snapshot, snapshot + 1)].into()))
    }

    /// All members of two sets.
    pub(super) fn union(&mut self, one: SetId, two: SetId) -> SetId {
        if one == two {
            return one;
        }
        let pair = (one.min(two), one.max(two));
        if let Some(known) = self.unions.get(&pair) {
            return *known;
        }
        let (one, two) = (&self.sets[one as usize], &self.sets[two as usize]);
        let union = self.number(one.union(two));
        self.unions.insert(pair, union);
        union
    }

    /// The members, as ranges.
    pub(super) fn ranges(&self, set: SetId) -> impl Iterator<Item = Range<usize>> {
        let ranges = self.sets.get(set as usize).map(|members| &members.0[..]);
        ranges.unwrap_or_default().iter().map(|(start, end)| *start as usize..*end as usize)
    }

    /// The only member, if there is but one.
    pub(super) fn only(&self, set: SetId) -> Option<usize> {
        match &self.sets.get(set as usize)?.0[..] {
            [(start, end)] if end - start == 1 => Some(*start as usize),
            _ => None,
        }
    }

    fn number(&mut self, members: Members) -> SetId {
        let next = self.sets.len() as SetId;
        let number = *self.numbers.entry(members.clone()).or_insert(next);
        if number == next {
            self.sets.push(members);
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sets_are_what_was_put_together(parts in proptest::collection::vec(0_u32..20, 1..30)) {
            let mut sets = Sets::default();
            let mut set = sets.one(parts[0]);
            for part in &parts[1..] {
                let one = sets.one(*part);
                set = sets.union(one, set);
            }
            let members: Vec<_> = sets.ranges(set).flatten().collect();
            let expected: BTreeSet<_> = parts.iter().map(|part| *part as usize).collect();
            prop_assert_eq!(&members, &expected.iter().copied().collect::<Vec<_>>());
            let only = (expected.len() == 1).then(|| members[0]);
            prop_assert_eq!(sets.only(set), only);
            // The same members are the same set, whatever they were put together from.
            let again = expected.iter().fold(None, |set, part| {
                let one = sets.one(*part as u32);
                Some(set.map_or(one, |set| sets.union(set, one)))
            });
            prop_assert_eq!(again, Some(set));
        }
    }
}
