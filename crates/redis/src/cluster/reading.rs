//! One snapshot of a cluster on its way.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use lifeboat_core::{
    Attributes, Completion, Context, Entry, EntryKind, EntryPath, Layout, Reading,
};
use parking_lot::Mutex;

use super::MAP;
use super::SlotMap;
use super::source::Forked;
use crate::error::Error;
use crate::rdb::{Checksum, Outcome};
use crate::source::{Origin, content, facts, receive};

/// All shards have forked, and their data is still to come.
pub(super) struct ClusterReading {
    /// Until it is given away.
    map: Option<Vec<u8>>,
    epoch: u64,
    members: String,
    forked: VecDeque<Forked>,
    given: Vec<Given>,
    context: Context,
}

/// A shard whose content was given away.
struct Given {
    entry: String,
    server: String,
    passed_over: Vec<(String, String)>,
    origin: Origin,
    outcome: Arc<Mutex<Option<Outcome>>>,
}

impl ClusterReading {
    /// `text` is the map as a node says it.
    pub(super) fn new(
        text: Vec<u8>,
        map: &SlotMap,
        forked: Vec<Forked>,
        context: &Context,
    ) -> Self {
        context.phase("receive the data of all shards");
        Self {
            map: Some(text),
            epoch: map.epoch(),
            members: map.members(),
            forked: forked.into(),
            given: Vec::new(),
            context: context.clone(),
        }
    }

    /// The nodes of the cluster.
    pub(super) fn members(&self) -> &str {
        &self.members
    }
}

#[async_trait]
impl Reading for ClusterReading {
    async fn next(&mut self) -> lifeboat_core::Result<Option<Entry>> {
        if let Some(map) = self.map.take() {
            self.context.count_read(map.len() as u64);
            return Ok(Some(Entry::file(EntryPath::new(MAP)?, Attributes::new(), map)));
        }
        let Some(shard) = self.forked.pop_front() else {
            return Ok(None);
        };
        let Forked { entry: name, connection, origin, server, passed_over } = shard;
        let outcome = Arc::<Mutex<Option<Outcome>>>::default();
        let started = receive(connection, origin.clone()).boxed();
        let content = content(started, None, Arc::clone(&outcome), &self.context);
        let attributes = Attributes::new().with("redis.server", server.clone());
        let entry = Entry::new(EntryPath::new(&*name)?, EntryKind::File, attributes);
        self.given.push(Given { entry: name, server, passed_over, origin, outcome });
        let entry = entry.with_layout(Layout::Records);
        Ok(Some(entry.with_content(0, content)))
    }

    async fn finish(self: Box<Self>) -> lifeboat_core::Result<Completion> {
        let mut total: Option<Outcome> = None;
        let mut moments = Vec::new();
        for shard in &self.given {
            let outcome = shard.outcome.lock().take().ok_or(Error::Unfinished)?;
            if let Some(why) = &outcome.not_understood {
                let message = format!(
                    "it is stored as the server sent it and its checksum is right, but what it \
                     holds is not fully known: {why}; use a newer version of this program to list it"
                );
                self.context.warn(&shard.entry, message);
            }
            moments.push(facts::taken(shard.origin.reached, &outcome.census));
            match &mut total {
                Some(total) => add(total, outcome),
                None => total = Some(outcome),
            }
        }
        let total = total.filter(|_| self.forked.is_empty()).ok_or(Error::Unfinished)?;
        let taken = moments.into_iter().min().ok_or(Error::Unfinished)?;
        let forked = || self.given.iter().map(|shard| shard.origin.reached.as_millisecond());
        let spread = forked().max().unwrap_or(0) - forked().min().unwrap_or(0);
        let mut completion = Completion::at(taken);
        completion.position = format!("epoch {}", self.epoch);
        let servers = self.given.iter().map(|shard| (&shard.entry, shard.server.clone()));
        completion.facts = facts::counted(&total)
            .with(facts::SHARDS, self.given.len() as u64)
            .with(facts::EPOCH, self.epoch)
            .with(facts::MEMBERS, self.members)
            .with(facts::SPREAD, spread.unsigned_abs())
            .with(facts::SERVERS, facts::pairs(servers));
        let passed_over: Vec<_> = self.given.iter().flat_map(|shard| &shard.passed_over).collect();
        if !passed_over.is_empty() {
            let pairs = passed_over.into_iter().map(|(server, why)| (server, why.clone()));
            completion.facts.set(facts::PASSED_OVER, facts::pairs(pairs));
        }
        Ok(completion)
    }
}

/// Adds what another shard holds.
fn add(total: &mut Outcome, other: Outcome) {
    total.census.merge(&other.census);
    total.length += other.length;
    if other.checksum == Checksum::Absent {
        total.checksum = Checksum::Absent;
    }
    total.not_understood = total.not_understood.take().or(other.not_understood);
}
