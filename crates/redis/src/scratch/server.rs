//! The server of a restored snapshot.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lifeboat_core::local::ScratchPlace;
use lifeboat_core::{Attributes, Context, Error, Result, Timestamp};

use super::{PID_FILE, Program, SOCKET, Scratch, ScratchError, blocking, rdb};
use crate::connect::{Answer, ConnectOptions, Connection};
use crate::source::facts;

/// What is said of a log.
const END_OF_LOG: u64 = 2000;
const PAUSE: Duration = Duration::from_millis(20);
/// A moment of a journal does not say how many databases it needs: as many as there may be.
const MOST_DATABASES: u64 = 16_384;

/// A server that runs on a restored snapshot, for a while. Dropping it kills it, and removes all of
/// it.
#[derive(Debug)]
pub struct ScratchServer {
    // In the order in which they must go.
    running: Running,
    pub(super) place: ScratchPlace,
    pub(super) facts: Attributes,
    pub(super) program: Program,
    /// A database that the snapshot does not use.
    pub(super) spare: u64,
    /// Between these moments it decided which keys had expired.
    pub(super) loading: (Timestamp, Timestamp),
    loaded: Duration,
}

#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // There is nothing in it to keep.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl ScratchServer {
    pub(super) async fn start(scratch: Scratch, context: &Context) -> Result<Self> {
        let (begun, before) = (Instant::now(), Timestamp::now());
        let Scratch { place, program, facts, modules, patience } = scratch;
        let (directory, command) = (place.directory().to_owned(), program.clone());
        let is_snapshot = rdb(&place).exists();
        let spare = match is_snapshot {
            true => databases(&facts),
            false => MOST_DATABASES - 1,
        };
        let spawning = move || {
            let mut command = command_for(&command, &directory, spare + 1, is_snapshot);
            for module in &modules {
                command.arg("--loadmodule").arg(module);
            }
            spawn(command, &directory)
        };
        let child = blocking(spawning).await?;
        let loading = (before, before);
        let running = Running(child);
        let mut server =
            Self { running, place, facts, program, spare, loading, loaded: Duration::ZERO };
        loop {
            context.check()?;
            if let Ok(Some(status)) = server.running.0.try_wait() {
                return Err(server.failed(format!("ended while it loaded ({status})")).await);
            }
            if let Ok(mut connection) = server.connect().await {
                match connection.ask("wait for the data", &[b"PING"]).await {
                    Ok(Answer::Text(_)) => break,
                    Ok(Answer::Error(answer)) if !answer.starts_with("LOADING") => {
                        return Err(server.failed(format!("answered {answer}")).await);
                    }
                    _ => {}
                }
            }
            if begun.elapsed() > patience {
                let limit = patience.as_secs();
                return Err(server.failed(format!("did not load within {limit} s")).await);
            }
            tokio::time::sleep(PAUSE).await;
        }
        server.loaded = begun.elapsed();
        // What it loaded stays there to be compared.
        let mut connection = server.connect().await?;
        let words: [&[u8]; 3] = [b"DEBUG", b"SET-ACTIVE-EXPIRE", b"0"];
        connection.demand("keep expired keys", &words).await?;
        server.loading = (before, Timestamp::now());
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
    /// When its directory makes no address.
    pub fn connection(&self) -> Result<ConnectOptions, crate::Error> {
        let socket = self.place.directory().join(SOCKET);
        let mut options = ConnectOptions::parse("unix:///socket")?;
        options.place = crate::connect::Place::Socket(socket);
        Ok(options)
    }

    pub(super) async fn connect(&self) -> Result<Connection, crate::Error> {
        self.connection()?.connect().await
    }

    /// Its version: `7.0.15`.
    pub fn version(&self) -> &str {
        &self.program.version
    }

    /// How long it took from its start until it had loaded everything.
    pub fn loaded_in(&self) -> Duration {
        self.loaded
    }

    /// Kills it and removes all of it.
    ///
    /// # Errors
    /// When it cannot all be removed.
    pub async fn stop(self) -> Result<()> {
        let Self { running, place, .. } = self;
        blocking(move || {
            drop(running);
            let directory = place.directory().to_owned();
            fs::remove_dir_all(&directory).map_err(|source| ScratchError::File {
                what: "remove",
                path: directory,
                source,
            })?;
            drop(place);
            Ok::<_, ScratchError>(())
        })
        .await
    }
}

/// How many databases the snapshot needs, by its own account.
fn databases(facts: &Attributes) -> u64 {
    let held = facts.pairs(facts::DATABASES).unwrap_or_default();
    let numbers = held.iter().filter_map(|(number, _)| str::from_utf8(number).ok()?.parse().ok());
    numbers.max().map_or(16, |last: u64| last.saturating_add(1)).clamp(16, MOST_DATABASES - 1)
}

fn command_for(program: &Program, place: &Path, databases: u64, is_snapshot: bool) -> Command {
    let mut command = Command::new(&program.path);
    let append_only = if is_snapshot { "no" } else { "yes" };
    command.args(["--port", "0", "--save", "", "--appendonly", append_only]);
    command.args(["--daemonize", "no", "--databases", &databases.to_string()]);
    command.args(["--maxmemory", "0", "--appendfsync", "no", "--aof-load-truncated", "no"]);
    command.args(["--auto-aof-rewrite-percentage", "0", "--pidfile", PID_FILE]);
    // No single value is too large to be compared.
    command.args(["--proto-max-bulk-len", "8gb"]);
    command.arg("--unixsocket").arg(place.join(SOCKET));
    if program.number() >= (7, 0) {
        command.args(["--enable-debug-command", "yes"]);
    }
    command.arg("--dir").arg(place.join("data"));
    command
}

fn spawn(mut command: Command, place: &Path) -> Result<Child, ScratchError> {
    let path = place.join("log");
    let failed = |what| {
        let path = path.clone();
        move |source| ScratchError::File { what, path, source }
    };
    let log = File::create(&path).map_err(failed("make"))?;
    let errors = log.try_clone().map_err(failed("open"))?;
    let program = command.get_program().into();
    command
        .current_dir(place.join("data"))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|source| ScratchError::File { what: "run", path: program, source })
}

/// What is worth reading at the end of a log. Blocks.
fn end_of(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END_OF_LOG)))?;
    let mut bytes = Vec::new();
    file.take(END_OF_LOG).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let wrong: Vec<_> = lines.iter().filter(|line| line.contains(" # ")).copied().collect();
    let shown = if wrong.is_empty() { &lines } else { &wrong };
    Ok(shown[shown.len().saturating_sub(6)..].join("; "))
}
