//! What was received and is not durable yet, and what of it is to be sealed next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::error::ReceiveError;
use crate::lsn::Lsn;

/// When a piece of an unfinished run is sealed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Not later than this after its first byte came.
    pub(super) every: Duration,
    /// And as soon as it has so many bytes, unless the server has all of the run already.
    pub(super) bytes: u64,
}

/// Received WAL of one timeline, from the beginning of a run on.
///
/// A run is what is sealed as a whole: a segment, or 64 MiB of one that is larger, on the grid of
/// its length. Runs that are complete wait in a queue; of the one that is not, pieces are sealed.
/// One thing is sealed at a time, in the order of positions, so that all before `durable` is.
#[derive(Debug)]
pub(super) struct Gather {
    run: u64,
    pace: Pace,
    /// Complete runs, the first first.
    complete: VecDeque<Seal>,
    /// Where the incomplete one begins, and what there is of it.
    start: Lsn,
    current: BytesMut,
    durable: Lsn,
    /// When the first byte came that is not durable.
    since: Option<Instant>,
    /// When the last one was sent.
    sent: u64,
}

/// What is to be sealed: these bytes at this place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) from: Lsn,
    pub(super) bytes: Bytes,
    /// Whether it is a run from its beginning to its end.
    pub(super) whole: bool,
    /// When its end was sent, in microseconds since 2000.
    pub(super) sent: u64,
}

impl Seal {
    pub(super) fn to(&self) -> Lsn {
        Lsn(self.from.0 + self.bytes.len() as u64)
    }
}

impl Gather {
    /// Nothing received yet; what comes begins at `start`, the beginning of a run of `run` bytes.
    /// Up to `durable` it is known to be durable already.
    pub(super) fn new(start: Lsn, durable: Lsn, run: u64, pace: Pace) -> Self {
        Self {
            run,
            pace,
            complete: VecDeque::new(),
            start,
            current: BytesMut::new(),
            durable: durable.max(start),
            since: None,
            sent: 0,
        }
    }

    /// Up to where WAL was received.
    pub(super) fn received(&self) -> Lsn {
        Lsn(self.start.0 + self.current.len() as u64)
    }

    /// Up to where it is durable.
    pub(super) fn durable(&self) -> Lsn {
        self.durable
    }

    /// How many bytes are kept in memory.
    pub(super) fn held(&self) -> u64 {
        let complete: usize = self.complete.iter().map(|seal| seal.bytes.len()).sum();
        (complete + self.current.len()) as u64
    }

    /// Takes what the server sent at the time `sent`, in microseconds since 2000.
    ///
    /// # Errors
    /// When it does not follow what came before without a gap.
    pub(super) fn push(
        &mut self,
        from: Lsn,
        mut bytes: Bytes,
        sent: u64,
        now: Instant,
    ) -> Result<(), ReceiveError> {
        self.sent = sent;
        let expected = self.received();
        if from != expected {
            return Err(ReceiveError::NotContiguous { expected, found: from });
        }
        while !bytes.is_empty() {
            let room = self.run - self.current.len() as u64;
            let part = bytes.split_to(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            self.current.extend_from_slice(&part);
            if self.current.len() as u64 == self.run {
                let bytes = std::mem::take(&mut self.current).freeze();
                self.complete.push_back(Seal { from: self.start, bytes, whole: true, sent });
                self.start = Lsn(self.start.0 + self.run);
            }
        }
        if self.received() > self.durable {
            self.since.get_or_insert(now);
        }
        Ok(())
    }

    /// What is to be sealed now, with the server's WAL reaching to `server`; all that there is
    /// when `all` says so.
    pub(super) fn next(&self, now: Instant, server: Lsn, all: bool) -> Option<Seal> {
        if let Some(seal) = self.complete.front() {
            return Some(seal.clone());
        }
        let from = self.durable.max(self.start);
        let length = self.received().0.saturating_sub(from.0);
        if length == 0 {
            return None;
        }
        let due = self.due().is_some_and(|due| due <= now);
        // What comes anyway as a whole in a moment needs no pieces.
        let follows = server.0 >= self.start.0 + self.run;
        let enough = length >= self.pace.bytes && !follows;
        (all || due || enough).then(|| {
            let skip = (from.0 - self.start.0) as usize;
            let bytes = Bytes::copy_from_slice(&self.current[skip..]);
            Seal { from, bytes, whole: false, sent: self.sent }
        })
    }

    /// When the next piece is to be sealed at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + self.pace.every)
    }

    /// Takes note that something was sealed.
    pub(super) fn sealed(&mut self, seal: &Seal, now: Instant) {
        if seal.whole && self.complete.front().is_some_and(|first| first.from == seal.from) {
            self.complete.pop_front();
        }
        self.durable = self.durable.max(seal.to());
        // What came meanwhile has waited since some time in between; from now on is late enough
        // for a piece, since the next look comes when this one is durable.
        self.since = (self.received() > self.durable).then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn gather(start: u64, durable: u64) -> Gather {
        Gather::new(Lsn(start), Lsn(durable), 100, Pace { every: SECOND, bytes: 40 })
    }

    fn bytes(count: usize) -> Bytes {
        Bytes::from(vec![7; count])
    }

    fn place(seal: Option<Seal>) -> Option<(u64, u64, bool)> {
        seal.map(|seal| (seal.from.0, seal.to().0, seal.whole))
    }

    #[test]
    fn only_what_follows_is_taken() {
        let now = Instant::now();
        let mut all = gather(100, 100);
        for wrong in [0, 99, 101, u64::MAX] {
            assert!(all.push(Lsn(wrong), bytes(1), 9, now).is_err(), "{wrong}");
        }
        all.push(Lsn(100), bytes(5), 9, now).unwrap();
        assert!(all.push(Lsn(104), bytes(1), 9, now).is_err());
        all.push(Lsn(105), bytes(1), 9, now).unwrap();
    }

    #[test]
    fn a_piece_is_sealed_when_it_is_old_enough_or_long_enough() {
        let now = Instant::now();
        let mut all = gather(0, 0);
        all.push(Lsn(0), bytes(10), 9, now).unwrap();
        assert_eq!(place(all.next(now, Lsn(10), false)), None);
        assert_eq!(place(all.next(now, Lsn(10), true)), Some((0, 10, false)));
        assert_eq!(place(all.next(now + SECOND, Lsn(10), false)), Some((0, 10, false)));
        all.push(Lsn(10), bytes(30), 9, now).unwrap();
        assert_eq!(place(all.next(now, Lsn(40), false)), Some((0, 40, false)));
        // The rest is at the server: the whole run is sealed soon.
        assert_eq!(place(all.next(now, Lsn(100), false)), None);
        assert_eq!(place(all.next(now + SECOND, Lsn(100), false)), Some((0, 40, false)));
    }

    #[test]
    fn a_whole_run_supersedes_its_pieces() {
        let now = Instant::now();
        let mut all = gather(0, 0);
        all.push(Lsn(0), bytes(50), 9, now).unwrap();
        let piece = all.next(now, Lsn(50), false).unwrap();
        all.push(Lsn(50), bytes(60), 9, now).unwrap();
        all.sealed(&piece, now);
        assert_eq!(all.durable(), Lsn(50));
        let whole = all.next(now, Lsn(110), false).unwrap();
        assert_eq!((whole.from, whole.to(), whole.whole), (Lsn(0), Lsn(100), true));
        all.sealed(&whole, now);
        assert_eq!((all.durable(), all.held()), (Lsn(100), 10));
        assert_eq!(place(all.next(now + SECOND, Lsn(110), false)), Some((100, 110, false)));
    }

    #[test]
    fn what_is_durable_already_is_not_sealed_again_in_pieces() {
        let now = Instant::now();
        let mut all = gather(100, 150);
        all.push(Lsn(100), bytes(50), 9, now).unwrap();
        assert_eq!(place(all.next(now + SECOND, Lsn(150), true)), None);
        assert_eq!((all.durable(), all.due()), (Lsn(150), None));
        all.push(Lsn(150), bytes(5), 9, now).unwrap();
        assert_eq!(place(all.next(now + SECOND, Lsn(155), false)), Some((150, 155, false)));
    }

    proptest! {
        /// Whatever comes in whatever portions, and whenever it is sealed: all of it is sealed,
        /// without a gap, and what is said to be durable never exceeds what was.
        #[test]
        fn nothing_is_left_out(
            portions in proptest::collection::vec((1_usize..250, any::<bool>()), 1..40),
            durable in 0_u64..150,
        ) {
            let now = Instant::now();
            let stream: Vec<u8> = (0..20_000_u32).map(|at| (at % 251) as u8).collect();
            let mut all = gather(0, durable);
            let mut sealed = durable;
            let mut at = 0;
            let take = |all: &mut Gather, sealed: &mut u64| {
                let seal = all.next(now + SECOND, all.received(), true);
                let Some(seal) = seal else { return false };
                let (from, to) = (seal.from.0, seal.to().0);
                assert!(from <= *sealed, "{from} leaves a gap after {sealed}");
                assert_eq!(&seal.bytes[..], &stream[from as usize..to as usize]);
                assert!(!seal.whole || (from % 100 == 0 && to == from + 100));
                *sealed = to.max(*sealed);
                all.sealed(&seal, now);
                assert_eq!(all.durable().0, *sealed);
                true
            };
            for (length, seal) in portions {
                let portion = Bytes::copy_from_slice(&stream[at..at + length]);
                all.push(Lsn(at as u64), portion, 9, now).unwrap();
                at += length;
                if seal {
                    take(&mut all, &mut sealed);
                }
            }
            while take(&mut all, &mut sealed) {}
            prop_assert_eq!(sealed, durable.max(at as u64));
            prop_assert!(all.held() < 100);
        }
    }
}
