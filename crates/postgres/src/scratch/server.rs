//! The server of a restored cluster.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lifeboat_core::local::ScratchPlace;
use lifeboat_core::{Context, Error, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::{Programs, Scratch, ScratchError};
use crate::connect::{ConnectOptions, Session};
use crate::source::blocking;

/// What is said of a log.
const END_OF_LOG: u64 = 2000;
/// How long a server may take to stop at once.
const STOP: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// What the server is told on its command line, where nothing overrules it.
const SETTINGS: [(&str, &str); 27] = [
    ("archive_command", ""),
    ("archive_mode", "off"),
    ("autovacuum", "off"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("hot_standby", "off"),
    ("huge_pages", "off"),
    ("jit", "off"),
    ("listen_addresses", ""),
    ("local_preload_libraries", ""),
    ("log_destination", "stderr"),
    ("logging_collector", "off"),
    ("max_connections", "40"),
    ("max_locks_per_transaction", "256"),
    ("max_logical_replication_workers", "0"),
    // As many as there may be in the WAL: a restored server needs room for all of them.
    ("max_prepared_transactions", "1000"),
    ("max_wal_senders", "10"),
    ("port", "5432"),
    ("primary_conninfo", ""),
    ("restart_after_crash", "off"),
    ("session_preload_libraries", ""),
    ("shared_buffers", "128MB"),
    ("shared_preload_libraries", ""),
    ("ssl", "off"),
    ("synchronous_commit", "off"),
    ("synchronous_standby_names", ""),
    ("wal_level", "replica"),
];

/// A server that runs on a restored cluster, for a while. Dropping it stops it at once, and removes
/// all of it.
#[derive(Debug)]
pub struct ScratchServer {
    // In the order in which they must go.
    running: Running,
    place: ScratchPlace,
    user: String,
    major: u32,
    recovered: Duration,
}

#[derive(Debug)]
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        // It was not waited for, so its number is still its own.
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    /// Blocks until it is gone.
    fn end(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::QUIT);
        let begun = Instant::now();
        while begun.elapsed() < STOP {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

impl ScratchServer {
    pub(super) async fn start(scratch: Scratch, context: &Context) -> Result<Self> {
        let begun = Instant::now();
        let Scratch { place, programs, account, user, patience } = scratch;
        let (directory, major) = (place.directory().to_owned(), programs.major);
        let spawning = move || spawn(&directory, &programs, account).map_err(Error::from);
        let child = blocking(spawning).await?;
        let mut server =
            Self { running: Running(child), place, user, major, recovered: Duration::ZERO };
        loop {
            context.check()?;
            if let Ok(Some(status)) = server.running.0.try_wait() {
                return Err(server.failed(format!("ended while it recovered ({status})")).await);
            }
            match server.connect("template1").await {
                Ok(_) => break,
                Err(error) if has_answered(&error) => return Err(error.into()),
                Err(_) => {}
            }
            if begun.elapsed() > patience {
                let limit = patience.as_secs();
                return Err(server.failed(format!("did not recover within {limit} s")).await);
            }
            tokio::time::sleep(PAUSE).await;
        }
        server.recovered = begun.elapsed();
        Ok(server)
    }

    async fn failed(&self, what: String) -> Error {
        ScratchError::Server { what, said: self.said().await }.into()
    }

    /// The end of its log.
    pub async fn said(&self) -> String {
        let log = self.place.directory().join("log");
        let said = blocking(move || Ok::<_, Error>(end_of(&log).unwrap_or_default())).await;
        said.unwrap_or_default()
    }

    /// How it is reached.
    ///
    /// # Errors
    /// Never: what it is made of are words.
    pub fn connection(&self, database: &str) -> Result<ConnectOptions, crate::Error> {
        let directory = self.place.directory().display();
        let options = format!("host='{directory}' port=5432 sslmode=disable");
        Ok(ConnectOptions::parse(&options)?.with_user(&self.user).with_database(database))
    }

    pub(crate) async fn connect(&self, database: &str) -> Result<Session, crate::Error> {
        Session::open(&self.connection(database)?).await
    }

    /// 15, 18, …
    pub fn major(&self) -> u32 {
        self.major
    }

    /// How long it took from its start until it answered: the time of the recovery.
    pub fn recovered_in(&self) -> Duration {
        self.recovered
    }

    /// Stops it and removes all of it.
    ///
    /// # Errors
    /// When it cannot all be removed.
    pub async fn stop(self) -> Result<()> {
        let Self { mut running, place, .. } = self;
        blocking(move || {
            running.end();
            let directory = place.directory().to_owned();
            fs::remove_dir_all(&directory).map_err(|source| ScratchError::File {
                what: "remove",
                path: directory,
                source,
            })?;
            drop(place);
            Ok(())
        })
        .await
    }
}

/// Whether the server itself said no, and not merely that it still recovers.
fn has_answered(error: &crate::Error) -> bool {
    use tokio_postgres::error::SqlState;
    let crate::Error::Connect { source, .. } = error else { return false };
    source.code().is_some_and(|code| *code != SqlState::CANNOT_CONNECT_NOW)
}

/// Blocks.
fn spawn(
    directory: &Path,
    programs: &Programs,
    account: Option<(u32, u32)>,
) -> Result<Child, ScratchError> {
    let failed = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| ScratchError::File { what, path, source }
    };
    for (name, text) in [
        ("postgresql.conf", ""),
        // The directory lets nobody else in.
        ("pg_hba.conf", "local all all trust\n"),
        ("pg_ident.conf", ""),
    ] {
        let path = directory.join(name);
        fs::write(&path, text).map_err(failed("write", &path))?;
    }
    let log = directory.join("log");
    let log = File::create(&log).map_err(failed("make", &log))?;
    let errors = log.try_clone().map_err(failed("open", directory))?;
    let data = directory.join("data");
    let program = programs.program("postgres");
    let mut command = Command::new(&program);
    command.arg("-D").arg(&data);
    let mut set = |name: &str, value: &str| {
        command.arg("-c").arg(format!("{name}={value}"));
    };
    for (name, value) in SETTINGS {
        set(name, value);
    }
    if programs.major >= 17 {
        set("event_triggers", "off");
    }
    let text = directory.display();
    set("config_file", &format!("{text}/postgresql.conf"));
    set("hba_file", &format!("{text}/pg_hba.conf"));
    set("ident_file", &format!("{text}/pg_ident.conf"));
    set("unix_socket_directories", &format!("{text}"));
    if let Some((uid, gid)) = account {
        command.uid(uid).gid(gid);
    }
    command
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .current_dir(&data)
        .process_group(0)
        .spawn()
        .map_err(failed("run", &program))
}

fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END_OF_LOG)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // What is fatal is what matters; all of it when nothing says so.
    let fatal: Vec<_> =
        text.lines().filter(|line| line.contains("FATAL:") || line.contains("PANIC:")).collect();
    let told = if fatal.is_empty() { text.into_owned() } else { fatal.join("; ") };
    Ok(told.trim().to_owned())
}
