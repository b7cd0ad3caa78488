//! From when to when moments can be restored.

use lifeboat_core::journal::{Gap, JournalLog, Position};
use lifeboat_core::{Result, Timestamp};

use super::{BaseSnapshot, Chain, StreamJournal, Survey};

/// A run of moments, each of which can be restored.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Window {
    /// Along which history, by its last replication id.
    pub replication_id: String,
    /// Where in it the first snapshot is, in bytes.
    pub from: u64,
    /// The first moment.
    pub from_time: Timestamp,
    /// Where the journal ends behind it.
    pub to: u64,
    /// The last moment of which all that had come is there.
    pub to_time: Timestamp,
    /// The snapshots from which they are restored, the oldest first.
    pub bases: Vec<BaseSnapshot>,
}

/// What can be restored of a store.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Windows {
    /// In order of their first moments.
    pub windows: Vec<Window>,
    /// What the journal lacks.
    pub gaps: Vec<Gap>,
}

impl Windows {
    /// The windows that a journal and these snapshots give.
    ///
    /// # Errors
    /// When the journal cannot be listed or read.
    pub async fn of(journal: &StreamJournal, bases: &[BaseSnapshot]) -> Result<Self> {
        let log = journal.log();
        let survey = Survey::of(log).await?;
        let mut windows: Vec<Window> = Vec::new();
        for chain in chains(&survey, bases)? {
            let to_time = chain.end_time(log).await?;
            let replication_id = chain.leaf.to_string();
            let same = |it: &&mut Window| it.replication_id == replication_id && it.to == chain.to;
            if let Some(window) = windows.iter_mut().find(same) {
                window.from = window.from.min(chain.base.offset);
                window.from_time = window.from_time.min(chain.base.reached);
                window.bases.push(chain.base);
            } else {
                windows.push(Window {
                    replication_id,
                    from: chain.base.offset,
                    from_time: chain.base.reached,
                    to: chain.to,
                    to_time,
                    bases: vec![chain.base],
                });
            }
        }
        windows.sort_by_key(|window| window.from_time);
        for window in &mut windows {
            window.bases.sort_by_key(|base| base.offset);
        }
        let gaps = gaps(log, &survey).await?;
        Ok(Self { windows, gaps })
    }
}

/// For each snapshot what lies behind it, along every history that passes through it.
pub(super) fn chains(survey: &Survey, bases: &[BaseSnapshot]) -> Result<Vec<Chain>> {
    let mut chains = Vec::new();
    for base in bases {
        let mut of_base = Vec::new();
        for info in &survey.timelines {
            of_base.extend(survey.chain(base, &info.timeline)?);
        }
        if of_base.is_empty() {
            // Of a history of which the journal knows nothing: its own moment alone.
            let (leaf, to) = (base.timeline.clone(), base.offset);
            of_base.push(Chain { base: base.clone(), leaf, parts: Vec::new(), to });
        }
        let longest: Vec<_> =
            of_base.iter().filter(|one| !of_base.iter().any(|it| one.is_within(it))).collect();
        let mut kept: Vec<Chain> = Vec::new();
        for chain in longest {
            // Histories that were left before they had anything are the same from here.
            if !kept.iter().any(|it| it.parts == chain.parts) {
                kept.push(chain.clone());
            }
        }
        chains.extend(kept);
    }
    Ok(chains)
}

/// What is missing on each timeline from its first segment on, each told once.
async fn gaps(log: &dyn JournalLog, survey: &Survey) -> Result<Vec<Gap>> {
    let mut gaps: Vec<Gap> = Vec::new();
    for info in &survey.timelines {
        let Some(first) = survey.firsts.get(&info.timeline) else { continue };
        for gap in log.gaps(&info.timeline, Position(*first)).await? {
            if !gaps.contains(&gap) {
                gaps.push(gap);
            }
        }
    }
    Ok(gaps)
}
