//! The machine that it was measured on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

/// What a reader has to know of a machine, to compare it with another.
#[derive(Debug)]
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    memory: String,
    kernel: String,
    file_system: String,
    /// The load, in the words of /proc/loadavg, when it began and when it had ended.
    load: (String, String),
}

impl Machine {
    pub(crate) fn look(work: &Path) -> Self {
        Self {
            cores: thread::available_parallelism().map_or(1, usize::from),
            processor: field("/proc/cpuinfo", "model name").unwrap_or("unknown".to_owned()),
            memory: field("/proc/meminfo", "MemTotal").map_or("unknown".to_owned(), gibibytes),
            kernel: read("/proc/sys/kernel/osrelease"),
            file_system: file_system(work).unwrap_or("unknown".to_owned()),
            load: (load(), String::new()),
        }
    }

    pub(crate) fn look_again(&mut self) {
        self.load.1 = load();
    }

    pub(crate) fn describe(&self) -> String {
        let Self { cores, processor, memory, kernel, file_system, load: (before, after) } = self;
        format!(
            "- Machine: {cores} cores ({processor}), {memory}, Linux {kernel}; data and \
             repositories on the same {file_system}\n\
             - Load average over 1, 5 and 15 minutes: {before} before, {after} after"
        )
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn gibibytes(kibibytes: String) -> String {
    let number = kibibytes.split(' ').next().and_then(|number| number.parse::<f64>().ok());
    number.map_or(kibibytes, |number| format!("{:.1} GiB of memory", number / f64::from(1 << 20)))
}

fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn file_system(path: &Path) -> Option<String> {
    let output = Command::new("df").arg("--output=fstype").arg(path).output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.lines().nth(1)?.trim().to_owned())
}
