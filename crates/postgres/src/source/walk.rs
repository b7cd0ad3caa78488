//! Which files of a data directory belong to a backup, in the order of their paths.
//!
//! What PostgreSQL rebuilds at every start is left out, as are temporary and unlogged relations;
//! directories are kept, since the server does not make them anew. Every directory is entered
//! through the handle of the one above it and links are not followed, so that whoever owns the data
//! directory cannot lead a backup run by root elsewhere.
//!
//! A live server makes and removes files while they are listed. What vanishes is skipped, and what
//! appears later is made again from the WAL.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use lifeboat_core::EntryPath;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::cluster::Cluster;
use crate::error::{Error, Result};
use crate::relation::{Fork, RelationDirectory, RelationFile};

/// The name under which the files of the data directory are in a snapshot.
pub(crate) const CLUSTER: &str = "cluster";

/// Directories whose content is rebuilt by the server.
const EMPTIED: [&[u8]; 8] = [
    b"pg_dynshmem",
    b"pg_notify",
    b"pg_replslot",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_stat_tmp",
    b"pg_subtrans",
    b"pg_wal",
];

/// Files at the top that are of the running server, of its start, or of a backup.
const LEFT_OUT: [&[u8]; 13] = [
    b"postmaster.pid",
    b"postmaster.opts",
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
    b"backup_label",
    b"backup_label.old",
    b"tablespace_map",
    b"tablespace_map.old",
    b"backup_manifest",
    b"backup_manifest.tmp",
    b"recovery.signal",
    b"standby.signal",
    b"lost+found",
];

/// Directories at the top that hold data: a link in their place or beneath them is refused.
const HOLDS_DATA: [&[u8]; 9] = [
    b"base",
    b"global",
    b"pg_commit_ts",
    b"pg_logical",
    b"pg_multixact",
    b"pg_stat",
    b"pg_tblspc",
    b"pg_twophase",
    b"pg_xact",
];

/// Whether the server's own log files are part of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ServerLogs {
    /// They are, when they are in the data directory, as with `pg_basebackup`.
    #[default]
    Keep,
    /// They are not; their directory is.
    LeaveOut,
}

/// What a walk comes by.
pub(super) trait Visitor {
    /// A directory; `tablespace` is where the link that stands for it points.
    fn directory(
        &mut self,
        path: EntryPath,
        stat: &Stat,
        tablespace: Option<Vec<u8>>,
    ) -> Result<()>;
    /// A symbolic link that does not hold data.
    fn link(&mut self, path: EntryPath, stat: &Stat, target: Vec<u8>) -> Result<()>;
    /// A regular file.
    fn file(&mut self, file: Found<'_>) -> Result<()>;
    /// Something that is left out and might be missed.
    fn skipped(&mut self, path: &EntryPath, why: &str);
}

/// A regular file.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) path: EntryPath,
    pub(super) stat: Stat,
    pub(super) directory: BorrowedFd<'a>,
    pub(super) name: &'a CStr,
    /// The oid of the tablespace it lies in; 0 in the data directory itself.
    pub(super) tablespace: u32,
    /// What it holds, when it holds pages of a relation.
    pub(super) relation: Option<(RelationDirectory, RelationFile)>,
}

/// Walks over a data directory. Blocks.
pub(super) fn walk(cluster: &Cluster, logs: ServerLogs, visitor: &mut dyn Visitor) -> Result<()> {
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&cluster.directory, flags, Mode::empty())
    };
    let root = open().map_err(|error| Error::DataDirectory {
        path: cluster.directory.clone(),
        source: error.into(),
    })?;
    let mut walker = Walker { cluster, logs, visitor, tablespace: 0 };
    let path = EntryPath::new(CLUSTER)
        .map_err(|error| Error::Answer { what: "name the entries", why: error.to_string() })?;
    let stat = walker.at(&path, "read", rustix::fs::fstat(&root))?;
    walker.visitor.directory(path.clone(), &stat, None)?;
    walker.directory(&root, &path)
}

struct Walker<'a> {
    cluster: &'a Cluster,
    logs: ServerLogs,
    visitor: &'a mut dyn Visitor,
    tablespace: u32,
}

struct Named {
    name: CString,
    stat: Stat,
}

impl Walker<'_> {
    /// The path on disk of an entry, for messages.
    fn on_disk(&self, path: &EntryPath) -> PathBuf {
        let inner = path.as_bytes().get(CLUSTER.len() + 1..).unwrap_or_default();
        self.cluster.directory.join(bytes_to_path(inner))
    }

    fn at<T>(&self, path: &EntryPath, what: &'static str, result: Result<T, Errno>) -> Result<T> {
        result.map_err(|error| Error::File { what, path: self.on_disk(path), source: error.into() })
    }

    /// All that is in an open directory, sorted by name.
    fn list(&self, directory: &OwnedFd, path: &EntryPath) -> Result<Vec<Named>> {
        let mut found = Vec::new();
        let listing = self.at(path, "list", Dir::read_from(directory))?;
        for entry in listing {
            let entry = self.at(path, "list", entry)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => found.push(Named { name: name.to_owned(), stat }),
                Err(Errno::NOENT) => {}
                Err(error) => return self.at(&self.join(path, name)?, "read", Err(error)),
            }
        }
        found.sort_by(|one, two| one.name.as_bytes().cmp(two.name.as_bytes()));
        Ok(found)
    }

    fn join(&self, path: &EntryPath, name: &CStr) -> Result<EntryPath> {
        path.join(name.to_bytes()).map_err(|error| Error::File {
            what: "name",
            path: self.on_disk(path),
            source: std::io::Error::other(error.to_string()),
        })
    }

    fn directory(&mut self, handle: &OwnedFd, path: &EntryPath) -> Result<()> {
        let components: Vec<&[u8]> = path.components().skip(1).collect();
        let relations = RelationDirectory::parse(&components);
        let entries = self.list(handle, path)?;
        let unlogged: HashSet<u32> = relations
            .iter()
            .flat_map(|_| &entries)
            .filter_map(|entry| RelationFile::parse(entry.name.as_bytes()))
            .filter(|file| file.fork == Fork::Init)
            .map(|file| file.number)
            .collect();
        for Named { name, stat } in entries {
            if self.is_left_out(&components, name.as_bytes()) {
                continue;
            }
            let relation = relations.zip(RelationFile::parse(name.as_bytes()));
            if let Some((_, file)) = relation {
                let reset = unlogged.contains(&file.number) && file.fork != Fork::Init;
                if file.temporary || reset {
                    continue;
                }
            }
            let inner = self.join(path, &name)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => self.visitor.file(Found {
                    path: inner,
                    stat,
                    directory: handle.as_fd(),
                    name: &name,
                    tablespace: self.tablespace,
                    relation,
                })?,
                FileType::Directory => self.enter(handle, &name, &inner, &components)?,
                FileType::Symlink => self.link(handle, &name, inner, &stat, &components)?,
                _ => self
                    .visitor
                    .skipped(&inner, "it is neither file, directory nor link, and is left out"),
            }
        }
        Ok(())
    }

    fn is_left_out(&self, parent: &[&[u8]], name: &[u8]) -> bool {
        // Given last, under a name of its own.
        let control = parent == [b"global"] && name == b"pg_control";
        // A tablespace may be shared by servers of several versions.
        let other_version = self.tablespace != 0
            && parent.len() == 2
            && name != self.cluster.version_directory().as_bytes();
        let prepared_later =
            parent == [b"pg_twophase"] && is_later(name, self.cluster.control.next_transaction);
        left_out(parent, name) || control || other_version || prepared_later
    }

    fn enter(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        path: &EntryPath,
        parents: &[&[u8]],
    ) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            other => self.at(path, "open", other)?,
        };
        let stat = self.at(path, "read", rustix::fs::fstat(&handle))?;
        self.visitor.directory(path.clone(), &stat, None)?;
        if parents.is_empty() && EMPTIED.contains(&name.to_bytes()) {
            return self.emptied(path, &stat);
        }
        if self.logs == ServerLogs::LeaveOut && self.is_log_directory(path) {
            return Ok(());
        }
        self.directory(&handle, path)
    }

    /// A directory whose content is left out, but for directories that the server wants to find.
    fn emptied(&mut self, path: &EntryPath, stat: &Stat) -> Result<()> {
        if path.name() != b"pg_wal" {
            return Ok(());
        }
        let mut kept = vec![c"archive_status"];
        if self.cluster.major >= 17 {
            kept.push(c"summaries");
        }
        for name in kept {
            let inner = self.join(path, name)?;
            self.visitor.directory(inner, stat, None)?;
        }
        Ok(())
    }

    fn is_log_directory(&self, path: &EntryPath) -> bool {
        let Some(log) = &self.cluster.log_directory else {
            return false;
        };
        let inner = path.as_bytes().get(CLUSTER.len() + 1..).unwrap_or_default();
        bytes_to_path(inner) == *log
    }

    fn link(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        path: EntryPath,
        stat: &Stat,
        parents: &[&[u8]],
    ) -> Result<()> {
        let target = match rustix::fs::readlinkat(parent, name, Vec::new()) {
            Err(Errno::NOENT) => return Ok(()),
            other => self.at(&path, "read the link", other)?.into_bytes(),
        };
        if parents == [b"pg_tblspc"] {
            return self.tablespace(parent, name, &path, target);
        }
        if parents.is_empty() && EMPTIED.contains(&name.to_bytes()) {
            // Restored as a plain directory.
            let stat =
                self.at(&path, "read", rustix::fs::statat(parent, name, AtFlags::empty()))?;
            self.visitor.directory(path.clone(), &stat, None)?;
            return self.emptied(&path, &stat);
        }
        let top = parents.first().copied().unwrap_or(name.to_bytes());
        if HOLDS_DATA.contains(&top) {
            return Err(Error::LinkedData { path: self.on_disk(&path) });
        }
        let why =
            "it is a symbolic link: the link is kept, what it points to is not part of the backup";
        self.visitor.skipped(&path, why);
        self.visitor.link(path, stat, target)
    }

    fn tablespace(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        path: &EntryPath,
        location: Vec<u8>,
    ) -> Result<()> {
        // The server made this link itself, so it is the one that is followed.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            // Dropped a moment ago: then the link is gone, too.
            Err(Errno::NOENT) if self.is_gone(parent, name) => return Ok(()),
            other => self.at(path, "open the tablespace", other)?,
        };
        let stat = self.at(path, "read", rustix::fs::fstat(&handle))?;
        self.visitor.directory(path.clone(), &stat, Some(location))?;
        let oid = std::str::from_utf8(name.to_bytes()).ok();
        self.tablespace = oid.and_then(|oid| oid.parse().ok()).unwrap_or(u32::MAX);
        let walked = self.directory(&handle, path);
        self.tablespace = 0;
        walked
    }

    fn is_gone(&self, parent: &OwnedFd, name: &CStr) -> bool {
        rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_err()
    }
}

/// Whether a name is of something that no backup has, wherever its server runs.
pub(crate) fn left_out(parent: &[&[u8]], name: &[u8]) -> bool {
    let anywhere = name.starts_with(b"pgsql_tmp")
        || name.starts_with(b"pg_internal.init")
        || name == b".DS_Store";
    let at_top = parent.is_empty() && (LEFT_OUT.contains(&name) || name.starts_with(b".s.PGSQL."));
    anywhere || at_top
}

/// Whether the name of a file in `pg_twophase` is of a transaction that began after the checkpoint
/// of the backup.
///
/// Such a transaction comes back from the WAL, and its file must not be there: PostgreSQL 17 wants
/// to remove it, looks for it under a wrong name, and then takes the transaction for restored
/// already, which loses it.
pub(crate) fn is_later(name: &[u8], next: u64) -> bool {
    let Some(transaction) =
        std::str::from_utf8(name).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok())
    else {
        return false;
    };
    match name.len() {
        16 => transaction >= next,
        // Without the epoch, up to version 16: half of the numbers are later than any given one.
        8 => (transaction as u32).wrapping_sub(next as u32) < 1 << 31,
        _ => false,
    }
}

pub(crate) fn bytes_to_path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_prepared_later_are_known_by_their_number() {
        for (name, next, later) in [
            ("000002E6", 0x2E6, true),
            ("000002E5", 0x2E6, false),
            ("00000003", 0x1_FFFF_FFF0, true),
            ("FFFFFFF0", 0x2_0000_0003, false),
            ("00000000000002E6", 0x2E6, true),
            ("00000000000002E5", 0x2E6, false),
            ("00000001FFFFFFF0", 0x2_0000_0003, false),
            ("notes", 0, false),
        ] {
            assert_eq!(is_later(name.as_bytes(), next), later, "{name}");
        }
    }
}
