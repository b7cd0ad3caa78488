//! `lifeboat follow redis`: receives the changes of a Redis server, until it is stopped.

use std::sync::Arc;
use std::time::Instant;

use lifeboat_core::{Error, ErrorKind, StoreRef};
use lifeboat_redis::{FollowOptions, Follower, Following, NewServer, facts};
use lifeboat_repository::{Access, SnapshotList, WriteOptions};
use parking_lot::Mutex;
use serde::Serialize;

use super::follow::TELL_EVERY;
use super::moment::{bases, journal};
use super::redis;
use crate::args::FollowRedis;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{Output, size};
use crate::session::Session;

/// The events of a followed server. Places are text: they do not fit into the numbers of every
/// program.
#[derive(Serialize)]
struct Streaming<'a> {
    server: &'a str,
    replication_id: &'a str,
    from: String,
}

#[derive(Serialize)]
struct Base<'a> {
    replication_id: &'a str,
    snapshot: Option<String>,
}

#[derive(Serialize)]
struct Durable<'a> {
    replication_id: &'a str,
    to: String,
    behind: u64,
}

#[derive(Serialize)]
struct Switched<'a> {
    replication_id: &'a str,
    next: &'a str,
    at: String,
}

#[derive(Serialize)]
struct Lost<'a> {
    replication_id: &'a str,
    from: String,
    to: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    replication_id: Option<String>,
    to: Option<String>,
    received: u64,
    exit: u8,
}

pub(super) async fn run(arguments: &FollowRedis, session: &Session) -> Result<Exit, Failed> {
    let connection = redis::connection(&arguments.server)?;
    let opened = session.repository().await?;
    let store = StoreRef::new(lifeboat_redis::KIND, &arguments.name);
    let known = match opened.repository.access() {
        // Who may write and not read takes a snapshot at each start.
        Access::WriteOnly => Vec::new(),
        _ => {
            let list = opened.snapshots(session).await?;
            if !arguments.adopt {
                no_cluster(&list, &store)?;
            }
            bases(&list, &store)
        }
    };
    let sink = Arc::new(opened.repository.sink(&WriteOptions::default()));
    let new_server = if arguments.adopt { NewServer::Adopt } else { NewServer::Refuse };
    let options = FollowOptions::new(connection).with_bases(known).with_new_server(new_server);
    let follower = Follower::new(journal(&opened, &store)?, sink, options);
    let told = Told::new(session.output.clone());
    let take = |what: &Following| told.take(what);
    let following = Box::pin(follower.run(&take, &session.context));
    following.await.map_err(|error| opened.of_store(error))?;
    session.output.finish();
    let last = told.last.lock().take();
    let exit = Exit::Complete;
    session.output.event(
        "summary",
        &Summary {
            replication_id: last.as_ref().map(|(id, _)| id.clone()),
            to: last.as_ref().map(|(_, to)| to.to_string()),
            received: session.context.progress().read,
            exit: exit.code(),
        },
    );
    session.output.say(&match last {
        Some((id, to)) => format!("stopped; stored up to {to} of the history {id}"),
        None => "stopped; no changes were stored".to_owned(),
    });
    Ok(exit)
}

/// An error when the name is that of a cluster: a part of it would be taken for the whole.
fn no_cluster(list: &SnapshotList, store: &StoreRef) -> Result<(), Failed> {
    let of_store = list.snapshots.iter().filter(|info| info.store == *store);
    let newest = of_store.max_by_key(|info| info.taken);
    if newest.is_none_or(|info| info.facts.unsigned(facts::SHARDS).is_none()) {
        return Ok(());
    }
    let message = format!("{store} has snapshots of a cluster, and one server is followed");
    let hint = "follow each shard under a --name of its own; if this server has taken the cluster's \
                place, say --adopt";
    Err(Error::new(ErrorKind::Refused, message).with_hint(hint).into())
}

/// Tells what a follower does: programs everything, people now and then.
struct Told {
    output: Output,
    last: Mutex<Option<(String, u64)>>,
    said: Mutex<Option<Instant>>,
}

impl Told {
    fn new(output: Output) -> Self {
        Self { output, last: Mutex::new(None), said: Mutex::new(None) }
    }

    fn take(&self, what: &Following) {
        let output = &self.output;
        match what {
            Following::Streaming { server, replication_id, from } => {
                let from = from.to_string();
                output.say(&format!("following {server}: history {replication_id}, from {from}"));
                *self.said.lock() = None;
                output.event("streaming", &Streaming { server, replication_id, from });
            }
            Following::Base { replication_id, snapshot } => {
                let name = snapshot.map(|id| id.short()).unwrap_or_default();
                output.say(&format!("snapshot {name} is stored: the journal begins with it"));
                let snapshot = snapshot.map(|id| id.to_string());
                output.event("base", &Base { replication_id, snapshot });
            }
            Following::Durable { replication_id, to, received } => {
                *self.last.lock() = Some((replication_id.clone(), *to));
                let behind = received.saturating_sub(*to);
                self.say_durable(*to, behind);
                output.event("durable", &Durable { replication_id, to: to.to_string(), behind });
            }
            Following::Switched { replication_id, next, at } => {
                let at = at.to_string();
                output.say(&format!("the history goes on as {next} at {at}"));
                output.event("switched", &Switched { replication_id, next, at });
            }
            // People have had a warning.
            Following::Gap { replication_id, from, to } => {
                let (from, to) = (from.to_string(), to.map(|to| to.to_string()));
                output.event("lost", &Lost { replication_id, from, to });
            }
            _ => {}
        }
    }

    fn say_durable(&self, to: u64, behind: u64) {
        let mut said = self.said.lock();
        if said.is_some_and(|said| said.elapsed() < TELL_EVERY) {
            return;
        }
        *said = Some(Instant::now());
        let rest = match behind {
            0 => "which is all that has come".to_owned(),
            _ => format!("{} behind what has come", size(behind)),
        };
        self.output.say(&format!("stored up to {to}, {rest}"));
    }
}
