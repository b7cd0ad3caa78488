//! What lies above the snapshots: kinds, stores, and the links to the newest.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lifeboat_core::{SnapshotInfo, StoreRef};
use lifeboat_repository::repaired_original;

use crate::node::Node;

/// The directories above the snapshots.
pub(crate) struct Layout {
    above: Vec<Above>,
    pub(crate) snapshots: Vec<SnapshotInfo>,
}

/// A directory or a link above the snapshots.
pub(crate) struct Above {
    pub(crate) changed: Timestamp,
    pub(crate) what: What,
}

/// What it is.
pub(crate) enum What {
    /// A directory, and what is in it.
    Directory(BTreeMap<String, Node>),
    /// A link to something beside it.
    Link(String),
}

impl Layout {
    /// The layout of some snapshots, the oldest first.
    pub(crate) fn new(snapshots: Vec<SnapshotInfo>) -> Self {
        let changed = snapshots.iter().map(|info| info.taken).max().unwrap_or_default();
        let top = Above { changed, what: What::Directory(BTreeMap::new()) };
        let mut layout = Self { above: vec![top], snapshots: Vec::new() };
        let mut stores: BTreeMap<&StoreRef, Vec<u32>> = BTreeMap::new();
        for (number, info) in snapshots.iter().enumerate() {
            stores.entry(&info.store).or_default().push(number as u32);
        }
        // As everywhere, the latest is rather the sibling that a repair made than the hurt one.
        let hurt: BTreeSet<_> = snapshots.iter().filter_map(repaired_original).collect();
        for (store, numbers) in stores {
            let kind = layout.directory(0, component(store.kind()), changed);
            let directory = layout.directory(kind, component(store.name()), changed);
            let mut newest = None;
            for number in numbers {
                let info = &snapshots[number as usize];
                let short = format!("{}-{}", moment(info.taken), info.id.short());
                let top = Node::Top { snapshot: number };
                // Two of one moment that begin alike would hide each other.
                let name = match layout.child(directory, &short) {
                    None => short,
                    Some(_) => format!("{}-{}", moment(info.taken), info.id),
                };
                layout.add(directory, name.clone(), top);
                if !hurt.contains(&info.id) {
                    newest = Some((name, info.taken));
                }
            }
            if let Some((name, changed)) = newest {
                let link = Above { changed, what: What::Link(name) };
                let link = layout.push(link);
                layout.add(directory, "latest".to_owned(), link);
            }
        }
        layout.snapshots = snapshots;
        layout
    }

    /// One of them, by its number.
    pub(crate) fn above(&self, number: u32) -> Option<&Above> {
        self.above.get(number as usize)
    }

    /// What is in a directory, by its name.
    pub(crate) fn child(&self, directory: u32, name: &str) -> Option<Node> {
        match &self.above(directory)?.what {
            What::Directory(children) => children.get(name).copied(),
            What::Link(_) => None,
        }
    }

    fn directory(&mut self, parent: u32, name: String, changed: Timestamp) -> u32 {
        if let Some(Node::Above(number)) = self.child(parent, &name) {
            return number;
        }
        let number = self.above.len() as u32;
        let what = What::Directory(BTreeMap::new());
        let node = self.push(Above { changed, what });
        self.add(parent, name, node);
        number
    }

    fn push(&mut self, above: Above) -> Node {
        self.above.push(above);
        Node::Above(self.above.len() as u32 - 1)
    }

    fn add(&mut self, directory: u32, name: String, node: Node) {
        if let Some(Above { what: What::Directory(children), .. }) =
            self.above.get_mut(directory as usize)
        {
            children.insert(name, node);
        }
    }
}

/// A name that can be a component of a path, and is another one for every other name.
fn component(name: &str) -> String {
    let escaped = name.replace('%', "%25").replace('/', "%2F").replace('\0', "%00");
    match escaped.as_str() {
        "" => "%".to_owned(),
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => escaped,
    }
}

/// A moment without characters that mean something else in the names of files.
fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H-%M-%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use lifeboat_core::SnapshotId;

    use super::*;

    #[test]
    fn snapshots_are_found_by_store_and_time() {
        let info = |id: u8, kind: &str, name: &str, second: i64| {
            let taken = Timestamp::from_second(second).unwrap();
            SnapshotInfo::new(SnapshotId::from_bytes([id; 32]), StoreRef::new(kind, name), taken)
        };
        let hurt = info(4, "files", "etc", 7200);
        let mut sibling = info(3, "files", "etc", 7200);
        sibling.facts.set("repair.of", hurt.id.to_string());
        let layout = Layout::new(vec![
            info(1, "files", "etc", 0),
            info(2, "postgres", "a/b", 3600),
            sibling,
            hurt,
        ]);
        let at = |path: &[&str]| {
            path.iter().try_fold(Node::Above(0), |node, name| match node {
                Node::Above(number) => layout.child(number, name),
                _ => None,
            })
        };
        let first = at(&["files", "etc", "1970-01-01T00-00-00Z-01010101"]);
        assert_eq!(first, Some(Node::Top { snapshot: 0 }));
        assert_eq!(
            at(&["postgres", "a%2Fb", "1970-01-01T01-00-00Z-02020202"]),
            Some(Node::Top { snapshot: 1 })
        );
        let Some(Node::Above(link)) = at(&["files", "etc", "latest"]) else { panic!("no link") };
        let What::Link(target) = &layout.above(link).unwrap().what else { panic!("no link") };
        assert_eq!(at(&["files", "etc", target]), Some(Node::Top { snapshot: 2 }));
        assert_eq!(at(&["kafka"]), None);
    }

    #[test]
    fn no_name_leads_elsewhere_or_hides_another() {
        let names = ["", ".", "..", "a/b", "a%2Fb", "%", "%2E", "plain", "\0"];
        let components: Vec<_> = names.iter().map(|name| component(name)).collect();
        for component in &components {
            assert!(!component.is_empty() && !component.contains(['/', '\0']), "{component}");
            assert!(component != "." && component != "..");
        }
        let distinct: std::collections::BTreeSet<_> = components.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
