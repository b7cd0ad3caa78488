//! A cluster as one store.
//!
//! # How a snapshot is taken
//!
//! 1. The node that was named tells the others (`CLUSTER NODES`). Each primary that serves slots is
//!    asked what *it* knows, whether slots are on their way to or from it, and where in its history
//!    it is (`INFO`). They must agree, nothing may be on its way, and every slot must be served.
//! 2. All shards are asked for their data at once, as in a [snapshot](crate::source) of one server:
//!    a replica that is up, has a connection to its primary, and forked at or behind the place
//!    where the primary was in step 1; where there is none, the primary. A server that hands out a
//!    snapshot which it had begun before, for another replica, is found out by the same rule.
//! 3. When all have forked, the primaries are asked again. Only when nothing has changed, not even
//!    the epoch of a decision, every key was in exactly one of the snapshots, or in none. Otherwise
//!    all of it is dropped and done again, three times in all.
//! 4. The data of all shards is received side by side, each checked as it passes. A shard that fails
//!    fails the snapshot.
//!
//! The shards are not of one moment: nothing in a cluster could make them so. The snapshot says
//! how far apart they are ([`facts::SPREAD`]), by when each server had said that it forks.
//!
//! A transfer has to read all shards at once, or servers wait, and give up after `repl-timeout`:
//! its [`concurrency`](lifeboat_core::TransferOptions::concurrency) must be one more than there are
//! [`Nodes::shards`].
//!
//! # What a snapshot holds
//!
//! `cluster.nodes`, what the first primary said to `CLUSTER NODES`, word for word; and for each shard
//! `shard-00000.rdb`, named by the first of its slots. Whoever reads the map again does so with
//! the same bounds as when it came from a server.

mod map;
mod reading;
mod shard;
mod slot;
mod source;

use std::collections::BTreeSet;

use lifeboat_core::{Entry, EntryPath, Extent};

pub(crate) use self::map::{Shard, SlotMap};
pub use self::shard::ShardSource;
pub(crate) use self::slot::{SLOTS, slot_of};
pub(crate) use self::source::shards_of;
pub use self::source::{Nodes, RedisClusterSource, nodes_of};
use crate::error::Error;
#[cfg(doc)]
use crate::facts;

/// The entry with the map.
pub(crate) const MAP: &str = "cluster.nodes";
/// The largest map that is read.
pub(crate) const LARGEST_MAP: usize = 8 << 20;

/// The entry of the shard whose first slot this is.
pub(crate) fn shard_entry(first: u16) -> String {
    format!("shard-{first:05}.rdb")
}

/// Whether an entry is that of a shard; then its first slot.
pub(crate) fn shard_of(path: &EntryPath) -> Option<u16> {
    let name = std::str::from_utf8(path.as_bytes()).ok()?;
    let digits = name.strip_prefix("shard-")?.strip_suffix(".rdb")?;
    let first = digits.parse().ok().filter(|slot| *slot < SLOTS)?;
    (shard_entry(first) == name).then_some(first)
}

/// What of a snapshot's cluster has come by: its map, and the shards that it names.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    map: Option<SlotMap>,
    come: BTreeSet<u16>,
}

impl Parts {
    /// Reads the map. `target` is where the snapshot goes, for people. Gives the bytes that it has.
    pub(crate) async fn take_map(
        &mut self,
        target: &str,
        mut entry: Entry,
    ) -> lifeboat_core::Result<Vec<u8>> {
        let bad = |what: &str| Error::BadMap { target: target.to_owned(), what: what.to_owned() };
        let mut text = Vec::new();
        while let Some(extent) = entry.content.next().await? {
            let Extent::Data(bytes) = extent else {
                return Err(bad("it lacks its bytes").into());
            };
            if text.len() + bytes.len() > LARGEST_MAP {
                return Err(bad("it is larger than any cluster's").into());
            }
            text.extend_from_slice(&bytes);
        }
        let map = SlotMap::parse(&text).map_err(|what| bad(&what))?;
        map.shards().map_err(|what| bad(&what))?;
        self.map = Some(map);
        Ok(text)
    }

    /// A shard that comes; `None` when the map does not name it, or it came before.
    pub(crate) fn take_shard(&mut self, first: u16) -> Option<Shard> {
        let shards = self.map.as_ref()?.shards().ok()?;
        let shard = shards.into_iter().find(|shard| shard.first() == first)?;
        self.come.insert(first).then_some(shard)
    }

    /// Whether it is no snapshot of a cluster.
    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_none()
    }

    /// The entry of a shard that the map names and that has not come.
    pub(crate) fn missing(&self) -> Option<String> {
        let shards = self.map.as_ref()?.shards().ok()?;
        let missing = shards.iter().map(Shard::first).find(|first| !self.come.contains(first))?;
        Some(shard_entry(missing))
    }
}
