//! The side that listens.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::{Error, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Answer, MAX_LINE, line, understood};
use crate::commands::WalService;

/// A call says at once what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many calls are answered side by side; the others wait.
const AT_ONCE: usize = 16;
/// Where listening fails again and again, it is not tried in a loop.
const PAUSE: Duration = Duration::from_millis(200);

/// A socket on which a service listens. Dropping it removes the socket.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Listener {
    /// Listens at `path`, for this account and root only. What is left there of a service that is
    /// gone is removed.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](lifeboat_core::ErrorKind::AlreadyExists) when a service
    /// listens there; when the socket cannot be made.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let failed = |error| Error::io(format!("listen at {}", path.display()), error);
        if let Some(directory) = path.parent() {
            let mut making = fs::DirBuilder::new();
            making.recursive(true).mode(0o700).create(directory).map_err(failed)?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_err() && path.exists() {
            fs::remove_file(path).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let own = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
        own.inspect_err(|_| drop(fs::remove_file(path))).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers for ever. Dropping the future ends all that is being answered; the calls then do
    /// their work alone.
    pub(crate) async fn serve(&self, service: Arc<WalService>) {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut calls = JoinSet::new();
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a call for WAL cannot be taken");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
                Some(_) = calls.join_next() => continue,
            };
            let own = rustix::process::geteuid().as_raw();
            let trusted = |uid: u32| uid == 0 || uid == own;
            if !stream.peer_cred().is_ok_and(|peer| trusted(peer.uid())) {
                continue;
            }
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let service = Arc::clone(&service);
            calls.spawn(async move {
                let _ = answer(stream, &service).await;
                drop(permit);
            });
        }
    }
}

async fn answer(mut stream: UnixStream, service: &WalService) -> std::io::Result<()> {
    let mut said = Vec::new();
    let (reading, mut writing) = stream.split();
    let mut limited = BufReader::new(reading).take(MAX_LINE);
    tokio::time::timeout(PATIENCE, limited.read_until(b'\n', &mut said)).await??;
    // Who is not understood gets no answer, and goes on alone.
    let Some(request) = said.strip_suffix(b"\n").and_then(understood) else {
        return Ok(());
    };
    let answer: Answer = service.answer(request).await;
    if let Some(line) = line(answer) {
        tokio::time::timeout(PATIENCE, writing.write_all(&line)).await??;
    }
    Ok(())
}
