//! The words of `copy`.

use clap::Args;

use super::restore::OtherSecret;
use super::storage::Thawing;
use super::which::{StoreName, store};

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub(crate) struct Copy {
    /// The first digits of the ids of snapshots, or `latest`, which needs --store where there are
    /// snapshots of several stores
    #[arg(value_name = "SNAPSHOT", group = "which", conflicts_with_all = ["all", "since"])]
    pub(crate) snapshots: Vec<String>,
    /// Copy all snapshots, the pins that hold them, and the journals
    #[arg(long, group = "which")]
    pub(crate) all: bool,
    /// Only those that show this moment or a later one: so long ago, such as 7d (s, m, h, d, w),
    /// or a date or time such as 2026-03-01 or 2026-03-01T12:00:00Z
    #[arg(long, group = "which", value_name = "WHEN", value_parser = since)]
    pub(crate) since: Option<Since>,
    /// Only snapshots of this store, such as files/etc; its name alone when no other has it
    #[arg(long, value_name = "KIND/NAME", value_parser = store)]
    pub(crate) store: Option<StoreName>,
    /// The repository to copy into, as for --repo. It must exist: make it with `lifeboat init`
    #[arg(long, value_name = "LOCATION")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) other: OtherSecret,
    #[command(flatten)]
    pub(crate) thawing: Thawing,
    /// Read all content, also what the other repository has already. Nothing is stored twice
    #[arg(long)]
    pub(crate) full: bool,
    /// Read each copy back and compare it with the original, byte by byte
    #[arg(long)]
    pub(crate) verify: bool,
    /// Copy nothing; say what would be copied, and how much of it has to be read
    #[arg(long, conflicts_with = "verify")]
    pub(crate) dry_run: bool,
}

pub(super) const COPY: &str = "\
The other repository has keys and a passphrase of its own. Content is read, checked, and encrypted
anew; of a store that was copied before, only what changed is read. A snapshot is copied once,
however often this runs; what is stopped goes on the next time. Each snapshot keeps its times, host
and tags, and its copy also answers to the original's id. With --all, what a pin holds here is held
there as well, and what is missing of the journals is copied. Variables for the other store's
credentials begin with LIFEBOAT_OTHER_, such as LIFEBOAT_OTHER_AWS_ACCESS_KEY_ID: see docs/copy.md.

Examples:
  lifeboat copy --all --to s3://offsite/backups
  lifeboat copy --since 7d --store files/etc --to /mnt/usb/backups --dry-run
  lifeboat copy 3f2a91bc --to /mnt/usb/backups --verify";

/// From when on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long before now.
    Ago(std::time::Duration),
    /// This moment.
    At(jiff::Timestamp),
}

fn since(text: &str) -> Result<Since, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400), ('w', 604_800)];
    let ago = units.iter().find_map(|(unit, seconds)| {
        let count: u64 = text.strip_suffix(*unit)?.parse().ok()?;
        let ago = std::time::Duration::from_secs(count.checked_mul(*seconds)?);
        // Longer ago than there are calendars.
        (ago.as_secs() < 9000 * 31_557_600).then_some(Since::Ago(ago))
    });
    let date = || {
        let date: jiff::civil::Date = text.parse().ok()?;
        Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    };
    let moment = || text.parse().ok().or_else(date).map(Since::At);
    ago.or_else(moment).ok_or_else(|| {
        "write how long ago, such as 7d or 12h, or a date such as 2026-03-01 (UTC)".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_taken_as_people_write_them() {
        let day = std::time::Duration::from_secs(86_400);
        assert_eq!(since("7d"), Ok(Since::Ago(7 * day)));
        assert_eq!(since("2w"), Ok(Since::Ago(14 * day)));
        let noon = "2026-03-01T12:00:00Z";
        assert_eq!(since(noon), Ok(Since::At(noon.parse().unwrap())));
        let midnight = "2026-03-01T00:00:00Z".parse().unwrap();
        assert_eq!(since("2026-03-01"), Ok(Since::At(midnight)));
        for bad in ["", "d", "7", "-7d", "soon", "99999999999999999999d", "999999999w"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
