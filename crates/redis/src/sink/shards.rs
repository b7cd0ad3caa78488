//! A snapshot of a cluster as files, for servers that are not started yet.
//!
//! Each shard becomes a directory for one server, called after its first slot:
//!
//! - `dump.rdb`, its data, read once more before it counts;
//! - `nodes.conf`, by which the server knows when it starts which slots are its own. Without it a
//!   server would take only those that it has keys of. It names no other node, and the node's id is
//!   a new one, so that servers that are started beside the former cluster never mix with it; they
//!   find one another by `CLUSTER MEET`.
//!
//! Beside them lies `cluster.nodes`, the map of the former cluster as one of its nodes told it.
//! Everything is written in a directory with a dot before its name, and comes out of it when all of
//! it is on disk; the map is the last.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{
    Attributes, Completion, Context, Entry, EntryKind, EntryPath, Header, Lane, Receipt, Sink,
    Writing,
};
use tokio::sync::Mutex;

use super::RestoreOptions;
use super::set::{file_error, sync};
use super::writing::FileWriting;
use crate::cluster::{self, Parts, Shard};
use crate::connect::random_id;
use crate::error::{Error, Result};
use crate::source::DUMP;

/// Nobody but the servers' account reads them.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// What a server calls the file with its place in a cluster, unless it is told otherwise.
const NODES: &str = "nodes.conf";

/// A directory for each shard of a cluster, in one that is empty or not there yet.
#[derive(Debug, Clone)]
pub struct ShardsSink {
    options: RestoreOptions,
}

impl ShardsSink {
    /// Shards as directories in the one that is the options' path. A configuration is that of all
    /// servers, and keys are chosen in all shards.
    pub fn new(options: RestoreOptions) -> Self {
        Self { options }
    }
}

#[async_trait]
impl Sink for ShardsSink {
    async fn look(&self, _: &Header, _: &Context) -> lifeboat_core::Result<()> {
        let path = self.options.path.clone();
        let looked = tokio::task::spawn_blocking(move || is_there(&path).map(drop)).await;
        Ok(looked.map_err(|source| Error::Panicked { source })??)
    }

    async fn write(
        &self,
        _header: &Header,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Writing>> {
        let options = self.options.clone();
        let begun = tokio::task::spawn_blocking(move || Staging::begin(options)).await;
        let staging = begun.map_err(|source| Error::Panicked { source })??;
        context.phase("write the files");
        let state = State { parts: Parts::default(), map: Vec::new(), shards: Vec::new() };
        Ok(Box::new(ShardsWriting { staging, state: Mutex::new(state) }))
    }
}

struct ShardsWriting {
    staging: Staging,
    state: Mutex<State>,
}

struct State {
    parts: Parts,
    map: Vec<u8>,
    /// The directories that are ready.
    shards: Vec<String>,
}

impl ShardsWriting {
    async fn take(&self, entry: Entry) -> lifeboat_core::Result<()> {
        let mut state = self.state.lock().await;
        let target = self.staging.options.path.clone();
        let strange = || {
            let (path, entry) = (target.clone(), entry.path.to_string());
            Error::StrangeEntry { path, entry }
        };
        if entry.kind != EntryKind::File {
            return Err(strange().into());
        }
        if entry.path.as_bytes() == cluster::MAP.as_bytes() && state.parts.is_empty() {
            state.map = state.parts.take_map(&target.display().to_string(), entry).await?;
            return Ok(());
        }
        let shard = cluster::shard_of(&entry.path).and_then(|it| state.parts.take_shard(it));
        let shard = shard.ok_or_else(strange)?;
        let name = entry.path.to_string().trim_end_matches(".rdb").to_owned();
        let (staging, directory) = (self.staging.clone(), name.clone());
        let made = tokio::task::spawn_blocking(move || staging.make_shard(&directory, &shard));
        let file = made.await.map_err(|source| Error::Panicked { source })??;
        let file = Arc::new(file);
        file.fill(entry).await?;
        let published = tokio::task::spawn_blocking(move || file.publish()).await;
        published.map_err(|source| Error::Panicked { source })??;
        state.shards.push(name);
        Ok(())
    }
}

#[async_trait]
impl Writing for ShardsWriting {
    /// The map comes first.
    fn lane(&self, _path: &EntryPath) -> Option<Lane> {
        Some(Lane(0))
    }

    async fn put(&self, _ordinal: u64, entry: Entry) -> lifeboat_core::Result<()> {
        self.take(entry).await
    }

    async fn commit(self: Arc<Self>, _: Completion) -> lifeboat_core::Result<Receipt> {
        let state = self.state.lock().await;
        let directory = &self.staging.options.path;
        if state.shards.is_empty() {
            return Err(Error::NoDump { path: directory.clone() }.into());
        }
        if let Some(entry) = state.parts.missing() {
            let target = directory.display().to_string();
            return Err(Error::MissingShard { target, entry }.into());
        }
        let next = format!(
            "start {} servers with \"cluster-enabled yes\" and \"appendonly no\", each with one of \
             the directories {}/shard-* as its \"dir\"; then make them one cluster: to the first of \
             them, redis-cli CLUSTER MEET HOST PORT for each other one. Replicas: start them \
             empty, CLUSTER MEET, and CLUSTER REPLICATE",
            state.shards.len(),
            directory.display()
        );
        let (staging, map, shards) =
            (self.staging.clone(), state.map.clone(), state.shards.clone());
        let published = tokio::task::spawn_blocking(move || staging.publish(&map, &shards)).await;
        published.map_err(|source| Error::Panicked { source })??;
        let facts = Attributes::new().with("redis.next", next);
        Ok(Receipt { snapshot: None, facts })
    }

    async fn abort(self: Arc<Self>) {}
}

impl Drop for ShardsWriting {
    fn drop(&mut self) {
        // After a commit it is not there any more.
        let _ = fs::remove_dir_all(&self.staging.partial);
    }
}

/// Where it is written.
#[derive(Debug, Clone)]
struct Staging {
    options: RestoreOptions,
    partial: PathBuf,
    owner: Option<(u32, u32)>,
}

impl Staging {
    /// Checks the target, and makes a directory in it.
    fn begin(options: RestoreOptions) -> Result<Self> {
        let directory = &options.path;
        if !is_there(directory)? {
            make_directory(directory)?;
        }
        let partial = directory.join(format!(".shards.{}.partial", std::process::id()));
        make_directory(&partial)?;
        let look = |path: &Path| fs::metadata(path).map_err(file_error("look at", path));
        let (ours, theirs) = (look(&partial)?, look(directory)?);
        let owner = (ours.uid() == 0 && theirs.uid() != 0).then_some((theirs.uid(), theirs.gid()));
        Ok(Self { options, partial, owner })
    }

    /// Servers read their files under their own account, which is that of the directory.
    fn give(&self, path: &Path) -> Result<()> {
        let Some((uid, gid)) = self.owner else {
            return Ok(());
        };
        chown(path, Some(uid), Some(gid)).map_err(file_error("give away", path))
    }

    fn make_shard(&self, name: &str, shard: &Shard) -> Result<FileWriting> {
        let directory = self.partial.join(name);
        make_directory(&directory)?;
        self.give(&directory)?;
        self.make_file(&directory.join(NODES), nodes_conf(shard)?.as_bytes())?;
        let path = directory.join(DUMP);
        FileWriting::begin(&RestoreOptions { path, ..self.options.clone() })
    }

    fn make_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut options = OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(FILE_MODE).open(path);
        let mut file = opened.map_err(file_error("make", path))?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(file_error("write", path))?;
        self.give(path)
    }

    fn publish(&self, map: &[u8], shards: &[String]) -> Result<()> {
        let directory = &self.options.path;
        for shard in shards {
            let (from, to) = (self.partial.join(shard), directory.join(shard));
            sync(&from)?;
            // Renaming replaces a directory only when it is empty.
            fs::rename(&from, &to).map_err(file_error("make", &to))?;
        }
        let (from, to) = (self.partial.join(cluster::MAP), directory.join(cluster::MAP));
        self.make_file(&from, map)?;
        fs::hard_link(&from, &to).map_err(file_error("make", &to))?;
        fs::remove_dir_all(&self.partial).map_err(file_error("remove", &self.partial))?;
        sync(directory)
    }
}

/// Whether the directory is there. One that is not empty is an error.
fn is_there(directory: &Path) -> Result<bool> {
    match fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            None => Ok(true),
            Some(entry) => {
                let entry = entry.map_err(file_error("look into", directory))?;
                let found = entry.file_name().to_string_lossy().into_owned();
                Err(Error::TargetFilled { path: directory.to_owned(), found })
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(file_error("look into", directory)(error)),
    }
}

fn make_directory(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path);
    made.map_err(file_error("make", path))
}

/// What a server reads about itself when it starts: a line as in `CLUSTER NODES`, whose address it
/// replaces by its own, and the variables.
fn nodes_conf(shard: &Shard) -> Result<String> {
    let (id, epoch) = (random_id()?, shard.primary.epoch);
    let mut slots = String::new();
    for (first, last) in &shard.primary.slots {
        slots += &match first == last {
            true => format!(" {first}"),
            false => format!(" {first}-{last}"),
        };
    }
    Ok(format!(
        "{id} :0@0 myself,master - 0 0 {epoch} connected{slots}\n\
         vars currentEpoch {epoch} lastVoteEpoch 0\n"
    ))
}
