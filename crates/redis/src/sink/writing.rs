//! One restore to a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_core::{
    Attributes, Completion, Content, Context, Entry, EntryKind, Extent, Receipt, Writing,
};
use parking_lot::Mutex;

use super::slice::{self, Sliced};
use super::{AppendOnly, RestoreOptions, append_only};
use crate::checker::Checker;
use crate::error::{Error, Result};
use crate::rdb::{Checksum, Outcome};
use crate::selection::KeySelection;
use crate::source::DUMP;

/// Nobody but the server's account reads it.
const MODE: u32 = 0o600;

pub(super) struct FileWriting {
    path: PathBuf,
    parent: PathBuf,
    /// Where it is written.
    partial: PathBuf,
    file: Arc<File>,
    selection: KeySelection,
    state: Mutex<State>,
}

enum State {
    Empty,
    Whole(Box<Outcome>, Option<Sliced>),
    Committed,
}

/// What the transfer holds: puts and commit share it.
pub(super) struct Shared(pub(super) Arc<FileWriting>, pub(super) Context);

impl FileWriting {
    /// Checks the target, and makes a file beside it.
    pub(super) fn begin(options: &RestoreOptions) -> Result<Self> {
        let (path, parent) = Self::look(options)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = parent.join(format!(".{name}.{}.partial", std::process::id()));
        let failed = |source| Error::File { doing: "make", path: partial.clone(), source };
        let mut making = OpenOptions::new();
        making.write(true).create_new(true).mode(MODE);
        let file = making.open(&partial).map_err(failed)?;
        let writing = Self {
            path,
            partial: partial.clone(),
            file: Arc::new(file),
            parent,
            selection: options.selection.clone(),
            state: Mutex::new(State::Empty),
        };
        writing.give_to_owner_of_directory().map_err(failed)?;
        Ok(writing)
    }

    /// The file and its directory. Refuses what can be refused, and touches nothing.
    pub(super) fn look(options: &RestoreOptions) -> Result<(PathBuf, PathBuf)> {
        let path = options.path.clone();
        match path.symlink_metadata() {
            Ok(there) if there.is_dir() => return Err(Error::TargetIsDirectory { path }),
            Ok(_) => return Err(Error::TargetExists { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::File { doing: "look at", path, source }),
        }
        if let Some((one, other)) = options.selection.clash() {
            return Err(Error::DatabasesClash { one, other });
        }
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => return Err(Error::TargetIsDirectory { path }),
        };
        if options.append_only == AppendOnly::Refuse
            && let Some(why) = append_only::reason(options, &parent)?
        {
            return Err(Error::AppendOnly { path, why });
        }
        Ok((path, parent))
    }

    /// A server reads its files under its own account, which is that of its directory.
    fn give_to_owner_of_directory(&self) -> io::Result<()> {
        let (ours, theirs) = (self.file.metadata()?, fs::metadata(&self.parent)?);
        if ours.uid() == 0 && theirs.uid() != 0 {
            fchown(&*self.file, Some(theirs.uid()), Some(theirs.gid()))?;
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = self.partial.clone();
        move |source| Error::File { doing, path, source }
    }

    async fn append(&self, bytes: Bytes) -> Result<()> {
        let file = Arc::clone(&self.file);
        let written = tokio::task::spawn_blocking(move || (&*file).write_all(&bytes)).await;
        written.map_err(|source| Error::Panicked { source })?.map_err(self.failed("write"))
    }

    async fn take(&self, entry: Entry) -> lifeboat_core::Result<()> {
        if entry.path.as_bytes() != DUMP.as_bytes() || entry.kind != EntryKind::File {
            let (path, entry) = (self.path.clone(), entry.path.to_string());
            return Err(Error::StrangeEntry { path, entry }.into());
        }
        self.fill(entry).await
    }

    /// Writes the RDB that an entry is, or what is wanted of it.
    pub(super) async fn fill(&self, mut entry: Entry) -> lifeboat_core::Result<()> {
        let done = match self.selection.is_everything() {
            true => (self.copy(&mut entry.content).await?, None),
            false => {
                let (outcome, sliced) = self.slice(&mut entry.content).await?;
                (outcome, Some(sliced))
            }
        };
        *self.state.lock() = State::Whole(Box::new(done.0), done.1);
        Ok(())
    }

    /// Writes all of it.
    async fn copy(&self, content: &mut Content) -> lifeboat_core::Result<Outcome> {
        let checker = Checker::start();
        while let Some(bytes) = self.next(content).await? {
            checker.feed(bytes.clone()).await;
            self.append(bytes).await?;
        }
        Ok(self.whole(checker).await?)
    }

    /// Writes the keys that are wanted. What is written is read once more, too.
    async fn slice(&self, content: &mut Content) -> lifeboat_core::Result<(Outcome, Sliced)> {
        let slice::Slicer { feed, mut sliced, thread } = slice::start(self.selection.clone());
        let feeding = async move {
            while let Some(bytes) = self.next(content).await? {
                if feed.send(bytes).await.is_err() {
                    // It tells why when it is asked.
                    break;
                }
            }
            Ok::<_, lifeboat_core::Error>(())
        };
        let writing = async move {
            let checker = Checker::start();
            while let Some(bytes) = sliced.recv().await {
                checker.feed(bytes.clone()).await;
                self.append(bytes).await?;
            }
            Ok::<_, Error>(checker)
        };
        let (fed, written) = tokio::join!(feeding, writing);
        let ended = thread.await.map_err(|source| Error::Panicked { source })?;
        fed?;
        let checker = written?;
        let path = self.path.clone();
        let counts = ended.map_err(|source| Error::Restored { path, source })?;
        Ok((self.whole(checker).await?, counts))
    }

    async fn next(&self, content: &mut Content) -> lifeboat_core::Result<Option<Bytes>> {
        match content.next().await? {
            Some(Extent::Data(bytes)) => Ok(Some(bytes)),
            None => Ok(None),
            // A source of this crate gives nothing else.
            Some(Extent::Unchanged(_) | Extent::Hole(_)) => {
                let path = self.path.clone();
                let entry = "a dump.rdb without its bytes".to_owned();
                Err(Error::StrangeEntry { path, entry }.into())
            }
        }
    }

    async fn whole(&self, checker: Checker) -> Result<Outcome> {
        let outcome = checker.finish().await?;
        let path = self.path.clone();
        outcome.map_err(|source| Error::Restored { path, source })
    }

    /// Makes the file durable, and then visible.
    pub(super) fn publish(&self) -> Result<()> {
        self.file.sync_all().map_err(self.failed("write to disk"))?;
        // A link never replaces what came there meanwhile.
        fs::hard_link(&self.partial, &self.path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::TargetExists { path: self.path.clone() },
            _ => Error::File { doing: "make", path: self.path.clone(), source },
        })?;
        *self.state.lock() = State::Committed;
        fs::remove_file(&self.partial).map_err(self.failed("remove"))?;
        let directory =
            |source| Error::File { doing: "write to disk", path: self.parent.clone(), source };
        File::open(&self.parent).and_then(|parent| parent.sync_all()).map_err(directory)
    }
}

impl Drop for FileWriting {
    fn drop(&mut self) {
        if !matches!(*self.state.lock(), State::Committed) {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

#[async_trait]
impl Writing for Shared {
    async fn put(&self, _ordinal: u64, entry: Entry) -> lifeboat_core::Result<()> {
        self.0.take(entry).await
    }

    async fn commit(self: Arc<Self>, _: Completion) -> lifeboat_core::Result<Receipt> {
        let writing = Arc::clone(&self.0);
        let state = std::mem::replace(&mut *writing.state.lock(), State::Empty);
        let State::Whole(outcome, sliced) = state else {
            return Err(Error::NoDump { path: writing.path.clone() }.into());
        };
        if sliced.is_some_and(|sliced| sliced.wanted == 0) {
            self.1
                .warn(&writing.path.display(), "no key of the snapshot fits: the file holds none");
        }
        let facts = said(&writing.path, &outcome, sliced);
        let published = tokio::task::spawn_blocking(move || writing.publish()).await;
        published.map_err(|source| Error::Panicked { source })??;
        Ok(Receipt { snapshot: None, facts })
    }

    async fn abort(self: Arc<Self>) {}
}

/// A path that means the same to a server that is started elsewhere.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn said(path: &Path, outcome: &Outcome, sliced: Option<Sliced>) -> Attributes {
    let next = format!(
        "with the server stopped and \"appendonly no\" in its configuration, see that {} is what \
         its settings dir and dbfilename name, and start it",
        absolute(path).display()
    );
    let mut facts = Attributes::new().with("redis.next", next);
    if let Some(Sliced { wanted, unwanted }) = sliced {
        let note = match wanted {
            0 => format!("the file holds none of the {unwanted} keys of the snapshot"),
            _ => format!(
                "the file holds {wanted} of the {} keys of the snapshot, and no functions",
                wanted + unwanted
            ),
        };
        facts.set("redis.note.slice", note);
    }
    if outcome.checksum == Checksum::Absent {
        let note = "the server that wrote the snapshot gave it no checksum of its own";
        facts.set("redis.note.checksum", note);
    }
    if let Some(why) = &outcome.not_understood {
        let note = format!("only a server that knows it can read all of this file: {why}");
        facts.set("redis.note.not_understood", note);
    }
    facts
}
