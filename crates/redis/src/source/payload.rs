//! The RDB as it comes over the wire.

use bytes::Bytes;
use lifeboat_core::ByteBudget;

use crate::connect::Connection;
use crate::error::Result;

/// How long the mark is that stands before and after an RDB of unknown length.
pub(super) const MARK: usize = 40;
/// So much is handed on at a time.
const PIECE: usize = 1 << 20;

const RECEIVING: &str = "receive the snapshot";

/// How its end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// It has so many bytes.
    Length(u64),
    /// This follows it.
    Mark([u8; MARK]),
}

/// The bytes of the RDB that are still to come.
pub(super) struct Payload {
    connection: Connection,
    framing: Framing,
    /// What may be the beginning of the mark.
    held: Vec<u8>,
    ended: bool,
}

impl Payload {
    pub(super) fn new(connection: Connection, framing: Framing) -> Self {
        let ended = framing == Framing::Length(0);
        Self { connection, framing, held: Vec::new(), ended }
    }

    /// How many bytes are to come, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => Some(length),
            Framing::Mark(_) => None,
        }
    }

    /// The server, for people.
    pub(super) fn target(&self) -> &str {
        self.connection.target()
    }

    /// The connection, on which the stream of changes follows once all of it was taken.
    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    /// The next bytes, or `None` after the last.
    pub(super) async fn next(&mut self, budget: &ByteBudget) -> Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        let mut buffer = budget.buffer(PIECE).await;
        let data = buffer.data_mut();
        match &mut self.framing {
            Framing::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(PIECE).min(PIECE);
                while data.len() < most {
                    self.connection.receive(RECEIVING, data, most).await?;
                }
                *left -= data.len() as u64;
                self.ended = *left == 0;
            }
            Framing::Mark(mark) => {
                data.append(&mut self.held);
                while data.len() < PIECE && !self.ended {
                    self.connection.receive(RECEIVING, data, PIECE).await?;
                    // Nothing follows the mark before it is acknowledged, so it is at the end of
                    // what has come, once all of it has.
                    self.ended = data.ends_with(mark);
                }
                let whole = data.len() - MARK.min(data.len());
                if self.ended {
                    data.truncate(whole);
                } else {
                    self.held = data.split_off(whole);
                }
            }
        }
        let bytes = buffer.freeze();
        Ok((!bytes.is_empty()).then_some(bytes))
    }
}
