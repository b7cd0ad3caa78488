//! The keys of the restored file, on a thread of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use lifeboat_core::Timestamp;
use tokio::sync::mpsc;

use super::Sample;
use crate::rdb::{Item, LONGEST_NAME, RdbError, RdbReader};

/// So much is handed on at a time, or one value that is larger.
const BATCH: usize = 256 << 10;
/// Of larger values nothing but the expiry is compared: one is held three times at most, and no server
/// takes a larger one unless it was told to.
const LARGEST: usize = 512 << 20;

/// A key to be compared.
pub(super) struct Chosen {
    pub(super) database: u64,
    pub(super) name: Vec<u8>,
    pub(super) encoding: u8,
    /// `None` when it is too large.
    pub(super) value: Option<Vec<u8>>,
    pub(super) expires: Option<i64>,
}

/// What was found in a database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// All keys.
    pub(super) keys: u64,
    /// Those that cannot have expired when the server loaded it.
    pub(super) certain: u64,
    /// Those that can have been there.
    pub(super) possible: u64,
}

/// What was found in all.
#[derive(Debug, Clone, Default)]
pub(super) struct Walked {
    pub(super) databases: BTreeMap<u64, Found>,
    pub(super) libraries: u64,
}

pub(super) enum Step {
    /// The version of the format. First of all.
    Version(u32),
    Batch(Vec<Chosen>),
    End(Walked),
    Failed(RdbError),
}

/// Starts the thread. `keys` is how many keys are expected, for the choice of a sample.
pub(super) fn start(
    path: PathBuf,
    sample: Sample,
    keys: u64,
    loading: (Timestamp, Timestamp),
) -> mpsc::Receiver<Step> {
    let (tell, steps) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        // The order in the file is that of hash tables: every n-th key is as good a choice as any.
        let every = match sample {
            Sample::All => 1,
            Sample::Keys(wanted) => keys.div_ceil(wanted.max(1)).max(1),
        };
        let mut walk = Walk { tell, every, loading, batch: Vec::new(), size: 0 };
        let end = match walk.walk(path) {
            Ok(walked) => Step::End(walked),
            Err(Some(error)) => Step::Failed(error),
            Err(None) => return,
        };
        let _ = walk.hand_on().and_then(|()| walk.tell.blocking_send(end).map_err(|_| None));
    });
    steps
}

struct Walk {
    tell: mpsc::Sender<Step>,
    every: u64,
    loading: (Timestamp, Timestamp),
    batch: Vec<Chosen>,
    size: usize,
}

impl Walk {
    /// Walks through all of it. An error that is none: nobody listens any more.
    fn walk(&mut self, path: PathBuf) -> Result<Walked, Option<RdbError>> {
        let file = File::open(path).map_err(|source| RdbError::Read { offset: 0, source })?;
        let (before, after) = (self.loading.0.as_millisecond(), self.loading.1.as_millisecond());
        let mut rdb = RdbReader::new(file).keeping(LARGEST, LONGEST_NAME);
        let (mut walked, mut count, mut told) = (Walked::default(), 0_u64, false);
        loop {
            let item = rdb.next();
            if !told && let Some((_, version)) = rdb.version() {
                told = true;
                self.tell.blocking_send(Step::Version(version)).map_err(|_| None)?;
            }
            let value = rdb.kept();
            let key = match item? {
                Some(Item::Key(key)) => key,
                Some(Item::Functions) => {
                    walked.libraries += 1;
                    continue;
                }
                Some(_) => continue,
                None => break,
            };
            let found = walked.databases.entry(key.database).or_default();
            found.keys += 1;
            found.certain += u64::from(key.expires.is_none_or(|at| at > after));
            found.possible += u64::from(key.expires.is_none_or(|at| at > before));
            count += 1;
            if (count - 1).is_multiple_of(self.every) {
                self.size += key.name.len() + value.as_ref().map_or(0, Vec::len) + 64;
                let (database, name, encoding) = (key.database, key.name, key.encoding);
                let expires = key.expires;
                self.batch.push(Chosen { database, name, encoding, value, expires });
                if self.size >= BATCH {
                    self.hand_on()?;
                }
            }
        }
        let end = rdb.offset();
        let (_, length) = rdb.finish()?;
        if length != end {
            return Err(Some(RdbError::Trailing { offset: end }));
        }
        Ok(walked)
    }

    fn hand_on(&mut self) -> Result<(), Option<RdbError>> {
        self.size = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.tell.blocking_send(Step::Batch(batch)).map_err(|_| None)
    }
}
