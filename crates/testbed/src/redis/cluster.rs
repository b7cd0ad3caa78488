//! A Redis cluster of servers on this machine.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Builder, Installation, Server};
use crate::poll;

/// Nodes gossip before they agree.
const PATIENCE: Duration = Duration::from_secs(60);
const SLOTS: usize = 16384;

/// A running cluster: primaries that share the slots evenly, and their replicas. Its servers are
/// killed with the value.
#[derive(Debug)]
pub struct Cluster {
    /// The primaries, by their slots.
    pub primaries: Vec<Server>,
    /// The replicas; of the first primary first.
    pub replicas: Vec<Server>,
}

impl Cluster {
    /// Starts so many primaries, each with so many replicas, and waits until all agree.
    pub fn start(installation: &Installation, primaries: usize, replicas: usize) -> Result<Self> {
        Self::start_with(installation, primaries, replicas, |builder| builder)
    }

    /// As [`Cluster::start`], with other settings.
    pub fn start_with(
        installation: &Installation,
        primaries: usize,
        replicas: usize,
        settings: impl Fn(Builder) -> Builder,
    ) -> Result<Self> {
        let start = || settings(Self::node(installation)).start();
        let cluster = Self {
            primaries: (0..primaries).map(|_| start()).collect::<Result<_>>()?,
            replicas: (0..primaries * replicas).map(|_| start()).collect::<Result<_>>()?,
        };
        for (index, node) in cluster.nodes().enumerate() {
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])?;
        }
        for (index, node) in cluster.primaries.iter().enumerate() {
            let bound = |index: usize| index * SLOTS / primaries;
            let slots: Vec<_> =
                (bound(index)..bound(index + 1)).map(|slot| slot.to_string()).collect();
            let mut words = vec!["CLUSTER", "ADDSLOTS"];
            words.extend(slots.iter().map(String::as_str));
            node.ask(&words)?;
        }
        cluster.meet()?;
        for (index, replica) in cluster.replicas.iter().enumerate() {
            let primary = cluster.primaries[index / replicas].ask(&["CLUSTER", "MYID"])?;
            replica.ask(&["CLUSTER", "REPLICATE", &primary])?;
        }
        cluster.settle()?;
        Ok(cluster)
    }

    /// Takes servers that hold their slots and belong to no cluster yet for one.
    pub fn of(primaries: Vec<Server>) -> Result<Self> {
        let cluster = Self { primaries, replicas: Vec::new() };
        cluster.meet()?;
        cluster.settle()?;
        Ok(cluster)
    }

    /// Describes a server that is to be a node.
    pub fn node(installation: &Installation) -> Builder {
        Server::builder(installation)
            .setting("cluster-enabled", "yes")
            .setting("cluster-node-timeout", "2000")
    }

    /// All its servers.
    pub fn nodes(&self) -> impl Iterator<Item = &Server> {
        self.primaries.iter().chain(&self.replicas)
    }

    /// How a client names it: by its first primary.
    pub fn url(&self) -> String {
        self.primaries[0].url()
    }

    /// One command by `redis-cli`, which goes to where it is sent.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["-c"];
        all.extend(words);
        self.primaries[0].ask(&all)
    }

    /// Makes all nodes know one another.
    fn meet(&self) -> Result<()> {
        for node in self.nodes().skip(1) {
            let port = self.primaries[0].port().to_string();
            node.ask(&["CLUSTER", "MEET", "127.0.0.1", &port])?;
        }
        let count = self.nodes().count();
        self.wait("know one another", |node| {
            let nodes = node.ask(&["CLUSTER", "NODES"]).unwrap_or_default();
            nodes.lines().count() == count && !nodes.contains("handshake")
        })
    }

    /// Waits until all nodes agree, and the replicas have their data.
    pub fn settle(&self) -> Result<()> {
        let shape = |node: &Server| {
            let nodes = node.ask(&["CLUSTER", "NODES"]).unwrap_or_default();
            let mut lines: Vec<String> = nodes
                .lines()
                .filter_map(|line| {
                    let words: Vec<&str> = line.split(' ').collect();
                    let slots = words.get(8..)?.join(" ");
                    Some(format!("{} {} {} {slots}", words[0], words[3], words[6]))
                })
                .collect();
            lines.sort();
            lines
        };
        self.wait("agree", |node| {
            let info = node.ask(&["CLUSTER", "INFO"]).unwrap_or_default();
            info.contains("cluster_state:ok") && shape(node) == shape(&self.primaries[0])
        })?;
        self.wait("have their data", |node| {
            let info = node.ask(&["INFO", "replication"]).unwrap_or_default();
            info.contains("role:master") || info.contains("master_link_status:up")
        })
    }

    fn wait(&self, what: &str, is: impl Fn(&Server) -> bool) -> Result<()> {
        let done = poll::until(PATIENCE, || self.nodes().all(&is).then_some(()));
        done.with_context(|| {
            let logs: Vec<_> = self.nodes().map(Server::log).collect();
            format!("the nodes of the cluster did not {what}:\n{}", logs.join("\n"))
        })?;
        ensure!(!self.primaries.is_empty(), "a cluster without nodes");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_all_slots() {
        let cluster = Cluster::start(super::super::newest().unwrap(), 3, 1).unwrap();
        for key in ["a", "b", "c", "d"] {
            cluster.ask(&["SET", key, key]).unwrap();
        }
        let held = cluster.primaries.iter().map(|node| node.ask(&["DBSIZE"]).unwrap());
        assert_eq!(held.map(|keys| keys.parse::<u32>().unwrap()).sum::<u32>(), 4);
    }
}
