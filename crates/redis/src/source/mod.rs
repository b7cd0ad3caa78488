//! A server as a source.
//!
//! # How a snapshot is taken
//!
//! 1. A connection is opened as a replica opens one: `REPLCONF rdb-only 1`, so that the server
//!    (from 7.0 on) keeps no stream of changes for us and does not count us among those that it
//!    could be replaced by; `REPLCONF capa eof capa psync2`; `PSYNC ? -1`, which asks for
//!    everything. Continuing where an earlier replication was is neither asked for nor accepted.
//!    No port is named, so that a Sentinel does not take us for a replica that it could promote.
//! 2. The server forks and says `+FULLRESYNC`, a replication id and an offset: what follows is its
//!    data at that moment. While it prepares, empty lines keep the connection alive.
//! 3. Then comes the RDB: with its length before it when the server made a file first, or, straight
//!    from its memory, with a mark of 40 random characters before and after it. The mark is looked
//!    for at the end of all that has come, however it was cut on its way.
//! 4. Each buffer goes to the sink and to a thread that reads the RDB ([`rdb`](crate::rdb)). The
//!    content ends only when that thread has said that it is whole; otherwise it fails, and with it
//!    the snapshot.
//! 5. Nothing is acknowledged, and the connection is closed. That is all the server notices.
//!
//! Where the server refuses that, it is read key by key (`scan`), unless that was forbidden.

mod doctor;
pub mod facts;
mod handshake;
pub(crate) mod lineage;
mod payload;
mod reading;
mod scan;

use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{Baseline, Context, Inspection, Reading, Source, StoreRef};

pub(crate) use self::doctor::Info;
pub(crate) use self::facts::Origin;
pub(crate) use self::handshake::{Started, Synchronized, receive, snapshot_alone, synchronize};
pub(crate) use self::lineage::Former;
pub(crate) use self::reading::{Snapshot, content};
use crate::connect::ConnectOptions;
use crate::error::Error;

/// The kind of store.
pub const KIND: &str = "redis";

/// The one entry of a snapshot.
pub(crate) const DUMP: &str = "dump.rdb";

/// How a server is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// As a replica does it; key by key, with a warning, where the server refuses that.
    #[default]
    Either,
    /// As a replica does it: as of one moment.
    Replication,
    /// Key by key, which is not of one moment.
    Scan,
}

/// A running server, primary or replica.
#[derive(Debug, Clone)]
pub struct RedisSource {
    store: StoreRef,
    connection: ConnectOptions,
    way: Way,
}

impl RedisSource {
    /// The server behind `connection`, called `name`. Of a service that Sentinels watch it is a replica,
    /// where one is fit.
    pub fn new(name: impl Into<String>, connection: ConnectOptions) -> Self {
        let connection = connection.preferring_replicas();
        let (store, way) = (StoreRef::new(KIND, name), Way::default());
        Self { store, connection, way }
    }
}

impl RedisSource {
    /// Sets how it is read.
    #[must_use]
    pub fn with_way(mut self, way: Way) -> Self {
        self.way = way;
        self
    }
}

/// Whether a server does not let itself be replicated, but may let itself be read.
fn is_refusal(error: &Error) -> bool {
    match error {
        Error::MayNot { .. } | Error::NotOffered { .. } => true,
        // Each service has words of its own.
        Error::Answered { answer, .. } => {
            let words = ["not allowed", "not supported", "blocked", "disabled", "permission"];
            words.iter().any(|word| answer.to_ascii_lowercase().contains(word))
        }
        _ => false,
    }
}

#[async_trait]
impl Source for RedisSource {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    async fn inspect(&self) -> lifeboat_core::Result<Inspection> {
        Ok(doctor::inspect(&self.connection).await?)
    }

    /// Everything comes over the wire each time, and what did not change is found again by its
    /// content. The baseline only says whose the last snapshot was.
    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Reading>> {
        let connection = self.connection.connect().await?;
        let since = since.as_deref();
        if self.way == Way::Scan {
            since.map(|since| lineage::tell_of_cluster(since, &self.connection.target(), context));
            context.note(DUMP, "keys are read one by one: the snapshot is not of one moment");
            return Ok(Box::new(scan::ScanReading::new(connection, context)));
        }
        let started = match handshake::start(connection, context).await {
            Ok(started) => started,
            Err(refusal) if self.way == Way::Either && is_refusal(&refusal) => {
                let mut asking = self.connection.connect().await?;
                if let Some(error) = scan::may(&mut asking).await? {
                    tracing::debug!(%error, "nor can its keys be read one by one");
                    return Err(refusal.into());
                }
                let message = format!(
                    "the server refuses replication, so its keys are read one by one: the snapshot \
                     is NOT of one moment ({refusal})"
                );
                context.warn(DUMP, message);
                since.map(|since| {
                    lineage::tell_of_cluster(since, &self.connection.target(), context)
                });
                let connection = self.connection.connect().await?;
                return Ok(Box::new(scan::ScanReading::new(connection, context)));
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(since) = since {
            let id = &started.origin.replication_id;
            lineage::tell_of_another(since, id, &self.connection, context).await;
        }
        Ok(Box::new(reading::Snapshot::new(started, context)))
    }
}
