//! What was found on a scratch server.

/// So many problems are kept.
pub(super) const KEPT: usize = 1000;

/// What an examination found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Examination {
    /// How many databases hold keys.
    pub databases: u64,
    /// How many keys the scratch server holds.
    pub keys: u64,
    /// How many keys of the snapshot had expired by the time it was loaded.
    pub expired: u64,
    /// How many keys were compared one by one, value and expiry.
    pub compared: u64,
    /// How many libraries of functions it holds, where the server says so.
    pub libraries: Option<u64>,
    /// What is wrong. No more than a thousand are kept.
    pub problems: Vec<Problem>,
    /// How many there are.
    pub problem_count: u64,
    /// What could not be checked, and why.
    pub unchecked: Vec<String>,
    /// How the keys compare with those of a running server, if one was named.
    pub source: Option<SourceComparison>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The number of the database.
    pub database: u64,
    /// The name of the key, as far as it can be printed; empty where it is about no key.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

/// How keys of the snapshot compare with those of a running server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceComparison {
    /// How many were compared.
    pub compared: u64,
    /// How many are the same there.
    pub same: u64,
    /// How many have another value, or expire where they did not or the other way round.
    pub changed: u64,
    /// How many are not there.
    pub gone: u64,
    /// Some of those that are not the same: the database, the key, and what is other.
    pub different: Vec<Problem>,
}

impl Examination {
    /// Adds what was found of another shard of the same cluster. All of them hold the same libraries.
    pub fn add(&mut self, other: Self) {
        self.databases = self.databases.max(other.databases);
        self.keys += other.keys;
        self.expired += other.expired;
        self.compared += other.compared;
        self.libraries = self.libraries.or(other.libraries);
        self.problem_count += other.problem_count;
        let room = KEPT.saturating_sub(self.problems.len());
        self.problems.extend(other.problems.into_iter().take(room));
        self.unchecked.extend(other.unchecked);
    }

    /// Compares how many keys all shards held with what the snapshot says; `None` where it does not.
    pub fn compare_total(&mut self, said: Option<u64>) {
        let held = self.keys + self.expired;
        if let Some(said) = said.filter(|said| *said != held) {
            let what = format!("the shards hold {held} keys, and held {said} when they were taken");
            self.problem(0, b"", what);
        }
    }

    pub(super) fn problem(&mut self, database: u64, key: &[u8], what: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < KEPT {
            self.problems.push(Problem { database, key: shown(key), what: what.into() });
        }
    }
}

/// A name of a key, for people.
pub(super) fn shown(name: &[u8]) -> String {
    name[..name.len().min(200)].escape_ascii().to_string()
}
