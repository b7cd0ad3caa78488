//! `lifeboat follow`: receives the changes of a store, until it is stopped.

use std::collections::BTreeMap;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use lifeboat_core::StoreRef;
use lifeboat_core::journal::JournalLog;
use lifeboat_postgres::{
    ConnectOptions, Following, Freshness, Lsn, Receiver, ReceiverOptions, SlotName, WalArchive,
    WalLine,
};
use lifeboat_repository::JournalOptions;
use parking_lot::Mutex;
use serde::Serialize;

use super::backup::refuse_password;
use super::elsewhere::{self, other_names};
use super::follow_redis;
use super::wal::{WalService, listener};
use crate::args::{Follow, FollowPostgres};
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{Output, size};
use crate::session::Session;

/// How often people are told how far it is, while it goes on.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(60);

/// The events of a followed server. System identifiers are text: they do not fit into the numbers
/// of every program.
#[derive(Serialize)]
struct Streaming<'a> {
    server: &'a str,
    system_id: String,
    timeline: u32,
    from: String,
}

#[derive(Serialize)]
struct Durable {
    timeline: u32,
    to: String,
    behind: u64,
    whole: bool,
}

#[derive(Serialize)]
struct Switched {
    timeline: u32,
    next: u32,
    at: String,
}

#[derive(Serialize)]
struct Lost {
    timeline: u32,
    from: String,
    to: String,
}

#[derive(Serialize)]
struct Summary {
    timeline: Option<u32>,
    to: Option<String>,
    received: u64,
    exit: u8,
}

pub(super) async fn run(store: Follow, session: &Session) -> Result<Exit, Failed> {
    match store {
        Follow::Postgres(arguments) => postgres(&arguments, session).await,
        Follow::Redis(arguments) => follow_redis::run(&arguments, session).await,
    }
}

async fn postgres(arguments: &FollowPostgres, session: &Session) -> Result<Exit, Failed> {
    refuse_password(&arguments.conninfo)?;
    let connection = ConnectOptions::parse(&arguments.conninfo)
        .and_then(ConnectOptions::with_environment)
        .map_err(Failed::argument)?;
    let slot = arguments.slot.parse::<SlotName>().map_err(Failed::argument)?;
    let mut options =
        ReceiverOptions::new(connection, slot).with_warn_behind(arguments.warn_behind);
    if arguments.synchronous {
        options = options.with_freshness(Freshness::Synchronous);
    }
    let opened = session.repository().await?;
    let store = StoreRef::new("postgres", &arguments.name);
    let archive = WalArchive::open(&store, |name| -> Arc<dyn JournalLog> {
        Arc::new(opened.repository.journal(name, &JournalOptions::default()))
    })?;
    let names = match archive.systems().await {
        // Only who begins can be at the wrong name.
        Ok(systems) if systems.is_empty() => {
            other_names(&opened.repository, &arguments.name).await?
        }
        _ => BTreeMap::new(),
    };
    let receiver = Receiver::new(archive, options);
    let told = Told::new(session.output.clone());
    let service = Arc::new(WalService::new(session, &opened, &arguments.name)?);
    let (socket, name) = (arguments.socket.as_deref(), &arguments.name);
    let listener = match listener(socket, session, &opened.location, name) {
        Ok(listener) => listener,
        // The calls do without it, and WAL must be received all the same.
        Err(failed) => {
            session.context.warn("wal push and wal get", failed.message());
            None
        }
    };
    let answering = async {
        match &listener {
            Some(listener) => listener.serve(service).await,
            None => std::future::pending().await,
        }
    };
    let once = Once::new();
    let take = |what: &Following| {
        if let Following::Streaming { line, .. } = what {
            let (system, name) = (line.system_id, &arguments.name);
            once.call_once(|| elsewhere::tell(&names, system, name, &session.context));
        }
        told.take(what);
    };
    let outcome = tokio::select! {
        outcome = receiver.run(&take, &session.context) => outcome,
        () = answering => Ok(()),
    };
    outcome.map_err(|error| opened.of_store(error))?;
    let last = *told.last.lock();
    let exit = Exit::Complete;
    session.output.event(
        "summary",
        &Summary {
            timeline: last.map(|(line, _)| line.timeline),
            to: last.map(|(_, to)| to.to_string()),
            received: session.context.progress().read,
            exit: exit.code(),
        },
    );
    session.output.say(&match last {
        Some((line, to)) => format!("stopped; stored up to {to} of timeline {}", line.timeline),
        None => "stopped; nothing was received".to_owned(),
    });
    Ok(exit)
}

/// Tells what a receiver does: programs everything, people now and then.
struct Told {
    output: Output,
    last: Mutex<Option<(WalLine, Lsn)>>,
    said: Mutex<Option<Instant>>,
}

impl Told {
    fn new(output: Output) -> Self {
        Self { output, last: Mutex::new(None), said: Mutex::new(None) }
    }

    fn take(&self, what: &Following) {
        match what {
            Following::Streaming { server, line, from } => {
                let WalLine { system_id, timeline } = *line;
                let (system_id, from) = (system_id.to_string(), from.to_string());
                self.output.say(&format!(
                    "following {server}: system {system_id}, timeline {timeline}, from {from}"
                ));
                *self.said.lock() = None;
                self.output.event("streaming", &Streaming { server, system_id, timeline, from });
            }
            Following::Durable { line, to, server, whole } => {
                *self.last.lock() = Some((*line, *to));
                let behind = server.0.saturating_sub(to.0);
                self.say_durable(*line, *to, behind);
                let (timeline, to) = (line.timeline, to.to_string());
                self.output.event("durable", &Durable { timeline, to, behind, whole: *whole });
            }
            Following::Switched { line, next, at } => {
                let (timeline, next, at) = (line.timeline, *next, at.to_string());
                self.output.say(&format!("timeline {timeline} ended at {at}; {next} follows"));
                self.output.event("switched", &Switched { timeline, next, at });
            }
            // People have had a warning.
            Following::Gap { line, from, to } => {
                let (from, to) = (from.to_string(), to.to_string());
                self.output.event("lost", &Lost { timeline: line.timeline, from, to });
            }
            _ => {}
        }
    }

    fn say_durable(&self, line: WalLine, to: Lsn, behind: u64) {
        let mut said = self.said.lock();
        if said.is_some_and(|said| said.elapsed() < TELL_EVERY) {
            return;
        }
        *said = Some(Instant::now());
        let rest = match behind {
            0 => "which is all there is".to_owned(),
            _ => format!("{} behind the server", size(behind)),
        };
        self.output.say(&format!("stored up to {to} of timeline {}, {rest}", line.timeline));
    }
}
