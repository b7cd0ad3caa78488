//! One process from its start to its end: what it cost, and what else the machine did meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lifeboat_testbed::process;

/// No run of the usual size takes minutes, on any machine that is worth measuring on.
const LIMIT: Duration = Duration::from_secs(3600);

/// How often memory is looked at, in processes that the measured one starts.
const SAMPLING: Duration = Duration::from_millis(25);

/// What one run cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) wall: Duration,
    /// User and system time of the process and of the children that it waited for.
    pub(crate) cpu: Duration,
    /// The same of the database server meanwhile; zero where there is none.
    pub(crate) server_cpu: Duration,
    /// The most memory that any one of its processes held, in bytes.
    pub(crate) peak_rss: u64,
    /// The share of the machine's processors that went to anybody else, 0 to 1. The kernel's work
    /// for us that it does in threads of its own, such as writing back, counts here too.
    pub(crate) others: f64,
    /// The share of the time in which something on the machine waited for a processor, 0 to 1: our
    /// own threads are among that.
    pub(crate) pressure: f64,
    /// Bytes by which the repository grew.
    pub(crate) stored: u64,
}

/// Runs a command to its end, which must be success. `server` is the process id of the database
/// server that works for it.
pub(crate) fn measure(command: &mut Command, server: Option<u32>) -> Result<Sample> {
    let server_cpu = || server.map_or(Ok(Duration::ZERO), family_time);
    let (busy, waiting, served) = (busy_time()?, waiting_time(), server_cpu()?);
    let start = Instant::now();
    let running = process::start(command)?;
    let pid = running.pid();
    let (done, ended) = mpsc::channel::<()>();
    let watcher = thread::spawn(move || {
        let mut peaks = BTreeMap::new();
        while ended.recv_timeout(SAMPLING) == Err(RecvTimeoutError::Timeout) {
            look_at_memory(pid, &mut peaks);
        }
        peaks.into_values().max().unwrap_or(0)
    });
    let finished = running.wait(LIMIT);
    let elapsed = start.elapsed();
    let (busy, waiting) = (busy_time()?.saturating_sub(busy), waiting_time().zip(waiting));
    drop(done);
    let of_children = watcher.join().unwrap_or(0);
    let finished = finished?.success()?;
    if server.is_some() {
        // A session ends a moment after its client, and must not be looked at in between.
        thread::sleep(Duration::from_millis(50));
    }
    let served = server_cpu()?.saturating_sub(served);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let others = busy.saturating_sub(finished.cpu + served).as_secs_f64();
    let waited = waiting.map_or(Duration::ZERO, |(after, before)| after.saturating_sub(before));
    Ok(Sample {
        wall: finished.wall,
        cpu: finished.cpu,
        server_cpu: served,
        peak_rss: finished.peak_rss.max(of_children),
        others: others / (elapsed.as_secs_f64() * cores as f64),
        pressure: waited.as_secs_f64() / elapsed.as_secs_f64(),
        stored: 0,
    })
}

/// Notes the memory of a process and of all that it started, directly or not.
fn look_at_memory(pid: u32, peaks: &mut BTreeMap<u32, u64>) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let peak = peaks.entry(pid).or_default();
    *peak = (*peak).max(kibibytes.unwrap_or(0) * 1024);
    for child in children(pid) {
        look_at_memory(child, peaks);
    }
}

fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect()
}

/// Processor time of a server: its own, that of its children of the past, and of those alive.
fn family_time(pid: u32) -> Result<Duration> {
    let own = ticks(pid, 4).context("the database server is gone")?;
    let alive: u64 = children(pid).into_iter().filter_map(|child| ticks(child, 2)).sum();
    Ok(from_ticks(own + alive))
}

/// User and system time of a process; with four fields, of its children that have ended as well.
fn ticks(pid: u32, fields: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let values: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let values = values.get(11..11 + fields)?.iter();
    Some(values.filter_map(|value| value.parse::<u64>().ok()).sum())
}

/// Time in which the machine's processors did anything, and time that the host took from them.
fn busy_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, (idle, waiting for disks,) interrupts, soft interrupts, stolen
    Ok(from_ticks([0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum()))
}

/// Time in which something waited for a processor. `None` where the kernel does not count it.
fn waiting_time() -> Option<Duration> {
    let pressure = fs::read_to_string("/proc/pressure/cpu").ok()?;
    let micros = pressure.lines().next()?.rsplit_once("total=")?.1;
    micros.trim().parse().ok().map(Duration::from_micros)
}

/// What Linux shows in /proc counts hundredths of a second, on every architecture we run on.
fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}
