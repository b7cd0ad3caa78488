//! Which entries stay out of a snapshot.

use lifeboat_core::{EntryPath, Pattern, Result};

/// Patterns for paths that are left out; a directory with all that it holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exclude(Vec<Pattern>);

impl Exclude {
    pub(crate) fn new(patterns: &[String]) -> Result<Self> {
        patterns.iter().map(|pattern| pattern.parse()).collect::<Result<_>>().map(Self)
    }

    pub(crate) fn matches(&self, path: &EntryPath) -> bool {
        self.0.iter().any(|pattern| pattern.matches(path))
    }
}
