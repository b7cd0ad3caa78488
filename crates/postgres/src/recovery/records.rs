//! WAL as records: which transactions ended in it and when, and which points were named.
//!
//! Only what a recovery target can mean is understood: ends of transactions, and restore points.
//! All other records are passed over by their length. The layouts are those of PostgreSQL's
//! `access/xlogrecord.h`, `xlog_internal.h` and `xact.h`, the same in 14 to 18 but for one size.

use lifeboat_core::Timestamp;

use crate::crc::crc32c;
use crate::lsn::{Lsn, SegmentSize};
use crate::wal::PAGE;

/// The head of a record.
pub(super) const HEAD: usize = 24;
/// The server makes no longer one (`XLogRecordMaxSize`).
const MAX_RECORD: u32 = 1020 << 20;
/// A longer one is no end of a transaction that anybody makes: two million subtransactions.
const MAX_KEPT: u32 = 16 << 20;

/// Resource managers.
const XLOG: u8 = 0;
const TRANSACTION: u8 = 1;
/// Between the server's own and those of extensions there are none.
const NO_MANAGER: std::ops::Range<u8> = 32..128;
/// What a record of `XLOG` is.
const SWITCH: u8 = 0x40;
const RESTORE_POINT: u8 = 0x70;

/// What a record says that recovery can stop at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A transaction was committed, or aborted.
    Ended { xid: u32, time: Timestamp },
    /// `pg_create_restore_point` gave the place a name.
    Named { name: String, time: Timestamp },
    /// It is the first record at a position that is looked for, or after it.
    Reached,
}

/// A record that recovery can stop at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Where the record begins.
    pub(crate) at: Lsn,
    /// Where it ends.
    pub(crate) end: Lsn,
    pub(crate) what: What,
}

/// Reads WAL, in order and from the beginning of a page on.
#[derive(Debug)]
pub(crate) struct Records {
    magic: u16,
    size: SegmentSize,
    /// The position of the next byte.
    next: Lsn,
    /// A page that is not complete.
    page: Vec<u8>,
    state: State,
    /// Where the record before began, when the next one must name it.
    before: Option<Lsn>,
    last: Option<Lsn>,
    sought: Option<Lsn>,
}

#[derive(Debug)]
enum State {
    /// The record in which the first page begins is not known.
    Lost,
    /// The records end here; they may go on in the next segment.
    Ended,
    /// Between records.
    Between,
    /// In a record of which this much is there.
    In { at: Lsn, bytes: Vec<u8>, length: Option<u32>, seen: u32 },
}

impl Records {
    /// From `from` on, which is where a page begins, in WAL whose pages have this magic.
    pub(crate) fn new(magic: u16, size: SegmentSize, from: Lsn) -> Self {
        let page = Vec::with_capacity(PAGE);
        Self {
            magic,
            size,
            next: from,
            page,
            state: State::Lost,
            before: None,
            last: None,
            sought: None,
        }
    }

    /// Also tells the first record that begins at `lsn` or after it.
    pub(crate) fn seeking(mut self, lsn: Option<Lsn>) -> Self {
        self.sought = lsn;
        self
    }

    /// Where the last record began that was seen whole.
    pub(crate) fn last(&self) -> Option<Lsn> {
        self.last
    }

    /// Reads on.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) {
        while !bytes.is_empty() {
            let taken = bytes.len().min(PAGE - self.page.len());
            self.page.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.page.len() == PAGE {
                let page = std::mem::take(&mut self.page);
                self.page(&page, events);
                self.next = Lsn(self.next.0 + PAGE as u64);
                self.page = page;
                self.page.clear();
            }
        }
    }

    /// Reads zeros.
    pub(crate) fn feed_zeros(&mut self, mut count: u64, events: &mut Vec<Event>) {
        let zeros = [0; PAGE];
        while count > 0 {
            let part = count.min(PAGE as u64);
            self.feed(&zeros[..part as usize], events);
            count -= part;
        }
    }

    fn page(&mut self, page: &[u8], events: &mut Vec<Event>) {
        let first = self.next.0.is_multiple_of(self.size.bytes());
        if first && matches!(self.state, State::Ended) {
            self.state = State::Lost;
        }
        if matches!(self.state, State::Ended) {
            return;
        }
        let u16_at = |at: usize| u16::from_ne_bytes([page[at], page[at + 1]]);
        let u32_at = |at: usize| u32::from_ne_bytes(std::array::from_fn(|byte| page[at + byte]));
        let u64_at = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| page[at + byte]));
        if u16_at(0) != self.magic || u64_at(8) != self.next.0 {
            self.state = State::Ended;
            return;
        }
        let (flags, rest) = (u16_at(2), u32_at(16));
        let mut at = if flags & 2 == 0 { 24 } else { 40 };
        if let State::Lost = self.state {
            // The rest of a record that began before.
            let rest = usize::try_from(rest).unwrap_or(PAGE);
            if rest > PAGE - at {
                return;
            }
            at = (at + rest).next_multiple_of(8);
            self.state = State::Between;
            self.before = None;
        } else if let State::In { length: Some(length), seen, .. } = &self.state
            && length - seen != rest
        {
            // The server gave a record up and went on after it, as it does after a crash.
            at = (at + usize::try_from(rest).unwrap_or(PAGE)).next_multiple_of(8);
            self.state = State::Between;
            self.before = None;
        } else if matches!(self.state, State::Between) && rest > 0 {
            self.state = State::Ended;
            return;
        }
        self.records(page, at, events);
    }

    /// The records of a page, from `at` on.
    fn records(&mut self, page: &[u8], mut at: usize, events: &mut Vec<Event>) {
        while at < PAGE {
            if let State::Between = self.state {
                self.state = State::In {
                    at: Lsn(self.next.0 + at as u64),
                    bytes: Vec::new(),
                    length: None,
                    seen: 0,
                };
            }
            let State::In { bytes, length, seen, .. } = &mut self.state else {
                return;
            };
            // Records begin at multiples of 8, so that their lengths are on one page.
            let length = match *length {
                Some(length) => length,
                None => {
                    let found = page[at..].first_chunk::<4>().map(|four| u32::from_ne_bytes(*four));
                    let found = found.filter(|found| (HEAD as u32..=MAX_RECORD).contains(found));
                    let Some(found) = found else {
                        self.state = State::Ended;
                        return;
                    };
                    *length = Some(found);
                    found
                }
            };
            let take = ((length - *seen) as usize).min(PAGE - at);
            let part = &page[at..at + take];
            let (head, rest) = part.split_at(HEAD.saturating_sub(bytes.len()).min(take));
            bytes.extend_from_slice(head);
            // Of those that are passed over, the head is enough.
            if !rest.is_empty() && is_read(bytes[17], bytes[16]) && length <= MAX_KEPT {
                bytes.extend_from_slice(rest);
            }
            *seen += take as u32;
            at += take;
            if *seen < length {
                return;
            }
            let end = Lsn(self.next.0 + at as u64);
            at = at.next_multiple_of(8);
            if !self.finish(end, events) {
                return;
            }
        }
    }

    /// Takes the record that is whole now; `false` when none follows it.
    fn finish(&mut self, end: Lsn, events: &mut Vec<Event>) -> bool {
        let State::In { at, bytes, .. } = std::mem::replace(&mut self.state, State::Ended) else {
            return false;
        };
        let Some(head) = bytes.first_chunk::<HEAD>() else {
            return false;
        };
        let u32_at = |at: usize| u32::from_ne_bytes(std::array::from_fn(|byte| head[at + byte]));
        let before = u64::from_ne_bytes(std::array::from_fn(|byte| head[8 + byte]));
        let (info, manager) = (head[16], head[17]);
        // What is left of an older use of the file names another one before it.
        if self.before.is_some_and(|known| known.0 != before) || NO_MANAGER.contains(&manager) {
            return false;
        }
        if is_read(manager, info) && bytes.len() as u32 == u32_at(0) {
            if crc32c(&[&bytes[HEAD..], &bytes[..20]].concat()) != u32_at(20) {
                return false;
            }
            events.extend(what(self.magic, &bytes).map(|what| Event { at, end, what }));
        }
        if self.sought.take_if(|sought| *sought <= at).is_some() {
            events.push(Event { at, end, what: What::Reached });
        }
        (self.before, self.last) = (Some(at), Some(at));
        if manager == XLOG && info & 0xF0 == SWITCH {
            return false;
        }
        self.state = State::Between;
        true
    }
}

fn is_read(manager: u8, info: u8) -> bool {
    match manager {
        XLOG => info & 0xF0 == RESTORE_POINT,
        // Commit, abort, and both of what was prepared.
        TRANSACTION => matches!(info & 0x70, 0x00 | 0x20 | 0x30 | 0x40),
        _ => false,
    }
}

fn what(magic: u16, record: &[u8]) -> Option<What> {
    let (xid, info, manager) = (u32_in(record, 4)?, record[16], record[17]);
    let data = main_data(record)?;
    if manager == XLOG {
        let name = data.get(8..72)?;
        let end = name.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8_lossy(&name[..end]).into_owned();
        Some(What::Named { name, time: time_in(data)? })
    } else {
        let prepared = matches!(info & 0x70, 0x30 | 0x40);
        let xid = if prepared { prepared_xid(magic, info, data)? } else { xid };
        Some(What::Ended { xid, time: time_in(data)? })
    }
}

/// The part of a record that is its manager's own. It comes last, after the heads of all parts.
fn main_data(record: &[u8]) -> Option<&[u8]> {
    let mut at = HEAD;
    loop {
        match record.get(at)? {
            // The origin of what was replicated; the transaction to which a subtransaction belongs.
            253 => at += 3,
            252 => at += 5,
            255 => {
                let length = usize::from(*record.get(at + 1)?);
                return record
                    .get(record.len().checked_sub(length)?..)
                    .filter(|_| at + 2 + length <= record.len());
            }
            254 => {
                let length = usize::try_from(u32_in(record, at + 1)?).ok()?;
                let from = record.len().checked_sub(length)?;
                return (at + 5 <= from).then(|| &record[from..]);
            }
            // None of these has blocks.
            _ => return None,
        }
    }
}

/// The transaction that was prepared before; the record itself belongs to another one.
fn prepared_xid(magic: u16, info: u8, data: &[u8]) -> Option<u32> {
    if info & 0x80 == 0 {
        return None;
    }
    let flags = u32_in(data, 8)?;
    let mut at = 12_usize;
    if flags & 1 != 0 {
        at += 8;
    }
    // From PostgreSQL 18 on, the objects of statistics have identifiers of 64 bits.
    let statistic = if magic >= crate::wal::magic(18) { 16 } else { 12 };
    for (flag, item) in [(1 << 1, 4), (1 << 2, 12), (1 << 8, statistic), (1 << 3, 16)] {
        if flags & flag != 0 {
            let count = usize::try_from(u32_in(data, at)?).ok()?;
            at = at.checked_add(4)?.checked_add(count.checked_mul(item)?)?;
        }
    }
    (flags & (1 << 4) != 0).then(|| u32_in(data, at))?
}

/// Sets the checksums of the records that lie on this page as a whole, as far as it can be followed.
#[cfg(feature = "fuzzing")]
pub(super) fn sealed(page: &mut [u8]) {
    let long = u16::from_ne_bytes([page[2], page[3]]) & 2 != 0;
    let rest = u32_in(page, 16).and_then(|rest| usize::try_from(rest).ok()).unwrap_or_default();
    let mut at = (if long { 40_usize } else { 24 } + rest).next_multiple_of(8);
    while let Some(length) = u32_in(page, at).and_then(|length| usize::try_from(length).ok()) {
        let Some(record) = page.get_mut(at..at.saturating_add(length)) else { return };
        if length < HEAD {
            return;
        }
        let crc = crc32c(&[&record[HEAD..], &record[..20]].concat());
        record[20..24].copy_from_slice(&crc.to_ne_bytes());
        at = (at + length).next_multiple_of(8);
    }
}

fn u32_in(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|four| u32::from_ne_bytes(*four))
}

/// The server counts microseconds from the beginning of the year 2000.
fn time_in(data: &[u8]) -> Option<Timestamp> {
    const EPOCH: i64 = 946_684_800_000_000;
    let micros = i64::from_ne_bytes(*data.first_chunk::<8>()?);
    Timestamp::from_microsecond(micros.checked_add(EPOCH)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    /// Writes WAL as the server does.
    struct Writer {
        bytes: Vec<u8>,
        start: u64,
        before: u64,
    }

    impl Writer {
        fn new(start: u64) -> Self {
            Self { bytes: Vec::new(), start, before: 0 }
        }

        fn head(&mut self, rest: usize) {
            let address = self.start + self.bytes.len() as u64;
            let long = address.is_multiple_of(SIZE);
            let mut head = vec![0; if long { 40 } else { 24 }];
            head[0..2].copy_from_slice(&crate::wal::magic(17).to_ne_bytes());
            head[2..4].copy_from_slice(&(u16::from(long) * 2).to_ne_bytes());
            head[8..16].copy_from_slice(&address.to_ne_bytes());
            head[16..20].copy_from_slice(&(rest as u32).to_ne_bytes());
            self.bytes.extend_from_slice(&head);
        }

        fn raw(&mut self, mut bytes: &[u8]) {
            while !bytes.is_empty() {
                let room = PAGE - self.bytes.len() % PAGE;
                let take = room.min(bytes.len());
                self.bytes.extend_from_slice(&bytes[..take]);
                bytes = &bytes[take..];
                if !bytes.is_empty() {
                    self.head(bytes.len());
                }
            }
        }

        fn record(&mut self, xid: u32, manager: u8, info: u8, data: &[u8]) -> Lsn {
            if self.bytes.len().is_multiple_of(PAGE) {
                self.head(0);
            }
            let at = self.start + self.bytes.len() as u64;
            let mut record = vec![0; HEAD];
            record[4..8].copy_from_slice(&xid.to_ne_bytes());
            record[8..16].copy_from_slice(&self.before.to_ne_bytes());
            (record[16], record[17]) = (info, manager);
            if data.len() < 256 {
                record.extend_from_slice(&[255, data.len() as u8]);
            } else {
                record.push(254);
                record.extend_from_slice(&(data.len() as u32).to_ne_bytes());
            }
            record.extend_from_slice(data);
            let length = record.len() as u32;
            record[0..4].copy_from_slice(&length.to_ne_bytes());
            let crc = crc32c(&[&record[HEAD..], &record[..20]].concat());
            record[20..24].copy_from_slice(&crc.to_ne_bytes());
            self.raw(&record);
            self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
            self.before = at;
            Lsn(at)
        }

        fn fill(&mut self) {
            let length = self.bytes.len().next_multiple_of(SIZE as usize);
            self.bytes.resize(length, 0);
        }
    }

    fn read(bytes: &[u8], from: u64, step: usize) -> (Vec<Event>, Option<Lsn>) {
        let size = SegmentSize::new(SIZE as u32).unwrap();
        let mut records = Records::new(crate::wal::magic(17), size, Lsn(from));
        let mut events = Vec::new();
        for part in bytes.chunks(step) {
            records.feed(part, &mut events);
        }
        (events, records.last())
    }

    fn ended(xid: u32, micros: i64) -> What {
        let time = Timestamp::from_microsecond(946_684_800_000_000 + micros).unwrap();
        What::Ended { xid, time }
    }

    #[test]
    fn ends_and_names_are_found_among_the_others() {
        let mut wal = Writer::new(3 * SIZE);
        wal.record(7, 10, 0, &[9; 40_000]);
        let first = wal.record(7, TRANSACTION, 0x00, &5_i64.to_ne_bytes());
        let mut point = 6_i64.to_ne_bytes().to_vec();
        point.extend_from_slice(b"before the migration");
        point.resize(72, 0);
        let named = wal.record(0, XLOG, RESTORE_POINT, &point);
        wal.record(0, XLOG, SWITCH, &[]);
        wal.fill();
        let later = wal.record(8, TRANSACTION, 0x20, &9_i64.to_ne_bytes());
        // Commit of what was prepared, with subtransactions and statistics before its number.
        let mut data = 11_i64.to_ne_bytes().to_vec();
        data.extend_from_slice(&(1_u32 | 2 | 1 << 8 | 1 << 4).to_ne_bytes());
        data.extend_from_slice(&[0; 8]);
        data.extend_from_slice(&2_u32.to_ne_bytes());
        data.extend_from_slice(&[1; 8]);
        data.extend_from_slice(&1_u32.to_ne_bytes());
        data.extend_from_slice(&[2; 12]);
        data.extend_from_slice(&99_u32.to_ne_bytes());
        let prepared = wal.record(12, TRANSACTION, 0x30 | 0x80, &data);
        let last = wal.record(12, 10, 0, &[1; 9]);
        wal.fill();
        for step in [1, 13, PAGE, 1 << 20] {
            let (events, end) = read(&wal.bytes, 3 * SIZE, step);
            let time = Timestamp::from_microsecond(946_684_800_000_006).unwrap();
            let name = "before the migration".to_owned();
            let expected = [
                (first, ended(7, 5)),
                (named, What::Named { name, time }),
                (later, ended(8, 9)),
                (prepared, ended(99, 11)),
            ];
            let found: Vec<_> = events.into_iter().map(|event| (event.at, event.what)).collect();
            assert_eq!(found, expected);
            assert_eq!(end, Some(last));
        }
        // From the middle of a record on.
        let (events, _) = read(&wal.bytes[2 * PAGE..], 3 * SIZE + 2 * PAGE as u64, PAGE);
        assert_eq!(events.len(), 4);
    }

    #[test]
    fn what_is_left_of_an_older_use_ends_the_records() {
        let mut wal = Writer::new(SIZE);
        wal.record(7, TRANSACTION, 0x00, &5_i64.to_ne_bytes());
        let good = wal.bytes.len();
        wal.before = 0x77;
        wal.record(8, TRANSACTION, 0x00, &6_i64.to_ne_bytes());
        wal.fill();
        assert_eq!(read(&wal.bytes, SIZE, PAGE).0.len(), 1);
        // A flipped bit.
        let mut wal = Writer::new(SIZE);
        wal.record(7, TRANSACTION, 0x00, &5_i64.to_ne_bytes());
        assert_eq!(wal.bytes.len(), good);
        wal.bytes[good - 8] ^= 1;
        wal.fill();
        assert!(read(&wal.bytes, SIZE, PAGE).0.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes: Vec<u8>, at in 0_usize..64) {
            let mut page = Writer::new(SIZE);
            page.record(7, 10, 0, &bytes);
            page.raw(&bytes);
            page.fill();
            if let Some(byte) = page.bytes.get_mut(at) {
                *byte ^= 0x55;
            }
            read(&page.bytes, SIZE, 100);
        }
    }
}
