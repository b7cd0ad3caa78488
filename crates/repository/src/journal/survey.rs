//! What journals hold, without reading their content.

use lifeboat_core::ErrorKind;
use lifeboat_core::journal::{
    Gap, JournalLog, JournalName, ListedSegment, Segment, SegmentKind, Span, Timeline,
    TimelineInfo, lineage,
};

use super::JournalOptions;
use super::log::RepositoryJournal;
use crate::error::Result;
use crate::repository::Repository;

/// What a journal holds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JournalSurvey {
    /// Which one.
    pub name: JournalName,
    /// Its timelines, by name.
    pub timelines: Vec<TimelineSurvey>,
    /// What is missing from the first segment of each history on, each run told once.
    pub gaps: Vec<Gap>,
    /// What could not be read, and why: nothing is told of it.
    pub damaged: Vec<String>,
}

/// What a timeline of a journal holds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TimelineSurvey {
    /// Which one, and where it comes from.
    pub info: TimelineInfo,
    /// Its segments and the records of gaps, in order; also those that larger ones supersede.
    pub listed: Vec<ListedSegment>,
    /// What is known of the first segment; `None` without any, or when that cannot be read.
    pub first: Option<Segment>,
    /// What is known of the segment that reaches furthest.
    pub last: Option<Segment>,
}

impl TimelineSurvey {
    /// The segments, without the records of gaps.
    pub fn segments(&self) -> impl Iterator<Item = &ListedSegment> {
        self.listed.iter().filter(|one| one.place.kind == SegmentKind::Sealed)
    }

    /// From the first position of a segment to the last one; `None` without segments.
    pub fn span(&self) -> Option<Span> {
        let from = self.segments().map(|one| one.place.span.from()).min()?;
        let to = self.segments().map(|one| one.place.span.to()).max()?;
        Span::checked(from, to)
    }

    /// Bytes that all of it takes where it is stored.
    pub fn stored(&self) -> u64 {
        self.listed.iter().map(|one| one.stored).sum()
    }
}

impl Repository {
    /// What a journal holds. It takes a listing, and two short reads for each timeline.
    ///
    /// # Errors
    /// When the store cannot be listed or read. Damage is no error: it is in the survey.
    pub async fn survey_journal(&self, name: &JournalName) -> Result<JournalSurvey> {
        let shared = self.shared().clone();
        let log = RepositoryJournal::new(shared, name.clone(), JournalOptions::default());
        let mut survey = JournalSurvey {
            name: name.clone(),
            timelines: Vec::new(),
            gaps: Vec::new(),
            damaged: Vec::new(),
        };
        let Some(infos) = survey.readable(log.timelines().await)? else {
            return Ok(survey);
        };
        for info in &infos {
            let listed = log.list(&info.timeline, Span::ALL).await?;
            let sealed = || listed.iter().filter(|one| one.place.kind == SegmentKind::Sealed);
            let (first, last) = (sealed().next(), sealed().max_by_key(|one| one.place.span.to()));
            let mut ends = [None, None];
            for (end, one) in ends.iter_mut().zip([first, last]) {
                if let Some(one) = one {
                    *end = survey.readable(log.segment(&one.place).await)?.flatten();
                }
            }
            let [first, last] = ends;
            survey.timelines.push(TimelineSurvey { info: info.clone(), listed, first, last });
        }
        for info in &infos {
            let found = gaps_of(&log, &infos, &info.timeline).await;
            for gap in survey.readable(found)?.unwrap_or_default() {
                // What timelines have in common each of them tells.
                if !survey.gaps.contains(&gap) {
                    survey.gaps.push(gap);
                }
            }
        }
        Ok(survey)
    }
}

impl JournalSurvey {
    /// Takes damage for an answer, too.
    fn readable<T>(&mut self, read: lifeboat_core::Result<T>) -> Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let told = error.to_string();
                if !self.damaged.contains(&told) {
                    self.damaged.push(told);
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What is missing of the history of a timeline, from the first segment of its oldest ancestor
/// that has one.
pub(super) async fn gaps_of(
    log: &RepositoryJournal,
    timelines: &[TimelineInfo],
    timeline: &Timeline,
) -> lifeboat_core::Result<Vec<Gap>> {
    for part in lineage(timelines, timeline)? {
        let listed = log.list(&part.timeline, Span::ALL).await?;
        let inside = listed.iter().find(|one| one.place.span.from() < part.span.to());
        if let Some(first) = inside {
            return log.gaps(timeline, first.place.span.from()).await;
        }
    }
    Ok(Vec::new())
}
