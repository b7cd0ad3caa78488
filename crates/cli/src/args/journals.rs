//! The words of `journals`.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Journals {
    /// Show the segments of this journal, such as postgres/shop/wal; its store alone, or the name
    /// of that, when no other has it. Without it, all journals are listed
    pub(crate) journal: Option<String>,
    /// Show the times and the size of each segment as well. Each of them has to be asked for
    #[arg(long, short, requires = "journal")]
    pub(crate) long: bool,
}

pub(super) const JOURNALS: &str = "\
A journal is the history of a store, such as the WAL of a PostgreSQL cluster, in sealed segments. With
it, a store comes back as it was at any moment after a snapshot. What is missing between its segments
is a gap: no moment from there on can be recovered but from a later snapshot.

Examples:
  lifeboat journals
  lifeboat journals postgres/shop/wal --long
  lifeboat journals --json | jq -r 'select(.event == \"gap\")'";
