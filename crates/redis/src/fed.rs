//! Buffers that come over a channel, for a thread that reads them as one stream.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Reads what is sent, and ends when nobody sends any more. Blocks.
pub(crate) struct Fed {
    fed: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Fed {
    pub(crate) fn new(fed: mpsc::Receiver<Bytes>) -> Self {
        Self { fed, current: Bytes::new() }
    }
}

impl Read for Fed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.fed.blocking_recv() {
                Some(bytes) => self.current = bytes,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
