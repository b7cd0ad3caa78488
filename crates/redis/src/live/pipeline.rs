//! Commands that are sent ahead of their answers.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::parsing::Key;
use crate::connect::{Answer, Connection};
use crate::error::Result;

const RESTORING: &str = "restore";
/// Commands are sent together up to so many bytes.
const TOGETHER: usize = 128 << 10;
/// No more answers than this are waited for.
const MOST_ANSWERS: usize = 16 << 10;

/// What an answer is about.
pub(super) enum About {
    /// A key that is written, or looked for. It is held until it was answered, since a cluster may
    /// answer that it is to be sent elsewhere.
    Key(Sent),
    /// A library of functions, and whether it counts: it goes to each node of a cluster.
    Functions { counts: bool },
    /// That what follows may go to a slot that is still on its way.
    Asking,
}

/// A key that was sent.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) key: Arc<Key>,
    /// How often it was sent elsewhere before.
    pub(super) detours: u32,
    /// Since when the cluster says that it is to be sent again.
    pub(super) since: Option<Instant>,
}

/// A connection, and the commands that were not answered yet.
pub(super) struct Pipeline {
    connection: Connection,
    /// What is not sent yet.
    buffer: Vec<u8>,
    waiting: VecDeque<(About, usize)>,
    /// The bytes of all that is not answered.
    unanswered: usize,
    ahead: usize,
}

impl Pipeline {
    pub(super) fn new(connection: Connection, ahead: usize) -> Self {
        let (buffer, waiting) = (Vec::new(), VecDeque::new());
        Self { connection, buffer, waiting, unanswered: 0, ahead }
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Sends a command whose words are given in parts, and gives what was answered meanwhile.
    pub(super) async fn send(
        &mut self,
        about: About,
        words: &[&[&[u8]]],
        answers: &mut Vec<(About, Answer)>,
    ) -> Result<()> {
        let parts = words.iter().flat_map(|parts| parts.iter());
        let size = parts.map(|part| part.len()).sum::<usize>() + 16 * words.len();
        self.buffer.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for parts in words {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            self.buffer.extend_from_slice(format!("${length}\r\n").as_bytes());
            for part in *parts {
                if part.len() >= TOGETHER {
                    // A large one is not copied.
                    self.connection.send_raw(RESTORING, &self.buffer).await?;
                    self.buffer.clear();
                    self.connection.send_raw(RESTORING, part).await?;
                } else {
                    self.buffer.extend_from_slice(part);
                }
            }
            self.buffer.extend_from_slice(b"\r\n");
        }
        self.waiting.push_back((about, size));
        self.unanswered += size;
        if self.buffer.len() >= TOGETHER {
            self.flush().await?;
        }
        if self.unanswered > self.ahead || self.waiting.len() > MOST_ANSWERS {
            self.flush().await?;
            self.wait_for(self.ahead / 2, MOST_ANSWERS / 2, answers).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.connection.send_raw(RESTORING, &self.buffer).await?;
        self.buffer.clear();
        Ok(())
    }

    /// Reads answers until no more than so many bytes and commands are without.
    async fn wait_for(
        &mut self,
        bytes: usize,
        commands: usize,
        answers: &mut Vec<(About, Answer)>,
    ) -> Result<()> {
        while self.unanswered > bytes || self.waiting.len() > commands {
            let answer = self.connection.answer(RESTORING).await?;
            let Some((about, size)) = self.waiting.pop_front() else {
                break;
            };
            self.unanswered -= size;
            answers.push((about, answer));
        }
        Ok(())
    }

    /// Waits for all answers.
    pub(super) async fn finish(&mut self, answers: &mut Vec<(About, Answer)>) -> Result<()> {
        self.flush().await?;
        self.wait_for(0, 0, answers).await
    }
}
