//! A snapshot into a running server: key by key, beside what is there.
//!
//! [`LiveSink`] reads the RDB of a snapshot and gives each key that is wanted to the server with
//! `RESTORE`: the value as it was serialised, with the version of the format and a checksum, and the
//! moment at which it expires. So every type comes back as it was, those of modules included, and
//! nothing is translated.
//!
//! - Before the first key the server is asked, with a value that is none, whether it takes values of
//!   the snapshot's version, and whether this user may write: when not, nothing was touched.
//! - Before the first key, too, every database that keys will go to is selected: those that were
//!   mapped, or those that the snapshot says it holds ([`LiveOptions::with_facts`]). In the stream
//!   nothing is sent behind a `SELECT` before it was answered, since a server that refuses it stays
//!   in the database where it was, and would write what follows there.
//! - A key that is there stays as it is and is told, unless [`Existing::Replace`] was said.
//! - Keys whose time has come, by the server's clock, are left out.
//! - Keys can be chosen by pattern ([`KeyPattern`]) and database, and databases go into others.
//! - Functions come with the databases, unless keys or databases are chosen.
//! - Commands are sent ahead of their answers, some MiB of them; one value is held at a time, up to
//!   512 MiB, which is the most that a server takes ([`LiveOptions::largest`]).
//! - What the server refuses of a single key (a module that it lacks, a value too large) is told by
//!   its name, the rest goes on, and the end is an error. What stops everything (no memory left, no
//!   right, a lost connection) is an error that says how many keys were written.
//! - [`Doing::Look`] writes nothing, and counts what would be written and what is there already.
//!
//! A restore that fails leaves what it had written. Running it again does no harm: with
//! [`Existing::Keep`] it writes what is missing.
//!
//! # Clusters
//!
//! A server that is a node of a cluster stands for all of it: each key goes to the node that serves
//! its slot, whatever the shape of the cluster that the snapshot is of, or whether it is of one; see
//! `routing` for what happens when slots move meanwhile. Functions go to all nodes with slots. A
//! cluster has database 0 alone: keys of others are refused before the first one is written, or go
//! into that with [`LiveOptions::databases`]. Shards of a snapshot are restored one after the other,
//! and the end says so when one is missing that the snapshot's map names.

mod counts;
mod error;
mod glob;
mod parsing;
mod pipeline;
mod probe;
mod routing;
mod work;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{Attributes, Context, Header, Sink, Writing};

pub use self::counts::LiveCounts;
pub use self::error::LiveError;
pub use self::glob::KeyPattern;
pub(crate) use self::probe::{Probed, footed, probe, probe_name};
use crate::connect::ConnectOptions;
use crate::selection::place_of;
use crate::source::facts;

/// What becomes of keys that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// They stay as they are, and are told.
    #[default]
    Keep,
    /// They are replaced.
    Replace,
}

/// Whether anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Doing {
    /// The keys are written.
    #[default]
    Write,
    /// It is found out what would be written, and what is there.
    Look,
}

/// How a snapshot goes into a running server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LiveOptions {
    /// How the server is reached. The user needs `+restore +select +time` for the keys, with
    /// `+function|restore` for functions, and `+exists` to look.
    pub connection: ConnectOptions,
    /// What becomes of keys that are there.
    pub existing: Existing,
    /// Whether anything is written.
    pub doing: Doing,
    /// Only keys that fit one of these; all without any.
    pub keys: Vec<KeyPattern>,
    /// Only these databases, and where each goes; all, each to its own number, when empty.
    pub databases: BTreeMap<u64, u64>,
    /// The databases that the snapshot says it holds; empty when it does not say.
    pub held: BTreeSet<u64>,
    /// So many bytes are sent ahead of their answers, and held until then; 4 MiB unless said. The
    /// nodes of a cluster share them.
    pub ahead: usize,
    /// The largest value that is held, in bytes; 512 MiB unless said.
    pub largest: usize,
}

impl LiveOptions {
    /// The defaults, for this server.
    pub fn new(connection: ConnectOptions) -> Self {
        Self {
            connection,
            existing: Existing::default(),
            doing: Doing::default(),
            keys: Vec::new(),
            databases: BTreeMap::new(),
            held: BTreeSet::new(),
            ahead: 4 << 20,
            largest: 512 << 20,
        }
    }

    /// With what the snapshot says of itself, by which its databases are known before its keys.
    pub fn with_facts(mut self, facts: &Attributes) -> Self {
        let counts = facts.pairs(facts::DATABASES).unwrap_or_default();
        let numbers = counts.iter().filter_map(|(number, _)| str::from_utf8(number).ok());
        self.held = numbers.filter_map(|number| number.parse().ok()).collect();
        self
    }

    /// The databases that keys go to, as far as that is known before the first.
    pub(crate) fn targets(&self) -> BTreeSet<u64> {
        match self.databases.is_empty() {
            true => self.held.clone(),
            false => self.databases.values().copied().collect(),
        }
    }

    /// Whether a key is wanted, and in which database.
    pub(crate) fn place_of(&self, database: u64, key: &[u8]) -> Option<u64> {
        place_of(&self.keys, &self.databases, database, key)
    }

    /// Whether everything of the snapshot is wanted, functions as well.
    pub(crate) fn wants_functions(&self) -> bool {
        self.keys.is_empty() && self.databases.is_empty()
    }
}

/// A running server, beside what it holds.
#[derive(Debug, Clone)]
pub struct LiveSink {
    options: Arc<LiveOptions>,
}

impl LiveSink {
    /// A server, and what becomes of what is there.
    pub fn new(options: LiveOptions) -> Self {
        Self { options: Arc::new(options) }
    }
}

#[async_trait]
impl Sink for LiveSink {
    async fn write(
        &self,
        _header: &Header,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Writing>> {
        let options = Arc::clone(&self.options);
        Ok(Box::new(writing::begin(options, context).await?))
    }
}
