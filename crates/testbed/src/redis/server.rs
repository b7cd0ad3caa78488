//! One running Redis server.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::Installation;
use crate::{poll, watchdog::Watchdog};

/// It loads its data before it answers, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Others may take a port before the server does.
const PORT_ATTEMPTS: u32 = 5;

/// Describes a server.
#[derive(Clone, Debug)]
pub struct Builder {
    installation: Installation,
    settings: Vec<(String, String)>,
    rdb: Option<PathBuf>,
    files: Option<PathBuf>,
    /// What a Sentinel watches, as its configuration says it.
    watches: Option<String>,
}

impl Builder {
    /// A setting, as in redis.conf; a later one of the same name goes before.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts with this file as its dump.rdb.
    #[must_use]
    pub fn rdb(mut self, path: impl Into<PathBuf>) -> Self {
        self.rdb = Some(path.into());
        self
    }

    /// Starts with a copy of what is in this directory in its own.
    #[must_use]
    pub fn files(mut self, directory: impl Into<PathBuf>) -> Self {
        self.files = Some(directory.into());
        self
    }

    /// Starts it, and waits until it has its data and answers.
    pub fn start(self) -> Result<Server> {
        for _ in 0..PORT_ATTEMPTS {
            let dir = tempfile::tempdir().context("make a directory for the server")?;
            if let Some(rdb) = &self.rdb {
                fs::copy(rdb, dir.path().join("dump.rdb")).context("copy the RDB")?;
            }
            if let Some(files) = &self.files {
                copy_all(files, dir.path()).context("copy the files")?;
            }
            let port = self.free_port()?;
            match self.launch(dir, port)? {
                Ok(server) => return Ok(server),
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => bail!("Redis {} ended at its start:\n{log}", self.installation.version),
            }
        }
        bail!("no free port found in {PORT_ATTEMPTS} attempts")
    }

    fn free_port(&self) -> Result<u16> {
        let free = |port: u16| {
            let listener = TcpListener::bind(("127.0.0.1", port)).context("ask for a free port")?;
            Ok(listener.local_addr().context("ask for a free port")?.port())
        };
        if !self.settings.iter().any(|(name, _)| name == "cluster-enabled") {
            return free(0);
        }
        // The nodes of a cluster talk among themselves on the port 10000 further up.
        for _ in 0..1000 {
            let port = free(0)?;
            if let Some(bus) = port.checked_add(10_000)
                && free(bus).is_ok()
            {
                return Ok(port);
            }
        }
        bail!("no free port found for a node of a cluster")
    }

    fn launch(&self, dir: tempfile::TempDir, port: u16) -> Result<Result<Server, String>> {
        let log = dir.path().join("server.log");
        let socket = dir.path().join("redis.sock");
        let out = File::create(&log).context("make the log")?;
        let mut command = self.installation.command();
        if let Some(watches) = &self.watches {
            let config = dir.path().join("sentinel.conf");
            fs::write(&config, watches).context("write the configuration")?;
            command.arg(&config).arg("--sentinel");
        }
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
            .arg("--dir")
            .arg(dir.path());
        if self.watches.is_none() {
            command
                .args(["--save", "", "--appendonly", "no", "--repl-diskless-sync", "yes"])
                .args(["--repl-diskless-sync-delay", "0", "--unixsocket"])
                .arg(&socket);
            if self.installation.number() >= (7, 0) {
                command.args(["--enable-debug-command", "yes"]);
            }
        }
        for (name, value) in &self.settings {
            // A value of several words is several arguments.
            command.arg(format!("--{name}")).args(value.split(' '));
        }
        let child = command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(out.try_clone().context("share the log")?)
            .stderr(out)
            // Ctrl-C is for the test, which then stops it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("run {}", self.installation.program.display()))?;
        let pid = child.id().to_string();
        let installation = self.installation.clone();
        let mut server = Server { child, port, installation, dir, _watchdog: None };
        server._watchdog = Some(Watchdog::new("kill -9 \"$1\"", &[pid.as_ref()])?);
        let outcome = poll::until(PATIENCE, || match server.child.try_wait() {
            Ok(None) => answers(port).then_some(true),
            Ok(Some(_)) | Err(_) => Some(false),
        });
        match outcome {
            Some(true) => Ok(Ok(server)),
            Some(false) => Ok(Err(server.log())),
            None => bail!("Redis was not ready within {PATIENCE:?}:\n{}", server.log()),
        }
    }
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_all(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Whether somebody there answers as a server that has its data, or wants a password first.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let mut answer = [0; 5];
    let asked = stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .and_then(|()| stream.write_all(b"PING\r\n"))
        .and_then(|()| stream.read_exact(&mut answer));
    asked.is_ok() && (&answer == b"+PONG" || &answer == b"-NOAU")
}

/// A Redis server on a free port of 127.0.0.1 and on a socket, in a temporary directory. It is
/// killed with the value, and when this process is killed.
///
/// It hands out snapshots at once and straight from its memory, keeps nothing on disk, and knows
/// `DEBUG`, unless its settings say otherwise.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
    installation: Installation,
    dir: tempfile::TempDir,
    _watchdog: Option<Watchdog>,
}

impl Server {
    /// Describes a server of this Redis.
    pub fn builder(installation: &Installation) -> Builder {
        Builder {
            installation: installation.clone(),
            settings: Vec::new(),
            rdb: None,
            files: None,
            watches: None,
        }
    }

    /// Describes a Sentinel that watches the service `name`, of which this server is the primary now,
    /// and takes it for down after a second without an answer when `quorum` of them do.
    pub fn sentinel(&self, name: &str, quorum: u32) -> Builder {
        let port = self.port;
        let watches = format!(
            "sentinel monitor {name} 127.0.0.1 {port} {quorum}\n\
             sentinel down-after-milliseconds {name} 1000\n\
             sentinel failover-timeout {name} 5000\n"
        );
        Builder { watches: Some(watches), ..Self::builder(&self.installation) }
    }

    /// A server of this Redis, with nothing special about it.
    pub fn start(installation: &Installation) -> Result<Self> {
        Self::builder(installation).start()
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How a client names it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it runs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        let text = fs::read(self.dir.path().join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// One command by `redis-cli`, and what that prints, without the last line's end. An error of
    /// the server is an error.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = self.client();
        let output = command.args(["-e"]).args(words).output().context("run redis-cli")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{words:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// Commands by `redis-cli`, a line each. An error of the server is an error.
    pub fn run(&self, commands: &str) -> Result<()> {
        let script = self.dir.path().join("commands");
        fs::write(&script, commands).context("write the commands")?;
        let input = File::open(&script).context("open the commands")?;
        let output = self.client().stdin(input).output().context("run redis-cli")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let wrong = text.lines().find(|line| line.starts_with("ERR ") || line.starts_with("WRONG"));
        ensure!(output.status.success() && wrong.is_none(), "{wrong:?}");
        Ok(())
    }

    /// The digest of all its data, as `DEBUG DIGEST` gives it.
    pub fn digest(&self) -> Result<String> {
        self.ask(&["DEBUG", "DIGEST"])
    }

    fn client(&self) -> Command {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]).stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_and_goes() {
        let server = Server::start(super::super::newest().unwrap()).unwrap();
        server.run("SET a 1\nINCR a\n").unwrap();
        assert_eq!(server.ask(&["GET", "a"]).unwrap(), "2");
        assert!(server.ask(&["LPUSH", "a", "1"]).is_err());
        assert!(server.run("LPUSH a 1\n").is_err());
        let port = server.port();
        drop(server);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}
