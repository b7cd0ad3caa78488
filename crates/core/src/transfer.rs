//! The one pipeline: everything from a source to a sink.

use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::baseline::Baseline;
use crate::context::Context;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::observer::Progress;
use crate::path::EntryPath;
use crate::sink::{Header, Lane, Receipt, Sink, Writing};
use crate::snapshot::SnapshotInfo;
use crate::source::{Completion, Order, Reading, Source};
use crate::store::StoreRef;

/// How a transfer is done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransferOptions {
    /// Words that the owner gives the snapshot.
    pub tags: Vec<String>,
    /// Whether the source may leave out what the sink's newest image of the store has.
    pub comparison: Comparison,
    /// How many entries are in work at once: 1 to 1024. By default two for each processor, but
    /// four at least and sixteen at most.
    pub concurrency: usize,
    /// The snapshot of which this transfer makes a copy, with its [`origin`](SnapshotInfo::origin)
    /// set: host, tags and times are its own then, in place of `tags` and this host's.
    pub original: Option<SnapshotInfo>,
}

impl Default for TransferOptions {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let concurrency = (2 * processors).clamp(4, 16);
        Self { tags: Vec::new(), comparison: Comparison::Newest, concurrency, original: None }
    }
}

/// With what a source compares its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Comparison {
    /// With the newest image of the same store that the sink has.
    Newest,
    /// With nothing: everything is read.
    Nothing,
}

/// What a transfer did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// What the source said at the end.
    pub completion: Completion,
    /// What the sink said at the end.
    pub receipt: Receipt,
    /// The counts at the end.
    pub progress: Progress,
    /// How many things need attention. Above zero, the image exists, but something in it is not
    /// as it was asked for.
    pub warnings: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// An entry may be finished while an earlier one is still in work, but not by more than this:
/// sinks put them back into order, and that takes memory.
const WINDOW: u64 = 32 * 1024;

/// So many entries at most are put by one task, one after the other, when their content is at
/// hand: a task for each of many small files would cost more than the work.
const BATCH: usize = 64;

/// How often the observer hears of progress.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// Moves everything that `source` holds into `sink`, and commits it.
///
/// Entries are put side by side; the sink's lanes are kept in order. Nothing is visible in the
/// sink unless this returns `Ok`. Cancelling the context, an error, or dropping the future stops
/// all of it and aborts the write.
///
/// # Errors
/// The first error of the source or the sink; [`ErrorKind::Cancelled`] after
/// [`Context::cancel`]; [`ErrorKind::Unsupported`] when the sink does not take entries in the
/// order in which the source gives them.
pub async fn transfer(
    source: &dyn Source,
    sink: &dyn Sink,
    options: &TransferOptions,
    context: &Context,
) -> Result<Summary> {
    let began = Instant::now();
    let (store, order) = (source.store(), source.order());
    if !sink.takes(order) {
        return Err(unsorted(store));
    }
    let baseline = match options.comparison {
        Comparison::Newest => sink.baseline(store).await?,
        Comparison::Nothing => None,
    };
    let mut header = match &options.original {
        Some(original) => Header::of_copy(original),
        None => Header { tags: options.tags.clone(), ..Header::new(store.clone()) },
    };
    header.baseline = baseline.as_ref().map(|baseline| baseline.snapshot().id);
    header.order = order;
    // The sink goes first: a target that refuses must do so before a server is asked for anything.
    let writing: Arc<dyn Writing> = Arc::from(sink.write(&header, context).await?);
    match run(source, baseline, &writing, options, context).await {
        Ok(completion) => {
            context.phase("commit");
            let receipt = Arc::clone(&writing).commit(completion.clone()).await?;
            context.report();
            Ok(Summary {
                completion,
                receipt,
                progress: context.progress(),
                warnings: context.warnings(),
                elapsed: began.elapsed(),
            })
        }
        Err(error) => {
            writing.abort().await;
            Err(error)
        }
    }
}

async fn run(
    source: &dyn Source,
    baseline: Option<Arc<dyn Baseline>>,
    writing: &Arc<dyn Writing>,
    options: &TransferOptions,
    context: &Context,
) -> Result<Completion> {
    let mut puts = Puts::new(writing, options, context);
    let work = async {
        let mut reading = source.read(baseline, context).await?;
        puts.all(reading.as_mut(), source.order()).await?;
        reading.finish().await
    };
    let ticker = async {
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        loop {
            ticks.tick().await;
            context.report();
        }
    };
    let done = tokio::select! {
        biased;
        () = context.cancelled() => Err(Error::cancelled()),
        done = work => done,
        () = ticker => unreachable!("the ticker never ends"),
    };
    // A put that is told to stop is over only at its next await. Whoever undoes the work of puts
    // must not meet one that still makes something.
    puts.tasks.abort_all();
    let mut failed = None;
    while let Some(put) = puts.tasks.join_next().await {
        failed = failed.or(put.ok().and_then(Result::err));
    }
    // A source whose content was dropped finds its reading broken off; the put that dropped it
    // knows why.
    done.map_err(|error| match error.kind() {
        ErrorKind::Cancelled => error,
        _ => failed.unwrap_or(error),
    })
}

/// The puts in work. Dropping it aborts them.
struct Puts<'a> {
    writing: &'a Arc<dyn Writing>,
    context: &'a Context,
    concurrency: usize,
    tasks: JoinSet<Result<u64>>,
    in_work: BTreeSet<u64>,
    /// The last put of each lane says through this that it is done, and went well.
    lanes: HashMap<Lane, watch::Receiver<bool>>,
}

impl<'a> Puts<'a> {
    fn new(writing: &'a Arc<dyn Writing>, options: &TransferOptions, context: &'a Context) -> Self {
        Self {
            writing,
            context,
            concurrency: options.concurrency.clamp(1, 1024),
            tasks: JoinSet::new(),
            in_work: BTreeSet::new(),
            lanes: HashMap::new(),
        }
    }

    async fn all(&mut self, reading: &mut dyn Reading, order: Order) -> Result<()> {
        let mut last: Option<EntryPath> = None;
        let mut ordinal = 0;
        let mut batch = Vec::new();
        while let Some(next) = self.next(reading, &mut batch).await? {
            if order == Order::Sorted {
                if last.as_ref().is_some_and(|last| *last >= next.path) {
                    return Err(out_of_order(&next.path));
                }
                last = Some(next.path.clone());
            }
            while let Some(done) = self.tasks.try_join_next() {
                self.finish(done)?;
            }
            let lane = self.writing.lane(&next.path);
            if lane.is_some() || !next.content.is_ready() {
                self.start_batch(&mut batch).await?;
                self.start(lane, vec![(ordinal, next)]).await?;
            } else {
                batch.push((ordinal, next));
                // Only those are gathered that would have to wait anyway.
                if !self.is_full(ordinal) || batch.len() >= BATCH {
                    self.start_batch(&mut batch).await?;
                }
            }
            ordinal += 1;
        }
        self.start_batch(&mut batch).await?;
        while !self.tasks.is_empty() {
            self.finish_one().await?;
        }
        Ok(())
    }

    /// The next entry. What is gathered does not wait for a source that takes its time.
    async fn next(
        &mut self,
        reading: &mut dyn Reading,
        batch: &mut Vec<(u64, Entry)>,
    ) -> Result<Option<Entry>> {
        let mut next = reading.next();
        let ready = poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
        if let Poll::Ready(next) = ready {
            return next;
        }
        self.start_batch(batch).await?;
        loop {
            tokio::select! {
                biased;
                next = &mut next => return next,
                // A source may wait for content that nobody reads any more after a failure.
                Some(done) = self.tasks.join_next() => self.finish(done)?,
            }
        }
    }

    async fn start_batch(&mut self, batch: &mut Vec<(u64, Entry)>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        self.start(None, std::mem::take(batch)).await
    }

    fn is_full(&self, ordinal: u64) -> bool {
        self.tasks.len() >= self.concurrency
            || self.in_work.first().is_some_and(|oldest| ordinal - oldest >= WINDOW)
    }

    /// Puts entries that follow one another; of a lane, one only.
    async fn start(&mut self, lane: Option<Lane>, entries: Vec<(u64, Entry)>) -> Result<()> {
        let Some((first, _)) = entries.first() else {
            return Ok(());
        };
        let first = *first;
        while self.is_full(first) {
            self.finish_one().await?;
        }
        let (done, on_done) = watch::channel(false);
        let before = lane.and_then(|lane| self.lanes.insert(lane, on_done));
        let (writing, context) = (Arc::clone(self.writing), self.context.clone());
        self.in_work.insert(first);
        self.tasks.spawn(async move {
            if let Some(mut before) = before
                && before.wait_for(|done| *done).await.is_err()
            {
                // It failed: its error ends the transfer, and this put, which relied on it.
                std::future::pending::<()>().await;
            }
            put(&*writing, entries, &context).await?;
            done.send_replace(true);
            Ok(first)
        });
        if self.lanes.len() > 4 * self.concurrency {
            self.lanes.retain(|_, on_done| on_done.has_changed().is_ok());
        }
        Ok(())
    }

    async fn finish_one(&mut self) -> Result<()> {
        match self.tasks.join_next().await {
            Some(done) => self.finish(done),
            None => Ok(()),
        }
    }

    fn finish(&mut self, done: Result<Result<u64>, JoinError>) -> Result<()> {
        let first = done.map_err(|panic| {
            Error::new(ErrorKind::Other, "an entry's transfer panicked").with_source(panic)
        })?;
        self.in_work.remove(&first?);
        Ok(())
    }
}

async fn put(
    writing: &dyn Writing,
    mut entries: Vec<(u64, Entry)>,
    context: &Context,
) -> Result<()> {
    let count = entries.len();
    match entries.pop() {
        Some((ordinal, entry)) if entries.is_empty() => writing.put(ordinal, entry).await?,
        last => {
            entries.extend(last);
            writing.put_all(entries).await?;
        }
    }
    (0..count).for_each(|_| context.count_entry());
    Ok(())
}

fn unsorted(store: &StoreRef) -> Error {
    let what = format!("{store} gives its entries in an order that this target cannot take");
    Error::new(ErrorKind::Unsupported, what)
        .with_hint("take a snapshot into a repository, and go on from that")
}

fn out_of_order(path: &EntryPath) -> Error {
    Error::new(ErrorKind::Other, format!("the source gave {path} out of order"))
        .with_hint("this is a defect of the source; please report it")
}
