//! Pieces that are durable, joined into longer segments.
//!
//! A busy server fills a piece each second, and each is an object of its own. What a minute of them
//! holds is stored once more as one segment: it supersedes them, so that a restore reads a sixtieth
//! of the objects, and a trim of the journal removes the pieces when they have lain beside it for a
//! day.
//!
//! It is a kindness, and never in the way: it runs beside the sealing, one run at a time. While one
//! is being stored, the next is left in pieces; and one that cannot be stored stays in pieces, too.

use std::sync::Arc;

use bytes::Bytes;
use lifeboat_core::journal::{JournalLog, Span, Timeline};
use lifeboat_core::{Content, Extent, Result};
use tokio::task::JoinSet;

use crate::stream::Marks;

/// So many pieces make a run: those of a minute, when something is written all the time.
const PIECES: usize = 60;
/// Or as many as have so many bytes.
const BYTES: usize = 16 << 20;

/// Pieces that follow one another.
struct Run {
    timeline: Timeline,
    span: Span,
    marks: Marks,
    pieces: Vec<Bytes>,
}

impl Run {
    /// Takes a piece that follows; `false` when it does not.
    fn takes(&mut self, timeline: &Timeline, span: Span, marks: &Marks, bytes: &Bytes) -> bool {
        if self.timeline != *timeline || self.span.to() != span.from() {
            return false;
        }
        let Some(both) = Span::checked(self.span.from(), span.to()) else {
            return false;
        };
        self.span = both;
        self.marks.append(marks);
        self.pieces.push(bytes.clone());
        true
    }

    fn is_full(&self) -> bool {
        self.pieces.len() >= PIECES || self.span.length() >= BYTES as u64
    }
}

/// Joins what is sealed piece by piece.
pub(super) struct Merger {
    journal: Arc<dyn JournalLog>,
    run: Option<Run>,
    task: JoinSet<()>,
}

impl Merger {
    pub(super) fn new(journal: Arc<dyn JournalLog>) -> Self {
        Self { journal, run: None, task: JoinSet::new() }
    }

    /// Takes note of a piece that is durable.
    pub(super) fn sealed(&mut self, timeline: &Timeline, span: Span, marks: Marks, bytes: &Bytes) {
        let follows = self.run.as_mut().is_some_and(|it| it.takes(timeline, span, &marks, bytes));
        if !follows {
            let (timeline, pieces) = (timeline.clone(), vec![bytes.clone()]);
            self.run = Some(Run { timeline, span, marks, pieces });
        }
        if self.run.as_ref().is_none_or(|run| !run.is_full()) {
            return;
        }
        while self.task.try_join_next().is_some() {}
        if let Some(run) = self.run.take().filter(|it| it.pieces.len() > 1 && self.task.is_empty())
        {
            let journal = Arc::clone(&self.journal);
            self.task.spawn(async move {
                let span = run.span;
                if let Err(error) = store(&*journal, run).await {
                    tracing::warn!(%error, %span, "a run of the journal stays in pieces");
                }
            });
        }
    }
}

async fn store(journal: &dyn JournalLog, run: Run) -> Result<()> {
    let info = run.marks.to_info(run.span);
    let content = Content::extents(run.pieces.into_iter().map(Extent::Data));
    journal.append(&run.timeline, run.span, &info, content).await.map(drop)
}
