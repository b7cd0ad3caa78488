//! The words for looking into snapshots.

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use lifeboat_core::{EntryKind, EntryPath, Pattern};

use super::which::{StoreName, Which, path, store};

#[derive(Debug, Args)]
pub(crate) struct Find {
    /// A name such as '*.conf', or a path from the top such as 'etc/**/*.conf'; ** stands for any
    /// number of directories. With several, one must match; with none, every entry does
    #[arg(value_name = "PATTERN", value_parser = pattern)]
    pub(crate) patterns: Vec<Pattern>,
    /// Look in this snapshot: the first digits of its id, or `latest`; can be repeated. Without
    /// it, in all snapshots
    #[arg(long = "in", value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    /// Only in snapshots of this store, such as files/etc
    #[arg(long, value_name = "KIND/NAME", value_parser = store)]
    pub(crate) store: Option<StoreName>,
    /// Only what is in this directory, at any depth
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub(crate) beneath: Option<EntryPath>,
    /// Only entries of this kind; can be repeated
    #[arg(long = "kind", value_name = "KIND", value_enum)]
    pub(crate) kinds: Vec<Kind>,
    /// Only files of so many bytes or more: 4096, 10MiB, 1GB
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) min_size: Option<u64>,
    /// Only files of so many bytes or fewer
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) max_size: Option<u64>,
    /// Only what was last changed at this time or later: 2026-11-20, '2026-11-20 14:30', both in
    /// this host's time zone, or 2026-11-20T14:30:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) changed_since: Option<Timestamp>,
    /// Only what was last changed before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) changed_before: Option<Timestamp>,
    /// Show kind, mode, owner, size and time, as `ls -l` does
    #[arg(long, short)]
    pub(crate) long: bool,
}

pub(super) const FIND: &str = "\
Of several snapshots, each line begins with the newest that has the entry, and with how many more
have just the same: `cat` and `restore` take it from there. An entry that changed from one snapshot
to another has a line for each form. What snapshots share is searched once.

Examples:
  lifeboat find hosts --store files/etc
  lifeboat find '*.sql' 'dump-*' --in latest --store files/srv --min-size 1MiB -l
  lifeboat find 'home/**/notes.txt' --changed-since 2026-11-01";

/// The kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Directory,
    File,
    Symlink,
    Hardlink,
    Fifo,
    CharDevice,
    BlockDevice,
    Socket,
}

impl From<Kind> for EntryKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Directory => Self::Directory,
            Kind::File => Self::File,
            Kind::Symlink => Self::Symlink,
            Kind::Hardlink => Self::HardLink,
            Kind::Fifo => Self::Fifo,
            Kind::CharDevice => Self::CharDevice,
            Kind::BlockDevice => Self::BlockDevice,
            Kind::Socket => Self::Socket,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Cat {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The file
    #[arg(value_parser = path)]
    pub(crate) path: EntryPath,
    /// Begin after so many bytes: 4096, 10MiB. What lies before them is not read
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value_t = 0)]
    #[arg(hide_default_value = true)]
    pub(crate) offset: u64,
    /// Stop after so many bytes
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) length: Option<u64>,
}

pub(super) const CAT: &str = "\
Every byte is checked before it is written. When a part cannot be read, the command fails there,
with what came before it written already. A hard link is the file that it names.

Examples:
  lifeboat cat latest --store files/etc hosts
  lifeboat cat 3f2a91bc var/log/syslog --offset 10MiB --length 1MiB | less";

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The earlier snapshot: the first digits of its id, or `latest`
    pub(crate) before: String,
    /// The later snapshot
    pub(crate) after: String,
    /// Only this entry, with what is beneath it
    #[arg(value_parser = path)]
    pub(crate) path: Option<EntryPath>,
    /// Only among the snapshots of this store, such as files/etc
    #[arg(long, value_name = "KIND/NAME", value_parser = store)]
    pub(crate) store: Option<StoreName>,
    /// Leave out entries of which only the attributes changed: mode, owner, times
    #[arg(long)]
    pub(crate) content_only: bool,
}

pub(super) const DIFF: &str = "\
Each line begins with what happened to the entry:
  +  it was added
  -  it was removed
  M  its content changed
  U  only its attributes changed; which ones, is said
  T  it is of another kind, such as a link where a file was
The cost follows the difference: what is the same in both snapshots is not read.

Examples:
  lifeboat diff 3f2a91bc latest --store files/etc
  lifeboat diff 3f2a91bc 77b01e4c ssh --content-only";

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Show only the snapshots of this store, such as files/etc. All are counted
    #[arg(long, value_name = "KIND/NAME", value_parser = store)]
    pub(crate) store: Option<StoreName>,
}

pub(super) const STATS: &str = "\
Of each snapshot: its size; what it refers to, compressed; and what it alone holds, which is what
pruning frees when just this one is forgotten. Then the whole repository: what repeats itself, what
compression saves, what no snapshot needs. It reads what describes the content, each part once, and
not the content.

Examples:
  lifeboat stats
  lifeboat stats --store files/etc --json";

#[cfg(feature = "mount")]
#[derive(Debug, Args)]
pub(crate) struct Mount {
    /// The directory to mount on: an empty one, which this user owns
    #[arg(value_name = "DIR")]
    pub(crate) directory: std::path::PathBuf,
    /// Only the snapshots of this store, such as files/etc
    #[arg(long, value_name = "KIND/NAME", value_parser = store)]
    pub(crate) store: Option<StoreName>,
    /// Let other users in, as the recorded owners and modes allow. Unless this is root,
    /// /etc/fuse.conf must say user_allow_other
    #[arg(long)]
    pub(crate) allow_others: bool,
}

#[cfg(feature = "mount")]
pub(super) const MOUNT: &str = "\
Shows the snapshots there are as DIR/KIND/NAME/TIME-ID, and the newest as DIR/KIND/NAME/latest.
Nothing can be written. Ctrl-C, or `fusermount3 -u DIR`, takes it away. The package fuse3 must be
installed.

Examples:
  lifeboat mount /mnt
  lifeboat mount /mnt --store files/etc --allow-others";

/// Lengths are taken as people write them: 4096, 10MiB, 1GB.
fn bytes(text: &str) -> Result<u64, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "write a number of bytes, such as 4096, 10MiB or 1GB")?;
    Ok(size.as_u64())
}

fn pattern(text: &str) -> Result<Pattern, String> {
    let text = text.strip_prefix("./").unwrap_or(text);
    text.parse().map_err(|error: lifeboat_core::Error| error.one_line())
}

fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let local: jiff::civil::DateTime = text
        .parse()
        .map_err(|_| "write a date, or a date and a time, such as 2026-11-20T14:30:00Z")?;
    let zoned = local.to_zoned(TimeZone::system()).map_err(|error| error.to_string())?;
    Ok(zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_taken_as_people_write_them() {
        assert_eq!(bytes("4096").unwrap(), 4096);
        assert_eq!(bytes("10MiB").unwrap(), 10 << 20);
        assert_eq!(bytes("1GB").unwrap(), 1_000_000_000);
        assert!(bytes("many").is_err() && bytes("-1").is_err());
        let utc = moment("2026-11-20T14:30:00Z").unwrap();
        assert_eq!(utc.to_string(), "2026-11-20T14:30:00Z");
        let day = moment("2026-11-20").unwrap();
        assert_eq!(moment("2026-11-20 00:00").unwrap(), day);
        assert!(day.duration_until(utc).unsigned_abs() < std::time::Duration::from_secs(30 * 3600));
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn kinds_have_the_words_of_the_events() {
        for kind in Kind::value_variants() {
            let word = kind.to_possible_value().unwrap().get_name().replace('-', "_");
            assert_eq!(word, EntryKind::from(*kind).as_str());
        }
    }
}
