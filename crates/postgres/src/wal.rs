//! What is written at the head of every page of a WAL segment, and whether it is what it should be.
//!
//! A segment is renamed and written over when the server no longer needs it, so a file that was
//! opened under the right name can turn into another one while it is read. Every page carries its
//! own position, which tells.

use std::ops::RangeInclusive;

use crate::control::Control;
use crate::lsn::{Lsn, SegmentSize};

/// WAL pages are 8 KiB in every build that is distributed; the long header says so itself.
pub(crate) const PAGE: usize = 8192;

/// The flag of the long header, which the first page of a segment has.
const LONG_HEADER: u16 = 0x0002;

/// What a segment must be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) magic: u16,
    pub(crate) system_id: u64,
    /// The last one is that of the name. The first segment of a timeline begins as a copy of its
    /// parent's, whose pages say so.
    pub(crate) timelines: RangeInclusive<u32>,
    pub(crate) size: SegmentSize,
    pub(crate) segment: u64,
    /// WAL from here on is not needed, and not looked at.
    pub(crate) end: Lsn,
}

impl Expected {
    /// The segment `segment` of the server's present timeline, needed up to `end`.
    pub(crate) fn new(
        major: u32,
        control: &Control,
        timeline: u32,
        segment: u64,
        end: Lsn,
    ) -> Self {
        Self {
            magic: magic(major),
            system_id: control.system_id,
            timelines: timeline..=timeline,
            size: control.segment_size,
            segment,
            end,
        }
    }

    pub(crate) fn name(&self) -> String {
        self.size.name(*self.timelines.end(), self.segment)
    }

    /// Looks at all pages that begin in `bytes`, which begin at `offset` in the segment; `offset`
    /// is a multiple of the page size.
    pub(crate) fn check(&self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let start = self.size.start_of(self.segment).0;
        let places = (0..).map(|page: u64| start + offset + page * PAGE as u64);
        for (page, address) in bytes.chunks(PAGE).zip(places) {
            if address >= self.end.0 {
                break;
            }
            self.check_page(page, address, address == start)?;
        }
        Ok(())
    }

    fn check_page(&self, page: &[u8], address: u64, first: bool) -> Result<(), String> {
        let Some(header) = page.first_chunk::<40>() else {
            return Err("it is cut short".into());
        };
        let at = Lsn(address);
        let u16_at = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let u32_at = |at: usize| u32::from_ne_bytes(std::array::from_fn(|byte| header[at + byte]));
        let u64_at = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| header[at + byte]));

        let magic = u16_at(0);
        if magic != self.magic {
            return Err(format!(
                "the page at {at} has the magic {magic:04X}, not {:04X}",
                self.magic
            ));
        }
        let timeline = u32_at(4);
        if !self.timelines.contains(&timeline) {
            return Err(format!("the page at {at} is of timeline {timeline}"));
        }
        let said = Lsn(u64_at(8));
        if said != at {
            return Err(format!("the page at {at} says that it is the one at {said}"));
        }
        if !first {
            return Ok(());
        }
        if u16_at(2) & LONG_HEADER == 0 {
            return Err("its first page has no long header".into());
        }
        let system_id = u64_at(24);
        if system_id != self.system_id {
            return Err(format!("it is of the system {system_id}, not {}", self.system_id));
        }
        let (size, page_size) = (u32_at(32), u32_at(36));
        if u64::from(size) != self.size.bytes() || page_size as usize != PAGE {
            return Err(format!("it says segments of {size} bytes and pages of {page_size}"));
        }
        Ok(())
    }
}

/// The number that WAL pages of a major version begin with.
pub(crate) fn magic(major: u32) -> u16 {
    match major {
        14 => 0xD10D,
        15 => 0xD110,
        16 => 0xD113,
        17 => 0xD116,
        _ => 0xD118,
    }
}

/// Whether a file name is that of a timeline's history.
pub(crate) fn is_history(name: &[u8]) -> bool {
    name.strip_suffix(b".history").is_some_and(|digits| digits.len() == 8 && is_upper_hex(digits))
}

/// Whether a file name is that of a whole segment.
pub(crate) fn is_segment(name: &[u8]) -> bool {
    name.len() == 24 && is_upper_hex(name)
}

fn is_upper_hex(digits: &[u8]) -> bool {
    digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        Expected {
            magic: magic(15),
            system_id: 42,
            timelines: 3..=3,
            size: SegmentSize::new(1 << 20).unwrap(),
            segment: 5,
            end: Lsn((5 << 20) + 3 * PAGE as u64 - 100),
        }
    }

    fn segment() -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        for (at, page) in bytes.chunks_mut(PAGE).enumerate().take(3) {
            page[0..2].copy_from_slice(&magic(15).to_ne_bytes());
            page[4..8].copy_from_slice(&3_u32.to_ne_bytes());
            let address = (5_u64 << 20) + (at * PAGE) as u64;
            page[8..16].copy_from_slice(&address.to_ne_bytes());
        }
        bytes[2..4].copy_from_slice(&LONG_HEADER.to_ne_bytes());
        bytes[24..32].copy_from_slice(&42_u64.to_ne_bytes());
        bytes[32..36].copy_from_slice(&(1_u32 << 20).to_ne_bytes());
        bytes[36..40].copy_from_slice(&(PAGE as u32).to_ne_bytes());
        bytes
    }

    #[test]
    fn a_segment_that_was_written_over_is_noticed() {
        let good = segment();
        assert_eq!(expected().check(0, &good), Ok(()));
        assert_eq!(expected().check(PAGE as u64, &good[PAGE..]), Ok(()));
        for at in [0, 2, 4, 9, 24, 34, 38, PAGE, PAGE + 9, 2 * PAGE + 15] {
            let mut bad = good.clone();
            bad[at] ^= 2;
            assert!(expected().check(0, &bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_segment_may_begin_with_the_pages_of_its_parent() {
        let later = Expected { timelines: 1..=5, ..expected() };
        assert_eq!(later.check(0, &segment()), Ok(()));
        let other = Expected { timelines: 4..=5, ..expected() };
        assert!(other.check(0, &segment()).is_err());
    }

    #[test]
    fn names_are_told_apart() {
        assert!(is_segment(b"0000000100000000000000FF"));
        assert!(!is_segment(b"0000000100000000000000ff"));
        assert!(!is_segment(b"0000000100000000000000FF.partial"));
        assert!(is_history(b"0000000A.history"));
        assert!(!is_history(b"A.history"));
    }
}
