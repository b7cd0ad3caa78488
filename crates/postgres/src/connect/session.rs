//! One session, held open for as long as the backup takes.
//!
//! The server ends a backup when the session that began it ends, so nothing here reconnects, ever.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::ConnectOptions;
use crate::error::{self, Error, Result};

/// How often an idle session says something, so that no firewall on the way forgets it.
const PING_EVERY: Duration = Duration::from_secs(30);

/// A session with settings under which a backup can wait for as long as it must.
#[derive(Debug)]
pub(crate) struct Session {
    client: Arc<Client>,
    tls: MakeTls,
    ended: watch::Receiver<()>,
    pinger: JoinHandle<()>,
    target: String,
    version: u32,
    version_text: String,
    process: i32,
}

struct MakeTls(MakeRustlsConnect);

impl std::fmt::Debug for MakeTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MakeTls")
    }
}

impl Session {
    /// Connects and prepares the session.
    pub(crate) async fn open(options: &ConnectOptions) -> Result<Self> {
        let target = options.target();
        let config = options.complete()?;
        let tls = options.tls()?;
        let failed = |source| Error::Connect { target: target.clone(), source: Box::new(source) };
        // The timeout of the configuration covers the connection itself, not what the other side
        // does with it afterwards.
        let limit = config.get_connect_timeout().copied().unwrap_or(Duration::from_secs(30));
        let connecting = tokio::time::timeout(2 * limit, config.connect(tls.clone()));
        let (client, connection) = connecting
            .await
            .map_err(|_| Error::ConnectTimeout {
                target: target.clone(),
                seconds: 2 * limit.as_secs(),
            })?
            .map_err(failed)?;
        let (alive, ended) = watch::channel(());
        tokio::spawn(async move {
            // Whoever uses the client sees why the connection ended.
            let _ = connection.await;
            drop(alive);
        });
        let client = Arc::new(client);
        let pinger = tokio::spawn(ping(Arc::downgrade(&client)));
        let mut session = Self {
            client,
            tls: MakeTls(tls),
            ended,
            pinger,
            target: target.clone(),
            version: 0,
            version_text: String::new(),
            process: 0,
        };
        session.prepare().await?;
        Ok(session)
    }

    async fn prepare(&mut self) -> Result<()> {
        const WHAT: &str = "prepare the session";
        let version = self
            .one(
                WHAT,
                "SELECT pg_catalog.current_setting('server_version_num'), \
                 pg_catalog.current_setting('server_version'), pg_catalog.pg_backend_pid()",
                &[],
            )
            .await?;
        self.version = parsed(WHAT, version.try_get::<_, String>(0))?;
        self.version_text = text(WHAT, version.try_get(1))?;
        self.process = text(WHAT, version.try_get(2))?;
        let mut settings = String::from(
            "SET search_path = pg_catalog; SET statement_timeout = 0; SET lock_timeout = 0; \
             SET max_parallel_workers_per_gather = 0; SET datestyle = 'ISO'; \
             SET synchronous_commit = local;",
        );
        if self.version >= 140_000 {
            settings += "SET idle_session_timeout = 0;";
        }
        if self.version >= 170_000 {
            settings += "SET transaction_timeout = 0;";
        }
        self.client.batch_execute(&settings).await.map_err(|error| failed(WHAT, error))?;
        // A pooler that hands out another server process for each statement would lose the backup.
        for _ in 0..3 {
            self.same_process().await?;
        }
        Ok(())
    }

    /// Makes sure that the same server process still answers.
    pub(crate) async fn same_process(&self) -> Result<()> {
        const WHAT: &str = "ask the session for its process";
        let row = self
            .one(
                WHAT,
                "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('search_path')",
                &[],
            )
            .await?;
        let process: i32 = text(WHAT, row.try_get(0))?;
        let path: String = text(WHAT, row.try_get(1))?;
        if process != self.process || path != "pg_catalog" {
            return Err(Error::Pooler);
        }
        Ok(())
    }

    /// For what a session has no words of its own.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Host, port and user, for messages.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// 15, 18, …
    pub(crate) fn major(&self) -> u32 {
        self.version / 10_000
    }

    /// What the server calls its version.
    pub(crate) fn version_text(&self) -> &str {
        &self.version_text
    }

    /// 150018, 180004, …: the version as a number.
    pub(crate) fn version_number(&self) -> u32 {
        self.version
    }

    /// Statements without rows.
    pub(crate) async fn run(&self, what: &'static str, statements: &str) -> Result<()> {
        self.client.batch_execute(statements).await.map_err(|error| failed(what, error))
    }

    /// Until it is disarmed, dropping the result cancels what the session does at the server.
    pub(crate) fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop { token: Some((self.client.cancel_token(), self.tls.0.clone())) }
    }

    /// An error when the session is over already.
    pub(crate) fn check(&self) -> Result<()> {
        if self.client.is_closed() || self.ended.has_changed().is_err() {
            return Err(Error::SessionLost);
        }
        Ok(())
    }

    /// Returns when the session is over.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    /// One row.
    pub(crate) async fn one(
        &self,
        what: &'static str,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row> {
        let row = self.client.query_one(statement, parameters).await;
        row.map_err(|error| failed(what, error))
    }

    /// All rows.
    pub(crate) async fn all(
        &self,
        what: &'static str,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let rows = self.client.query(statement, parameters).await;
        rows.map_err(|error| failed(what, error))
    }

    /// A setting's value; `None` when the role may not read it, or there is no such setting.
    pub(crate) async fn setting(&self, name: &str) -> Result<Option<String>> {
        const WHAT: &str = "ask for a setting";
        // current_setting() fails for what the role may not read; pg_settings leaves it out.
        let rows = self
            .all(WHAT, "SELECT setting FROM pg_catalog.pg_settings WHERE name = $1", &[&name])
            .await?;
        rows.first().map(|row| text(WHAT, row.try_get(0))).transpose()
    }

    /// One row of a statement that can take long. Dropping the future cancels the statement at the
    /// server, which would otherwise go on and notice the end of the session only afterwards.
    pub(crate) async fn one_cancellable(
        &self,
        what: &'static str,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row> {
        let guard = self.cancel_on_drop();
        let row = self.one(what, statement, parameters).await;
        guard.disarm();
        row
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // With the last handle of the client gone, the driver says goodbye to the server.
        self.pinger.abort();
    }
}

/// Cancels what a session does, unless it is disarmed.
pub(crate) struct CancelOnDrop {
    token: Option<(tokio_postgres::CancelToken, MakeRustlsConnect)>,
}

impl CancelOnDrop {
    /// What was done is over.
    pub(crate) fn disarm(mut self) {
        self.token = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let (Some((token, tls)), Ok(runtime)) =
            (self.token.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                // If it cannot be cancelled, it ends by itself, and with it the backup mode.
                let _ = token.cancel_query(tls).await;
            });
        }
    }
}

async fn ping(client: std::sync::Weak<Client>) {
    let mut ticks = tokio::time::interval(PING_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(client) = client.upgrade() else {
            return;
        };
        if client.check_connection().await.is_err() {
            return;
        }
    }
}

/// What the error of a statement means.
pub(crate) fn failed(what: &'static str, error: tokio_postgres::Error) -> Error {
    if error::ends_session(&error) {
        return Error::SessionLost;
    }
    Error::Query { what, source: Box::new(error) }
}

fn text<T>(what: &'static str, value: Result<T, tokio_postgres::Error>) -> Result<T> {
    value.map_err(|error| Error::Answer { what, why: error.to_string() })
}

/// A value that the server gave as text.
pub(crate) fn parsed<T: FromStr>(
    what: &'static str,
    value: Result<String, tokio_postgres::Error>,
) -> Result<T>
where
    T::Err: Display,
{
    text(what, value)?
        .parse()
        .map_err(|error: T::Err| Error::Answer { what, why: error.to_string() })
}
