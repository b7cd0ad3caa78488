//! Whether received WAL is what its place says.

use crate::archive::WalLine;
use crate::lsn::{Lsn, SegmentSize};

/// WAL pages are 8 KiB in every build that is distributed.
const PAGE: u64 = 8192;

/// The flag of the long header, which the first page of a segment has.
const LONG_HEADER: u16 = 0x0002;

/// Looks at the pages that begin in `bytes`, which begin at `from`: each must carry its own
/// position and a timeline on the way to this one, and the first of a segment the identity of the
/// system. A page without a header was left empty when the segment was switched early.
pub(super) fn check(
    bytes: &[u8],
    from: Lsn,
    line: WalLine,
    size: SegmentSize,
) -> Result<(), String> {
    let mut address = from.0.next_multiple_of(PAGE);
    while let Some(page) = bytes.get((address - from.0) as usize..)
        && let Some(header) = page.first_chunk::<24>()
    {
        let at = Lsn(address);
        let number = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| header[at + byte]));
        let timeline = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        let first = address.is_multiple_of(size.bytes());
        if first || header.iter().any(|byte| *byte != 0) {
            if number(8) != address {
                return Err(format!(
                    "the page at {at} says that it is the one at {}",
                    Lsn(number(8))
                ));
            }
            if timeline == 0 || timeline > line.timeline {
                return Err(format!("the page at {at} is of timeline {timeline}"));
            }
        }
        if first && let Some(header) = page.first_chunk::<40>() {
            check_first(header, at, line, size)?;
        }
        address += PAGE;
    }
    Ok(())
}

fn check_first(header: &[u8; 40], at: Lsn, line: WalLine, size: SegmentSize) -> Result<(), String> {
    let four = |at: usize| u32::from_ne_bytes(std::array::from_fn(|byte| header[at + byte]));
    if u16::from_ne_bytes([header[2], header[3]]) & LONG_HEADER == 0 {
        return Err(format!("the first page of the segment at {at} has no long header"));
    }
    let system = u64::from_ne_bytes(std::array::from_fn(|byte| header[24 + byte]));
    if system != line.system_id {
        return Err(format!("the segment at {at} is of the system {system}"));
    }
    if u64::from(four(32)) != size.bytes() || u64::from(four(36)) != PAGE {
        let (segment, page) = (four(32), four(36));
        return Err(format!("the segment at {at} says {segment} bytes, and pages of {page}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: WalLine = WalLine { system_id: 42, timeline: 3 };

    fn segment(start: u64) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        for (number, page) in bytes.chunks_mut(PAGE as usize).enumerate().take(3) {
            page[4..8].copy_from_slice(&2_u32.to_ne_bytes());
            page[8..16].copy_from_slice(&(start + number as u64 * PAGE).to_ne_bytes());
        }
        bytes[2..4].copy_from_slice(&LONG_HEADER.to_ne_bytes());
        bytes[24..32].copy_from_slice(&42_u64.to_ne_bytes());
        bytes[32..36].copy_from_slice(&(1_u32 << 20).to_ne_bytes());
        bytes[36..40].copy_from_slice(&(PAGE as u32).to_ne_bytes());
        bytes
    }

    #[test]
    fn wal_of_another_place_is_noticed() {
        let size = SegmentSize::new(1 << 20).unwrap();
        let start = 5 << 20;
        let good = segment(start);
        // In whatever pieces it comes, and with pages left empty after a switch.
        for cut in [0, 1, 100, PAGE as usize, PAGE as usize + 1, 3 * PAGE as usize] {
            let at = Lsn(start + cut as u64);
            assert_eq!(check(&good[cut..], at, LINE, size), Ok(()), "{cut}");
        }
        assert!(check(&good, Lsn(start + (1 << 20)), LINE, size).is_err());
        for byte in [2, 4, 9, 24, 33, 37, PAGE as usize + 9, 2 * PAGE as usize + 7] {
            let mut bad = good.clone();
            bad[byte] ^= 2;
            if byte == 4 {
                bad[byte] = 9;
            }
            assert!(check(&bad, Lsn(start), LINE, size).is_err(), "{byte}");
        }
        // The first page of a segment is never empty.
        assert!(check(&[0; 100], Lsn(start), LINE, size).is_err());
    }
}
