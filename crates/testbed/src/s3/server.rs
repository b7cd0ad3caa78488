//! One running S3 server.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{poll, watchdog::Watchdog};

/// It loads hundreds of Python modules, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server on a free port of 127.0.0.1, empty at its start. It is stopped with the value, and when
/// this process is killed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    _log: tempfile::TempDir,
    _watchdog: Watchdog,
}

impl Server {
    /// Starts one. Fails when it is not installed: `cargo xtask setup` does that.
    pub fn start() -> Result<Self> {
        let installed = super::installed()
            .context("no S3 server is installed for the tests: run `cargo xtask setup`")?;
        let dir = tempfile::tempdir().context("make a directory for the log")?;
        let log = dir.path().join("log");
        let out = File::create(&log).context("make the log")?;
        let child = Command::new("python3")
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONPATH", installed)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(out.try_clone().context("share the log")?)
            .stderr(out)
            // Ctrl-C is for the test, which then stops it.
            .process_group(0)
            .spawn()
            .context("run python3")?;
        let pid = child.id().to_string();
        let watchdog = Watchdog::new("kill -9 \"$1\"", &[pid.as_ref()]);
        let mut starting = Starting(Some(child));
        let watchdog = watchdog?;
        let address = starting.address(&log)?;
        let Some(child) = starting.0.take() else {
            bail!("the server is gone");
        };
        Ok(Self { child, address, _log: dir, _watchdog: watchdog })
    }

    /// Where it listens, for a proxy in front of it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client takes as its endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        self.ask("PUT", &format!("/{name}"), "", "").with_context(|| format!("make bucket {name}"))
    }

    /// Makes a bucket with object lock, in which nobody can destroy a new version before so many
    /// days are over.
    pub fn create_locked_bucket(&self, name: &str, days: u32) -> Result<()> {
        let lock = "x-amz-bucket-object-lock-enabled: true\r\n";
        let told = || format!("make bucket {name} with a lock");
        self.ask("PUT", &format!("/{name}"), lock, "").with_context(told)?;
        let rule = format!(
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>\
             <DefaultRetention><Mode>COMPLIANCE</Mode><Days>{days}</Days></DefaultRetention>\
             </Rule></ObjectLockConfiguration>"
        );
        self.ask("PUT", &format!("/{name}?object-lock"), "", &rule).with_context(told)
    }

    /// From now on, a thaw is done when the object was looked at so many times; before, it is done
    /// at once. Holds for all buckets of this server.
    pub fn slow_thaws(&self, looks: u32) -> Result<()> {
        let transition = format!(
            "{{\"model_name\": \"s3::keyrestore\", \
             \"transition\": {{\"progression\": \"manual\", \"times\": {looks}}}}}"
        );
        self.ask("POST", "/moto-api/state-manager/set-transition", "", &transition)
            .context("have thaws take their time")
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Result<()> {
        let mut stream = TcpStream::connect(self.address).context("connect to the S3 server")?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).context("send the request")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("read the answer")?;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "{method} {path}: {answer}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Killed unless it is taken out.
struct Starting(Option<Child>);

impl Starting {
    fn address(&mut self, log: &Path) -> Result<SocketAddr> {
        let said = || fs::read_to_string(log).unwrap_or_default();
        let Some(child) = &mut self.0 else {
            bail!("the server is gone");
        };
        let outcome = poll::until(PATIENCE, || match child.try_wait() {
            Ok(None) => address_in(&said()).map(Ok),
            Ok(Some(status)) => Some(Err(status.to_string())),
            Err(error) => Some(Err(error.to_string())),
        });
        match outcome {
            Some(Ok(address)) => Ok(address),
            Some(Err(status)) => bail!("the S3 server ended at its start ({status}):\n{}", said()),
            None => bail!("the S3 server was not ready within {PATIENCE:?}:\n{}", said()),
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The line must be whole: a port of which half is written is another port.
fn address_in(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("Running on http://")?;
    let (address, _) = rest.split_once('\n')?;
    address.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_and_goes() {
        let server = Server::start().unwrap();
        server.create_bucket("bucket").unwrap();
        let address = server.address();
        drop(server);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn half_a_port_is_none() {
        assert_eq!(address_in("x\n * Running on http://127.0.0.1:80"), None);
        let whole = address_in("x\n * Running on http://127.0.0.1:80\n");
        assert_eq!(whole, Some(SocketAddr::from(([127, 0, 0, 1], 80))));
    }
}
