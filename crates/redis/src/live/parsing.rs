//! From the bytes of an RDB to the keys that are wanted, on a thread of its own.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::LiveOptions;
use crate::fed::Fed;
use crate::rdb::{Checksum, Dialect, Eviction, Item, LONGEST_NAME, RdbError, RdbReader};

/// How many buffers may wait to be parsed.
const WAITING: usize = 2;
/// So much is handed on at a time, or one value that is larger.
const BATCH: usize = 256 << 10;

/// What the thread finds, in order.
pub(super) enum Found {
    /// The version of the format. First of all.
    Version(Dialect, u32),
    /// Keys and functions.
    Batch(Vec<Wanted>),
    /// The end, and how many keys were not wanted.
    End { unwanted: u64 },
    /// It cannot be read further.
    Failed(RdbError),
}

/// Something to be written.
pub(super) enum Wanted {
    Key(Key),
    /// A library of functions: as it stands in the RDB, its instruction left out.
    Functions(Option<Vec<u8>>),
}

pub(super) struct Key {
    /// The database where it goes.
    pub(super) database: u64,
    pub(super) name: Vec<u8>,
    pub(super) name_length: u64,
    pub(super) encoding: u8,
    /// `None` when it is too large.
    pub(super) value: Option<Vec<u8>>,
    pub(super) expires: Option<i64>,
    pub(super) eviction: Option<Eviction>,
}

/// The bytes that are fed to the thread.
pub(super) type Feed = mpsc::Sender<Bytes>;

/// Starts the thread. It ends when nobody wants to hear of it any more.
pub(super) fn start(options: Arc<LiveOptions>) -> (Feed, mpsc::Receiver<Found>) {
    let (feed, fed) = mpsc::channel(WAITING);
    // One batch waits: with the one that is made and the one that is sent, three values are held.
    let (tell, found) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let reader = Fed::new(fed);
        let mut parser = Parser { tell, options, batch: Vec::new(), size: 0, unwanted: 0 };
        let end = match parser.parse(reader) {
            Ok(()) => Found::End { unwanted: parser.unwanted },
            Err(Some(error)) => Found::Failed(error),
            Err(None) => return,
        };
        let _ = parser.hand_on();
        let _ = parser.tell.blocking_send(end);
    });
    (feed, found)
}

struct Parser {
    tell: mpsc::Sender<Found>,
    options: Arc<LiveOptions>,
    batch: Vec<Wanted>,
    size: usize,
    unwanted: u64,
}

impl Parser {
    /// Parses all of it. An error that is none: nobody listens any more.
    fn parse(&mut self, reader: Fed) -> Result<(), Option<RdbError>> {
        let mut rdb = RdbReader::new(reader).keeping(self.options.largest, LONGEST_NAME);
        let mut told = false;
        loop {
            let item = rdb.next();
            if !told && let Some((dialect, version)) = rdb.version() {
                told = true;
                self.tell.blocking_send(Found::Version(dialect, version)).map_err(|_| None)?;
            }
            let kept = rdb.kept();
            match item? {
                Some(Item::Key(record)) => {
                    let place = self.options.place_of(record.database, &record.name);
                    let Some(database) = place else {
                        self.unwanted += 1;
                        continue;
                    };
                    let size = record.name.len() + kept.as_ref().map_or(0, Vec::len);
                    let key = Key {
                        database,
                        name: record.name,
                        name_length: record.name_length,
                        encoding: record.encoding,
                        value: kept,
                        expires: record.expires,
                        eviction: record.eviction,
                    };
                    self.add(Wanted::Key(key), size)?;
                }
                Some(Item::Functions) if self.options.wants_functions() => {
                    let size = kept.as_ref().map_or(0, Vec::len);
                    self.add(Wanted::Functions(kept), size)?;
                }
                Some(_) => {}
                None => break,
            }
        }
        let end = rdb.offset();
        let (checksum, length) = rdb.finish()?;
        if length != end {
            return Err(Some(RdbError::Trailing { offset: end }));
        }
        if checksum == Checksum::Absent {
            tracing::debug!("the RDB has no checksum");
        }
        Ok(())
    }

    fn add(&mut self, wanted: Wanted, size: usize) -> Result<(), Option<RdbError>> {
        self.batch.push(wanted);
        // What surrounds small ones counts, too.
        self.size += size + 64;
        if self.size >= BATCH { self.hand_on() } else { Ok(()) }
    }

    fn hand_on(&mut self) -> Result<(), Option<RdbError>> {
        self.size = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.tell.blocking_send(Found::Batch(batch)).map_err(|_| None)
    }
}
