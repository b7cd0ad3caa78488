//! One restore.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use lifeboat_core::local::{Head, Root, failed};
use lifeboat_core::{
    Attributes, Completion, Context, Entry, EntryKind, EntryPath, Receipt, Result, Writing,
};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use crate::error::Error;
use crate::notes::Notes;
use crate::restorer::Restorer;
use crate::sink::Owners;
use crate::source::blocking;
use crate::target::Target;

/// Files with up to so many bytes of data are made, written and finished in one go.
const SMALL: u64 = 256 * 1024;

pub(crate) struct FilesWriting {
    work: Arc<Work>,
    /// Read by everything that makes something in the target, so that giving up can wait until
    /// nothing does any more.
    stage: Arc<RwLock<Stage>>,
}

struct Work {
    target: Target,
    restorer: Restorer,
    write_back: WriteBack,
}

/// After so many bytes the disk is told to begin: the kernel would let them lie in memory, and all
/// would have to be waited for at the end.
const WRITE_BACK: u64 = 64 << 20;

/// Keeps the disk at work while files are made.
#[derive(Default)]
struct WriteBack {
    bytes: AtomicU64,
    running: Arc<AtomicBool>,
}

impl WriteBack {
    fn wrote(&self, bytes: u64, root: &Root) {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes < WRITE_BACK
            || self.running.swap(true, Ordering::Relaxed)
        {
            return;
        }
        self.bytes.store(0, Ordering::Relaxed);
        let (root, running) = (root.clone(), Arc::clone(&self.running));
        tokio::task::spawn_blocking(move || {
            root.write_back();
            running.store(false, Ordering::Relaxed);
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Ended,
}

/// The right to make something in the target.
type Pass = OwnedRwLockReadGuard<Stage>;

impl FilesWriting {
    pub(crate) fn new(target: Target, owners: Owners, context: Context) -> Result<Self> {
        let path = target.root.path().display();
        let notes =
            Notes::new(&target.marker).map_err(|error| failed("write into", &path, error))?;
        let restorer = Restorer::new(target.root.clone(), notes, context, owners);
        Ok(Self {
            work: Arc::new(Work { target, restorer, write_back: WriteBack::default() }),
            stage: Arc::new(RwLock::new(Stage::Open)),
        })
    }

    async fn pass(&self) -> Result<Pass> {
        let pass = Arc::clone(&self.stage).read_owned().await;
        match *pass {
            Stage::Open => Ok(pass),
            Stage::Ended => {
                let path = self.work.target.root.path().display().to_string();
                Err(Error::Ended { path }.into())
            }
        }
    }

    /// Runs `work` on a thread that may block. When this is dropped, it runs to its end, and
    /// giving up waits for it.
    async fn make<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Work) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let pass = self.pass().await?;
        let shared = Arc::clone(&self.work);
        blocking(move || {
            let done = work(&shared);
            drop(pass);
            done
        })
        .await
    }

    async fn file(&self, mut entry: Entry) -> Result<()> {
        let head = Head::pull(&mut entry.content, SMALL).await?;
        let Entry { path, attributes, content, .. } = entry;
        if head.is_whole() {
            return self.make(move |work| work.small_file(&path, &attributes, &head)).await;
        }
        let name = self.work.restorer.root.show(&path);
        let (file, path) =
            self.make(move |work| Ok((Arc::new(work.restorer.create(&path)?), path))).await?;
        let written = head.write_with_rest(Arc::clone(&file), name, content);
        let length = written.await?;
        self.make(move |work| {
            work.finish(&file, &path, &attributes, length);
            Ok(())
        })
        .await
    }
}

impl Work {
    fn allows(&self, path: &EntryPath) -> Result<()> {
        match self.target.is_reserved(path) {
            true => Err(Error::Reserved { path: path.clone() }.into()),
            false => Ok(()),
        }
    }

    fn small_file(&self, path: &EntryPath, attributes: &Attributes, head: &Head) -> Result<()> {
        let restorer = &self.restorer;
        let file = restorer.create(path)?;
        let length = head
            .write(&file, 0)
            .map_err(|error| failed("write", &restorer.root.show(path), error))?;
        self.finish(&file, path, attributes, length);
        Ok(())
    }

    fn finish(&self, file: &File, path: &EntryPath, attributes: &Attributes, length: u64) {
        let restorer = &self.restorer;
        restorer.context.count_new(length);
        restorer.context.count_stored(length);
        restorer.finish(file, path, attributes);
        self.write_back.wrote(length, &restorer.root);
    }

    fn commit(&self) -> Result<()> {
        self.restorer.settle()?;
        self.target.root.sync_file_system()
    }

    /// After this has begun, what was there before is gone, and there is nothing to put back.
    fn complete(&self, facts: &Attributes) -> Result<()> {
        self.target.remove_aside()?;
        self.target.complete(|| self.restorer.finish_top(facts))?;
        self.restorer.sum_up();
        Ok(())
    }

    fn give_up(&self) {
        if let Err(error) = self.target.give_up() {
            let message = format!("what was restored could not be removed: {}", error.one_line());
            let path = self.target.root.path().display();
            self.restorer.context.warn(&path, message);
        }
    }
}

#[async_trait]
impl Writing for FilesWriting {
    async fn put(&self, ordinal: u64, entry: Entry) -> Result<()> {
        self.work.allows(&entry.path)?;
        if entry.kind == EntryKind::File {
            return self.file(entry).await;
        }
        self.make(move |work| work.restorer.make(ordinal, &entry)).await
    }

    async fn put_all(&self, entries: Vec<(u64, Entry)>) -> Result<()> {
        let mut ready = Vec::with_capacity(entries.len());
        for (ordinal, mut entry) in entries {
            self.work.allows(&entry.path)?;
            let head = Head::pull(&mut entry.content, u64::MAX).await?;
            ready.push((ordinal, entry, head));
        }
        self.make(move |work| {
            ready.iter().try_for_each(|(ordinal, entry, head)| match entry.kind {
                EntryKind::File => work.small_file(&entry.path, &entry.attributes, head),
                _ => work.restorer.make(*ordinal, entry),
            })
        })
        .await
    }

    async fn commit(self: Arc<Self>, completion: Completion) -> Result<Receipt> {
        let mut stage = Arc::clone(&self.stage).write_owned().await;
        if *stage == Stage::Ended {
            let path = self.work.target.root.path().display().to_string();
            return Err(Error::Ended { path }.into());
        }
        *stage = Stage::Ended;
        let work = Arc::clone(&self.work);
        // One task, so that it runs to its end once it has begun.
        blocking(move || {
            let _stage = stage;
            if let Err(error) = work.commit() {
                work.give_up();
                return Err(error);
            }
            work.complete(&completion.facts)?;
            let path = work.target.root.path().display().to_string();
            Ok(Receipt { snapshot: None, facts: Attributes::new().with("directory", path) })
        })
        .await
    }

    async fn abort(self: Arc<Self>) {
        let mut stage = Arc::clone(&self.stage).write_owned().await;
        if *stage == Stage::Ended {
            return;
        }
        *stage = Stage::Ended;
        let work = Arc::clone(&self.work);
        let undone = blocking(move || {
            let _stage = stage;
            work.give_up();
            Ok(())
        });
        // A panic leaves the marker, which says that nothing here is whole.
        let _ = undone.await;
    }
}
