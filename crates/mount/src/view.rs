//! Places, and what is found there.

use std::collections::{HashSet, VecDeque};

use fuser::{Errno, FileAttr, FileType};
use lifeboat_core::{Context, EntryInfo, EntryKind, EntryPath, ErrorKind};
use lifeboat_repository::{Member, Repository, Snapshot, SnapshotFile};
use parking_lot::Mutex;

use crate::attributes::{self, Owner};
use crate::layout::{Layout, What};
use crate::node::Node;

/// So many snapshots are kept open, each with the chunks and pages that were read last.
const OPEN: usize = 8;
/// So many paths are remembered for which a warning was given.
const TOLD: usize = 4096;

/// What the mount shows.
pub(crate) struct View {
    repository: Repository,
    pub(crate) layout: Layout,
    owner: Owner,
    context: Context,
    /// The snapshots that were looked into last, the last one at the end.
    open: tokio::sync::Mutex<VecDeque<(u32, Snapshot)>>,
    told: Mutex<HashSet<String>>,
}

impl View {
    pub(crate) fn new(
        repository: Repository,
        layout: Layout,
        owner: Owner,
        context: Context,
    ) -> Self {
        let (open, told) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { repository, layout, owner, context, open, told }
    }

    /// What is called `name` in a directory.
    pub(crate) async fn lookup(&self, parent: Node, name: &[u8]) -> Result<FileAttr, Errno> {
        if let Node::Above(number) = parent {
            let name = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
            let node = self.layout.child(number, name).ok_or(Errno::ENOENT)?;
            return self.attributes(node).await;
        }
        let (number, snapshot, directory) = self.directory(parent).await?;
        let path = match directory {
            None => EntryPath::new(name),
            Some(directory) => directory.join(name),
        };
        // A name that no entry can have is the name of none.
        let path = path.map_err(|_| Errno::ENOENT)?;
        let found = snapshot.member(&path).await;
        let found = found.map_err(|error| self.failed(number, Some(&path), &error.into()))?;
        self.show(number, &snapshot, found.ok_or(Errno::ENOENT)?).await
    }

    /// What is shown of a node.
    pub(crate) async fn attributes(&self, node: Node) -> Result<FileAttr, Errno> {
        let inode = node.inode().ok_or(Errno::EOVERFLOW)?;
        match node {
            Node::Above(number) => {
                let above = self.layout.above(number).ok_or(Errno::ENOENT)?;
                let (kind, size) = match &above.what {
                    What::Directory(_) => (FileType::Directory, 0),
                    What::Link(target) => (FileType::Symlink, target.len() as u64),
                };
                let shown = attributes::of_place(inode, kind, above.changed, self.owner);
                Ok(FileAttr { size, ..shown })
            }
            Node::Top { snapshot } | Node::Implied { snapshot, .. } => {
                let info = self.layout.snapshots.get(snapshot as usize).ok_or(Errno::ENOENT)?;
                let kind = FileType::Directory;
                Ok(attributes::of_place(inode, kind, info.taken, self.owner))
            }
            Node::Entry { .. } => {
                let entry = self.entry(node).await?;
                Ok(attributes::of_entry(inode, &entry, self.owner))
            }
        }
    }

    /// The entry that a node is.
    pub(crate) async fn entry(&self, node: Node) -> Result<EntryInfo, Errno> {
        let Node::Entry { snapshot: of, number } = node else { return Err(Errno::EISDIR) };
        let found = self.snapshot(of).await?.nth(number).await;
        found.map_err(|error| self.failed(of, None, &error.into()))?.ok_or(Errno::ENOENT)
    }

    /// The file that a node is, and the number of its snapshot.
    pub(crate) async fn file(&self, node: Node) -> Result<(u32, SnapshotFile), Errno> {
        let entry = self.entry(node).await?;
        let Node::Entry { snapshot: of, .. } = node else { return Err(Errno::EISDIR) };
        match entry.kind {
            EntryKind::File | EntryKind::HardLink => {}
            EntryKind::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EACCES),
        }
        let file = self.snapshot(of).await?.file(&entry.path).await;
        let file = file.map_err(|error| self.failed(of, Some(&entry.path), &error.into()))?;
        Ok((of, file))
    }

    /// Where a link points.
    pub(crate) async fn link(&self, node: Node) -> Result<Vec<u8>, Errno> {
        if let Node::Above(number) = node {
            return match self.layout.above(number).map(|above| &above.what) {
                Some(What::Link(target)) => Ok(target.clone().into_bytes()),
                _ => Err(Errno::EINVAL),
            };
        }
        let entry = self.entry(node).await?;
        match entry.kind {
            EntryKind::Symlink => Ok(attributes::target(&entry.attributes).to_vec()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// A directory within a snapshot: the snapshot's number, the snapshot, and the path; none at
    /// the top.
    pub(crate) async fn directory(
        &self,
        node: Node,
    ) -> Result<(u32, Snapshot, Option<EntryPath>), Errno> {
        match node {
            Node::Above(_) => Err(Errno::ENOTDIR),
            Node::Top { snapshot } => Ok((snapshot, self.snapshot(snapshot).await?, None)),
            Node::Entry { snapshot, .. } => {
                let entry = self.entry(node).await?;
                if entry.kind != EntryKind::Directory {
                    return Err(Errno::ENOTDIR);
                }
                Ok((snapshot, self.snapshot(snapshot).await?, Some(entry.path)))
            }
            Node::Implied { snapshot, number, depth } => {
                let first = self.entry(Node::Entry { snapshot, number }).await?;
                let components: Vec<_> = first.path.components().take(depth.into()).collect();
                let path = EntryPath::new(components.join(&b'/')).map_err(|_| Errno::ENOENT)?;
                Ok((snapshot, self.snapshot(snapshot).await?, Some(path)))
            }
        }
    }

    /// What is shown of a member of a directory; of a hard link, the file that it names.
    pub(crate) async fn show(
        &self,
        of: u32,
        snapshot: &Snapshot,
        member: Member,
    ) -> Result<FileAttr, Errno> {
        let mut member = member;
        if member.entry.kind == EntryKind::HardLink {
            let target = EntryPath::new(attributes::target(&member.entry.attributes));
            let target =
                target.map_err(|error| self.failed(of, Some(&member.entry.path), &error))?;
            let found = snapshot.member(&target).await;
            match found.map_err(|error| self.failed(of, Some(&target), &error.into()))? {
                Some(found) if found.entry.kind != EntryKind::Directory => member = found,
                _ => {
                    let what = format!("it is a link to \"{target}\", which is not there");
                    let error = lifeboat_core::Error::new(ErrorKind::Corrupt, what);
                    return Err(self.failed(of, Some(&member.entry.path), &error));
                }
            }
        }
        let node = node_of(of, &member).ok_or(Errno::EOVERFLOW)?;
        if member.implied {
            return self.attributes(node).await;
        }
        let inode = node.inode().ok_or(Errno::EOVERFLOW)?;
        Ok(attributes::of_entry(inode, &member.entry, self.owner))
    }

    /// What was recorded of a member itself.
    pub(crate) fn own(&self, inode: u64, member: &Member) -> FileAttr {
        attributes::of_entry(inode, &member.entry, self.owner)
    }

    async fn snapshot(&self, number: u32) -> Result<Snapshot, Errno> {
        // Held while one is opened, so that it is opened once.
        let mut open = self.open.lock().await;
        let found = open.iter().position(|(at, _)| *at == number).and_then(|at| open.remove(at));
        let snapshot = match found {
            Some((_, snapshot)) => snapshot,
            None => {
                let info = self.layout.snapshots.get(number as usize).ok_or(Errno::ENOENT)?;
                let opened = self.repository.snapshot(&info.id).await;
                opened.map_err(|error| self.failed(number, None, &error.into()))?
            }
        };
        open.push_back((number, snapshot.clone()));
        if open.len() > OPEN {
            open.pop_front();
        }
        Ok(snapshot)
    }

    /// Says once of a path that it cannot be read, and what the program that asked is told.
    pub(crate) fn failed(
        &self,
        snapshot: u32,
        path: Option<&EntryPath>,
        error: &lifeboat_core::Error,
    ) -> Errno {
        let info = self.layout.snapshots.get(snapshot as usize);
        let mut subject = info.map(|info| info.id.short()).unwrap_or_default();
        if let Some(path) = path {
            subject = format!("{subject}: {path}");
        }
        let mut told = self.told.lock();
        if told.len() >= TOLD {
            told.clear();
        }
        if told.insert(subject.clone()) {
            self.context.warn(&subject, error.one_line());
        }
        Errno::EIO
    }
}

/// The place of a member of a directory.
pub(crate) fn node_of(snapshot: u32, member: &Member) -> Option<Node> {
    let number = member.number;
    if !member.implied {
        return Some(Node::Entry { snapshot, number });
    }
    let depth = u8::try_from(member.entry.path.components().count()).ok()?;
    Some(Node::Implied { snapshot, number, depth })
}
