//! Whether a directory may become a data directory.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use lifeboat_core::local::{Root, failed};

use super::ClusterSink;
use crate::error::{Error, Result};
use crate::source::lock_file;

/// The absolute form of a path that is new, or an empty directory. Blocks.
pub(super) fn vacant(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|source| Error::File {
        what: "find",
        path: path.to_owned(),
        source,
    })?;
    match is_vacant(&absolute) {
        Ok(true) => return Ok(absolute),
        Ok(false) => {}
        Err(source) => {
            return Err(Error::File { what: "list", path: absolute, source });
        }
    }
    if let Some(lock) = lock_file(&absolute)?
        && lock.pid != 0
        && Path::new("/proc").join(lock.pid.to_string()).exists()
    {
        return Err(Error::TargetRunning { path: absolute, pid: lock.pid });
    }
    if absolute.join(ClusterSink::MARKER).exists() && !absolute.join("global/pg_control").exists() {
        return Err(Error::TargetUnfinished { path: absolute });
    }
    Err(Error::TargetNotEmpty { path: absolute })
}

/// Makes a directory for nobody but its owner, when it does not exist. Directories above it that
/// are missing are made so that the server, which may be another account, gets through. Blocks.
pub(super) fn make_directory(path: &Path) -> lifeboat_core::Result<Root> {
    if let Some(above) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(above)
            .map_err(|error| failed("make directory", &above.display(), error))?;
    }
    Root::create(path)
}

/// Whether there is nothing at a path, or an empty directory. Blocks.
pub(super) fn is_vacant(path: &Path) -> io::Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A link into nowhere is not nothing.
            Ok(fs::symlink_metadata(path).is_err())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_and_empty_directories_will_do() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(vacant(dir.path()).unwrap(), dir.path());
        assert!(vacant(&dir.path().join("new/er")).is_ok());

        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(vacant(&file), Err(Error::File { .. })));
        assert!(matches!(vacant(dir.path()), Err(Error::TargetNotEmpty { .. })));

        let own = std::process::id();
        fs::write(dir.path().join("postmaster.pid"), format!("{own}\n")).unwrap();
        assert!(matches!(vacant(dir.path()), Err(Error::TargetRunning { pid, .. }) if pid == own));

        let cut = tempfile::tempdir().unwrap();
        fs::write(cut.path().join(ClusterSink::MARKER), "").unwrap();
        assert!(matches!(vacant(cut.path()), Err(Error::TargetUnfinished { .. })));
    }

    #[test]
    fn a_link_into_nowhere_is_not_vacant() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(vacant(&link).is_err());
    }
}
