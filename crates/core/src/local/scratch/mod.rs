//! A directory for a server that runs for a while, and is gone with it, whatever happens.

mod watchdog;

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use self::watchdog::Watchdog;
use crate::error::{ErrorKind, Failure};

/// How a server is ended of which nobody holds the handle any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// Killed.
    #[default]
    AtOnce,
    /// With `SIGQUIT`, and killed when it is there ten seconds later.
    Asked,
}

/// What a scratch place is for.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ScratchPlaceOptions {
    /// The name of the file, in the server's directory, whose first line is its process id.
    pub pid_file: String,
    /// How the server is ended when this process is killed.
    pub ending: Ending,
    /// What comes behind the directory in the path of its socket, which has 107 bytes at most.
    pub socket: String,
    /// To whom the directory belongs: the account that the server runs under, by its numbers.
    pub account: Option<(u32, u32)>,
}

/// Why there is no scratch place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScratchPlaceError {
    /// A socket could not be made there.
    #[error("the path {} is too long for a socket", path.display())]
    LongPath {
        /// The path.
        path: PathBuf,
    },
    /// A directory could not be worked with.
    #[error("{what} {}", path.display())]
    File {
        /// What was being done.
        what: &'static str,
        /// To which one.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Failure for ScratchPlaceError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::LongPath { .. } => ErrorKind::InvalidInput,
            Self::File { source, .. } => ErrorKind::of_io(source),
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::LongPath { .. } => "name a shorter one with --scratch".into(),
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "name a directory with more room with --scratch".into()
            }
            Self::File { .. } => "name another directory with --scratch".into(),
        })
    }
}

/// A new directory that only one account can enter. It is removed when this is dropped; when this
/// process is killed, a small shell ends the server in it, and removes it.
#[derive(Debug)]
pub struct ScratchPlace {
    directory: PathBuf,
    watchdog: Watchdog,
}

impl ScratchPlace {
    /// The longest path of a socket.
    const LONGEST_SOCKET: usize = 107;

    /// Makes one beneath a directory. Blocks.
    ///
    /// # Errors
    /// When the path is too long for a socket, or the directory cannot be made or given away.
    /// Nothing is left behind then.
    pub fn make(beneath: &Path, options: &ScratchPlaceOptions) -> Result<Self, ScratchPlaceError> {
        let directory = make_directory(beneath, options)?;
        let watchdog = Watchdog::new(&directory, &options.pid_file, options.ending);
        let watchdog = watchdog.map_err(|source| {
            let _ = fs::remove_dir(&directory);
            let what = "start a shell that removes";
            ScratchPlaceError::File { what, path: directory.clone(), source }
        })?;
        Ok(Self { directory, watchdog })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The server's own directory in it, which it works in; not made yet.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Bytes of room where it is; `None` when that cannot be told.
    pub fn room(&self) -> Option<u64> {
        let room = rustix::fs::statvfs(&self.directory).ok()?;
        room.f_bavail.checked_mul(room.f_frsize)
    }
}

impl Drop for ScratchPlace {
    fn drop(&mut self) {
        if fs::remove_dir_all(&self.directory).is_ok() {
            self.watchdog.dismiss();
        }
    }
}

fn make_directory(
    beneath: &Path,
    options: &ScratchPlaceOptions,
) -> Result<PathBuf, ScratchPlaceError> {
    let failed = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| ScratchPlaceError::File { what, path, source }
    };
    let beneath = fs::canonicalize(beneath).map_err(failed("find", beneath))?;
    let moment = Timestamp::now().as_nanosecond();
    for attempt in 0..100 {
        let name =
            format!("lifeboat-{:x}-{:x}", std::process::id(), moment % 0xFFFF_FFFF + attempt);
        let directory = beneath.join(name);
        let socket = directory.as_os_str().len() + 1 + options.socket.len();
        if socket > ScratchPlace::LONGEST_SOCKET {
            return Err(ScratchPlaceError::LongPath { path: directory });
        }
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(failed("make", &directory)(error)),
        }
        if let Some((uid, gid)) = options.account {
            let given = std::os::unix::fs::chown(&directory, Some(uid), Some(gid));
            if let Err(error) = given {
                let _ = fs::remove_dir(&directory);
                return Err(failed("give away", &directory)(error));
            }
        }
        return Ok(directory);
    }
    Err(failed("make a directory in", &beneath)(io::ErrorKind::AlreadyExists.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_for_one_account_and_goes_when_it_is_dropped() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let options = ScratchPlaceOptions { pid_file: "pid".into(), ..Default::default() };
        let place = ScratchPlace::make(dir.path(), &options).unwrap();
        let path = place.directory().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::create_dir(place.data()).unwrap();
        assert!(place.room().is_some());
        drop(place);
        assert!(!path.exists());

        let options = ScratchPlaceOptions { socket: "x".repeat(100), ..options };
        let error = ScratchPlace::make(dir.path(), &options).unwrap_err();
        assert!(matches!(error, ScratchPlaceError::LongPath { .. }), "{error}");
        let missing = dir.path().join("missing");
        assert!(ScratchPlace::make(&missing, &ScratchPlaceOptions::default()).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
