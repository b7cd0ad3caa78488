//! What `lifeboat forget` does with journals.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lifeboat_core::{ErrorKind, Failure};
use lifeboat_repository::{ForgetPlan, PlannedTrim};
use serde::Serialize;

use super::forget::{REFUSED, local};
use super::journals::place;
use crate::args::Forget;
use crate::failure::Failed;
use crate::output::{number, one_line, size};
use crate::session::{Opened, Session};

/// The event `trim`: what a plan means for a journal.
#[derive(Serialize)]
struct Trim<'a> {
    journal: String,
    base: Option<String>,
    timeline: Option<&'a str>,
    from: Option<String>,
    recoverable: Option<Timestamp>,
    segments: u64,
    stored: u64,
    stays: u64,
    stays_stored: u64,
    held: Option<&'a str>,
}

/// The event `trimmed`: what became of it.
#[derive(Serialize)]
struct Cut<'a> {
    journal: String,
    segments: u64,
    stored: u64,
    failed: usize,
    why: &'a str,
}

/// What a plan means for journals.
pub(super) async fn plan(
    plan: &ForgetPlan,
    opened: &Opened,
    session: &Session,
) -> Result<Vec<PlannedTrim>, Failed> {
    let planning = Box::pin(opened.repository.plan_trims(plan));
    session.unless_cancelled(planning).await?.map_err(|error| opened.failed(error))
}

/// The bytes that would go.
pub(super) fn total(trims: &[PlannedTrim]) -> u64 {
    trims.iter().map(PlannedTrim::stored).sum()
}

/// Shows what stays of each journal because of which base, and what goes.
pub(super) fn show(trims: &[PlannedTrim], zone: &TimeZone, arguments: &Forget, session: &Session) {
    for trim in trims {
        let from = trim.from.as_ref();
        let need = trim.need.as_ref();
        session.output.event(
            "trim",
            &Trim {
                journal: trim.journal.to_string(),
                base: need.map(|need| need.base.to_string()),
                timeline: from.map(|from| from.timeline.as_str()),
                from: from.map(|from| from.from.to_string()),
                recoverable: need.map(|need| need.recoverable),
                segments: trim.segments(),
                stored: trim.stored(),
                stays: trim.stays,
                stays_stored: trim.stays_stored,
                held: trim.held.as_deref(),
            },
        );
        if !arguments.dry_run && trim.goes.is_empty() {
            continue;
        }
        let name = one_line(&trim.journal.to_string());
        let stays = number(trim.stays, "segment", "segments");
        let stays = format!("{stays}, {}", size(trim.stays_stored));
        session.output.listed(&format!("journal {name}:"));
        match (&trim.held, need, from) {
            (Some(why), ..) => {
                session.output.listed(&format!("  keep    all of it, {stays}: {}", one_line(why)));
            }
            (None, Some(need), Some(from)) => {
                let at = place(&trim.journal, from.from);
                let (base, timeline) = (need.base.short(), one_line(from.timeline.as_str()));
                let since = local(need.recoverable, zone);
                session.output.listed(&format!(
                    "  keep    from {at} on timeline {timeline} on, {stays}: snapshot {base} begins \
                     there, from which every moment since {since} is recovered"
                ));
            }
            (None, ..) => session.output.listed(&format!("  keep    {stays}")),
        }
        if !trim.goes.is_empty() {
            let segments = number(trim.segments(), "segment", "segments");
            let stored = size(trim.stored());
            let why = "no snapshot from which a promised moment is recovered needs them, or a longer segment has the same";
            session.output.listed(&format!("  remove  {segments}, {stored}: {why}"));
        }
    }
}

/// Removes what no base needs. Snapshots are forgotten by now, so what stands in the way is a
/// warning; how many segments went, and their bytes.
pub(super) async fn trim(
    trims: &[PlannedTrim],
    opened: &Opened,
    session: &Session,
) -> Result<(u64, u64), Failed> {
    // It looks at the context itself, between two steps.
    let done = match Box::pin(opened.repository.trim(trims, &session.context)).await {
        Ok(done) => done,
        Err(error) if error.kind() == ErrorKind::Cancelled => return Err(opened.failed(error)),
        Err(error) => {
            let told = format!("nothing was removed of them: {}", opened.failed(error));
            session.context.warn("journals", told);
            return Ok((0, 0));
        }
    };
    session.output.finish();
    let mut cut = (0, 0);
    for one in &done {
        let why = one.spared.as_deref().unwrap_or_default();
        let journal = one.journal.to_string();
        if !why.is_empty() {
            session.output.say(&format!("journal {} stays: {why}", one_line(&journal)));
        }
        for (object, error) in &one.failed {
            let why = crate::failure::words_of(error);
            session.context.warn(object, format!("it stays: {why}; {REFUSED}"));
        }
        let failed = one.failed.len();
        let event = Cut { journal, segments: one.segments, stored: one.stored, failed, why };
        session.output.event("trimmed", &event);
        cut = (cut.0 + one.segments, cut.1 + one.stored);
    }
    Ok(cut)
}
