//! Looking for damage in journals, and for what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::journal::{Gap, JournalLog, JournalName, SegmentKind, Span, Timeline};
use lifeboat_core::{Context, ErrorKind, Extent};

use super::header::{HEADER, Header, Identity, Kind};
use super::log::{RepositoryJournal, read_record};
use super::names::{TimelineId, parse, timeline_record};
use super::survey::gaps_of;
use super::{FETCHES, JournalOptions, contents, read_timelines};
use crate::check::Depth;
use crate::error::{Error, Result};
use crate::id::RepositoryId;
use crate::objects::{JOURNALS, Objects};
use crate::repository::{Repository, Shared};

/// What a check found of the journals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalReport {
    /// How many journals there are.
    pub journals: u64,
    /// How many segments.
    pub segments: u64,
    /// Bytes of content that were read.
    pub bytes: u64,
    /// Objects that are damaged, and what is wrong with them.
    pub damage: Vec<(String, String)>,
    /// What is missing. That is no damage: nothing that was stored is lost.
    pub gaps: Vec<JournalGap>,
}

/// What is missing of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalGap {
    /// Of which journal.
    pub journal: JournalName,
    /// What.
    pub gap: Gap,
}

/// Opens every object of every journal: its record, and at [`Depth::EveryByte`] its content.
///
/// # Errors
/// When the store cannot be read, or the context is cancelled.
pub(crate) async fn check(
    repository: &Repository,
    depth: Depth,
    context: &Context,
) -> Result<JournalReport> {
    let shared = repository.shared();
    let mut report = JournalReport::default();
    let mut journals = BTreeMap::new();
    for (id, result) in read_timelines(shared).await? {
        let name = timeline_record(&id.folder());
        let known = result.and_then(|record| match record {
            Some(record) => Ok((record.journal(&name)?, record.to_timeline(&name)?.timeline)),
            None => Err(Error::damaged(&name, "it is missing")),
        });
        match known.map_err(damage) {
            Ok((journal, timeline)) => {
                journals.entry(journal).or_insert_with(Vec::new).push(timeline);
            }
            Err(told) => report.damage.push((name, told?)),
        }
        // What is in a segment does not depend on the record of its timeline.
        check_timeline(shared, id, depth, &mut report, context).await?;
    }
    report.journals = journals.len() as u64;
    for (journal, timelines) in journals {
        check_gaps(repository, &journal, &timelines, &mut report).await?;
    }
    report.damage.sort();
    Ok(report)
}

async fn check_gaps(
    repository: &Repository,
    journal: &JournalName,
    timelines: &[Timeline],
    report: &mut JournalReport,
) -> Result<()> {
    let options = JournalOptions::default();
    let log = RepositoryJournal::new(repository.shared().clone(), journal.clone(), options);
    let infos = match log.timelines().await {
        Ok(infos) => infos,
        // Damage is told already; with it nobody can say what is missing.
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for timeline in timelines {
        let gaps = match gaps_of(&log, &infos, timeline).await {
            Ok(gaps) => gaps,
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for gap in gaps {
            let gap = JournalGap { journal: journal.clone(), gap };
            // What timelines have in common each of them tells.
            if !report.gaps.contains(&gap) {
                report.gaps.push(gap);
            }
        }
    }
    Ok(())
}

async fn check_timeline(
    shared: &Arc<Shared>,
    id: TimelineId,
    depth: Depth,
    report: &mut JournalReport,
    context: &Context,
) -> Result<()> {
    let listed: Vec<_> = shared.objects.list(&id.folder()).try_collect().await?;
    let segments: Vec<_> = listed
        .into_iter()
        .filter_map(|listed| parse(&listed.name).map(|place| (listed, place)))
        .collect();
    context.expect(segments.iter().map(|(listed, _)| listed.size).sum());
    let mut results = stream::iter(segments)
        .map(async |(listed, place)| {
            (check_object(shared, &listed.name, id, place, depth).await, listed, place.1)
        })
        .buffer_unordered(FETCHES);
    while let Some((result, listed, kind)) = results.next().await {
        context.check()?;
        context.count_read(listed.size);
        context.report();
        report.segments += u64::from(kind == SegmentKind::Sealed);
        match result.map_err(damage) {
            Ok(bytes) => report.bytes += bytes,
            Err(told) => report.damage.push((listed.name, told?)),
        }
    }
    Ok(())
}

/// Looks at every object of every journal without a key: that each is whole, and lies where its
/// header says that it belongs. What is sealed in it cannot be told from anything else.
///
/// `repository` is the one that the configuration names, where that can be read.
///
/// # Errors
/// When the store cannot be read, or the context is cancelled.
pub(crate) async fn check_without_key(
    objects: &Objects,
    repository: Option<RepositoryId>,
    context: &Context,
) -> Result<JournalReport> {
    let mut report = JournalReport::default();
    for journal in objects.folders(JOURNALS).await? {
        let folders = objects.folders(&journal).await?;
        let ids: Vec<_> = folders.iter().filter_map(|name| TimelineId::in_folder(name)).collect();
        report.journals += u64::from(!ids.is_empty());
        for id in ids {
            let record = Identity { kind: Kind::Timeline, id, span: None };
            let mut expected = vec![(timeline_record(&id.folder()), record)];
            let listed: Vec<_> = objects.list(&id.folder()).try_collect().await?;
            for name in listed.into_iter().map(|listed| listed.name) {
                let Some((span, kind)) = parse(&name) else { continue };
                report.segments += u64::from(kind == SegmentKind::Sealed);
                expected.push((name, Identity { kind: kind.into(), id, span: Some(span) }));
            }
            let mut looked = stream::iter(expected)
                .map(async |(name, identity)| {
                    (look(objects, repository, &name, &identity).await, name)
                })
                .buffer_unordered(FETCHES);
            while let Some((found, name)) = looked.next().await {
                context.check()?;
                if let Err(error) = found {
                    report.damage.push((name, damage(error)?));
                }
            }
        }
    }
    report.damage.sort();
    Ok(report)
}

async fn look(
    objects: &Objects,
    repository: Option<RepositoryId>,
    name: &str,
    identity: &Identity,
) -> Result<()> {
    match objects.front(name, HEADER as u64).await? {
        Some((bytes, size)) => {
            Header::parse_without_key(repository, name, size, &bytes)?.expect(name, identity)
        }
        // What is gone since it was listed was trimmed; but each timeline has its record.
        None if identity.kind == Kind::Timeline => Err(Error::damaged(name, "it is missing")),
        None => Ok(()),
    }
}

/// What is wrong, when it is damage.
fn damage(error: Error) -> Result<String, Error> {
    match error {
        Error::Damaged { what, .. } => Ok(what),
        Error::Source(error) if error.kind() == ErrorKind::Corrupt => Ok(error.to_string()),
        other => Err(other),
    }
}

async fn check_object(
    shared: &Arc<Shared>,
    name: &str,
    id: TimelineId,
    (span, kind): (Span, SegmentKind),
    depth: Depth,
) -> Result<u64> {
    let identity = Identity { kind: kind.into(), id, span: Some(span) };
    // What is gone since it was listed was trimmed.
    let Some((header, record)) = read_record(shared, name, &identity).await? else {
        return Ok(0);
    };
    if depth != Depth::EveryByte {
        return Ok(0);
    }
    let mut bytes = 0;
    let mut content = contents::content(shared, name, header, &record)?;
    while let Some(extent) = content.next().await? {
        if let Extent::Data(data) = extent {
            bytes += data.len() as u64;
        }
    }
    Ok(bytes)
}
