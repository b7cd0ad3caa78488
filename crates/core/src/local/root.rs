//! A directory beneath which everything happens.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::failed;
use super::status::Status;
use crate::entry::EntryKind;
use crate::error::{Error, ErrorKind, Result};
use crate::path::EntryPath;

/// How many directories stay open, so that neighbours need not walk from the top again.
const OPEN_DIRECTORIES: usize = 32;

/// The kernel takes no path longer than this in one call.
const LONGEST_CALL: usize = 4000;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open directory. Everything done through it happens beneath it, whatever the paths say and
/// whatever links stand in the way: no component is ever followed through a symbolic link, and
/// no path can lead out.
///
/// The kernel checks that where it can (`openat2`); elsewhere every component is opened by
/// itself. The directory is held by descriptor: renaming it does not mislead anybody. Clones
/// share it. All calls block.
#[derive(Clone)]
pub struct Root(Arc<Inner>);

struct Inner {
    top: Arc<OwnedFd>,
    path: PathBuf,
    by_component: AtomicBool,
    open: Mutex<VecDeque<(EntryPath, Arc<OwnedFd>)>>,
}

impl Root {
    /// Opens an existing directory. The path itself may lead through symbolic links: it comes
    /// from the operator, not from a snapshot.
    ///
    /// # Errors
    /// The operating system's; [`ErrorKind::Refused`] when it is no directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| {
            let subject = path.display();
            match error {
                Errno::NOTDIR => Error::new(ErrorKind::Refused, format!("open {subject}"))
                    .with_source(std::io::Error::from(error))
                    .with_hint("give a directory"),
                _ => failed("open", &subject, error),
            }
        })?;
        Ok(Self(Arc::new(Inner {
            top: Arc::new(top),
            path: path.to_owned(),
            by_component: AtomicBool::new(false),
            open: Mutex::default(),
        })))
    }

    /// Opens the directory, and makes it first, with its parents, when it does not exist. Those
    /// are made with mode 0700, as far as the umask lets them.
    ///
    /// # Errors
    /// As for [`Root::open`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = path.as_ref();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| failed("make directory", &path.display(), error))?;
        Self::open(path)
    }

    /// Where it is, as it was given.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// A path beneath it as people know it: for messages, never for opening.
    pub fn show(&self, path: &EntryPath) -> String {
        let root = self.0.path.display().to_string();
        format!("{}/{path}", root.trim_end_matches('/'))
    }

    pub(super) fn failed(&self, action: &str, path: &EntryPath, error: Errno) -> Error {
        failed(action, &self.show(path), error)
    }

    /// The directory itself.
    pub fn top(&self) -> &OwnedFd {
        &self.0.top
    }

    /// The directory at `path`, or the root itself. It may be shared with other callers: use it
    /// for calls relative to it, not to list it ([`Root::list`] does that).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Refused`] when a component is a symbolic link or no
    /// directory.
    pub fn open_dir(&self, path: Option<&EntryPath>) -> Result<Arc<OwnedFd>> {
        let Some(path) = path else {
            return Ok(Arc::clone(&self.0.top));
        };
        self.directory(path).map_err(|error| self.failed("open directory", path, error))
    }

    /// The directory that holds `path`, and the name of `path` in it.
    pub(super) fn parent<'p>(&self, path: &'p EntryPath) -> Result<(Arc<OwnedFd>, &'p [u8])> {
        Ok((self.open_dir(path.parent().as_ref())?, path.name()))
    }

    fn directory(&self, path: &EntryPath) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(found) = self.remembered(path) {
            return Ok(found);
        }
        let opened = Arc::new(self.resolve(path)?);
        let mut open = self.0.open.lock();
        open.truncate(OPEN_DIRECTORIES - 1);
        open.push_front((path.clone(), Arc::clone(&opened)));
        Ok(opened)
    }

    fn remembered(&self, path: &EntryPath) -> Option<Arc<OwnedFd>> {
        let mut open = self.0.open.lock();
        let at = open.iter().position(|(have, _)| have == path)?;
        if at > 0 {
            let found = open.remove(at)?;
            open.push_front(found);
        }
        open.front().map(|(_, fd)| Arc::clone(fd))
    }

    /// Forgets directories that stay open: what was at a path is no longer there.
    pub(super) fn forget(&self) {
        self.0.open.lock().clear();
    }

    fn resolve(&self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        let (mut here, mut rest) = self.nearest(path);
        loop {
            let (step, behind) = first_step(rest);
            let opened = self.descend(&here, step)?;
            match behind {
                Some(behind) => rest = behind,
                None => return Ok(opened),
            }
            here = Arc::new(opened);
        }
    }

    /// The lowest open directory above `path`, and the way from there.
    fn nearest<'p>(&self, path: &'p EntryPath) -> (Arc<OwnedFd>, &'p [u8]) {
        let way = path.as_bytes();
        let open = self.0.open.lock();
        // Another thread may have opened the path itself meanwhile.
        let above = open.iter().filter(|(have, _)| path.starts_with(have) && have != path);
        match above.max_by_key(|(have, _)| have.as_bytes().len()) {
            Some((have, fd)) => (Arc::clone(fd), &way[have.as_bytes().len() + 1..]),
            None => (Arc::clone(&self.0.top), way),
        }
    }

    /// Opens a directory beneath another one.
    fn descend(&self, above: &OwnedFd, way: &[u8]) -> Result<OwnedFd, Errno> {
        let open = |above: &OwnedFd, name: &[u8]| {
            rustix::fs::openat(above, name, DIRECTORY, Mode::empty())
        };
        if !way.contains(&b'/') {
            return open(above, way);
        }
        if !self.0.by_component.load(Ordering::Relaxed) {
            let how =
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(above.as_fd(), way, DIRECTORY, Mode::empty(), how) {
                // A kernel without the call, a filter that does not know it, a rename in the way.
                Err(Errno::NOSYS) => self.0.by_component.store(true, Ordering::Relaxed),
                Err(Errno::PERM | Errno::AGAIN) => {}
                done => return done,
            }
        }
        let mut names = way.split(|byte| *byte == b'/');
        let mut here = open(above, names.next().unwrap_or_default())?;
        for name in names {
            here = open(&here, name)?;
        }
        Ok(here)
    }

    /// Makes the directory `path`, and those above it that are missing. What is there already
    /// stays as it is. `mode` is taken as it is for the last one; the others get 0700.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when a component is a symbolic link or no directory.
    pub fn create_dir_all(&self, path: &EntryPath, mode: u32) -> Result<()> {
        let mut missing = Vec::new();
        let mut here = Some(path.clone());
        while let Some(path) = here {
            match self.directory(&path) {
                Ok(_) => break,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(self.failed("make directory", &path, error)),
            }
            here = path.parent();
            missing.push(path);
        }
        while let Some(made) = missing.pop() {
            let mode = if missing.is_empty() { mode } else { 0o700 };
            let (above, name) = self.parent(&made)?;
            match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(mode & 0o7777)) {
                // Another thread may have made it; the next step finds out what it is.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed("make directory", &made, error)),
            }
            self.directory(&made).map_err(|error| self.failed("make directory", &made, error))?;
        }
        Ok(())
    }

    /// Makes the directories above `path` that are missing, with mode 0700.
    ///
    /// # Errors
    /// As for [`Root::create_dir_all`].
    pub fn create_parents(&self, path: &EntryPath) -> Result<()> {
        match path.parent() {
            Some(above) => self.create_dir_all(&above, 0o700),
            None => Ok(()),
        }
    }

    /// Makes a new file, open for reading and writing. `mode` is subject to the umask.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when there is anything at `path`, a link included;
    /// [`ErrorKind::NotFound`] when its directory is missing.
    pub fn create_file(&self, path: &EntryPath, mode: u32) -> Result<File> {
        let (above, name) = self.parent(path)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&above, name, flags, Mode::from_raw_mode(mode & 0o7777))
            .map(File::from)
            .map_err(|error| self.failed("make file", path, error))
    }

    /// Opens a file for reading. A named pipe without a writer does not hold it up; what is no
    /// regular file shows in its [`Status`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Refused`] when a component or the file itself is a
    /// symbolic link, or rights are missing.
    pub fn open_file(&self, path: &EntryPath) -> Result<File> {
        let (above, name) = self.parent(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&above, name, flags, Mode::empty())
            .map(File::from)
            .map_err(|error| self.failed("open", path, error))
    }

    /// Opens a regular file for reading and writing, one that has no other name; `None` when there
    /// is no such file at `path`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open_for_patch(&self, path: &EntryPath) -> Result<Option<File>> {
        let (above, name) = match self.parent(path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match rustix::fs::statat(&above, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                if stat.st_nlink != 1 {
                    return Ok(None);
                }
            }
            Ok(_) | Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failed("look at", path, error)),
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&above, name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(File::from(file))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("open", path, error)),
        }
    }

    /// What the file system says of `path`; a symbolic link is not followed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or the operating system's.
    pub fn status(&self, path: &EntryPath) -> Result<Status> {
        let (above, name) = self.parent(path)?;
        rustix::fs::statat(&above, name, AtFlags::SYMLINK_NOFOLLOW)
            .map(|stat| Status::from_stat(&stat))
            .map_err(|error| self.failed("look at", path, error))
    }

    /// Makes a symbolic link. Where it points is kept as it is and never followed.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`], [`ErrorKind::InvalidInput`] when the target is empty or
    /// holds NUL, or the operating system's.
    pub fn symlink(&self, target: &[u8], path: &EntryPath) -> Result<()> {
        let (above, name) = self.parent(path)?;
        rustix::fs::symlinkat(target, &above, name).map_err(|error| match error {
            Errno::NOENT if target.is_empty() => self.failed("make link", path, Errno::INVAL),
            error => self.failed("make link", path, error),
        })
    }

    /// Makes `path` another name of `existing`. When that is a symbolic link, the link gets the
    /// name, not what it points to.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::AlreadyExists`], or the operating system's.
    pub fn hard_link(&self, existing: &EntryPath, path: &EntryPath) -> Result<()> {
        let (from, old) = self.parent(existing)?;
        let (to, new) = self.parent(path)?;
        rustix::fs::linkat(&from, old, &to, new, AtFlags::empty())
            .map_err(|error| self.failed("make hard link", path, error))
    }

    /// Makes a named pipe, a socket or a device node. `device` counts for device nodes only.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for any other kind; [`ErrorKind::Refused`] when the right to
    /// make device nodes is missing; or the operating system's.
    pub fn make_node(
        &self,
        path: &EntryPath,
        kind: EntryKind,
        mode: u32,
        device: u64,
    ) -> Result<()> {
        let file_type = match kind {
            EntryKind::Fifo => FileType::Fifo,
            EntryKind::Socket => FileType::Socket,
            EntryKind::CharDevice => FileType::CharacterDevice,
            EntryKind::BlockDevice => FileType::BlockDevice,
            _ => return Err(self.failed("make node", path, Errno::INVAL)),
        };
        let (above, name) = self.parent(path)?;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        rustix::fs::mknodat(&above, name, file_type, mode, device)
            .map_err(|error| self.failed("make node", path, error))
    }

    /// Gives `from` the name `to`; nothing is replaced. Both must be on one file system.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`], [`ErrorKind::NotFound`], or the operating system's.
    pub fn rename(&self, from: &EntryPath, to: &EntryPath) -> Result<()> {
        let (above_from, old) = self.parent(from)?;
        let (above_to, new) = self.parent(to)?;
        rustix::fs::renameat_with(&above_from, old, &above_to, new, RenameFlags::NOREPLACE)
            .map_err(|error| self.failed("rename", from, error))?;
        self.forget();
        Ok(())
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The operating system's: then they are not.
    pub fn sync_dir(&self, path: Option<&EntryPath>) -> Result<()> {
        let directory = self.open_dir(path)?;
        rustix::fs::fsync(&directory).map_err(|error| match path {
            Some(path) => self.failed("make durable", path, error),
            None => failed("make durable", &self.0.path.display(), error),
        })
    }

    /// Has the disk write what was written to the file system of the root so far, so that there is
    /// less to wait for in [`Root::sync_file_system`]. Nothing is promised.
    pub fn write_back(&self) {
        // A descriptor of its own: the kernel tells a failed write to each descriptor once, and it
        // is the last call that must hear of it.
        let own = rustix::fs::openat(&*self.0.top, ".", DIRECTORY, Mode::empty());
        if let Ok(own) = own {
            let _ = rustix::fs::syncfs(&own);
        }
    }

    /// Makes everything durable that was written to the file system of the root, file content
    /// and names. What lies on file systems mounted beneath it is not covered.
    ///
    /// # Errors
    /// The operating system's, also for a write that failed in the background since the root was
    /// opened (Linux 5.8 and later): then something written is not durable.
    pub fn sync_file_system(&self) -> Result<()> {
        rustix::fs::syncfs(&*self.0.top)
            .map_err(|error| failed("make durable", &self.0.path.display(), error))
    }
}

/// As much of a way as one call takes, and the rest.
fn first_step(way: &[u8]) -> (&[u8], Option<&[u8]>) {
    if way.len() <= LONGEST_CALL {
        return (way, None);
    }
    let cut = way[..LONGEST_CALL].iter().rposition(|byte| *byte == b'/');
    let cut = cut.or_else(|| way.iter().position(|byte| *byte == b'/'));
    match cut {
        Some(cut) => (&way[..cut], Some(&way[cut + 1..])),
        None => (way, None),
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Root").field(&self.0.path).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text).unwrap()
    }

    /// Both ways of opening must behave alike.
    fn roots() -> Vec<(tempfile::TempDir, Root)> {
        [false, true]
            .into_iter()
            .map(|by_component| {
                let folder = tempfile::tempdir().unwrap();
                let root = Root::open(folder.path()).unwrap();
                root.0.by_component.store(by_component, Ordering::Relaxed);
                (folder, root)
            })
            .collect()
    }

    #[test]
    fn directories_and_files_are_made_beneath() {
        for (folder, root) in roots() {
            root.create_dir_all(&path("a/b/c"), 0o750).unwrap();
            root.create_dir_all(&path("a/b/c"), 0o750).unwrap();
            root.create_file(&path("a/b/c/file"), 0o600).unwrap();
            assert!(folder.path().join("a/b/c/file").is_file());
            let again = root.create_file(&path("a/b/c/file"), 0o600).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AlreadyExists);
            assert!(again.one_line().contains("a/b/c/file"));
            root.sync_dir(Some(&path("a/b"))).unwrap();
            root.sync_file_system().unwrap();
        }
    }

    #[test]
    fn a_link_is_never_followed() {
        for (_folder, root) in roots() {
            let outside = tempfile::tempdir().unwrap();
            let target = outside.path().as_os_str().as_bytes();
            root.symlink(target, &path("out")).unwrap();
            root.symlink(b".", &path("here")).unwrap();
            for through in ["out", "here"] {
                let refused = [
                    root.create_dir_all(&path(&format!("{through}/x")), 0o700),
                    root.create_dir_all(&path(through), 0o700),
                    root.create_file(&path(&format!("{through}/x")), 0o600).map(drop),
                    root.open_file(&path(through)).map(drop),
                    root.symlink(b"x", &path(&format!("{through}/x"))),
                    root.make_node(&path(&format!("{through}/x")), EntryKind::Fifo, 0o600, 0),
                ];
                for result in refused {
                    let error = result.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
                }
                let taken = root.create_file(&path(through), 0o600).unwrap_err();
                assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
            }
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_file_is_no_directory() {
        for (_folder, root) in roots() {
            root.create_file(&path("file"), 0o600).unwrap();
            let error = root.create_file(&path("file/x"), 0o600).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            let error = root.create_dir_all(&path("file"), 0o700).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
        }
    }

    #[test]
    fn a_deep_tree_needs_no_long_call() {
        let (_folder, root) = roots().remove(0);
        let deep = path(&vec!["component"; 1500].join("/"));
        root.create_dir_all(&deep, 0o700).unwrap();
        root.forget();
        root.create_file(&deep.join("file").unwrap(), 0o600).unwrap();
        root.remove_contents().unwrap();
        assert!(root.list(None).unwrap().is_empty());
    }

    #[test]
    fn hard_links_name_the_link_itself() {
        let (folder, root) = roots().remove(0);
        root.symlink(b"/etc/passwd", &path("link")).unwrap();
        root.hard_link(&path("link"), &path("other")).unwrap();
        let other = folder.path().join("other");
        assert!(other.symlink_metadata().unwrap().is_symlink());
        let missing = root.hard_link(&path("none"), &path("third")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
