//! What removes a scratch server when this process is killed.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::Ending;

/// Ends the server of the file `$1/data/$2`, if it is one that runs in there, with the signal `$3`, and
/// removes `$1`. A word on the pipe dismisses it.
const SCRIPT: &str = r#"
read -r _ && exit 0
stop() {
    pid=$(head -n 1 "$1/data/$2" 2>/dev/null) || return 0
    case "$pid" in '' | *[!0-9]*) return 0 ;; esac
    [ "$(readlink "/proc/$pid/cwd")" = "$1/data" ] || return 0
    kill -"$3" "$pid"
    tries=0
    while [ -d "/proc/$pid" ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
    [ ! -d "/proc/$pid" ] || kill -KILL "$pid"
}
stop "$1" "$2" "$3"
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
    pub(super) fn new(directory: &Path, pid_file: &str, ending: Ending) -> io::Result<Self> {
        let signal = match ending {
            Ending::AtOnce => "KILL",
            Ending::Asked => "QUIT",
        };
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "lifeboat-watchdog"])
            .arg(directory)
            .args([pid_file, signal])
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
        let mut watchdog = Watchdog::new(kept.path(), "pid", Ending::Asked).unwrap();
        watchdog.dismiss();
        drop(watchdog);
        assert!(kept.path().exists());
        drop(Watchdog::new(kept.path(), "pid", Ending::Asked).unwrap());
        assert!(!kept.path().exists());
    }

    #[test]
    fn it_ends_the_server_that_works_there_and_no_other() {
        for (ending, works_there) in
            [(Ending::AtOnce, true), (Ending::Asked, true), (Ending::AtOnce, false)]
        {
            let place = tempfile::tempdir().unwrap();
            let directory = place.path().canonicalize().unwrap();
            let data = directory.join("data");
            std::fs::create_dir(&data).unwrap();
            let cwd = if works_there { &*data } else { Path::new("/") };
            let mut server = Command::new("sleep").arg("600").current_dir(cwd).spawn().unwrap();
            std::fs::write(data.join("pid"), format!("{}\nmore\n", server.id())).unwrap();
            let watchdog = Watchdog::new(&directory, "pid", ending).unwrap();
            // It must not be left as a zombie, which would still be there.
            let ended = std::thread::spawn(move || {
                let began = std::time::Instant::now();
                while works_there && server.try_wait().unwrap().is_none() {
                    assert!(began.elapsed().as_secs() < 60, "it was not ended");
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                let runs = server.try_wait().unwrap().is_none();
                let _ = server.kill();
                let _ = server.wait();
                runs
            });
            drop(watchdog);
            assert_eq!(ended.join().unwrap(), !works_there);
            assert!(!directory.exists());
        }
    }
}
