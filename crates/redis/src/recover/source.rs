//! A snapshot and the changes behind it, as a source.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::{
    Attributes, Baseline, Completion, Content, Context, Entry, EntryKind, EntryPath, Extent,
    Inspection, Reading, Result, Source, StoreRef,
};

use super::{RecoveryError, RecoveryPlan, StreamJournal};
use crate::sink::AppendOnlyForm;
use crate::stream::Walker;

/// The entry with the changes, behind `dump.rdb` in the order of paths.
pub(crate) const STREAM_FILE: &str = "stream.aof";
/// So many segments are read ahead.
const AHEAD: usize = 4;

/// The snapshot of a plan, and the changes that it needs, as a server reads them.
pub struct RecoverySource<'a> {
    snapshot: &'a dyn Source,
    journal: StreamJournal,
    plan: &'a RecoveryPlan,
    times: bool,
}

impl<'a> RecoverySource<'a> {
    /// `snapshot` is the one of the plan's base.
    pub fn new(snapshot: &'a dyn Source, journal: StreamJournal, plan: &'a RecoveryPlan) -> Self {
        Self { snapshot, journal, plan, times: true }
    }

    /// Without times between the commands: as a primary sends them to its replicas.
    #[must_use]
    pub fn as_sent(mut self) -> Self {
        self.times = false;
        self
    }
}

#[async_trait]
impl Source for RecoverySource<'_> {
    fn store(&self) -> &StoreRef {
        self.snapshot.store()
    }

    async fn inspect(&self) -> Result<Inspection> {
        self.snapshot.inspect().await
    }

    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> Result<Box<dyn Reading>> {
        let snapshot = self.snapshot.read(since, context).await?;
        let size = self.plan.changes();
        context.expect(size);
        let entry = Entry::new(EntryPath::new(STREAM_FILE)?, EntryKind::File, Attributes::new());
        let mut plan = self.plan.clone();
        if !self.times {
            // The form whose servers do not read them.
            plan.base.form = AppendOnlyForm::Single;
        }
        let content = changes(&self.journal, plan, context.clone());
        Ok(Box::new(WithChanges { snapshot, changes: Some(entry.with_content(size, content)) }))
    }
}

impl std::fmt::Debug for RecoverySource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecoverySource").field("plan", self.plan).finish_non_exhaustive()
    }
}

struct WithChanges {
    snapshot: Box<dyn Reading>,
    changes: Option<Entry>,
}

#[async_trait]
impl Reading for WithChanges {
    async fn next(&mut self) -> Result<Option<Entry>> {
        match self.snapshot.next().await? {
            Some(entry) => Ok(Some(entry)),
            None => Ok(self.changes.take()),
        }
    }

    async fn finish(self: Box<Self>) -> Result<Completion> {
        self.snapshot.finish().await
    }
}

/// The changes of a plan: what the database is in which they go on, the commands, and before those
/// of another second when they came, where servers read that.
fn changes(journal: &StreamJournal, plan: RecoveryPlan, context: Context) -> Content {
    let number = plan.base.database.to_string();
    let select = format!("*2\r\n$6\r\nSELECT\r\n${}\r\n{number}\r\n", number.len());
    let select = stream::once(async move { Ok(Extent::Data(Bytes::from(select))) });
    let annotator = Annotator {
        walker: Walker::new(plan.base.offset),
        form: plan.base.form,
        pending: None,
        written: None,
    };
    let (to, log) = (plan.to, journal.share());
    let parts = stream::iter(VecDeque::from(plan.parts)).map(move |part| {
        let log = Arc::clone(&log);
        async move { part.read_by_second(&*log, to).await }
    });
    let from = plan.base.offset;
    let parts = Box::pin(parts.buffered(AHEAD));
    let stream = stream::try_unfold((parts, annotator), move |(mut parts, mut annotator)| {
        let context = context.clone();
        async move {
            let Some(stretches) = parts.try_next().await? else {
                let walker = &annotator.walker;
                if walker.boundary() != to || walker.position() != to {
                    return Err(RecoveryError::NoBoundary { from, to }.into());
                }
                return Ok(None);
            };
            let mut annotated = BytesMut::new();
            for (second, bytes) in stretches {
                context.count_read(bytes.len() as u64);
                annotator.annotate(second, &bytes, &mut annotated)?;
            }
            Ok(Some((Extent::Data(annotated.freeze()), (parts, annotator))))
        }
    });
    Content::stream(select.chain(stream))
}

/// Puts times between commands, as a server does with `aof-timestamp-enabled`.
struct Annotator {
    walker: Walker,
    form: AppendOnlyForm,
    /// A second that is to be written before the next command.
    pending: Option<i64>,
    written: Option<i64>,
}

impl Annotator {
    /// Puts the bytes that follow, which came in this second, behind what is there.
    fn annotate(&mut self, second: i64, bytes: &[u8], annotated: &mut BytesMut) -> Result<()> {
        if self.form == AppendOnlyForm::MultiPart && self.written.is_none_or(|it| it < second) {
            self.pending = Some(second);
        }
        // Nearly always they begin with a command.
        if let Some(second) = self.pending
            && self.walker.boundary() == self.walker.position()
            && !bytes.is_empty()
        {
            annotated.extend_from_slice(format!("#TS:{second}\r\n").as_bytes());
            (self.pending, self.written) = (None, Some(second));
        }
        self.walker.feed(bytes)?;
        annotated.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

    #[test]
    fn times_stand_between_commands_and_once_a_second() {
        let mut annotator = Annotator {
            walker: Walker::new(0),
            form: AppendOnlyForm::MultiPart,
            pending: None,
            written: None,
        };
        let mut all = BytesMut::new();
        let (begin, end) = PING.split_at(5);
        for (second, bytes) in [(7, PING), (7, begin), (8, end), (8, PING), (9, PING), (8, PING)] {
            annotator.annotate(second, bytes, &mut all).unwrap();
        }
        let ping = "*1\r\n$4\r\nPING\r\n";
        let expected = format!("#TS:7\r\n{ping}{ping}#TS:8\r\n{ping}#TS:9\r\n{ping}{ping}");
        assert_eq!(String::from_utf8(all.to_vec()).unwrap(), expected);
        // Servers before 7.0 do not read them.
        annotator.form = AppendOnlyForm::Single;
        all.clear();
        annotator.annotate(10, PING, &mut all).unwrap();
        assert_eq!(all, PING);
    }
}
