//! Making what was received durable, in order, on a task of its own.
//!
//! The queue is short: who fills it waits, and with it the server. A failure of the place where the
//! journal is kept is told and tried again for ever, since nothing else would help; what is sealed
//! twice is the same. Only what trying again cannot mend ends the task.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_core::journal::{JournalLog, SegmentInfo, Span, Timeline, TimelineInfo};
use lifeboat_core::{Content, Context, Error, ErrorKind, Result, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::merging::Merger;
use crate::stream::Marks;

/// How much may wait.
const WAITING: usize = 4;
/// The first pause before another attempt, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often the same failure is told again, in attempts.
const TELL_EVERY: u32 = 20;

/// What becomes durable next.
#[derive(Debug)]
pub(super) enum Work {
    /// A history begins.
    Begin(TimelineInfo),
    /// What a history held was lost.
    Gap { timeline: Timeline, span: Span, reason: String },
    /// A piece of a history.
    Piece { timeline: Timeline, span: Span, info: SegmentInfo, bytes: Bytes },
}

/// Up to where it is durable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Durable {
    /// Of which history; none before anything is.
    pub(super) timeline: Option<Timeline>,
    pub(super) to: u64,
}

/// The task. It ends with the value; what it had not done yet is not durable then.
pub(super) struct Sealer {
    queue: mpsc::Sender<Work>,
    durable: watch::Receiver<Durable>,
    task: JoinSet<Result<()>>,
}

impl Sealer {
    pub(super) fn start(journal: Arc<dyn JournalLog>, context: Context) -> Self {
        let (queue, queued) = mpsc::channel(WAITING);
        let (tell, durable) = watch::channel(Durable::default());
        let mut task = JoinSet::new();
        task.spawn(run(journal, queued, tell, context));
        Self { queue, durable, task }
    }

    /// Where what becomes durable is told.
    pub(super) fn durable(&self) -> watch::Receiver<Durable> {
        self.durable.clone()
    }

    /// Queues work, and waits for a place as long as it takes.
    ///
    /// # Errors
    /// The failure that ended the task.
    pub(super) async fn push(&mut self, work: Work) -> Result<()> {
        match self.queue.send(work).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Waits until there is a place in the queue.
    pub(super) async fn has_room(&self) {
        // Without a receiver the task has ended, which `failure` tells.
        let _ = self.queue.reserve().await;
    }

    /// Waits for the end of the task, and gives the failure that ended it.
    pub(super) async fn failure(&mut self) -> Error {
        match self.task.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Ok(Ok(()))) | None => {
                Error::new(ErrorKind::Other, "the task that seals the journal has ended")
            }
            Some(Err(error)) => crate::Error::Panicked { source: error }.into(),
        }
    }

    /// Waits until all that was queued is durable.
    ///
    /// # Errors
    /// The failure that ended the task.
    pub(super) async fn finish(self) -> Result<()> {
        let Self { queue, durable: _, mut task } = self;
        drop(queue);
        match task.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(error)) => Err(crate::Error::Panicked { source: error }.into()),
            None => Ok(()),
        }
    }
}

async fn run(
    journal: Arc<dyn JournalLog>,
    mut queue: mpsc::Receiver<Work>,
    durable: watch::Sender<Durable>,
    context: Context,
) -> Result<()> {
    let mut merger = Merger::new(Arc::clone(&journal));
    while let Some(work) = queue.recv().await {
        let mut pause = FIRST_PAUSE;
        let (mut told, mut failures) = (String::new(), 0_u32);
        while let Err(error) = make_durable(&*journal, &work).await {
            if is_final(&error) {
                return Err(error);
            }
            let line = error.one_line();
            if line != told || failures.is_multiple_of(TELL_EVERY) {
                context.warn(journal.name(), format!("{line}; it is tried again"));
            }
            (told, failures) = (line, failures + 1);
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        if let Work::Piece { timeline, span, info, bytes } = work {
            merger.sealed(&timeline, span, Marks::of(span, &info)?, &bytes);
            durable.send_replace(Durable { timeline: Some(timeline), to: span.to().0 });
        }
    }
    Ok(())
}

async fn make_durable(journal: &dyn JournalLog, work: &Work) -> Result<()> {
    match work {
        Work::Begin(info) => {
            // It may have been begun earlier, at another moment.
            if !journal.has_begun(&info.timeline).await? {
                journal.begin(info).await?;
            }
        }
        Work::Gap { timeline, span, reason } => {
            journal.record_gap(timeline, *span, reason, Timestamp::now()).await?;
        }
        Work::Piece { timeline, span, info, bytes } => {
            let content = Content::bytes(bytes.clone());
            journal.append(timeline, *span, info, content).await.map_err(|error| {
                match error.kind() {
                    ErrorKind::AlreadyExists => super::FollowError::Differs {
                        journal: journal.name().to_string(),
                        replication_id: timeline.to_string(),
                        from: span.from().0,
                        to: span.to().0,
                    }
                    .into(),
                    _ => error,
                }
            })?;
        }
    }
    Ok(())
}

/// Whether trying again cannot help: another content in the same place, or one that cannot be.
fn is_final(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AlreadyExists | ErrorKind::InvalidInput | ErrorKind::Cancelled
    )
}
