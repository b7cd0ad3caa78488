//! The words of `forget`, `pin`, `unpin` and `pins`.

use clap::{Args, ValueEnum};
use lifeboat_core::{Count, Span, StoreRef, TimeZone, Timestamp};

use super::which::{StoreName, Which, store};

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// Snapshots to forget, by the first digits of their ids. Without any, the rules below decide
    #[arg(value_name = "SNAPSHOT", conflicts_with = "rules")]
    pub(crate) snapshots: Vec<String>,
    /// Only snapshots of this store, such as postgres/shop; can be repeated
    #[arg(long, value_name = "KIND/NAME", value_parser = store, conflicts_with = "snapshots")]
    pub(crate) store: Vec<StoreName>,
    /// What is judged together: the snapshots of one store, or only those of one host, or only
    /// those with the same tags
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "store",
        conflicts_with = "snapshots"
    )]
    pub(crate) group_by: Vec<Grouping>,
    /// Only show what would be forgotten, and why
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    /// Forget even the last snapshot of this store. Its name must be given in full
    #[arg(long, value_name = "KIND/NAME", value_parser = whole_store)]
    pub(crate) allow_remove_last: Vec<StoreRef>,
    #[command(flatten)]
    pub(crate) rules: Rules,
}

/// What is kept.
#[derive(Debug, Args)]
#[group(id = "rules", multiple = true)]
#[command(next_help_heading = "What is kept (by any of these)")]
pub(crate) struct Rules {
    /// The last N snapshots
    #[arg(long, value_name = "N|all")]
    pub(crate) keep_last: Option<Count>,
    /// All within this time before the latest one, such as 36h, 14d, 2w, 3mo or 1y
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) keep_within: Option<Span>,
    /// The newest of each of the last N hours that have a snapshot
    #[arg(long, value_name = "N|all")]
    pub(crate) keep_hourly: Option<Count>,
    /// The newest of each of the last N days that have one
    #[arg(long, value_name = "N|all")]
    pub(crate) keep_daily: Option<Count>,
    /// The newest of each of the last N ISO weeks (Monday to Sunday) that have one
    #[arg(long, value_name = "N|all")]
    pub(crate) keep_weekly: Option<Count>,
    /// The newest of each of the last N months that have one
    #[arg(long, value_name = "N|all")]
    pub(crate) keep_monthly: Option<Count>,
    /// The newest of each of the last N quarters that have one
    #[arg(long, value_name = "N|all")]
    pub(crate) keep_quarterly: Option<Count>,
    /// The newest of each of the last N years that have one
    #[arg(long, value_name = "N|all")]
    pub(crate) keep_yearly: Option<Count>,
    /// All that have every tag of this list, such as release,verified; can be repeated, and then
    /// one list is enough
    #[arg(long, value_name = "TAGS", value_parser = tags)]
    pub(crate) keep_tag: Vec<Tags>,
    /// For stores with a journal: what recovery to any moment needs, from this time before the
    /// latest snapshot on. What lies before that in the journal is removed
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) recoverable: Option<Span>,
    /// Where hours, days, weeks, months and years begin: an IANA name such as Europe/Berlin, or an
    /// offset such as +02:00. UTC when nothing is said
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub(crate) time_zone: Option<TimeZone>,
}

/// Tags of which a snapshot must have all.
#[derive(Debug, Clone)]
pub(crate) struct Tags(pub(crate) Vec<String>);

/// What is judged together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Grouping {
    /// One store; this always holds
    Store,
    /// One host
    Host,
    /// The same tags
    Tags,
}

pub(super) const FORGET: &str = "\
A snapshot stays when any rule keeps it. The newest one of each group, what is pinned, and what was
taken later than now always stay. Try it with --dry-run first: it shows each snapshot with the
reasons, and of each journal what stays because of which snapshot. Forgetting a snapshot frees no room
by itself: what only it needed is deleted by pruning. See docs/retention.md.

Examples:
  lifeboat forget --keep-within 14d --keep-weekly 8 --keep-monthly 12 --dry-run
  lifeboat forget --store postgres/shop --keep-daily 7 --keep-weekly 4 --time-zone Europe/Berlin
  lifeboat forget 3f2a91bc 77d0c1e2";

#[derive(Debug, Args)]
pub(crate) struct Pin {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Why, such as \"legal hold 2026-14\" or \"before the migration\"
    #[arg(long, value_name = "WORDS")]
    pub(crate) reason: String,
    /// When the pin runs out by itself: a date (the beginning of that day, UTC), or a moment such
    /// as 2027-01-31T18:00:00Z. Without it, it holds until it is released
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<Timestamp>,
}

pub(super) const PIN: &str = "\
Nothing forgets a pinned snapshot: no rule, and no command that names it. `lifeboat unpin` releases
it.

Examples:
  lifeboat pin latest --store postgres/shop --reason 'before the migration' --until 2027-03-01
  lifeboat pin 3f2a91bc --reason 'legal hold 2026-14'";

#[derive(Debug, Args)]
pub(crate) struct Unpin {
    /// The first digits of the pins' ids, as `lifeboat pins` shows them
    #[arg(value_name = "PIN", required = true)]
    pub(crate) pins: Vec<String>,
}

pub(super) const UNPIN: &str = "\
Examples:
  lifeboat pins
  lifeboat unpin 9b1f0c44";

pub(super) const PINS: &str = "\
Examples:
  lifeboat pins
  lifeboat pins --json | jq -r 'select(.event == \"pin\" and .live) | .snapshot'";

fn whole_store(text: &str) -> Result<StoreRef, String> {
    match store(text)? {
        StoreName::Whole(store) => Ok(store),
        StoreName::Name(name) => Err(format!("give the kind as well, as in KIND/{name}")),
    }
}

fn tags(text: &str) -> Result<Tags, String> {
    let tags: Vec<_> = text.split(',').map(|tag| tag.trim().to_owned()).collect();
    match tags.iter().any(String::is_empty) {
        true => Err("write tags with commas between them, such as release,verified".to_owned()),
        false => Ok(Tags(tags)),
    }
}

fn span(text: &str) -> Result<Span, String> {
    lifeboat_core::parse_span(text).map_err(|error| error.one_line())
}

fn zone(text: &str) -> Result<TimeZone, String> {
    lifeboat_core::parse_time_zone(text).map_err(|error| error.one_line())
}

fn moment(text: &str) -> Result<Timestamp, String> {
    // A time without a zone would be taken for a date: nobody knows which moment is meant.
    let date = || {
        let date = text.parse::<jiff::civil::Date>().ok().filter(|_| text.len() == 10)?;
        date.to_zoned(TimeZone::UTC).ok()
    };
    let moment = text.parse().ok();
    moment.or_else(|| date().map(|zoned| zoned.timestamp())).ok_or_else(|| {
        "write a date such as 2027-01-31, or a moment such as 2027-01-31T18:00:00Z".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_date_or_a_moment() {
        assert_eq!(moment("2027-03-01").unwrap().to_string(), "2027-03-01T00:00:00Z");
        let zoned = moment("2027-03-01T02:00:00+02:00").unwrap();
        assert_eq!(zoned.to_string(), "2027-03-01T00:00:00Z");
        for bad in ["", "tomorrow", "2027-02-30", "2027-03-01T02:00:00"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
        assert!(whole_store("shop").unwrap_err().contains("KIND/shop"));
    }
}
