//! An open directory.

use fuser::{Errno, FileAttr, FileType};
use lifeboat_core::{EntryPath, ErrorKind};
use lifeboat_repository::{Members, Snapshot};
use tokio::sync::Mutex;

use crate::attributes::file_type;
use crate::layout::What;
use crate::node::Node;
use crate::view::{View, node_of};

/// The kernel takes no longer names.
const LONGEST: usize = 1024;

/// An open directory, and how far it was listed.
pub(crate) struct OpenDirectory {
    node: Node,
    listing: Mutex<Listing>,
}

#[derive(Default)]
struct Listing {
    /// How many were given out, with `.` and `..`.
    at: u64,
    within: Option<Within>,
    /// What did not fit into the last answer, or came after an answer that was not empty.
    next: Option<Result<Listed, Errno>>,
}

/// A directory within a snapshot.
struct Within {
    number: u32,
    snapshot: Snapshot,
    path: Option<EntryPath>,
    members: Members,
}

/// What a listing shows of a member.
pub(crate) struct Listed {
    pub(crate) name: Vec<u8>,
    pub(crate) inode: u64,
    pub(crate) kind: FileType,
    /// Only when they were asked for.
    pub(crate) attributes: Option<FileAttr>,
}

/// How much is said of each member.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Detail {
    Names,
    Attributes,
}

impl OpenDirectory {
    pub(crate) fn new(node: Node) -> Self {
        Self { node, listing: Mutex::default() }
    }

    /// Gives members from the one with this number on, until `add` says that it has no room for
    /// another one.
    pub(crate) async fn list(
        &self,
        view: &View,
        from: u64,
        detail: Detail,
        mut add: impl FnMut(&Listed, u64) -> bool,
    ) -> Result<(), Errno> {
        let mut listing = self.listing.lock().await;
        if from < listing.at {
            *listing = Listing::default();
        }
        let first = from;
        loop {
            let next = match listing.next.take() {
                Some(next) => Some(next),
                None => self.next(view, &mut listing, detail).await.transpose(),
            };
            let member = match next {
                None => return Ok(()),
                Some(Ok(member)) => member,
                Some(Err(error)) if listing.at > first => {
                    listing.next = Some(Err(error));
                    return Ok(());
                }
                Some(Err(error)) => return Err(error),
            };
            if listing.at >= from && add(&member, listing.at + 1) {
                listing.next = Some(Ok(member));
                return Ok(());
            }
            listing.at += 1;
        }
    }

    async fn next(
        &self,
        view: &View,
        listing: &mut Listing,
        detail: Detail,
    ) -> Result<Option<Listed>, Errno> {
        let Some(after_dots) = listing.at.checked_sub(2) else {
            // Nobody relies on the number of `..`: whoever goes up looks it up.
            let name = if listing.at == 0 { &b"."[..] } else { b".." };
            let listed = self.plain(view, name, self.node, detail).await?;
            return Ok(Some(Listed { kind: FileType::Directory, ..listed }));
        };
        if let Node::Above(number) = self.node {
            let above = view.layout.above(number).ok_or(Errno::ENOENT)?;
            let What::Directory(children) = &above.what else { return Err(Errno::ENOTDIR) };
            let at = usize::try_from(after_dots).map_err(|_| Errno::EINVAL)?;
            let Some((name, node)) = children.iter().nth(at) else { return Ok(None) };
            return self.plain(view, name.as_bytes(), *node, detail).await.map(Some);
        }
        if listing.within.is_none() {
            let (number, snapshot, path) = view.directory(self.node).await?;
            let members = snapshot.members(path.as_ref());
            listing.within = Some(Within { number, snapshot, path, members });
        }
        let Some(within) = &mut listing.within else { return Ok(None) };
        loop {
            let member =
                within.members.next().await.map_err(|error| {
                    view.failed(within.number, within.path.as_ref(), &error.into())
                })?;
            let Some(member) = member else { return Ok(None) };
            let place = node_of(within.number, &member).and_then(Node::inode);
            let Some(inode) = place else { continue };
            let (name, kind) = (member.entry.path.name().to_vec(), file_type(member.entry.kind));
            if name.len() > LONGEST {
                let what = "its name is longer than a mounted file's can be";
                let error = lifeboat_core::Error::new(ErrorKind::Unsupported, what);
                view.failed(within.number, Some(&member.entry.path), &error);
                continue;
            }
            let attributes = match detail {
                Detail::Names => None,
                // A hard link to what is not there is shown as it is; opening it says why it fails.
                Detail::Attributes => {
                    let own = view.own(inode, &member);
                    let shown = view.show(within.number, &within.snapshot, member).await;
                    Some(shown.unwrap_or(own))
                }
            };
            let inode = attributes.map_or(inode, |attributes| attributes.ino.0);
            return Ok(Some(Listed { name, inode, kind, attributes }));
        }
    }

    async fn plain(
        &self,
        view: &View,
        name: &[u8],
        node: Node,
        detail: Detail,
    ) -> Result<Listed, Errno> {
        let attributes = view.attributes(node).await?;
        Ok(Listed {
            name: name.to_vec(),
            inode: attributes.ino.0,
            kind: attributes.kind,
            attributes: (detail == Detail::Attributes).then_some(attributes),
        })
    }
}
