//! One stream: from the position where it begins to the end of the timeline, of the connection, or
//! of our wish for it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use lifeboat_core::journal::SegmentInfo;
use lifeboat_core::{Context, Error, Result};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::error::ReceiveError;
use super::gather::{Gather, Pace, Seal};
use super::{Following, Watch, page};
use crate::archive::{WalArchive, WalLine};
use crate::lsn::{Lsn, SegmentSize};
use crate::replication::{Client, Received, ReplicationError, Status};

/// How often the server hears of us when nothing happens. Its own limit, `wal_sender_timeout`, is
/// a minute unless set otherwise, and must be above this.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// After so much silence the server is asked for a sign of life, and after twice that it is taken
/// to be gone.
const SILENCE: Duration = Duration::from_secs(30);

/// How long one append may take.
const APPEND_LIMIT: Duration = Duration::from_secs(300);

/// How long what was received may take to become durable when somebody asks to stop.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// No less is kept in memory before nothing more is read.
const LEAST_MEMORY: u64 = 32 << 20;

/// Where a stream begins.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) line: WalLine,
    /// The beginning of a run: what is asked for.
    pub(super) start: Lsn,
    /// Before this, all is durable, on this timeline or on those that it comes from.
    pub(super) durable: Lsn,
    /// What the archive has from `start` on, up to `durable`; empty when it has not.
    pub(super) held: Bytes,
    pub(super) size: SegmentSize,
    /// How many bytes are sealed as a whole.
    pub(super) run: u64,
}

/// How a stream ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The timeline has no more; all of it is durable, up to here.
    Timeline(Lsn),
    /// Somebody asked to stop; what was received is durable, if that was possible.
    Stopped,
}

/// What a stream is run with.
pub(super) struct Running<'a> {
    pub(super) archive: &'a WalArchive,
    pub(super) pace: Pace,
    pub(super) warn_behind: u64,
    pub(super) watch: &'a Watch<'a>,
    pub(super) context: &'a Context,
}

struct Stream<'a> {
    running: &'a Running<'a>,
    beginning: Beginning,
    gather: Gather,
    /// Up to where the server has WAL, as far as it said.
    server: Lsn,
    /// What is being sealed.
    sealing: Option<Seal>,
    tasks: JoinSet<Result<()>>,
    heard: Instant,
    reported: Instant,
    warned: bool,
}

/// Why nothing more is received.
enum Stop {
    Timeline,
    Asked,
    Lost(Error),
}

/// Receives a stream that was started. `progress` is set when anything became durable.
///
/// # Errors
/// Those of the connection, after what had been received became durable; those of the archive, at
/// once.
pub(super) async fn run(
    client: &mut Client,
    beginning: Beginning,
    running: &Running<'_>,
    progress: &mut bool,
) -> Result<Ended> {
    let held_to = Lsn(beginning.start.0 + beginning.held.len() as u64);
    let gather = Gather::new(beginning.start, held_to, beginning.run, running.pace);
    let now = Instant::now();
    let mut stream = Stream {
        running,
        server: beginning.durable,
        beginning,
        gather,
        sealing: None,
        tasks: JoinSet::new(),
        heard: now,
        reported: now,
        warned: false,
    };
    stream.run(client, progress).await
}

impl Stream<'_> {
    async fn run(&mut self, client: &mut Client, progress: &mut bool) -> Result<Ended> {
        let limit = LEAST_MEMORY.max(2 * self.beginning.run);
        let mut stop: Option<Stop> = None;
        let mut give_up: Option<Instant> = None;
        loop {
            self.seal(stop.is_some());
            if stop.is_some() && self.sealing.is_none() {
                break;
            }
            if give_up.is_some_and(|limit| limit <= Instant::now()) {
                break;
            }
            let has_room = self.gather.held() < limit;
            let wake = self.wake(give_up);
            let mut report = false;
            tokio::select! {
                () = self.running.context.cancelled(), if give_up.is_none() => {
                    give_up = Some(Instant::now() + STOP_LIMIT);
                    stop.get_or_insert(Stop::Asked);
                }
                Some(done) = self.tasks.join_next() => {
                    self.sealed(done)?;
                    *progress = true;
                    report = true;
                }
                received = client.receive(), if stop.is_none() && has_room => {
                    self.heard = Instant::now();
                    match received {
                        Ok(Received::Wal { from, end, at, bytes }) => {
                            self.take(from, end, at, bytes)?;
                        }
                        Ok(Received::Alive { end, answer }) => {
                            self.server = self.server.max(end);
                            report = answer;
                        }
                        Ok(Received::TimelineEnds) => stop = Some(Stop::Timeline),
                        Ok(Received::Goodbye) => stop = Some(Stop::Lost(goodbye())),
                        // What was received before is worth as much as ever.
                        Err(error) => stop = Some(Stop::Lost(error.into())),
                    }
                }
                () = sleep_until(wake.into()) => {}
            }
            if !has_room {
                // Nothing was read, so nothing could be heard.
                self.heard = Instant::now();
            }
            let connected = !matches!(stop, Some(Stop::Lost(_)));
            if connected && (report || self.reported.elapsed() >= REPORT_EVERY) {
                self.report(client).await?;
            }
            if stop.is_none() && self.heard.elapsed() >= 2 * SILENCE {
                let seconds = 2 * SILENCE.as_secs();
                stop = Some(Stop::Lost(
                    ReplicationError::Silent { what: "receive WAL".into(), seconds }.into(),
                ));
            }
            self.warn_behind();
        }
        match stop {
            Some(Stop::Timeline) => {
                self.report(client).await?;
                Ok(Ended::Timeline(self.gather.received()))
            }
            Some(Stop::Lost(error)) => Err(error),
            Some(Stop::Asked) | None => {
                // Who is asked to stop does not wait for a server that does not listen.
                let _ = timeout(Duration::from_secs(5), self.report(client)).await;
                Ok(Ended::Stopped)
            }
        }
    }

    /// Takes what was received.
    fn take(&mut self, from: Lsn, end: Lsn, sent: u64, bytes: Bytes) -> Result<()> {
        self.compare(from, &bytes)?;
        self.server = self.server.max(end);
        self.running.context.count_read(bytes.len() as u64);
        self.server = self.server.max(Lsn(from.0 + bytes.len() as u64));
        self.gather.push(from, bytes, sent, Instant::now())?;
        Ok(())
    }

    /// Compares what comes once more with what the archive has of it.
    fn compare(&self, from: Lsn, bytes: &Bytes) -> Result<(), ReceiveError> {
        let Beginning { line, start, held, .. } = &self.beginning;
        let Some(known) = from.0.checked_sub(start.0).and_then(|skip| {
            held.get(usize::try_from(skip).ok()?..).filter(|known| !known.is_empty())
        }) else {
            return Ok(());
        };
        let length = known.len().min(bytes.len());
        if known[..length] == bytes[..length] {
            return Ok(());
        }
        let to = Lsn(from.0 + length as u64);
        Err(ReceiveError::Differs { line: *line, from, to })
    }

    /// Begins to seal what is due, unless something is being sealed.
    fn seal(&mut self, all: bool) {
        if self.sealing.is_some() {
            return;
        }
        let Some(seal) = self.gather.next(Instant::now(), self.server, all) else {
            return;
        };
        let archive = self.running.archive.clone();
        let Beginning { line, size, .. } = self.beginning;
        let (from, to, bytes) = (seal.from, seal.to(), seal.bytes.clone());
        let info = info(seal.sent);
        self.tasks.spawn(async move {
            page::check(&bytes, from, line, size)
                .map_err(|why| ReceiveError::NotItsPlace { line, why })?;
            match timeout(APPEND_LIMIT, archive.append(line, from, bytes, &info)).await {
                Ok(done) => done.map(drop),
                Err(_) => {
                    let seconds = APPEND_LIMIT.as_secs();
                    Err(ReceiveError::Slow { from, to, seconds }.into())
                }
            }
        });
        self.sealing = Some(seal);
    }

    /// Takes note that it is durable.
    fn sealed(&mut self, done: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
        done.map_err(|source| crate::Error::Panicked { source })??;
        if let Some(seal) = self.sealing.take() {
            self.gather.sealed(&seal, Instant::now());
            self.running.context.count_stored(seal.bytes.len() as u64);
            let line = self.beginning.line;
            let (to, server, whole) = (self.flushed(), self.server, seal.whole);
            (self.running.watch)(&Following::Durable { line, to, server, whole });
        }
        Ok(())
    }

    /// Up to where all is durable.
    fn flushed(&self) -> Lsn {
        self.gather.durable().max(self.beginning.durable)
    }

    async fn report(&mut self, client: &mut Client) -> Result<()> {
        self.reported = Instant::now();
        let flushed = self.flushed();
        let written = self.gather.received().max(flushed);
        let answer = self.heard.elapsed() >= SILENCE;
        Ok(client.report(&Status { written, flushed, answer }).await?)
    }

    /// When to look again, if nothing happens.
    fn wake(&self, give_up: Option<Instant>) -> Instant {
        let due = self.gather.due().filter(|_| self.sealing.is_none());
        let report = self.reported + REPORT_EVERY;
        [due, give_up].into_iter().flatten().fold(report, Instant::min)
    }

    /// Warns once when the server must keep more than it should.
    fn warn_behind(&mut self) {
        let behind = self.server.0.saturating_sub(self.flushed().0);
        if behind > self.running.warn_behind && !self.warned {
            self.warned = true;
            super::warn_behind(behind, self.running.context);
        } else if behind < self.running.warn_behind / 2 {
            self.warned = false;
        }
    }
}

fn goodbye() -> Error {
    let source = std::io::ErrorKind::ConnectionAborted.into();
    ReplicationError::Lost { what: "receive WAL: the server shuts down".into(), source }.into()
}

/// What is known of the time of WAL: it was written before it was sent.
fn info(sent: u64) -> SegmentInfo {
    /// Seconds from 1970 to 2000.
    const EPOCH: i64 = 946_684_800;
    let mut info = SegmentInfo::default();
    let micros = i64::try_from(sent).ok().and_then(|sent| sent.checked_add(EPOCH * 1_000_000));
    info.last_time = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_clock_is_read_and_not_trusted() {
        // 2026-01-01 00:00:00 UTC, counted from 2000.
        let sent = 820_540_800_000_000;
        assert_eq!(info(sent).last_time.unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(info(u64::MAX).last_time, None);
        assert_eq!(info(i64::MAX as u64).last_time, None);
    }
}
