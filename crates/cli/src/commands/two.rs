//! A snapshot in whichever of two repositories has it.

use lifeboat_core::{ErrorKind, Origin, SnapshotInfo};
use lifeboat_objstore::Intent;
use lifeboat_repository::{Snapshot, SnapshotList, repaired_original};

use super::which::{LATEST, candidates, find_any, in_list, note_repaired};
use crate::args::Restore;
use crate::failure::{Failed, place};
use crate::secret::Purpose;
use crate::session::{Opened, Session};

/// A snapshot, and the repository that holds it.
pub(super) struct Found {
    pub(super) opened: Opened,
    pub(super) snapshot: Snapshot,
}

/// The snapshot that is meant, in all repositories that have it, the one to ask first in front.
///
/// With a second repository, what the first one lacks or cannot give is told and is no error.
pub(super) async fn found(arguments: &Restore, session: &Session) -> Result<Vec<Found>, Failed> {
    let Some(second) = &arguments.or_from else {
        let opened = session.repository().await?;
        let info = find_any(&arguments.which, &opened, session).await?;
        return Ok(vec![open(opened, &info, session).await?]);
    };
    // One after the other: both may have to ask a person.
    let name = &arguments.which.snapshot;
    let at = session.location()?;
    let mut secret = None;
    let first = async {
        let secret = secret.insert(session.secret(Purpose::Open).await?);
        let store = session.hasty_store(&at, arguments.or_after)?;
        session.open(at.clone(), store, secret).await
    };
    let first = listed(first.await, name, session).await;
    let second = listed(session.other(second, &arguments.other).await, name, session).await;
    let mut failed = None;
    let mut known = Vec::new();
    for (opened, rank) in [(first, Rank::First), (second, Rank::Second)] {
        match opened {
            Ok((opened, list)) => known.push((opened, list, rank)),
            Err(failure) => missed(failure, &mut failed, session)?,
        }
    }
    let Some(meant) = choose(arguments, &known, &mut failed, session) else {
        return Err(failed.unwrap_or_else(|| Failed::usage("no repository is named", "")));
    };
    let mut found = Vec::new();
    let mut ranks = Vec::new();
    for (opened, list, rank) in known {
        let is_copy = |info: &&SnapshotInfo| opened.repository.origin_of(info) == meant;
        let Some(info) = list.snapshots.iter().find(is_copy).cloned() else {
            let told = format!("it has no copy of snapshot {}", meant.snapshot.short());
            session.context.note(&place(&opened.location), told);
            continue;
        };
        match open(opened, &info, session).await {
            Ok(one) => {
                found.push(one);
                ranks.push(rank);
            }
            Err(failure) => missed(failure, &mut failed, session)?,
        }
    }
    if let ([one], [Rank::First], Some(secret)) = (&found[..], &ranks[..], &secret) {
        // Nobody stands in for it: it is given the time that a repository has otherwise.
        let info = one.snapshot.info().clone();
        let store = session.whole(&at, Intent::Existing)?;
        let patient = session.open(at, store, secret).await?;
        return Ok(vec![open(patient, &info, session).await?]);
    }
    match (found.is_empty(), failed) {
        (true, Some(failed)) => Err(failed),
        _ => Ok(found),
    }
}

/// Which of the two repositories it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    First,
    Second,
}

/// Which snapshot is meant: the newest of those that the repositories answer with, since `latest`
/// may be damaged in one of them, or not copied yet into the other. Of the same moment, a copy of
/// the snapshot itself is better than what a repair found left of it.
fn choose(
    arguments: &Restore,
    known: &[(Opened, SnapshotList, Rank)],
    failed: &mut Option<Failed>,
    session: &Session,
) -> Option<Origin> {
    let worth = |info: &SnapshotInfo| (info.taken, repaired_original(info).is_none());
    let mut meant: Option<(SnapshotInfo, Origin)> = None;
    for (opened, list, _) in known {
        match in_list(&arguments.which.snapshot, arguments.which.store.as_ref(), list, opened) {
            Ok(info) => {
                let is_latest = arguments.which.snapshot == LATEST;
                let better =
                    |(chosen, _): &(SnapshotInfo, _)| is_latest && worth(&info) > worth(chosen);
                if meant.as_ref().is_none_or(better) {
                    let origin = opened.repository.origin_of(&info);
                    meant = Some((info, origin));
                }
            }
            Err(failure) if failed.is_none() => *failed = Some(failure),
            Err(_) => {}
        }
    }
    let (info, origin) = meant?;
    if arguments.which.snapshot == LATEST {
        note_repaired(&info, session);
    }
    Some(origin)
}

async fn listed(
    opened: Result<Opened, Failed>,
    name: &str,
    session: &Session,
) -> Result<(Opened, SnapshotList), Failed> {
    let opened = opened?;
    let list = opened.listed(session).await?;
    let list = candidates(list, name, &opened, session).await?;
    Ok((opened, list))
}

pub(super) async fn open(
    opened: Opened,
    info: &SnapshotInfo,
    session: &Session,
) -> Result<Found, Failed> {
    let opening = session.unless_cancelled(opened.repository.snapshot(&info.id)).await?;
    let snapshot = opening.map_err(|error| opened.failed(error))?;
    Ok(Found { opened, snapshot })
}

/// Takes note that one of the two cannot help. A wrong command line, and a wish to stop, stay what
/// they are.
fn missed(failure: Failed, failed: &mut Option<Failed>, session: &Session) -> Result<(), Failed> {
    let ends = match &failure {
        Failed::Usage { .. } => true,
        Failed::Error(error) => error.kind() == ErrorKind::Cancelled,
    };
    if ends {
        return Err(failure);
    }
    session.context.note("", format!("one of the two repositories cannot be used: {failure}"));
    failed.get_or_insert(failure);
    Ok(())
}
