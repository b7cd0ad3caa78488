//! A snapshot and the changes behind it as append-only files, for a server that is stopped.
//!
//! From Redis 7 on these are a directory: the RDB as *base*, the changes as *increment*, and a
//! manifest that names them. Before, they were one file that begins with the RDB, which later
//! servers read, too. They are written in a directory with a dot before its name, and appear under
//! their own name when all of it is on disk and the RDB was read once more: a server never starts
//! from half of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_core::{
    Attributes, Completion, Context, Entry, EntryKind, EntryPath, Extent, Header, Lane, Receipt,
    Sink, Writing,
};
use parking_lot::Mutex;

use super::append_only::setting;
use super::writing::absolute;
use crate::checker::Checker;
use crate::error::{Error, Result};
use crate::recover::STREAM_FILE;
use crate::source::DUMP;

/// Nobody but the server's account reads them.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// How a server keeps its append-only files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppendOnlyForm {
    /// A directory with a manifest: from Redis 7 on.
    MultiPart,
    /// One file that begins with an RDB: before, and read by later servers, too.
    Single,
}

impl AppendOnlyForm {
    /// The form of a server of this version. What is not known is taken for new.
    pub(crate) fn of_version(version: &str) -> Self {
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        match major {
            Some(..7) => Self::Single,
            _ => Self::MultiPart,
        }
    }
}

/// How append-only files are restored.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AppendOnlyOptions {
    /// The server's directory: empty, or not there yet.
    pub directory: PathBuf,
    /// What the server reads.
    pub form: AppendOnlyForm,
    /// The configuration of the server that will read them: it says how they are called.
    pub config: Option<PathBuf>,
}

impl AppendOnlyOptions {
    /// A restore into `directory`, which is empty or not there yet.
    pub fn new(directory: impl Into<PathBuf>, form: AppendOnlyForm) -> Self {
        Self { directory: directory.into(), form, config: None }
    }

    /// Sets the configuration of the server that will read them.
    #[must_use]
    pub fn with_config(mut self, config: Option<PathBuf>) -> Self {
        self.config = config;
        self
    }
}

/// Append-only files that do not exist yet. Takes what a
/// [`RecoverySource`](crate::RecoverySource) gives.
#[derive(Debug, Clone)]
pub struct AppendOnlySink {
    options: AppendOnlyOptions,
}

impl AppendOnlySink {
    /// Files in a directory, and how they are made.
    pub fn new(options: AppendOnlyOptions) -> Self {
        Self { options }
    }
}

#[async_trait]
impl Sink for AppendOnlySink {
    async fn look(&self, _: &Header, _: &Context) -> lifeboat_core::Result<()> {
        let options = self.options.clone();
        let looked = tokio::task::spawn_blocking(move || Target::of(&options).map(drop)).await;
        Ok(looked.map_err(|source| Error::Panicked { source })??)
    }

    async fn write(
        &self,
        _header: &Header,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Writing>> {
        let options = self.options.clone();
        let begun = tokio::task::spawn_blocking(move || SetWriting::begin(&options)).await;
        let writing = begun.map_err(|source| Error::Panicked { source })??;
        context.phase("write the files");
        Ok(Box::new(Shared(Arc::new(writing))))
    }
}

/// What is known of the directory before it is touched.
struct Target {
    directory: PathBuf,
    is_there: bool,
    /// What the files, and the directory of several, are called.
    file_name: String,
    directory_name: String,
}

impl Target {
    /// Refuses what can be refused, and touches nothing.
    fn of(options: &AppendOnlyOptions) -> Result<Self> {
        let directory = options.directory.clone();
        let (mut file_name, mut directory_name) =
            ("appendonly.aof".to_owned(), "appendonlydir".to_owned());
        if let Some(path) = &options.config {
            let read = fs::read_to_string(path);
            let text = read.map_err(file_error("read the configuration", path))?;
            for (name, set) in
                [("appendfilename", &mut file_name), ("appenddirname", &mut directory_name)]
            {
                if let Some(value) = setting(&text, name) {
                    // As the server does: a name, and no path.
                    if value.is_empty() || value.starts_with('.') || value.contains('/') {
                        let (path, name) = (path.clone(), name.to_owned());
                        return Err(Error::BadName { path, name, value });
                    }
                    *set = value;
                }
            }
        }
        let is_there = match fs::read_dir(&directory) {
            Ok(mut entries) => {
                if let Some(entry) = entries.next() {
                    let entry = entry.map_err(file_error("look into", &directory))?;
                    let found = entry.file_name().to_string_lossy().into_owned();
                    return Err(Error::TargetFilled { path: directory, found });
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(file_error("look into", &directory)(error)),
        };
        Ok(Self { directory, is_there, file_name, directory_name })
    }
}

struct SetWriting {
    directory: PathBuf,
    form: AppendOnlyForm,
    /// What the files, and the directory of several, are called.
    file_name: String,
    directory_name: String,
    /// Where they are written.
    partial: PathBuf,
    owner: Option<(u32, u32)>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum State {
    Empty,
    HasBase,
    Whole,
    Committed,
}

struct Shared(Arc<SetWriting>);

pub(super) fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { doing, path, source }
}

impl SetWriting {
    /// Checks the target, and makes a directory in it.
    fn begin(options: &AppendOnlyOptions) -> Result<Self> {
        let Target { directory, is_there, file_name, directory_name } = Target::of(options)?;
        if !is_there {
            let mut builder = fs::DirBuilder::new();
            let made = builder.mode(DIRECTORY_MODE).create(&directory);
            made.map_err(file_error("make", &directory))?;
        }
        let meta = fs::metadata(&directory).map_err(file_error("look at", &directory))?;
        let partial = directory.join(format!(".{file_name}.{}.partial", std::process::id()));
        let made = fs::DirBuilder::new().mode(DIRECTORY_MODE).create(&partial);
        made.map_err(file_error("make", &partial))?;
        let mut writing = Self {
            directory,
            form: options.form,
            file_name,
            directory_name,
            partial,
            owner: None,
            state: Mutex::new(State::Empty),
        };
        let ours =
            fs::metadata(&writing.partial).map_err(file_error("look at", &writing.partial))?;
        if ours.uid() == 0 && meta.uid() != 0 {
            writing.owner = Some((meta.uid(), meta.gid()));
        }
        writing.give(&writing.partial)?;
        Ok(writing)
    }

    /// A server reads its files under its own account, which is that of its directory.
    fn give(&self, path: &Path) -> Result<()> {
        match self.owner {
            Some((uid, gid)) => {
                chown(path, Some(uid), Some(gid)).map_err(file_error("give away", path))
            }
            None => Ok(()),
        }
    }

    fn base_name(&self) -> String {
        match self.form {
            AppendOnlyForm::MultiPart => format!("{}.1.base.rdb", self.file_name),
            AppendOnlyForm::Single => self.file_name.clone(),
        }
    }

    fn changes_name(&self) -> String {
        match self.form {
            AppendOnlyForm::MultiPart => format!("{}.1.incr.aof", self.file_name),
            AppendOnlyForm::Single => self.file_name.clone(),
        }
    }

    /// Opens a file of the set, made when it is not there.
    fn file(&self, name: &str) -> Result<Arc<File>> {
        let path = self.partial.join(name);
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(FILE_MODE).open(&path);
        let file = file.map_err(file_error("make", &path))?;
        self.give(&path)?;
        Ok(Arc::new(file))
    }

    fn strange(&self, entry: impl Into<String>) -> Error {
        Error::StrangeEntry { path: self.directory.clone(), entry: entry.into() }
    }

    async fn take(self: &Arc<Self>, mut entry: Entry) -> lifeboat_core::Result<()> {
        let path = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
        let state = *self.state.lock();
        let (name, next) = match (&*path, state) {
            (DUMP, State::Empty) => (self.base_name(), State::HasBase),
            (STREAM_FILE, State::HasBase) => (self.changes_name(), State::Whole),
            _ => return Err(self.strange(path).into()),
        };
        if entry.kind != EntryKind::File {
            return Err(self.strange(path).into());
        }
        let checker = (next == State::HasBase).then(Checker::start);
        let writing = Arc::clone(self);
        let opened = tokio::task::spawn_blocking(move || writing.file(&name)).await;
        let file = opened.map_err(|source| Error::Panicked { source })??;
        while let Some(extent) = entry.content.next().await? {
            let Extent::Data(bytes) = extent else {
                return Err(self.strange(format!("a {path} without its bytes")).into());
            };
            if let Some(checker) = &checker {
                checker.feed(bytes.clone()).await;
            }
            self.append(&file, bytes).await?;
        }
        if let Some(checker) = checker {
            let path = self.directory.clone();
            let outcome = checker.finish().await?;
            outcome.map_err(|source| Error::Restored { path, source })?;
        }
        let synced = tokio::task::spawn_blocking(move || file.sync_all()).await;
        let failed = file_error("write to disk", &self.partial);
        synced.map_err(|source| Error::Panicked { source })?.map_err(failed)?;
        *self.state.lock() = next;
        Ok(())
    }

    async fn append(&self, file: &Arc<File>, bytes: Bytes) -> Result<()> {
        let file = Arc::clone(file);
        let written = tokio::task::spawn_blocking(move || (&*file).write_all(&bytes)).await;
        let failed = file_error("write", &self.partial);
        written.map_err(|source| Error::Panicked { source })?.map_err(failed)
    }

    fn publish(&self) -> Result<()> {
        let target = match self.form {
            AppendOnlyForm::MultiPart => {
                let (base, changes) = (self.base_name(), self.changes_name());
                let manifest = format!("file {base} seq 1 type b\nfile {changes} seq 1 type i\n");
                let name = format!("{}.manifest", self.file_name);
                let path = self.partial.join(&name);
                let written = self.file(&name).and_then(|file| {
                    let written = (&*file).write_all(manifest.as_bytes());
                    written.and_then(|()| file.sync_all()).map_err(file_error("write", &path))
                });
                written?;
                sync(&self.partial)?;
                let target = self.directory.join(&self.directory_name);
                // Renaming replaces a directory only when it is empty.
                fs::rename(&self.partial, &target).map_err(file_error("make", &target))?;
                target
            }
            AppendOnlyForm::Single => {
                let target = self.directory.join(&self.file_name);
                // A link never replaces what came there meanwhile.
                let linked = fs::hard_link(self.partial.join(&self.file_name), &target);
                linked.map_err(file_error("make", &target))?;
                fs::remove_dir_all(&self.partial).map_err(file_error("remove", &self.partial))?;
                target
            }
        };
        *self.state.lock() = State::Committed;
        tracing::debug!(target = %target.display(), "the files are there");
        sync(&self.directory)
    }
}

pub(super) fn sync(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|opened| opened.sync_all());
    synced.map_err(file_error("write to disk", directory))
}

impl Drop for SetWriting {
    fn drop(&mut self) {
        if *self.state.lock() != State::Committed {
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

#[async_trait]
impl Writing for Shared {
    /// One after the other: in one file they follow each other.
    fn lane(&self, _path: &EntryPath) -> Option<Lane> {
        Some(Lane(0))
    }

    async fn put(&self, _ordinal: u64, entry: Entry) -> lifeboat_core::Result<()> {
        self.0.take(entry).await
    }

    async fn commit(self: Arc<Self>, _: Completion) -> lifeboat_core::Result<Receipt> {
        let writing = Arc::clone(&self.0);
        if *writing.state.lock() != State::Whole {
            return Err(Error::NoDump { path: writing.directory.clone() }.into());
        }
        let next = format!(
            "start the server with \"appendonly yes\" and \"dir {}\" in its configuration; with \
             \"appendonly no\" it would not read these files, and start empty",
            absolute(&writing.directory).display()
        );
        let facts = Attributes::new().with("redis.next", next);
        let published = tokio::task::spawn_blocking(move || writing.publish()).await;
        published.map_err(|source| Error::Panicked { source })??;
        Ok(Receipt { snapshot: None, facts })
    }

    async fn abort(self: Arc<Self>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_the_server() {
        for (version, form) in [
            ("6.2.5", AppendOnlyForm::Single),
            ("7.0.15", AppendOnlyForm::MultiPart),
            ("10.1", AppendOnlyForm::MultiPart),
            ("", AppendOnlyForm::MultiPart),
        ] {
            assert_eq!(AppendOnlyForm::of_version(version), form, "{version}");
        }
    }

    #[test]
    fn a_filled_directory_is_refused_and_a_failed_restore_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("data");
        let options = AppendOnlyOptions::new(&target, AppendOnlyForm::MultiPart);
        let writing = SetWriting::begin(&options).unwrap();
        assert!(writing.partial.starts_with(&target) && writing.partial.is_dir());
        // The one that is at work fills it.
        assert!(matches!(SetWriting::begin(&options), Err(Error::TargetFilled { .. })));
        drop(writing);
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        fs::write(target.join("dump.rdb"), "").unwrap();
        match SetWriting::begin(&options) {
            Err(Error::TargetFilled { found, .. }) => assert_eq!(found, "dump.rdb"),
            other => panic!("{:?}", other.err()),
        }
    }

    #[test]
    fn names_come_from_the_configuration_and_are_no_paths() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("redis.conf");
        let options = |text: &str| {
            fs::write(&config, text).unwrap();
            let target = dir.path().join("data");
            let options = AppendOnlyOptions::new(target, AppendOnlyForm::MultiPart);
            SetWriting::begin(&options.with_config(Some(config.clone())))
        };
        let writing = options("appenddirname \"aof\"\nappendfilename log.aof\n").unwrap();
        assert_eq!((&*writing.directory_name, &*writing.file_name), ("aof", "log.aof"));
        drop(writing);
        for bad in ["appenddirname ../x", "appendfilename \"\"", "appendfilename /etc/x"] {
            assert!(matches!(options(bad), Err(Error::BadName { .. })), "{bad}");
        }
    }
}
