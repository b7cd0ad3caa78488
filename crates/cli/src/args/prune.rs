//! The words of `prune`.

use std::time::Duration;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How much waste may stay in packs that are needed in part, in per cent of all that is stored
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = percent)]
    pub(crate) max_waste: f64,
    /// Repack at most this much: 500MB, 20GB
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_repack: Option<bytesize::ByteSize>,
    /// Repack nothing more after so long: 30m, 2h
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) max_duration: Option<Duration>,
    /// How long marked packs wait before they are deleted: a safety margin for stores whose
    /// listings are behind. 0s deletes at once what no backup under way can need
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = span)]
    pub(crate) keep_marked: Duration,
    /// Leave packs alone that are younger than this. Without it, each is left for as long as its
    /// class of storage is billed at least; 0s waits for none
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) least_age: Option<Duration>,
    /// Seal all packs anew that have a key from before the last rotation, within these limits
    #[arg(long)]
    pub(crate) reseal: bool,
    /// Promise that nobody else prunes or repairs: for repositories made with --weak-store, whose
    /// store cannot tell
    #[arg(long)]
    pub(crate) alone: bool,
}

pub(super) const PRUNE: &str = "\
Deletes no snapshot: `lifeboat forget` does. Safe while backups, restores and checks run, on any host.
What no snapshot needs is marked first, and deleted by a later prune: run it once a day. Exit code 3
means that the store refused to delete something.

Examples:
  lifeboat prune --dry-run
  lifeboat prune
  lifeboat prune --max-repack 50GB --max-duration 2h
  lifeboat prune --keep-marked 0s";

/// A length of time as people write it, days being 24 hours.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|_| "say for example 30m, 24h or 90d")?;
    let day = jiff::SpanRelativeTo::days_are_24_hours();
    let duration = span.to_duration(day).map_err(|_| "months and years have no fixed length")?;
    Duration::try_from(duration).map_err(|_| "it must not be negative".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| "say a number")?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err("say 0 to 100".to_owned()) }
}
