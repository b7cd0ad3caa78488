//! From what a snapshot recorded to what `stat` shows.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};
use jiff::Timestamp;
use lifeboat_core::{Attributes, EntryInfo, EntryKind, names};

/// Who owns what nobody is recorded for: whoever mounts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What the kernel calls a kind. A hard link is a file: it is shown as the one that it names.
pub(crate) fn file_type(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::Directory => FileType::Directory,
        EntryKind::File | EntryKind::HardLink => FileType::RegularFile,
        EntryKind::Symlink => FileType::Symlink,
        EntryKind::Fifo => FileType::NamedPipe,
        EntryKind::CharDevice => FileType::CharDevice,
        EntryKind::BlockDevice => FileType::BlockDevice,
        EntryKind::Socket => FileType::Socket,
    }
}

/// What is shown of an entry.
pub(crate) fn of_entry(inode: u64, entry: &EntryInfo, owner: Owner) -> FileAttr {
    let attributes = &entry.attributes;
    let number = |name: &str| attributes.unsigned(name).and_then(|it| u32::try_from(it).ok());
    let default = match entry.kind {
        EntryKind::Directory => 0o555,
        EntryKind::Symlink => 0o777,
        _ => 0o444,
    };
    let size = match entry.kind {
        EntryKind::Symlink => target(attributes).len() as u64,
        _ => entry.size,
    };
    let modified = nanoseconds(attributes, names::MODIFIED).unwrap_or(SystemTime::UNIX_EPOCH);
    let owner = Owner {
        uid: number(names::UID).unwrap_or(owner.uid),
        gid: number(names::GID).unwrap_or(owner.gid),
    };
    let mode = number(names::MODE).unwrap_or(default) & 0o7777;
    FileAttr {
        size,
        blocks: size.div_ceil(512),
        ctime: nanoseconds(attributes, names::CHANGED).unwrap_or(modified),
        rdev: number(names::NODE).unwrap_or(0),
        ..plain(inode, file_type(entry.kind), mode as u16, modified, owner)
    }
}

/// What is shown of what no snapshot records.
pub(crate) fn of_place(inode: u64, kind: FileType, changed: Timestamp, owner: Owner) -> FileAttr {
    let mode = if kind == FileType::Symlink { 0o777 } else { 0o555 };
    plain(inode, kind, mode, changed.into(), owner)
}

fn plain(inode: u64, kind: FileType, perm: u16, changed: SystemTime, owner: Owner) -> FileAttr {
    FileAttr {
        ino: INodeNo(inode),
        size: 0,
        blocks: 0,
        atime: changed,
        mtime: changed,
        ctime: changed,
        crtime: changed,
        kind,
        perm,
        // Programs that walk trees take 1 of a directory for "not counted".
        nlink: 1,
        uid: owner.uid,
        gid: owner.gid,
        rdev: 0,
        blksize: 128 << 10,
        flags: 0,
    }
}

/// Where a link points.
pub(crate) fn target(attributes: &Attributes) -> &[u8] {
    attributes.bytes(names::TARGET).unwrap_or_default()
}

fn nanoseconds(attributes: &Attributes, name: &str) -> Option<SystemTime> {
    let nanoseconds = attributes.signed(name)?;
    let length = Duration::from_nanos(nanoseconds.unsigned_abs());
    match nanoseconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(length),
        false => SystemTime::UNIX_EPOCH.checked_add(length),
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_core::{EntryPath, Layout};

    use super::*;

    #[test]
    fn what_was_recorded_is_shown() {
        let mut entry = EntryInfo {
            path: EntryPath::new("a").unwrap(),
            kind: EntryKind::File,
            attributes: Attributes::new()
                .with(names::MODE, 0o4755_u32)
                .with(names::UID, 7_u32)
                .with(names::MODIFIED, -1_500_000_000_i64),
            layout: Layout::Stream,
            size: 1025,
        };
        let owner = Owner { uid: 1, gid: 2 };
        let shown = of_entry(9, &entry, owner);
        assert_eq!((shown.perm, shown.uid, shown.gid, shown.blocks), (0o4755, 7, 2, 3));
        assert_eq!(shown.mtime, SystemTime::UNIX_EPOCH - Duration::from_millis(1500));
        assert_eq!(shown.ctime, shown.mtime);
        entry.kind = EntryKind::Symlink;
        entry.attributes = Attributes::new().with(names::TARGET, b"\xff/b".to_vec());
        let shown = of_entry(9, &entry, owner);
        assert_eq!((shown.kind, shown.size, shown.perm), (FileType::Symlink, 3, 0o777));
    }
}
