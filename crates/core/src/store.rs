//! Live systems, and what an inspection finds of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;

/// Which store: its kind and the name that its owner gave it. Snapshots of one store form its
/// history, and the newest of them is the baseline of the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoreRef {
    kind: String,
    name: String,
}

impl StoreRef {
    /// A store of `kind` (`postgres`, `files`, …) called `name`.
    pub fn new(kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: kind.into(), name: name.into() }
    }

    /// The kind of system.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The name that its owner gave it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for StoreRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing fails because of it.
    Note,
    /// A backup works, but is worth less than it could be.
    Warning,
    /// Stands in the way of a backup.
    Blocker,
}

/// Something that an inspection found, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable word for machines, such as `checksums_off`.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, in one sentence.
    pub what: String,
    /// The statement, command or setting that mends it; empty when there is nothing to do.
    pub remedy: String,
}

impl Finding {
    /// A finding.
    pub fn new(
        severity: Severity,
        code: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { code: code.into(), severity, what: what.into(), remedy: remedy.into() }
    }
}

/// What a store says of itself before anything is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The version of the system, as it calls itself.
    pub version: String,
    /// What tells this system from every other one, where it has such a thing.
    pub identity: String,
    /// About how many bytes a full backup reads.
    pub size: Option<u64>,
    /// Further facts, named as in the completion of a snapshot.
    pub facts: Attributes,
    /// What would go wrong, and how to mend it; the worst first.
    pub findings: Vec<Finding>,
}

impl Inspection {
    /// The findings that stand in the way of a backup.
    pub fn blockers(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Blocker)
    }
}
