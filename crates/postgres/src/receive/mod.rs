//! WAL by streaming: received over the replication protocol, and kept in an archive.
//!
//! A [`Receiver`] follows one server for ever:
//!
//! - It has a replication slot of its own, so that the server keeps what is not durable yet, and
//!   acknowledges only what the archive says is durable: never what was merely received.
//! - It begins where the archive ends, at the beginning of the segment: what comes once more of
//!   that segment is compared with what is there, so that two servers that write one timeline are
//!   found out. What comes must follow without a gap.
//! - A segment is sealed as a whole when it is full. Until then pieces of it are sealed, a second
//!   after their first change at the latest, so that the recovery point trails by about a second.
//!   The whole supersedes its pieces. Of segments larger than 64 MiB each run of 64 MiB is such a
//!   whole.
//! - When the connection is lost, what had been received is sealed before it is tried again. When
//!   the archive fails, nothing is acknowledged, and the stream begins again at its last durable
//!   position. Both are tried for ever, with pauses that grow.
//! - When the server is promoted, or another one takes its place behind the same address, the
//!   histories of all timelines on the way are kept first; then the old timeline is received to
//!   its end, and the new one from there. The position comes from the archive, not from the slot
//!   of the new server.
//! - WAL that the server has removed is recorded as a gap, with a warning: only a new base backup
//!   helps then, and what comes after it is protected again.
//!
//! Memory: two segments, or two runs of 64 MiB where those are larger, and 32 MiB at least.
//!
//! With [`Freshness::Synchronous`] and the receiver's `application_name` in
//! `synchronous_standby_names`, a commit waits until it is durable in the archive.

mod error;
mod gather;
mod options;
mod page;
mod route;
mod stream;

use std::error::Error as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lifeboat_core::journal::MAX_SEGMENT;
use lifeboat_core::{Content, Context, Error, ErrorKind, Extent, Result};
use tokio::time::sleep;

use self::route::{Stretch, frontier, holding, stretches};
use self::stream::{Beginning, Ended, Running};
use crate::archive::{ArchiveError, TimelineHistory, WalArchive, WalLine};
use crate::lsn::{Lsn, SegmentSize};
use crate::replication::{Client, Identity, ReplicationError, Started};

pub use self::error::ReceiveError;
pub use self::options::{Freshness, ReceiverOptions};

/// The first pause before another attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// How often the same failure is told again, in attempts.
const TELL_EVERY: u32 = 20;

/// What a receiver has done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Following {
    /// WAL streams.
    Streaming {
        /// Host, port and user.
        server: String,
        /// Of which timeline.
        line: WalLine,
        /// From where on.
        from: Lsn,
    },
    /// More is durable, and acknowledged.
    Durable {
        /// Of which timeline.
        line: WalLine,
        /// Up to where.
        to: Lsn,
        /// Up to where the server has WAL, as far as it said.
        server: Lsn,
        /// Whether it was a whole segment, or a whole run of one, and not a piece.
        whole: bool,
    },
    /// A timeline came to its end, and goes on as another.
    Switched {
        /// The one that ended.
        line: WalLine,
        /// The one that follows.
        next: u32,
        /// Where.
        at: Lsn,
    },
    /// What a timeline held is lost at the server, and was recorded as a gap.
    Gap {
        /// Of which timeline.
        line: WalLine,
        /// From where on.
        from: Lsn,
        /// Up to where.
        to: Lsn,
    },
}

/// Who is told what a receiver has done. It must return quickly.
pub type Watch<'a> = dyn Fn(&Following) + Send + Sync + 'a;

/// Follows the WAL of a server.
///
/// ```no_run
/// use lifeboat_core::Context;
/// use lifeboat_postgres::{ConnectOptions, Receiver, ReceiverOptions, WalArchive};
///
/// # async fn example(archive: WalArchive) -> lifeboat_core::Result<()> {
/// let connection = ConnectOptions::parse("host=db.example user=backup")?.with_environment()?;
/// let options = ReceiverOptions::new(connection, "lifeboat".parse()?);
/// let receiver = Receiver::new(archive, options);
/// // Until somebody cancels the context.
/// receiver.run(&|done| println!("{done:?}"), &Context::silent()).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Receiver {
    archive: WalArchive,
    options: ReceiverOptions,
}

/// What is known from one attempt to the next.
#[derive(Default)]
struct Memory {
    /// WAL has streamed: what the server refuses now may be over soon.
    streamed: bool,
    /// Something became durable since the last failure.
    progress: bool,
    /// The server has removed the WAL from here on.
    removed: Option<Lsn>,
    last_failure: String,
    failures: u32,
}

/// One connection, and what it leads to.
struct Session {
    client: Client,
    size: SegmentSize,
}

impl Session {
    /// How many bytes are sealed as a whole.
    fn run(&self) -> u64 {
        self.size.bytes().min(MAX_SEGMENT)
    }

    /// The beginning of the run that has `lsn`.
    fn floor(&self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 - lsn.0 % self.run())
    }
}

impl Receiver {
    /// Receives into `archive`.
    pub fn new(archive: WalArchive, options: ReceiverOptions) -> Self {
        Self { archive, options }
    }

    /// Follows the server until the context is cancelled: then what was received becomes durable,
    /// and the server hears of it, if both do so soon. `watch` is told what was done, the context
    /// what fails. Dropping the future is safe at any time.
    ///
    /// # Errors
    /// Whatever trying again cannot mend: when the server refuses us before WAL has streamed once;
    /// when the archive belongs to another cluster; when the server's WAL or history is not what was
    /// archived in the same place.
    pub async fn run(&self, watch: &Watch<'_>, context: &Context) -> Result<()> {
        let mut memory = Memory::default();
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(error) = self.attempt(&mut memory, watch, context).await else {
                return Ok(());
            };
            if context.is_cancelled() {
                return Ok(());
            }
            // What is lost at the server is recorded at the next attempt.
            if memory.removed.is_none() && is_final(&error, &memory) {
                return Err(error);
            }
            if std::mem::take(&mut memory.progress) {
                (pause, memory.failures) = (FIRST_PAUSE, 0);
            }
            tell(&error, &mut memory, context);
            tokio::select! {
                () = context.cancelled() => return Ok(()),
                () = sleep(pause) => {}
            }
            pause = (2 * pause).min(self.options.longest_pause);
        }
    }

    /// One connection, from its beginning to its end. `Ok` when somebody asked to stop.
    async fn attempt(
        &self,
        memory: &mut Memory,
        watch: &Watch<'_>,
        context: &Context,
    ) -> Result<()> {
        let connecting = self.connect();
        let mut session = tokio::select! {
            () = context.cancelled() => return Ok(()),
            session = connecting => session?,
        };
        let running = Running {
            archive: &self.archive,
            pace: self.options.freshness.pace(),
            warn_behind: self.options.warn_behind,
            watch,
            context,
        };
        loop {
            let planning = self.plan(&mut session, memory, watch, context);
            let beginning = tokio::select! {
                () = context.cancelled() => return Ok(()),
                beginning = planning => beginning?,
            };
            let (line, start) = (beginning.line, beginning.start);
            let ended = self.stream(&mut session, beginning, &running, memory).await;
            match ended {
                Ok(None) => {
                    // Who is asked to stop does not wait for a server that does not listen.
                    let _ = session.client.close().await;
                    return Ok(());
                }
                Ok(Some((next, at))) => watch(&Following::Switched { line, next, at }),
                Err(error) => {
                    if is_removed(&error, session.client.major()?) {
                        memory.removed = Some(start);
                    }
                    return Err(error);
                }
            }
        }
    }

    async fn connect(&self) -> Result<Session> {
        let mut client = Client::connect(&self.options.connection).await?;
        let size = client.segment_size().await?;
        Ok(Session { client, size })
    }

    /// Up to where the slot holds WAL back. It is made when there is none.
    async fn slot(&self, client: &mut Client, context: &Context) -> Result<Option<Lsn>> {
        let name = &self.options.slot;
        // Versions that cannot be asked have it, or are told to make it.
        if client.major()? >= 15
            && let Some(slot) = client.read_slot(name).await?
        {
            return Ok(slot.from);
        }
        if client.make_slot(name).await? {
            let subject = format!("replication slot {name}");
            context
                .note(&subject, "it was made: the server keeps its WAL until it is durable here");
        }
        let slot = client.read_slot(name).await?;
        Ok(slot.ok_or_else(|| ReceiveError::NoSlot { slot: name.to_string() })?.from)
    }

    /// Receives one timeline. The next one and where it begins; `None` when somebody asked to stop.
    async fn stream(
        &self,
        session: &mut Session,
        beginning: Beginning,
        running: &Running<'_>,
        memory: &mut Memory,
    ) -> Result<Option<(u32, Lsn)>> {
        let (line, start) = (beginning.line, beginning.start);
        let client = &mut session.client;
        let next = match client.start(&self.options.slot, line.timeline, start).await? {
            Started::Ended(next) => next,
            Started::Streaming => {
                memory.streamed = true;
                let server = client.target().to_owned();
                (running.watch)(&Following::Streaming { server, line, from: start });
                match stream::run(client, beginning, running, &mut memory.progress).await? {
                    Ended::Stopped => return Ok(None),
                    Ended::Timeline(end) => {
                        let next = client.finish_timeline().await?;
                        if next.from != end {
                            return Err(ReceiveError::Fork { line, end, next: next.from }.into());
                        }
                        next
                    }
                }
            }
        };
        Ok(Some((next.timeline, next.from)))
    }

    /// Keeps the histories that belong to the server's timeline, and finds out where to go on.
    async fn plan(
        &self,
        session: &mut Session,
        memory: &mut Memory,
        watch: &Watch<'_>,
        context: &Context,
    ) -> Result<Beginning> {
        let mut identity = session.client.identify().await?;
        // A server that does not belong here is refused before anything is made on it.
        let way = self.histories(&mut session.client, &identity, context).await?;
        let slot = self.slot(&mut session.client, context).await?;
        // What a new slot keeps begins after the position that was told before.
        identity.position = session.client.identify().await?.position;
        let line = |index: usize| WalLine::new(identity.system_id, way[index].timeline);
        let newest = match self.archive.newest(identity.system_id).await {
            // Who may write and not read is not warned.
            Err(error) if error.kind() == ErrorKind::Refused => None,
            newest => newest?,
        };
        if let Some(newest) = newest.filter(|newest| *newest > identity.timeline) {
            let told = format!(
                "the server is on timeline {}, and the archive knows timeline {newest}: if that is the one that counts, connect to the server that was promoted",
                identity.timeline
            );
            context.warn(session.client.target(), told);
        }
        let mut place = self.place(session, &identity, &way, slot).await?;
        if let Some(removed) = memory.removed.take() {
            let from = self.after_loss(session, slot.filter(|from| *from > removed)).await?;
            if let Some((index, durable)) = place {
                self.record(&way, &identity, (index, durable), from, watch, context).await?;
            }
            place = Some((holding(&way, from), from));
        }
        let fresh = place.is_none();
        let (index, position) = place.unwrap_or_else(|| {
            let from = slot.unwrap_or(identity.position);
            (holding(&way, from), session.floor(from))
        });
        let behind = identity.position.0.saturating_sub(position.0);
        if behind > self.options.warn_behind {
            warn_behind(behind, context);
        }
        let start = session.floor(position);
        let held = match fresh {
            true => Bytes::new(),
            false => self.held(line(index), start, position, context).await?,
        };
        // What a new timeline repeats of its parent is durable there; what else is not there must
        // become so first.
        let whole = held.len() as u64 == position.0 - start.0 || position <= way[index].from;
        Ok(Beginning {
            line: line(index),
            start,
            durable: if whole { position } else { start },
            held,
            size: session.size,
            run: session.run(),
        })
    }

    /// Begins every timeline on the way to the server's, with its history, and gives the way.
    async fn histories(
        &self,
        client: &mut Client,
        identity: &Identity,
        context: &Context,
    ) -> Result<Vec<Stretch>> {
        let new = self.options.new_system;
        let line = |timeline| WalLine::new(identity.system_id, timeline);
        if identity.timeline == 1 {
            self.archive.begin(line(1), None, new).await?;
            return Ok(stretches(1, None));
        }
        let history = client.timeline_history(identity.timeline).await?;
        let history = TimelineHistory::parse(identity.timeline, history)?;
        for (ancestor, _) in history.parents() {
            if *ancestor == 1 {
                self.archive.begin(line(1), None, new).await?;
            } else if !self.archive.has(line(*ancestor)).await? {
                match client.timeline_history(*ancestor).await {
                    Ok(bytes) => {
                        let ancestor = TimelineHistory::parse(*ancestor, bytes)?;
                        self.archive.begin(line(ancestor.timeline()), Some(&ancestor), new).await?;
                    }
                    Err(error) if error.is_missing_file() => {
                        let name = TimelineHistory::name_of(*ancestor);
                        let told = "the server does not have this history file any more; moments on that timeline cannot be restored without it";
                        context.warn(&name, told);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.archive.begin(line(identity.timeline), Some(&history), new).await?;
        Ok(stretches(identity.timeline, Some(&history)))
    }

    /// Where the archive ends on the way, or has a hole that the slot still covers.
    async fn place(
        &self,
        session: &Session,
        identity: &Identity,
        way: &[Stretch],
        slot: Option<Lsn>,
    ) -> Result<Option<(usize, Lsn)>> {
        let mut ends = Vec::new();
        for stretch in way {
            let line = WalLine::new(identity.system_id, stretch.timeline);
            let known = self.archive.has(line).await?;
            ends.push(if known { self.archive.end(line).await? } else { None });
        }
        let Some((index, position)) = frontier(way, &ends) else {
            return Ok(None);
        };
        if let Some(slot) = slot.filter(|slot| *slot < position)
            && holding(way, slot) == index
        {
            // What another way of archiving has put behind a hole does not close it.
            let line = WalLine::new(identity.system_id, way[index].timeline);
            let from = session.floor(slot).max(session.floor(way[index].from));
            let missing = self.archive.first_missing(line, from).await?;
            return Ok(Some((index, missing.min(position))));
        }
        Ok(Some((index, position)))
    }

    /// Where the server has WAL, after it has lost some. `slot` is what the slot still keeps.
    async fn after_loss(&self, session: &mut Session, slot: Option<Lsn>) -> Result<Lsn> {
        if let Some(from) = slot {
            return Ok(session.floor(from));
        }
        // The slot lost what it stood for, too; a new one reserves what there is.
        session.client.drop_slot(&self.options.slot).await?;
        session.client.make_slot(&self.options.slot).await?;
        let slot = session.client.read_slot(&self.options.slot).await?;
        let position = session.client.identify().await?.position;
        Ok(session.floor(slot.and_then(|slot| slot.from).unwrap_or(position)))
    }

    /// Records what is lost from a place on the way up to `to`.
    async fn record(
        &self,
        way: &[Stretch],
        identity: &Identity,
        (index, from): (usize, Lsn),
        to: Lsn,
        watch: &Watch<'_>,
        context: &Context,
    ) -> Result<()> {
        let reason = "the server had removed this WAL before it was received";
        for stretch in &way[index..] {
            let line = WalLine::new(identity.system_id, stretch.timeline);
            let (from, to) = (from.max(stretch.from), stretch.to.unwrap_or(to).min(to));
            if from < to {
                self.archive.record_gap(line, from, to, reason).await?;
                let told = format!(
                    "the WAL from {from} to {to} is lost: the server had removed it. Take a new base backup: no moment after {from} can be restored from an older one"
                );
                context.warn(&format!("timeline {}", line.timeline), told);
                watch(&Following::Gap { line, from, to });
            }
        }
        Ok(())
    }

    /// What the archive has from `from` up to `to`; nothing when that is not all of it, or damaged.
    async fn held(&self, line: WalLine, from: Lsn, to: Lsn, context: &Context) -> Result<Bytes> {
        if from == to {
            return Ok(Bytes::new());
        }
        let reading = async {
            match self.archive.read(line, from, to).await? {
                Some(content) => collect(content, to.0 - from.0).await,
                None => Ok(Bytes::new()),
            }
        };
        match reading.await {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let told = format!("{}; it is received once more", error.one_line());
                context.warn(self.archive.name(), told);
                Ok(Bytes::new())
            }
            // Who may write and not read cannot compare.
            Err(error) if error.kind() == ErrorKind::Refused => Ok(Bytes::new()),
            held => held,
        }
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Receiver");
        debug.field("archive", &self.archive.name().to_string());
        debug.field("options", &self.options).finish()
    }
}

/// All of a content that must have `length` bytes, which are not many.
async fn collect(mut content: Content, length: u64) -> Result<Bytes> {
    let mut all = BytesMut::new();
    while let Some(extent) = content.next().await? {
        let room = length - all.len() as u64;
        let wrong =
            || Error::new(ErrorKind::Corrupt, "read back WAL: it is not as long as it says");
        match extent {
            Extent::Data(bytes) if bytes.len() as u64 <= room => all.extend_from_slice(&bytes),
            Extent::Hole(count) if count <= room => all.resize(all.len() + count as usize, 0),
            _ => return Err(wrong()),
        }
    }
    Ok(all.freeze())
}

/// Whether trying again cannot help.
fn is_final(error: &Error, memory: &Memory) -> bool {
    let archive = error.source().and_then(|source| source.downcast_ref::<ArchiveError>());
    match error.kind() {
        // Another content in the same place, or another cluster.
        ErrorKind::AlreadyExists | ErrorKind::InvalidInput => true,
        ErrorKind::Refused => archive.is_some() || !memory.streamed,
        ErrorKind::Unsupported => !memory.streamed,
        _ => false,
    }
}

/// Whether the server has removed what it was asked for, or has given up the slot that should have
/// kept it.
fn is_removed(error: &Error, major: u32) -> bool {
    let replication = error.source().and_then(|source| source.downcast_ref::<ReplicationError>());
    match replication.and_then(ReplicationError::code) {
        Some("58P01") => true,
        // Versions that cannot be asked what a slot is say this of a logical one, too.
        Some("55000") => major >= 15,
        _ => false,
    }
}

fn tell(error: &Error, memory: &mut Memory, context: &Context) {
    let line = error.one_line();
    if line != memory.last_failure || memory.failures.is_multiple_of(TELL_EVERY) {
        context.warn("", format!("{line}; it is tried again"));
    }
    memory.failures += 1;
    memory.last_failure = line;
}

fn warn_behind(bytes: u64, context: &Context) {
    let told = format!(
        "{} MiB of the server's WAL are not durable here yet, and its slot keeps them on its disk: see what holds the repository up; max_slot_wal_keep_size at the server limits what a slot may keep",
        bytes >> 20
    );
    context.warn("", told);
}
