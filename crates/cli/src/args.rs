//! The words of the command line. Parsing is pure: nothing is opened or looked up here.

mod browse;
mod key;
mod repair;
mod retention;
mod units;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use key::{Key, KeyAdd, KeyRemove, KeyRotate, NewHolder};
use lifeboat_core::{EntryPath, StoreRef};

use self::repair::VERIFY;
pub(crate) use self::repair::{Mending, Repair, Verify};
#[cfg(feature = "mount")]
pub(crate) use browse::Mount;
pub(crate) use browse::{Cat, Diff, Find, Stats};
use retention::{FORGET, PIN, PINS, UNPIN};
pub(crate) use retention::{Forget, Grouping, Pin, Rules, Unpin};

/// Takes stores to safety in one encrypted, deduplicated repository, and brings them back.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = AFTER)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "\
Examples:
  export LIFEBOAT_REPO=/srv/backups LIFEBOAT_PASSPHRASE_FILE=/etc/lifeboat/passphrase
  lifeboat init
  lifeboat backup postgres --name shop
  lifeboat backup files /etc --name etc
  lifeboat snapshots
  lifeboat restore latest --store files/etc --to /tmp/etc
  lifeboat verify --every-byte
  lifeboat repair index --dry-run

Exit codes:
  0    all of it worked
  1    it failed, or damage was found; the last line says what to do
  2    the command line makes no sense
  3    it worked, and something in it needs attention: see the warnings
  130  stopped by SIGINT or SIGTERM

Progress, warnings, errors and summaries go to standard error; what was asked for (the lists of
`snapshots`, `ls`, `find`, `diff` and `stats`, what `cat` reads) goes to standard output. With --json, standard output is a stream of JSON
events, one a line, described in docs/cli-json.md.";

/// What holds for every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Where the repository is: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or
    /// a directory. Without this option, LIFEBOAT_REPO names it. Never holds a secret;
    /// docs/objstore.md lists the variables for credentials
    // Not clap's `env`: then the line with the usage would ask for it once more.
    #[arg(long, short = 'r', global = true, value_name = "LOCATION")]
    pub(crate) repo: Option<String>,
    /// Read the passphrase from the first line of this file. Without this and the next option, it
    /// comes from LIFEBOAT_PASSPHRASE, from the file that LIFEBOAT_PASSPHRASE_FILE names, or from
    /// the command in LIFEBOAT_PASSPHRASE_COMMAND; or it is asked for on a terminal
    #[arg(long, global = true, value_name = "FILE", group = "secret")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Run this with `sh -c`, and take what it prints as the passphrase
    #[arg(long, global = true, value_name = "COMMAND", group = "secret")]
    pub(crate) passphrase_command: Option<String>,
    /// Use the identities of age in this file (AGE-SECRET-KEY-1…), or in the one that
    /// LIFEBOAT_IDENTITY_FILE names, instead of a passphrase
    #[arg(long, global = true, value_name = "FILE", group = "secret")]
    pub(crate) identity_file: Option<PathBuf>,
    /// Have this program keep the key, or the one in LIFEBOAT_KEY_COMMAND: a program and its
    /// arguments with spaces between them, without a shell. docs/keys.md says what it is asked
    #[arg(long, global = true, value_name = "COMMAND", group = "secret")]
    pub(crate) key_command: Option<String>,
    /// Keep nothing of the repository's index on this host. Without this option, what was read of
    /// it is kept in the directory that LIFEBOAT_CACHE_DIR names, or in `lifeboat` where the user
    /// has caches (XDG_CACHE_HOME, ~/.cache); it may be deleted at any time
    #[arg(long, global = true)]
    pub(crate) no_cache: bool,
    /// Write events to standard output, as one JSON object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but warnings and errors
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more: what is being done, requests that are tried again, and what the libraries log
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a repository
    #[command(after_help = INIT)]
    Init(Init),
    /// Take a snapshot of a store
    #[command(subcommand)]
    Backup(Backup),
    /// List the snapshots
    #[command(after_help = SNAPSHOTS)]
    Snapshots(Snapshots),
    /// List what is in a snapshot
    #[command(after_help = LS)]
    Ls(Ls),
    /// Look for entries in one snapshot, or in all
    #[command(after_help = browse::FIND)]
    Find(Find),
    /// Write the content of a file to standard output
    #[command(after_help = browse::CAT)]
    Cat(Cat),
    /// List what changed from one snapshot to another
    #[command(after_help = browse::DIFF)]
    Diff(Diff),
    /// Say what the repository holds, and what each snapshot alone holds
    #[command(after_help = browse::STATS)]
    Stats(Stats),
    /// Show the snapshots as files, in a directory
    #[cfg(feature = "mount")]
    #[command(after_help = browse::MOUNT)]
    Mount(Mount),
    /// Bring a snapshot back
    #[command(after_help = RESTORE)]
    Restore(Restore),
    /// Forget snapshots that are not needed any more
    #[command(after_help = FORGET)]
    Forget(Forget),
    /// Hold a snapshot: nothing forgets it
    #[command(after_help = PIN)]
    Pin(Pin),
    /// Release pins
    #[command(after_help = UNPIN)]
    Unpin(Unpin),
    /// List the pins
    #[command(after_help = PINS)]
    Pins,
    /// Look for damage in the repository
    #[command(after_help = VERIFY)]
    Verify(Verify),
    /// Give back the room that no snapshot needs
    #[command(after_help = PRUNE)]
    Prune(Prune),
    /// Say who can open the repository, and change that
    #[command(subcommand)]
    Key(Key),
    /// Copy snapshots into another repository, as far as it lacks them
    #[command(after_help = COPY)]
    Copy(Copy),
    /// Mend what is damaged, as far as that is possible
    #[command(subcommand)]
    Repair(Repair),
    /// Say what stands in the way of a backup, and the remedy
    #[command(after_help = DOCTOR)]
    Doctor {
        /// What to look at; the repository when nothing is said
        #[command(subcommand)]
        subject: Option<Doctor>,
    },
}

impl Command {
    /// What was asked for, in the words of the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Backup(Backup::Postgres(_)) => "backup postgres",
            Self::Backup(Backup::Files(_)) => "backup files",
            Self::Snapshots(_) => "snapshots",
            Self::Ls(_) => "ls",
            Self::Find(_) => "find",
            Self::Cat(_) => "cat",
            Self::Diff(_) => "diff",
            Self::Stats(_) => "stats",
            #[cfg(feature = "mount")]
            Self::Mount(_) => "mount",
            Self::Restore(_) => "restore",
            Self::Forget(_) => "forget",
            Self::Pin(_) => "pin",
            Self::Unpin(_) => "unpin",
            Self::Pins => "pins",
            Self::Verify(_) => "verify",
            Self::Prune(_) => "prune",
            Self::Key(Key::List) => "key list",
            Self::Key(Key::Add(_)) => "key add",
            Self::Key(Key::Remove(_)) => "key remove",
            Self::Key(Key::Rotate(_)) => "key rotate",
            Self::Copy(_) => "copy",
            Self::Repair(Repair::Index(_)) => "repair index",
            Self::Repair(Repair::Packs(_)) => "repair packs",
            Self::Repair(Repair::Snapshots { .. }) => "repair snapshots",
            Self::Doctor { subject } => match subject {
                None | Some(Doctor::Repo) => "doctor repo",
                Some(Doctor::Postgres(_)) => "doctor postgres",
                Some(Doctor::Files { .. }) => "doctor files",
            },
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Make the first key for the owner of this recipient of age, age1…, and ask for nothing: who
    /// makes the repository need not be able to open it
    #[arg(long, value_name = "AGE1…")]
    pub(crate) recipient: Option<String>,
    /// What the first key is called
    #[arg(long, default_value = "first")]
    pub(crate) label: String,
    /// Use a store that takes no notice of "make it only if there is none". Snapshots are as safe; but
    /// you have to see to it that only one host prunes, and journals cannot be kept
    #[arg(long)]
    pub(crate) weak_store: bool,
}

const INIT: &str = "\
The place must be empty; a directory is made when it is missing, a bucket is not. What is stored is
encrypted with a random key, and the key with your passphrase. In a directory, run this as the
account that will take the backups: what is made there is for this account only. Keep the passphrase apart from the
repository and from the machine that is backed up: without it nobody can read a byte, and nobody
can replace it.

Examples:
  lifeboat --repo /srv/backups init
  lifeboat --repo 's3://backups/prod?region=eu-central-1' --passphrase-command 'pass lifeboat' init
  lifeboat --repo /srv/backups init --label ops --recipient age1…";

/// Which kind of store.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// A PostgreSQL cluster whose data directory is on this host
    #[command(after_help = BACKUP_POSTGRES)]
    Postgres(BackupPostgres),
    /// A tree of files
    #[command(after_help = BACKUP_FILES)]
    Files(BackupFiles),
}

/// How every store is backed up.
#[derive(Debug, Args)]
pub(crate) struct Taking {
    /// What the store is called in the repository. Snapshots of one name form one history
    #[arg(long, value_parser = name)]
    pub(crate) name: String,
    /// Read everything, also what is the same as in the last snapshot. Nothing is stored twice
    #[arg(long)]
    pub(crate) full: bool,
    /// A word for this snapshot, shown in lists; can be repeated
    #[arg(long = "tag", value_name = "WORD")]
    pub(crate) tags: Vec<String>,
}

/// How the server is reached.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// How to reach the server, as for psql: "host=… port=… user=… dbname=…" or a postgresql://
    /// URL, without a password. What is not said comes from PGHOST, PGUSER and so on; the password
    /// from PGPASSWORD or ~/.pgpass
    #[arg(long, default_value = "", value_name = "CONNINFO", hide_default_value = true)]
    pub(crate) conninfo: String,
    /// Where the data directory is on this host, when the server may not say it
    #[arg(long, value_name = "DIR")]
    pub(crate) data_directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BackupPostgres {
    #[command(flatten)]
    pub(crate) taking: Taking,
    #[command(flatten)]
    pub(crate) server: Server,
    /// How the backup's checkpoint is made: at once, or spread out as the server's own
    #[arg(long, value_enum, default_value_t = Checkpoint::Fast)]
    pub(crate) checkpoint: Checkpoint,
    /// Leave the server's log files out
    #[arg(long)]
    pub(crate) without_logs: bool,
}

const BACKUP_POSTGRES: &str = "\
The backup is physical: the files of the whole cluster, with the WAL that makes them consistent, so
that every snapshot restores by itself. The role needs the rights for a backup, and this user must
be able to read the data directory; `lifeboat doctor postgres` says what is missing. Damaged pages
are reported as warnings.

Examples:
  lifeboat backup postgres --name shop
  lifeboat backup postgres --name shop --conninfo 'host=/run/postgresql user=backup' --tag nightly";

/// How the checkpoint is made with which a backup begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Checkpoint {
    /// At once: the backup begins within seconds.
    Fast,
    /// Slowly: the backup begins after minutes, and nobody notices it.
    Spread,
}

#[derive(Debug, Args)]
pub(crate) struct BackupFiles {
    /// The directory at the top of the tree
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) taking: Taking,
    #[command(flatten)]
    pub(crate) tree: Tree,
}

/// What of a tree is read.
#[derive(Debug, Args)]
pub(crate) struct Tree {
    /// Leave out what matches: a name such as '*.tmp', or a path from the top of the tree such as
    /// /var/cache; ** stands for any number of directories. Can be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Do not go into other file systems that are mounted in the tree
    #[arg(long)]
    pub(crate) one_file_system: bool,
}

const BACKUP_FILES: &str = "\
Modes, owners, times, links, extended attributes, holes, pipes and device nodes are kept. Files
that are the same as in the last snapshot are not read. Those that change or vanish while they are
read are warnings, and the command ends with 3.

Examples:
  lifeboat backup files /etc --name etc
  lifeboat backup files /srv/www --name www --exclude '*.tmp' --exclude /cache --tag before-upgrade";

#[derive(Debug, Args)]
pub(crate) struct Snapshots {
    /// Only those of this store, such as postgres/shop, or of the stores with this name
    #[arg(long, value_name = "KIND/NAME", value_parser = store)]
    pub(crate) store: Option<StoreName>,
    /// Only those with this word; can be repeated, and then all are needed
    #[arg(long = "tag", value_name = "WORD")]
    pub(crate) tags: Vec<String>,
}

/// A store, as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreName {
    /// Kind and name.
    Whole(StoreRef),
    /// The name alone.
    Name(String),
}

impl StoreName {
    /// Whether this can be the store that is meant.
    pub(crate) fn means(&self, store: &StoreRef) -> bool {
        match self {
            Self::Whole(whole) => whole == store,
            Self::Name(name) => name == store.name(),
        }
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(store) => store.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

const SNAPSHOTS: &str = "\
Examples:
  lifeboat snapshots
  lifeboat snapshots --store postgres/shop --tag nightly
  lifeboat snapshots --json | jq -r 'select(.event == \"snapshot\") | .id'";

/// Which snapshot is meant.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The first digits of a snapshot's id, or `latest`, which needs --store where there are
    /// snapshots of several stores
    pub(crate) snapshot: String,
    /// Only among the snapshots of this store, such as files/etc; its name alone when no other has
    /// it
    #[arg(long, value_name = "KIND/NAME", value_parser = store)]
    pub(crate) store: Option<StoreName>,
}

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

const LS: &str = "\
Examples:
  lifeboat ls latest --store etc
  lifeboat ls latest --store files/etc -l ssh
  lifeboat ls 3f2a91bc -R | grep hosts";

#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The directory to restore into: new, or empty
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Only this entry, with what is beneath it; can be repeated. For files
    #[arg(long = "path", value_name = "PATH", value_parser = path)]
    pub(crate) paths: Vec<EntryPath>,
    /// Put a tablespace elsewhere: OLD is its former directory or its oid. For PostgreSQL; can be
    /// repeated
    #[arg(long = "tablespace", value_name = "OLD=NEW", value_parser = mapping)]
    pub(crate) tablespaces: Vec<(String, PathBuf)>,
    /// Replace what is in the directory. For files; it is put back when the restore fails
    #[arg(long)]
    pub(crate) replace: bool,
    /// Whose the files are afterwards. For files
    #[arg(long, value_enum, default_value_t = Owners::Numbers)]
    pub(crate) owners: Owners,
    /// A second repository with copies of the snapshots (see `lifeboat copy`): what the first one
    /// cannot give comes from there. It serves alone when the first cannot be opened
    #[arg(long, value_name = "LOCATION")]
    pub(crate) or_from: Option<String>,
    #[command(flatten)]
    pub(crate) other: OtherSecret,
}

/// Whose restored files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Owners {
    /// The users and groups of the same number
    Numbers,
    /// Those of the same name, where this host has them
    Names,
    /// The user who restores
    Mine,
}

const RESTORE: &str = "\
Every byte is checked on its way. A restore that fails or is stopped leaves nothing that could be
taken for the whole; a directory that is not empty is refused. A PostgreSQL snapshot becomes a data
directory that the server starts from; the last lines say how.

Examples:
  lifeboat restore latest --store postgres/shop --to /var/lib/postgresql/15/main
  lifeboat restore latest --store postgres/shop --to /srv/copy --tablespace /mnt/fast=/srv/fast
  lifeboat restore 3f2a91bc --to /tmp/etc --path ssh --path hosts
  lifeboat restore latest --store files/etc --to /tmp/etc --or-from s3://offsite/backups";

/// How the other repository of a command is opened.
#[derive(Debug, Args)]
pub(crate) struct OtherSecret {
    /// Read the passphrase of the other repository from the first line of this file. Without this
    /// and the next option, it comes from LIFEBOAT_OTHER_PASSPHRASE, from the file that
    /// LIFEBOAT_OTHER_PASSPHRASE_FILE names, or from the command in
    /// LIFEBOAT_OTHER_PASSPHRASE_COMMAND; or it is asked for on a terminal
    #[arg(long, value_name = "FILE")]
    pub(crate) other_passphrase_file: Option<PathBuf>,
    /// Run this with `sh -c`, and take what it prints as the passphrase of the other repository
    #[arg(long, value_name = "COMMAND")]
    pub(crate) other_passphrase_command: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub(crate) struct Copy {
    /// The first digits of the ids of snapshots, or `latest`, which needs --store where there are
    /// snapshots of several stores
    #[arg(value_name = "SNAPSHOT", group = "which", conflicts_with_all = ["all", "since"])]
    pub(crate) snapshots: Vec<String>,
    /// Copy all snapshots
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

const COPY: &str = "\
The other repository has keys and a passphrase of its own. Content is read, checked, and encrypted
anew; of a store that was copied before, only what changed is read. A snapshot is copied once,
however often this runs; what is stopped goes on the next time. Each snapshot keeps its times, host
and tags, and its copy also answers to the original's id. Variables for the other store's
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
    /// Leave packs alone that are younger than this, for storage classes that are billed for a
    /// least time: 30d, 90d, 180d
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = span)]
    pub(crate) least_age: Duration,
    /// Seal all packs anew that have a key from before the last rotation, within these limits
    #[arg(long)]
    pub(crate) reseal: bool,
    /// Promise that nobody else prunes or repairs: for repositories made with --weak-store, whose
    /// store cannot tell
    #[arg(long)]
    pub(crate) alone: bool,
}

/// A length of time as people write it, days being 24 hours.
fn span(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|_| "say for example 30m, 24h or 90d")?;
    let day = jiff::SpanRelativeTo::days_are_24_hours();
    let duration = span.to_duration(day).map_err(|_| "months and years have no fixed length")?;
    Duration::try_from(duration).map_err(|_| "it must not be negative".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| "say a number")?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err("say 0 to 100".to_owned()) }
}

const PRUNE: &str = "\
Deletes no snapshot: `lifeboat forget` does. Safe while backups, restores and checks run, on any host.
What no snapshot needs is marked first, and deleted by a later prune: run it once a day. Exit code 3
means that the store refused to delete something.

Examples:
  lifeboat prune --dry-run
  lifeboat prune
  lifeboat prune --max-repack 50GB --max-duration 2h
  lifeboat prune --keep-marked 0s";

/// What to look at.
#[derive(Debug, Subcommand)]
pub(crate) enum Doctor {
    /// A PostgreSQL cluster
    Postgres(Server),
    /// A tree of files
    Files {
        /// The directory at the top of the tree
        path: PathBuf,
        #[command(flatten)]
        tree: Tree,
    },
    /// The repository, and the store it is in
    Repo,
}

const DOCTOR: &str = "\
Exit code 1 means that something stands in the way of a backup.

Examples:
  lifeboat doctor
  lifeboat doctor postgres --conninfo 'host=/run/postgresql user=backup'
  lifeboat doctor files /etc";

fn name(text: &str) -> Result<String, String> {
    let fits = (1..=128).contains(&text.len()) && !text.contains(['/', '\n', '\0']);
    if fits && !text.starts_with('-') && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 128 bytes, and no / in it".to_owned())
    }
}

fn store(text: &str) -> Result<StoreName, String> {
    match text.split_once('/') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => {
            Ok(StoreName::Whole(StoreRef::new(kind, name)))
        }
        None if !text.is_empty() => Ok(StoreName::Name(text.to_owned())),
        _ => Err("a store is written KIND/NAME, such as postgres/shop".to_owned()),
    }
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

/// People write paths as they are on disk; entries are named from the top of the tree.
fn path(text: &str) -> Result<EntryPath, String> {
    let text = text.strip_prefix("./").unwrap_or(text);
    let text = text.trim_start_matches('/').trim_end_matches('/');
    EntryPath::new(unescaped(text)?).map_err(|error| error.to_string())
}

/// Takes back the escapes with which `ls` shows what is not UTF-8.
fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                let byte = u8::from_str_radix(digits, 16);
                bytes.push(byte.map_err(|_| "\\x is followed by two hexadecimal digits")?);
                rest = after;
            }
            (byte, _) => bytes.push(*byte),
        }
    }
    Ok(bytes)
}

fn mapping(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && new.starts_with('/') => {
            Ok((old.to_owned(), new.into()))
        }
        _ => Err("write OLD=NEW, with an absolute path as NEW".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn paths_are_taken_as_people_write_them() {
        for text in ["etc/ssh", "/etc/ssh", "./etc/ssh/", "//etc/ssh"] {
            assert_eq!(path(text).unwrap(), EntryPath::new("etc/ssh").unwrap());
        }
        assert_eq!(path("a\\xff").unwrap().as_bytes(), b"a\xff");
        for bad in ["", "/", "..", "a/../b", "a\\xzz"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

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

    #[test]
    fn nothing_secret_can_be_an_argument() {
        let command = Arguments::command();
        let mut queue = vec![&command];
        while let Some(command) = queue.pop() {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                assert!(!["passphrase", "password", "secret"].contains(&id), "{id}");
            }
            queue.extend(command.get_subcommands());
        }
    }

    #[test]
    fn every_verb_explains_itself_by_example() {
        let command = Arguments::command();
        for verb in command.get_subcommands() {
            let leaves: Vec<_> = verb.get_subcommands().collect();
            let with_examples =
                if leaves.is_empty() || verb.get_name() == "doctor" { vec![verb] } else { leaves };
            for leaf in with_examples {
                let help = leaf.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:\n  lifeboat"), "{}", leaf.get_name());
            }
        }
    }
}
