//! A snapshot of a cluster together with the WAL that a recovery needs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream;
use lifeboat_core::{
    Attributes, Baseline, Bytes, Completion, Content, Context, Entry, EntryPath, Error, Extent,
    Inspection, Reading, Result, Source, StoreRef, names,
};

use super::{RecoveryError, RecoveryPlan};
use crate::archive::{TimelineHistory, WalArchive, WalLine, padded};
use crate::lsn::Lsn;
use crate::source::RECOVERY;

/// A snapshot of a cluster together with the WAL that a recovery needs: a source for a
/// [`ClusterSink`](crate::ClusterSink).
pub struct RecoverySource<'a> {
    snapshot: &'a dyn Source,
    archive: WalArchive,
    plan: &'a RecoveryPlan,
    needed: Vec<(EntryPath, Needed)>,
}

#[derive(Debug, Clone, Copy)]
enum Needed {
    History(WalLine),
    Segment { from: Lsn, to: Lsn, zeros: u64 },
}

impl<'a> RecoverySource<'a> {
    /// `snapshot` is the one of the plan's base.
    ///
    /// # Errors
    /// Never: names of WAL are names.
    pub fn new(
        snapshot: &'a dyn Source,
        archive: WalArchive,
        plan: &'a RecoveryPlan,
    ) -> Result<Self> {
        let base = &plan.base;
        let size = base.segment_size;
        let mut needed = Vec::new();
        let mut need = |name: &str, what| -> Result<()> {
            needed.push((EntryPath::new(RECOVERY)?.join(name.as_bytes())?, what));
            Ok(())
        };
        if plan.to > base.held() {
            for segment in size.holding(base.held())..=size.ending_at(plan.to) {
                let from = size.start_of(segment);
                let whole = size.start_of(segment + 1);
                let to = plan.way.reach(from).min(whole);
                // The server looks for the newest timeline that has something of a segment.
                let newest = plan.way.stretches.iter().rev();
                let mut newest = newest.filter(|(_, span)| span.from().0 < whole.0);
                let line = newest.next().map_or(plan.line, |(line, _)| *line);
                let zeros = whole.0 - to.0;
                need(&size.name(line.timeline, segment), Needed::Segment { from, to, zeros })?;
            }
        }
        for (line, _) in plan.way.stretches.iter().filter(|(line, _)| line.timeline > 1) {
            need(&TimelineHistory::name_of(line.timeline), Needed::History(*line))?;
        }
        needed.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self { snapshot, archive, plan, needed })
    }

    /// The snapshot alone, when the server will fetch its WAL itself. What the snapshot has of the
    /// WAL is held against the archive's all the same: recovery would replay that.
    pub fn compared(snapshot: &'a dyn Source, archive: WalArchive, plan: &'a RecoveryPlan) -> Self {
        Self { snapshot, archive, plan, needed: Vec::new() }
    }

    /// How many bytes of WAL come from the archive.
    pub fn wal(&self) -> u64 {
        let segments = self.needed.iter().map(|(_, needed)| match needed {
            Needed::Segment { from, to, .. } => to.0 - from.0,
            Needed::History(_) => 0,
        });
        segments.sum()
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
        let mut needed = VecDeque::new();
        for (path, what) in &self.needed {
            let (size, content) = match *what {
                Needed::Segment { from, to, zeros } => {
                    let content = self.plan.way.read(from, to);
                    let content = content.ok_or(RecoveryError::Gone { from, to })?;
                    (to.0 - from.0 + zeros, padded(content, zeros))
                }
                Needed::History(line) => match self.archive.history(line).await? {
                    Some(bytes) => (bytes.len() as u64, Content::bytes(bytes)),
                    // The snapshot has that of its own timeline.
                    None if line.timeline <= self.plan.base.line.timeline => continue,
                    None => {
                        return Err(RecoveryError::NoHistory { number: line.timeline }.into());
                    }
                },
            };
            let attributes = Attributes::new().with(names::MODE, 0o600_u64);
            let entry = Entry::file(path.clone(), attributes, Vec::new());
            needed.push_back(entry.with_content(size, content));
        }
        let snapshot = self.snapshot.read(since, context).await?;
        let own = self.own_segments()?;
        Ok(Box::new(Merged { snapshot, ahead: None, needed, own }))
    }
}

impl RecoverySource<'_> {
    /// The WAL that the archive has of the time of the backup, by the names that the snapshot has for
    /// it. Both must be of one history: a cluster that was restored in place and went on in its
    /// timeline is another one, and its WAL leads nowhere from here.
    fn own_segments(&self) -> Result<HashMap<EntryPath, Content>> {
        let (base, way) = (&self.plan.base, &self.plan.way);
        let size = base.segment_size;
        let mut own = HashMap::new();
        for segment in size.holding(base.start)..=size.ending_at(base.stop) {
            let from = size.start_of(segment);
            let to = size.start_of(segment + 1).min(base.stop);
            if let Some(content) = way.read(from, to) {
                let name = size.name(base.line.timeline, segment);
                own.insert(EntryPath::new(RECOVERY)?.join(name.as_bytes())?, content);
            }
        }
        Ok(own)
    }
}

/// Two readings in the order of paths; of two entries of one name the archive's is taken, since a
/// snapshot's last segment may be shorter.
struct Merged {
    snapshot: Box<dyn Reading>,
    /// The snapshot's next entry, when it was looked at already.
    ahead: Option<Entry>,
    needed: VecDeque<Entry>,
    /// What the archive has of segments that the snapshot has.
    own: HashMap<EntryPath, Content>,
}

impl Merged {
    async fn of_snapshot(&mut self) -> Result<Option<Entry>> {
        let entry = self.snapshot.next().await?;
        Ok(entry.map(|mut entry| {
            if let Some(archived) = self.own.remove(&entry.path) {
                let content = std::mem::replace(&mut entry.content, Content::empty());
                entry.content = alike(content, archived, entry.path.to_string());
            }
            entry
        }))
    }
}

/// Content that must begin with all of `archived`.
fn alike(content: Content, archived: Content, name: String) -> Content {
    let state = (content, archived, Bytes::new(), name);
    Content::stream(stream::try_unfold(
        state,
        async |(mut content, mut archived, mut rest, name)| {
            let Some(extent) = content.next().await? else {
                return Ok(None);
            };
            let differs = || Error::from(RecoveryError::OtherHistory { segment: name.clone() });
            let mut compared = match &extent {
                Extent::Data(bytes) => bytes.clone(),
                Extent::Hole(length) => {
                    // No segment is longer than a GiB.
                    Bytes::from(vec![0; usize::try_from(*length).map_err(|_| differs())?])
                }
                Extent::Unchanged(_) => return Err(differs()),
            };
            while !compared.is_empty() {
                if rest.is_empty() {
                    rest = match archived.next().await? {
                        Some(Extent::Data(bytes)) => bytes,
                        Some(Extent::Hole(length) | Extent::Unchanged(length)) => {
                            Bytes::from(vec![0; usize::try_from(length).map_err(|_| differs())?])
                        }
                        None => break,
                    };
                    continue;
                }
                let both = compared.len().min(rest.len());
                if compared.split_to(both) != rest.split_to(both) {
                    return Err(differs());
                }
            }
            Ok(Some((extent, (content, archived, rest, name))))
        },
    ))
}

#[async_trait]
impl Reading for Merged {
    async fn next(&mut self) -> Result<Option<Entry>> {
        let ahead = match self.ahead.take() {
            Some(ahead) => Some(ahead),
            None => self.of_snapshot().await?,
        };
        let Some(needed) = self.needed.front() else {
            return Ok(ahead);
        };
        match ahead {
            Some(ahead) if ahead.path < needed.path => Ok(Some(ahead)),
            Some(ahead) => {
                if ahead.path > needed.path {
                    self.ahead = Some(ahead);
                }
                Ok(self.needed.pop_front())
            }
            None => Ok(self.needed.pop_front()),
        }
    }

    async fn finish(self: Box<Self>) -> Result<Completion> {
        self.snapshot.finish().await
    }
}
