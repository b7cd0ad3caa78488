//! Whose history a policy looks at.

use std::collections::BTreeMap;
use std::fmt;

use crate::snapshot::SnapshotInfo;
use crate::store::StoreRef;

/// What tells groups apart, beside the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GroupBy {
    /// The host that took the snapshots.
    Host,
    /// All their tags.
    Tags,
}

/// Snapshots that a policy judges together. Those of two stores are never in one group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// The store.
    pub store: StoreRef,
    /// The host, when groups are told apart by it.
    pub host: Option<String>,
    /// The tags, sorted and each once, when groups are told apart by them.
    pub tags: Option<Vec<String>>,
    /// The snapshots, in the order in which they were given.
    pub snapshots: Vec<SnapshotInfo>,
}

impl fmt::Display for Group {
    /// The name: `files/etc on host1 with the tags a, b`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)?;
        if let Some(host) = &self.host {
            write!(f, " on {host}")?;
        }
        match &self.tags {
            None => Ok(()),
            Some(tags) if tags.is_empty() => f.write_str(" without tags"),
            Some(tags) => write!(f, " with the tags {}", tags.join(", ")),
        }
    }
}

/// Divides snapshots into groups: by store, and by what is named. Groups come in the order of
/// their names.
pub fn group(snapshots: impl IntoIterator<Item = SnapshotInfo>, by: &[GroupBy]) -> Vec<Group> {
    let mut groups = BTreeMap::new();
    for snapshot in snapshots {
        let host = by.contains(&GroupBy::Host).then(|| snapshot.host.clone());
        let tags = by.contains(&GroupBy::Tags).then(|| {
            let mut tags = snapshot.tags.clone();
            tags.sort();
            tags.dedup();
            tags
        });
        let key = (snapshot.store.clone(), host, tags);
        let group = groups.entry(key).or_insert_with_key(|(store, host, tags)| Group {
            store: store.clone(),
            host: host.clone(),
            tags: tags.clone(),
            snapshots: Vec::new(),
        });
        group.snapshots.push(snapshot);
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::id::SnapshotId;

    #[test]
    fn stores_are_never_judged_together() {
        let info = |id: u8, store: &str, host: &str, tags: &[&str]| {
            let id = SnapshotId::from_bytes([id; 32]);
            let store = StoreRef::new("files", store);
            let mut info = SnapshotInfo::new(id, store, Timestamp::UNIX_EPOCH);
            info.host = host.into();
            info.tags = tags.iter().map(ToString::to_string).collect();
            info
        };
        let all = [
            info(1, "a", "x", &["t", "s"]),
            info(2, "b", "x", &[]),
            info(3, "a", "y", &["s", "t", "t"]),
            info(4, "a", "x", &["t"]),
        ];
        let names = |by: &[GroupBy]| -> Vec<_> {
            let groups = group(all.clone(), by);
            groups.iter().map(|group| (group.to_string(), group.snapshots.len())).collect()
        };
        let named = |names: &[(&str, usize)]| -> Vec<_> {
            names.iter().map(|(name, count)| (name.to_string(), *count)).collect()
        };
        assert_eq!(names(&[]), named(&[("files/a", 3), ("files/b", 1)]));
        assert_eq!(
            names(&[GroupBy::Host]),
            named(&[("files/a on x", 2), ("files/a on y", 1), ("files/b on x", 1)])
        );
        assert_eq!(
            names(&[GroupBy::Tags]),
            named(&[
                ("files/a with the tags s, t", 2),
                ("files/a with the tags t", 1),
                ("files/b without tags", 1)
            ])
        );
    }
}
