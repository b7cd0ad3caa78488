//! Owners, modes, times and extended attributes of what lies beneath a root.

use std::os::fd::{AsRawFd, OwnedFd};

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
        rustix::fs::lsetxattr(beneath(&above, node), name, value, XattrFlags::empty())
            .map_err(|error| self.failed("set an extended attribute of", path, error))
    }

    /// All extended attributes; of a symbolic link itself. Empty where the file system has none.
    ///
    /// # Errors
    /// The operating system's; `/proc` must be mounted.
    pub fn xattrs(&self, path: &EntryPath) -> Result<Xattrs> {
        let (above, node) = self.parent(path)?;
        read_xattrs(&beneath(&above, node))
            .map_err(|error| self.failed("read the extended attributes of", path, error))
    }

    /// The extended attributes of the root itself.
    ///
    /// # Errors
    /// As for [`Root::xattrs`].
    pub fn top_xattrs(&self) -> Result<Xattrs> {
        read_xattrs(&beneath(self.top(), b".")).map_err(|error| {
            failed(
                "read the extended attributes of",
                &self.path().display(),
                error,
            )
        })
    }

    /// Sets one extended attribute of the root itself.
    ///
    /// # Errors
    /// As for [`Root::set_xattr`].
    pub fn set_top_xattr(&self, name: &[u8], value: &[u8]) -> Result<()> {
        rustix::fs::fsetxattr(self.top(), name, value, XattrFlags::empty()).map_err(|error| {
            failed(
                "set an extended attribute of",
                &self.path().display(),
                error,
            )
        })
    }

    /// Sets owner and group of the root itself.
    ///
    /// # Errors
    /// As for [`Root::set_owner`].
    pub fn set_top_owner(&self, uid: u32, gid: u32) -> Result<()> {
        rustix::fs::fchown(
            self.top(),
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
        )
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

fn timestamps(modified: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: modified.div_euclid(1_000_000_000),
            tv_nsec: modified.rem_euclid(1_000_000_000),
        },
    }
}

/// A path to `name` in an open directory, for calls that take no descriptor. Its last component
/// is not followed by the calls used here.
fn beneath(directory: &OwnedFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

fn read_xattrs(path: &[u8]) -> Result<Xattrs, Errno> {
    let ask = |buffer: &mut Vec<u8>| rustix::fs::llistxattr(path, &mut buffer[..]);
    let names = match measured(ask) {
        // No extended attributes on this file system, or none that a link can have.
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Xattrs::new()),
        names => names?,
    };
    let mut xattrs = Xattrs::new();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        match measured(|buffer| rustix::fs::lgetxattr(path, name, &mut buffer[..])) {
            Ok(value) => xattrs.push((name.to_vec(), value)),
            // Removed in between.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Calls `ask` with a buffer that is large enough. Most lists and values fit the first one.
fn measured(ask: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 1024];
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
