//! The rows of a table, or of a stretch of it, as content.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use lifeboat_core::{Content, Context, Extent};
use tokio_postgres::CopyOutStream;
use tokio_postgres::error::SqlState;

use super::error::{DatabaseError, Result};
use super::moment::{Worker, Workers, about_table};
use super::tally::Tally;
use crate::connect::CancelOnDrop;
use crate::gate::Ticket;

/// Rows are gathered into pieces of this size.
const PIECE: usize = 512 << 10;

/// So much of a single row is given at a time.
const OF_A_ROW: usize = 2 << 20;

/// What is read, by which statement, and who is told of what was counted.
pub(super) struct Rows {
    /// For messages.
    pub(super) table: String,
    /// `COPY … TO STDOUT`.
    pub(super) statement: String,
    pub(super) workers: Arc<Workers>,
    pub(super) context: Context,
    pub(super) ticket: Ticket,
    /// Given what was counted, when all was read.
    pub(super) counted: Box<dyn FnOnce(&Tally) + Send>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("statement", &self.statement).finish_non_exhaustive()
    }
}

enum State {
    Start(Box<Rows>),
    Reading(Box<Copying>),
    /// The rest of a row that is larger than a piece.
    Row(Bytes, Box<Copying>),
    Ended,
}

struct Copying {
    rows: Rows,
    stream: Pin<Box<CopyOutStream>>,
    tally: Tally,
    /// A row that did not fit any more.
    next: Option<Bytes>,
    // Dropped before the session: what it does is cancelled first.
    guard: CancelOnDrop,
    worker: Worker,
}

impl Rows {
    /// As content. Nothing is asked for before the content is.
    pub(super) fn into_content(self) -> Content {
        let start = State::Start(Box::new(self));
        Content::stream(futures_util::stream::try_unfold(start, |state| async {
            Ok(state.step().await?)
        }))
    }
}

impl State {
    async fn step(self) -> Result<Option<(Extent, Self)>> {
        let mut copying = match self {
            Self::Start(rows) => Copying::begin(*rows).await?,
            Self::Reading(copying) => copying,
            Self::Row(rest, copying) => return Ok(Some(row(rest, copying))),
            Self::Ended => return Ok(None),
        };
        let mut buffer = copying.rows.context.budget().buffer(PIECE).await;
        loop {
            let next = match copying.next.take() {
                Some(row) => Some(row),
                None => copying.row().await?,
            };
            let data = buffer.data_mut();
            match next {
                None => {
                    let last = buffer.freeze();
                    copying.end()?;
                    return Ok(match last.is_empty() {
                        true => None,
                        false => Some((Extent::Data(last), Self::Ended)),
                    });
                }
                Some(bytes) if data.len() + bytes.len() <= PIECE => data.extend_from_slice(&bytes),
                Some(bytes) if data.is_empty() => return Ok(Some(row(bytes, copying))),
                Some(bytes) => {
                    copying.next = Some(bytes);
                    return Ok(Some((Extent::Data(buffer.freeze()), Self::Reading(copying))));
                }
            }
        }
    }
}

/// A piece of a row that is larger than a piece.
fn row(mut bytes: Bytes, copying: Box<Copying>) -> (Extent, State) {
    let piece = bytes.split_to(bytes.len().min(OF_A_ROW));
    let state = match bytes.is_empty() {
        true => State::Reading(copying),
        false => State::Row(bytes, copying),
    };
    (Extent::Data(piece), state)
}

impl Copying {
    async fn begin(rows: Rows) -> Result<Box<Self>> {
        let worker = rows.workers.one().await?;
        let session = worker.session()?;
        let guard = session.cancel_on_drop();
        let stream = session.client().copy_out(&rows.statement).await;
        let stream = stream.map_err(|error| failed(&rows.table, error))?;
        let stream = Box::pin(stream);
        let tally = Tally::default();
        Ok(Box::new(Self { rows, stream, tally, next: None, guard, worker }))
    }

    async fn row(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.stream.next().await.transpose() {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => {
                    self.tally.feed(&bytes);
                    self.rows.context.count_read(bytes.len() as u64);
                    return Ok(Some(bytes));
                }
                Ok(None) => return Ok(None),
                Err(error) => return Err(failed(&self.rows.table, error)),
            }
        }
    }

    fn end(self: Box<Self>) -> Result<()> {
        let Self { rows, tally, guard, worker, .. } = *self;
        if !tally.is_whole() {
            return Err(DatabaseError::HalfRow { table: rows.table });
        }
        guard.disarm();
        worker.give_back();
        (rows.counted)(&tally);
        drop(rows.ticket);
        Ok(())
    }
}

fn failed(table: &str, error: tokio_postgres::Error) -> DatabaseError {
    let hides = error.as_db_error().is_some_and(|said| {
        *said.code() == SqlState::INSUFFICIENT_PRIVILEGE
            && said.message().contains("row-level security")
    });
    if hides {
        // The server says "query would be affected by row-level security policy".
        return DatabaseError::RowSecurity { table: table.to_owned() };
    }
    about_table(format!("read {table}"), error)
}
