//! The words of `verify` and `repair`.

use std::time::Duration;

use clap::{Args, Subcommand};
use lifeboat_repository::SampleSize;

use super::scratch::Rehearsal;
use super::storage::Thawing;
use super::units::{bytes, duration, sample};

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Read, decrypt and hash every byte that is stored. Without it, only what describes the
    /// content is read, and of the content its size is compared
    #[arg(long)]
    pub(crate) every_byte: bool,
    /// Read a part of the content, drawn by chance: a share (5%) or a size (10GB)
    #[arg(long, value_name = "SIZE", value_parser = sample, conflicts_with = "every_byte")]
    pub(crate) sample: Option<SampleSize>,
    /// Draw the sample that this number drew before
    #[arg(long, value_name = "NUMBER", requires = "sample")]
    pub(crate) seed: Option<u64>,
    /// Read so much of the content (50GB), what was read longest ago first. The repository remembers
    /// what was read
    #[arg(long, visible_alias = "max-bytes", value_name = "SIZE", value_parser = bytes)]
    #[arg(conflicts_with_all = ["every_byte", "sample"])]
    pub(crate) budget: Option<u64>,
    /// Read content for so long (1h), what was read longest ago first
    #[arg(long, value_name = "TIME", value_parser = duration)]
    #[arg(conflicts_with_all = ["every_byte", "sample"])]
    pub(crate) max_duration: Option<Duration>,
    /// Read as much as each run must for everything to be read once in this time (30d), and warn
    /// when a limit does not let it
    #[arg(long, value_name = "TIME", value_parser = duration)]
    #[arg(conflicts_with_all = ["every_byte", "sample"])]
    pub(crate) within: Option<Duration>,
    /// Look without the passphrase, on a host that does not have it: damage is found, but not
    /// which entries it hurts
    #[arg(long)]
    pub(crate) without_key: bool,
    #[command(flatten)]
    pub(crate) thawing: Thawing,
    #[command(flatten)]
    pub(crate) rehearsal: Rehearsal,
}

pub(super) const VERIFY: &str = "\
Of each damaged object it says what is wrong, which snapshots cannot be restored in full, which
entries in them, and the next step (docs/repair.md has them all). Exit code 1 means damage. What is
found is noted in the repository: no later backup relies on a damaged pack. What journals lack is told as
well; it is no damage, and exit code 3 where nobody recorded why.

With --within, --budget or --max-duration, run it every night: it goes round. Without the key, what
was read cannot be noted; then each pack has its day, and one run a day goes round as well.

With --restore, a PostgreSQL cluster is really restored: on a scratch server of its own, beside
production and without touching it, where every page, row, index and foreign key is checked, and your own
queries are asked. Exit code 1 means that something is wrong with it, 3 that something could not be
checked. See docs/postgres-verify.md.

A snapshot of Redis is loaded by a scratch server, too: keys are counted by database, and compared one by
one with what the snapshot holds, and with --source with a running server. See docs/redis.md.

Examples:
  lifeboat verify
  lifeboat verify --every-byte --json
  lifeboat verify --sample 5%
  lifeboat verify --within 30d --max-duration 1h
  lifeboat verify --restore latest --store postgres/shop
  lifeboat verify --restore latest --store postgres/shop --to-latest --checks expected.json
  lifeboat verify --restore latest --store redis/cache --compare all";

/// What is mended.
#[derive(Debug, Subcommand)]
pub(crate) enum Repair {
    /// Make lost or damaged index objects anew, from the packs
    #[command(after_help = REPAIR_INDEX)]
    Index(Mending),
    /// Save what still opens of damaged packs, and take them out of the index
    #[command(after_help = REPAIR_PACKS)]
    Packs(Mending),
    /// Make a sibling, with all that is left, of each snapshot that lacks something
    #[command(after_help = REPAIR_SNAPSHOTS)]
    Snapshots {
        #[command(flatten)]
        mending: Mending,
        /// Delete each hurt snapshot once its sibling is there. Without this option it stays: what
        /// it lacks may come back
        #[arg(long)]
        forget: bool,
    },
}

/// How it is mended.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Mending {
    /// Change nothing, and say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

const REPAIR_INDEX: &str = "\
Nothing is taken away before what takes its place is durable; a damaged index object is kept as
index/<id>.damaged. It can be run at any time, also beside backups.

Examples:
  lifeboat repair index --dry-run
  lifeboat repair index";

const REPAIR_PACKS: &str = "\
Which packs are damaged is known from `lifeboat verify`; run it with --every-byte before. Take a
backup of the same stores first if they still exist: that alone makes whole what they still have. The
damaged packs are marked, and the next prune deletes them.

Examples:
  lifeboat repair packs --dry-run
  lifeboat repair packs";

const REPAIR_SNAPSHOTS: &str = "\
The sibling has the same store and moment, and the tag `repaired`. What is lost is listed. A file of
which a part is lost is in it as NAME.lifeboat-damaged, with zeros where bytes are lost. The hurt
snapshot stays unless --forget is given.

Examples:
  lifeboat repair snapshots --dry-run
  lifeboat repair snapshots";
