//! The file that says that a tree is not whole.

use std::fs::File;
use std::os::unix::fs::FileExt;

use lifeboat_core::local::{Root, Status, failed};
use lifeboat_core::{EntryPath, Result};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::Error;

/// It lies at the top of the target from before the first entry until all of them are durable.
pub(crate) const MARKER: &str = ".lifeboat-incomplete";

const TEXT: &str = "\
A restore into this directory has not finished, or was interrupted. What lies here is not whole.
While a restore is running, leave this file alone: the rest of it is its notes.
Otherwise run the restore again. Directories called .lifeboat-replaced-N, if any, hold what was
here before.
";

/// The marker of a restore that is running: locked against a second one.
#[derive(Debug)]
pub(crate) struct Marker {
    pub(crate) file: File,
    /// Where the notes begin.
    pub(crate) end: u64,
    /// Whether another restore had left it.
    pub(crate) was_there: bool,
}

pub(crate) fn path() -> Result<EntryPath> {
    EntryPath::new(MARKER)
}

/// Whether a tree holds a restore that has not finished.
pub(crate) fn is_there(root: &Root) -> Result<bool> {
    match Status::at(root.top(), MARKER.as_bytes()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("look into", &root.path().display(), error)),
    }
}

/// Sets the marker, durably, or takes over the one that a dead restore left.
///
/// # Errors
/// [`Error::Busy`] while another restore is running.
pub(crate) fn set(root: &Root) -> Result<Marker> {
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let was_there = is_there(root)?;
    let shown = root.show(&path()?);
    let say = |error: Errno| failed("make file", &shown, error);
    let mode = Mode::from_raw_mode(0o600);
    let file = rustix::fs::openat(root.top(), MARKER, flags, mode).map_err(say)?;
    let busy = || Error::Busy { path: root.path().display().to_string() };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(busy().into()),
        Err(error) => return Err(say(error)),
    }
    // Another restore may have removed it between the two calls.
    let mine = Status::of(&file).map_err(|error| failed("look at", &shown, error))?;
    match Status::at(root.top(), MARKER.as_bytes()) {
        Ok(there) if there.inode == mine.inode => {}
        _ => return Err(busy().into()),
    }
    let file = File::from(file);
    let write = || {
        file.set_len(0)?;
        file.write_all_at(TEXT.as_bytes(), 0)?;
        file.sync_all()
    };
    write().map_err(|error| failed("write", &shown, error))?;
    root.sync_dir(None)?;
    Ok(Marker { file, end: TEXT.len() as u64, was_there })
}

/// Whether a restore is running, when there is a marker.
pub(crate) fn is_locked(root: &Root) -> bool {
    let Ok(file) = path().and_then(|path| root.open_file(&path)) else {
        return false;
    };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}
