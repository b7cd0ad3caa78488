//! `lifeboat verify --restore` of Redis: a snapshot on a scratch server, examined and removed.

use std::time::{Duration, Instant};

use lifeboat_core::{
    Attributes, EntryPath, Error, ErrorKind, SnapshotInfo, Source, StoreRef, Summary as Moved,
    TransferOptions, transfer,
};
use lifeboat_redis::{
    AppendOnlyForm, Examination, ExamineOptions, Problem, RecoverySource, Scratch, ScratchOptions,
    ShardSource, SourceComparison, examine, facts,
};
use lifeboat_repository::{Selection, ThawNeed};
use serde::Serialize;

use super::moment::{PlannedMoment, planned_to};
use super::redis_keys::rdbs;
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
    let is_cluster = info.facts.unsigned(facts::SHARDS).is_some();
    if is_cluster && options.source.is_some() {
        let message = format!("{store} is a cluster, and --source names one server");
        return Err(Failed::usage(message, "leave it out"));
    }
    let found = open(opened, &info, session).await?;
    let need = ThawNeed::Content(vec![(info.id, Selection::all())]);
    thaw::see(&found.opened, &need, &arguments.thawing, session).await?;
    let one = One { found: &found, moment: moment.as_ref(), arguments, options: &options };
    let mut examined = None::<Examined>;
    if is_cluster {
        for path in rdbs(&found.snapshot, &found.opened, session).await? {
            let shard = Box::pin(one.examine(Some(path), session)).await?;
            match &mut examined {
                Some(all) => all.add(shard),
                None => examined = Some(shard),
            }
        }
        if let Some(all) = &mut examined {
            all.found.compare_total(info.facts.unsigned(facts::KEYS));
        }
    } else {
        examined = Some(Box::pin(one.examine(None, session)).await?);
    }
    session.output.finish();
    let Some(examined) = examined else {
        return Err(Error::new(ErrorKind::NotFound, "the snapshot holds no shard").into());
    };
    Ok(tell(&info, moment.as_ref(), &examined, session))
}

/// What is restored and examined, and how.
struct One<'a> {
    found: &'a Found,
    moment: Option<&'a PlannedMoment>,
    arguments: &'a Verify,
    options: &'a ExamineOptions,
}

/// What came of it.
struct Examined {
    found: Examination,
    version: String,
    bytes: u64,
    restored: Duration,
    loaded: Duration,
    took: Duration,
}

impl Examined {
    fn add(&mut self, other: Self) {
        self.found.add(other.found);
        self.bytes += other.bytes;
        self.restored += other.restored;
        self.loaded += other.loaded;
        self.took += other.took;
    }
}

impl One<'_> {
    /// Restores all of it, or the shard of this path, into a scratch server, and examines that.
    async fn examine(
        &self,
        shard: Option<EntryPath>,
        session: &Session,
    ) -> Result<Examined, Failed> {
        let info = self.found.snapshot.info();
        let rehearsal = &self.arguments.rehearsal;
        let facts = match &shard {
            Some(_) => ShardSource::facts(&info.facts),
            None => info.facts.clone(),
        };
        let modules = &rehearsal.redis.modules;
        let scratch = prepare(&rehearsal.place, modules, &facts, info, self.moment).await?;
        let begun = Instant::now();
        let moved = restore(&scratch, self.found, shard, self.moment, session).await?;
        let restored = begun.elapsed();
        session.context.phase("load");
        let starting = Box::pin(scratch.start(&session.context));
        let server = session.unless_cancelled(starting).await??;
        session.context.phase("examine");
        let begun = Instant::now();
        let examining = Box::pin(examine(&server, self.options, &session.context));
        let found = match session.unless_cancelled(examining).await? {
            Ok(found) => found,
            Err(error) => {
                // Of a server that died, its log knows more.
                let said = one_line(&server.said().await);
                return Err(error.context(format!("the scratch server said: {said}")).into());
            }
        };
        let (took, loaded) = (begun.elapsed(), server.loaded_in());
        let version = server.version().to_owned();
        server.stop().await?;
        let bytes = moved.progress.read;
        Ok(Examined { found, version, bytes, restored, loaded, took })
    }
}

/// Makes the place, when there is room for what comes.
async fn prepare(
    place: &ScratchPlace,
    modules: &[std::path::PathBuf],
    facts: &Attributes,
    info: &SnapshotInfo,
    moment: Option<&PlannedMoment>,
) -> Result<Scratch, Failed> {
    let beneath = place.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let mut options = ScratchOptions::new(&beneath);
    options.programs.clone_from(&place.programs);
    options.modules = modules.to_vec();
    options.patience = place.recovery_limit;
    let scratch = Scratch::prepare(facts, &options).await?;
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
    shard: Option<EntryPath>,
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
    let options = TransferOptions::default();
    if let Some(path) = shard {
        let source = found.snapshot.source(&Selection::paths([path]));
        let source = ShardSource::new(&source);
        let sink = scratch.sink();
        let moved = Box::pin(transfer(&source, &sink, &options, &session.context));
        return moved.await.map_err(|error| found.opened.of_store(error));
    }
    let source = found.snapshot.source(&Selection::all());
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

fn tell(
    info: &SnapshotInfo,
    moment: Option<&PlannedMoment>,
    examined: &Examined,
    session: &Session,
) -> Exit {
    let found = &examined.found;
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
            snapshot: info.id.to_string(),
            store: info.store.to_string(),
            target: moment.map(|moment| moment.plan.to_time.to_string()),
            server: &examined.version,
            databases: found.databases,
            keys: found.keys,
            expired: found.expired,
            compared: found.compared,
            libraries: found.libraries,
            source: found.source.as_ref().map(OnSource::from),
            problems: found.problem_count,
            unchecked: &found.unchecked,
            bytes: examined.bytes,
            restore_seconds: examined.restored.as_secs_f64(),
            load_seconds: examined.loaded.as_secs_f64(),
            examination_seconds: examined.took.as_secs_f64(),
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
        duration(examined.restored),
        duration(examined.loaded),
        duration(examined.took)
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
