//! Copies of journals.
//!
//! A segment is its place and its content, and both are the same in every repository. So what the
//! destination lacks is known from listings alone, and a copy that was stopped goes on with what is
//! not there yet. Places come in the order of their positions, so that what is there reaches up to
//! some position without holes.

use futures_util::{StreamExt, stream};
use lifeboat_core::journal::{
    JournalLog, JournalName, ListedSegment, Place, SegmentKind, Span, TimelineInfo, current,
};
use lifeboat_core::{Context, Error as CoreError, ErrorKind};

use super::CopyPlan;
use super::report::Verification;
use crate::error::{Error, Result};
use crate::journal::JournalOptions;

/// How many segments are copied at once: each is held in memory.
const AT_ONCE: usize = 2;

/// What the destination lacks of a timeline.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MissingTimeline {
    /// Of which journal.
    pub journal: JournalName,
    /// Which timeline.
    pub timeline: TimelineInfo,
    /// Its segments and records of gaps, in order. Segments that larger ones supersede are left out.
    pub places: Vec<ListedSegment>,
}

impl MissingTimeline {
    /// How many segments.
    pub fn segments(&self) -> u64 {
        self.count(SegmentKind::Sealed)
    }

    /// How many records of gaps.
    pub fn gaps(&self) -> u64 {
        self.count(SegmentKind::Gap)
    }

    /// Bytes that they take in the source.
    pub fn stored(&self) -> u64 {
        self.places.iter().map(|one| one.stored).sum()
    }

    fn count(&self, kind: SegmentKind) -> u64 {
        self.places.iter().filter(|one| one.place.kind == kind).count() as u64
    }
}

/// What the destination lacks of all journals.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct MissingJournals {
    /// By timeline, those of one journal together. One that lacks nothing is not here.
    pub timelines: Vec<MissingTimeline>,
    /// How many segments the destination has already.
    pub present: u64,
    /// What cannot be read of which journal, in the source or in the destination. It is not copied.
    pub damaged: Vec<(String, String)>,
}

/// What became of a timeline that was to be copied.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CopiedTimeline {
    /// How many segments were copied.
    pub segments: u64,
    /// How many records of gaps.
    pub gaps: u64,
    /// Bytes that they take in the source.
    pub stored: u64,
    /// What could not be copied, and why: it is damaged, or the destination has something else in
    /// its place. The others were copied all the same.
    pub failed: Vec<(String, CoreError)>,
}

impl CopyPlan {
    /// Finds out what the destination lacks of the journals, of the store of the options if they
    /// name one.
    ///
    /// # Errors
    /// When one of the repositories cannot be listed or read.
    pub async fn missing_journals(&self) -> Result<MissingJournals> {
        let mut missing = MissingJournals::default();
        let list = self.source.journals().await?;
        missing.damaged = list.damaged;
        for journal in list.journals {
            if self.options.store.as_ref().is_some_and(|store| store != journal.store()) {
                continue;
            }
            match self.missing_of(&journal, &mut missing).await {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    missing.damaged.push((journal.to_string(), error.to_string()));
                }
                done => done?,
            }
        }
        Ok(missing)
    }

    async fn missing_of(
        &self,
        journal: &JournalName,
        missing: &mut MissingJournals,
    ) -> Result<(), CoreError> {
        let (from, to) = self.both(journal);
        let begun = to.timelines().await?;
        for timeline in from.timelines().await? {
            let all = from.list(&timeline.timeline, Span::ALL).await?;
            let there = to.list(&timeline.timeline, Span::ALL).await?;
            let has = |place: &Place| there.binary_search_by(|one| one.place.cmp(place)).is_ok();
            let sealed = current(&all);
            missing.present += sealed.iter().filter(|one| has(&one.place)).count() as u64;
            let gaps = all.into_iter().filter(|one| one.place.kind == SegmentKind::Gap);
            let mut places: Vec<_> =
                sealed.into_iter().chain(gaps).filter(|one| !has(&one.place)).collect();
            places.sort_by_key(|one| (one.place.span, one.place.kind));
            let is_begun = begun.iter().any(|info| info.timeline == timeline.timeline);
            if !places.is_empty() || !is_begun {
                let journal = journal.clone();
                missing.timelines.push(MissingTimeline { journal, timeline, places });
            }
        }
        Ok(())
    }

    /// Copies what is missing of a timeline. What went from the source meanwhile is left out.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when the destination has a timeline of this name that comes
    /// from elsewhere; [`ErrorKind::Unsupported`] when its store cannot keep journals. Else when
    /// a store fails, or the context is cancelled. What was copied until then stays.
    pub async fn copy_timeline(
        &self,
        missing: &MissingTimeline,
        context: &Context,
    ) -> Result<CopiedTimeline, CoreError> {
        let journal = &missing.journal;
        context.phase(format!("copy the journal {journal}"));
        context.expect(missing.stored());
        let (from, to) = self.both(journal);
        to.begin(&missing.timeline).await?;
        let mut copied = CopiedTimeline::default();
        let mut work = stream::iter(&missing.places)
            .map(async |one| (self.copy_place(&from, &to, &one.place).await, one))
            .buffered(AT_ONCE);
        while let Some((result, one)) = work.next().await {
            context.check()?;
            match result {
                Ok(true) => {
                    let sealed = one.place.kind == SegmentKind::Sealed;
                    *(if sealed { &mut copied.segments } else { &mut copied.gaps }) += 1;
                    copied.stored += one.stored;
                    context.count_read(one.stored);
                    context.report();
                }
                Ok(false) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::AlreadyExists) =>
                {
                    copied.failed.push((format!("{journal} {}", one.place), error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(copied)
    }

    fn both(&self, journal: &JournalName) -> (impl JournalLog + use<>, impl JournalLog + use<>) {
        let options = JournalOptions::default().with_compression(self.options.compression);
        let (from, to) = (&self.source, &self.destination);
        (from.journal(journal, &JournalOptions::default()), to.journal(journal, &options))
    }

    /// Copies one segment or record of a gap; `false` when the source does not have it any more.
    async fn copy_place(
        &self,
        from: &impl JournalLog,
        to: &impl JournalLog,
        place: &Place,
    ) -> Result<bool, CoreError> {
        let Some(segment) = from.segment(place).await? else {
            return Ok(false);
        };
        let Place { timeline, span, kind } = place;
        if *kind == SegmentKind::Gap {
            let at = segment.info.last_time.unwrap_or_default();
            let reason = segment.reason.unwrap_or_default();
            to.record_gap(timeline, *span, &reason, at).await?;
            return Ok(true);
        }
        let Some(content) = from.read(place).await? else {
            return Ok(false);
        };
        to.append(timeline, *span, &segment.info, content).await?;
        if self.options.verification == Verification::EveryByte {
            let object = || format!("{} {place}", to.name());
            let gone = || CoreError::from(Error::damaged(object(), "its copy is not there"));
            let copy = to.segment(place).await?.ok_or_else(gone)?;
            if (copy.size, copy.digest) != (segment.size, segment.digest) {
                return Err(Error::damaged(object(), "its copy has another content").into());
            }
            // It is hashed on its way, and compared with its digest at the end.
            let mut content = to.read(place).await?.ok_or_else(gone)?;
            while content.next().await?.is_some() {}
        }
        Ok(true)
    }
}
