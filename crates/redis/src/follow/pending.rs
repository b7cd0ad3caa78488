//! What was received and is not sealed yet.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lifeboat_core::journal::{Position, SegmentInfo, Span};
use lifeboat_core::{Context, Timestamp};
use tokio::time::Instant;

use crate::stream::{Marks, Walker};

/// Changes are sealed so long after they came, at the latest.
const CHANGES_WITHIN: Duration = Duration::from_secs(1);
/// What only keeps the connection alive, so long after.
const REST_WITHIN: Duration = Duration::from_secs(30);
/// Or as soon as there is so much.
const PIECE: usize = 1 << 20;
/// A command or a transaction that is larger than this is sealed before its end has come.
const LARGEST_HELD: usize = 8 << 20;
/// Nothing is received while so much waits.
const MOST: usize = 16 << 20;

/// What was received of a history and is not sealed yet.
pub(super) struct Pending {
    bytes: BytesMut,
    /// The place of the first of them.
    from: u64,
    /// Where the history was taken up.
    begun: u64,
    marks: Marks,
    /// Knows where commands end; none where that was lost sight of.
    walker: Option<Walker>,
    /// When the first of them came.
    since: Option<Instant>,
    /// The count of changes when the last piece was cut.
    changes: u64,
}

/// A piece to be sealed.
pub(super) struct Piece {
    pub(super) span: Span,
    pub(super) info: SegmentInfo,
    pub(super) bytes: Bytes,
}

/// Whether a place in a history is known to be the end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    AtBoundary,
    Anywhere,
}

impl Pending {
    pub(super) fn new(from: u64, begins: Begins) -> Self {
        let walker = (begins == Begins::AtBoundary).then(|| Walker::new(from));
        let (bytes, marks) = (BytesMut::new(), Marks::default());
        Self { bytes, from, begun: from, marks, walker, since: None, changes: 0 }
    }

    /// Where the history was taken up: what is before is durable.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// Takes a new history up where the old one was left.
    pub(super) fn begin_here(&mut self) {
        self.begun = self.from;
    }

    /// The place of the next byte to receive.
    pub(super) fn next(&self) -> u64 {
        self.from + self.bytes.len() as u64
    }

    /// How many bytes can be received now.
    pub(super) fn room(&self) -> usize {
        MOST.saturating_sub(self.bytes.len())
    }

    /// Where they are to be appended. Then [`Pending::received`] has to be called.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Notes that the last `count` bytes have just come.
    ///
    /// # Errors
    /// When they are no commands: the walker is lost then.
    pub(super) fn received(&mut self, count: usize) -> crate::Result<()> {
        self.since.get_or_insert_with(Instant::now);
        self.marks.note(self.next(), Timestamp::now());
        let new = &self.bytes[self.bytes.len() - count..];
        match self.walker.as_mut().map(|walker| walker.feed(new)) {
            Some(Err(error)) => {
                self.walker = None;
                Err(error)
            }
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// How many of the bytes make whole commands, or may not wait for more.
    fn ready(&self) -> usize {
        let whole = match &self.walker {
            Some(walker) => usize::try_from(walker.boundary().saturating_sub(self.from)),
            None => Ok(self.bytes.len()),
        };
        match whole.unwrap_or(0) {
            0 if self.bytes.len() >= LARGEST_HELD => self.bytes.len(),
            whole => whole,
        }
    }

    /// When the next piece is due; none while nothing is ready.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.since?;
        match self.ready() {
            0 => None,
            PIECE.. => Some(since),
            _ => {
                let changes = self.walker.as_ref().is_none_or(|it| it.changes() > self.changes);
                Some(since + if changes { CHANGES_WITHIN } else { REST_WITHIN })
            }
        }
    }

    /// Cuts a piece of what is ready; none when nothing is.
    pub(super) fn cut(&mut self) -> Option<Piece> {
        self.cut_at(self.ready())
    }

    /// Cuts a piece of all there is.
    pub(super) fn cut_all(&mut self) -> Option<Piece> {
        self.cut_at(self.bytes.len())
    }

    fn cut_at(&mut self, count: usize) -> Option<Piece> {
        let (from, to) = (self.from, self.from + count as u64);
        let span = Span::checked(Position(from), Position(to))?;
        let mut marks = self.marks.split_to(to);
        let boundary = self.walker.as_ref().map(Walker::boundary);
        marks.boundary = boundary.filter(|at| *at > from && *at <= to);
        self.from = to;
        // What is left came later than the first byte, but when is only known of all of it.
        self.since = (self.bytes.len() > count).then(Instant::now);
        self.changes = self.walker.as_ref().map_or(0, Walker::changes);
        let bytes = self.bytes.split_to(count).freeze();
        Some(Piece { span, info: marks.to_info(span), bytes })
    }
}

/// Says so once when the stream makes no sense.
pub(super) fn warn_of_nonsense(error: &crate::Error, context: &Context) {
    use lifeboat_core::Failure;
    let hint = error.hint().unwrap_or_default();
    context.warn("the stream of changes", format!("{error}; {hint}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(pending: &mut Pending, bytes: &[u8]) {
        pending.buffer().extend_from_slice(bytes);
        pending.received(bytes.len()).unwrap();
    }

    #[test]
    fn pieces_end_with_commands() {
        let mut pending = Pending::new(100, Begins::AtBoundary);
        receive(&mut pending, b"*1\r\n$4\r\nPING\r\n*1\r\n");
        let idle = pending.due().unwrap();
        let piece = pending.cut().unwrap();
        assert_eq!((piece.span.from().0, piece.span.to().0), (100, 114));
        assert_eq!(&piece.bytes[..], b"*1\r\n$4\r\nPING\r\n");
        let marks = Marks::of(piece.span, &piece.info).unwrap();
        assert_eq!(marks.boundary, Some(114));
        assert!(pending.due().is_none() && pending.cut().is_none());
        receive(&mut pending, b"$7\r\nFLUSHDB\r\n*1");
        // A change is urgent, what keeps a connection alive is not.
        assert!(pending.due().unwrap() < idle);
        assert_eq!(pending.cut().unwrap().bytes.len(), 17);
        // Whatever is there, when a history ends.
        let rest = pending.cut_all().unwrap();
        assert_eq!((&rest.bytes[..], pending.next()), (&b"*1"[..], 133));
        assert_eq!(Marks::of(rest.span, &rest.info).unwrap().boundary, None);
    }

    #[test]
    fn a_command_that_is_too_large_is_not_waited_for() {
        let mut pending = Pending::new(0, Begins::AtBoundary);
        receive(&mut pending, b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000000\r\n");
        for _ in 0..7 {
            receive(&mut pending, &vec![b'x'; 1 << 20]);
            assert!(pending.cut().is_none());
        }
        receive(&mut pending, &vec![b'x'; 1 << 20]);
        let piece = pending.cut().unwrap();
        assert!(piece.bytes.len() > 8 << 20);
        assert_eq!(Marks::of(piece.span, &piece.info).unwrap().boundary, None);
    }

    #[test]
    fn without_knowing_where_commands_end_all_is_sealed() {
        let mut pending = Pending::new(7, Begins::Anywhere);
        receive(&mut pending, b"middle of a value");
        assert!(pending.due().is_some());
        assert_eq!(pending.cut().unwrap().bytes.len(), 17);
    }
}
