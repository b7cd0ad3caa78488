//! Listing and removing what lies beneath a root.

use rustix::fs::{AtFlags, Dir};
use rustix::io::Errno;

use super::error::failed;
use super::root::Root;
use super::status::kind_of;
use crate::entry::EntryKind;
use crate::error::{Error, ErrorKind, Result};
use crate::path::EntryPath;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The name, raw.
    pub name: Vec<u8>,
    /// Whether it is a directory, when the listing said so; [`Root::status`] knows otherwise.
    pub is_directory: Option<bool>,
}

impl Root {
    /// What a directory holds, or the root, sorted by raw name. All of it is in memory: some
    /// hundred bytes a name.
    ///
    /// # Errors
    /// As for [`Root::open_dir`].
    pub fn list(&self, path: Option<&EntryPath>) -> Result<Vec<Listed>> {
        let directory = self.open_dir(path)?;
        let failed = |error: Errno| match path {
            Some(path) => self.failed("list", path, error),
            None => failed("list", &self.path().display(), error),
        };
        // The descriptor is shared, the position in a listing must not be: this opens it anew.
        let mut names = Vec::new();
        for listed in Dir::read_from(&*directory).map_err(failed)? {
            let listed = listed.map_err(failed)?;
            let name = listed.file_name().to_bytes();
            if name != b"." && name != b".." {
                let kind = kind_of(listed.file_type());
                names.push(Listed {
                    name: name.to_vec(),
                    is_directory: kind.map(|kind| kind == EntryKind::Directory),
                });
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes `path`, and all beneath it when it is a directory. Links are removed, not
    /// followed. That nothing is there is fine.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest is removed nevertheless.
    pub fn remove(&self, path: &EntryPath) -> Result<()> {
        let mut first = None;
        let mut stack = vec![(path.clone(), Stage::New)];
        while let Some((path, stage)) = stack.pop() {
            if let Err(error) = self.remove_step(&path, stage, &mut stack) {
                first.get_or_insert(error);
            }
        }
        self.forget();
        first.map_or(Ok(()), Err)
    }

    fn remove_step(
        &self,
        path: &EntryPath,
        stage: Stage,
        stack: &mut Vec<(EntryPath, Stage)>,
    ) -> Result<()> {
        let (above, name) = match self.parent(path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let flags = match stage {
            Stage::New => AtFlags::empty(),
            Stage::Emptied => AtFlags::REMOVEDIR,
        };
        match rustix::fs::unlinkat(&above, name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => {
                let names = self.list(Some(path))?;
                stack.push((path.clone(), Stage::Emptied));
                for listed in names {
                    stack.push((path.join(&listed.name)?, Stage::New));
                }
                Ok(())
            }
            Err(error) => Err(self.failed("remove", path, error)),
        }
    }

    /// Removes everything beneath the root, and leaves the root itself.
    ///
    /// # Errors
    /// As for [`Root::remove`].
    pub fn remove_contents(&self) -> Result<()> {
        let mut first: Option<Error> = None;
        for listed in self.list(None)? {
            if let Err(error) = EntryPath::new(&listed.name).and_then(|path| self.remove(&path)) {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }
}

#[derive(Clone, Copy)]
enum Stage {
    /// Not looked at yet.
    New,
    /// A directory whose content was removed.
    Emptied,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_points_to_is_not_removed() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("kept"), "x").unwrap();
        let root = Root::open(folder.path()).unwrap();
        let path = |text: &str| EntryPath::new(text).unwrap();
        root.create_dir_all(&path("a/b"), 0o700).unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("a/b/out")).unwrap();
        root.create_file(&path("a/file"), 0o600).unwrap();
        root.remove(&path("a")).unwrap();
        root.remove(&path("never")).unwrap();
        assert!(root.list(None).unwrap().is_empty());
        assert!(outside.path().join("kept").is_file());
    }
}
