//! Append-only files beside a server, as a source: what it has written to its disk, without asking it.
//!
//! # What is one consistent set
//!
//! From Redis 7 on a directory holds a *base*, one or more *increments* and a manifest that names
//! them. A rewrite begins a new increment, writes a new base beside the old one, and then replaces
//! the manifest in one step; what that does not name any more is removed. So:
//!
//! - A manifest that was read whole names a set that belongs together, also in the midst of a
//!   rewrite: the base, and all that was written behind it.
//! - The files are opened at once. What is removed afterwards can still be read; what was removed
//!   before is a reason to read the manifest again.
//! - All but the last increment are complete. The last one grows: it counts up to the end of the last
//!   command, or transaction, that was in it when its length was taken. That is the moment of the
//!   snapshot: each state that a server has written is one that it had.
//!
//! Before 7.0 there is one file, with or without an RDB at its beginning. A rewrite replaces it as a
//! whole, and the one that was opened stays what it was.
//!
//! # What a snapshot holds
//!
//! `dump.rdb`, the RDB at the beginning (an empty one, where the server was told to write none), and
//! `stream.aof`, all commands behind it: the two entries that a moment of a journal is restored from,
//! and it comes back in the same way, as append-only files. Both are checked as they are read: the
//! checksum of the RDB, and every command's beginning and end.

mod manifest;
mod reading;
mod set;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{Attributes, Baseline, Context, Inspection, Reading, Source, StoreRef};

use crate::error::Error;
use crate::sink::AppendOnlyForm;
use crate::source::{KIND, facts, lineage};

/// The append-only files of a server, on this host.
#[derive(Debug, Clone)]
pub struct AppendOnlySource {
    store: StoreRef,
    path: PathBuf,
}

impl AppendOnlySource {
    /// The files at `path`, called `name`: the directory with the manifest (`appendonlydir`), or the
    /// one file of a server before 7.0.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { store: StoreRef::new(KIND, name), path: path.into() }
    }
}

impl AppendOnlyForm {
    /// The form of a snapshot of append-only files; `None` of all others.
    pub fn of(facts: &Attributes) -> Option<Self> {
        match facts.text(facts::FORM)? {
            facts::SINGLE => Some(Self::Single),
            _ => Some(Self::MultiPart),
        }
    }
}

#[async_trait]
impl Source for AppendOnlySource {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    /// Sees that there is a set that can be opened.
    async fn inspect(&self) -> lifeboat_core::Result<Inspection> {
        let path = self.path.clone();
        let opened = tokio::task::spawn_blocking(move || set::open(&path)).await;
        let set = opened.map_err(|source| Error::Panicked { source })??;
        Ok(Inspection {
            version: String::new(),
            identity: String::new(),
            size: Some(set.files.iter().map(|file| file.length).sum()),
            facts: Attributes::new(),
            findings: Vec::new(),
        })
    }

    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Reading>> {
        context.phase("read the append-only files");
        let path = self.path.clone();
        let opened = tokio::task::spawn_blocking(move || set::open(&path)).await;
        let set = opened.map_err(|source| Error::Panicked { source })??;
        if let Some(since) = since.as_deref() {
            lineage::tell_of_cluster(since, &self.path.display().to_string(), context);
        }
        Ok(Box::new(reading::AofReading::new(set, context)))
    }
}
