//! The words about classes of storage: `data-class`, and thawing before something is read.

use std::time::Duration;

use clap::{Args, ValueEnum};
use lifeboat_core::ThawTier;

use super::prune::span;

#[derive(Debug, Args)]
pub(crate) struct DataClass {
    /// Put packs of data into this class from now on, as the store calls it: STANDARD_IA,
    /// GLACIER_IR, GLACIER, DEEP_ARCHIVE, NEARLINE, Cool. Without it, the present one is said
    #[arg(conflicts_with = "usual")]
    pub(crate) name: Option<String>,
    /// Put them into the store's usual class again
    #[arg(long)]
    pub(crate) usual: bool,
}

pub(super) const DATA_CLASS: &str = "\
Packs that are there stay where they are, and everything but data is in the store's usual class
always. Every host that backs up takes the new class with its next backup. docs/storage-classes.md
says which classes there are, what they cost in waiting, and how to move what is there.

Examples:
  lifeboat data-class
  lifeboat data-class GLACIER_IR
  lifeboat data-class --usual";

/// How what lies in an archive is made readable.
#[derive(Debug, Clone, Args)]
pub(crate) struct Thawing {
    /// Have packs that lie in an archive thawed first, and wait for them. The provider bills it,
    /// by how much haste it has: --thaw=bulk is the cheapest. What is needed is said in any case
    #[arg(
        long,
        value_enum,
        value_name = "TIER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "standard"
    )]
    pub(crate) thaw: Option<Tier>,
    /// For how many days thawed packs can be read: long enough for all of it
    #[arg(
        long,
        value_name = "DAYS",
        default_value_t = 7,
        value_parser = clap::value_parser!(u16).range(1..=365)
    )]
    pub(crate) thaw_days: u16,
    /// How long to wait for them at most. The same command, run again, goes on where this one
    /// ended; 0s asks for them and does not wait
    #[arg(long, value_name = "TIME", default_value = "48h", value_parser = span)]
    pub(crate) thaw_wait: Duration,
    /// How often to look whether they are ready
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = span)]
    pub(crate) thaw_poll: Duration,
}

/// How much haste a thaw has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// The cheapest, and the slowest
    Bulk,
    /// Usual
    Standard,
    /// The fastest, and the dearest; not every archive has it
    Expedited,
}

impl From<Tier> for ThawTier {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Bulk => Self::Bulk,
            Tier::Standard => Self::Standard,
            Tier::Expedited => Self::Expedited,
        }
    }
}
