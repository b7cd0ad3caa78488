//! Which server of the target a key goes to.
//!
//! A server alone has one connection. Of a cluster, each primary that serves slots has one, and keys
//! go by their slot, as the node knows it that was named. When a slot has moved since, the node that
//! had it says where it is now (`MOVED`), and the others follow there; while a slot is on its way,
//! single keys go to where they will be (`ASK`), after `ASKING`.

use super::LiveOptions;
use super::pipeline::Pipeline;
use crate::cluster::{SLOTS, shards_of, slot_of};
use crate::connect::{ConnectOptions, Connection, Mode};
use crate::error::{Error, Result};

/// No cluster makes us connect to more servers than this.
const MOST_SERVERS: usize = 4096;
/// So many bytes at least are sent ahead to each.
const LEAST_AHEAD: usize = 64 << 10;

pub(super) struct Router {
    servers: Vec<Server>,
    /// Of a cluster: the server of each slot.
    slots: Option<Vec<u16>>,
    connection: ConnectOptions,
    ahead: usize,
}

struct Server {
    host: String,
    port: u16,
    pipeline: Pipeline,
}

/// Where a cluster wants a key to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Detour {
    /// The slot is there now.
    Moved { slot: u16, host: String, port: u16 },
    /// The key goes there; the slot may follow.
    Ask { host: String, port: u16 },
    /// To the same server, later.
    Later,
}

impl Router {
    /// Connects to the server; of a cluster, to all primaries.
    pub(super) async fn open(options: &LiveOptions) -> Result<Self> {
        let mut named = options.connection.connect().await?;
        let mut router = Self {
            servers: Vec::new(),
            slots: None,
            connection: options.connection.clone(),
            ahead: options.ahead,
        };
        if named.hello().await?.mode != Mode::Cluster {
            router.add(String::new(), 0, named);
            return Ok(router);
        }
        let (_, shards) = shards_of(&mut named).await?;
        router.ahead = (options.ahead / shards.len().max(1)).max(LEAST_AHEAD.min(options.ahead));
        let mut slots = vec![0; usize::from(SLOTS)];
        for shard in shards {
            let index = router.reach(&shard.primary.host, shard.primary.port).await?;
            for (first, last) in shard.primary.slots {
                slots[usize::from(first)..=usize::from(last)].fill(index);
            }
        }
        router.slots = Some(slots);
        Ok(router)
    }

    fn add(&mut self, host: String, port: u16, connection: Connection) {
        let pipeline = Pipeline::new(connection, self.ahead);
        self.servers.push(Server { host, port, pipeline });
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.slots.is_some()
    }

    /// How many servers there are. The first is always there.
    pub(super) fn len(&self) -> usize {
        self.servers.len()
    }

    pub(super) fn pipeline(&mut self, index: usize) -> &mut Pipeline {
        &mut self.servers[index].pipeline
    }

    /// The server of a key.
    pub(super) fn server_of(&self, name: &[u8]) -> usize {
        let slots = self.slots.as_ref();
        slots.map_or(0, |slots| usize::from(slots[usize::from(slot_of(name))]))
    }

    /// A name that no key has, and that would be this server's; `None` when it has no slots.
    pub(super) fn probe(&self, index: usize, name: &str) -> Option<String> {
        if let Some(slots) = &self.slots
            && !slots.iter().any(|server| usize::from(*server) == index)
        {
            return None;
        }
        let mut names = (0u64..).map(|number| format!("{name}:{number}"));
        names.find(|name| self.server_of(name.as_bytes()) == index)
    }

    /// The server where a slot is now.
    pub(super) async fn moved(&mut self, slot: u16, host: &str, port: u16) -> Result<usize> {
        let index = self.reach(host, port).await?;
        if let Some(server) = self.slots.as_mut().and_then(|it| it.get_mut(usize::from(slot))) {
            *server = index;
        }
        Ok(usize::from(index))
    }

    /// The server at an address, connected to when it was not yet.
    pub(super) async fn reach(&mut self, host: &str, port: u16) -> Result<u16> {
        let known = self.servers.iter().position(|it| it.host == host && it.port == port);
        let index = known.unwrap_or(self.servers.len());
        let number = u16::try_from(index).ok().filter(|_| index < MOST_SERVERS);
        let Some(number) = number else {
            let (target, what) = (self.connection.target(), "too many servers".to_owned());
            return Err(Error::NoCluster { target, what });
        };
        if known.is_none() {
            let connection = self.connection.at(host, port).connect().await?;
            self.add(host.to_owned(), port, connection);
        }
        Ok(number)
    }

    /// What an error of a server of a cluster means for the key that it is about; `None` when it is
    /// no detour.
    pub(super) fn detour(&self, from: usize, answer: &str) -> Option<Detour> {
        self.slots.as_ref()?;
        let mut detour = detour(answer)?;
        // Without a host it is the one that answered.
        if let Detour::Moved { host, .. } | Detour::Ask { host, .. } = &mut detour
            && host.is_empty()
        {
            host.clone_from(&self.servers[from].host);
        }
        Some(detour)
    }
}

/// `MOVED slot host:port`, `ASK slot host:port`, `TRYAGAIN …`, `CLUSTERDOWN …`
fn detour(answer: &str) -> Option<Detour> {
    let mut words = answer.split(' ');
    let word = words.next()?;
    if matches!(word, "TRYAGAIN" | "CLUSTERDOWN") {
        return Some(Detour::Later);
    }
    if !matches!(word, "MOVED" | "ASK") {
        return None;
    }
    let slot = words.next()?.parse().ok().filter(|slot| *slot < SLOTS)?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    let (host, port) = (host.to_owned(), port.parse().ok()?);
    Some(match word {
        "MOVED" => Detour::Moved { slot, host, port },
        _ => Detour::Ask { host, port },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the cluster specification writes them.
    #[test]
    fn detours_are_read() {
        let host = || "127.0.0.1".to_owned();
        let moved = Detour::Moved { slot: 3999, host: host(), port: 6381 };
        assert_eq!(detour("MOVED 3999 127.0.0.1:6381"), Some(moved));
        let ask = Detour::Ask { host: "::1".into(), port: 6381 };
        assert_eq!(detour("ASK 3999 ::1:6381"), Some(ask));
        assert_eq!(detour("TRYAGAIN Multiple keys request"), Some(Detour::Later));
        assert_eq!(detour("CLUSTERDOWN The cluster is down"), Some(Detour::Later));
        for other in ["OOM x", "MOVED", "MOVED 16384 a:1", "MOVED 1 a", "ASKING 1 a:1", ""] {
            assert_eq!(detour(other), None, "{other}");
        }
    }
}
