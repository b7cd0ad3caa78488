//! Redis, for the commands that know several kinds of stores.

use lifeboat_core::Sink;
use lifeboat_redis::{
    AppendOnly, AppendOnlyOptions, AppendOnlySink, ConnectOptions, RdbFileSink, RestoreOptions,
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
    let mut options = options.with_environment().map_err(Failed::argument)?;
    options.tls_ca.clone_from(&server.tls_ca);
    if let (Some(certificate), Some(key)) = (&server.tls_cert, &server.tls_key) {
        options.tls_identity = Some((certificate.clone(), key.clone()));
    }
    Ok(options)
}

/// The file that a snapshot becomes; with a moment, the files.
pub(super) fn sink(
    arguments: &Restore,
    moment: Option<&PlannedMoment>,
) -> Result<Box<dyn Sink>, Failed> {
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
    if let Some(moment) = moment {
        if arguments.redis.force {
            let hint = "leave it out: the directory has to be empty, or not there yet";
            return Err(Failed::usage("--force is for a restore to an RDB file", hint));
        }
        let options = AppendOnlyOptions::new(&arguments.to, moment.plan.base.form)
            .with_config(arguments.redis.redis_conf.clone());
        return Ok(Box::new(AppendOnlySink::new(options)));
    }
    let mut options = RestoreOptions::new(&arguments.to);
    options.config.clone_from(&arguments.redis.redis_conf);
    if arguments.redis.force {
        options.append_only = AppendOnly::Ignore;
    }
    Ok(Box::new(RdbFileSink::new(options)))
}
