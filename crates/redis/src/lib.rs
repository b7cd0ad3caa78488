//! Redis and Valkey as a store of Lifeboat: a snapshot over the wire, as a replica gets it, and every
//! change behind it; back as the files that a server starts from, or key by key into one that runs.
//!
//! | what | where |
//! |---|---|
//! | how a server is reached: address, user, password, TLS | [`ConnectOptions`] |
//! | a server to back up, and what stands in the way | [`RedisSource`], [`Way`] |
//! | the append-only files of a server, on this host | [`AppendOnlySource`] |
//! | an RDB file to restore to, with all keys or some | [`RdbFileSink`], [`RestoreOptions`], [`AppendOnly`], [`KeySelection`] |
//! | the keys of a snapshot, listed | [`KeyListing`] |
//! | directories of a cluster's shards to restore to | [`ShardsSink`] |
//! | a running server, or a cluster, to restore into | [`LiveSink`], [`LiveOptions`], [`KeyPattern`], [`LiveError`] |
//! | a running server that is replaced by a snapshot, or by a moment | [`MasterSink`], [`MasterOptions`], [`MasterError`] |
//! | every change, about a second behind the server | [`Follower`], [`FollowOptions`], [`StreamJournal`], [`FollowError`] |
//! | any moment back | [`RecoveryPlan`], [`RecoverySource`], [`AppendOnlySink`], [`Windows`], [`RecoveryError`] |
//! | a snapshot on a server of its own, examined | [`Scratch`], [`ScratchServer`], [`fn@examine`], [`Examination`], [`ScratchError`] |
//! | the format itself, read as a stream | [`rdb`] |
//! | what a snapshot says of itself | [`facts`] |
//! | what can go wrong | [`enum@Error`], [`rdb::RdbError`] |
//!
//! Redis 6 to 8 and Valkey, a primary, a replica, a service of Sentinels, or a cluster.
//! Backup and restore are a [`Source`] and a [`Sink`], moved by [`transfer()`]; this crate knows no
//! repository.
//!
//! # Example
//!
//! ```no_run
//! use lifeboat_core::{Context, Sink, Source, TransferOptions, transfer};
//! use lifeboat_redis::{ConnectOptions, RdbFileSink, RedisSource, RestoreOptions, facts};
//!
//! # async fn example(repository: &dyn Sink, snapshot: &dyn Source) -> lifeboat_core::Result<()> {
//! // Back up. The password comes from REDISCLI_AUTH.
//! let connection = ConnectOptions::parse("redis://backup@cache:6379")?.with_environment()?;
//! let server = RedisSource::new("cache", connection);
//! for finding in server.inspect().await?.blockers() {
//!     eprintln!("{}: {}", finding.what, finding.remedy);
//! }
//! let (options, context) = (TransferOptions::default(), Context::silent());
//! let summary = transfer(&server, repository, &options, &context).await?;
//! println!("{} keys", summary.completion.facts.unsigned(facts::KEYS).unwrap_or(0));
//!
//! // Restore, for a server that is stopped. A snapshot is any source.
//! let file = RdbFileSink::new(RestoreOptions::new("/var/lib/redis/dump.rdb"));
//! let summary = transfer(snapshot, &file, &options, &context).await?;
//! println!("next: {}", summary.receipt.facts.text("redis.next").unwrap_or_default());
//! # Ok(()) }
//! ```
//!
//! # What a snapshot looks like
//!
//! One entry, `dump.rdb`: the dataset of all databases as the server wrote it, byte for byte, with
//! functions, expiry times and what modules keep. Of a server that refuses replication it is made of
//! what that answers key by key, and not of one moment ([`facts::CONSISTENCY`]). How many keys there
//! are, by database and by type, is in the [`facts`]; where each key lies in the entry,
//! [`rdb::RdbReader`] says of any RDB, also of one that is read from a snapshot.
//!
//! It is cut by content into pieces of some 16 KiB ([`Layout::Records`]), so that what is stored for
//! a changed key is the piece that it lies in. A server writes its keys in the order of its hash
//! tables: that stays while keys are changed in place, and is another after the server was started
//! anew, or when the tables have grown. Measured with 300,000 keys of 96 bytes in an RDB of 33 MB, of
//! which a first snapshot stored 16.7 MB: 0.04 MB when nothing changed, 3.6 MB when 300 keys changed
//! that were spread over the tables, 14.3 MB for 3,000, and all of it after a restart. Smaller pieces
//! would save more of the second and cost more of the first: each takes some 230 bytes of its own in
//! the repository, which is 1.1 % here, and 4.6 % of a dataset that compresses to a quarter.
//!
//! Of a cluster there is one such entry for each shard, `shard-00000.rdb`, named by its first slot, and
//! `cluster.nodes` with the map of the slots, in the words of the server.
//!
//! Not part of a snapshot, because no server hands it out that way: users of access control lists,
//! the configuration, and the modules themselves.
//!
//! [`Layout::Records`]: lifeboat_core::Layout::Records
//! [`Source`]: lifeboat_core::Source
//! [`Sink`]: lifeboat_core::Sink
//! [`transfer()`]: lifeboat_core::transfer()

mod aof;
mod bulk;
mod checker;
mod cluster;
mod connect;
mod error;
mod fed;
mod follow;
mod listing;
mod live;
mod master;
pub mod rdb;
mod recover;
mod scratch;
mod selection;
mod sink;
mod source;
mod stream;

pub use self::aof::AppendOnlySource;
pub use self::cluster::{Nodes, RedisClusterSource, ShardSource, nodes_of};
pub use self::connect::ConnectOptions;
pub use self::error::{Error, Result};
pub use self::follow::{FollowError, FollowOptions, Follower, Following, NewServer, Watch};
pub use self::listing::KeyListing;
pub use self::live::{Doing, Existing, KeyPattern, LiveCounts, LiveError, LiveOptions, LiveSink};
pub use self::master::{Holding, MasterError, MasterOptions, MasterSink};
pub use self::recover::{
    BaseSnapshot, Moment, RecoveryError, RecoveryPlan, RecoverySource, StreamJournal, Window,
    Windows,
};
pub use self::scratch::{
    Examination, ExamineOptions, Problem, Sample, Scratch, ScratchError, ScratchOptions,
    ScratchServer, SourceComparison, examine,
};
pub use self::selection::KeySelection;
pub use self::sink::{
    AppendOnly, AppendOnlyForm, AppendOnlyOptions, AppendOnlySink, RdbFileSink, RestoreOptions,
    ShardsSink,
};
pub use self::source::{KIND, RedisSource, Way, facts};
