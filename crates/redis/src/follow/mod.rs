//! Following a server: every change that it makes goes into a journal, about a second later.
//!
//! A [`Follower`] is to its server a replica that never answers for it:
//!
//! - It asks for what follows the end of the journal (`PSYNC <replication id> <place>`). Where there
//!   is nothing to follow, or the server does not have it any more, the server sends its whole
//!   dataset first: that becomes a snapshot, the *base*, while the changes behind it are received
//!   already. What was lost in between is recorded as a gap. A base says of which history it is and
//!   where in it ([`facts`](crate::facts)), so that base and journal prove to belong together.
//! - The timelines of the journal are the server's replication ids, its positions the bytes of the
//!   stream. When a replica was promoted and takes over the history under a new id, the journal
//!   follows: the new timeline leaves the old one there.
//! - What came is sealed a second after its first change, or with a MiB of it, and cut between two
//!   commands, unless one command or transaction is larger than 8 MiB: then also inside. What keeps
//!   the connection alive waits for half a minute. Each piece says when how much of it had come, by
//!   the clock of this host, to 20 ms.
//! - The server is told once a second what is durable, never what was merely received; and nothing
//!   before the base is. `WAIT` thus waits for the repository.
//! - A connection that breaks, and a repository that does not answer, are tried again for ever, with
//!   pauses that grow. What was received meanwhile is held, up to 16 MiB; then the server holds it,
//!   as it does for a slow replica (`client-output-buffer-limit`).
//! - No port is named, so that no client is sent here, and a Sentinel cannot promote it.
//! - A minute of pieces becomes one segment, beside that work (`merging`).
//!
//! Memory: 16 MiB of what waits to be cut, as much that waits to be stored, and twice as much that is
//! joined.

mod base;
mod error;
mod merging;
mod options;
mod pending;
pub(crate) mod resume;
mod sealing;
mod session;

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::journal::{Position, Span, Timeline, TimelineInfo};
use lifeboat_core::{Context, Error, ErrorKind, Result, Sink, SnapshotId, StoreRef};
use tokio::time::{sleep, timeout};

use self::base::Base;
use self::pending::{Begins, Pending};
use self::resume::{Line, begun_now, resume};
use self::sealing::{Sealer, Work};
use self::session::Session;
use crate::connect::Connection;
use crate::recover::StreamJournal;
use crate::source::{Former, Origin, Synchronized, receive, synchronize};

pub use self::error::FollowError;
pub use self::options::{FollowOptions, NewServer};

/// The first pause before another attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How often the same failure is told again, in attempts.
const TELL_EVERY: u32 = 20;
/// How long a follower that is asked to stop waits until what it received is durable.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What a follower has done. Places are bytes of the server's history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Following {
    /// Changes stream.
    Streaming {
        /// The server, for people.
        server: String,
        /// Of which history.
        replication_id: String,
        /// From where on.
        from: u64,
    },
    /// The snapshot with which the journal begins is stored.
    Base {
        /// Of which history.
        replication_id: String,
        /// Its id, where the sink gives one.
        snapshot: Option<SnapshotId>,
    },
    /// More is durable.
    Durable {
        /// Of which history.
        replication_id: String,
        /// Up to where.
        to: u64,
        /// Up to where it was received.
        received: u64,
    },
    /// The server goes on with its history under another id.
    Switched {
        /// The id until now.
        replication_id: String,
        /// The one from here on.
        next: String,
        /// Where.
        at: u64,
    },
    /// What a history held is lost, and was recorded as a gap.
    Gap {
        /// Which history.
        replication_id: String,
        /// From where on.
        from: u64,
        /// Where it goes on; `None` when the server has another history now.
        to: Option<u64>,
    },
}

/// Who is told what a follower has done. It must return quickly.
pub type Watch<'a> = dyn Fn(&Following) + Send + Sync + 'a;

/// Follows a server.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use lifeboat_core::{Context, Sink};
/// use lifeboat_redis::{ConnectOptions, FollowOptions, Follower, StreamJournal};
///
/// # async fn example(journal: StreamJournal, sink: Arc<dyn Sink>) -> lifeboat_core::Result<()> {
/// let connection = ConnectOptions::parse("redis://backup@cache")?.with_environment()?;
/// let follower = Follower::new(journal, sink, FollowOptions::new(connection));
/// // Until somebody cancels the context.
/// follower.run(&|done| println!("{done:?}"), &Context::silent()).await?;
/// # Ok(()) }
/// ```
pub struct Follower {
    store: StoreRef,
    journal: StreamJournal,
    sink: Arc<dyn Sink>,
    options: FollowOptions,
}

/// What is known from one attempt to the next.
struct State {
    sealer: Sealer,
    line: Option<Line>,
    base: Base,
    /// Changes have streamed: what the server refuses now may be over soon.
    streamed: bool,
    /// Something became durable since the last failure.
    progress: bool,
    last_failure: String,
    failures: u32,
}

impl Follower {
    /// Keeps the changes of a server in `journal`, and snapshots in `sink`.
    pub fn new(journal: StreamJournal, sink: Arc<dyn Sink>, options: FollowOptions) -> Self {
        let store = journal.name().store().clone();
        Self { store, journal, sink, options }
    }

    /// Follows the server until the context is cancelled: then what was received becomes durable, if
    /// that is done within ten seconds. `watch` is told what was done, the context what fails.
    /// Dropping the future is safe at any time.
    ///
    /// # Errors
    /// Whatever trying again cannot mend: when the server refuses us before anything has streamed;
    /// when it is another server than the one that is kept under this name; when the journal holds
    /// other changes in the same place; when the journal cannot be read at the beginning.
    pub async fn run(&self, watch: &Watch<'_>, context: &Context) -> Result<()> {
        let resuming = resume(&self.journal, &self.options.bases);
        let (line, base) = tokio::select! {
            () = context.cancelled() => return Ok(()),
            resumed = resuming => resumed?,
        };
        let mut state = State {
            sealer: Sealer::start(self.journal.share(), context.clone()),
            line,
            base,
            streamed: false,
            progress: false,
            last_failure: String::new(),
            failures: 0,
        };
        let ended = self.go_on(&mut state, watch, context).await;
        self.stop(state, watch, context).await;
        ended
    }

    async fn go_on(&self, state: &mut State, watch: &Watch<'_>, context: &Context) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(error) = self.attempt(state, watch, context).await else {
                return Ok(());
            };
            if context.is_cancelled() {
                return Ok(());
            }
            if is_final(&error, state) {
                return Err(error);
            }
            if std::mem::take(&mut state.progress) {
                (pause, state.failures) = (FIRST_PAUSE, 0);
            }
            tell(&error, state, context);
            // What was received is safe before anything else is tried.
            let piece = state.line.as_mut().and_then(|line| {
                let piece = line.pending.cut()?;
                Some(work(&line.timeline, piece))
            });
            let waiting = async {
                if let Some(piece) = piece {
                    state.sealer.push(piece).await?;
                }
                sleep(pause).await;
                Ok::<_, Error>(())
            };
            tokio::select! {
                () = context.cancelled() => return Ok(()),
                waited = waiting => waited?,
            }
            pause = (2 * pause).min(self.options.longest_pause);
        }
    }

    /// One connection, from its beginning to its end. `Ok` when somebody asked to stop.
    async fn attempt(&self, state: &mut State, watch: &Watch<'_>, context: &Context) -> Result<()> {
        let from = match (&state.line, &state.base) {
            (None, _) | (_, Base::Needed) => None,
            (Some(line), _) => Some((line.timeline.as_str().to_owned(), line.pending.next())),
        };
        let connecting = async {
            let mut connection = self.options.connection.connect().await?;
            let from = from.as_ref().map(|(id, at)| (id.as_str(), *at));
            let answer = synchronize(&mut connection, from).await?;
            Ok::<_, crate::Error>((connection, answer))
        };
        let (connection, answer) = tokio::select! {
            () = context.cancelled() => return Ok(()),
            connected = connecting => connected?,
        };
        let beginning = async {
            match answer {
                Synchronized::Continued(id) => {
                    self.go_on_as(state, id, watch).await?;
                    Ok(connection)
                }
                Synchronized::Full(origin) => {
                    if !state.streamed {
                        self.mind_other(&origin).await?;
                    }
                    self.begin_anew(state, connection, origin, watch, context).await
                }
            }
        };
        let mut connection = tokio::select! {
            () = context.cancelled() => return Ok(()),
            begun = beginning => begun?,
        };
        let Some(line) = &mut state.line else {
            return Err(FollowError::BaseEnded.into());
        };
        state.streamed = true;
        watch(&Following::Streaming {
            server: connection.target().to_owned(),
            replication_id: line.timeline.to_string(),
            from: line.pending.next(),
        });
        let mut session = Session {
            begun: line.pending.begun(),
            line,
            base: &mut state.base,
            sealer: &mut state.sealer,
            progress: &mut state.progress,
            watch,
            context,
        };
        session.run(&mut connection).await
    }

    /// An error when the server is another one than that of the newest snapshot, unless that was
    /// said.
    async fn mind_other(&self, origin: &Origin) -> Result<()> {
        let newest = self.options.bases.iter().max_by_key(|base| base.reached);
        let Some((base, known)) = newest.and_then(|base| Some((base, base.server.as_deref()?)))
        else {
            return Ok(());
        };
        let former = Former { replication_id: base.timeline.as_str(), server: known };
        if self.options.new_server == NewServer::Adopt
            || !former.is_other(&origin.replication_id, &self.options.connection).await
        {
            return Ok(());
        }
        let (store, known) = (self.store.to_string(), known.to_owned());
        Err(FollowError::OtherServer { store, known, found: origin.server.clone() }.into())
    }

    /// The server goes on where the journal ends; perhaps under another id.
    async fn go_on_as(
        &self,
        state: &mut State,
        id: Option<String>,
        watch: &Watch<'_>,
    ) -> Result<()> {
        let Some(line) = &mut state.line else {
            return Err(FollowError::BaseEnded.into());
        };
        let Some(next) = id.filter(|id| id != line.timeline.as_str()) else {
            return Ok(());
        };
        let timeline = Timeline::new(&*next)?;
        if self.journal.log().has_begun(&timeline).await? {
            state.base = Base::Needed;
            return Err(FollowError::KnownHistory { replication_id: next }.into());
        }
        let at = line.pending.next();
        if let Some(piece) = line.pending.cut_all() {
            state.sealer.push(work(&line.timeline, piece)).await?;
        }
        let info = TimelineInfo::forked(timeline.clone(), line.timeline.clone(), Position(at));
        state.sealer.push(Work::Begin(info.with_facts(begun_now()))).await?;
        let replication_id = line.timeline.to_string();
        line.timeline = timeline;
        line.pending.begin_here();
        watch(&Following::Switched { replication_id, next, at });
        Ok(())
    }

    /// The server sends everything: a new base is stored, and what was lost is recorded.
    async fn begin_anew(
        &self,
        state: &mut State,
        connection: Connection,
        origin: Origin,
        watch: &Watch<'_>,
        context: &Context,
    ) -> Result<Connection> {
        let timeline = Timeline::new(&*origin.replication_id)?;
        let offset = origin.offset;
        state.base = Base::Needed;
        let before = state.line.as_ref().filter(|line| line.timeline == timeline);
        let kept = match before {
            Some(line) => Some(line.pending.next()),
            None => self.journal.log().end(&timeline).await?.map(|at| at.0),
        };
        if let Some(kept) = kept.filter(|kept| *kept > offset) {
            let replication_id = origin.replication_id;
            return Err(FollowError::Behind { replication_id, offset, kept }.into());
        }
        if let Some(line) = &mut state.line {
            if let Some(piece) = line.pending.cut_all() {
                state.sealer.push(work(&line.timeline, piece)).await?;
            }
            if line.timeline != timeline {
                let (id, at) = (line.timeline.clone(), line.pending.next());
                let reason = format!(
                    "the server had another history, {timeline}, when it was asked for what follows"
                );
                record(state, id, (at, at.saturating_add(1)), None, reason, watch, context).await?;
            }
        }
        let info = TimelineInfo::first(timeline.clone()).with_facts(begun_now());
        state.sealer.push(Work::Begin(info)).await?;
        if let Some(kept) = kept.filter(|kept| *kept < offset) {
            let reason =
                "the server did not have these changes any more when it was asked for them";
            let (id, lost) = (timeline.clone(), (kept, offset));
            record(state, id, lost, Some(offset), reason.to_owned(), watch, context).await?;
        }
        let pending = Pending::new(offset, Begins::AtBoundary);
        state.line = Some(Line { timeline, pending });
        context.phase("wait for the server to fork");
        let started = receive(connection, origin).await?;
        let (base, connection) = Base::start(&self.store, started, Arc::clone(&self.sink), context);
        state.base = base;
        // It comes back with the last byte of the snapshot, or not at all.
        if let Ok(connection) = connection.await {
            return Ok(connection);
        }
        state.base.stored().await?;
        state.base = Base::Needed;
        Err(FollowError::BaseEnded.into())
    }

    /// Makes what was received durable, as far as that is done soon.
    async fn stop(&self, mut state: State, watch: &Watch<'_>, context: &Context) {
        let durable = state.sealer.durable();
        let finishing = async {
            if let Some(line) = &mut state.line
                && let Some(piece) = line.pending.cut()
            {
                state.sealer.push(work(&line.timeline, piece)).await?;
            }
            state.sealer.finish().await
        };
        if let Ok(Ok(())) = timeout(STOP_WITHIN, finishing).await {
            let durable = durable.borrow().clone();
            if let Some(timeline) = durable.timeline {
                let (replication_id, to) = (timeline.to_string(), durable.to);
                watch(&Following::Durable { replication_id, to, received: to });
            }
        } else {
            let told = "what was received last could not be stored before the end; the next start \
                        asks the server for it once more";
            context.warn(self.journal.name(), told);
        }
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Follower");
        debug.field("journal", &self.journal.name().to_string());
        debug.field("options", &self.options).finish_non_exhaustive()
    }
}

fn work(timeline: &Timeline, piece: pending::Piece) -> Work {
    let pending::Piece { span, info, bytes } = piece;
    Work::Piece { timeline: timeline.clone(), span, info, bytes }
}

/// Records what a history held and is lost.
async fn record(
    state: &mut State,
    timeline: Timeline,
    (from, until): (u64, u64),
    to: Option<u64>,
    reason: String,
    watch: &Watch<'_>,
    context: &Context,
) -> Result<()> {
    let told = match to {
        Some(to) => format!("the changes from {from} to {to} are lost: {reason}"),
        None => format!("what came after {from} is not known: {reason}"),
    };
    context.warn(
        &format!("history {timeline}"),
        format!("{told}. A new snapshot is taken now, and what follows it is kept again"),
    );
    watch(&Following::Gap { replication_id: timeline.to_string(), from, to });
    let span = Span::new(Position(from), Position(until))?;
    state.sealer.push(Work::Gap { timeline, span, reason }).await
}

/// Whether trying again cannot help.
fn is_final(error: &Error, state: &State) -> bool {
    match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::InvalidInput => true,
        ErrorKind::Refused | ErrorKind::Unsupported => !state.streamed,
        _ => false,
    }
}

fn tell(error: &Error, state: &mut State, context: &Context) {
    let line = error.one_line();
    if line != state.last_failure || state.failures.is_multiple_of(TELL_EVERY) {
        context.warn("", format!("{line}; it is tried again"));
    }
    state.failures += 1;
    state.last_failure = line;
}
