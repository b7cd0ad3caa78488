//! A scratch server: a snapshot restored for a while, to be looked at, on a server of its own.
//!
//! It never touches production:
//!
//! - It lives in a new directory that only its account can enter, listens on no network, and is
//!   reached through a socket in there. Nobody needs a password, and nobody else gets in.
//! - Its configuration is its own: of the snapshot's only `postgresql.auto.conf` is read, and what
//!   in that could reach outside or ask for too much of this host is overruled on the command line:
//!   it does not archive, follows nobody, waits for no standby, runs no subscriptions, no
//!   extensions that are loaded by themselves, and no event triggers.
//! - It is gone afterwards, whatever happens: stopped and removed when it is dropped, and by a small
//!   shell that waits for the end of this process when that is killed.
//!
//! ```no_run
//! use lifeboat_core::{Context, Source, TransferOptions, transfer};
//! use lifeboat_postgres::{ExamineOptions, Scratch, ScratchOptions, examine};
//!
//! # async fn example(snapshot: &dyn Source, facts: &lifeboat_core::Attributes)
//! # -> lifeboat_core::Result<()> {
//! let scratch = Scratch::prepare(facts, &ScratchOptions::new("/var/tmp")).await?;
//! let (sink, context) = (scratch.sink(facts, None), Context::silent());
//! transfer(snapshot, &sink, &TransferOptions::default(), &context).await?;
//! let server = scratch.start(&context).await?;
//! let found = examine(&server, &ExamineOptions::default(), &context).await?;
//! println!("{} tables, {} problems", found.tables, found.problems.len());
//! server.stop().await?;
//! # Ok(()) }
//! ```

mod error;
mod programs;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_core::local::{Ending, ScratchPlace, ScratchPlaceOptions};
use lifeboat_core::{Attributes, Context, Result};

pub use self::error::ScratchError;
use self::programs::Programs;
pub use self::server::ScratchServer;
use crate::accounts::Accounts;
use crate::recovery::RecoverySettings;
use crate::sink::{Archiving, ClusterSink, Ownership, RestoreOptions, TablespaceMapping};
use crate::source::{blocking, facts};

/// How a scratch server is made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScratchOptions {
    /// The directory beneath which it is made. It needs as much room as the cluster takes, and the
    /// WAL that is recovered.
    pub directory: PathBuf,
    /// The directory with the server's programs. Without it, those of the right major version are
    /// looked for on the `PATH` and where distributions put them.
    pub programs: Option<PathBuf>,
    /// The superuser as which its databases are looked at.
    pub user: String,
    /// The account that it runs under when this process is root, as which no server runs.
    pub account: String,
    /// How long it may take to recover. An hour, unless said otherwise.
    pub patience: Duration,
}

impl ScratchOptions {
    /// Beneath `directory`; everything else as usual.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            programs: None,
            user: "postgres".to_owned(),
            account: "postgres".to_owned(),
            patience: Duration::from_hours(1),
        }
    }
}

/// A place in which a cluster is restored for a scratch server. Dropping it removes all of it.
#[derive(Debug)]
pub struct Scratch {
    place: ScratchPlace,
    programs: Programs,
    account: Option<(u32, u32)>,
    user: String,
    patience: Duration,
}

impl Scratch {
    /// Makes the place for a snapshot with these facts.
    ///
    /// # Errors
    /// [`ScratchError`] when there is no server of its major version here, no account for it, or
    /// when the place cannot be made. Nothing is left behind then.
    pub async fn prepare(facts: &Attributes, options: &ScratchOptions) -> Result<Self> {
        let version = facts.text(facts::VERSION).unwrap_or_default().to_owned();
        let options = options.clone();
        blocking(move || Ok(Self::make(&version, options)?)).await
    }

    /// Blocks.
    fn make(version: &str, options: ScratchOptions) -> Result<Self, ScratchError> {
        let major = version.split(|digit: char| !digit.is_ascii_digit()).next();
        let major = major.and_then(|major| major.parse().ok());
        let major = major.ok_or(ScratchError::NoVersion)?;
        let programs = Programs::find(major, options.programs.as_deref())?;
        let account = if rustix::process::geteuid().is_root() {
            let name = &options.account;
            let accounts = Accounts::read();
            let found = accounts.uid(name).zip(accounts.primary_group(name));
            let found = found.filter(|(uid, _)| *uid != 0);
            Some(found.ok_or_else(|| ScratchError::NoAccount { name: name.clone() })?)
        } else {
            None
        };
        let mut place = ScratchPlaceOptions::default();
        place.pid_file = "postmaster.pid".to_owned();
        place.ending = Ending::Asked;
        place.socket = ".s.PGSQL.5432".to_owned();
        place.account = account;
        let place = ScratchPlace::make(&options.directory, &place)?;
        Ok(Self { place, programs, account, user: options.user, patience: options.patience })
    }

    /// Where the snapshot with these facts is restored: with all of its tablespaces, which have
    /// places of their own in here, and told about its recovery.
    pub fn sink(&self, facts: &Attributes, recovery: Option<RecoverySettings>) -> ClusterSink {
        let mut options = RestoreOptions::new(self.place.data())
            .with_facts(facts.clone())
            .with_archiving(Archiving::Off);
        for (oid, location) in facts.pairs(facts::TABLESPACES).unwrap_or_default() {
            if let (Ok(oid), false) = (std::str::from_utf8(oid), location.is_empty()) {
                let place = self.place.directory().join(format!("tablespace-{oid}"));
                options = options.with_tablespace(TablespaceMapping::new(oid, place));
            }
        }
        if let Some((uid, gid)) = self.account {
            options = options.with_ownership(Ownership::Account { uid, gid });
        }
        options.recovery = recovery.unwrap_or_default();
        ClusterSink::new(options)
    }

    /// Starts the server, when the restore has ended, and waits until it has recovered.
    ///
    /// # Errors
    /// [`ScratchError`] when it does not start, ends, or does not recover in time, with the end of
    /// its log. All is removed then.
    pub async fn start(self, context: &Context) -> Result<ScratchServer> {
        ScratchServer::start(self, context).await
    }

    /// Bytes of room where it is; `None` when that cannot be told.
    pub fn room(&self) -> Option<u64> {
        self.place.room()
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        self.place.directory()
    }
}
