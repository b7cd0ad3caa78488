//! What was found, made into entries.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures_util::stream;
use lifeboat_core::local::{HOLE_GRAIN, Root, Status, failed, read_file, xattrs_at, xattrs_of};
use lifeboat_core::{
    Attributes, Bytes, Content, Context, Entry, EntryKind, EntryPath, Result, names,
};
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::accounts::Accounts;
use crate::attributes::{Xattrs, describe, describes};
use crate::walk::{Found, Plan};

/// Files up to this size are read before they are asked for.
pub(crate) const SMALL: u64 = 256 * 1024;

/// How often a small file is read when it changes meanwhile.
const ATTEMPTS: u32 = 3;

const CHANGED: &str = "it changed while it was read: the snapshot may hold parts of it from before and parts from after";

/// Makes entries of what a walk found.
#[derive(Debug)]
pub(crate) struct Gatherer {
    pub(crate) root: Root,
    pub(crate) accounts: Accounts,
    pub(crate) context: Context,
}

/// What became of something that was found.
#[derive(Debug)]
pub(crate) enum Outcome {
    Entry(Entry),
    /// Another name of an entry that comes before it.
    Link(Box<Found>, EntryPath),
    /// It was left out, with a warning; its path when it has other names.
    Lost(Option<EntryPath>),
}

impl Gatherer {
    /// Blocks; reads small files.
    ///
    /// # Errors
    /// Only what would spoil everything that comes after it as well.
    pub(crate) fn gather(&self, found: Found) -> Result<Outcome> {
        if let Plan::Link(first) = &found.plan {
            let first = first.clone();
            return Ok(Outcome::Link(Box::new(found), first));
        }
        let made = match (found.kind, &found.plan) {
            (EntryKind::File, Plan::Unchanged) => Ok(self.unchanged(&found)),
            (EntryKind::File, _) if found.status.size > 0 => self.file(&found),
            (EntryKind::Symlink, _) => self.symlink(&found),
            _ => Ok(self.plain(&found, None)),
        };
        match made {
            Ok(entry) => Ok(Outcome::Entry(entry)),
            Err(Errno::MFILE | Errno::NFILE) => {
                Err(failed("open", &self.root.show(&found.path), Errno::MFILE))
            }
            Err(error) => {
                self.left_out(&found.path, error);
                Ok(Outcome::Lost((found.status.links > 1).then_some(found.path)))
            }
        }
    }

    fn left_out(&self, path: &EntryPath, error: Errno) {
        let message = match error {
            Errno::NOENT | Errno::STALE => {
                "it vanished before it could be read, and is not in the snapshot".to_owned()
            }
            Errno::LOOP | Errno::NXIO => {
                "something else took its place before it could be read; it is not in the snapshot"
                    .to_owned()
            }
            Errno::AGAIN => {
                "it kept getting shorter while it was read, and is not in the snapshot".to_owned()
            }
            error => format!(
                "it could not be read and is not in the snapshot: {}",
                std::io::Error::from(error)
            ),
        };
        self.context.warn(path, message);
    }

    /// The extended attributes, or `None` with a warning when they cannot be read.
    fn xattrs(&self, path: &EntryPath, read: std::io::Result<Xattrs>) -> Option<Xattrs> {
        match read {
            Ok(xattrs) => Some(xattrs),
            // It vanished after it was looked at; unless the way there is missing.
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    && std::path::Path::new("/proc/self/fd").exists() =>
            {
                Some(Xattrs::new())
            }
            Err(error) => {
                let message = format!("its extended attributes are not in the snapshot: {error}");
                self.context.warn(path, message);
                None
            }
        }
    }

    fn plain(&self, found: &Found, target: Option<Vec<u8>>) -> Entry {
        let attributes = match &found.known {
            Some(known) if target.is_none() && describes(known, &found.status, &self.accounts) => {
                known.clone()
            }
            known => {
                let xattrs = match known {
                    Some(known) => Some(known.pairs(names::XATTRS).unwrap_or_default().to_vec()),
                    None => {
                        let read = xattrs_at(&*found.directory, found.path.name());
                        self.xattrs(&found.path, read)
                    }
                };
                describe(&found.status, target, xattrs, &self.accounts)
            }
        };
        Entry::new(found.path.clone(), found.kind, attributes)
    }

    fn unchanged(&self, found: &Found) -> Entry {
        let size = found.status.size;
        self.context.count_unchanged(size);
        self.plain(found, None).with_content(size, Content::unchanged(size))
    }

    fn symlink(&self, found: &Found) -> Result<Entry, Errno> {
        let target = rustix::fs::readlinkat(&*found.directory, found.path.name(), Vec::new())?;
        Ok(self.plain(found, Some(target.into_bytes())))
    }

    fn file(&self, found: &Found) -> Result<Entry, Errno> {
        let file = open(&found.directory, found.path.name())?;
        let status = look(&file)?;
        if status.kind != Some(EntryKind::File) {
            return Err(Errno::NXIO);
        }
        let xattrs = self.xattrs(&found.path, xattrs_of(&file));
        let describe = |status: &Status| describe(status, None, xattrs.clone(), &self.accounts);
        let sparse = status.size > 2 * HOLE_GRAIN && status.allocated < status.size;
        if status.size <= SMALL && !sparse {
            let reading = self.small(&found.path, &file, status)?;
            if let Some((status, bytes)) = reading {
                let size = bytes.len() as u64;
                return Ok(Entry::new(found.path.clone(), EntryKind::File, describe(&status))
                    .with_content(size, Content::bytes(bytes)));
            }
        }
        let attributes = describe(&status);
        Ok(self.streamed(&found.path, file, &status, attributes))
    }

    /// Reads a small file whole, again when it changes meanwhile; `None` when the budget has no
    /// room to spare.
    fn small(
        &self,
        path: &EntryPath,
        file: &File,
        mut before: Status,
    ) -> Result<Option<(Status, Bytes)>, Errno> {
        let mut attempt = 1;
        loop {
            let size = usize::try_from(before.size.min(SMALL)).unwrap_or(0);
            let Some(mut buffer) = self.context.budget().spare_buffer(size) else {
                return Ok(None);
            };
            let data = buffer.data_mut();
            while data.len() < size {
                let at = data.len() as u64;
                match rustix::io::pread(file, spare_capacity(data), at) {
                    Ok(0) => break,
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
            data.truncate(size);
            let read = data.len();
            let after = look(file)?;
            let whole = read as u64 == before.size && !before.differs(&after);
            if whole || attempt == ATTEMPTS {
                if !whole {
                    self.context.warn(path, CHANGED);
                }
                self.context.count_read(read as u64);
                return Ok(Some((before, buffer.freeze())));
            }
            attempt += 1;
            before = after;
        }
    }

    fn streamed(
        &self,
        path: &EntryPath,
        file: File,
        status: &Status,
        attributes: Attributes,
    ) -> Entry {
        let file = Arc::new(file);
        let watched = Watched {
            content: read_file(Arc::clone(&file), self.root.show(path), status.size, &self.context),
            file,
            path: path.clone(),
            before: *status,
            length: 0,
            context: self.context.clone(),
        };
        let content = Content::stream(stream::try_unfold(watched, |mut watched| async move {
            Ok(watched.next().await?.map(|extent| (extent, watched)))
        }));
        Entry::new(path.clone(), EntryKind::File, attributes).with_content(status.size, content)
    }
}

/// The content of a large file, and what it was like before.
struct Watched {
    content: Content,
    file: Arc<File>,
    path: EntryPath,
    before: Status,
    length: u64,
    context: Context,
}

impl Watched {
    async fn next(&mut self) -> Result<Option<lifeboat_core::Extent>> {
        let extent = self.content.next().await.map_err(|error| {
            // What was given so far must not pass for the file: there is no snapshot then.
            error.context(format!("back up {}, of which a part was read", self.path)).with_hint(
                "exclude this file, or mend what keeps it from being read, and run it again",
            )
        })?;
        if let Some(extent) = extent {
            self.length += extent.len();
            return Ok(Some(extent));
        }
        let file = Arc::clone(&self.file);
        let after = tokio::task::spawn_blocking(move || Status::of(&*file)).await;
        let same = matches!(after, Ok(Ok(after)) if !after.differs(&self.before));
        if !same || self.length != self.before.size {
            self.context.warn(&self.path, CHANGED);
        }
        Ok(None)
    }
}

fn open(directory: &OwnedFd, name: &[u8]) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty()).map(File::from)
}

fn look(file: &File) -> Result<Status, Errno> {
    Status::of(file).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// The entry of another name of `first`.
pub(crate) fn link(path: EntryPath, first: &EntryPath) -> Entry {
    let target = first.as_bytes().to_vec();
    Entry::new(path, EntryKind::HardLink, Attributes::new().with(names::TARGET, target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifeboat_core::Collecting;

    fn gatherer(root: &std::path::Path) -> (Gatherer, Arc<Collecting>) {
        let observer = Arc::new(Collecting::new());
        let gatherer = Gatherer {
            root: Root::open(root).unwrap(),
            accounts: Accounts::default(),
            context: Context::new(observer.clone()),
        };
        (gatherer, observer)
    }

    fn found(gatherer: &Gatherer, name: &str) -> Found {
        let status = Status::at(gatherer.root.top(), name.as_bytes()).unwrap();
        Found {
            path: EntryPath::new(name).unwrap(),
            directory: gatherer.root.open_dir(None).unwrap(),
            kind: status.kind.unwrap(),
            status,
            plan: Plan::Read,
            known: None,
        }
    }

    #[test]
    fn what_vanishes_or_is_exchanged_is_left_out_with_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let (gatherer, observer) = gatherer(folder.path());
        let at = |name: &str| folder.path().join(name);
        let exchange: [(&str, &dyn Fn()); 4] = [
            ("gone", &|| {}),
            ("link", &|| {
                std::os::unix::fs::symlink("/etc/passwd", at("link")).unwrap();
            }),
            ("folder", &|| std::fs::create_dir(at("folder")).unwrap()),
            ("pipe", &|| {
                gatherer
                    .root
                    .make_node(&EntryPath::new("pipe").unwrap(), EntryKind::Fifo, 0o600, 0)
                    .unwrap();
            }),
        ];
        for (count, (name, exchange)) in exchange.into_iter().enumerate() {
            std::fs::write(at(name), "content").unwrap();
            let found = found(&gatherer, name);
            std::fs::remove_file(at(name)).unwrap();
            exchange();
            assert!(matches!(gatherer.gather(found).unwrap(), Outcome::Lost(_)), "{name}");
            let warnings = observer.warnings();
            assert_eq!(warnings.len(), count + 1);
            assert_eq!(warnings[count].0, name);
        }
    }

    #[test]
    fn a_small_file_is_as_it_was_when_it_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (gatherer, observer) = gatherer(folder.path());
        std::fs::write(folder.path().join("file"), "old").unwrap();
        let found = found(&gatherer, "file");
        std::fs::write(folder.path().join("file"), "newer content").unwrap();
        let Outcome::Entry(entry) = gatherer.gather(found).unwrap() else {
            panic!("it was left out")
        };
        assert_eq!(entry.size, 13);
        assert!(observer.warnings().is_empty());
        assert_eq!(gatherer.context.progress().read, 13);
    }
}
