//! A snapshot key by key, where the server does not let itself be replicated.
//!
//! Managed services and proxies block `PSYNC`. What is left is to ask for every key: `SCAN` for the
//! names of each database, and `DUMP` for the values. Of that an RDB is made here, as the server would
//! have written it: a payload of `DUMP` is the type, the value as it stands in an RDB, the version of
//! the format and a checksum, which is compared. So what is restored, listed, verified and sliced is
//! the same as of any other snapshot.
//!
//! It is **not one moment**: each key is as it was when it was asked for, and what was written between
//! the first and the last may be there in part. The snapshot says so ([`facts::CONSISTENCY`]) and from
//! when to when it was. Keys that are there all the time are in it, each once; one that comes or goes
//! meanwhile may be in it or not. It can be no base for moments of a journal.
//!
//! - A value and its expiry belong together, so the two are asked for in one `MULTI`.
//! - Of names that `SCAN` gives twice one is taken, and they are taken in order (`names`).
//! - So many commands are sent ahead as will be answered with some MiB; a value passes in pieces,
//!   however large it is.
//! - Functions are asked for at the beginning (from 7.0 on), and missed with a warning.
//!
//! Nothing is in the snapshot of how often a key is used: asking for it would cost as much again.

mod dumping;
mod names;
mod rights;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use lifeboat_core::{
    Attributes, Completion, Content, Context, Entry, EntryKind, EntryPath, Extent, Layout, Reading,
    Timestamp,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

pub(super) use self::rights::may;
use super::{DUMP, facts};
use crate::checker::Checker;
use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::rdb::Outcome;

/// How many buffers may wait to be stored.
const WAITING: usize = 2;

/// What is known when all keys were read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scanned {
    /// When the last key was.
    ended: Timestamp,
    /// How many keys went between their name and their value.
    vanished: u64,
}

/// A snapshot on its way: one entry, whose content is made here.
pub(super) struct ScanReading {
    connection: Option<Connection>,
    target: String,
    began: Timestamp,
    done: Arc<Mutex<Option<(Scanned, Outcome)>>>,
    context: Context,
}

impl ScanReading {
    /// Reads what this server holds.
    pub(super) fn new(connection: Connection, context: &Context) -> Self {
        let (target, began) = (connection.target().to_owned(), Timestamp::now());
        context.phase("read the keys");
        let (done, context) = (Arc::default(), context.clone());
        Self { connection: Some(connection), target, began, done, context }
    }
}

#[async_trait]
impl Reading for ScanReading {
    async fn next(&mut self) -> lifeboat_core::Result<Option<Entry>> {
        let Some(connection) = self.connection.take() else {
            return Ok(None);
        };
        let (give, given) = mpsc::channel(WAITING);
        let making = dumping::make(connection, give, self.began, self.context.clone());
        let flow = Flow {
            target: self.target.clone(),
            making: Some(Box::pin(making)),
            given,
            checker: Some(Checker::start()),
            scanned: None,
            done: Arc::clone(&self.done),
            context: self.context.clone(),
        };
        let stream = stream::try_unfold(flow, |mut flow| async move {
            let extent = flow.next().await?;
            Ok(extent.map(|extent| (extent, flow)))
        });
        let path = EntryPath::new(DUMP)?;
        let entry = Entry::new(path, EntryKind::File, Attributes::new());
        Ok(Some(entry.with_layout(Layout::Records).with_content(0, Content::stream(stream))))
    }

    async fn finish(self: Box<Self>) -> lifeboat_core::Result<Completion> {
        let (scanned, outcome) = self.done.lock().take().ok_or(Error::Unfinished)?;
        let mut completion = Completion::at(self.began);
        completion.facts = facts::counted(&outcome)
            .with(facts::SERVER, self.target.clone())
            .with(facts::CONSISTENCY, facts::KEY_BY_KEY)
            .with(facts::SCAN_BEGAN, self.began.to_string())
            .with(facts::SCAN_ENDED, scanned.ended.to_string())
            .with(facts::VANISHED, scanned.vanished);
        Ok(completion)
    }
}

type Making = Pin<Box<dyn Future<Output = Result<Scanned>> + Send>>;

/// What turns the answers into content, and has it checked meanwhile.
struct Flow {
    target: String,
    /// Until all keys were read.
    making: Option<Making>,
    given: mpsc::Receiver<Bytes>,
    checker: Option<Checker>,
    scanned: Option<Scanned>,
    done: Arc<Mutex<Option<(Scanned, Outcome)>>>,
    context: Context,
}

impl Flow {
    async fn next(&mut self) -> Result<Option<Extent>> {
        if let Some(bytes) = self.bytes().await? {
            if let Some(checker) = &self.checker {
                checker.feed(bytes.clone()).await;
            }
            self.context.count_read(bytes.len() as u64);
            return Ok(Some(Extent::Data(bytes)));
        }
        let Some(checker) = self.checker.take() else {
            return Ok(None);
        };
        let target = self.target.clone();
        let outcome = checker.finish().await?;
        let outcome = outcome.map_err(|source| Error::Received { target, source })?;
        let scanned = self.scanned.ok_or(Error::Unfinished)?;
        *self.done.lock() = Some((scanned, outcome));
        Ok(None)
    }

    async fn bytes(&mut self) -> Result<Option<Bytes>> {
        while let Some(making) = &mut self.making {
            tokio::select! {
                biased;
                bytes = self.given.recv() => if bytes.is_some() {
                    return Ok(bytes);
                },
                made = making => {
                    self.making = None;
                    self.scanned = Some(made?);
                }
            }
        }
        Ok(self.given.recv().await)
    }
}
