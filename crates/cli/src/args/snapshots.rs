//! The words of `snapshots` and `ls`.

use clap::Args;
use lifeboat_core::EntryPath;

use super::which::{StoreName, Which, path, store};

#[derive(Debug, Args)]
pub(crate) struct Snapshots {
    /// Only those of this store, such as postgres/shop, or of the stores with this name
    #[arg(long, value_name = "KIND/NAME", value_parser = store)]
    pub(crate) store: Option<StoreName>,
    /// Only those with this word; can be repeated, and then all are needed
    #[arg(long = "tag", value_name = "WORD")]
    pub(crate) tags: Vec<String>,
}

pub(super) const SNAPSHOTS: &str = "\
Examples:
  lifeboat snapshots
  lifeboat snapshots --store postgres/shop --tag nightly
  lifeboat snapshots --json | jq -r 'select(.event == \"snapshot\") | .id'";

#[derive(Debug, Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) which: Which,
    /// What to list: a directory's content, or one entry. The top when nothing is said
    #[arg(value_parser = path)]
    pub(crate) path: Option<EntryPath>,
    /// Show kind, mode, owner, size and time, as `ls -l` does
    #[arg(long, short)]
    pub(crate) long: bool,
    /// Show everything beneath
    #[arg(long, short = 'R')]
    pub(crate) recursive: bool,
}

pub(super) const LS: &str = "\
Examples:
  lifeboat ls latest --store etc
  lifeboat ls latest --store files/etc -l ssh
  lifeboat ls 3f2a91bc -R | grep hosts";
