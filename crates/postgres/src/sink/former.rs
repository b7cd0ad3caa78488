//! A former cluster in the target, whose files are used again.
//!
//! Before anything is written, all that is in the data directory goes into a directory
//! [`FORMER`] of its own there, and its `pg_control` aside: from then on no server starts from
//! either. The restore then goes on as into an empty directory; but a file of which there is a
//! former version is taken from there, and only what differs in it is written. At the commit what is
//! left there, and is in no snapshot, is removed.
//!
//! The WAL that was there is not used again, and not removed either: it may have what no archive has.
//! It stays in [`FORMER_WAL`], for whoever restores to look at and to remove.
//!
//! A restore that is broken off leaves both directories. The next one gathers what the first one
//! had placed, and goes on: content is compared, so it does not matter what a file had become.
//!
//! In the directory of a tablespace only the one directory is touched that carries the version of
//! this cluster: others may be there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_core::local::{FormerFiles, Root};
use lifeboat_core::{EntryPath, ErrorKind, Result};

use super::ClusterSink;
use super::goes::Goes;
use crate::control::Control;
use crate::error::Error;
use crate::source::lock_file;

/// Where the former files are meanwhile, in the data directory and in those of tablespaces.
pub(super) const FORMER: &str = ClusterSink::FORMER;
/// Where the former WAL stays, in the data directory.
pub(super) const FORMER_WAL: &str = "pg_wal.former";
/// Where the former `pg_control` is, in there.
const CONTROL: &str = "pg_control";

/// The former cluster in a data directory.
#[derive(Debug, Clone)]
pub(super) struct Former {
    target: PathBuf,
    /// The directory of this cluster in those of its tablespaces.
    version: String,
}

impl Former {
    /// Looks whether a directory has a former cluster of the system `system_id`, and no server
    /// running. Nothing is touched yet. Blocks.
    pub(super) fn find(target: &Path, system_id: &str) -> Result<Self, Error> {
        let path = || target.to_owned();
        if let Some(lock) = lock_file(target)?
            && lock.pid != 0
            && Path::new("/proc").join(lock.pid.to_string()).exists()
        {
            return Err(Error::TargetRunning { path: path(), pid: lock.pid });
        }
        let not_ours = |why: String| Error::NotFormer { path: path(), why };
        let places = [target.join(FORMER).join(CONTROL), target.join("global").join("pg_control")];
        let mut found = None;
        for place in places {
            match fs::read(&place) {
                Ok(bytes) => found = found.or(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::File { what: "read", path: place, source }),
            }
        }
        let Some(bytes) = found else {
            if target.join(ClusterSink::MARKER).exists() {
                return Err(Error::TargetUnfinished { path: path() });
            }
            return Err(not_ours("it has no global/pg_control".into()));
        };
        let control = Control::parse(bytes)
            .map_err(|why| not_ours(format!("its pg_control is not valid: {why}")))?;
        if system_id != control.system_id.to_string() {
            let found = control.system_id;
            return Err(not_ours(format!(
                "it has the system identifier {found}, and the snapshot {system_id}"
            )));
        }
        // Once pg_control is aside, pg_wal is that of a restore that was broken off.
        let both = ["pg_wal", FORMER_WAL].iter().all(|name| target.join(name).exists());
        if both && !target.join(FORMER).join(CONTROL).exists() {
            return Err(not_ours(format!(
                "{FORMER_WAL} has the WAL from before an earlier restore: remove it if it is not needed"
            )));
        }
        let version = fs::read_to_string(target.join("PG_VERSION"))
            .or_else(|_| fs::read_to_string(target.join(FORMER).join("PG_VERSION")))
            .map_err(|_| not_ours("it has no PG_VERSION".into()))?;
        let version = format!("PG_{}_{}", version.trim(), control.catalog_version);
        Ok(Self { target: target.to_owned(), version })
    }

    /// Puts aside what is in the data directory. From here on it is no cluster any more. Blocks.
    pub(super) fn gather(&self, root: &Root) -> Result<()> {
        let former = EntryPath::new(FORMER)?;
        root.create_dir_all(&former, 0o700)?;
        let control = EntryPath::new("global/pg_control")?;
        let aside = former.join(CONTROL.as_bytes())?;
        let wal = EntryPath::new("pg_wal")?;
        match root.status(&aside) {
            // The directory holds a restore that was broken off.
            Ok(_) => {
                root.remove(&control)?;
                root.remove(&wal)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The WAL first: what is at its place once pg_control is aside is not the former.
                match root.rename(&wal, &EntryPath::new(FORMER_WAL)?) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => root.sync_dir(None)?,
                }
                root.rename(&control, &aside)?;
            }
            Err(error) => return Err(error),
        }
        let keep = [FORMER, FORMER_WAL, ClusterSink::MARKER].map(str::as_bytes);
        for listed in root.list(None)? {
            if !keep.contains(&listed.name.as_slice()) {
                merge(root, &EntryPath::new(&listed.name)?, &former.join(&listed.name)?)?;
            }
        }
        root.sync_dir(None)
    }

    /// The same for the directory of a tablespace. Blocks.
    pub(super) fn gather_tablespace(&self, root: &Root) -> Result<()> {
        let version = EntryPath::new(&self.version)?;
        match root.status(&version) {
            Ok(_) => {
                let former = EntryPath::new(FORMER)?;
                root.create_dir_all(&former, 0o700)?;
                merge(root, &version, &former.join(&self.version)?)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the former cluster had the tablespace `oid` in this directory. Blocks.
    pub(super) fn has_tablespace(&self, oid: &str, directory: &Path) -> bool {
        let links = [self.target.clone(), self.target.join(FORMER)];
        links.iter().any(|top| {
            let linked = fs::read_link(top.join("pg_tblspc").join(oid));
            linked.is_ok_and(|linked| linked == directory)
        })
    }

    /// Removes what is left, but for the `pg_control`, by which a restore that is broken off is known
    /// as one until the new one is in its place. Blocks.
    pub(super) fn discard(root: &Root) -> Result<()> {
        let former = EntryPath::new(FORMER)?;
        let listed = match root.list(Some(&former)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            listed => listed?,
        };
        for one in listed.iter().filter(|one| one.name != CONTROL.as_bytes()) {
            root.remove(&former.join(&one.name)?)?;
        }
        Ok(())
    }

    /// Removes the last of it. Blocks.
    pub(super) fn forget(root: &Root) -> Result<()> {
        root.remove(&EntryPath::new(FORMER)?)
    }
}

/// Moves `from` to `to`; where both are directories, what is in them. What is at `to` otherwise is
/// replaced. Blocks.
fn merge(root: &Root, from: &EntryPath, to: &EntryPath) -> Result<()> {
    let mut work = vec![(from.clone(), to.clone())];
    let mut emptied = Vec::new();
    while let Some((from, to)) = work.pop() {
        if root.open_dir(Some(&from)).is_ok() && root.open_dir(Some(&to)).is_ok() {
            for listed in root.list(Some(&from))? {
                work.push((from.join(&listed.name)?, to.join(&listed.name)?));
            }
            emptied.push(from);
            continue;
        }
        match root.rename(&from, &to) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                root.remove(&to)?;
                root.rename(&from, &to)?;
            }
            done => done?,
        }
    }
    for directory in emptied.iter().rev() {
        root.remove(directory)?;
    }
    Ok(())
}

/// Where the former version of a file is.
fn aside(path: &EntryPath) -> Result<EntryPath> {
    EntryPath::new([FORMER.as_bytes(), path.as_bytes()].join(&b'/'))
}

/// Takes the former version of a file to its place, and opens it; `None` without one. Blocks.
pub(super) fn take(root: &Root, path: &EntryPath) -> Result<Option<File>> {
    let former = aside(path)?;
    let Some(file) = root.open_for_patch(&former)? else {
        return Ok(None);
    };
    root.rename(&former, path)?;
    Ok(Some(file))
}

/// The former files, for a source that leaves out what is the same.
#[derive(Debug)]
pub(super) struct FormerCluster(pub(super) PathBuf);

impl FormerFiles for FormerCluster {
    fn open(&self, path: &EntryPath) -> Option<File> {
        let target = Root::open(&self.0).ok()?;
        let (root, path) = match Goes::of(path).ok()? {
            Goes::Inside(path) => (target, path),
            Goes::InTablespace(oid, below) => {
                let link = Path::new("pg_tblspc").join(std::str::from_utf8(&oid).ok()?);
                match fs::read_link(self.0.join(link)) {
                    Ok(directory) => (Root::open(directory).ok()?, below),
                    Err(_) => {
                        // It lies in the data directory itself.
                        let within = [b"pg_tblspc".as_slice(), &oid, below.as_bytes()];
                        (target, EntryPath::new(within.join(&b'/')).ok()?)
                    }
                }
            }
            _ => return None,
        };
        // It is taken to its place before the content is asked for, or after.
        let places = [aside(&path).ok()?, path];
        places.iter().find_map(|path| root.open_for_patch(path).ok().flatten())
    }
}

/// What the sink offers a source.
pub(super) fn files(target: &Path) -> Option<Arc<dyn FormerFiles>> {
    let target = std::path::absolute(target).ok()?;
    Some(Arc::new(FormerCluster(target)))
}
