//! How a moment is restored.

use std::fmt;

use futures_util::StreamExt;
use lifeboat_core::journal::{JournalLog, lineage};
use lifeboat_core::{Result, Timestamp};

use super::chain::Part;
use super::window::chains;
use super::{BaseSnapshot, Chain, RecoveryError, StreamJournal, Survey};
use crate::follow::resume::begun;
use crate::stream::{Marks, Walker};

/// A moment to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This one.
    Time(Timestamp),
    /// The last one that the journal has.
    Latest,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(at) => at.fmt(f),
            Self::Latest => f.write_str("the end of the journal"),
        }
    }
}

/// From which snapshot, and with which part of the journal, a moment is restored.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecoveryPlan {
    /// The snapshot.
    pub base: BaseSnapshot,
    /// Along which history, by its last replication id.
    pub replication_id: String,
    /// Up to where in it, in bytes: the end of a command.
    pub to: u64,
    /// By when all of that had come.
    pub to_time: Timestamp,
    /// Of the end of the journal: the last moment of another history, which this one does not go on
    /// from and which had ended before the snapshot. So it is when a server came back empty.
    pub left: Option<Timestamp>,
    pub(super) parts: Vec<Part>,
}

impl RecoveryPlan {
    /// Finds out how a moment is restored from one of these snapshots: the newest that is possible.
    ///
    /// # Errors
    /// [`RecoveryError`] when it is not possible; when the journal cannot be listed or read.
    pub async fn make(
        journal: &StreamJournal,
        bases: &[BaseSnapshot],
        moment: Moment,
    ) -> Result<Self> {
        let log = journal.log();
        let survey = Survey::of(log).await?;
        let begun_at = |chain: &Chain| {
            let info = survey.timelines.iter().find(|info| info.timeline == chain.leaf);
            info.and_then(begun)
        };
        let mut found = Vec::new();
        for chain in chains(&survey, bases)? {
            let end = chain.end_time(log).await?;
            found.push((chain, end));
        }
        let store = journal.name().store().to_string();
        let none = || RecoveryError::NoBase { store };
        let at = match moment {
            Moment::Latest => None,
            Moment::Time(at) => Some(at),
        };
        // Along the newest history, and from the snapshot from which the least has to be replayed.
        let worth = |(chain, end): &(Chain, Timestamp)| match at {
            Some(_) => (begun_at(chain), chain.base.offset, *end),
            None => (None, chain.base.offset, *end),
        };
        let chosen = match at {
            Some(at) => {
                let holds = |one: &&(Chain, Timestamp)| one.0.base.reached <= at && at <= one.1;
                let chosen = found.iter().filter(holds).max_by_key(|one| worth(one));
                chosen.ok_or_else(|| missed(&found, at).unwrap_or_else(none))?
            }
            None => {
                let last = found.iter().map(|(_, end)| *end).max().ok_or_else(none)?;
                let ends = found.iter().filter(|(_, end)| *end == last);
                ends.max_by_key(|one| worth(one))
                    .ok_or(RecoveryError::Gone { place: "at the end".into() })?
            }
        };
        let (chain, end) = chosen;
        let cut = match at {
            Some(at) => cut_at(log, chain, at).await?,
            None => chain.parts.len().checked_sub(1).map(|last| (last, chain.to)),
        };
        let left = match at {
            // One of which the journal knows nothing has no ancestors.
            None => {
                let history = lineage(&survey.timelines, &chain.leaf).unwrap_or_default();
                let own = |one: &Chain| {
                    let mut before = history.iter().map(|stretch| &stretch.timeline);
                    one.leaf == chain.leaf || before.any(|timeline| *timeline == one.leaf)
                };
                let others = found.iter().filter(|(one, _)| !own(one)).map(|(_, end)| *end);
                others.filter(|end| *end < chain.base.reached).max()
            }
            Some(_) => None,
        };
        let base = chain.base.clone();
        let mut plan = Self {
            replication_id: chain.leaf.to_string(),
            to: base.offset,
            to_time: base.reached,
            left,
            parts: Vec::new(),
            base,
        };
        if let Some((index, limit)) = cut {
            plan.to = boundary(log, chain, index, limit).await?;
            plan.to_time = at.unwrap_or(*end);
            let needed = chain.parts.iter().take_while(|part| part.from < plan.to);
            plan.parts = needed.cloned().collect();
        }
        Ok(plan)
    }

    /// How many bytes of changes are replayed.
    pub fn changes(&self) -> u64 {
        self.to - self.base.offset
    }
}

/// Why a moment is in no window; `None` without any.
fn missed(found: &[(Chain, Timestamp)], at: Timestamp) -> Option<RecoveryError> {
    let before = found.iter().map(|(_, end)| *end).filter(|end| *end < at).max();
    let after = found.iter().map(|(chain, _)| chain.base.reached).filter(|from| *from > at).min();
    Some(match (before, after) {
        (Some(before), Some(after)) => RecoveryError::InGap { asked: at, before, after },
        (Some(last), None) => RecoveryError::TooLate { asked: at, last },
        (None, Some(first)) => RecoveryError::TooEarly { asked: at, first },
        (None, None) => return None,
    })
}

/// What of a chain had come at a moment: up to where, and in which part that is. `None` when
/// nothing behind the snapshot had.
async fn cut_at(
    log: &dyn JournalLog,
    chain: &Chain,
    at: Timestamp,
) -> Result<Option<(usize, u64)>> {
    // The parts of which the first byte had come.
    let (mut low, mut high) = (0, chain.parts.len());
    while low < high {
        let middle = low.midpoint(high);
        let first = chain.parts[middle].marks(log).await?.first;
        if first.is_some_and(|first| first <= at) { low = middle + 1 } else { high = middle }
    }
    let Some(index) = low.checked_sub(1) else {
        return Ok(None);
    };
    let part = &chain.parts[index];
    let marks = part.marks(log).await?;
    let come = marks.marks.iter().take_while(|mark| mark.time <= at).last();
    let limit = come.map_or(part.from, |mark| mark.position).clamp(part.from, part.to);
    Ok(Some((index, limit)))
}

/// The end of the last command before `limit`, which is in the part `index`, that is no part of an
/// unfinished transaction.
async fn boundary(log: &dyn JournalLog, chain: &Chain, index: usize, limit: u64) -> Result<u64> {
    let known = |part: &Part, marks: &Marks| {
        marks.boundary.filter(|at| *at >= part.from && *at <= limit.min(part.to))
    };
    // The beginning of where to look: the end of a command.
    let (mut from, mut first) = (chain.base.offset, 0);
    for (number, part) in chain.parts[..=index].iter().enumerate().rev() {
        if let Some(at) = known(part, &part.marks(log).await?) {
            if number == index {
                return Ok(at);
            }
            (from, first) = (at, number);
            break;
        }
    }
    let mut walker = Walker::new(from);
    let mut parts =
        futures_util::stream::iter(&chain.parts[first..=index])
            .map(|part| async move {
                Ok::<_, lifeboat_core::Error>((part, part.read(log, limit).await?))
            })
            .buffered(2);
    while let Some(read) = parts.next().await {
        let (part, bytes) = read?;
        let skip = usize::try_from(from.saturating_sub(part.from)).unwrap_or(usize::MAX);
        walker.feed(bytes.get(skip..).unwrap_or_default())?;
    }
    Ok(walker.boundary())
}
