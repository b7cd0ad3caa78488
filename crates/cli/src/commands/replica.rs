//! `lifeboat replica`: how far replicas are behind, and one that takes the primary's place.

use comfy_table::{CellAlignment, Table, presets};
use lifeboat_postgres::{
    ConnectOptions, Fencing, PromoteOptions, Replica as Replicating, Role, ServerStatus, promote,
};
use serde::Serialize;

use super::backup::refuse_password;
use crate::args::{Replica, ReplicaPromote, ReplicaStatus};
use crate::exit::Exit;
use crate::failure::Failed;
use crate::metrics::Metrics;
use crate::output::{duration, one_line, size};
use crate::session::Session;

/// The event `server`.
#[derive(Serialize)]
struct Server<'a> {
    server: &'a str,
    system_id: String,
    timeline: u32,
    role: &'a str,
    current: Option<String>,
    received: Option<String>,
    replayed: Option<String>,
    streaming: Option<bool>,
    age_seconds: Option<f64>,
}

/// The event `replica`.
#[derive(Serialize)]
struct Follower<'a> {
    name: &'a str,
    address: &'a str,
    state: &'a str,
    sync: &'a str,
    behind_bytes: Option<u64>,
    lag_seconds: Option<f64>,
}

#[derive(Serialize)]
struct Summary {
    replicas: usize,
    late: usize,
    exit: u8,
}

#[derive(Serialize)]
struct Ended<'a> {
    server: &'a str,
    timeline: u32,
    at: String,
    seconds: f64,
    exit: u8,
}

pub(super) async fn run(what: Replica, session: &Session) -> Result<Exit, Failed> {
    match what {
        Replica::Status(arguments) => status(&arguments, session).await,
        Replica::Promote(arguments) => promoted(&arguments, session).await,
    }
}

fn connection(conninfo: &str) -> Result<ConnectOptions, Failed> {
    refuse_password(conninfo)?;
    ConnectOptions::parse(conninfo)
        .and_then(ConnectOptions::with_environment)
        .map_err(Failed::argument)
}

async fn status(arguments: &ReplicaStatus, session: &Session) -> Result<Exit, Failed> {
    let connection = connection(&arguments.conninfo)?;
    let status = session.unless_cancelled(ServerStatus::of(&connection)).await??;
    tell(&status, session);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["replica", "address", "state", "sync", "behind", "lag"]);
    let mut late = 0;
    for replica in &status.replicas {
        let lag = replica.lag.map(|lag| lag.as_secs_f64());
        session.output.event(
            "replica",
            &Follower {
                name: &replica.name,
                address: &replica.address,
                state: &replica.state,
                sync: &replica.sync,
                behind_bytes: replica.behind,
                lag_seconds: lag,
            },
        );
        table.add_row([
            one_line(&replica.name),
            replica.address.clone(),
            replica.state.clone(),
            replica.sync.clone(),
            replica.behind.map_or("-".to_owned(), size),
            replica.lag.map_or("-".to_owned(), duration),
        ]);
        let limit = arguments.max_lag;
        let is_late = limit.is_some_and(|limit| replica.lag.is_some_and(|lag| lag > limit));
        late += usize::from(is_late || (limit.is_some() && replica.state != "streaming"));
    }
    // Of itself a standby knows how old is what it has replayed.
    if let Role::Standby { age, streaming, .. } = &status.role {
        let limit = arguments.max_lag;
        let is_late = limit.is_some_and(|limit| age.is_none_or(|age| age > limit));
        late += usize::from(is_late && !streaming);
    }
    for column in 4..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if !status.replicas.is_empty() {
        session.output.listed(&table.trim_fmt());
    }
    if let Some(path) = &arguments.metrics {
        metrics(&status).write(path).map_err(|error| {
            let error = lifeboat_core::local::failed("write", &path.display(), error);
            Failed::from(error)
        })?;
    }
    let exit = Exit::with_warnings(late as u64);
    let replicas = status.replicas.len();
    session.output.event("summary", &Summary { replicas, late, exit: exit.code() });
    Ok(exit)
}

/// The figures of a server.
fn metrics(status: &ServerStatus) -> Metrics {
    let mut metrics = Metrics::default();
    let server = ("server", status.server.as_str());
    let role = f64::from(u8::from(matches!(status.role, Role::Standby { .. })));
    metrics.gauge("pg_is_standby", "Whether the server is a standby");
    metrics.sample("pg_is_standby", &[server], role);
    if let Role::Standby { age, streaming, .. } = &status.role {
        metrics.gauge("pg_standby_streams", "Whether the standby receives WAL from its primary");
        metrics.sample("pg_standby_streams", &[server], f64::from(u8::from(*streaming)));
        if let Some(age) = age {
            let name = "pg_last_replayed_transaction_age_seconds";
            metrics.gauge(name, "How old the last transaction is that the standby has replayed");
            metrics.sample(name, &[server], age.as_secs_f64());
        }
    }
    let labels = |replica: &'_ Replicating| {
        [("replica", replica.name.clone()), ("address", replica.address.clone())]
    };
    let mut each = |name: &str, help: &str, value: &dyn Fn(&Replicating) -> Option<f64>| {
        metrics.gauge(name, help);
        for replica in &status.replicas {
            let own = labels(replica);
            let own = [server, (own[0].0, own[0].1.as_str()), (own[1].0, own[1].1.as_str())];
            if let Some(value) = value(replica) {
                metrics.sample(name, &own, value);
            }
        }
    };
    each("pg_replica_streams", "Whether the replica streams", &|replica| {
        Some(f64::from(u8::from(replica.state == "streaming")))
    });
    each("pg_replication_lag_seconds", "How long until the replica has replayed", &|replica| {
        replica.lag.map(|lag| lag.as_secs_f64())
    });
    each("pg_replication_lag_bytes", "WAL that the replica has not replayed", &|replica| {
        replica.behind.map(|bytes| bytes as f64)
    });
    metrics
}

fn tell(status: &ServerStatus, session: &Session) {
    let (mut current, mut got, mut done) = (None, None, None);
    let (mut stream, mut old) = (None, None);
    let timeline = status.timeline;
    let (role, line) = match &status.role {
        Role::Primary { current: at } => {
            current = Some(at.to_string());
            ("primary", format!("takes writes, and is at {at}"))
        }
        Role::Standby { received, replayed, age, streaming } => {
            got = received.map(|lsn| lsn.to_string());
            done = Some(replayed.to_string());
            (stream, old) = (Some(*streaming), age.map(|age| age.as_secs_f64()));
            let from = if *streaming { "streams" } else { "does not stream" };
            let age = age.map_or(String::new(), |age| {
                format!("; its last transaction is {} old", duration(age))
            });
            ("standby", format!("is a standby, {from}, and has replayed up to {replayed}{age}"))
        }
        _ => ("unknown", "is of a kind that this program does not know".to_owned()),
    };
    session.output.event(
        "server",
        &Server {
            server: &status.server,
            system_id: status.system_id.to_string(),
            timeline,
            role,
            current,
            received: got,
            replayed: done,
            streaming: stream,
            age_seconds: old,
        },
    );
    session.output.listed(&format!("{} {line}, timeline {timeline}", status.server));
}

async fn promoted(arguments: &ReplicaPromote, session: &Session) -> Result<Exit, Failed> {
    let mut options = PromoteOptions::new(connection(&arguments.conninfo)?);
    options.primary = arguments.primary.as_deref().map(connection).transpose()?;
    if arguments.fenced {
        options.fencing = Fencing::SaidToBe;
    }
    options.patience = arguments.wait;
    let promoting = Box::pin(promote(&options, &session.context));
    let done = session.unless_cancelled(promoting).await??;
    let exit = Exit::Complete;
    session.output.event(
        "summary",
        &Ended {
            server: &done.server,
            timeline: done.timeline,
            at: done.at.to_string(),
            seconds: done.took.as_secs_f64(),
            exit: exit.code(),
        },
    );
    session.output.say(&format!(
        "{} takes writes now, on timeline {}, after {}",
        done.server,
        done.timeline,
        duration(done.took)
    ));
    session.output.say("  next: let the others follow it, and take a backup of it");
    Ok(exit)
}
