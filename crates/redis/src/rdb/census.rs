//! Counting what an RDB holds.

use std::collections::BTreeMap;

use super::kind::ValueType;
use super::reader::{Aux, Item};

/// No dataset has more databases than this; further ones are counted in the last.
const MOST_DATABASES: usize = 1 << 14;
/// So many auxiliary fields are kept.
const MOST_AUX: usize = 64;

/// What an RDB holds, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Keys by database.
    pub databases: BTreeMap<u64, DatabaseCount>,
    /// Keys by type.
    pub types: BTreeMap<ValueType, TypeCount>,
    /// How many libraries of functions.
    pub functions: u64,
    /// How often a module wrote something besides keys.
    pub module_data: u64,
    /// What the server says of itself (`redis-ver`, `ctime`, `repl-id`, …). The first 64.
    pub aux: Vec<Aux>,
}

/// What a database holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatabaseCount {
    /// How many keys.
    pub keys: u64,
    /// How many of them expire.
    pub expiring: u64,
}

/// What there is of a type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TypeCount {
    /// How many keys.
    pub keys: u64,
    /// The bytes of their records in the RDB, names and expiry times included.
    pub bytes: u64,
}

impl Census {
    /// Counts one more.
    pub fn add(&mut self, item: &Item) {
        match item {
            Item::Key(record) => {
                let known = self.databases.len() < MOST_DATABASES;
                let number = if known || self.databases.contains_key(&record.database) {
                    record.database
                } else {
                    self.databases.keys().next_back().copied().unwrap_or_default()
                };
                let database = self.databases.entry(number).or_default();
                database.keys += 1;
                database.expiring += u64::from(record.expires.is_some());
                let kind = self.types.entry(record.kind).or_default();
                kind.keys += 1;
                kind.bytes += record.end - record.start;
            }
            Item::Aux(aux) if self.aux.len() < MOST_AUX => self.aux.push(aux.clone()),
            Item::Aux(_) => {}
            Item::Functions => self.functions += 1,
            Item::ModuleData => self.module_data += 1,
        }
    }

    /// Adds what another holds, but for what its server says of itself.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (number, count) in &other.databases {
            let database = self.databases.entry(*number).or_default();
            database.keys += count.keys;
            database.expiring += count.expiring;
        }
        for (kind, count) in &other.types {
            let total = self.types.entry(*kind).or_default();
            total.keys += count.keys;
            total.bytes += count.bytes;
        }
        self.functions += other.functions;
        self.module_data += other.module_data;
    }

    /// How many keys in all.
    pub fn keys(&self) -> u64 {
        self.databases.values().map(|database| database.keys).sum()
    }

    /// What the server says of itself under this name, when it is text.
    pub fn aux(&self, name: &str) -> Option<&str> {
        let found = self.aux.iter().find(|aux| aux.name == name.as_bytes())?;
        std::str::from_utf8(&found.value).ok()
    }
}
