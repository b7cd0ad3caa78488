//! What removes a scratch server when this process is killed.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Ends the server of `$1/data/server.pid`, if it is one that runs there, and removes `$1`. A word on
/// the pipe dismisses it.
const SCRIPT: &str = r#"
read -r _ && exit 0
stop() {
    pid=$(head -n 1 "$1/data/server.pid" 2>/dev/null) || return 0
    case "$pid" in '' | *[!0-9]*) return 0 ;; esac
    [ "$(readlink "/proc/$pid/cwd")" = "$1/data" ] || return 0
    kill -KILL "$pid"
    tries=0
    while [ -d "/proc/$pid" ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
}
stop "$1"
rm -rf -- "$1" || { sleep 1; rm -rf -- "$1"; }
"#;

/// A small shell that waits for the end of this process, however it comes about: destructors do
/// not run in a process that is killed, but the kernel closes its pipes.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "lifeboat-watchdog"])
            .arg(directory)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What ends this process's group must not end it.
            .process_group(0)
            .spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// There is nothing left to do for it.
    pub(super) fn dismiss(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _ = pipe.write_all(b"dismissed\n");
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Not dismissed, it cleans up now: its pipe is closed.
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_removes_what_it_was_not_dismissed_from() {
        let kept = tempfile::tempdir().unwrap();
        let mut watchdog = Watchdog::new(kept.path()).unwrap();
        watchdog.dismiss();
        drop(watchdog);
        assert!(kept.path().exists());
        drop(Watchdog::new(kept.path()).unwrap());
        assert!(!kept.path().exists());
    }
}
