//! How far replicas are behind.

use std::time::Duration;

use crate::connect::{ConnectOptions, Session, parsed};
use crate::error::{Error, Result};
use crate::lsn::Lsn;

const WHAT: &str = "ask the server about its replicas";

/// Whether a server leads or follows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It takes writes.
    Primary {
        /// Where its WAL ends.
        current: Lsn,
    },
    /// It replays another one's WAL.
    Standby {
        /// What it has received and flushed; `None` when it has its WAL from an archive only.
        received: Option<Lsn>,
        /// What it has replayed.
        replayed: Lsn,
        /// How old the last transaction is that it has replayed: its lag, while the primary is busy.
        age: Option<Duration>,
        /// Whether it receives WAL from a primary now.
        streaming: bool,
    },
}

/// A replica, as the server that feeds it sees it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Replica {
    /// The name it goes by (`application_name`).
    pub name: String,
    /// Its address; empty for one on the same host.
    pub address: String,
    /// `streaming`, `catchup`, …
    pub state: String,
    /// `sync`, `quorum`, `potential`, `async`.
    pub sync: String,
    /// Bytes of WAL that it has not replayed; `None` while it does not say.
    pub behind: Option<u64>,
    /// How long ago that was written which it replayed last, as the server reckons it; `None` when
    /// there is nothing to be replayed.
    pub lag: Option<Duration>,
}

/// A server, and what follows it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Host, port and user.
    pub server: String,
    /// The system identifier.
    pub system_id: u64,
    /// The timeline it is on.
    pub timeline: u32,
    /// Whether it leads or follows.
    pub role: Role,
    /// What follows it.
    pub replicas: Vec<Replica>,
}

impl ServerStatus {
    /// Asks a server. The role needs `pg_monitor` to see more of replicas than their names.
    ///
    /// # Errors
    /// When it cannot be reached, or does not answer.
    pub async fn of(connection: &ConnectOptions) -> lifeboat_core::Result<Self> {
        let session = Session::open(connection).await?;
        Ok(Self::ask(&session).await?)
    }

    pub(super) async fn ask(session: &Session) -> Result<Self> {
        let bad =
            |error: tokio_postgres::Error| Error::Answer { what: WHAT, why: error.to_string() };
        let statement =
            "SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()),
                (SELECT timeline_id FROM pg_control_checkpoint())";
        let row = session.one(WHAT, statement, &[]).await?;
        let standby: bool = row.try_get(0).map_err(bad)?;
        let system_id: i64 = row.try_get(1).map_err(bad)?;
        let checkpoint: i32 = row.try_get(2).map_err(bad)?;
        let (role, timeline) = if standby {
            Self::standby(session, checkpoint).await?
        } else {
            let statement = "SELECT pg_current_wal_lsn()::text,
                    ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int";
            let row = session.one(WHAT, statement, &[]).await?;
            let current = parsed(WHAT, row.try_get::<_, String>(0))?;
            (Role::Primary { current }, row.try_get::<_, i32>(1).map_err(bad)?)
        };
        let statement =
            "SELECT application_name, coalesce(client_addr::text, ''), coalesce(state, ''),
                coalesce(sync_state, ''),
                pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                    ELSE pg_current_wal_lsn() END, replay_lsn)::bigint,
                extract(epoch FROM replay_lag)::float8
            FROM pg_stat_replication ORDER BY application_name, pid";
        let mut replicas = Vec::new();
        for row in session.all(WHAT, statement, &[]).await? {
            let behind: Option<i64> = row.try_get(4).map_err(bad)?;
            let lag: Option<f64> = row.try_get(5).map_err(bad)?;
            replicas.push(Replica {
                name: row.try_get(0).map_err(bad)?,
                address: row.try_get(1).map_err(bad)?,
                state: row.try_get(2).map_err(bad)?,
                sync: row.try_get(3).map_err(bad)?,
                behind: behind.map(|bytes| u64::try_from(bytes).unwrap_or(0)),
                lag: lag.map(seconds),
            });
        }
        Ok(Self {
            server: session.target().to_owned(),
            system_id: system_id as u64,
            timeline: u32::try_from(timeline).unwrap_or(0),
            role,
            replicas,
        })
    }

    async fn standby(session: &Session, checkpoint: i32) -> Result<(Role, i32)> {
        let bad =
            |error: tokio_postgres::Error| Error::Answer { what: WHAT, why: error.to_string() };
        let statement = "SELECT pg_last_wal_receive_lsn()::text, pg_last_wal_replay_lsn()::text,
                extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8,
                (SELECT status = 'streaming' FROM pg_stat_wal_receiver),
                (SELECT received_tli FROM pg_stat_wal_receiver)";
        let row = session.one(WHAT, statement, &[]).await?;
        let received: Option<String> = row.try_get(0).map_err(bad)?;
        let received = received
            .map(|lsn| lsn.parse().map_err(|why| Error::Answer { what: WHAT, why }))
            .transpose()?;
        let replayed: Option<String> = row.try_get(1).map_err(bad)?;
        let replayed = replayed.map_or(Ok(Lsn(0)), |lsn| {
            lsn.parse().map_err(|why| Error::Answer { what: WHAT, why })
        })?;
        let age: Option<f64> = row.try_get(2).map_err(bad)?;
        let streaming: Option<bool> = row.try_get(3).map_err(bad)?;
        let timeline: Option<i32> = row.try_get(4).map_err(bad)?;
        let streaming = streaming.unwrap_or(false);
        let role = Role::Standby { received, replayed, age: age.map(seconds), streaming };
        Ok((role, timeline.unwrap_or(checkpoint)))
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
