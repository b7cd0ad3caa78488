//! The walk through a tree, ahead of those who read it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use lifeboat_core::local::{Listed, Root, Status};
use lifeboat_core::{Attributes, Context, EntryKind, EntryPath, Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::exclude::Exclude;
use crate::gather::{Gatherer, Outcome, SMALL};
use crate::known::Known;
use crate::source::FileSystems;

/// How many entries are gathered by one task. They keep a descriptor each at worst.
const BATCH: usize = 128;

/// How many bytes of small files are gathered by one task.
const BATCH_BYTES: u64 = 2 << 20;

/// How many batches are on their way. The walk waits when nobody takes them.
pub(crate) const BATCHES: usize = 4;

/// A batch being gathered.
pub(crate) type Batch = JoinHandle<Result<Vec<Outcome>>>;

/// Something that was found in the tree.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: EntryPath,
    /// The directory that holds it.
    pub(crate) directory: Arc<OwnedFd>,
    pub(crate) status: Status,
    pub(crate) kind: EntryKind,
    pub(crate) plan: Plan,
    /// What the baseline has, when nothing about it changed.
    pub(crate) known: Option<Attributes>,
}

/// What is to be done with it.
#[derive(Debug)]
pub(crate) enum Plan {
    /// There is no content, or it has to be read.
    Read,
    /// The baseline has the content.
    Unchanged,
    /// It is another name of this entry.
    Link(EntryPath),
}

/// How a tree is walked.
pub(crate) struct Walk {
    pub(crate) root: Root,
    pub(crate) exclude: Arc<Exclude>,
    pub(crate) file_systems: FileSystems,
    pub(crate) known: Arc<Known>,
    pub(crate) context: Context,
    pub(crate) gatherer: Arc<Gatherer>,
    pub(crate) runtime: Handle,
    pub(crate) batches: mpsc::Sender<Result<Batch>>,
}

/// Why a walk ends before its end.
enum Stop {
    /// Nobody wants the rest.
    Unwanted,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A directory whose entries are being walked.
struct Level {
    path: Option<EntryPath>,
    rest: std::vec::IntoIter<Listed>,
}

impl Walk {
    /// Walks the whole tree. Blocks.
    pub(crate) fn run(self) {
        let batches = self.batches.clone();
        let mut progress = Progress {
            walk: self,
            batch: Vec::with_capacity(BATCH),
            bytes: 0,
            links: Links::default(),
        };
        if let Err(Stop::Failed(error)) = progress.all() {
            // When nobody listens any more, nobody misses it.
            let _ = batches.blocking_send(Err(error));
        }
    }
}

struct Progress {
    walk: Walk,
    batch: Vec<Found>,
    bytes: u64,
    links: Links,
}

impl Progress {
    fn all(&mut self) -> Result<(), Stop> {
        let device = Status::of(self.walk.root.top())
            .map_err(|error| {
                Error::io(format!("look at {}", self.walk.root.path().display()), error)
            })?
            .device;
        let mut here = self.walk.root.open_dir(None)?;
        let mut levels = vec![Level { path: None, rest: self.walk.root.list(None)?.into_iter() }];
        while let Some(level) = levels.last_mut() {
            let Some(listed) = level.rest.next() else {
                levels.pop();
                if let Some(above) = levels.last_mut() {
                    here = self.back_to(above, here);
                }
                continue;
            };
            let Some((path, status, kind)) = self.look(level.path.as_ref(), &here, &listed) else {
                continue;
            };
            let descend = kind == EntryKind::Directory
                && (self.walk.file_systems == FileSystems::All || status.device == device);
            let below = descend.then(|| path.clone());
            self.found(path, &here, status, kind)?;
            if let Some(path) = below {
                let opened = self.walk.root.open_dir(Some(&path));
                match opened.and_then(|opened| Ok((opened, self.walk.root.list(Some(&path))?))) {
                    Ok((opened, names)) => {
                        here = opened;
                        levels.push(Level { path: Some(path), rest: names.into_iter() });
                    }
                    Err(error) => {
                        self.without(&path, "what it holds is not in the snapshot", error)?;
                    }
                }
            }
        }
        self.flush()
    }

    /// The directory of a level to which the walk returns. When it is not to be found any more,
    /// the rest of it is given up.
    fn back_to(&self, level: &mut Level, here: Arc<OwnedFd>) -> Arc<OwnedFd> {
        match self.walk.root.open_dir(level.path.as_ref()) {
            Ok(opened) => opened,
            Err(error) => {
                if level.rest.len() > 0 {
                    let subject = level.path.as_ref().map_or_else(String::new, ToString::to_string);
                    let message = format!(
                        "it vanished while it was read, and some of it is not in the snapshot: {}",
                        error.one_line()
                    );
                    self.walk.context.warn(&subject, message);
                    level.rest = Vec::new().into_iter();
                }
                here
            }
        }
    }

    fn look(
        &self,
        above: Option<&EntryPath>,
        here: &OwnedFd,
        listed: &Listed,
    ) -> Option<(EntryPath, Status, EntryKind)> {
        let path = match above {
            Some(above) => above.join(&listed.name),
            None => EntryPath::new(&listed.name),
        };
        let path = match path {
            Ok(path) => path,
            Err(error) => {
                let subject = listed.name.escape_ascii();
                self.walk.context.warn(&subject, format!("it is not in the snapshot: {error}"));
                return None;
            }
        };
        if self.walk.exclude.matches(&path) {
            return None;
        }
        let status = match Status::at(here, &listed.name) {
            Ok(status) => status,
            Err(error) => {
                let gone = error.kind() == std::io::ErrorKind::NotFound;
                let what = if gone {
                    "it vanished before it could be read, and is not in the snapshot".to_owned()
                } else {
                    format!("it could not be read and is not in the snapshot: {error}")
                };
                self.walk.context.warn(&path, what);
                return None;
            }
        };
        let Some(kind) = status.kind else {
            let what = "it is of a kind that no snapshot can hold, and is left out";
            self.walk.context.warn(&path, what);
            return None;
        };
        Some((path, status, kind))
    }

    /// Warns that something is missing, unless all that is to come would be missing as well.
    fn without(&self, path: &EntryPath, what: &str, error: Error) -> Result<(), Stop> {
        if error.kind() == ErrorKind::Exhausted {
            return Err(Stop::Failed(error));
        }
        let message = format!("{what}: {}", error.one_line());
        self.walk.context.warn(path, message);
        Ok(())
    }

    fn found(
        &mut self,
        path: EntryPath,
        here: &Arc<OwnedFd>,
        status: Status,
        kind: EntryKind,
    ) -> Result<(), Stop> {
        let plan = match self.links.first(&path, &status, kind) {
            Some(first) => Plan::Link(first),
            None => Plan::Read,
        };
        if kind == EntryKind::File && !matches!(plan, Plan::Link(_)) {
            self.walk.context.expect(status.size);
            self.bytes += status.size.min(SMALL);
        }
        self.batch.push(Found {
            path,
            directory: Arc::clone(here),
            status,
            kind,
            plan,
            known: None,
        });
        if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.walk.context.check()?;
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        self.bytes = 0;
        let (known, gatherer) = (Arc::clone(&self.walk.known), Arc::clone(&self.walk.gatherer));
        let work = move || {
            known.compare(&mut batch);
            batch.into_iter().map(|found| gatherer.gather(found)).collect()
        };
        let task = self.walk.runtime.spawn_blocking(work);
        let sent = self.walk.batches.blocking_send(Ok(task));
        sent.map_err(|_| Stop::Unwanted)
    }
}

/// The files with more than one name that this walk has met. An inode is forgotten with the last
/// of its names, so that this is no larger than the number of those that are open.
#[derive(Debug, Default)]
struct Links(HashMap<(u64, u64), (EntryPath, u64)>);

impl Links {
    /// The first name of this file in this walk, unless this is it.
    fn first(&mut self, path: &EntryPath, status: &Status, kind: EntryKind) -> Option<EntryPath> {
        if kind == EntryKind::Directory || status.links < 2 {
            return None;
        }
        let key = (status.device, status.inode);
        let Some((first, left)) = self.0.get_mut(&key) else {
            self.0.insert(key, (path.clone(), status.links - 1));
            return None;
        };
        let first = first.clone();
        *left -= 1;
        if *left == 0 {
            self.0.remove(&key);
        }
        Some(first)
    }
}
