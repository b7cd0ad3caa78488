//! One connection on which the stream of changes comes.

use std::time::Duration;

use lifeboat_core::{Context, Result};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::base::Base;
use super::resume::Line;
use super::sealing::{Durable, Sealer, Work};
use super::{Following, Watch, pending};
use crate::connect::Connection;

const RECEIVING: &str = "receive the changes";
/// How often the server is told how far it is durable; it gives up on who is silent for
/// `repl-timeout`.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// So much is taken at a time.
const AT_ONCE: usize = 256 << 10;

/// What one connection works with.
pub(super) struct Session<'a> {
    pub(super) line: &'a mut Line,
    pub(super) base: &'a mut Base,
    pub(super) sealer: &'a mut Sealer,
    /// Where the journal was durable when the line began.
    pub(super) begun: u64,
    /// Something became durable.
    pub(super) progress: &'a mut bool,
    pub(super) watch: &'a Watch<'a>,
    pub(super) context: &'a Context,
}

impl Session<'_> {
    /// Receives until somebody asks to stop.
    ///
    /// # Errors
    /// When the connection breaks, when what comes makes no sense, when the snapshot cannot be
    /// stored, and when what was received can never become durable.
    pub(super) async fn run(&mut self, connection: &mut Connection) -> Result<()> {
        let mut durable = self.sealer.durable();
        let mut tick = interval(TELL_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let due = self.line.pending.due();
            let room = self.line.pending.room().min(AT_ONCE);
            let (line, sealer) = (&mut *self.line, &mut *self.sealer);
            let sealing = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
                sealer.has_room().await;
            };
            tokio::select! {
                () = self.context.cancelled() => return Ok(()),
                changed = durable.changed() => {
                    if changed.is_err() {
                        return Err(self.sealer.failure().await);
                    }
                    let to = durable.borrow_and_update().clone();
                    self.told(&to);
                    self.acknowledge(connection, &to).await?;
                }
                _ = tick.tick() => {
                    if heard.elapsed() > connection.patience() {
                        return Err(connection.no_answer(RECEIVING).into());
                    }
                    let to = durable.borrow().clone();
                    self.acknowledge(connection, &to).await?;
                }
                stored = self.base.stored() => {
                    let snapshot = stored?;
                    let replication_id = self.line.timeline.to_string();
                    (self.watch)(&Following::Base { replication_id, snapshot });
                }
                () = sealing => self.seal().await?,
                count = connection.hear(RECEIVING, line.pending.buffer(), room), if room > 0 => {
                    let count = count?;
                    heard = Instant::now();
                    self.context.count_read(count as u64);
                    if let Err(error) = self.line.pending.received(count) {
                        pending::warn_of_nonsense(&error, self.context);
                        // What follows can be restored from a new snapshot only.
                        *self.base = Base::Needed;
                        return Err(error.into());
                    }
                }
            }
        }
    }

    /// Queues what is due.
    async fn seal(&mut self) -> Result<()> {
        let Some(piece) = self.line.pending.cut() else {
            return Ok(());
        };
        let timeline = self.line.timeline.clone();
        let (span, info, bytes) = (piece.span, piece.info, piece.bytes);
        self.sealer.push(Work::Piece { timeline, span, info, bytes }).await
    }

    /// The place in the present history up to which all is durable.
    fn reached(&self, durable: &Durable) -> u64 {
        match &durable.timeline {
            Some(timeline) if *timeline == self.line.timeline => durable.to.max(self.begun),
            _ => self.begun,
        }
    }

    fn told(&mut self, durable: &Durable) {
        *self.progress = true;
        if let Some(timeline) = &durable.timeline {
            (self.watch)(&Following::Durable {
                replication_id: timeline.to_string(),
                to: durable.to,
                received: self.line.pending.next(),
            });
        }
    }

    /// Says up to where all is durable: nothing, while the snapshot is not.
    async fn acknowledge(&self, connection: &mut Connection, durable: &Durable) -> Result<()> {
        let to = if matches!(self.base, Base::There) { self.reached(durable) } else { 0 };
        let to = to.to_string();
        let words: [&[u8]; 3] = [b"REPLCONF", b"ACK", to.as_bytes()];
        Ok(connection.send("acknowledge what is durable", &words).await?)
    }
}
