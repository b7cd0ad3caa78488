//! A scratch server: a snapshot restored for a while, loaded by a server of its own, and examined.
//!
//! It never touches production:
//!
//! - It lives in a new directory that only this account can enter, listens on no network, and is
//!   reached through a socket in there.
//! - It has no configuration file: all that it is told stands on its command line. It follows
//!   nobody, saves nothing, and loads no modules but those that are named.
//! - It is gone afterwards, whatever happens: killed by its own handle and removed when it is
//!   dropped, and by a small shell that waits for the end of this process when that is killed.
//!
//! # What is examined
//!
//! That the server starts at all proves that it read every byte: it loads the whole file and compares
//! its checksum. Beyond that, [`examine`] compares what it holds with what the snapshot says:
//!
//! - **Keys per database**: what the server counts, what the reader of this crate finds in the file,
//!   and what the snapshot's facts said when it was taken. Keys whose time had come when it loaded are
//!   told apart.
//! - **Keys one by one**, a sample or all: the value as this crate finds it in the file is given to
//!   the scratch server once more, in a database of its own, and the two are compared by
//!   `DEBUG DIGEST-VALUE`, with the moment at which they expire. So the server itself says whether
//!   they are equal, however it keeps them: `DUMP` could not, since the same set may be written in
//!   two orders.
//! - **A running server** ([`ExamineOptions::source`]): the same keys are taken from there by `DUMP`
//!   (which needs no right to `DEBUG`), and compared in the same way. What differs has changed since,
//!   or is wrong: only who knows whether it was written to can tell.
//!
//! Of a moment of a journal there is nothing that says what it holds, so its keys are counted only:
//! that it loads whole is what is proved.
//!
//! ```no_run
//! use lifeboat_core::{Context, Source, TransferOptions, transfer};
//! use lifeboat_redis::{ExamineOptions, Scratch, ScratchOptions, examine};
//!
//! # async fn example(snapshot: &dyn Source, facts: &lifeboat_core::Attributes)
//! # -> lifeboat_core::Result<()> {
//! let scratch = Scratch::prepare(facts, &ScratchOptions::new("/var/tmp")).await?;
//! let context = Context::silent();
//! transfer(snapshot, &scratch.sink(), &TransferOptions::default(), &context).await?;
//! let server = scratch.start(&context).await?;
//! let found = examine(&server, &ExamineOptions::default(), &context).await?;
//! println!("{} keys, {} compared, {} problems", found.keys, found.compared, found.problem_count);
//! server.stop().await?;
//! # Ok(()) }
//! ```

mod compare;
mod error;
mod examine;
mod programs;
mod report;
mod server;
mod walk;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_core::local::{ScratchPlace, ScratchPlaceOptions};
use lifeboat_core::{Attributes, Context, Error, Result};

pub use self::error::ScratchError;
pub use self::examine::{ExamineOptions, Sample, examine};
use self::programs::Program;
pub use self::report::{Examination, Problem, SourceComparison};
pub use self::server::ScratchServer;
use crate::sink::{AppendOnlyForm, AppendOnlyOptions, AppendOnlySink, RdbFileSink, RestoreOptions};
use crate::source::{DUMP, facts};

const SOCKET: &str = "redis.sock";
const PID_FILE: &str = "server.pid";

/// How a scratch server is made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScratchOptions {
    /// The directory beneath which it is made. It needs as much room as the snapshot.
    pub directory: PathBuf,
    /// The directory with the server's program. Without it, the oldest that is new enough is taken of
    /// those on the `PATH` and where distributions put them.
    pub programs: Option<PathBuf>,
    /// Modules that it loads: those that wrote values of the snapshot.
    pub modules: Vec<PathBuf>,
    /// How long it may take to load. An hour, unless said otherwise.
    pub patience: Duration,
}

impl ScratchOptions {
    /// Beneath `directory`; everything else as usual.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            programs: None,
            modules: Vec::new(),
            patience: Duration::from_hours(1),
        }
    }
}

/// A place in which a snapshot is restored for a scratch server. Dropping it removes all of it.
#[derive(Debug)]
pub struct Scratch {
    place: ScratchPlace,
    program: Program,
    facts: Attributes,
    modules: Vec<PathBuf>,
    patience: Duration,
}

impl Scratch {
    /// Makes the place for a snapshot with these facts.
    ///
    /// # Errors
    /// [`ScratchError`] when there is no server here that is new enough, or when the place cannot be
    /// made. Nothing is left behind then.
    pub async fn prepare(facts: &Attributes, options: &ScratchOptions) -> Result<Self> {
        let (facts, options) = (facts.clone(), options.clone());
        blocking(move || Self::make(facts, options)).await
    }

    /// Blocks.
    fn make(facts: Attributes, options: ScratchOptions) -> Result<Self, ScratchError> {
        let needed = facts.text(facts::VERSION);
        let program = Program::find(needed, options.programs.as_deref())?;
        let mut place = ScratchPlaceOptions::default();
        place.pid_file = PID_FILE.to_owned();
        place.socket = SOCKET.to_owned();
        let place = ScratchPlace::make(&options.directory, &place)?;
        let made = fs::DirBuilder::new().mode(0o700).create(place.data());
        made.map_err(|source| {
            let path = place.directory().to_owned();
            ScratchError::File { what: "make a directory in", path, source }
        })?;
        let ScratchOptions { modules, patience, .. } = options;
        Ok(Self { place, program, facts, modules, patience })
    }

    /// Where the snapshot is restored.
    pub fn sink(&self) -> RdbFileSink {
        RdbFileSink::new(RestoreOptions::new(rdb(&self.place)))
    }

    /// Where the snapshot of a plan is restored, with the changes behind it.
    pub fn sink_of_moment(&self, form: AppendOnlyForm) -> AppendOnlySink {
        AppendOnlySink::new(AppendOnlyOptions::new(self.place.data(), form))
    }

    /// Starts the server, when the restore has ended, and waits until it has loaded all of it.
    ///
    /// # Errors
    /// [`ScratchError`] when it does not start, ends, or does not load in time, with the end of its
    /// log. All is removed then.
    pub async fn start(self, context: &Context) -> Result<ScratchServer> {
        ScratchServer::start(self, context).await
    }

    /// Bytes of room where it is; `None` when that cannot be told.
    pub fn room(&self) -> Option<u64> {
        self.place.room()
    }

    /// The version of the server that will run: `7.0.15`.
    pub fn version(&self) -> &str {
        &self.program.version
    }
}

/// Does what blocks.
async fn blocking<T: Send + 'static, E: Into<Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| crate::Error::Panicked { source })?.map_err(Into::into)
}

/// Where the RDB of a snapshot is.
fn rdb(place: &ScratchPlace) -> PathBuf {
    place.data().join(DUMP)
}
