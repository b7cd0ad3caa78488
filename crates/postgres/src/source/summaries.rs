//! Which pages changed since the last snapshot, by the server's own account of its WAL.
//!
//! From version 17 on a server with `summarize_wal = on` writes down which blocks of which files its
//! WAL has touched. What was not touched from the beginning of the last backup to the beginning of
//! this one is as that one read it, and need not be read: what has changed since is in the WAL that
//! comes with the snapshot.
//!
//! The rules are those of the server's own incremental backups (`basebackup_incremental.c`), and
//! stricter where these had to be mended later:
//!
//! - Only the main forks of relations are told apart by blocks. The free space map is not written to
//!   the WAL, and a bit of the visibility map can be cleared without a word about its page; both are
//!   small, and read whole.
//! - A relation that was made anew or cut short counts as changed from there on; all of a database
//!   that was made by copying files, too.
//! - The server must still have the history in which the last snapshot was taken (`lineage`).
//! - The last snapshot must be of this timeline, and its pages verified if these are. Whoever writes
//!   pages behind the server's back (`pg_checksums`) changes what `pg_control` says, and all is read.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::{TryStreamExt, pin_mut};
use lifeboat_core::{Attributes, Context};

use super::cluster::Cluster;
use super::{facts, lineage};
use crate::connect::Session;
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::relation::{Fork, RelationDirectory, RelationFile};

/// What has this as its tablespace lies in `base`.
const DEFAULT_TABLESPACE: u32 = 1663;
/// How long the server may take to summarise its WAL up to the beginning of the backup. It is at it
/// since the checkpoint; reading everything may take hours.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);
/// No more changed blocks are kept in mind: 64 MiB. With more, everything is read.
const MOST_BLOCKS: usize = 16 << 20;
/// Pages between changed ones that are read with them: one request costs more than they do.
const NEAR: u64 = 2;

/// What changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    relations: HashMap<Key, Relation>,
    /// Databases that were made by copying files: tablespace and oid.
    databases: HashSet<(u32, u32)>,
    blocks: usize,
}

/// Tablespace, database, and number of the file.
type Key = (u32, u32, u32);

#[derive(Debug, Default)]
struct Relation {
    /// From this block on everything is new.
    limit: Option<u32>,
    blocks: Vec<u32>,
}

impl Changes {
    /// Asks the server what changed between the beginning of the snapshot with these facts and
    /// `start`. `None` when everything must be read; why, is noted.
    pub(super) async fn since(
        known: &Attributes,
        cluster: &Cluster,
        session: &Session,
        start: Lsn,
        context: &Context,
    ) -> Result<Option<Self>> {
        if session.major() < 17 {
            return Ok(None);
        }
        let control = &cluster.control;
        let same = |name: &str, value: u64| known.unsigned(name) == Some(value);
        let before = known.text(facts::START).and_then(|lsn| lsn.parse::<Lsn>().ok());
        let Some(before) = before.filter(|before| *before < start) else {
            return Ok(None);
        };
        if !same(facts::TIMELINE, control.timeline.into())
            || !same(facts::CHECKSUM_VERSION, control.checksum_version.into())
        {
            return Ok(None);
        }
        let found = match Self::ask(session, known, control.timeline, before, start).await {
            // Of a server that is gone the backup hears soon enough.
            Err(Error::Query { source, .. }) => Err(source.to_string()),
            found => found?,
        };
        match found {
            Ok(changes) => Ok(Some(changes)),
            Err(why) => {
                let told = format!("files that changed are read whole: {why}");
                context.note("WAL summaries", told);
                Ok(None)
            }
        }
    }

    async fn ask(
        session: &Session,
        known: &Attributes,
        timeline: u32,
        before: Lsn,
        start: Lsn,
    ) -> Result<std::result::Result<Self, String>> {
        if session.setting("summarize_wal").await?.as_deref() != Some("on") {
            let remedy = "ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf();";
            return Ok(Err(format!("summarize_wal is off; to read changed pages only: {remedy}")));
        }
        let begun = Instant::now();
        while summarised(session).await? < start {
            if begun.elapsed() > PATIENCE {
                let limit = PATIENCE.as_secs();
                return Ok(Err(format!("the server did not summarise its WAL within {limit} s")));
            }
            tokio::time::sleep(PAUSE).await;
        }
        let Some(summaries) = covering(session, timeline, before, start).await? else {
            return Ok(Err(format!(
                "the server has no summaries from {before} on (wal_summary_keep_time)"
            )));
        };
        if !lineage::is_same(session, known.text(facts::SUMMARIES), timeline, before).await? {
            return Ok(Err(lineage::OTHER.to_owned()));
        }
        let mut changes = Self::default();
        for (from, to) in summaries {
            changes.read(session, timeline, from, to).await?;
            if changes.blocks > MOST_BLOCKS {
                return Ok(Err("most of the cluster has changed".to_owned()));
            }
        }
        for relation in changes.relations.values_mut() {
            relation.blocks.sort_unstable();
            relation.blocks.dedup();
        }
        Ok(Ok(changes))
    }

    /// Takes what one summary says.
    async fn read(&mut self, session: &Session, timeline: u32, from: Lsn, to: Lsn) -> Result<()> {
        const WHAT: &str = "read a WAL summary";
        let failed = |source| Error::Query { what: WHAT, source: Box::new(source) };
        let answer =
            |error: tokio_postgres::Error| Error::Answer { what: WHAT, why: error.to_string() };
        let statement = format!(
            "SELECT relfilenode, reltablespace, reldatabase, relblocknumber, is_limit_block \
             FROM pg_wal_summary_contents({timeline}, '{from}', '{to}') \
             WHERE relforknumber = 0"
        );
        let none: [&str; 0] = [];
        let rows = session.client().query_raw(&statement, none).await.map_err(failed)?;
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            let number: u32 = row.try_get(0).map_err(answer)?;
            let tablespace: u32 = row.try_get(1).map_err(answer)?;
            let database: u32 = row.try_get(2).map_err(answer)?;
            let block: i64 = row.try_get(3).map_err(answer)?;
            let is_limit: bool = row.try_get(4).map_err(answer)?;
            if number == 0 {
                self.databases.insert((tablespace, database));
                continue;
            }
            let block = u32::try_from(block).unwrap_or(0);
            let relation = self.relations.entry((tablespace, database, number)).or_default();
            if is_limit {
                relation.limit = Some(relation.limit.map_or(block, |known| known.min(block)));
            } else {
                relation.blocks.push(block);
                self.blocks += 1;
                if self.blocks > MOST_BLOCKS {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Which bytes of a file must be read of which the last snapshot has `old`; `None` when all of
    /// it must. `pages` are the size of a page, the number of pages in a file, and the length now.
    pub(super) fn to_read(
        &self,
        directory: RelationDirectory,
        file: RelationFile,
        (page, in_file, length): (u64, u32, u64),
        old: u64,
    ) -> Option<Vec<Range<u64>>> {
        if file.fork != Fork::Main || page == 0 {
            return None;
        }
        let tablespace =
            if directory.tablespace == 0 { DEFAULT_TABLESPACE } else { directory.tablespace };
        if self.databases.contains(&(tablespace, directory.database)) {
            return None;
        }
        let first = u64::from(file.segment) * u64::from(in_file);
        // What the last snapshot does not have as whole pages, and what lies behind the shortest
        // the relation has been.
        let mut kept = (old / page).min(length / page);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        if let Some(relation) = self.relations.get(&(tablespace, directory.database, file.number)) {
            if let Some(limit) = relation.limit {
                kept = kept.min(u64::from(limit).saturating_sub(first));
            }
            let blocks = relation.blocks.iter().map(|block| u64::from(*block));
            let own = blocks.filter_map(|block| block.checked_sub(first));
            for block in own.take_while(|block| *block < kept) {
                match ranges.last_mut() {
                    Some(last) if block <= last.end + NEAR => last.end = block + 1,
                    _ => ranges.push(block..block + 1),
                }
            }
        }
        for range in &mut ranges {
            *range = range.start * page..range.end * page;
        }
        if kept * page < length {
            ranges.push(kept * page..length);
        }
        let read: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        (kept > 0 && read < length / 2).then_some(ranges)
    }
}

/// Up to where the server has summarised its WAL.
pub(super) async fn summarised(session: &Session) -> Result<Lsn> {
    const WHAT: &str = "ask for the summaries of the WAL";
    let statement = "SELECT summarized_lsn::text FROM pg_get_wal_summarizer_state()";
    let row = session.one(WHAT, statement, &[]).await?;
    crate::connect::parsed(WHAT, row.try_get::<_, String>(0))
}

/// The summaries from one position to another, when there is one for all of it.
async fn covering(
    session: &Session,
    timeline: u32,
    from: Lsn,
    to: Lsn,
) -> Result<Option<Vec<(Lsn, Lsn)>>> {
    const WHAT: &str = "list the summaries of the WAL";
    let statement = format!(
        "SELECT start_lsn::text, end_lsn::text FROM pg_available_wal_summaries() \
         WHERE tli = {timeline} AND end_lsn > '{from}' AND start_lsn < '{to}' ORDER BY start_lsn"
    );
    let mut reached = from;
    let mut found = Vec::new();
    for row in session.all(WHAT, &statement, &[]).await? {
        let start: Lsn = crate::connect::parsed(WHAT, row.try_get::<_, String>(0))?;
        let end: Lsn = crate::connect::parsed(WHAT, row.try_get::<_, String>(1))?;
        if start > reached {
            return Ok(None);
        }
        reached = reached.max(end);
        found.push((start, end));
    }
    Ok((reached >= to).then_some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 8192;

    fn changes(limit: Option<u32>, blocks: &[u32]) -> Changes {
        let relation = Relation { limit, blocks: blocks.to_vec() };
        let relations = HashMap::from([((1663, 5, 100), relation)]);
        Changes { relations, databases: HashSet::from([(1663, 6)]), blocks: blocks.len() }
    }

    fn read(changes: &Changes, name: &str, pages: u64, old: u64) -> Option<Vec<(u64, u64)>> {
        let directory = RelationDirectory { database: 5, tablespace: 0 };
        let file = RelationFile::parse(name.as_bytes()).unwrap();
        let found = changes.to_read(directory, file, (PAGE, 1000, pages * PAGE), old * PAGE)?;
        Some(found.into_iter().map(|range| (range.start / PAGE, range.end / PAGE)).collect())
    }

    #[test]
    fn what_the_wal_did_not_touch_is_not_read() {
        let some = changes(None, &[3, 4, 6, 50, 1002]);
        assert_eq!(read(&some, "100", 100, 100), Some(vec![(3, 7), (50, 51)]));
        // Of the second file, blocks count from its beginning.
        assert_eq!(read(&some, "100.1", 100, 100), Some(vec![(2, 3)]));
        // One that nothing was said of is as it was.
        assert_eq!(read(&some, "101", 100, 100), Some(vec![]));
        // It grew, or the last snapshot had less of it.
        assert_eq!(read(&some, "101", 100, 90), Some(vec![(90, 100)]));
        // It shrank: what lies behind its end is nobody's.
        assert_eq!(read(&some, "100", 40, 100), Some(vec![(3, 7)]));
        // From where it was cut short, all is new.
        assert_eq!(
            read(&changes(Some(80), &[3, 90]), "100", 100, 100),
            Some(vec![(3, 4), (80, 100)])
        );
        assert_eq!(read(&changes(Some(0), &[]), "100", 100, 100), None);
        assert_eq!(read(&changes(Some(80), &[]), "100.1", 100, 100), None);
        // Other forks, and what was not there before.
        for name in ["100_vm", "100_fsm", "100_init"] {
            assert_eq!(read(&some, name, 100, 100), None);
        }
        assert_eq!(read(&some, "101", 100, 0), None);
        // A database that was copied.
        let directory = RelationDirectory { database: 6, tablespace: 0 };
        let file = RelationFile::parse(b"101").unwrap();
        assert_eq!(some.to_read(directory, file, (PAGE, 1000, 100 * PAGE), 100 * PAGE), None);
    }
}
