//! A disk that is soon full.

use std::{ffi::CString, fmt, path::Path};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{scratch::Scratch, watchdog::Watchdog};

/// A file system in memory of a given size, mounted in a temporary directory and unmounted with the
/// value, to see a real ENOSPC.
#[derive(Debug)]
pub struct SmallDisk {
    scratch: Scratch,
    _watchdog: Watchdog,
}

/// Why there is no small disk on this machine: a test prints it, and passes over.
#[derive(Clone, Debug)]
pub struct Unavailable(String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no disk of a fixed size can be had here: {}", self.0)
    }
}

impl std::error::Error for Unavailable {}

impl SmallDisk {
    /// A disk that holds this many bytes (rounded up to whole memory pages). Only root may mount.
    pub fn mount(bytes: u64) -> Result<Self, Unavailable> {
        let reason = |error: &dyn fmt::Display| Unavailable(error.to_string());
        let scratch = Scratch::new().map_err(|error| reason(&error))?;
        let options = CString::new(format!("size={bytes},mode=0777")).map_err(|e| reason(&e))?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        mount("tmpfs", scratch.path(), "tmpfs", flags, options.as_c_str())
            .map_err(|error| Unavailable(format!("mount: {error}")))?;
        let clean_up = "umount -l -- \"$1\"; rmdir -- \"$1\"";
        match Watchdog::new(clean_up, &[scratch.path().as_os_str()]) {
            Ok(watchdog) => Ok(Self { scratch, _watchdog: watchdog }),
            Err(error) => {
                let _ = unmount(scratch.path(), UnmountFlags::DETACH);
                Err(reason(&error))
            }
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also when a file is still open somewhere.
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use super::*;

    #[test]
    fn it_is_full_when_it_says() {
        let disk = match SmallDisk::mount(1 << 20) {
            Ok(disk) => disk,
            Err(unavailable) => return eprintln!("passed over: {unavailable}"),
        };
        fs::write(disk.path().join("fits"), vec![1; 512 << 10]).unwrap();
        let error = fs::write(disk.path().join("more"), vec![1; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let path = disk.path().to_owned();
        drop(disk);
        assert!(!path.exists());
    }
}
