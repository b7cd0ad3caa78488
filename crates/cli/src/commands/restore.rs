//! `lifeboat restore`: brings a snapshot back.

use std::sync::Arc;

use lifeboat_core::local::FormerFiles;
use lifeboat_core::{
    Attributes, Bytes, EntryPath, Error, ErrorKind, Sink, SnapshotInfo, Source, Summary,
    TransferOptions, Value, transfer,
};
use lifeboat_files::{Existing, FilesSink, Owners as FileOwners, SinkOptions};
use lifeboat_postgres::{
    Archiving, ClusterSink, Existing as ExistingCluster, RecoverySettings, RecoverySource,
    RestoreOptions, TableSink, TablespaceMapping,
};
use lifeboat_redis::RecoverySource as ChangesSource;
use lifeboat_repository::{Selection, SnapshotCopies, ThawNeed};
use serde::Serialize;

use super::moment::{self, PlannedMoment};
use super::two::{Found, found, open};
use super::which::{LATEST, Reach};
use super::{database, dry_run, newer, recovery, redis, table, thaw};
use crate::args::{Owners, Recovery, Restore, Supply};
use crate::exit::Exit;
use crate::failure::{Failed, place};
use crate::output::{duration, facts_to_json, number, one_line, size, time};
use crate::session::Session;

/// The event `summary` of a restore.
#[derive(Serialize)]
struct Restored {
    snapshot: String,
    store: String,
    target: String,
    entries: u64,
    bytes: u64,
    seconds: f64,
    warnings: u64,
    facts: serde_json::Value,
    from: Vec<Share>,
    incomplete: Option<Incomplete>,
    exit: u8,
}

/// What an incomplete snapshot has.
#[derive(Serialize)]
struct Incomplete {
    entries: u64,
    until: Option<String>,
}

/// How much of the content came from one repository.
#[derive(Serialize)]
struct Share {
    repository: String,
    bytes: u64,
}

pub(super) async fn run(arguments: Restore, session: &Session) -> Result<Exit, Failed> {
    let alone = arguments.or_from.is_none();
    match restore(arguments, session).await {
        Err(Failed::Error(error)) if alone && error.kind() == ErrorKind::Corrupt => {
            Err(error.with_hint(DAMAGED).into())
        }
        done => done,
    }
}

const DAMAGED: &str = "if another repository has a copy of the snapshot, name it with --or-from; \
                       `lifeboat verify --every-byte` says which snapshots are hurt";

async fn restore(mut arguments: Restore, session: &Session) -> Result<Exit, Failed> {
    let mut moment = None;
    let (found, planned) = if arguments.recovery.target.get().is_some() {
        if arguments.or_from.is_some() {
            let hint = "copy the journals back first, or restore the snapshot alone";
            return Err(Failed::usage("--or-from has no WAL for a recovery target", hint));
        }
        let opened = session.repository().await?;
        let Recovery { target, .. } = &arguments.recovery;
        let (which, action) = (&arguments.which, arguments.recovery.action());
        let list = opened.listed(session).await?;
        let store = recovery::store_of(which, &list, &opened, session)?;
        let (base, planned) = if store.kind() == lifeboat_redis::KIND {
            let recovery = &arguments.recovery;
            let planning = moment::planned(which, recovery, &store, &list, &opened, session);
            let planned = moment.insert(Box::pin(planning).await?);
            (planned.base.clone(), None)
        } else {
            let planned = recovery::planned(which, target, action, &opened, session).await?;
            let Some(planned) = planned else {
                return Err(Failed::usage("there is no recovery target", ""));
            };
            (planned.base.clone(), Some(planned))
        };
        (vec![open(opened, &base, session).await?], planned)
    } else {
        (found(&arguments, session).await?, None)
    };
    let [first, ..] = &found[..] else {
        return Err(Error::new(ErrorKind::NotFound, "no snapshot was found").into());
    };
    let info = first.snapshot.info().clone();
    let reach = Reach::of(&first.snapshot).await;
    if info.store.kind() != lifeboat_redis::KIND && arguments.live.into.is_some() {
        let message = format!("--into is for Redis, and this is a snapshot of {}", info.store);
        return Err(Failed::usage(message, "name the place with --to"));
    }
    if let Some(word) =
        arguments.live.choosing_word().filter(|_| info.store.kind() != lifeboat_redis::KIND)
    {
        let message = format!("{word} is for Redis, and this is a snapshot of {}", info.store);
        return Err(Failed::usage(message, "leave it out"));
    }
    if let (Some(table), "postgres", None) = (&arguments.database.table, info.store.kind(), &reach)
    {
        return table::run(table, &arguments, first, planned.as_ref(), session).await;
    }
    if let Some(table) = &arguments.database.table {
        arguments.paths = database::entries_of(table, &TableSink::NEEDS, &first.snapshot).await?;
    }
    let settings = recovery::settings(&arguments, planned.as_ref(), &info.store, session)?;
    let histories = recovery::histories(&info, &first.opened, session).await;
    let told = Told { settings, histories, moment: moment.as_ref() };
    let (sink, former) = sink_for(&info, reach.as_ref(), &arguments, told)?;
    for path in &arguments.paths {
        if !holds(&found, path).await? {
            let mut message = format!("snapshot {} has no entry \"{path}\"", info.id.short());
            if let Some(reach) = &reach {
                message += &format!(": {reach}");
            }
            return Err(Failed::usage(message, "list the entries with `lifeboat ls`"));
        }
    }
    let key_by_key =
        arguments.live.into.is_some() && !arguments.live.replace_all && moment.is_none();
    if arguments.recovery.dry_run && !key_by_key {
        return dry_run::look(&info, &arguments, &*sink, session).await;
    }
    if let [one] = &found[..] {
        // With a second repository, what the first one cannot give comes from there.
        let selection = Selection::paths(arguments.paths.iter().cloned());
        let need = ThawNeed::Content(vec![(info.id, selection)]);
        thaw::see(&one.opened, &need, &arguments.thawing, session).await?;
    }
    let (id, store, taken) = (info.id.short(), &info.store, time(info.taken));
    let what = match &reach {
        None => format!("snapshot {id} of {store}, as of {taken}"),
        Some(reach) => {
            session.context.warn(&format!("snapshot {id}"), reach.to_string());
            format!("incomplete snapshot {id} of {store}, begun {taken}")
        }
    };
    session.output.begin(&format!("restore {what}"));
    session.context.phase("restore");
    let selection = Selection::paths(arguments.paths.iter().cloned());
    let copies = found.iter().map(|one| (place(&one.opened.location), one.snapshot.clone()));
    let copies = SnapshotCopies::new(copies).map_err(|error| first.opened.failed(error))?;
    let source: Box<dyn Source> = match former {
        _ if found.len() > 1 => Box::new(copies.source(&selection)),
        Some(former) => Box::new(first.snapshot.source_sparing(&selection, former)),
        None => Box::new(first.snapshot.source(&selection)),
    };
    let with_wal;
    let source = match &planned {
        Some(planned) if arguments.recovery.wal == Supply::Fetch => {
            let archive = planned.archive.clone();
            with_wal = RecoverySource::new(&*source, archive, &planned.plan)?;
            &with_wal as &dyn Source
        }
        Some(planned) => {
            with_wal = RecoverySource::compared(&*source, planned.archive.clone(), &planned.plan);
            &with_wal
        }
        _ => &*source,
    };
    let with_changes;
    let source = match &moment {
        Some(moment) => {
            let journal = moment.journal.clone();
            let changes = ChangesSource::new(source, journal, &moment.plan);
            with_changes = match arguments.live.into {
                Some(_) => changes.as_sent(),
                None => changes,
            };
            &with_changes
        }
        None => source,
    };
    let moved = move_to(source, &*sink, session).await;
    if arguments.delta && moved.is_err() && arguments.to().join(ClusterSink::FORMER).exists() {
        session.output.note(&format!(
            "the cluster in {} cannot be started now: run the same restore again, it goes on",
            arguments.to().display()
        ));
    }
    let summary = moved.map_err(|error| first.opened.of_store(error))?;
    session.output.finish();

    let exit = Exit::with_warnings(summary.warnings);
    let target = arguments.target();
    session.output.event(
        "summary",
        &Restored {
            snapshot: info.id.to_string(),
            store: info.store.to_string(),
            target: target.clone(),
            entries: summary.progress.entries,
            bytes: summary.progress.read,
            seconds: summary.elapsed.as_secs_f64(),
            warnings: summary.warnings,
            facts: facts_to_json(&summary.receipt.facts),
            from: shares(&copies, &summary),
            incomplete: reach.as_ref().map(|reach| Incomplete {
                entries: reach.entries,
                until: reach.until.as_ref().map(ToString::to_string),
            }),
            exit: exit.code(),
        },
    );
    let done = if arguments.recovery.dry_run { "looked through" } else { "restored" };
    session.output.say(&format!(
        "{done} {what}: {}, {}{}, into {target} in {}",
        number(summary.progress.entries, "entry", "entries"),
        size(summary.progress.read),
        if arguments.delta { " fetched" } else { "" },
        duration(summary.elapsed)
    ));
    let facts = &summary.receipt.facts;
    if let (Some(rows), Some(table)) =
        (facts.unsigned("database.rows"), facts.text("database.table"))
    {
        session.output.say(&format!("  {} into {table}", number(rows, "row", "rows")));
    }
    let shares = shares(&copies, &summary);
    for share in shares.iter().filter(|_| shares.len() > 1) {
        session.output.say(&format!("  {} from {}", size(share.bytes), share.repository));
    }
    for fact in texts(&summary.receipt.facts) {
        session.output.say(&fact);
    }
    let alone = moment.is_none() && planned.is_none() && !arguments.recovery.as_standby;
    if alone && arguments.which.snapshot == LATEST && arguments.paths.is_empty() {
        newer::tell(&info, &first.opened, session).await;
    }
    Ok(exit)
}

fn shares(copies: &SnapshotCopies, summary: &Summary) -> Vec<Share> {
    let served = copies.served();
    let share = |(place, bytes): &(&str, u64)| {
        // One alone is read without being counted.
        let bytes = if served.len() == 1 { summary.progress.read } else { *bytes };
        Share { repository: (*place).to_owned(), bytes }
    };
    served.iter().map(share).collect()
}

/// Whether there is such an entry, as the first says that can say it.
async fn holds(found: &[Found], path: &EntryPath) -> Result<bool, Failed> {
    let mut failed = None;
    for one in found {
        match one.snapshot.entry(path).await {
            Ok(entry) => return Ok(entry.is_some()),
            Err(error) => drop(failed.get_or_insert_with(|| one.opened.failed(error))),
        }
    }
    failed.map_or(Ok(false), Err)
}

async fn move_to(
    source: &dyn Source,
    sink: &dyn Sink,
    session: &Session,
) -> lifeboat_core::Result<Summary> {
    let options = TransferOptions::default();
    Box::pin(transfer(source, sink, &options, &session.context)).await
}

/// What the target has to say: the next step, and what to know before.
fn texts(facts: &Attributes) -> Vec<String> {
    let said = |name: &str| name.contains(".note.") || name.ends_with(".next");
    facts
        .iter()
        .filter(|(name, _)| said(name))
        .filter_map(|(name, value)| match value {
            Value::Text(text) if name.ends_with(".next") => {
                Some(format!("next: {}", one_line(text)))
            }
            Value::Text(text) => Some(format!("note: {}", one_line(text))),
            _ => None,
        })
        .collect()
}

/// Where a snapshot goes, and what is there from before.
type Goal = (Box<dyn Sink>, Option<Arc<dyn FormerFiles>>);

/// What a target is told besides the snapshot.
struct Told<'a> {
    /// How a cluster recovers, when a target or a standby was asked for.
    settings: Option<RecoverySettings>,
    /// The timelines of a cluster that there are already.
    histories: Vec<(u32, Bytes)>,
    /// The moment of a Redis server.
    moment: Option<&'a PlannedMoment>,
}

fn sink_for(
    info: &SnapshotInfo,
    reach: Option<&Reach>,
    arguments: &Restore,
    told: Told<'_>,
) -> Result<Goal, Failed> {
    let wrong = |what: &str, hint: &str| {
        let message = format!("{what}, and this is a snapshot of {}", info.store);
        Err(Failed::usage(message, hint))
    };
    if let ("postgres", Some(reach)) = (info.store.kind(), reach) {
        // A server might start from a part of its files, and damage what there is.
        let message = format!("restore snapshot {} of a cluster: {reach}", info.id.short());
        let hint = "name a whole one, see `lifeboat snapshots`; single files of this one come back \
                    with `lifeboat cat`";
        return Err(Failed::usage(message, hint));
    }
    match info.store.kind() {
        kind if arguments.delta && kind != "postgres" => {
            wrong("--delta is for PostgreSQL", "leave it out")
        }
        "redis" => Ok((redis::sink(arguments, &info.facts, told.moment)?, None)),
        kind if arguments.redis.word().is_some() => {
            let word = arguments.redis.word().unwrap_or_default();
            wrong(&format!("{word} is for Redis"), &format!("leave it out for {kind}"))
        }
        "database" => Ok((database::sink(info, reach, arguments)?, None)),
        kind if arguments.database.word().is_some() => {
            let word = arguments.database.word().unwrap_or_default();
            wrong(&format!("{word} is for databases"), &format!("leave it out for {kind}"))
        }
        "postgres" if !arguments.paths.is_empty() => {
            wrong("--path is for files", "a cluster is restored as a whole: leave --path out")
        }
        "postgres" if arguments.replace => {
            let hint = "move the old data directory away yourself, or use it again with --delta";
            wrong("--replace is for files", hint)
        }
        "postgres" if arguments.owners != Owners::Numbers => {
            wrong("--owners is for files", "leave it out: accounts are found by name")
        }
        "postgres" => {
            let mut options = RestoreOptions::new(arguments.to())
                .with_facts(info.facts.clone())
                .with_histories(told.histories);
            for (old, new) in &arguments.tablespaces {
                options = options.with_tablespace(TablespaceMapping::new(old, new));
            }
            if let Some(settings) = told.settings {
                options = options.with_recovery(settings);
            }
            if arguments.recovery.no_archiving {
                options = options.with_archiving(Archiving::Off);
            }
            if arguments.delta {
                options = options.with_existing(ExistingCluster::Reuse);
            }
            let sink = ClusterSink::new(options);
            let former = sink.former_files();
            Ok((Box::new(sink), former))
        }
        "files" if arguments.recovery.word().is_some() => {
            let word = arguments.recovery.word().unwrap_or_default();
            wrong(&format!("{word} is for PostgreSQL"), "leave it out")
        }
        "files" if !arguments.tablespaces.is_empty() => {
            wrong("--tablespace is for PostgreSQL", "leave it out")
        }
        "files" => {
            let mut options = SinkOptions::default();
            if arguments.replace {
                options.existing = Existing::Replace;
            }
            options.owners = match arguments.owners {
                Owners::Numbers => FileOwners::Numbers,
                Owners::Names => FileOwners::Names,
                Owners::Mine => FileOwners::Mine,
            };
            Ok((Box::new(FilesSink::new(arguments.to(), options)), None))
        }
        kind => {
            let message = format!("this program cannot restore stores of the kind \"{kind}\"");
            Err(Failed::usage(message, "use the version that took the snapshot, or a newer one"))
        }
    }
}
