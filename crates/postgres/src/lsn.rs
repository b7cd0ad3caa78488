//! Positions in the WAL, and the segment files that hold them.

use std::fmt;
use std::str::FromStr;

/// A position in the write-ahead log, written as the server writes it: `1/6B374D48`.
///
/// ```
/// use lifeboat_postgres::Lsn;
/// let lsn: Lsn = "1/6B374D48".parse().unwrap();
/// assert_eq!(lsn.to_string(), "1/6B374D48");
/// assert!(lsn > Lsn(0xFFFF_FFFF));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let half = |half: &str| {
            let digits = (1..=8).contains(&half.len());
            let hex = half.bytes().all(|byte| byte.is_ascii_hexdigit());
            (digits && hex).then(|| u64::from_str_radix(half, 16).ok())?
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self((half(high)? << 32) | half(low)?)))
            .ok_or_else(|| format!("\"{}\" is no WAL position", text.escape_default()))
    }
}

/// How long the segment files of a cluster are: a power of two from 1 MiB to 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentSize(u64);

impl SegmentSize {
    pub(crate) fn new(bytes: u32) -> Option<Self> {
        let bytes = u64::from(bytes);
        (bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes)).then_some(Self(bytes))
    }

    pub(crate) fn bytes(self) -> u64 {
        self.0
    }

    /// The segment that holds the byte at `lsn`.
    pub(crate) fn holding(self, lsn: Lsn) -> u64 {
        lsn.0 / self.0
    }

    /// The last segment of WAL that ends at `lsn`: at a boundary, the one before it.
    pub(crate) fn ending_at(self, lsn: Lsn) -> u64 {
        lsn.0.saturating_sub(1) / self.0
    }

    /// Where a segment begins.
    pub(crate) fn start_of(self, segment: u64) -> Lsn {
        Lsn(segment * self.0)
    }

    /// The name of a segment's file. Only with 16 MiB does the last part end at FF.
    pub(crate) fn name(self, timeline: u32, segment: u64) -> String {
        let per_id = (1 << 32) / self.0;
        format!("{timeline:08X}{:08X}{:08X}", segment / per_id, segment % per_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;

    #[test]
    fn positions_are_read_as_written() {
        for bad in ["", "/", "1", "1/", "/1", "+1/0", "1/123456789", "g/0", "1/0/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
        assert_eq!("16/B374D848".parse(), Ok(Lsn(0x16_B374_D848)));
        assert_eq!("0/00000028".parse(), Ok(Lsn(0x28)));
    }

    #[test]
    fn names_follow_the_segment_size() {
        let name = |size: u32, lsn: &str| {
            let size = SegmentSize::new(size * MIB).unwrap();
            size.name(1, size.holding(lsn.parse().unwrap()))
        };
        // As pg_walfile_name() of servers with these segment sizes answers.
        assert_eq!(name(16, "0/1000028"), "000000010000000000000001");
        assert_eq!(name(16, "1/FF000028"), "0000000100000001000000FF");
        assert_eq!(name(1, "0/FFF00028"), "000000010000000000000FFF");
        assert_eq!(name(64, "2/4000000"), "000000010000000200000001");
        assert_eq!(name(1024, "2/C0000000"), "000000010000000200000003");
    }

    #[test]
    fn a_boundary_belongs_to_the_segment_before_it_when_wal_ends_there() {
        let size = SegmentSize::new(16 * MIB).unwrap();
        let boundary: Lsn = "0/3000000".parse().unwrap();
        assert_eq!(size.holding(boundary), 3);
        assert_eq!(size.ending_at(boundary), 2);
        assert_eq!(size.ending_at(Lsn(boundary.0 + 1)), 3);
        assert_eq!(size.start_of(3), boundary);
    }

    #[test]
    fn other_sizes_are_refused() {
        for bad in [0, 1, MIB - 1, 3 * MIB, 2048 * (MIB - 1)] {
            assert!(SegmentSize::new(bad).is_none());
        }
    }
}
