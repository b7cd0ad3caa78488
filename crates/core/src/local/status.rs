//! What the file system says of a file.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Stat};

use crate::entry::EntryKind;

/// What `stat` says of a file, in one form for every platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// What it is; never [`EntryKind::HardLink`], which only a walk can tell. `None` for what no
    /// snapshot can hold.
    pub kind: Option<EntryKind>,
    /// Permission bits and set-id bits: `st_mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content.
    pub size: u64,
    /// Bytes that the file system gave it: less than `size` where the file has holes.
    pub allocated: u64,
    /// Last change of the content, nanoseconds since 1970 UTC.
    pub modified: i64,
    /// Last change of content or metadata, nanoseconds since 1970 UTC.
    pub changed: i64,
    /// Inode number.
    pub inode: u64,
    /// The device that holds it.
    pub device: u64,
    /// How many names it has.
    pub links: u64,
    /// The device that it is, for a device node.
    pub node: u64,
}

impl Status {
    /// What the file system says of an open file.
    ///
    /// # Errors
    /// The operating system's.
    pub fn of(file: impl AsFd) -> std::io::Result<Self> {
        Ok(Self::from_stat(&rustix::fs::fstat(file)?))
    }

    /// What the file system says of `name` in an open directory; a symbolic link is not followed.
    /// `name` must be a single component.
    ///
    /// # Errors
    /// The operating system's.
    pub fn at(directory: impl AsFd, name: &[u8]) -> std::io::Result<Self> {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Self::from_stat(&stat))
    }

    // The widths of these fields differ from platform to platform.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    pub(super) fn from_stat(stat: &Stat) -> Self {
        let nanoseconds = |seconds: i64, rest: u64| {
            seconds.saturating_mul(1_000_000_000).saturating_add(rest as i64)
        };
        Self {
            kind: kind_of(FileType::from_raw_mode(stat.st_mode)),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size.max(0) as u64,
            allocated: (stat.st_blocks.max(0) as u64).saturating_mul(512),
            modified: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            changed: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
            inode: stat.st_ino as u64,
            device: stat.st_dev as u64,
            links: stat.st_nlink as u64,
            node: stat.st_rdev as u64,
        }
    }

    /// Whether the content may have been changed between the two looks.
    pub fn differs(&self, other: &Self) -> bool {
        (self.size, self.modified, self.changed, self.inode, self.device)
            != (other.size, other.modified, other.changed, other.inode, other.device)
    }
}

pub(super) fn kind_of(file_type: FileType) -> Option<EntryKind> {
    Some(match file_type {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo => EntryKind::Fifo,
        FileType::Socket => EntryKind::Socket,
        FileType::CharacterDevice => EntryKind::CharDevice,
        FileType::BlockDevice => EntryKind::BlockDevice,
        FileType::Unknown => return None,
    })
}
