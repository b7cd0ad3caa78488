//! One running server process.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    Installation,
    remains::{SharedMemory, children_of, is_gone},
};
use crate::{home::Account, poll};

/// Ends a server whose test was killed, and removes what it left. `$1` is the data directory, `$2`
/// the directory to remove. A postmaster, or an initdb still at work, is known by its name and by
/// the data directory among its arguments.
pub(super) const CLEAN_UP: &str = r#"
servers() {
    for entry in /proc/[0-9]*; do
        case "$(cat "$entry/comm" 2>/dev/null)" in postgres | initdb) ;; *) continue ;; esac
        tr '\0' '\n' < "$entry/cmdline" | grep -qxF -e "$1" && echo "${entry#/proc/}"
    done
}
for pid in $(servers "$1"); do kill -QUIT "$pid"; done
tries=0
while [ -n "$(servers "$1")" ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
for pid in $(servers "$1"); do kill -KILL "$pid"; done
rm -rf -- "$2" || { sleep 1; rm -rf -- "$2"; }
"#;

/// What a server is started with.
pub(super) struct Launch<'a> {
    pub(super) installation: &'a Installation,
    pub(super) account: Option<&'a Account>,
    pub(super) data_dir: &'a Path,
    pub(super) socket_dir: &'a Path,
    pub(super) log: &'a Path,
    pub(super) settings: &'a [(String, String)],
    pub(super) port: u16,
    pub(super) patience: Duration,
}

/// Why a server did not come up.
pub(super) enum Failure {
    /// Another process was faster: try another port.
    PortTaken,
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// A postmaster that is our child, and has said that it is ready.
#[derive(Debug)]
pub(super) struct Postmaster {
    child: Child,
}

impl Postmaster {
    /// Starts a server and waits until it accepts connections; one that has all the WAL of its
    /// recovery beside it, until it takes writes.
    pub(super) fn start(launch: &Launch<'_>) -> Result<Self, Failure> {
        let logged = fs::metadata(launch.log).map_or(0, |log| log.len());
        let mut started = Self { child: launch.spawn()? };
        let status_file = launch.data_dir.join("postmaster.pid");
        let said = || {
            let text = fs::read(launch.log).unwrap_or_default();
            let new = text.get(usize::try_from(logged).unwrap_or(0)..).unwrap_or_default();
            String::from_utf8_lossy(new).into_owned()
        };
        // The lock file does not tell a server that takes writes from one that does not yet.
        let ends_recovery = ends_recovery(launch.data_dir);
        let is_ready = |pid: u32| {
            is_ready(&status_file, pid)
                && (!ends_recovery || said().contains("ready to accept connections"))
        };
        let outcome = poll::until(launch.patience, || match started.child.try_wait() {
            Ok(None) => is_ready(started.child.id()).then_some(None),
            Ok(Some(status)) => Some(Some(status.to_string())),
            Err(error) => Some(Some(error.to_string())),
        });
        let dir = launch.data_dir.display();
        match outcome {
            Some(None) => Ok(started),
            Some(Some(status)) => {
                let said = said();
                if said.contains("Address already in use") {
                    return Err(Failure::PortTaken);
                }
                Err(Failure::Other(anyhow::anyhow!(
                    "the server in {dir} ended at its start ({status}):\n{said}"
                )))
            }
            None => {
                started.terminate();
                Err(Failure::Other(anyhow::anyhow!(
                    "the server in {dir} was not ready within {:?}:\n{}",
                    launch.patience,
                    said()
                )))
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, and waits for the end.
    pub(super) fn stop(&mut self, signal: Signal, limit: Duration) -> Result<()> {
        let ended = self.child.try_wait().context("look at the server")?;
        ensure!(ended.is_none(), "the server has ended by itself");
        self.signal(signal)?;
        match poll::until(limit, || self.child.try_wait().transpose()) {
            Some(ended) => ended.map(drop).context("wait for the server"),
            None => bail!("the server (process {}) did not stop within {limit:?}", self.pid()),
        }
    }

    /// Ends it with SIGKILL as a crash would, then waits for its children, which notice by
    /// themselves: until they are gone, no new server starts in the directory.
    pub(super) fn kill(&mut self, limit: Duration) -> Result<()> {
        let children = children_of(self.pid());
        let shared = SharedMemory::of(children.iter().copied().chain([self.pid()]));
        self.child.kill().context("kill the server")?;
        self.child.wait().context("wait for the killed server")?;
        let gone = poll::until(limit, || children.iter().all(|pid| is_gone(*pid)).then_some(()));
        // Nobody uses it any more, and the kernel would keep it until the machine restarts.
        shared.remove();
        gone.with_context(|| format!("processes of the killed server live on: {children:?}"))
    }

    /// Ends it by whatever works.
    pub(super) fn terminate(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        if self.stop(Signal::QUIT, Duration::from_secs(10)).is_err() {
            let _ = self.kill(Duration::from_secs(10));
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("process id")?;
        // The child has not been waited for, so its id cannot have passed to another process.
        kill_process(pid, signal).with_context(|| format!("signal process {}", self.pid()))
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        self.terminate();
    }
}

impl Launch<'_> {
    fn spawn(&self) -> Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log)
            .context("open the server's log")?;
        let mut command = self.installation.unchecked("postgres");
        command.arg("-D").arg(self.data_dir);
        let setting = |name: &str, value: &OsStr| {
            let mut pair = OsStr::new(name).to_owned();
            pair.push("=");
            pair.push(value);
            pair
        };
        command.arg("-c").arg(setting("listen_addresses", OsStr::new("127.0.0.1")));
        command.arg("-c").arg(setting("port", OsStr::new(&self.port.to_string())));
        command.arg("-c").arg(setting("unix_socket_directories", self.socket_dir.as_os_str()));
        for (name, value) in self.settings {
            command.arg("-c").arg(setting(name, OsStr::new(value)));
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the server's log")?)
            .stderr(log)
            // Ctrl-C in a terminal is for the test; the watchdog then ends the server.
            .process_group(0);
        as_server(&mut command, self.account, self.socket_dir);
        command.spawn().with_context(|| self.cannot_run())
    }

    fn cannot_run(&self) -> String {
        let bin_dir = self.installation.bin_dir.display();
        match self.account {
            Some(account) => {
                format!("run postgres in {bin_dir} as {} (can it get there?)", account.name)
            }
            None => format!("run postgres in {bin_dir}"),
        }
    }
}

/// Lets a command run under the server's account, with nothing of this process's own settings that
/// PostgreSQL would listen to.
pub(super) fn as_server(
    command: &mut std::process::Command,
    account: Option<&Account>,
    home: &Path,
) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") || name.to_string_lossy().starts_with("LC_") {
            command.env_remove(name);
        }
    }
    command.env("LANG", "C").env("TZ", "UTC").env("HOME", home).current_dir(home);
    if let Some(account) = account {
        // Root's supplementary groups are dropped with the user id.
        command.uid(account.uid).gid(account.gid);
    }
}

/// Whether a server will end its recovery by itself, since nothing feeds it and nothing holds it.
fn ends_recovery(data_dir: &Path) -> bool {
    let settings = fs::read_to_string(data_dir.join("postgresql.auto.conf")).unwrap_or_default();
    let last = |name: &str| settings.lines().rfind(|line| line.starts_with(name));
    data_dir.join("recovery.signal").exists()
        && !data_dir.join("standby.signal").exists()
        && last("restore_command") == Some("restore_command = 'false'")
        && last("recovery_target_action").is_none()
}

/// Reads the status that a postmaster keeps in its lock file, as pg_ctl does.
fn is_ready(status_file: &Path, pid: u32) -> bool {
    let text = fs::read_to_string(status_file).unwrap_or_default();
    let mut lines = text.lines();
    let own = lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid);
    own && matches!(lines.nth(6).map(str::trim), Some("ready" | "standby"))
}
