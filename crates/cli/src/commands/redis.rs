//! Redis, for the commands that know several kinds of stores.

use lifeboat_core::{Attributes, Sink};
use lifeboat_redis::{
    AppendOnly, AppendOnlyForm, AppendOnlyOptions, AppendOnlySink, ConnectOptions, Doing, Existing,
    Holding, KeyPattern, KeySelection, LiveOptions, LiveSink, MasterOptions, MasterSink,
    RdbFileSink, RestoreOptions, ShardsSink, facts as names,
};

use super::moment::PlannedMoment;
use crate::args::{Owners, RedisServer, Restore};
use crate::failure::Failed;

/// How the server is reached, from the command line and from the variable of `redis-cli`.
pub(super) fn connection(server: &RedisServer) -> Result<ConnectOptions, Failed> {
    let mut options = ConnectOptions::parse(&server.url).map_err(Failed::argument)?;
    if let Some(file) = &server.password_file {
        options = options.with_password_file(file).map_err(Failed::argument)?;
    }
    if let Some(file) = &server.sentinel_password_file {
        options = options.with_sentinel_password_file(file).map_err(Failed::argument)?;
    }
    let mut options = options.with_environment().map_err(Failed::argument)?;
    options.tls_ca.clone_from(&server.tls_ca);
    if let (Some(certificate), Some(key)) = (&server.tls_cert, &server.tls_key) {
        options.tls_identity = Some((certificate.clone(), key.clone()));
    }
    Ok(options)
}

/// Which keys are meant, from the command line.
pub(super) fn selection(
    patterns: &[String],
    databases: &[(u64, u64)],
) -> Result<KeySelection, Failed> {
    let mut selection = KeySelection::default();
    let keys = patterns.iter().map(|pattern| KeyPattern::new(pattern.as_bytes()));
    selection.keys = keys.collect();
    for (from, to) in databases {
        if selection.databases.insert(*from, *to).is_some_and(|other| other != *to) {
            let message = format!("database {from} cannot go into two others");
            return Err(Failed::usage(message, "restore twice"));
        }
    }
    Ok(selection)
}

/// The running server that a snapshot goes into.
fn live(
    arguments: &Restore,
    server: &RedisServer,
    facts: &Attributes,
    moment: Option<&PlannedMoment>,
) -> Result<Box<dyn Sink>, Failed> {
    let whole = arguments.live.replace_all || moment.is_some();
    let others = [
        (!arguments.paths.is_empty(), "--path"),
        (!arguments.tablespaces.is_empty(), "--tablespace"),
        (arguments.owners != Owners::Numbers, "--owners"),
        (arguments.redis.redis_conf.is_some(), "--redis-conf"),
        (arguments.redis.force, "--force"),
    ];
    let said = others.into_iter().find_map(|(is_said, word)| is_said.then_some(word));
    let recovery = || match moment {
        Some(_) => arguments.recovery.word_for_clusters(),
        None => arguments.recovery.word(),
    };
    let said = said.or_else(recovery).or_else(|| arguments.database.word());
    if let Some(word) = said {
        let message = format!("{word} is not for a restore into a running server");
        return Err(Failed::usage(message, "leave it out"));
    }
    if whole {
        return replacing(arguments, server, facts);
    }
    if arguments.live.listen.is_some() {
        let message = "--listen is for a server that is replaced as a whole";
        return Err(Failed::usage(message, "leave it out, or add --replace-all"));
    }
    let mut options = LiveOptions::new(connection(server)?).with_facts(facts);
    if arguments.replace {
        options.existing = Existing::Replace;
    }
    if arguments.recovery.dry_run {
        options.doing = Doing::Look;
    }
    let selection = selection(&arguments.live.keys, &arguments.live.databases)?;
    (options.keys, options.databases) = (selection.keys, selection.databases);
    Ok(Box::new(LiveSink::new(options)))
}

/// The running server that a snapshot, or a moment, takes the place of.
fn replacing(
    arguments: &Restore,
    server: &RedisServer,
    facts: &Attributes,
) -> Result<Box<dyn Sink>, Failed> {
    let said = arguments.replace.then_some("--replace");
    if let Some(word) = said.or_else(|| arguments.live.choosing_word()) {
        let message = format!("{word} is not for a server that is replaced as a whole");
        let hint = "leave it out; without --replace-all and without a moment, keys go beside what \
                    is there";
        return Err(Failed::usage(message, hint));
    }
    if facts.unsigned(names::SHARDS).is_some() {
        let message = "this is a snapshot of a cluster, which cannot replace one server";
        return Err(Failed::usage(message, "leave --replace-all out: keys go there one by one"));
    }
    let mut options = MasterOptions::new(connection(server)?);
    options.listen.clone_from(&arguments.live.listen);
    if arguments.live.replace_all {
        options.holding = Holding::Replace;
    }
    Ok(Box::new(MasterSink::new(options)))
}

/// The file that a snapshot with these facts becomes; with a moment, the files.
pub(super) fn sink(
    arguments: &Restore,
    facts: &Attributes,
    moment: Option<&PlannedMoment>,
) -> Result<Box<dyn Sink>, Failed> {
    let set = AppendOnlyForm::of(facts);
    if let Some(server) = arguments.live.server() {
        if set.is_some() {
            let message = "a snapshot of append-only files comes back as such files";
            let hint = "restore it with --to, and start a server from that directory";
            return Err(Failed::usage(message, hint));
        }
        return live(arguments, &server, facts, moment);
    }
    let others = [
        (!arguments.paths.is_empty(), "--path"),
        (!arguments.tablespaces.is_empty(), "--tablespace"),
        (arguments.replace, "--replace"),
        (arguments.owners != Owners::Numbers, "--owners"),
    ];
    let said = others.into_iter().find_map(|(is_said, word)| is_said.then_some(word));
    let recovery = || match moment {
        Some(_) => arguments.recovery.word_for_clusters(),
        None => arguments.recovery.word(),
    };
    let said = said.or_else(recovery).or_else(|| arguments.database.word());
    if let Some(word) = said {
        let message = format!("{word} is not for Redis, and this is a snapshot of Redis");
        return Err(Failed::usage(message, "leave it out; --to names the file to make"));
    }
    if let Some(form) = moment.map(|moment| moment.plan.base.form).or(set) {
        if let Some(word) = arguments.live.choosing_word() {
            let message = format!("{word} is not for append-only files, which come back whole");
            let hint = "restore them whole, start a server from them, and take the keys from there";
            return Err(Failed::usage(message, hint));
        }
        if arguments.redis.force {
            let hint = "leave it out: the directory has to be empty, or not there yet";
            return Err(Failed::usage("--force is for a restore to an RDB file", hint));
        }
        let options = AppendOnlyOptions::new(arguments.to(), form)
            .with_config(arguments.redis.redis_conf.clone());
        return Ok(Box::new(AppendOnlySink::new(options)));
    }
    let mut options = RestoreOptions::new(arguments.to());
    options.config.clone_from(&arguments.redis.redis_conf);
    options.selection = selection(&arguments.live.keys, &arguments.live.databases)?;
    if arguments.redis.force {
        options.append_only = AppendOnly::Ignore;
    }
    match facts.unsigned(names::SHARDS) {
        Some(_) => Ok(Box::new(ShardsSink::new(options))),
        None => Ok(Box::new(RdbFileSink::new(options))),
    }
}
