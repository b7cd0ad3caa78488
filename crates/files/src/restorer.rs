//! Entries, made beneath a target.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};

use lifeboat_core::local::{Root, failed};
use lifeboat_core::{Attributes, Context, EntryKind, EntryPath, ErrorKind, Result, names};
use parking_lot::Mutex;
use rustix::fs::XattrFlags;

use crate::accounts::Accounts;
use crate::attributes::{TOP, Wanted};
use crate::error::Error;
use crate::marker::MARKER;
use crate::notes::{Note, Notes};
use crate::sink::Owners;

/// Set-id bits: they give the owner's rights away, so they need the right owner.
const SET_ID: u32 = 0o6000;

/// Makes entries, and says what could not be made as it was. All of it blocks.
#[derive(Debug)]
pub(crate) struct Restorer {
    pub(crate) root: Root,
    pub(crate) notes: Notes,
    pub(crate) context: Context,
    /// One directory takes one new name at a time. Threads that wait for that in the kernel spin,
    /// and take the time that others need; here they sleep.
    turns: [Mutex<()>; TURNS],
    owners: Owners,
    accounts: Accounts,
    user: u32,
    owner_warned: AtomicBool,
    /// Warnings that would else come for every file, and how many were not given.
    warned: Mutex<HashMap<String, u64>>,
    /// Nodes that this user may not make.
    skipped: Mutex<HashSet<EntryPath>>,
}

/// How many directories can take a new name side by side.
const TURNS: usize = 16;

/// What gets attributes.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Open(&'a File, &'a EntryPath),
    Named(&'a EntryPath),
    Top,
}

impl Restorer {
    pub(crate) fn new(root: Root, notes: Notes, context: Context, owners: Owners) -> Self {
        Self {
            root,
            notes,
            context,
            turns: Default::default(),
            owners,
            accounts: Accounts::load(),
            user: rustix::process::geteuid().as_raw(),
            owner_warned: AtomicBool::new(false),
            warned: Mutex::default(),
            skipped: Mutex::default(),
        }
    }

    fn wanted(&self, attributes: &Attributes, prefix: &str) -> Wanted {
        Wanted::new(attributes, prefix, self.owners, &self.accounts)
    }

    /// Runs `make`; when the directory is not there yet, makes that and runs it again.
    fn made<T>(&self, path: &EntryPath, make: impl Fn() -> Result<T>) -> Result<T> {
        match make() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.root.create_parents(path)?;
                make()
            }
            done => done,
        }
    }

    /// Makes everything that has no content.
    pub(crate) fn make(&self, ordinal: u64, entry: &lifeboat_core::Entry) -> Result<()> {
        let path = &entry.path;
        match entry.kind {
            EntryKind::Directory => {
                self.root.create_dir_all(path, 0o700)?;
                let path = path.clone();
                let wanted = self.wanted(&entry.attributes, "");
                self.note(ordinal, &Note::Directory { path, wanted })
            }
            EntryKind::Symlink => {
                let target = self.target(entry)?;
                self.made(path, || self.root.symlink(target, path))?;
                let wanted = self.wanted(&entry.attributes, "");
                let wanted = Wanted { mode: None, ..wanted };
                self.apply(Subject::Named(path), &wanted);
                Ok(())
            }
            EntryKind::HardLink => {
                let target = EntryPath::new(self.target(entry)?).map_err(|source| {
                    let path = path.clone();
                    Error::BadTarget { path, source }
                })?;
                let path = path.clone();
                self.note(ordinal, &Note::Link { path, target })
            }
            EntryKind::Fifo
            | EntryKind::Socket
            | EntryKind::CharDevice
            | EntryKind::BlockDevice => self.node(entry),
            EntryKind::File => {
                Err(Error::Kind { path: path.clone(), kind: entry.kind.as_str() }.into())
            }
        }
    }

    fn target<'e>(&self, entry: &'e lifeboat_core::Entry) -> Result<&'e [u8], Error> {
        let target = entry.attributes.bytes(names::TARGET);
        target.ok_or_else(|| Error::NoTarget { path: entry.path.clone() })
    }

    fn note(&self, ordinal: u64, note: &Note) -> Result<()> {
        self.notes
            .add(ordinal, note)
            .map_err(|error| failed("write", &self.root.path().join(MARKER).display(), error))
    }

    fn node(&self, entry: &lifeboat_core::Entry) -> Result<()> {
        let path = &entry.path;
        let device = entry.attributes.unsigned(names::NODE).unwrap_or(0);
        let make = || self.root.make_node(path, entry.kind, 0o600, device);
        match self.made(path, make) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Refused && self.user != 0 => {
                let message = "it was not restored: only root can make device nodes";
                self.context.warn(path, message);
                self.skipped.lock().insert(path.clone());
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let wanted = self.wanted(&entry.attributes, "");
        self.apply(Subject::Named(path), &wanted);
        Ok(())
    }

    /// Makes an empty file that only its owner can read.
    pub(crate) fn create(&self, path: &EntryPath) -> Result<File> {
        let mut hasher = DefaultHasher::new();
        path.parent().hash(&mut hasher);
        let turn = usize::try_from(hasher.finish() % TURNS as u64).unwrap_or(0);
        let _turn = self.turns[turn].lock();
        self.made(path, || self.root.create_file(path, 0o600))
    }

    /// Gives a file that was written its attributes.
    pub(crate) fn finish(&self, file: &File, path: &EntryPath, attributes: &Attributes) {
        self.apply(Subject::Open(file, path), &self.wanted(attributes, ""));
    }

    /// Does what was noted.
    pub(crate) fn settle(&self) -> Result<()> {
        let say = |error| failed("read", &self.root.path().join(MARKER).display(), error);
        let (links, directories) = self.notes.end().map_err(say)?;
        for offset in links.into_iter().chain(directories) {
            self.context.check()?;
            let note = self.notes.read(offset).map_err(say)?;
            match note {
                Some(Note::Link { path, target }) => self.link(&path, &target)?,
                Some(Note::Directory { path, wanted }) => {
                    self.apply(Subject::Named(&path), &wanted);
                }
                None => {
                    let path = self.root.path().display().to_string();
                    return Err(Error::Notes { path }.into());
                }
            }
        }
        Ok(())
    }

    fn link(&self, path: &EntryPath, target: &EntryPath) -> Result<()> {
        if self.skipped.lock().contains(target) {
            let message = format!("it was not restored, since {target} was not");
            self.context.warn(path, message);
            return Ok(());
        }
        let link = || {
            self.root.create_parents(path)?;
            self.root.hard_link(target, path)
        };
        link().map_err(|source| {
            Error::Link { path: path.clone(), target: target.clone(), source }.into()
        })
    }

    /// Gives the target itself the attributes of the top of the tree.
    pub(crate) fn finish_top(&self, facts: &Attributes) {
        self.apply(Subject::Top, &self.wanted(facts, TOP));
    }

    /// Sets attributes: the owner first, since that clears set-id bits and capabilities; the time
    /// last. What cannot be set is a warning: the content is there.
    fn apply(&self, subject: Subject<'_>, wanted: &Wanted) {
        let owned = self.set_owner(subject, wanted.owner);
        for (name, value) in &wanted.xattrs {
            if let Err(error) = self.set_xattr(subject, name, value) {
                let what = format!("extended attribute {}", name.escape_ascii());
                self.not_set(subject, &what, &error);
            }
        }
        if let Some(mode) = wanted.mode {
            let mode = if owned { mode } else { mode & !SET_ID };
            if let Err(error) = self.set_mode(subject, mode) {
                self.not_set(subject, "mode", &error);
            }
        }
        if let Some(modified) = wanted.modified
            && let Err(error) = self.set_modified(subject, modified)
        {
            self.not_set(subject, "time of change", &error);
        }
    }

    /// Warns of the first file, and counts the others for which it would be the same.
    fn not_set(&self, subject: Subject<'_>, what: &str, error: &lifeboat_core::Error) {
        let cause = std::error::Error::source(error).map_or_else(String::new, ToString::to_string);
        let message = format!("its {what} could not be set: {cause}");
        let first = match self.warned.lock().entry(message.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(0);
                true
            }
            Entry::Occupied(mut others) => {
                *others.get_mut() += 1;
                false
            }
        };
        if first {
            self.warn(subject, message);
        }
    }

    /// Warns of what was only counted so far.
    pub(crate) fn sum_up(&self) {
        for (message, others) in self.warned.lock().drain().filter(|(_, others)| *others > 0) {
            let message = format!("{others} more: {message}");
            self.context.warn(&self.root.path().display(), message);
        }
    }

    fn warn(&self, subject: Subject<'_>, message: String) {
        match subject {
            Subject::Named(path) | Subject::Open(_, path) => self.context.warn(path, message),
            Subject::Top => self.context.warn(&self.root.path().display(), message),
        }
    }

    /// Whether the owner is now the one that was wanted.
    fn set_owner(&self, subject: Subject<'_>, owner: Option<(u32, u32)>) -> bool {
        let Some((uid, gid)) = owner else {
            return false;
        };
        if self.user == 0 || uid == self.user {
            let set = match subject {
                Subject::Open(file, _) => std::os::unix::fs::fchown(file, Some(uid), Some(gid))
                    .map_err(|error| failed("set the owner of", "a file", error)),
                Subject::Named(path) => self.root.set_owner(path, uid, gid),
                Subject::Top => self.root.set_top_owner(uid, gid),
            };
            match set {
                Ok(()) => return true,
                Err(error) if self.user == 0 => {
                    self.not_set(subject, "owner", &error);
                    return false;
                }
                Err(_) => {}
            }
        }
        if !self.owner_warned.swap(true, Ordering::Relaxed) {
            let message = "owners were not restored, and set-id bits left out where they matter: \
                only root can give files away";
            self.context.warn(&self.root.path().display(), message);
        }
        false
    }

    fn set_xattr(&self, subject: Subject<'_>, name: &[u8], value: &[u8]) -> Result<()> {
        match subject {
            Subject::Open(file, _) => rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())
                .map_err(|error| failed("set an extended attribute of", "a file", error)),
            Subject::Named(path) => self.root.set_xattr(path, name, value),
            Subject::Top => self.root.set_top_xattr(name, value),
        }
    }

    fn set_mode(&self, subject: Subject<'_>, mode: u32) -> Result<()> {
        match subject {
            Subject::Open(file, _) => {
                rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(mode))
                    .map_err(|error| failed("set the mode of", "a file", error))
            }
            Subject::Named(path) => self.root.set_mode(path, mode),
            Subject::Top => self.root.set_top_mode(mode),
        }
    }

    fn set_modified(&self, subject: Subject<'_>, modified: i64) -> Result<()> {
        match subject {
            Subject::Open(file, _) => lifeboat_core::local::set_modified(file, modified)
                .map_err(|error| failed("set the time of", "a file", error)),
            Subject::Named(path) => self.root.set_modified(path, modified),
            Subject::Top => self.root.set_top_modified(modified),
        }
    }
}
