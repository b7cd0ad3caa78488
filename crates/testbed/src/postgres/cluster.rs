//! A running cluster.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tokio_postgres::{Client, Config, NoTls};

use super::{
    Builder, Installation,
    postmaster::{Failure, Launch, Postmaster},
};
use crate::{scratch::Scratch, watchdog::Watchdog};

/// How long a server may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Every test starts servers, and the system hands out ports at random: a collision is rare, five
/// in a row are something else.
const PORT_ATTEMPTS: u32 = 5;

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Sessions are ended and a checkpoint is written: a clean shutdown.
    Fast,
    /// At once, without a checkpoint: the next start recovers from the WAL.
    Immediate,
}

/// A PostgreSQL cluster on a port of 127.0.0.1 and on a socket in a temporary directory of its own.
///
/// Dropping it stops the server and removes that directory, also while a test panics. When the
/// whole process is killed, a watchdog does both.
///
/// The methods that start and stop servers block; the ones that talk to the server are async.
#[derive(Debug)]
pub struct Cluster {
    // Fields are dropped in this order: the server before its directory, the watchdog at last.
    server: Option<Postmaster>,
    scratch: Scratch,
    _watchdog: Watchdog,
    installation: Installation,
    data_dir: PathBuf,
    password: Option<String>,
    command_line: Vec<(String, String)>,
    patience: Duration,
    port: u16,
    tablespaces: AtomicU32,
}

impl Cluster {
    /// The superuser of every cluster, and the name of the database that is always there.
    pub const SUPERUSER: &'static str = "postgres";

    /// Describes a cluster, to make a new one or to adopt what is there.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A new cluster of this PostgreSQL, with nothing special about it.
    pub fn start(installation: &Installation) -> Result<Self> {
        Self::builder().installation(installation).start()
    }

    /// Starts a server on a data directory that is there already: see [`Builder::adopt`].
    pub fn adopt(data_dir: impl AsRef<Path>, installation: &Installation) -> Result<Self> {
        Self::builder().installation(installation).adopt(data_dir)
    }

    pub(super) fn new(
        installation: Installation,
        scratch: Scratch,
        watchdog: Watchdog,
        data_dir: PathBuf,
        password: Option<String>,
        command_line: Vec<(String, String)>,
        patience: Duration,
    ) -> Result<Self> {
        let mut cluster = Self {
            server: None,
            scratch,
            _watchdog: watchdog,
            installation,
            data_dir,
            password,
            command_line,
            patience,
            port: 0,
            tablespaces: AtomicU32::new(0),
        };
        cluster.start_again()?;
        Ok(cluster)
    }

    /// Starts the stopped or killed server, on a new port, and waits until it accepts connections.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.server.is_none(), "the server in {} runs already", self.data_dir.display());
        for _ in 0..PORT_ATTEMPTS {
            self.port = free_port()?;
            match self.launch(self.port) {
                Ok(server) => {
                    self.server = Some(server);
                    return Ok(());
                }
                Err(Failure::PortTaken) => {}
                Err(Failure::Other(error)) => return Err(error),
            }
        }
        bail!("no free port found in {PORT_ATTEMPTS} attempts")
    }

    fn launch(&self, port: u16) -> Result<Postmaster, Failure> {
        Postmaster::start(&Launch {
            installation: &self.installation,
            account: self.scratch.account(),
            data_dir: &self.data_dir,
            socket_dir: self.scratch.path(),
            log: &self.log_file(),
            settings: &self.command_line,
            port,
            patience: self.patience,
        })
    }

    /// Stops the server; the cluster stays, and can be started again.
    pub fn stop(&mut self, mode: Mode) -> Result<()> {
        let mut server = self.server.take().context("the server does not run")?;
        let signal = match mode {
            Mode::Fast => Signal::INT,
            Mode::Immediate => Signal::QUIT,
        };
        server.stop(signal, STOP_LIMIT).with_context(|| self.log())
    }

    /// Kills the server with SIGKILL, as a crash would; the cluster stays, and can be started again.
    pub fn kill(&mut self) -> Result<()> {
        self.server.take().context("the server does not run")?.kill(STOP_LIMIT)
    }

    /// Connects as the superuser. The connection lives on the current tokio runtime.
    pub async fn connect(&self, database: &str) -> Result<Client> {
        self.connect_with(&self.config(database)).await
    }

    /// Connects as anyone, starting from [`config`](Self::config).
    pub async fn connect_with(&self, config: &Config) -> Result<Client> {
        let (client, connection) = config.connect(NoTls).await.with_context(|| {
            format!("connect to port {}; the server says:\n{}", self.port, self.log())
        })?;
        // An error of the connection is seen by whoever uses the client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// How to connect to a database as the superuser.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(Self::SUPERUSER).dbname(database);
        if let Some(password) = &self.password {
            config.password(password);
        }
        config
    }

    /// How to connect to the database `postgres` as the superuser, in libpq's words, without the
    /// password.
    pub fn conninfo(&self) -> String {
        let user = Self::SUPERUSER;
        format!("host=127.0.0.1 port={} user={user} dbname=postgres", self.port)
    }

    /// Waits until the server has ended its recovery and takes writes.
    pub async fn wait_until_writable(&self, limit: Duration) -> Result<()> {
        let client = self.connect("postgres").await?;
        let start = Instant::now();
        loop {
            let recovering: bool =
                client.query_one("select pg_is_in_recovery()", &[]).await?.get(0);
            if !recovering {
                return Ok(());
            }
            ensure!(
                start.elapsed() < limit,
                "the server is still in recovery after {limit:?}:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes an empty directory that the server may use as a tablespace.
    pub fn create_tablespace_dir(&self) -> Result<PathBuf> {
        let number = self.tablespaces.fetch_add(1, Ordering::Relaxed);
        self.scratch.subdir(&format!("tablespace{number}"))
    }

    /// What it runs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its port on 127.0.0.1; another one after each start.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its socket is, for `host=`.
    pub fn socket_dir(&self) -> &Path {
        self.scratch.path()
    }

    /// The superuser's password, when it has one.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The process id of the running server.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Postmaster::pid)
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        let text = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.scratch.path().join("server.log")
    }
}

/// A port that was free a moment ago. Another process may take it first, so the caller tries again.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("ask for a free port")?;
    Ok(listener.local_addr().context("ask for a free port")?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_from_other_failures() {
        let mut cluster = Cluster::start(super::super::newest().unwrap()).unwrap();
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        cluster.stop(Mode::Fast).unwrap();
        assert!(matches!(cluster.launch(port), Err(Failure::PortTaken)));
        cluster.start_again().unwrap();
        assert!(cluster.stop(Mode::Fast).is_ok() && cluster.stop(Mode::Fast).is_err());
    }
}
