//! One connection: messages out, messages in.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::dial::Stream;
use super::error::{ReplicationError, Result};
use super::frame::{Fields, Flaw, Frame, answer, take_frame};

/// How much is asked of the socket at a time.
const READ: usize = 256 << 10;

/// How long the server may take to read what it is sent.
const SEND_LIMIT: Duration = Duration::from_secs(60);

/// How long the server may take for an answer that needs no work.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A connection that carries messages.
pub(super) struct Link {
    stream: Box<dyn Stream>,
    received: BytesMut,
    /// What the server says of itself (`server_version`, `in_hot_standby`).
    parameters: Vec<(String, String)>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("parameters", &self.parameters).finish_non_exhaustive()
    }
}

/// The parameters that are kept.
const KEPT: [&str; 2] = ["server_version", "in_hot_standby"];

impl Link {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, received: BytesMut::new(), parameters: Vec::new() }
    }

    /// The next message that is not about something else: notices are logged, parameters noted,
    /// and errors are errors. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self, what: &str) -> Result<Frame> {
        loop {
            let frame = self.next_or_notice(what).await?;
            if frame.tag != b'N' {
                return Ok(frame);
            }
            let flaw = |why: Flaw| ReplicationError::protocol(what, why);
            let notice = answer(frame.body).map_err(flaw)?;
            tracing::debug!(%notice, "the server says");
        }
    }

    /// As [`next`](Self::next), for who wants to hear notices, too.
    pub(super) async fn next_or_notice(&mut self, what: &str) -> Result<Frame> {
        loop {
            let frame = self.frame(what).await?;
            let flaw = |why: Flaw| ReplicationError::protocol(what, why);
            match frame.tag {
                b'E' => {
                    let answer = answer(frame.body).map_err(flaw)?;
                    let what = what.to_owned();
                    return Err(ReplicationError::Server { what, answer: Box::new(answer) });
                }
                b'S' => self.note(frame).map_err(flaw)?,
                // Notifications, which nobody has asked for.
                b'A' => {}
                _ => return Ok(frame),
            }
        }
    }

    /// As [`next`](Self::next), within a limit.
    pub(super) async fn next_within(&mut self, limit: Duration, what: &str) -> Result<Frame> {
        timeout(limit, self.next(what)).await.unwrap_or_else(|_| {
            Err(ReplicationError::Silent { what: what.to_owned(), seconds: limit.as_secs() })
        })
    }

    async fn frame(&mut self, what: &str) -> Result<Frame> {
        let lost = |source| ReplicationError::Lost { what: what.to_owned(), source };
        loop {
            let flaw = |why: Flaw| ReplicationError::protocol(what, why);
            if let Some(frame) = take_frame(&mut self.received).map_err(flaw)? {
                return Ok(frame);
            }
            self.received.reserve(READ);
            if self.stream.read_buf(&mut self.received).await.map_err(lost)? == 0 {
                return Err(lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn note(&mut self, frame: Frame) -> Result<(), Flaw> {
        let mut fields = Fields(frame.body);
        let (name, value) = (fields.text()?, fields.text()?);
        fields.end()?;
        if KEPT.contains(&name.as_str()) {
            self.parameters.retain(|(known, _)| *known != name);
            self.parameters.push((name, value));
        }
        Ok(())
    }

    /// What the server said of itself last.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Sends messages. A future that is dropped may leave half a message behind, so that nothing
    /// sensible can follow.
    pub(super) async fn send(&mut self, messages: &[u8], what: &str) -> Result<()> {
        let sending = async {
            self.stream.write_all(messages).await?;
            self.stream.flush().await
        };
        match timeout(SEND_LIMIT, sending).await {
            Ok(sent) => {
                sent.map_err(|source| ReplicationError::Lost { what: what.to_owned(), source })
            }
            Err(_) => Err(ReplicationError::Silent {
                what: what.to_owned(),
                seconds: SEND_LIMIT.as_secs(),
            }),
        }
    }
}
