//! Owners, modes, times and extended attributes of what lies beneath a root.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::error::failed;
use super::root::Root;
use crate::error::Result;
use crate::path::EntryPath;

/// The name and value of every extended attribute, sorted by name.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A value may grow between the question for its length and the reading of it.
const ATTEMPTS: usize = 8;

impl Root {
    /// Sets owner and group; of a symbolic link itself. Clears set-id bits: set the mode later.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) without the right to give files away.
    pub fn set_owner(&self, path: &EntryPath, uid: u32, gid: u32) -> Result<()> {
        let (above, name) = self.parent(path)?;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(&above, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.failed("set the owner of", path, error))
    }

    /// Sets permission and set-id bits. A symbolic link has none: that is an error.
    ///
    /// # Errors
    /// The operating system's; `/proc` must be mounted.
    pub fn set_mode(&self, path: &EntryPath, mode: u32) -> Result<()> {
        let (above, name) = self.parent(path)?;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let change = || {
            // What the descriptor stands for cannot be exchanged for a link any more.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let node = rustix::fs::openat(&above, name, flags, Mode::empty())?;
            rustix::fs::chmod(format!("/proc/self/fd/{}", node.as_raw_fd()), mode)
        };
        change().map_err(|error: Errno| self.failed("set the mode of", path, error))
    }

    /// Sets when the content last changed, in nanoseconds since 1970 UTC; of a symbolic link
    /// itself.
    ///
    /// # Errors
    /// The operating system's.
    pub fn set_modified(&self, path: &EntryPath, nanoseconds: i64) -> Result<()> {
        let (above, name) = self.parent(path)?;
        let times = timestamps(nanoseconds);
        rustix::fs::utimensat(&above, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.failed("set the time of", path, error))
    }

    /// Sets one extended attribute; of a symbolic link itself.
    ///
    /// # Errors
    /// The operating system's: the file system may not know them, the name space may be
    /// reserved for root, `/proc` may not be mounted.
    pub fn set_xattr(&self, path: &EntryPath, name: &[u8], value: &[u8]) -> Result<()> {
        let (above, node) = self.parent(path)?;
        rustix::fs::lsetxattr(beneath(above.as_fd(), node), name, value, XattrFlags::empty())
            .map_err(|error| self.failed("set an extended attribute of", path, error))
    }

    /// Sets one extended attribute of the root itself.
    ///
    /// # Errors
    /// As for [`Root::set_xattr`].
    pub fn set_top_xattr(&self, name: &[u8], value: &[u8]) -> Result<()> {
        rustix::fs::fsetxattr(self.top(), name, value, XattrFlags::empty())
            .map_err(|error| failed("set an extended attribute of", &self.path().display(), error))
    }

    /// Sets owner and group of the root itself.
    ///
    /// # Errors
    /// As for [`Root::set_owner`].
    pub fn set_top_owner(&self, uid: u32, gid: u32) -> Result<()> {
        rustix::fs::fchown(self.top(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|error| failed("set the owner of", &self.path().display(), error))
    }

    /// Sets the mode of the root itself.
    ///
    /// # Errors
    /// The operating system's.
    pub fn set_top_mode(&self, mode: u32) -> Result<()> {
        rustix::fs::fchmod(self.top(), Mode::from_raw_mode(mode & 0o7777))
            .map_err(|error| failed("set the mode of", &self.path().display(), error))
    }

    /// Sets when the root itself was last changed, in nanoseconds since 1970 UTC.
    ///
    /// # Errors
    /// The operating system's.
    pub fn set_top_modified(&self, nanoseconds: i64) -> Result<()> {
        rustix::fs::futimens(self.top(), &timestamps(nanoseconds))
            .map_err(|error| failed("set the time of", &self.path().display(), error))
    }
}

/// Sets when the content of an open file last changed, in nanoseconds since 1970 UTC.
///
/// # Errors
/// The operating system's.
pub fn set_modified(file: impl AsFd, nanoseconds: i64) -> std::io::Result<()> {
    Ok(rustix::fs::futimens(file, &timestamps(nanoseconds))?)
}

fn timestamps(modified: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: modified.div_euclid(1_000_000_000),
            tv_nsec: modified.rem_euclid(1_000_000_000),
        },
    }
}

/// A path to `name` in an open directory, for calls that take no descriptor. Its last component
/// is not followed by the calls used here.
fn beneath(directory: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// All extended attributes of an open file or directory, sorted by name. Empty where the file
/// system has none.
///
/// # Errors
/// The operating system's.
pub fn xattrs_of(file: impl AsFd) -> std::io::Result<Xattrs> {
    let file = file.as_fd();
    collect(
        |list| rustix::fs::flistxattr(file, list),
        |name, value| rustix::fs::fgetxattr(file, name, value),
    )
}

/// All extended attributes of `name` in an open directory, sorted by name; of a symbolic link
/// itself. Empty where the file system has none. `name` must be a single component.
///
/// # Errors
/// The operating system's; `/proc` must be mounted.
pub fn xattrs_at(directory: impl AsFd, name: &[u8]) -> std::io::Result<Xattrs> {
    let path = beneath(directory.as_fd(), name);
    collect(
        |list| rustix::fs::llistxattr(&*path, list),
        |name, value| rustix::fs::lgetxattr(&*path, name, value),
    )
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    value: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> std::io::Result<Xattrs> {
    let names = match measured(list) {
        // No extended attributes on this file system, or none that a link can have.
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Xattrs::new()),
        names => names?,
    };
    let mut xattrs = Xattrs::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match measured(|buffer| value(name, buffer)) {
            Ok(value) => xattrs.push((name.to_vec(), value)),
            // Removed in between.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Calls `ask` with a buffer that is large enough. Most lists are empty or short.
fn measured(ask: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut short = [0; 512];
    match ask(&mut short) {
        Ok(length) => return Ok(short[..length].to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    let mut buffer = vec![0; 4096];
    for _ in 0..ATTEMPTS {
        match ask(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::Status;

    #[test]
    fn what_was_set_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let path = EntryPath::new("file").unwrap();
        let file = root.create_file(&path, 0o600).unwrap();
        root.set_mode(&path, 0o4751).unwrap();
        root.set_modified(&path, -1_500_000_001).unwrap();
        let status = Status::at(root.top().as_fd(), b"file").unwrap();
        assert_eq!((status.mode, status.modified), (0o4751, -1_500_000_001));
        assert_eq!(status, Status::of(&file).unwrap());
        let long = vec![7; 3000];
        // Not every file system that tests run on has them.
        if root.set_xattr(&path, b"user.long", &long).is_ok() {
            root.set_xattr(&path, b"user.a", b"").unwrap();
            let expected = vec![(b"user.a".to_vec(), vec![]), (b"user.long".to_vec(), long)];
            assert_eq!(xattrs_of(&file).unwrap(), expected);
            assert_eq!(xattrs_at(root.top(), b"file").unwrap(), expected);
        }
    }

    #[test]
    fn the_mode_of_what_a_link_points_to_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let link = EntryPath::new("link").unwrap();
        let file = root.create_file(&EntryPath::new("file").unwrap(), 0o600).unwrap();
        root.symlink(b"file", &link).unwrap();
        let before = Status::of(&file).unwrap();
        let _ = root.set_mode(&link, 0o777);
        root.set_modified(&link, 5).unwrap();
        assert_eq!(Status::of(&file).unwrap(), before);
    }
}
