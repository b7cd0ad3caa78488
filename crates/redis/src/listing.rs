//! The keys of a snapshot, one after the other, with constant memory.
//!
//! All of the RDB is read, since where a value ends shows only when it is passed over; nothing of it is
//! kept. When the listing has come to its end, the checksum was compared: what was listed is then
//! known to be all there is.

use std::future::Future;
use std::pin::Pin;

use lifeboat_core::{Content, Extent};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::fed::Fed;
use crate::rdb::{Item, LONGEST_NAME, RdbError, RdbReader, Record};
use crate::selection::KeySelection;

/// How many buffers, and how many batches of keys, may wait.
const WAITING: usize = 2;
/// So many bytes of names are handed on at a time, or one name that is longer.
const BATCH: usize = 64 << 10;

/// The keys of an RDB, as they come.
pub struct KeyListing {
    target: String,
    found: mpsc::Receiver<Vec<Record>>,
    batch: std::vec::IntoIter<Record>,
    /// Until all of it was fed to the thread.
    feeding: Option<Feeding>,
    /// Until it ended.
    thread: Option<tokio::task::JoinHandle<Result<Checked, RdbError>>>,
    checked: Option<Checked>,
}

type Feeding = Pin<Box<dyn Future<Output = lifeboat_core::Result<()>> + Send>>;

/// How many keys there were in all, once the listing has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Checked {
    keys: u64,
}

impl KeyListing {
    /// Lists the keys that are meant of the RDB that is this content. `target` says what it is, for
    /// errors. Must be called within a runtime.
    pub fn new(target: impl Into<String>, content: Content, selection: KeySelection) -> Self {
        let (feed, fed) = mpsc::channel(WAITING);
        let (tell, found) = mpsc::channel(WAITING);
        let thread = tokio::task::spawn_blocking(move || list(Fed::new(fed), &tell, &selection));
        Self {
            target: target.into(),
            found,
            batch: Vec::new().into_iter(),
            feeding: Some(Box::pin(pump(content, feed))),
            thread: Some(thread),
            checked: None,
        }
    }

    /// The next key, or `None` when all of it was read and its checksum is right.
    ///
    /// # Errors
    /// When the content cannot be read, is damaged, or holds what this program does not know.
    pub async fn next(&mut self) -> lifeboat_core::Result<Option<Record>> {
        loop {
            if let Some(record) = self.batch.next() {
                return Ok(Some(record));
            }
            let batch = match &mut self.feeding {
                None => self.found.recv().await,
                Some(feeding) => tokio::select! {
                    fed = feeding => {
                        self.feeding = None;
                        fed?;
                        continue;
                    }
                    batch = self.found.recv() => batch,
                },
            };
            if let Some(batch) = batch {
                self.batch = batch.into_iter();
                continue;
            }
            let Some(thread) = self.thread.take() else {
                return match self.checked {
                    Some(_) => Ok(None),
                    None => Err(Error::Unfinished.into()),
                };
            };
            let listed = thread.await.map_err(|source| Error::Panicked { source })?;
            let target = self.target.clone();
            self.checked = Some(listed.map_err(|source| Error::Listed { target, source })?);
        }
    }

    /// How many keys there are in all, also those that were not meant; known at the end.
    pub fn keys(&self) -> Option<u64> {
        self.checked.map(|checked| checked.keys)
    }
}

/// Feeds the thread.
async fn pump(mut content: Content, feed: mpsc::Sender<bytes::Bytes>) -> lifeboat_core::Result<()> {
    while let Some(extent) = content.next().await? {
        let Extent::Data(bytes) = extent else {
            let entry = "a dump.rdb without its bytes".to_owned();
            return Err(Error::StrangeContent { target: "the snapshot".to_owned(), entry }.into());
        };
        if feed.send(bytes).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn list(
    from: Fed,
    tell: &mpsc::Sender<Vec<Record>>,
    selection: &KeySelection,
) -> Result<Checked, RdbError> {
    let mut rdb = RdbReader::new(from).naming(LONGEST_NAME);
    let (mut batch, mut size, mut keys) = (Vec::new(), 0, 0);
    while let Some(item) = rdb.next()? {
        let Item::Key(key) = item else { continue };
        keys += 1;
        if selection.place_of(key.database, &key.name).is_none() {
            continue;
        }
        size += key.name.len() + size_of::<Record>();
        batch.push(key);
        if size >= BATCH {
            size = 0;
            if tell.blocking_send(std::mem::take(&mut batch)).is_err() {
                // Nobody wants to hear of it any more.
                return Ok(Checked { keys });
            }
        }
    }
    let _ = tell.blocking_send(batch);
    let end = rdb.offset();
    let (_, length) = rdb.finish()?;
    if length != end {
        return Err(RdbError::Trailing { offset: end });
    }
    Ok(Checked { keys })
}
