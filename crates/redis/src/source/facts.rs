//! What a snapshot says of itself: the names of its facts.

use std::collections::BTreeMap;
use std::fmt::Display;

use lifeboat_core::journal::{Need, Position, Timeline};
use lifeboat_core::{Attributes, Timestamp};

use crate::rdb::{Census, Checksum, Outcome};
use crate::stream::STREAM;

/// The version of the server, as the RDB names it. Text.
pub const VERSION: &str = "redis.version";
/// Where the server was reached: host and port, or a socket. Text.
pub const SERVER: &str = "redis.server";
/// Which history of changes the offset belongs to: 40 characters. Text.
pub const REPLICATION_ID: &str = "redis.replication_id";
/// Where in that history the snapshot is, in bytes. Unsigned.
pub const OFFSET: &str = "redis.offset";
/// Which database the stream of changes is in where it goes on behind the snapshot. Unsigned.
pub const STREAM_DATABASE: &str = "redis.stream_database";
/// When the server had said where in its history the snapshot is, by our clock: moments from here
/// on can be restored with what follows. Text.
pub const REACHED: &str = "redis.reached";
/// How many keys it holds. Unsigned.
pub const KEYS: &str = "redis.keys";
/// How many of them expire. Unsigned.
pub const EXPIRING: &str = "redis.expiring";
/// How many keys each database holds, by its number. Pairs of decimal numbers.
pub const DATABASES: &str = "redis.databases";
/// How many keys there are of each type. Pairs of a word and a decimal number.
pub const TYPES: &str = "redis.types";
/// How many bytes of the RDB the keys of each type take. Pairs of a word and a decimal number.
pub const TYPE_BYTES: &str = "redis.type_bytes";
/// How many libraries of functions it holds. Unsigned.
pub const FUNCTIONS: &str = "redis.functions";
/// How many bytes the RDB has. Unsigned.
pub const BYTES: &str = "redis.bytes";
/// `right`, or `absent` when the server was told to write none (`rdbchecksum no`). Text.
pub const CHECKSUM: &str = "redis.checksum";
/// Of a cluster: how many shards it has. Each is an entry of the snapshot. Unsigned.
pub const SHARDS: &str = "redis.shards";
/// Of a cluster: its nodes, each by the first eight digits of its id, in order, with spaces between.
/// Text.
pub const MEMBERS: &str = "redis.cluster.members";
/// Of a cluster: the latest decision about which node serves which slots. Unsigned.
pub const EPOCH: &str = "redis.cluster.epoch";
/// Of a cluster: from which server each shard came (`replica host:port`), by the name of its entry.
/// Pairs.
pub const SERVERS: &str = "redis.cluster.servers";
/// Of a cluster: replicas that could not be used, and why. Pairs.
pub const PASSED_OVER: &str = "redis.cluster.passed_over";
/// Of a cluster: so many milliseconds lie between the moments of the first and the last shard.
/// Unsigned.
pub const SPREAD: &str = "redis.cluster.spread_ms";
/// Why the counts are not complete, if they are not. Text.
pub const NOT_UNDERSTOOD: &str = "redis.not_understood";

/// [`KEY_BY_KEY`] when the snapshot is not of one moment; absent of all others. Text.
pub const CONSISTENCY: &str = "redis.consistency";
/// Its keys were read one after the other.
pub const KEY_BY_KEY: &str = "key by key";
/// When the first key was read, of a snapshot that is not of one moment. Text.
pub const SCAN_BEGAN: &str = "redis.scan.began";
/// When the last one was. Text.
pub const SCAN_ENDED: &str = "redis.scan.ended";
/// How many keys went while it was taken, after their names were known. Unsigned.
pub const VANISHED: &str = "redis.scan.vanished";

/// [`MULTI_PART`] or [`SINGLE`] of a snapshot of append-only files; absent of all others. Text.
pub const FORM: &str = "redis.aof.form";
/// A directory with a manifest.
pub const MULTI_PART: &str = "multi-part";
/// One file.
pub const SINGLE: &str = "single";
/// How many files they were. Unsigned.
pub const FILES: &str = "redis.aof.files";
/// How many keys the RDB at their beginning holds. Unsigned.
pub const BASE_KEYS: &str = "redis.aof.base_keys";
/// How many bytes of commands are behind that. Unsigned.
pub const CHANGES: &str = "redis.aof.changes";

/// Where a snapshot is in the history of its server.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// Where it was reached.
    pub(crate) server: String,
    pub(crate) replication_id: String,
    pub(crate) offset: u64,
    /// When the server had said so.
    pub(crate) reached: Timestamp,
}

pub(super) fn of(origin: &Origin, outcome: &Outcome) -> Attributes {
    let mut facts = counted(outcome)
        .with(SERVER, origin.server.clone())
        .with(REPLICATION_ID, origin.replication_id.clone())
        .with(OFFSET, origin.offset);
    // A server that names none begins with the first.
    let database = outcome.census.aux("repl-stream-db").and_then(|text| text.parse::<u64>().ok());
    facts.set(STREAM_DATABASE, database.unwrap_or(0));
    facts.set(REACHED, origin.reached.to_string());
    if let Ok(timeline) = Timeline::new(&*origin.replication_id) {
        Need { timeline, from: Position(origin.offset) }.record(STREAM, &mut facts);
    }
    facts
}

/// What was counted in an RDB, or in several.
pub(crate) fn counted(outcome: &Outcome) -> Attributes {
    let census = &outcome.census;
    let expiring: u64 = census.databases.values().map(|database| database.expiring).sum();
    let keys = census.databases.iter().map(|(number, database)| (number, database.keys));
    let types: BTreeMap<_, _> =
        census.types.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    let mut facts = Attributes::new()
        .with(KEYS, census.keys())
        .with(EXPIRING, expiring)
        .with(DATABASES, pairs(keys))
        .with(TYPES, pairs(types.iter().map(|(kind, count)| (kind, count.keys))))
        .with(TYPE_BYTES, pairs(types.iter().map(|(kind, count)| (kind, count.bytes))))
        .with(FUNCTIONS, census.functions)
        .with(BYTES, outcome.length)
        .with(
            CHECKSUM,
            match outcome.checksum {
                Checksum::Right => "right",
                Checksum::Absent => "absent",
            },
        );
    if let Some(version) = census.aux("valkey-ver").or_else(|| census.aux("redis-ver")) {
        facts.set(VERSION, version);
    }
    if let Some(why) = &outcome.not_understood {
        facts.set(NOT_UNDERSTOOD, why.to_string());
    }
    facts
}

pub(crate) fn pairs(
    counts: impl Iterator<Item = (impl Display, impl Display)>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    counts
        .map(|(name, count)| (name.to_string().into_bytes(), count.to_string().into_bytes()))
        .collect()
}

/// The moment that the data shows: when the server said that it forks, or when it did by its own
/// clock. The earlier one, because a server may hand out a snapshot that it had already begun for
/// another replica, and nobody must believe that a snapshot holds more than it does.
pub(crate) fn taken(told: Timestamp, census: &Census) -> Timestamp {
    let forked = census.aux("ctime").and_then(|text| text.parse().ok());
    let forked = forked.and_then(|seconds| Timestamp::from_second(seconds).ok());
    forked.map_or(told, |forked| forked.min(told))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::Aux;

    #[test]
    fn a_snapshot_is_never_dated_too_late() {
        let told = Timestamp::from_second(1000).unwrap();
        let forked_at = |seconds: &str| Census {
            aux: vec![Aux { name: b"ctime".to_vec(), value: seconds.into() }],
            ..Census::default()
        };
        assert_eq!(taken(told, &forked_at("900")).as_second(), 900);
        assert_eq!(taken(told, &forked_at("1100")).as_second(), 1000);
        assert_eq!(taken(told, &forked_at("x")).as_second(), 1000);
    }
}
