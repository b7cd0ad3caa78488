//! The target of a restore: what was there, the marker, and the way back.

use std::path::Path;

use lifeboat_core::local::{Listed, Root, failed};
use lifeboat_core::{EntryPath, Error, ErrorKind, Result};

use crate::error::Error as FilesError;
use crate::marker::{self, MARKER, Marker};
use crate::sink::Existing;

const ASIDE: &str = ".lifeboat-replaced-";

/// A new file system has it at its top.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// A directory that was made ready for a restore.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) root: Root,
    pub(crate) marker: Marker,
    /// Whether the directory did not exist.
    made: bool,
    /// Where what was there was moved to.
    aside: Option<EntryPath>,
    /// Names that belong to the file system.
    kept: Vec<Vec<u8>>,
}

impl Target {
    /// Makes `path` ready. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when something is in it and may not be replaced: nothing has been
    /// touched then.
    pub(crate) fn open(path: &Path, existing: Existing) -> Result<Self> {
        let made = matches!(path.try_exists(), Ok(false));
        let root = if made { Root::create(path)? } else { Root::open(path)? };
        let (kept, found) = contents(&root)?;
        match (found.first(), existing) {
            (Some(first), Existing::Refuse) => return Err(refusal(&root, first)?.into()),
            (Some(_), Existing::Replace) | (None, _) => {}
        }
        let marker = marker::set(&root)?;
        let mut target = Self { root, marker, made, aside: None, kept };
        if let Err(error) = target.move_aside(&found) {
            return Err(match target.give_up() {
                Ok(()) => error,
                Err(other) => other.context(format!("put back what was moved, after: {error}")),
            });
        }
        Ok(target)
    }

    /// Checks that the directory may be a target.
    pub(crate) fn look(path: &Path, existing: Existing) -> Result<()> {
        if matches!(path.try_exists(), Ok(false)) {
            return Ok(());
        }
        let root = Root::open(path)?;
        match (contents(&root)?.1.first(), existing) {
            (Some(first), Existing::Refuse) => Err(refusal(&root, first)?.into()),
            (Some(_), Existing::Replace) | (None, _) => Ok(()),
        }
    }

    fn move_aside(&mut self, found: &[Listed]) -> Result<()> {
        let found = found.iter().filter(|listed| listed.name != MARKER.as_bytes());
        for listed in found {
            let aside = match &self.aside {
                Some(aside) => aside.clone(),
                None => self.new_aside()?,
            };
            self.root.rename(&EntryPath::new(&listed.name)?, &aside.join(&listed.name)?)?;
        }
        Ok(())
    }

    fn new_aside(&mut self) -> Result<EntryPath> {
        let mut number = 1_u32;
        let aside = loop {
            let aside = EntryPath::new(format!("{ASIDE}{number}"))?;
            match self.root.status(&aside) {
                Err(error) if error.kind() == ErrorKind::NotFound => break aside,
                Err(error) => return Err(error),
                Ok(_) => number += 1,
            }
        };
        self.root.create_dir_all(&aside, 0o700)?;
        self.aside = Some(aside.clone());
        Ok(aside)
    }

    /// Whether an entry would lie where what was there was moved to.
    pub(crate) fn is_reserved(&self, path: &EntryPath) -> bool {
        let top = path.components().next();
        top == Some(MARKER.as_bytes())
            || self.aside.as_ref().is_some_and(|aside| top == Some(aside.name()))
    }

    /// Removes what was there, after all that replaces it is durable.
    pub(crate) fn remove_aside(&self) -> Result<()> {
        self.aside.as_ref().map_or(Ok(()), |aside| self.root.remove(aside))
    }

    /// Says that the target is whole; `last` is done between that and making it durable.
    pub(crate) fn complete(&self, last: impl FnOnce()) -> Result<()> {
        self.root.remove(&marker::path()?)?;
        last();
        self.root.sync_dir(None).inspect_err(|_| {
            // Whether it is gone for good is not known: it must not look whole.
            let _ = marker::set(&self.root);
        })
    }

    /// Removes what was restored, and puts back what was there.
    ///
    /// # Errors
    /// The first thing that could not be undone: then the marker stays.
    pub(crate) fn give_up(&self) -> Result<()> {
        let mut first: Option<Error> = None;
        let mut keep = |done: Result<()>| {
            if let Err(error) = done {
                first.get_or_insert(error);
            }
        };
        for listed in self.root.list(None)? {
            let path = EntryPath::new(&listed.name)?;
            if self.kept.contains(&listed.name) {
                for within in self.root.list(Some(&path))? {
                    keep(path.join(&within.name).and_then(|path| self.root.remove(&path)));
                }
            } else if !self.is_reserved(&path) {
                keep(self.root.remove(&path));
            }
        }
        if let Some(aside) = &self.aside {
            for listed in self.root.list(Some(aside))? {
                let (from, to) = (aside.join(&listed.name)?, EntryPath::new(&listed.name)?);
                keep(self.root.rename(&from, &to));
            }
        }
        if let Some(error) = first {
            return Err(error);
        }
        if let Some(aside) = &self.aside {
            self.root.remove(aside)?;
        }
        if !self.marker.was_there {
            self.root.remove(&marker::path()?)?;
        }
        self.root.sync_dir(None)?;
        if self.made {
            let path = self.root.path();
            std::fs::remove_dir(path).map_err(|error| failed("remove", &path.display(), error))?;
        }
        Ok(())
    }
}

/// What belongs to the file system, and what else there is.
fn contents(root: &Root) -> Result<(Vec<Vec<u8>>, Vec<Listed>)> {
    let (mut kept, mut found) = (Vec::new(), Vec::new());
    for listed in root.list(None)? {
        if listed.name == LOST_AND_FOUND && is_empty(root, &listed)? {
            kept.push(listed.name);
        } else {
            found.push(listed);
        }
    }
    Ok((kept, found))
}

fn is_empty(root: &Root, listed: &Listed) -> Result<bool> {
    match root.list(Some(&EntryPath::new(&listed.name)?)) {
        Ok(within) => Ok(within.is_empty()),
        // Root's own, or no directory at all: what it holds, if anything, is not to be known.
        Err(error) if error.kind() == ErrorKind::Refused => Ok(listed.is_directory == Some(true)),
        Err(error) => Err(error),
    }
}

fn refusal(root: &Root, first: &Listed) -> Result<FilesError> {
    let path = root.path().display().to_string();
    Ok(if !marker::is_there(root)? {
        let found = EntryPath::new(&first.name)?.to_string();
        FilesError::NotEmpty { path, found }
    } else if marker::is_locked(root) {
        FilesError::Busy { path }
    } else {
        FilesError::TargetUnfinished { path }
    })
}
