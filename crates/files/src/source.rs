//! A file tree to be read.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::local::{Root, Status, xattrs_of};
use lifeboat_core::{
    Attributes, Baseline, Completion, Context, Entry, EntryPath, Error, ErrorKind, Finding,
    Inspection, Reading, Result, Severity, Source, StoreRef, Timestamp,
};
use tokio::sync::mpsc;

use crate::accounts::Accounts;
use crate::attributes::describe_top;
use crate::error::Error as FilesError;
use crate::exclude::Exclude;
use crate::gather::{Gatherer, Outcome, link};
use crate::known::Known;
use crate::marker;
use crate::walk::{BATCHES, Batch, Plan, Walk};

/// The kind of store that a file tree is.
pub const KIND: &str = "files";

/// The kernel stamps changes by a clock that moves a few milliseconds at a time; file systems
/// may keep whole seconds only, or two. Files that changed this shortly before the last backup
/// began, in nanoseconds, are read again.
const TICK: i64 = 2_000_000_000;

/// What of a tree is read.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SourceOptions {
    /// Patterns of what is left out, directories with all that they hold.
    ///
    /// A pattern without `/` is compared with the name of every entry: `*.tmp`. One with `/` is
    /// compared with the whole path from the top of the tree: `/var/cache`, `home/*/.cache`.
    /// `*` and `?` stand for bytes other than `/`, `**` for any number of components (at the end:
    /// for all that a directory holds), and `\` takes the meaning of the next character away.
    pub exclude: Vec<String>,
    /// What happens where another file system is mounted in the tree.
    pub file_systems: FileSystems,
}

/// What happens where another file system is mounted in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum FileSystems {
    /// It is read as a part of the tree.
    #[default]
    All,
    /// The directory it is mounted on is kept, without what it holds.
    One,
}

/// A file tree, to be read with every attribute that a file system keeps.
///
/// See the [crate's page](crate) for what is kept, and for what happens to files that change,
/// vanish or cannot be read.
#[derive(Debug, Clone)]
pub struct FilesSource {
    store: StoreRef,
    path: PathBuf,
    exclude: Arc<Exclude>,
    file_systems: FileSystems,
}

impl FilesSource {
    /// The tree beneath the directory `path`, as a store called `name`. Nothing is read yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when an exclude pattern makes no sense.
    pub fn new(
        name: impl Into<String>,
        path: impl Into<PathBuf>,
        options: &SourceOptions,
    ) -> Result<Self> {
        Ok(Self {
            store: StoreRef::new(KIND, name),
            path: path.into(),
            exclude: Arc::new(Exclude::new(&options.exclude)?),
            file_systems: options.file_systems,
        })
    }

    fn open(&self) -> Result<Root> {
        let root = Root::open(&self.path)?;
        if marker::is_there(&root)? {
            let path = self.path.display().to_string();
            return Err(FilesError::SourceUnfinished { path }.into());
        }
        Ok(root)
    }
}

#[async_trait]
impl Source for FilesSource {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    async fn inspect(&self) -> Result<Inspection> {
        let source = self.clone();
        blocking(move || source.look()).await
    }

    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> Result<Box<dyn Reading>> {
        let began = Timestamp::now();
        let source = self.clone();
        let gatherer = {
            let context = context.clone();
            blocking(move || {
                Ok(Gatherer { root: source.open()?, accounts: Accounts::load(), context })
            })
            .await?
        };
        let gatherer = Arc::new(gatherer);
        let settled = since.as_ref().map_or(i64::MIN, |since| {
            let started = since.snapshot().started.as_nanosecond();
            i64::try_from(started).unwrap_or(i64::MIN).saturating_sub(TICK)
        });
        let (sender, batches) = mpsc::channel(BATCHES);
        let walk = Walk {
            root: gatherer.root.clone(),
            exclude: Arc::clone(&self.exclude),
            file_systems: self.file_systems,
            known: Arc::new(Known::new(since, settled, context)),
            context: context.clone(),
            gatherer: Arc::clone(&gatherer),
            runtime: tokio::runtime::Handle::current(),
            batches: sender,
        };
        // It ends by itself when the reading is dropped: nobody takes its batches then.
        let walking = tokio::task::spawn_blocking(move || walk.run());
        Ok(Box::new(FilesReading {
            began,
            gatherer,
            batches,
            walking: Some(walking),
            ready: VecDeque::new(),
            lost: HashMap::new(),
            ended: false,
        }))
    }
}

impl FilesSource {
    fn look(&self) -> Result<Inspection> {
        let root = Root::open(&self.path)?;
        let mut inspection = Inspection::default();
        if marker::is_there(&root)? {
            inspection.findings.push(Finding::new(
                Severity::Blocker,
                "unfinished_restore",
                format!("{} holds an unfinished restore", self.path.display()),
                "run the restore again until it succeeds",
            ));
        }
        root.list(None)?;
        if !rustix::process::geteuid().is_root() {
            inspection.findings.push(Finding::new(
                Severity::Note,
                "not_root",
                "files that this user may not read will be missing from the snapshot",
                "run the backup as root, or as the owner of all files",
            ));
        }
        Ok(inspection)
    }
}

struct FilesReading {
    began: Timestamp,
    gatherer: Arc<Gatherer>,
    batches: mpsc::Receiver<Result<Batch>>,
    walking: Option<tokio::task::JoinHandle<()>>,
    ready: VecDeque<Outcome>,
    /// Files with several names whose first one was left out, and the name that stands for it.
    lost: HashMap<EntryPath, Option<EntryPath>>,
    ended: bool,
}

impl FilesReading {
    async fn outcome(&mut self) -> Result<Option<Outcome>> {
        loop {
            if let Some(outcome) = self.ready.pop_front() {
                return Ok(Some(outcome));
            }
            let Some(batch) = self.batches.recv().await else {
                // The walk ended: either at its end, or by a panic.
                if let Some(walking) = self.walking.take() {
                    walking.await.map_err(panicked)?;
                }
                self.ended = true;
                return Ok(None);
            };
            self.ready = batch?.await.map_err(panicked)??.into();
        }
    }

    async fn gathered(&mut self, mut found: crate::walk::Found) -> Result<Outcome> {
        let gatherer = Arc::clone(&self.gatherer);
        found.plan = Plan::Read;
        blocking(move || gatherer.gather(found)).await
    }
}

#[async_trait]
impl Reading for FilesReading {
    async fn next(&mut self) -> Result<Option<Entry>> {
        while let Some(outcome) = self.outcome().await? {
            self.gatherer.context.check()?;
            match outcome {
                Outcome::Entry(entry) => return Ok(Some(entry)),
                Outcome::Lost(path) => {
                    self.lost.extend(path.map(|path| (path, None)));
                }
                Outcome::Link(found, first) => match self.lost.get(&first) {
                    None => return Ok(Some(link(found.path, &first))),
                    Some(Some(other)) => return Ok(Some(link(found.path, other))),
                    // The first name was lost, the file perhaps was not.
                    Some(None) => {
                        let path = found.path.clone();
                        if let Outcome::Entry(entry) = self.gathered(*found).await? {
                            self.lost.insert(first, Some(path));
                            return Ok(Some(entry));
                        }
                    }
                },
            }
        }
        Ok(None)
    }

    async fn finish(self: Box<Self>) -> Result<Completion> {
        if !self.ended {
            let message = "the reading of a file tree was ended before its last entry";
            return Err(Error::new(ErrorKind::Other, message));
        }
        let gatherer = Arc::clone(&self.gatherer);
        let facts = blocking(move || Ok(top_facts(&gatherer))).await?;
        let mut completion = Completion::at(self.began);
        completion.facts = facts;
        Ok(completion)
    }
}

/// What is known of the top of the tree, which is no entry of its own.
fn top_facts(gatherer: &Gatherer) -> Attributes {
    let top = gatherer.root.top();
    let subject = gatherer.root.path().display();
    let xattrs = xattrs_of(top).map_err(|error| {
        let message = format!("its extended attributes are not in the snapshot: {error}");
        gatherer.context.warn(&subject, message);
    });
    match Status::of(top) {
        Ok(status) => describe_top(&status, xattrs.ok(), &gatherer.accounts),
        Err(error) => {
            let message = format!("its owner, mode and time are not in the snapshot: {error}");
            gatherer.context.warn(&subject, message);
            Attributes::new()
        }
    }
}

fn panicked(panic: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Other, "the work on a file tree panicked").with_source(panic)
}

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(panicked)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::Found;
    use lifeboat_core::{EntryKind, names};

    /// A walk met three names of one file, and the first was removed before it was read.
    #[tokio::test]
    async fn another_name_stands_in_for_one_that_was_lost() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("b"), "content").unwrap();
        std::fs::hard_link(folder.path().join("b"), folder.path().join("c")).unwrap();
        let root = Root::open(folder.path()).unwrap();
        let path = |name: &str| EntryPath::new(name).unwrap();
        let other = |name: &str| {
            let found = Found {
                path: path(name),
                directory: root.open_dir(None).unwrap(),
                status: Status::at(root.top(), name.as_bytes()).unwrap(),
                kind: EntryKind::File,
                plan: Plan::Link(path("a")),
                known: None,
            };
            Outcome::Link(Box::new(found), path("a"))
        };
        let ready = [Outcome::Lost(Some(path("a"))), other("b"), other("c")];
        let (_, batches) = mpsc::channel(1);
        let mut reading = FilesReading {
            began: Timestamp::now(),
            gatherer: Arc::new(Gatherer {
                root: root.clone(),
                accounts: Accounts::default(),
                context: Context::silent(),
            }),
            batches,
            walking: None,
            ready: ready.into(),
            lost: HashMap::new(),
            ended: false,
        };
        let first = reading.next().await.unwrap().unwrap();
        assert_eq!((first.path, first.kind, first.size), (path("b"), EntryKind::File, 7));
        let second = reading.next().await.unwrap().unwrap();
        assert_eq!((second.path, second.kind), (path("c"), EntryKind::HardLink));
        assert_eq!(second.attributes.bytes(names::TARGET), Some(&b"b"[..]));
        assert!(reading.next().await.unwrap().is_none());
        Box::new(reading).finish().await.unwrap();
    }
}
