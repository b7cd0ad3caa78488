//! Cleaning up after a process that was killed.

use std::{
    ffi::OsStr,
    io::Write,
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context, Result};

/// A small shell that waits on a pipe and runs a script once this process is gone, however it went.
///
/// Destructors do not run in a process that is killed, and its servers would stay. The kernel can
/// signal a child whose parent dies, but it means the parent's *thread*: a server started by a
/// test's worker thread would stop with that thread. The end of a pipe has no such trap.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shell: Child,
    /// Closed by the kernel when this process ends; no other process inherits it.
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Runs `script` with `arguments` as `$1`, `$2`, … when this process dies.
    pub(crate) fn new(script: &str, arguments: &[&OsStr]) -> Result<Self> {
        let mut shell = Command::new("sh")
            .arg("-c")
            .arg(format!("read -r _ && exit 0\n{script}"))
            .arg("lifeboat-watchdog")
            .args(arguments)
            .current_dir("/")
            // Holding the output of the test would make its reader wait for the watchdog; being in
            // its process group would make Ctrl-C end the watchdog, too.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("start a watchdog with sh")?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }
}

impl Drop for Watchdog {
    /// Dismisses it: the owner has cleaned up.
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _ = pipe.write_all(b"dismissed\n");
        }
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dismissed_it_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(Watchdog::new("rmdir -- \"$1\"", &[dir.path().as_os_str()]).unwrap());
        assert!(dir.path().exists());
    }

    #[test]
    fn the_end_of_the_pipe_wakes_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut watchdog = Watchdog::new("rmdir -- \"$1\"", &[dir.path().as_os_str()]).unwrap();
        watchdog.pipe = None;
        assert!(watchdog.shell.wait().unwrap().success());
        assert!(!dir.path().exists());
    }
}
