//! Whether the WAL that came with a base backup is the WAL that the backup needs.
//!
//! The manifest does not cover WAL, so its own marks do. Every page says which one it is; the pages
//! are looked at as they come, when it is not known yet where the backup ends, so what is remembered
//! of a segment is where its pages cease to be right (a segment that is used again holds old pages
//! there). And the checkpoint record with which the backup begins is read and held against its own
//! checksum: recovery would begin with it, too. It also says which transactions had not begun then.

use std::collections::BTreeMap;

use crate::crc::Crc32c;
use crate::lsn::{Lsn, SegmentSize};
use crate::wal::{Expected, PAGE};

/// The headers of WAL pages: of every page, and of the first of a segment.
const SHORT_HEADER: u64 = 24;
const LONG_HEADER: u64 = 40;

/// What of the WAL is kept to find the record in: it has about 120 bytes, and may be cut by the
/// header of a page.
const KEPT: usize = 512;

/// The header of a record, and where its checksum is: the last four bytes.
const RECORD_HEADER: usize = 24;
const RECORD_CRC: usize = 20;

/// Looks at the WAL of a backup.
#[derive(Debug)]
pub(super) struct Proof {
    size: SegmentSize,
    /// Where the checkpoint record begins.
    checkpoint: Lsn,
    kept: Vec<u8>,
    /// For each segment, the first page that is not what it should be, and why.
    segments: BTreeMap<u64, Option<(Lsn, String)>>,
}

/// What the checkpoint says with which a backup begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CheckpointRecord {
    /// Where recovery begins.
    pub(super) redo: Lsn,
    pub(super) timeline: u32,
    /// The first transaction that had not begun, with its epoch.
    pub(super) next_transaction: u64,
}

/// What is wrong with the WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unproved {
    /// A segment did not come.
    Missing(u64),
    /// A segment is not what its name says.
    Damaged(u64, String),
    /// The checkpoint is not where `backup_label` says.
    Checkpoint(String),
}

impl Proof {
    pub(super) fn new(size: SegmentSize, checkpoint: Lsn) -> Self {
        Self { size, checkpoint, kept: Vec::new(), segments: BTreeMap::new() }
    }

    /// Looks at a piece of a segment, from `offset` on, which is a multiple of the page size. The
    /// pieces of a segment come one after the other, and segments in ascending order.
    pub(super) fn look_at(&mut self, expected: &Expected, offset: u64, bytes: &[u8]) {
        let start = Lsn(self.size.start_of(expected.segment).0 + offset);
        let found = self.segments.entry(expected.segment).or_default();
        if found.is_none() {
            for (page, at) in bytes.chunks(PAGE).zip((0..).map(|page| page * PAGE as u64)) {
                if let Err(why) = expected.check(offset + at, page) {
                    *found = Some((Lsn(start.0 + at), why));
                    break;
                }
            }
        }
        let next = self.checkpoint.0 + self.kept.len() as u64;
        if let Some(skipped) = next.checked_sub(start.0)
            && let Some(rest) = usize::try_from(skipped).ok().and_then(|at| bytes.get(at..))
        {
            let wanted = KEPT - self.kept.len();
            self.kept.extend_from_slice(&rest[..wanted.min(rest.len())]);
        }
    }

    /// Whether all WAL from `start` to `stop` came, and the checkpoint in it; and what that says.
    pub(super) fn finish(&self, start: Lsn, stop: Lsn) -> Result<CheckpointRecord, Unproved> {
        for segment in self.size.holding(start)..=self.size.ending_at(stop) {
            match self.segments.get(&segment) {
                None => return Err(Unproved::Missing(segment)),
                Some(Some((at, why))) if *at < stop => {
                    return Err(Unproved::Damaged(segment, why.clone()));
                }
                Some(_) => {}
            }
        }
        let record = self.checkpoint_record().map_err(Unproved::Checkpoint)?;
        if record.redo != start {
            let why = format!("it begins recovery at {}, the backup at {start}", record.redo);
            return Err(Unproved::Checkpoint(why));
        }
        Ok(record)
    }

    /// The bytes from the checkpoint on, without the headers of pages between.
    fn record_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.kept.len());
        let mut skip = 0;
        for (byte, at) in self.kept.iter().zip(self.checkpoint.0..) {
            if at.is_multiple_of(PAGE as u64) {
                let first = at.is_multiple_of(self.size.bytes());
                skip = if first { LONG_HEADER } else { SHORT_HEADER };
            }
            if skip > 0 {
                skip -= 1;
            } else {
                bytes.push(*byte);
            }
        }
        bytes
    }

    fn checkpoint_record(&self) -> Result<CheckpointRecord, String> {
        let bytes = self.record_bytes();
        let u32_at = |at: usize| {
            let field = bytes.get(at..at + 4).and_then(|field| <[u8; 4]>::try_from(field).ok());
            field.map(u32::from_ne_bytes).ok_or("it is cut short")
        };
        let u64_at = |at: usize| {
            let field = bytes.get(at..at + 8).and_then(|field| <[u8; 8]>::try_from(field).ok());
            field.map(u64::from_ne_bytes).ok_or("it is cut short")
        };
        let length = u32_at(0)? as usize;
        let record = bytes.get(..length).filter(|record| record.len() > RECORD_HEADER + 2);
        let record = record.ok_or_else(|| format!("a record there claims {length} bytes"))?;
        let mut crc = Crc32c::new();
        crc.update(&record[RECORD_HEADER..]);
        crc.update(&record[..RECORD_CRC]);
        if crc.value() != u32_at(RECORD_CRC)? {
            return Err("the record there has a wrong checksum".into());
        }
        // The resource manager of the WAL itself; a checkpoint of a server that goes on, or of one
        // that was shut down.
        let (kind, manager) = (record[16] & 0xF0, record[17]);
        if manager != 0 || !matches!(kind, 0x00 | 0x10) {
            return Err("the record there is no checkpoint".into());
        }
        // One short block of data: its mark, its length, and then the checkpoint.
        let data = RECORD_HEADER + 2;
        if record[RECORD_HEADER] != 0xFF || usize::from(record[RECORD_HEADER + 1]) < 32 {
            return Err("the record there has no data".into());
        }
        Ok(CheckpointRecord {
            redo: Lsn(u64_at(data)?),
            timeline: u32_at(data + 8)?,
            next_transaction: u64_at(data + 24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::magic;

    const SEGMENT: u64 = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::new(SEGMENT as u32).unwrap()
    }

    fn expected(segment: u64) -> Expected {
        Expected {
            magic: magic(17),
            system_id: 42,
            timelines: 3..=3,
            size: size(),
            segment,
            end: Lsn(u64::MAX),
        }
    }

    /// A checkpoint record.
    fn record(redo: Lsn) -> Vec<u8> {
        let mut record = vec![0; RECORD_HEADER + 2 + 88];
        record[16] = 0x10;
        record[RECORD_HEADER] = 0xFF;
        record[RECORD_HEADER + 1] = 88;
        let length = record.len() as u32;
        record[..4].copy_from_slice(&length.to_ne_bytes());
        record[26..34].copy_from_slice(&redo.0.to_ne_bytes());
        record[34..38].copy_from_slice(&3_u32.to_ne_bytes());
        record[50..58].copy_from_slice(&0x1_0000_02E6_u64.to_ne_bytes());
        let mut crc = Crc32c::new();
        crc.update(&record[RECORD_HEADER..]);
        crc.update(&record[..RECORD_CRC]);
        record[RECORD_CRC..RECORD_HEADER].copy_from_slice(&crc.value().to_ne_bytes());
        record
    }

    /// Segments 5 and 6, with the record at `at`, cut by the headers of pages.
    fn wal(at: Lsn, record: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 2 * SEGMENT as usize];
        for (number, page) in bytes.chunks_mut(PAGE).enumerate() {
            let address = 5 * SEGMENT + (number * PAGE) as u64;
            page[..2].copy_from_slice(&magic(17).to_ne_bytes());
            page[4..8].copy_from_slice(&3_u32.to_ne_bytes());
            page[8..16].copy_from_slice(&address.to_ne_bytes());
            if address.is_multiple_of(SEGMENT) {
                page[2..4].copy_from_slice(&2_u16.to_ne_bytes());
                page[24..32].copy_from_slice(&42_u64.to_ne_bytes());
                page[32..36].copy_from_slice(&(SEGMENT as u32).to_ne_bytes());
                page[36..40].copy_from_slice(&(PAGE as u32).to_ne_bytes());
            }
        }
        let mut place = (at.0 - 5 * SEGMENT) as usize;
        for byte in record {
            if place.is_multiple_of(PAGE) {
                place += if place.is_multiple_of(SEGMENT as usize) { 40 } else { 24 };
            }
            bytes[place] = *byte;
            place += 1;
        }
        bytes
    }

    const START: Lsn = Lsn(5 * SEGMENT + 0x28);

    fn proved(
        bytes: &[u8],
        at: Lsn,
        stop: Lsn,
        piece: usize,
    ) -> Result<CheckpointRecord, Unproved> {
        let mut proof = Proof::new(size(), at);
        for (segment, bytes) in (5..).zip(bytes.chunks(SEGMENT as usize)) {
            for (offset, bytes) in (0..).zip(bytes.chunks(piece)) {
                proof.look_at(&expected(segment), offset * piece as u64, bytes);
            }
        }
        proof.finish(START, stop)
    }

    #[test]
    fn the_checkpoint_is_found_wherever_it_lies() {
        let stop = Lsn(7 * SEGMENT);
        for at in [
            START.0 + 0x38,
            5 * SEGMENT + PAGE as u64 - 8,
            5 * SEGMENT + 3 * PAGE as u64 - 100,
            6 * SEGMENT - 24,
            6 * SEGMENT - 113,
        ] {
            let bytes = wal(Lsn(at), &record(START));
            for piece in [PAGE, 8 * PAGE, SEGMENT as usize] {
                let found = proved(&bytes, Lsn(at), stop, piece).unwrap();
                assert_eq!((found.redo, found.timeline), (START, 3), "{at:X}");
                assert_eq!(found.next_transaction, 0x1_0000_02E6);
            }
        }
    }

    #[test]
    fn what_is_no_proof_is_refused() {
        let (at, stop) = (Lsn(START.0 + 0x38), Lsn(6 * SEGMENT + 100));
        let good = wal(at, &record(START));
        assert!(proved(&good, at, stop, PAGE).is_ok());
        let missing = proved(&good[..SEGMENT as usize], at, stop, PAGE);
        assert_eq!(missing, Err(Unproved::Missing(6)));
        let told = |bytes: &[u8]| match proved(bytes, at, stop, PAGE) {
            Err(Unproved::Checkpoint(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(told(&wal(at, &record(Lsn(1)))).contains("begins recovery at 0/1"));
        assert!(told(&wal(at, &[])).contains("claims 0 bytes"));
        for byte in [16, 17, 24, 30, 60, 100] {
            let mut bad = record(START);
            bad[byte] ^= 0x40;
            assert!(told(&wal(at, &bad)).contains("wrong checksum"), "{byte}");
        }
        let mut old = good.clone();
        let page = SEGMENT as usize + PAGE;
        old[page + 9] ^= 1;
        assert!(proved(&old, at, stop, PAGE).is_ok(), "an old page after the end");
        let later = proved(&old, at, Lsn(6 * SEGMENT + PAGE as u64 + 1), PAGE);
        assert!(matches!(later, Err(Unproved::Damaged(6, _))), "{later:?}");
    }
}
