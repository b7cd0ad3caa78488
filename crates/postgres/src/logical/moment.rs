//! One moment of the database, which several sessions see.
//!
//! # Locks first, then the moment
//!
//! Most of what changes a table is invisible to a snapshot that is older. Some is not: a table that
//! is truncated or rewritten looks empty, and one that is dropped is gone. So tables must be locked
//! (`ACCESS SHARE`, which stops nobody who only reads and writes rows) before the snapshot is
//! taken: `pg_dump` locks after it and has that hole. Which tables there are, is in turn a question
//! to the snapshot; so it is asked again in it, and what was made meanwhile is locked and another
//! snapshot taken. Two sessions stay open until the end: the one that holds the locks, and the one
//! that exported the snapshot.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::error::SqlState;

use super::catalog::{self, Relation};
use super::error::{DatabaseError, Result};
use super::options::DatabaseOptions;
use crate::connect::{Session, failed};
use crate::error::Error;

/// So often is it tried again when tables were made meanwhile.
const TRIES: usize = 5;

/// So many tables are locked by one statement.
const LOCKED_AT_ONCE: usize = 500;

/// Under these settings a value is the same text, whatever the server, the database or the role say.
pub(super) const SETTINGS: &str = "SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; \
    SET timezone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = 'hex'; \
    SET standard_conforming_strings = on; SET xmlbinary = 'base64'; SET xmloption = 'content'; \
    SET row_security = off; SET idle_in_transaction_session_timeout = 0;";

/// A moment of the database.
pub(super) struct Moment {
    /// Holds the locks.
    holder: Session,
    /// Holds the snapshot.
    pub(super) leader: Session,
    /// What the server calls the snapshot.
    pub(super) snapshot: String,
    pub(super) taken: Timestamp,
    /// About where in the WAL that is; empty when the role may not ask.
    pub(super) position: String,
    /// The relations that the options mean, as of the snapshot.
    pub(super) relations: Vec<Relation>,
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moment").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

/// A session for reading.
pub(super) async fn session(options: &DatabaseOptions) -> Result<Session> {
    let session = Session::open(&options.connection).await?;
    if !(14..=18).contains(&session.major()) {
        return Err(DatabaseError::Version { found: session.version_text().to_owned() });
    }
    let limit = options.lock_timeout.as_millis().clamp(1, i32::MAX as u128);
    let settings =
        format!("{SETTINGS} SET synchronize_seqscans = off; SET lock_timeout = {limit};");
    session.run("prepare the session", &settings).await?;
    Ok(session)
}

impl Moment {
    /// Locks the tables and takes the snapshot.
    pub(super) async fn take(options: &DatabaseOptions) -> Result<Self> {
        let holder = session(options).await?;
        let leader = session(options).await?;
        holder.run("begin", "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY").await?;
        let mut locked = HashSet::new();
        let mut known = catalog::chosen(catalog::relations(&holder).await?, options)?;
        for _ in 0..TRIES {
            lock(&holder, &known, &mut locked).await?;
            let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
            leader.run("begin", begin).await?;
            let row = leader
                .one(
                    "export a snapshot",
                    "SELECT pg_export_snapshot(), \
                     (extract(epoch FROM clock_timestamp()) * 1000000)::int8, \
                     CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                     ELSE pg_current_wal_insert_lsn() END::text",
                    &[],
                )
                .await?;
            let read = || -> Result<_, tokio_postgres::Error> {
                let position: Option<String> = row.try_get(2)?;
                Ok((row.try_get(0)?, row.try_get(1)?, position.unwrap_or_default()))
            };
            let (snapshot, taken, position): (String, i64, String) =
                read().map_err(|error| failed("export a snapshot", error))?;
            known = catalog::chosen(catalog::relations(&leader).await?, options)?;
            let still = known.iter().filter(|it| it.is_locked()).all(|it| locked.contains(&it.oid));
            if still {
                let taken = Timestamp::from_microsecond(taken).unwrap_or_else(|_| Timestamp::now());
                let relations = known;
                return Ok(Self { holder, leader, snapshot, taken, position, relations });
            }
            leader.run("end", "ROLLBACK").await?;
        }
        Err(DatabaseError::NeverStill { database: options.connection.database() })
    }

    /// An error when a session is gone, and with it what it holds.
    pub(super) fn check(&self) -> Result<()> {
        self.holder.check()?;
        self.leader.check()?;
        Ok(())
    }

    /// Returns when one of the sessions is gone.
    pub(super) async fn ended(&self) {
        tokio::select! {
            () = self.holder.ended() => {}
            () = self.leader.ended() => {}
        }
    }
}

async fn lock(holder: &Session, relations: &[Relation], locked: &mut HashSet<u32>) -> Result<()> {
    let wanted: Vec<_> =
        relations.iter().filter(|it| it.is_locked() && !locked.contains(&it.oid)).collect();
    for some in wanted.chunks(LOCKED_AT_ONCE) {
        let names: Vec<_> = some.iter().map(|it| format!("ONLY {}", it.name.quoted())).collect();
        let statement = format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "));
        if let Err(source) = holder.client().batch_execute(&statement).await {
            let what = match some {
                [one] => format!("lock {}", one.name),
                [first, .., last] => format!("lock the tables {} to {}", first.name, last.name),
                [] => "lock nothing".to_owned(),
            };
            return Err(about_table(what, source));
        }
        locked.extend(some.iter().map(|it| it.oid));
    }
    Ok(())
}

/// What the error of a statement about a table means; `what` was being done.
pub(super) fn about_table(what: String, source: tokio_postgres::Error) -> DatabaseError {
    if crate::error::ends_session(&source) {
        return Error::SessionLost.into();
    }
    let source = Box::new(source);
    match source.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => DatabaseError::Locked { what, source },
        _ => DatabaseError::Table { what, source },
    }
}

/// Sessions that see the moment, as many as may work side by side. Each is made when it is needed.
#[derive(Debug)]
pub(super) struct Workers {
    options: DatabaseOptions,
    snapshot: String,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
}

/// A session of [`Workers`], for one at a time.
#[derive(Debug)]
pub(super) struct Worker {
    session: Option<Session>,
    workers: Arc<Workers>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Workers {
    pub(super) fn new(options: &DatabaseOptions, snapshot: &str) -> Self {
        Self {
            options: options.clone(),
            snapshot: snapshot.to_owned(),
            free: Arc::new(Semaphore::new(options.sessions())),
            idle: Mutex::default(),
        }
    }

    /// A session, when one is free.
    pub(super) async fn one(self: &Arc<Self>) -> Result<Worker> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        let idle = self.idle.lock().pop();
        let session = match idle {
            Some(session) => session,
            None => self.open().await?,
        };
        Ok(Worker { session: Some(session), workers: Arc::clone(self), _permit: permit })
    }

    async fn open(&self) -> Result<Session> {
        let session = session(&self.options).await?;
        let snapshot = super::name::literal(&self.snapshot);
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {snapshot}"
        );
        session.run("take the snapshot of the first session", &begin).await?;
        Ok(session)
    }
}

impl Worker {
    pub(super) fn session(&self) -> Result<&Session> {
        Ok(self.session.as_ref().ok_or(Error::SessionLost)?)
    }

    /// Gives the session back, whose work is done. One that is dropped instead ends.
    pub(super) fn give_back(mut self) {
        if let Some(session) = self.session.take() {
            self.workers.idle.lock().push(session);
        }
    }
}
