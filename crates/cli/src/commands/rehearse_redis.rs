//! `lifeboat verify --restore` of Redis: a snapshot on a scratch server, examined and removed.

use std::time::{Duration, Instant};

use lifeboat_core::{
    Error, ErrorKind, SnapshotInfo, Source, StoreRef, Summary as Moved, TransferOptions, transfer,
};
use lifeboat_redis::{
    AppendOnlyForm, Examination, ExamineOptions, Problem, RecoverySource, Scratch, ScratchOptions,
    ScratchServer, SourceComparison, examine, facts,
};
use lifeboat_repository::{Selection, ThawNeed};
use serde::Serialize;

use super::moment::{PlannedMoment, planned_to};
use super::two::{Found, open};
use super::which::find;
use super::{redis, thaw};
use crate::args::{ScratchPlace, Verify, Which};
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{duration, number, one_line, size, time};
use crate::session::{Opened, Session};

/// As many problems are shown to people; programs get all that are kept.
const SHOWN: usize = 50;
/// And as many keys that are not the same at the running server.
const DIFFERENT: usize = 20;

/// The events `problem` and `difference`.
#[derive(Serialize)]
struct Wrong<'a> {
    database: u64,
    key: &'a str,
    what: &'a str,
}

impl<'a> From<&'a Problem> for Wrong<'a> {
    fn from(problem: &'a Problem) -> Self {
        let Problem { database, key, what } = problem;
        Self { database: *database, key, what }
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    sound: bool,
    snapshot: String,
    store: String,
    target: Option<String>,
    server: &'a str,
    databases: u64,
    keys: u64,
    expired: u64,
    compared: u64,
    libraries: Option<u64>,
    source: Option<OnSource>,
    problems: u64,
    unchecked: &'a [String],
    bytes: u64,
    restore_seconds: f64,
    load_seconds: f64,
    examination_seconds: f64,
    exit: u8,
}

/// How keys compare with those of a running server.
#[derive(Serialize)]
struct OnSource {
    compared: u64,
    same: u64,
    changed: u64,
    gone: u64,
}

impl From<&SourceComparison> for OnSource {
    fn from(found: &SourceComparison) -> Self {
        let SourceComparison { compared, same, changed, gone, .. } = *found;
        Self { compared, same, changed, gone }
    }
}

pub(super) async fn run(
    which: &Which,
    store: &StoreRef,
    opened: Opened,
    arguments: &Verify,
    session: &Session,
) -> Result<Exit, Failed> {
    let rehearsal = &arguments.rehearsal;
    if rehearsal.checks.is_some() {
        let hint = "leave it out; --compare all compares every key";
        return Err(Failed::usage("--checks is for PostgreSQL, which answers queries", hint));
    }
    let mut options = ExamineOptions::default();
    options.sample = rehearsal.redis.compare.unwrap_or(options.sample);
    if let Some(server) = rehearsal.redis.server() {
        options.source = Some(redis::connection(&server)?);
    }
    let mut moment = None;
    let info = if rehearsal.target.get().is_some() {
        if options.source.is_some() || rehearsal.redis.compare.is_some() {
            let message = "keys of a moment of a journal are counted and not compared";
            return Err(Failed::usage(message, "leave --source and --compare out"));
        }
        let list = opened.listed(session).await?;
        let word = rehearsal.target.word_for_clusters();
        let planning = planned_to(which, &rehearsal.target, word, store, &list, &opened, session);
        let planned: &PlannedMoment = moment.insert(Box::pin(planning).await?);
        planned.base.clone()
    } else {
        find(which, &opened, session).await?
    };
    if AppendOnlyForm::of(&info.facts).is_some()
        && (options.source.is_some() || rehearsal.redis.compare.is_some())
    {
        let message = "keys of append-only files are counted and not compared";
        return Err(Failed::usage(message, "leave --source and --compare out"));
    }
    if info.facts.unsigned(facts::SHARDS).is_some() {
        let message = format!("{store} is a cluster, and a scratch server is one server");
        let hint = "back up a node of it with --alone under another name, and restore that; \
                    `lifeboat redis keys` reads and checks every shard";
        return Err(Failed::usage(message, hint));
    }
    let found = open(opened, &info, session).await?;
    let need = ThawNeed::Content(vec![(info.id, Selection::all())]);
    thaw::see(&found.opened, &need, &arguments.thawing, session).await?;
    let place = &rehearsal.place;
    let scratch = prepare(place, &rehearsal.redis.modules, &info, moment.as_ref()).await?;
    let begun = Instant::now();
    let moved = restore(&scratch, &found, moment.as_ref(), session).await?;
    let restored = begun.elapsed();
    session.context.phase("load");
    let starting = Box::pin(scratch.start(&session.context));
    let server = session.unless_cancelled(starting).await??;
    session.context.phase("examine");
    let begun = Instant::now();
    let examining = Box::pin(examine(&server, &options, &session.context));
    let examined = session.unless_cancelled(examining).await?;
    let examined = match examined {
        Ok(examined) => examined,
        Err(error) => {
            // Of a server that died, its log knows more.
            let said = one_line(&server.said().await);
            return Err(error.context(format!("the scratch server said: {said}")).into());
        }
    };
    let times = Times { restored, loaded: server.loaded_in(), examined: begun.elapsed() };
    let version = server.version().to_owned();
    stop(server).await?;
    session.output.finish();
    let told = Told { info: &info, moment: moment.as_ref(), version: &version, moved: &moved };
    Ok(tell(&told, &examined, &times, session))
}

async fn stop(server: ScratchServer) -> Result<(), Failed> {
    Ok(server.stop().await?)
}

/// Makes the place, when there is room for what comes.
async fn prepare(
    place: &ScratchPlace,
    modules: &[std::path::PathBuf],
    info: &SnapshotInfo,
    moment: Option<&PlannedMoment>,
) -> Result<Scratch, Failed> {
    let beneath = place.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let mut options = ScratchOptions::new(&beneath);
    options.programs.clone_from(&place.programs);
    options.modules = modules.to_vec();
    options.patience = place.recovery_limit;
    let scratch = Scratch::prepare(&info.facts, &options).await?;
    let need = info.bytes.saturating_add(moment.map_or(0, |moment| moment.plan.changes()));
    if let Some(room) = scratch.room().filter(|room| *room < need) {
        let message = format!(
            "restore snapshot {} into {}: it needs {}, and there is room for {}",
            info.id.short(),
            beneath.display(),
            size(need),
            size(room)
        );
        let hint = "name a directory with more room with --scratch";
        return Err(Error::new(ErrorKind::Exhausted, message).with_hint(hint).into());
    }
    Ok(scratch)
}

async fn restore(
    scratch: &Scratch,
    found: &Found,
    moment: Option<&PlannedMoment>,
    session: &Session,
) -> Result<Moved, Failed> {
    let info = found.snapshot.info();
    let (id, store, taken) = (info.id.short(), &info.store, time(info.taken));
    let version = scratch.version();
    session.output.begin(&format!(
        "restore snapshot {id} of {store}, as of {taken}, for a scratch server of version {version}"
    ));
    session.context.phase("restore");
    let source = found.snapshot.source(&Selection::all());
    let options = TransferOptions::default();
    let moved = match moment {
        Some(PlannedMoment { plan, journal, .. }) => {
            let source = RecoverySource::new(&source as &dyn Source, journal.clone(), plan);
            let sink = scratch.sink_of_moment(plan.base.form);
            Box::pin(transfer(&source, &sink, &options, &session.context)).await
        }
        None => match AppendOnlyForm::of(&info.facts) {
            Some(form) => {
                let sink = scratch.sink_of_moment(form);
                Box::pin(transfer(&source, &sink, &options, &session.context)).await
            }
            None => Box::pin(transfer(&source, &scratch.sink(), &options, &session.context)).await,
        },
    };
    moved.map_err(|error| found.opened.of_store(error))
}

struct Times {
    restored: Duration,
    loaded: Duration,
    examined: Duration,
}

/// What is told besides what was found.
struct Told<'a> {
    info: &'a SnapshotInfo,
    moment: Option<&'a PlannedMoment>,
    version: &'a str,
    moved: &'a Moved,
}

fn tell(told: &Told<'_>, found: &Examination, times: &Times, session: &Session) -> Exit {
    for (at, problem) in found.problems.iter().enumerate() {
        session.output.event("problem", &Wrong::from(problem));
        if at < SHOWN {
            session.output.warn(&described(problem));
        }
    }
    let more = found.problem_count.saturating_sub(SHOWN as u64);
    if more > 0 {
        session.output.warn(&format!("and {more} more"));
    }
    for what in &found.unchecked {
        session.context.warn("not checked", what.clone());
    }
    if let Some(source) = &found.source {
        on_source(source, session);
    }
    let sound = found.problem_count == 0;
    let exit = if sound { Exit::with_warnings(session.context.warnings()) } else { Exit::Failed };
    session.output.event(
        "summary",
        &Summary {
            sound,
            snapshot: told.info.id.to_string(),
            store: told.info.store.to_string(),
            target: told.moment.map(|moment| moment.plan.to_time.to_string()),
            server: told.version,
            databases: found.databases,
            keys: found.keys,
            expired: found.expired,
            compared: found.compared,
            libraries: found.libraries,
            source: found.source.as_ref().map(OnSource::from),
            problems: found.problem_count,
            unchecked: &found.unchecked,
            bytes: told.moved.progress.read,
            restore_seconds: times.restored.as_secs_f64(),
            load_seconds: times.loaded.as_secs_f64(),
            examination_seconds: times.examined.as_secs_f64(),
            exit: exit.code(),
        },
    );
    let keys = number(found.keys, "key", "keys");
    session.output.say(&format!(
        "{}: {keys} in {}, {} expired since, {} compared one by one",
        if sound { "the restored data is sound" } else { "the restored data is NOT sound" },
        number(found.databases, "database", "databases"),
        found.expired,
        found.compared,
    ));
    if let Some(source) = &found.source {
        let SourceComparison { compared, same, changed, gone, .. } = source;
        session.output.say(&format!(
            "  of {compared} compared with the running server, {same} are the same, {changed} are \
             other, {gone} are gone"
        ));
    }
    session.output.say(&format!(
        "  restored in {}, loaded in {}, examined in {}",
        duration(times.restored),
        duration(times.loaded),
        duration(times.examined)
    ));
    if !sound {
        session.output.say(
            "  next: restore an older snapshot the same way to see since when; \
             `lifeboat verify --every-byte` tells whether the repository is the cause",
        );
    }
    exit
}

/// Tells what is other at the running server.
fn on_source(source: &SourceComparison, session: &Session) {
    for (at, different) in source.different.iter().enumerate() {
        session.output.event("difference", &Wrong::from(different));
        if at < DIFFERENT {
            session.output.say(&format!("differs: {}", described(different)));
        }
    }
    let differ = source.changed + source.gone;
    if differ > 0 {
        let keys = number(differ, "key is", "keys are");
        let message = format!(
            "{keys} not the same: they were changed since the snapshot; if nobody did, look into it"
        );
        session.context.warn("the running server", message);
    }
}

fn described(problem: &Problem) -> String {
    let Problem { database, key, what } = problem;
    match key.is_empty() {
        true => one_line(&format!("database {database}: {what}")),
        false => one_line(&format!("database {database}: {key}: {what}")),
    }
}
