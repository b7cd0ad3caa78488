//! How a store keeps objects beside holding their bytes: classes, archives, versions, locks.
//!
//! Every object store puts and gets; this is the rest, as far as a backup depends on it, in words
//! that hold for all of them. A store that has none of it (a directory) has no warehouse.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::error::Result;

/// What a store keeps of objects beside their bytes. Names are the ones by which the store itself
/// is asked for the objects.
#[async_trait]
pub trait Warehouse: fmt::Debug + Send + Sync {
    /// What is known of a class. One that nobody knows is billed for no least time, and read at
    /// once.
    fn class(&self, name: &str) -> StorageClass;

    /// The class of this name, to put data into it; upper and lower case do not matter for names
    /// that are known.
    ///
    /// # Errors
    /// When data cannot be kept there: the name cannot be a class, or what is in it could not be
    /// brought back from here.
    fn choose(&self, name: &str) -> Result<StorageClass>;

    /// How an object stands; `None` when it does not exist.
    ///
    /// # Errors
    /// When the store cannot be asked, or has no answer to this.
    async fn standing(&self, object: &str) -> Result<Option<Standing>>;

    /// Calls `each` with the name and the class of every object whose name begins with `area` and
    /// a slash. The result is whether the store tells classes at all: if not, nothing was called.
    ///
    /// # Errors
    /// When the store cannot be asked.
    async fn classes(&self, area: &str, each: &mut ClassVisitor<'_>) -> Result<Telling>;

    /// Asks the store to make an archived object readable for some days. That it is asked for
    /// already, or readable, is fine.
    ///
    /// # Errors
    /// When the store refuses: the class has no such tier, the object is not archived, it cannot
    /// take more of these requests now.
    async fn thaw(&self, object: &str, tier: ThawTier, days: u16) -> Result<()>;

    /// What becomes of objects that are replaced or deleted.
    ///
    /// # Errors
    /// When the store cannot be asked, has no answer to this, or may not be asked it.
    async fn keeping(&self) -> Result<Keeping>;
}

/// What is called with the name of each object and with its class.
pub type ClassVisitor<'a> = dyn FnMut(&str, &str) + Send + 'a;

/// Whether a store tells the classes of its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Telling {
    /// It told those of all.
    All,
    /// It tells none.
    Nothing,
}

/// A class of storage, as the provider sells it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageClass {
    /// As the store calls it.
    pub name: String,
    /// For how long an object is billed at least, from when it came into the class.
    pub least: Duration,
    /// How long a thaw takes at most, as the provider says, for each tier there is. Empty when
    /// objects are read at once.
    pub thaws: Vec<(ThawTier, Duration)>,
}

impl StorageClass {
    /// A class whose objects are read at once, billed for `least`.
    pub fn new(name: impl Into<String>, least: Duration) -> Self {
        Self { name: name.into(), least, thaws: Vec::new() }
    }

    /// As an archive, with these tiers and how long each takes.
    #[must_use]
    pub fn with_thaws(mut self, thaws: impl IntoIterator<Item = (ThawTier, Duration)>) -> Self {
        self.thaws = thaws.into_iter().collect();
        self
    }

    /// Whether objects must be thawed before they can be read.
    pub fn is_archive(&self) -> bool {
        !self.thaws.is_empty()
    }

    /// How long a thaw takes at most; `None` when there is no such tier.
    pub fn thaw(&self, tier: ThawTier) -> Option<Duration> {
        self.thaws.iter().find(|(known, _)| *known == tier).map(|(_, time)| *time)
    }
}

/// How much haste a thaw has. Haste costs money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum ThawTier {
    /// The cheapest.
    Bulk,
    /// Usual.
    #[default]
    Standard,
    /// The fastest; few archives have it.
    Expedited,
}

impl ThawTier {
    /// All of them, the cheapest first.
    pub const ALL: [Self; 3] = [Self::Bulk, Self::Standard, Self::Expedited];

    /// A stable lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Standard => "standard",
            Self::Expedited => "expedited",
        }
    }
}

impl fmt::Display for ThawTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How one object stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// Its class, as the store calls it.
    pub class: String,
    /// Whether it can be read.
    pub access: Access,
    /// Until when this version of it cannot be deleted, as far as the store says so.
    pub locked_until: Option<Timestamp>,
}

impl Standing {
    /// An object without a lock.
    pub fn new(class: impl Into<String>, access: Access) -> Self {
        Self { class: class.into(), access, locked_until: None }
    }
}

/// Whether an object can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// At any time.
    AtOnce,
    /// Only after a thaw, which nobody asked for.
    Archived,
    /// A thaw is under way.
    Thawing,
    /// It was thawed, and can be read until then; without a time, for as long as the store likes.
    Thawed {
        /// When it can be read no longer.
        until: Option<Timestamp>,
    },
}

impl Access {
    /// Whether it can be read now.
    pub fn is_readable(self) -> bool {
        matches!(self, Self::AtOnce | Self::Thawed { .. })
    }
}

/// What becomes of objects that are replaced or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Keeping {
    /// Former versions stay: what is deleted is hidden only, and still takes room.
    pub versions: bool,
    /// Versions can be locked: nobody can delete one before its time.
    pub lock: bool,
    /// The lock that every new version gets by itself.
    pub retention: Option<Retention>,
}

impl Keeping {
    /// As told.
    pub fn new(versions: bool, lock: bool, retention: Option<Retention>) -> Self {
        Self { versions, lock, retention }
    }
}

/// For how long new versions are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Who is held back.
    pub mode: RetentionMode,
    /// For how many days, from when the version was made.
    pub days: u32,
}

/// Whom a lock holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetentionMode {
    /// All but those with a right of their own to lift it.
    Governance,
    /// Everybody.
    Compliance,
}

impl RetentionMode {
    /// A stable lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        }
    }
}

/// What a store means when it refuses to give an object that lies in an archive. Found among the
/// causes of an error, however the store words it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it lies in an archive, and must be thawed before it can be read")]
pub struct Archived;

impl Archived {
    /// Whether this is the cause of an error.
    pub fn is_cause_of(error: &(dyn std::error::Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.is::<Self>() {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_has_a_thaw() {
        let day = Duration::from_hours(24);
        let cold = StorageClass::new("COLD", 30 * day);
        assert!(!cold.is_archive() && cold.thaw(ThawTier::Standard).is_none());
        let frozen = cold.with_thaws([(ThawTier::Bulk, 2 * day)]);
        assert!(frozen.is_archive());
        assert_eq!(frozen.thaw(ThawTier::Bulk), Some(2 * day));
        assert_eq!(frozen.thaw(ThawTier::Expedited), None);
    }

    #[test]
    fn an_archive_is_found_among_the_causes() {
        let error = crate::Error::new(crate::ErrorKind::Refused, "read x").with_source(Archived);
        assert!(Archived::is_cause_of(&error));
        assert!(Archived::is_cause_of(&error.context("restore")));
        let other = crate::Error::new(crate::ErrorKind::Refused, "read x");
        assert!(!Archived::is_cause_of(&other));
    }
}
