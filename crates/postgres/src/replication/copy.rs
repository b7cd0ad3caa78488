//! What goes to and fro while WAL streams.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{ReplicationError, Result};
use super::frame::{Fields, Flaw, Frame};
use super::link::Link;
use super::startup::unexpected;
use crate::lsn::Lsn;

pub(super) const WHAT: &str = "receive WAL";

/// The server counts time from the beginning of 2000.
const EPOCH: u64 = 946_684_800;

/// What the server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Received {
    /// WAL.
    Wal {
        /// The position of its first byte.
        from: Lsn,
        /// Up to where the server has some.
        end: Lsn,
        /// When it was sent, by the server's clock, in microseconds since 2000.
        at: u64,
        bytes: Bytes,
    },
    /// A sign of life.
    Alive {
        /// Up to where the server has sent some.
        end: Lsn,
        /// Whether it wants to hear of us at once.
        answer: bool,
    },
    /// The timeline has no more.
    TimelineEnds,
    /// The server ends the connection, since it shuts down.
    Goodbye,
}

/// How far we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    /// Received up to here.
    pub(crate) written: Lsn,
    /// Durable up to here: what the server may forget, and what a commit waits for.
    pub(crate) flushed: Lsn,
    /// Whether the server shall answer.
    pub(crate) answer: bool,
}

impl Status {
    /// The message that tells it. What was applied is nothing: who waits for that waits for a
    /// server, which we are not.
    pub(super) fn message(&self) -> BytesMut {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = since.as_micros() as u64;
        let mut message = BytesMut::with_capacity(39);
        message.put_u8(b'd');
        message.put_u32(4 + 34);
        message.put_u8(b'r');
        message.put_u64(self.written.0);
        message.put_u64(self.flushed.0);
        message.put_u64(0);
        message.put_u64(micros.saturating_sub(EPOCH * 1_000_000));
        message.put_u8(u8::from(self.answer));
        message
    }
}

pub(super) async fn receive(link: &mut Link) -> Result<Received> {
    let frame = link.next(WHAT).await?;
    read(frame)
}

pub(super) fn read(frame: Frame) -> Result<Received> {
    match frame.tag {
        b'd' => payload(frame.body).map_err(|why| ReplicationError::protocol(WHAT, why)),
        b'c' => Ok(Received::TimelineEnds),
        b'C' => Ok(Received::Goodbye),
        tag => Err(unexpected(WHAT, tag)),
    }
}

fn payload(body: Bytes) -> Result<Received, Flaw> {
    let mut fields = Fields(body);
    match fields.byte()? {
        b'w' => {
            let (from, end, at) = (fields.uint64()?, fields.uint64()?, fields.uint64()?);
            let bytes = fields.0;
            if from.checked_add(bytes.len() as u64).is_none() {
                return Err("WAL beyond the last position that there is".into());
            }
            Ok(Received::Wal { from: Lsn(from), end: Lsn(end), at, bytes })
        }
        b'k' => {
            let (end, _sent, answer) = (fields.uint64()?, fields.uint64()?, fields.byte()?);
            fields.end()?;
            Ok(Received::Alive { end: Lsn(end), answer: answer != 0 })
        }
        tag => Err(format!("data with the tag {tag} in a stream of WAL")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(tag: u8, body: &[u8]) -> Frame {
        Frame { tag, body: Bytes::copy_from_slice(body) }
    }

    #[test]
    fn wal_comes_with_its_place() {
        let mut body = vec![b'w'];
        for number in [0x10_u64, 0x20, 7] {
            body.extend(number.to_be_bytes());
        }
        body.extend(b"abc");
        let bytes = Bytes::from_static(b"abc");
        let expected = Received::Wal { from: Lsn(0x10), end: Lsn(0x20), at: 7, bytes };
        assert_eq!(read(frame(b'd', &body)).unwrap(), expected);
        assert!(read(frame(b'd', &body[..24])).is_err());
        body[1..9].fill(0xff);
        assert!(read(frame(b'd', &body)).is_err());
    }

    #[test]
    fn what_does_not_belong_is_refused() {
        assert_eq!(read(frame(b'c', b"")).unwrap(), Received::TimelineEnds);
        for (tag, body) in [(b'D', &b"\0\0"[..]), (b'd', b""), (b'd', b"x"), (b'd', b"k123")] {
            assert!(read(frame(tag, body)).is_err(), "{tag} {body:?}");
        }
    }

    #[test]
    fn a_status_is_as_long_as_it_says() {
        let status = Status { written: Lsn(2), flushed: Lsn(1), answer: true }.message();
        assert_eq!(status.len(), 39);
        assert_eq!(status[..6], [b'd', 0, 0, 0, 38, b'r']);
        assert_eq!((status[13], status[21], status[29], status[38]), (2, 1, 0, 1));
    }

    proptest! {
        #[test]
        fn anything_can_come(tag: u8, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Received::Wal { bytes, .. }) = read(frame(tag, &body)) {
                prop_assert!(bytes.len() + 25 == body.len());
            }
        }
    }
}
