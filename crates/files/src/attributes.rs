//! What the file system says of a file, as attributes of an entry, and back.

use lifeboat_core::local::Status;
use lifeboat_core::{Attributes, EntryInfo, EntryKind, names};

use crate::accounts::Accounts;
use crate::sink::Owners;

/// Extended attributes, name and value, sorted by name.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// How many attributes a file has, for the most part.
const USUAL: usize = 10;

/// The attributes of an entry with this status. Set in the order of their names.
///
/// Without `xattrs`, which means that they could not be read, there is no change time either, so
/// that no later backup takes this state for a known one.
pub(crate) fn describe(
    status: &Status,
    target: Option<Vec<u8>>,
    xattrs: Option<Xattrs>,
    accounts: &Accounts,
) -> Attributes {
    let mut attributes = Attributes::with_capacity(USUAL);
    if xattrs.is_some() {
        attributes.set(names::CHANGED, status.changed);
    }
    attributes.set(names::DEVICE, status.device);
    attributes.set(names::GID, status.gid);
    if let Some(group) = accounts.group(status.gid) {
        attributes.set(names::GROUP, group);
    }
    attributes.set(names::INODE, status.inode);
    attributes.set(names::MODE, status.mode);
    attributes.set(names::MODIFIED, status.modified);
    if matches!(status.kind, Some(EntryKind::CharDevice | EntryKind::BlockDevice)) {
        attributes.set(names::NODE, status.node);
    }
    if let Some(target) = target {
        attributes.set(names::TARGET, target);
    }
    attributes.set(names::UID, status.uid);
    if let Some(user) = accounts.user(status.uid) {
        attributes.set(names::USER, user);
    }
    if let Some(xattrs) = xattrs.filter(|xattrs| !xattrs.is_empty()) {
        attributes.set(names::XATTRS, xattrs);
    }
    attributes
}

/// Whether attributes of a file that [`is_unchanged`] are what [`describe`] would say today: the
/// device may have another number now, and an account another name.
pub(crate) fn describes(known: &Attributes, status: &Status, accounts: &Accounts) -> bool {
    known.unsigned(names::DEVICE) == Some(status.device)
        && known.unsigned(names::MODE) == Some(status.mode.into())
        && known.unsigned(names::UID) == Some(status.uid.into())
        && known.unsigned(names::GID) == Some(status.gid.into())
        && known.text(names::USER) == accounts.user(status.uid)
        && known.text(names::GROUP) == accounts.group(status.gid)
}

/// Whether nothing about a file changed since `old` was recorded.
///
/// A change moves the change time, which nobody can set back; but two changes within one tick of
/// the clock leave the same one. So a file counts as unchanged only when it was last changed
/// before `settled`, some time before the earlier backup began.
pub(crate) fn is_unchanged(status: &Status, old: &EntryInfo, settled: i64) -> bool {
    let recorded = &old.attributes;
    status.kind == Some(old.kind)
        && (status.kind != Some(EntryKind::File) || status.size == old.size)
        && recorded.signed(names::CHANGED) == Some(status.changed)
        && recorded.signed(names::MODIFIED) == Some(status.modified)
        && recorded.unsigned(names::INODE) == Some(status.inode)
        && status.changed < settled
}

/// What a restored file is to have. What the snapshot does not say stays as it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mode: Option<u32>,
    pub(crate) modified: Option<i64>,
    pub(crate) xattrs: Xattrs,
}

impl Wanted {
    /// Reads attributes of an entry; `prefix` comes before their names.
    pub(crate) fn new(
        attributes: &Attributes,
        prefix: &str,
        owners: Owners,
        accounts: &Accounts,
    ) -> Self {
        let named = |name: &str| format!("{prefix}{name}");
        let number = |name: &str| {
            let value = attributes.unsigned(&named(name))?;
            u32::try_from(value).ok()
        };
        let owner = match owners {
            Owners::Mine => None,
            Owners::Numbers => number(names::UID).zip(number(names::GID)),
            Owners::Names => {
                let user = attributes
                    .text(&named(names::USER))
                    .and_then(|user| accounts.user_number(user));
                let group = attributes
                    .text(&named(names::GROUP))
                    .and_then(|group| accounts.group_number(group));
                user.or_else(|| number(names::UID)).zip(group.or_else(|| number(names::GID)))
            }
        };
        // The highest number means "leave it as it is" to the kernel.
        let owner = owner.filter(|(uid, gid)| *uid != u32::MAX && *gid != u32::MAX);
        Self {
            owner,
            mode: number(names::MODE).map(|mode| mode & 0o7777),
            modified: attributes.signed(&named(names::MODIFIED)),
            xattrs: attributes.pairs(&named(names::XATTRS)).unwrap_or_default().to_vec(),
        }
    }
}

/// What a snapshot keeps of the top of the tree, which is no entry: facts with this prefix.
pub(crate) const TOP: &str = "files.";

/// The attributes of the top of the tree, as facts.
pub(crate) fn describe_top(
    status: &Status,
    xattrs: Option<Xattrs>,
    accounts: &Accounts,
) -> Attributes {
    let all = describe(status, None, xattrs, accounts);
    let own = [names::CHANGED, names::INODE, names::DEVICE];
    all.iter()
        .filter(|(name, _)| !own.contains(name))
        .map(|(name, value)| (format!("{TOP}{name}"), value.clone()))
        .collect()
}
