//! `lifeboat restore --table`, of a cluster: one table comes back through a scratch server.

use lifeboat_core::{Header, Sink, Source, TransferOptions, transfer};
use lifeboat_postgres::{DatabaseOptions, DatabaseSource, Parts, TableName};
use serde::Serialize;

use super::database::table_sink;
use super::dry_run;
use super::recovery::Planned;
use super::scratch::{Raised, raise};
use super::two::Found;
use crate::args::Restore;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{duration, number, one_line, time};
use crate::session::Session;

#[derive(Serialize)]
struct Summary {
    snapshot: String,
    store: String,
    database: String,
    table: String,
    rows: u64,
    restore_seconds: f64,
    recovery_seconds: f64,
    warnings: u64,
    exit: u8,
}

pub(super) async fn run(
    table: &TableName,
    arguments: &Restore,
    found: &Found,
    plan: Option<&Planned>,
    session: &Session,
) -> Result<Exit, Failed> {
    let info = found.snapshot.info().clone();
    let is_name = |name: &&str| !name.is_empty() && !name.contains('/');
    let Some(name) = arguments.to().to_str().filter(is_name) else {
        let hint = "write --to NAME: the database that has the table, there and in the snapshot";
        return Err(Failed::usage("--to names a database here, and no directory", hint));
    };
    if !arguments.paths.is_empty() || !arguments.tablespaces.is_empty() {
        let hint = "leave them out";
        return Err(Failed::usage("--path and --tablespace are not for a table", hint));
    }
    let sink = table_sink(name, table, arguments)?;
    if arguments.recovery.dry_run {
        return dry_run::look(&info, arguments, &sink, session).await;
    }
    session
        .unless_cancelled(sink.look(&Header::new(info.store.clone()), &session.context))
        .await??;
    let Raised { server, restored, .. } =
        raise(&arguments.scratch, found, plan, &arguments.thawing, session).await?;
    session.context.phase("copy the table");
    let mut options = DatabaseOptions::new(server.connection(name)?);
    options.tables = vec![table.to_string()];
    options.programs.clone_from(&arguments.scratch.programs);
    let mut source = DatabaseSource::new(info.store.name(), options.clone());
    let looked = session.unless_cancelled(source.inspect()).await??;
    // Its form is needed only where the table is not there any more.
    if looked.findings.iter().any(|finding| finding.code == "dump_program_missing") {
        options.parts = Parts::Data;
        source = DatabaseSource::new(info.store.name(), options);
    }
    let options = TransferOptions::default();
    let moving = Box::pin(transfer(&source, &sink, &options, &session.context));
    let moved = session.unless_cancelled(moving).await??;
    let recovered = server.recovered_in();
    server.stop().await?;
    session.output.finish();
    let facts = &moved.receipt.facts;
    let rows = facts.unsigned("database.rows").unwrap_or_default();
    let into = facts.text("database.table").unwrap_or_default().to_owned();
    let exit = Exit::with_warnings(session.context.warnings());
    session.output.event(
        "summary",
        &Summary {
            snapshot: info.id.to_string(),
            store: info.store.to_string(),
            database: name.to_owned(),
            table: into.clone(),
            rows,
            restore_seconds: restored.as_secs_f64(),
            recovery_seconds: recovered.as_secs_f64(),
            warnings: session.context.warnings(),
            exit: exit.code(),
        },
    );
    session.output.say(&format!(
        "{} of {} came back into {}, from snapshot {} as of {}; the scratch server took {}",
        number(rows, "row", "rows"),
        one_line(&table.to_string()),
        one_line(&into),
        info.id.short(),
        time(info.taken),
        duration(restored + recovered)
    ));
    Ok(exit)
}
