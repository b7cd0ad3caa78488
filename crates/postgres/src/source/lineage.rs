//! Whether a server still has the history in which a snapshot was taken.
//!
//! What a server says about pages that did not change since a position in its WAL holds for its own
//! WAL. But a cluster that was restored, or whose disk was set back, goes on from an earlier
//! position, on the same timeline and with the same system identifier, and reaches the same
//! positions again with other content. Pages taken from a snapshot of the history that was left
//! would then be mixed into the present one, and nobody would notice.
//!
//! So a snapshot remembers the last summaries of WAL that end where it begins: from where to where
//! each goes, and a digest of what it says. They end at checkpoints, whose positions depend on all
//! that was written before. A restored cluster does not have the old ones at all, and one that was
//! set back has others. Only a server that has exactly these has that history.

use std::time::{Duration, Instant};

use lifeboat_core::{Baseline, Context};

use super::summaries::summarised;
use crate::connect::{Session, parsed};
use crate::error::Result;
use crate::lsn::Lsn;

/// What is said where the history is another, or is not known.
pub(crate) const OTHER: &str = "the server's WAL summaries are not those that the last snapshot knows: it was restored or set back since, or that snapshot was taken without them";

/// So many summaries are remembered.
const KEPT: usize = 3;
/// So much of each is: what it says of so many blocks.
const BLOCKS: usize = 10_000;
/// How long the server may take to write the summary that ends where the backup began.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// The summaries that end at `start`, as a fact of the snapshot that begins there; `None` when the
/// server has none, or cannot be asked.
pub(crate) async fn remembered(session: &Session, timeline: u32, start: Lsn) -> Option<String> {
    if session.major() < 17 || session.setting("summarize_wal").await.ok()?.as_deref() != Some("on")
    {
        return None;
    }
    let begun = Instant::now();
    while summarised(session).await.ok()? < start {
        if begun.elapsed() > PATIENCE {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
    found(session, timeline, start).await.ok().flatten()
}

/// Whether the server has what was remembered of the position `start` on a timeline.
pub(crate) async fn is_same(
    session: &Session,
    known: Option<&str>,
    timeline: u32,
    start: Lsn,
) -> Result<bool> {
    let Some(known) = known else {
        return Ok(false);
    };
    Ok(found(session, timeline, start).await?.as_deref() == Some(known))
}

async fn found(session: &Session, timeline: u32, start: Lsn) -> Result<Option<String>> {
    const WHAT: &str = "look at the summaries of the WAL";
    let statement = format!(
        "SELECT start_lsn::text, end_lsn::text, (SELECT md5(coalesce(string_agg(c::text, ''), '')) \
         FROM (SELECT * FROM pg_wal_summary_contents(tli, start_lsn, end_lsn) LIMIT {BLOCKS}) c) \
         FROM (SELECT * FROM pg_available_wal_summaries() WHERE tli = {timeline} \
         AND end_lsn <= '{start}' ORDER BY end_lsn DESC, start_lsn LIMIT {KEPT}) s"
    );
    let mut all = Vec::new();
    for row in session.all(WHAT, &statement, &[]).await? {
        let from: Lsn = parsed(WHAT, row.try_get::<_, String>(0))?;
        let to: Lsn = parsed(WHAT, row.try_get::<_, String>(1))?;
        let digest: String = parsed(WHAT, row.try_get::<_, String>(2))?;
        if all.is_empty() && to != start {
            return Ok(None);
        }
        all.push(format!("{from}-{to}:{digest}"));
    }
    Ok((!all.is_empty()).then(|| all.join(" ")))
}

/// Warns when the last snapshot of this name, which says in the fact `told` whose it is, is of
/// another cluster: a mistyped address would else be found out when the wrong data comes back.
pub(crate) fn tell_of_another(
    since: Option<&dyn Baseline>,
    told: &str,
    system_id: u64,
    context: &Context,
) {
    let Some(since) = since.map(Baseline::snapshot) else { return };
    let known = since.facts.text(told).unwrap_or_default();
    if known != system_id.to_string() && !known.is_empty() {
        context.warn(
            &since.store.to_string(),
            format!(
                "the last snapshot of this name, {}, is of another cluster: of the system {known}, and this is {system_id}; if that is a mistake, forget the new one",
                since.id.short()
            ),
        );
    }
}
