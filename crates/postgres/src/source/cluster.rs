//! A server and its data directory, and whether the two belong together.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::connect::{Session, parsed};
use crate::control::Control;
use crate::error::{Error, Result};

/// The majors for which backups are known to be right.
pub(crate) const SUPPORTED: std::ops::RangeInclusive<u32> = 14..=18;

/// The server writes `pg_control` and then shows it, or the other way round; a moment later both
/// say the same.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// A data directory that is that of the server connected to.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) directory: PathBuf,
    pub(crate) major: u32,
    pub(crate) control: Control,
    /// Where the server's own log files are, relative to the data directory, when they are in it.
    pub(crate) log_directory: Option<PathBuf>,
}

impl Cluster {
    /// Finds the data directory of the server, and makes sure that it is the right one.
    pub(crate) async fn find(session: &Session, named: Option<&Path>) -> Result<Self> {
        if !SUPPORTED.contains(&session.major()) {
            return Err(Error::Version { found: session.version_text().to_owned() });
        }
        let directory = match named {
            Some(path) => path.to_owned(),
            None => session
                .setting("data_directory")
                .await?
                .map(PathBuf::from)
                .ok_or(Error::DataDirectoryHidden)?,
        };
        let log_directory = match session.setting("log_directory").await? {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from("log"),
        };
        let control = same_server(session, &directory).await?;
        Ok(Self {
            log_directory: inside(&directory, log_directory),
            directory,
            major: session.major(),
            control,
        })
    }

    /// Reads `pg_control` again.
    pub(crate) async fn control_now(&self) -> Result<Control> {
        read_control(&self.directory).await
    }

    /// The directory that each tablespace keeps for this version and catalogue.
    pub(crate) fn version_directory(&self) -> String {
        format!("PG_{}_{}", self.major, self.control.catalog_version)
    }
}

fn inside(directory: &Path, path: PathBuf) -> Option<PathBuf> {
    if path.is_relative() {
        return Some(path);
    }
    path.strip_prefix(directory).ok().map(Path::to_owned)
}

async fn read_control(directory: &Path) -> Result<Control> {
    let directory = directory.to_owned();
    blocking(move || Control::read(&directory)).await
}

/// Runs work that blocks where it may block.
pub(crate) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(E::from(Error::Panicked { source: error })),
    }
}

/// Makes sure that the directory is that of the server, and returns its `pg_control`.
///
/// The system identifier alone would not do: a standby and a restored copy have it too. So the lock
/// file must name the server's port, and the last checkpoint must be the same in the file and in
/// the server's memory.
async fn same_server(session: &Session, directory: &Path) -> Result<Control> {
    const WHAT: &str = "ask the server for its identity";
    let other = |why: String| Error::OtherServer {
        path: directory.to_owned(),
        target: session.target().to_owned(),
        why,
    };
    let control = read_control(directory).await?;
    let row = session
        .one(
            WHAT,
            "SELECT system_identifier::text, pg_catalog.current_setting('port') FROM pg_control_system()",
            &[],
        )
        .await?;
    let system_id: String = parsed(WHAT, row.try_get(0))?;
    // The server shows it as a signed number.
    let system_id = system_id.parse::<i64>().map_or(0, i64::cast_unsigned);
    if system_id != control.system_id {
        return Err(other(format!(
            "its system identifier is {}, the server's {system_id}",
            control.system_id
        )));
    }
    let port: u16 = parsed(WHAT, row.try_get(1))?;
    match lock_file(directory)? {
        None => return Err(other("no server runs in it".into())),
        Some(lock) if lock.port.is_some_and(|found| found != port) => {
            let found = lock.port.unwrap_or_default();
            return Err(other(format!("the server in it uses port {found}, this one port {port}")));
        }
        Some(_) => {}
    }
    let mut control = control;
    let mut shown = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
            control = read_control(directory).await?;
        }
        let row = session
            .one(WHAT, "SELECT checkpoint_lsn::text FROM pg_control_checkpoint()", &[])
            .await?;
        shown = parsed(WHAT, row.try_get(0))?;
        if shown == control.checkpoint.to_string() {
            return Ok(control);
        }
    }
    Err(other(format!("its last checkpoint is at {}, the server's at {shown}", control.checkpoint)))
}

/// What a running server writes into `postmaster.pid`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LockFile {
    pub(crate) pid: u32,
    pub(crate) port: Option<u16>,
}

/// Reads the lock file of a data directory; `None` when there is none. Blocks for a moment only.
pub(crate) fn lock_file(directory: &Path) -> Result<Option<LockFile>> {
    let path = directory.join("postmaster.pid");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(LockFile::parse(&text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { what: "read", path, source }),
    }
}

impl LockFile {
    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        // A single-user server writes its process id with a minus.
        let pid = lines.next().map(|pid| pid.trim().trim_start_matches('-'));
        Self {
            pid: pid.and_then(|pid| pid.parse().ok()).unwrap_or_default(),
            port: lines.nth(2).and_then(|port| port.trim().parse().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_is_read() {
        let text = "4711\n/data\n1700000000\n5432\n/tmp\n127.0.0.1\n  123  456\nready   \n";
        assert_eq!(LockFile::parse(text), LockFile { pid: 4711, port: Some(5432) });
        assert_eq!(LockFile::parse("-5\n"), LockFile { pid: 5, port: None });
    }

    #[test]
    fn logs_elsewhere_are_not_ours() {
        let data = Path::new("/data");
        assert_eq!(inside(data, "log".into()), Some("log".into()));
        assert_eq!(inside(data, "/data/a/b".into()), Some("a/b".into()));
        assert_eq!(inside(data, "/var/log".into()), None);
    }
}
