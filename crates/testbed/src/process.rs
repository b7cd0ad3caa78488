//! Running a program to its end, within a limit, and measuring it.

use std::{
    fs::{self, File},
    io::{Read, Seek},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::poll;

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What was run, as one would type it.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to standard output.
    pub stdout: String,
    /// All it wrote to standard error.
    pub stderr: String,
    /// From its start to its end.
    pub wall: Duration,
    /// Processor time, its own and that of the children it waited for; exact to 10 ms.
    pub cpu: Duration,
    /// Bytes that it read and wrote, from and to files, pipes and sockets, as far as that was known
    /// a few milliseconds before its end.
    pub moved: u64,
    /// The most memory it held at once, in bytes. The kernel keeps the maximum and forgets it when
    /// the process ends, so it is asked every few milliseconds: what a process takes in its last
    /// moment may be missing. (The figure that `wait4` gives is no better: it starts from the
    /// memory of the parent.)
    pub peak_rss: u64,
}

impl Finished {
    /// Itself when the program ended in success, else an error with what it said.
    pub fn success(self) -> Result<Self> {
        if !self.status.success() {
            bail!("`{}` failed ({}):\n{}{}", self.command, self.status, self.stdout, self.stderr);
        }
        Ok(self)
    }
}

/// Runs a program to its end. Beyond the limit it is killed, with its children, and an error
/// returned. Standard input is what the command says, or the caller's.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    start(command)?.wait(limit)
}

/// Starts a program whose output is kept. To be [waited for](Running::wait), or killed.
pub fn start(command: &mut Command) -> Result<Running> {
    let name = describe(command);
    // Files, not pipes: a pipe is open until the last grandchild has closed it.
    let stdout = tempfile::tempfile().context("make a file for the output")?;
    let stderr = tempfile::tempfile().context("make a file for the output")?;
    let child = command
        .stdout(stdout.try_clone().context("share the output's file")?)
        .stderr(stderr.try_clone().context("share the output's file")?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("run `{name}`"))?;
    Ok(Running {
        child,
        name,
        stdout,
        stderr,
        started: Instant::now(),
        moved: 0,
        peak_rss: 0,
        reaped: false,
    })
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// A program at work, in a process group of its own. Dropping it kills the group.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    stdout: File,
    stderr: File,
    started: Instant,
    moved: u64,
    peak_rss: u64,
    reaped: bool,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has read and written so many bytes, or has ended. Unlike the time on the wall,
    /// that is the same on a busy machine.
    pub fn moves(&self, bytes: u64, limit: Duration) -> Result<()> {
        let id = self.id()?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let reached = poll::until(limit, || {
            let ended = matches!(waitid(WaitId::Pid(id), options), Ok(Some(_)) | Err(_));
            (ended || bytes_moved(id).is_none_or(|moved| moved >= bytes)).then_some(())
        });
        reached.with_context(|| format!("`{}` has not moved {bytes} bytes in {limit:?}", self.name))
    }

    /// Kills it, with its children, by SIGKILL. It is still to be waited for.
    pub fn kill(&mut self) -> Result<()> {
        let group = self.id()?;
        kill_process_group(group, Signal::KILL).with_context(|| format!("kill `{}`", self.name))
    }

    /// Waits for its end. Beyond the limit it is killed, and an error returned.
    pub fn wait(mut self, limit: Duration) -> Result<Finished> {
        let id = self.id()?;
        // Not reaped yet, the ended process still shows its processor time.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = poll::until(limit, || {
            self.peak_rss = self.peak_rss.max(high_water_mark(id).unwrap_or(0));
            self.moved = self.moved.max(bytes_moved(id).unwrap_or(0));
            matches!(waitid(WaitId::Pid(id), options), Ok(Some(_)) | Err(_)).then_some(())
        });
        let wall = self.started.elapsed();
        if ended.is_none() {
            self.kill()?;
        }
        let cpu = processor_time(id).unwrap_or_default();
        let status = self.child.wait().with_context(|| format!("wait for `{}`", self.name))?;
        self.reaped = true;
        let finished = Finished {
            command: self.name.clone(),
            status,
            stdout: text(&mut self.stdout)?,
            stderr: text(&mut self.stderr)?,
            wall,
            cpu,
            moved: self.moved,
            peak_rss: self.peak_rss,
        };
        if ended.is_none() {
            let Finished { stdout, stderr, .. } = finished;
            bail!("`{}` was killed after {limit:?}; it said:\n{stdout}{stderr}", self.name);
        }
        Ok(finished)
    }

    fn id(&self) -> Result<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("process id")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.kill();
            let _ = self.child.wait();
        }
    }
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).context("read the output")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn high_water_mark(id: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", id.as_raw_nonzero())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn bytes_moved(id: Pid) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{}/io", id.as_raw_nonzero())).ok()?;
    let of = |name: &str| -> Option<u64> {
        io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    Some(of("rchar:")? + of("wchar:")?)
}

fn processor_time(id: Pid) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero())).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // User and system time, then the same of the children waited for.
    let ticks: u64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn output_and_status_are_kept() {
        let finished = run(&mut sh("echo out; echo err >&2; exit 3"), LIMIT).unwrap();
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(finished.status.code(), Some(3));
        let error = finished.success().unwrap_err().to_string();
        assert!(error.contains("err"), "{error}");
    }

    #[test]
    fn memory_and_processor_time_are_measured() {
        // A variable of 64 MiB, made in a loop that takes its time.
        let script = "x=x; n=0; while [ $n -lt 26 ]; do x=$x$x; n=$((n+1)); done; \
                      n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done";
        let finished = run(&mut sh(script), LIMIT).unwrap().success().unwrap();
        assert!(finished.peak_rss >= 64 << 20, "{finished:?}");
        assert!(finished.cpu > Duration::ZERO && finished.cpu <= finished.wall * 2, "{finished:?}");
    }

    #[test]
    fn beyond_the_limit_the_whole_group_is_killed() {
        let start = Instant::now();
        let error = run(&mut sh("echo begun; sleep 600 & sleep 600"), Duration::from_millis(300));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("killed after 300ms") && error.contains("begun"), "{error}");
        assert!(start.elapsed() < LIMIT);
    }

    #[test]
    fn a_running_program_can_be_killed() {
        let mut running = start(&mut sh("sleep 600")).unwrap();
        running.kill().unwrap();
        assert!(!running.wait(LIMIT).unwrap().status.success());
    }
}
