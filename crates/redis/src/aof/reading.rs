//! One snapshot of append-only files on its way.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use lifeboat_core::{
    Attributes, ByteBudget, Completion, Content, Context, Entry, EntryKind, EntryPath, Extent,
    Layout, Reading,
};
use parking_lot::Mutex;

use super::set::{Set, failed};
use crate::checker::Checker;
use crate::error::{Error, Result};
use crate::rdb::{Dialect, Outcome, RdbWriter};
use crate::recover::STREAM_FILE;
use crate::sink::AppendOnlyForm;
use crate::source::{DUMP, facts};

/// So much is handed on at a time.
const PIECE: usize = 1 << 20;
/// The version of an RDB that holds nothing: every server reads it.
const OLD_VERSION: u32 = 9;

pub(super) struct AofReading {
    set: Arc<Set>,
    next: Next,
    outcome: Arc<Mutex<Option<Outcome>>>,
    context: Context,
}

#[derive(Clone, Copy, PartialEq)]
enum Next {
    Rdb,
    Commands,
    Nothing,
}

impl AofReading {
    pub(super) fn new(set: Set, context: &Context) -> Self {
        context.expect(set.files.iter().map(|file| file.length).sum());
        let (set, outcome, context) = (Arc::new(set), Arc::default(), context.clone());
        Self { set, next: Next::Rdb, outcome, context }
    }

    fn rdb(&self) -> u64 {
        self.set.files.first().map_or(0, |file| file.rdb)
    }

    /// How many bytes of commands there are.
    fn changes(&self) -> u64 {
        self.set.files.iter().map(|file| file.length - file.rdb).sum()
    }
}

#[async_trait]
impl Reading for AofReading {
    async fn next(&mut self) -> lifeboat_core::Result<Option<Entry>> {
        let of = |path: &str| {
            Ok::<_, lifeboat_core::Error>(Entry::new(
                EntryPath::new(path)?,
                EntryKind::File,
                Attributes::new(),
            ))
        };
        let (set, context) = (Arc::clone(&self.set), self.context.clone());
        match self.next {
            Next::Rdb => {
                self.next = Next::Commands;
                let part = match self.rdb() {
                    0 => Part::Empty,
                    length => Part::File { number: 0, at: 0, end: length },
                };
                let outcome = Some((Checker::start(), Arc::clone(&self.outcome)));
                let flow = Flow { set, parts: vec![part], outcome, context };
                let entry = of(DUMP)?.with_layout(Layout::Records);
                Ok(Some(entry.with_content(self.rdb(), flow.content())))
            }
            Next::Commands => {
                self.next = Next::Nothing;
                let files = self.set.files.iter().enumerate().rev();
                let parts = files.map(|(number, file)| Part::File {
                    number,
                    at: file.rdb,
                    end: file.length,
                });
                let flow = Flow { set, parts: parts.collect(), outcome: None, context };
                Ok(Some(of(STREAM_FILE)?.with_content(self.changes(), flow.content())))
            }
            Next::Nothing => Ok(None),
        }
    }

    async fn finish(self: Box<Self>) -> lifeboat_core::Result<Completion> {
        let outcome = self.outcome.lock().take().ok_or(Error::Unfinished)?;
        let mut completion = Completion::at(self.set.taken);
        let form = match self.set.form {
            AppendOnlyForm::Single => facts::SINGLE,
            AppendOnlyForm::MultiPart => facts::MULTI_PART,
        };
        completion.facts = Attributes::new()
            .with(facts::FORM, form)
            .with(facts::FILES, self.set.files.len() as u64)
            .with(facts::BASE_KEYS, outcome.census.keys())
            .with(facts::CHANGES, self.changes());
        let census = &outcome.census;
        if let Some(version) = census.aux("valkey-ver").or_else(|| census.aux("redis-ver")) {
            completion.facts.set(facts::VERSION, version);
        }
        Ok(completion)
    }
}

/// A part of an entry.
enum Part {
    /// An RDB that holds nothing.
    Empty,
    /// These bytes of a file.
    File { number: usize, at: u64, end: u64 },
}

struct Flow {
    set: Arc<Set>,
    /// The last comes first.
    parts: Vec<Part>,
    /// What checks an RDB, and where it says what it is.
    outcome: Option<(Checker, Arc<Mutex<Option<Outcome>>>)>,
    context: Context,
}

impl Flow {
    fn content(self) -> Content {
        Content::stream(stream::try_unfold(self, |mut flow| async move {
            let extent = flow.next().await?;
            Ok(extent.map(|extent| (extent, flow)))
        }))
    }

    async fn next(&mut self) -> Result<Option<Extent>> {
        while let Some(part) = self.parts.last_mut() {
            let bytes = match part {
                Part::Empty => {
                    self.parts.pop();
                    empty()
                }
                Part::File { at, end, .. } if at == end => {
                    self.parts.pop();
                    continue;
                }
                Part::File { number, at, end } => {
                    let most = usize::try_from(*end - *at).unwrap_or(PIECE).min(PIECE);
                    let (set, number, from) = (Arc::clone(&self.set), *number, *at);
                    *at += most as u64;
                    read(set, number, from, most, self.context.budget()).await?
                }
            };
            if let Some((checker, _)) = &self.outcome {
                checker.feed(bytes.clone()).await;
            }
            self.context.count_read(bytes.len() as u64);
            return Ok(Some(Extent::Data(bytes)));
        }
        if let Some((checker, outcome)) = self.outcome.take() {
            let path = self.set.files.first().map(|file| file.path.clone()).unwrap_or_default();
            let checked = checker.finish().await?;
            let checked = checked.map_err(|source| Error::AppendOnlyRdb { path, source })?;
            *outcome.lock() = Some(checked);
        }
        Ok(None)
    }
}

async fn read(
    set: Arc<Set>,
    number: usize,
    from: u64,
    most: usize,
    budget: &ByteBudget,
) -> Result<Bytes> {
    let mut buffer = budget.buffer(most).await;
    let work = move || {
        let file = &set.files[number];
        buffer.data_mut().resize(most, 0);
        let path: &Path = &file.path;
        // Both entries may be read at once, and from one file.
        match file.file.read_exact_at(buffer.data_mut(), from) {
            Ok(()) => Ok(buffer.freeze()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let what = "it has become shorter while it was read".to_owned();
                Err(Error::AppendOnlyFile { path: path.to_owned(), what })
            }
            Err(error) => Err(failed("read", path)(error)),
        }
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| Error::Panicked { source })?
}

fn empty() -> Bytes {
    let rdb = RdbWriter::begin(Vec::new(), Dialect::Redis, OLD_VERSION);
    // Writing to memory does not fail.
    rdb.end().map(Bytes::from).unwrap_or_default()
}
