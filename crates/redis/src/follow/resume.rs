//! Where the journal ends, and whether a snapshot leads up to there.

use lifeboat_core::journal::{Timeline, TimelineInfo};
use lifeboat_core::{Attributes, ErrorKind, Result, Timestamp};

use super::base::Base;
use super::pending::{Begins, Pending};
use crate::recover::{BaseSnapshot, Chain, StreamJournal};
use crate::stream::Marks;

/// The fact of a history: when it was begun here. Text.
const BEGUN: &str = "redis.begun";

/// What a history says of itself when it is begun.
pub(super) fn begun_now() -> Attributes {
    Attributes::new().with(BEGUN, Timestamp::now().to_string())
}

/// When a history was begun here.
pub(crate) fn begun(info: &TimelineInfo) -> Option<Timestamp> {
    info.facts.text(BEGUN)?.parse().ok()
}

/// What is followed: a history, and what of it was received and is not sealed.
pub(super) struct Line {
    pub(super) timeline: Timeline,
    pub(super) pending: Pending,
}

/// Where the journal ends; nothing when it is empty, or when that may not be read.
pub(super) async fn resume(
    journal: &StreamJournal,
    bases: &[BaseSnapshot],
) -> Result<(Option<Line>, Base)> {
    let log = journal.log();
    let timelines = match log.timelines().await {
        // Who may write and not read begins anew each time.
        Err(error) if error.kind() == ErrorKind::Refused => return Ok((None, Base::Needed)),
        timelines => timelines?,
    };
    let Some(newest) = timelines.iter().max_by_key(|info| begun(info)) else {
        return Ok((None, Base::Needed));
    };
    let timeline = newest.timeline.clone();
    let fork = newest.fork.as_ref().map(|fork| fork.at.0);
    let end = log.end(&timeline).await?.map(|at| at.0).max(fork);
    let chains = Chain::find(log, bases, &timeline).await?;
    let whole = chains.into_iter().find(|chain| chain.to >= end.unwrap_or(0));
    let Some(chain) = whole else {
        let line = end.map(|at| Line { timeline, pending: Pending::new(at, Begins::Anywhere) });
        return Ok((line, Base::Needed));
    };
    let begins = match chain.parts.last() {
        None => Begins::AtBoundary,
        Some(part) => match log.segment(&part.place).await? {
            Some(segment) => {
                let marks = Marks::of(part.place.span, &segment.info)?;
                let whole = marks.boundary == Some(chain.to);
                if whole { Begins::AtBoundary } else { Begins::Anywhere }
            }
            None => Begins::Anywhere,
        },
    };
    let pending = Pending::new(chain.to, begins);
    Ok((Some(Line { timeline, pending }), Base::There))
}
