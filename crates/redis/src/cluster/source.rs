//! A cluster as a source.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use lifeboat_core::{
    Baseline, Context, Failure, Finding, Inspection, Reading, Severity, Source, StoreRef,
};
use tokio::time::sleep;

use super::map::{Node, Shard, SlotMap};
use super::reading::ClusterReading;
use crate::connect::{Answer, ConnectOptions, Connection, Mode};
use crate::error::{Error, Result};
use crate::source::lineage;
use crate::source::{KIND, Origin, RedisSource, snapshot_alone};

const ASKING: &str = "ask the node about its cluster";
/// So often it is tried to read the cluster without a change.
const ATTEMPTS: u32 = 3;
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// What there is of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nodes {
    /// Primaries with slots.
    pub shards: usize,
    /// Their replicas.
    pub replicas: usize,
}

/// Asks a server whether it is a node of a cluster, and what there is of it. `None` when it is not,
/// or does not say.
///
/// # Errors
/// When it cannot be reached; when it may not be asked for the other nodes; when the cluster does
/// not serve all slots.
pub async fn nodes_of(connection: &ConnectOptions) -> Result<Option<Nodes>> {
    let mut server = connection.connect().await?;
    if server.hello().await?.mode != Mode::Cluster {
        return Ok(None);
    }
    let (_, shards) = shards_of(&mut server).await?;
    let replicas = shards.iter().map(|shard| shard.replicas.len()).sum();
    Ok(Some(Nodes { shards: shards.len(), replicas }))
}

/// The cluster that a node belongs to: all shards, in one snapshot.
#[derive(Debug, Clone)]
pub struct RedisClusterSource {
    store: StoreRef,
    connection: ConnectOptions,
}

impl RedisClusterSource {
    /// The cluster of the node behind `connection`, called `name`. The others are reached in the
    /// same way, at the addresses that they announce.
    pub fn new(name: impl Into<String>, connection: ConnectOptions) -> Self {
        Self { store: StoreRef::new(KIND, name), connection }
    }

    /// One attempt. What changed meanwhile is no error.
    async fn begin(&self, from: From, context: &Context) -> Result<Result<ClusterReading, String>> {
        context.phase("ask the nodes of the cluster");
        let mut named = self.connection.connect().await?;
        let (map, shards) = shards_of(&mut named).await?;
        let open = shards.iter().map(|shard| self.reach(&shard.primary));
        let mut primaries = try_join_all(open).await?;
        let before = survey(&mut primaries).await?;
        if let Some(what) = before.iter().find_map(|seen| seen.unsettled(&map)) {
            return Ok(Err(what));
        }
        context.phase("wait for the servers to fork");
        let begun = shards.iter().zip(&before).map(|(shard, seen)| self.fork(shard, seen, from));
        let mut forked = Vec::new();
        for shard in try_join_all(begun).await? {
            match shard {
                Ok(shard) => forked.push(shard),
                Err(what) => return Ok(Err(what)),
            }
        }
        let after = survey(&mut primaries).await?;
        if let Some(what) = after.iter().find_map(|seen| seen.unsettled(&map)) {
            return Ok(Err(what));
        }
        let text = after.into_iter().next().map(|seen| seen.text).unwrap_or_default();
        Ok(Ok(ClusterReading::new(text, &map, forked, context)))
    }

    async fn reach(&self, node: &Node) -> Result<Connection> {
        self.connection.at(&node.host, node.port).connect().await
    }

    /// Has one server of a shard fork: a replica if one can, the primary otherwise.
    async fn fork(&self, shard: &Shard, seen: &Seen, from: From) -> Result<Result<Forked, String>> {
        let entry = super::shard_entry(shard.first());
        let mut passed_over = Vec::new();
        for node in shard.replicas.iter().filter(|_| from == From::Replicas) {
            match self.fork_replica(node, seen).await {
                Ok((connection, origin)) => {
                    let server = format!("replica {}", node.address());
                    let passed_over = std::mem::take(&mut passed_over);
                    return Ok(Ok(Forked { entry, connection, origin, server, passed_over }));
                }
                Err(why) => {
                    tracing::info!(replica = node.address(), why, "passed over");
                    passed_over.push((node.address(), why));
                }
            }
        }
        let mut connection = self.reach(&shard.primary).await?;
        let origin = snapshot_alone(&mut connection).await?;
        if origin.offset < seen.offset {
            let at = shard.primary.address();
            return Ok(Err(format!("{at} handed out a snapshot that it had begun before")));
        }
        let server = format!("primary {}", shard.primary.address());
        Ok(Ok(Forked { entry, connection, origin, server, passed_over }))
    }

    /// The error says why it cannot be used.
    async fn fork_replica(&self, node: &Node, seen: &Seen) -> Result<(Connection, Origin), String> {
        if node.broken {
            return Err("the cluster takes it for down".to_owned());
        }
        let said = |error: Error| lifeboat_core::Error::from(error).one_line();
        let mut connection = self.reach(node).await.map_err(said)?;
        let info = replication(&mut connection).await.map_err(said)?;
        if info.text("role") != Some("slave") {
            return Err("it is no replica any more".to_owned());
        }
        if info.text("master_link_status") != Some("up") {
            return Err("it has no connection to its primary".to_owned());
        }
        let origin = snapshot_alone(&mut connection).await.map_err(said)?;
        if origin.replication_id != seen.replication_id {
            return Err("it is in another history than its primary".to_owned());
        }
        match seen.offset.saturating_sub(origin.offset) {
            0 => Ok((connection, origin)),
            behind => Err(format!("it was {behind} bytes behind its primary")),
        }
    }
}

/// From where shards are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Replicas,
    Primaries,
}

/// A shard whose server has forked.
pub(super) struct Forked {
    pub(super) entry: String,
    pub(super) connection: Connection,
    pub(super) origin: Origin,
    /// Which server, for people.
    pub(super) server: String,
    /// Replicas that could not be used, and why.
    pub(super) passed_over: Vec<(String, String)>,
}

/// What one primary knows, and where in its history it is.
struct Seen {
    target: String,
    text: Vec<u8>,
    map: SlotMap,
    replication_id: String,
    offset: u64,
}

impl Seen {
    /// Why the cluster cannot be read as it is now, if so.
    fn unsettled(&self, first: &SlotMap) -> Option<String> {
        let target = &self.target;
        if let Some(slot) = self.map.asked().and_then(|node| node.moving.first()) {
            return Some(format!("slot {slot} is on its way to or from {target}"));
        }
        if self.map.asked().is_none_or(|node| node.replica_of.is_some()) {
            return Some(format!("{target} is no primary any more"));
        }
        if self.map.shape() != first.shape() {
            return Some(format!("{target} knows of another distribution of the slots"));
        }
        let down = self.map.nodes.iter().find(|node| node.broken && !node.slots.is_empty())?;
        Some(format!("{target} takes {}, which serves slots, for down", down.address()))
    }
}

/// Asks all of them at once.
async fn survey(primaries: &mut [Connection]) -> Result<Vec<Seen>> {
    let asked = primaries.iter_mut().map(|primary| async {
        let (text, map) = map_of(primary).await?;
        let info = replication(primary).await?;
        Ok(Seen {
            target: primary.target().to_owned(),
            text,
            map,
            replication_id: info.text("master_replid").unwrap_or_default().to_owned(),
            offset: info.number("master_repl_offset").unwrap_or(0),
        })
    });
    join_all(asked).await.into_iter().collect()
}

async fn replication(connection: &mut Connection) -> Result<crate::source::Info> {
    match connection.demand(ASKING, &[b"INFO", b"replication"]).await? {
        Answer::Text(text) => Ok(crate::source::Info::parse(&text)),
        other => Err(connection.nonsense(ASKING, format!("{other:?}"))),
    }
}

/// What a node knows of its cluster: as it says it, and read.
pub(crate) async fn map_of(connection: &mut Connection) -> Result<(Vec<u8>, SlotMap)> {
    let text = match connection.demand(ASKING, &[b"CLUSTER", b"NODES"]).await? {
        Answer::Text(text) => text,
        other => return Err(connection.nonsense(ASKING, format!("{other:?}"))),
    };
    let target = connection.target().to_owned();
    let mut map = SlotMap::parse(&text).map_err(|what| Error::NoCluster { target, what })?;
    // A node that nobody has met does not know its own address: it is the one that was used.
    for node in map.nodes.iter_mut().filter(|node| node.host.is_empty()) {
        if let Some((_, server)) = connection.ends() {
            node.host = server.ip().to_string();
        }
    }
    Ok((text, map))
}

/// The map of a node, and the shards in it.
pub(crate) async fn shards_of(connection: &mut Connection) -> Result<(SlotMap, Vec<Shard>)> {
    let (_, map) = map_of(connection).await?;
    let target = connection.target().to_owned();
    let shards = map.shards().map_err(|what| Error::NoCluster { target, what })?;
    Ok((map, shards))
}

#[async_trait]
impl Source for RedisClusterSource {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    /// Of the node that was named, and whether the cluster can be read.
    async fn inspect(&self) -> lifeboat_core::Result<Inspection> {
        let node = RedisSource::new(self.store.name(), self.connection.clone());
        let mut inspection = node.inspect().await?;
        if let Err(error) = nodes_of(&self.connection).await {
            let remedy = error.hint().unwrap_or_default();
            let finding = Finding::new(Severity::Blocker, "cluster", error.to_string(), remedy);
            inspection.findings.insert(0, finding);
        }
        Ok(inspection)
    }

    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Reading>> {
        let mut changed = String::new();
        for attempt in 1..=ATTEMPTS {
            // A replica that is always behind must not be the reason.
            let from = if attempt < ATTEMPTS { From::Replicas } else { From::Primaries };
            match self.begin(from, context).await? {
                Ok(reading) => {
                    if let Some(since) = since.as_deref() {
                        let here = self.connection.target();
                        lineage::tell_of_another_cluster(since, reading.members(), &here, context);
                    }
                    return Ok(Box::new(reading));
                }
                Err(what) => changed = what,
            }
            tracing::info!(attempt, changed, "the cluster changed while it was read");
            if attempt < ATTEMPTS {
                sleep(PAUSE).await;
            }
        }
        Err(Error::Moving { target: self.connection.target(), what: changed }.into())
    }
}
