//! The words of the command line. Parsing is pure: nothing is opened or looked up here.

mod backup;
mod browse;
mod copy;
mod database;
mod doctor;
mod export;
mod follow;
mod init;
mod journals;
mod key;
mod prune;
mod recovery;
mod redis;
mod repair;
mod replica;
mod restore;
mod retention;
mod scratch;
mod snapshots;
mod storage;
mod units;
mod wal;
mod which;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use backup::{Backup, BackupFiles, BackupPostgres, Checkpoint, Server, Taking, Tree};
#[cfg(feature = "mount")]
pub(crate) use browse::Mount;
pub(crate) use browse::{Cat, Diff, Find, Stats};
pub(crate) use copy::{Copy, Since};
pub(crate) use database::{BackupDatabase, Database, KeptRoles};
pub(crate) use doctor::Doctor;
pub(crate) use export::{Export, Form};
pub(crate) use follow::{Follow, FollowPostgres, FollowRedis};
pub(crate) use init::Init;
pub(crate) use journals::Journals;
pub(crate) use key::{Key, KeyAdd, KeyRemove, KeyRotate, NewHolder};
pub(crate) use prune::Prune;
pub(crate) use recovery::{Recovery, Supply, Target, Window};
pub(crate) use redis::{BackupRedis, Redis, RedisKeys, RedisServer};
pub(crate) use repair::{Mending, Repair, Verify};
pub(crate) use replica::{Replica, ReplicaPromote, ReplicaStatus};
pub(crate) use restore::{OtherSecret, Owners, Restore};
pub(crate) use retention::{Forget, Grouping, Pin, Rules, Unpin};
pub(crate) use scratch::ScratchPlace;
pub(crate) use snapshots::{Ls, Snapshots};
pub(crate) use storage::{DataClass, Thawing};
pub(crate) use wal::{Cluster as WalCluster, Gap, Wal, WalAdopt, WalGet, WalPush, WalServe};
pub(crate) use which::{StoreName, Which};

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
  lifeboat backup database --name shop --conninfo dbname=shop
  lifeboat backup files /etc --name etc
  lifeboat backup redis --name cache --url redis://backup@replica1
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
`wal push` and `wal get`, which PostgreSQL runs, have their own: see their help.

Progress, warnings, errors and summaries go to standard error; what was asked for (the lists of
`snapshots`, `ls`, `find`, `diff`, `stats` and `journals`, what `cat` reads) goes to standard output.
With --json, standard output is a stream of JSON events, one a line, described in docs/cli-json.md.";

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
    #[command(after_help = init::INIT)]
    Init(Init),
    /// Take a snapshot of a store
    #[command(subcommand)]
    Backup(Backup),
    /// Receive the changes of a store as they happen, until it is stopped
    #[command(subcommand)]
    Follow(Follow),
    /// List the snapshots
    #[command(after_help = snapshots::SNAPSHOTS)]
    Snapshots(Snapshots),
    /// List what is in a snapshot
    #[command(after_help = snapshots::LS)]
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
    #[command(after_help = restore::RESTORE)]
    Restore(Box<Restore>),
    /// Say from when to when PostgreSQL clusters and Redis servers can be recovered
    #[command(after_help = recovery::WINDOW)]
    Window(Window),
    /// Write a snapshot of a database as SQL, or one of its tables as CSV
    #[command(after_help = export::EXPORT)]
    Export(Export),
    /// Forget snapshots that are not needed any more
    #[command(after_help = retention::FORGET)]
    Forget(Forget),
    /// Hold a snapshot: nothing forgets it
    #[command(after_help = retention::PIN)]
    Pin(Pin),
    /// Release pins
    #[command(after_help = retention::UNPIN)]
    Unpin(Unpin),
    /// List the pins
    #[command(after_help = retention::PINS)]
    Pins,
    /// List the journals: what is kept of the history of stores, and what is missing of it
    #[command(after_help = journals::JOURNALS)]
    Journals(Journals),
    /// Archive the WAL of a PostgreSQL cluster, and bring it back: archive_command and
    /// restore_command
    #[command(subcommand)]
    Wal(Wal),
    /// See how far replicas are behind, and let one take the primary's place
    #[command(subcommand)]
    Replica(Replica),
    /// Look into snapshots of Redis
    #[command(subcommand)]
    Redis(Redis),
    /// Look for damage in the repository
    #[command(after_help = repair::VERIFY)]
    Verify(Box<Verify>),
    /// Give back the room that no snapshot needs
    #[command(after_help = prune::PRUNE)]
    Prune(Prune),
    /// Say in which class of storage packs of data are put, and change it
    #[command(after_help = storage::DATA_CLASS)]
    DataClass(DataClass),
    /// Say who can open the repository, and change that
    #[command(subcommand)]
    Key(Key),
    /// Copy snapshots into another repository, as far as it lacks them
    #[command(after_help = copy::COPY)]
    Copy(Copy),
    /// Mend what is damaged, as far as that is possible
    #[command(subcommand)]
    Repair(Repair),
    /// Say what stands in the way of a backup, and the remedy
    #[command(after_help = doctor::DOCTOR)]
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
            Self::Backup(Backup::Database(_)) => "backup database",
            Self::Backup(Backup::Files(_)) => "backup files",
            Self::Backup(Backup::Redis(_)) => "backup redis",
            Self::Follow(Follow::Postgres(_)) => "follow postgres",
            Self::Follow(Follow::Redis(_)) => "follow redis",
            Self::Snapshots(_) => "snapshots",
            Self::Ls(_) => "ls",
            Self::Find(_) => "find",
            Self::Cat(_) => "cat",
            Self::Diff(_) => "diff",
            Self::Stats(_) => "stats",
            #[cfg(feature = "mount")]
            Self::Mount(_) => "mount",
            Self::Restore(_) => "restore",
            Self::Export(_) => "export",
            Self::Window(_) => "window",
            Self::Forget(_) => "forget",
            Self::Pin(_) => "pin",
            Self::Unpin(_) => "unpin",
            Self::Pins => "pins",
            Self::Journals(_) => "journals",
            Self::Wal(Wal::Push(_)) => "wal push",
            Self::Wal(Wal::Get(_)) => "wal get",
            Self::Wal(Wal::Adopt(_)) => "wal adopt",
            Self::Wal(Wal::Serve(_)) => "wal serve",
            Self::Replica(Replica::Status(_)) => "replica status",
            Self::Replica(Replica::Promote(_)) => "replica promote",
            Self::Redis(Redis::Keys(_)) => "redis keys",
            Self::Verify(_) => "verify",
            Self::Prune(_) => "prune",
            Self::DataClass(_) => "data-class",
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
                Some(Doctor::Postgres { .. }) => "doctor postgres",
                Some(Doctor::Database(_)) => "doctor database",
                Some(Doctor::Files { .. }) => "doctor files",
                Some(Doctor::Redis(_)) => "doctor redis",
            },
        }
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
