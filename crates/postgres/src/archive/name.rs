//! The names of the files that PostgreSQL archives.

use std::fmt;

use crate::lsn::{Lsn, SegmentSize};

/// What a file that PostgreSQL archives, or asks for, is by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum WalName {
    /// A whole segment: `000000010000000A000000FF`.
    Segment { timeline: u32, segment: u64 },
    /// How a timeline came about: `00000002.history`.
    History { timeline: u32 },
    /// What the server noted of a base backup: `000000010000000A000000FF.00000028.backup`.
    Backup { timeline: u32, segment: u64, offset: u32 },
    /// The last segment of a timeline that was left within it: `000000010000000A000000FF.partial`.
    Partial { timeline: u32, segment: u64 },
}

impl WalName {
    /// Reads a name as the server writes it, for segments of this size. `None` when it is no such
    /// name, or names a segment that cannot be with that size.
    pub(crate) fn parse(name: &str, size: SegmentSize) -> Option<Self> {
        let (stem, rest) = name.split_once('.').map_or((name, None), |(a, b)| (a, Some(b)));
        if rest == Some("history") {
            let timeline = hex(stem, 8)?;
            return (timeline > 0).then_some(Self::History { timeline });
        }
        let (timeline, segment) = segment_of(stem, size)?;
        match rest {
            None => Some(Self::Segment { timeline, segment }),
            Some("partial") => Some(Self::Partial { timeline, segment }),
            Some(rest) => {
                let offset = hex(rest.strip_suffix(".backup")?, 8)?;
                let within = u64::from(offset) < size.bytes();
                within.then_some(Self::Backup { timeline, segment, offset })
            }
        }
    }

    /// The timeline that it belongs to.
    pub(crate) fn timeline(self) -> u32 {
        match self {
            Self::Segment { timeline, .. }
            | Self::History { timeline }
            | Self::Backup { timeline, .. }
            | Self::Partial { timeline, .. } => timeline,
        }
    }

    /// As the server writes it, for segments of this size.
    #[cfg(test)]
    pub(crate) fn shown(self, size: SegmentSize) -> String {
        match self {
            Self::Segment { timeline, segment } => size.name(timeline, segment),
            Self::History { timeline } => super::TimelineHistory::name_of(timeline),
            Self::Backup { timeline, segment, offset } => {
                format!("{}.{offset:08X}.backup", size.name(timeline, segment))
            }
            Self::Partial { timeline, segment } => {
                format!("{}.partial", size.name(timeline, segment))
            }
        }
    }
}

/// The timeline and the number of a segment, from the 24 digits that name its file.
fn segment_of(digits: &str, size: SegmentSize) -> Option<(u32, u64)> {
    if digits.len() != 24 || !digits.is_ascii() {
        return None;
    }
    let (timeline, rest) = digits.split_at(8);
    let (high, low) = rest.split_at(8);
    let (timeline, high, low) = (hex(timeline, 8)?, hex(high, 8)?, hex(low, 8)?);
    let per_id = (1 << 32) / size.bytes();
    let fits = timeline > 0 && u64::from(low) < per_id;
    let segment = u64::from(high) * per_id + u64::from(low);
    // The last of all would end at 2^64, which is no position; no server comes so far.
    let ends = segment.checked_add(1)?.checked_mul(size.bytes()).is_some();
    (fits && ends).then_some((timeline, segment))
}

fn hex(digits: &str, count: usize) -> Option<u32> {
    let upper = |byte: u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    (digits.len() == count && digits.bytes().all(upper))
        .then(|| u32::from_str_radix(digits, 16).ok())?
}

/// From where to where a segment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) from: Lsn,
    pub(crate) to: Lsn,
}

impl Bounds {
    pub(crate) fn of(segment: u64, size: SegmentSize) -> Self {
        let from = size.start_of(segment);
        Self { from, to: Lsn(from.0.saturating_add(size.bytes())) }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;

    fn size(mib: u32) -> SegmentSize {
        SegmentSize::new(mib * MIB).unwrap()
    }

    #[test]
    fn names_are_read_for_every_segment_size() {
        // As pg_walfile_name() of servers with these segment sizes names the position 2/C0000028.
        let named = [
            (1, "000000030000000200000C00"),
            (2, "000000030000000200000600"),
            (4, "000000030000000200000300"),
            (8, "000000030000000200000180"),
            (16, "0000000300000002000000C0"),
            (32, "000000030000000200000060"),
            (64, "000000030000000200000030"),
            (128, "000000030000000200000018"),
            (256, "00000003000000020000000C"),
            (512, "000000030000000200000006"),
            (1024, "000000030000000200000003"),
        ];
        for (mib, name) in named {
            let size = size(mib);
            let Some(WalName::Segment { timeline: 3, segment }) = WalName::parse(name, size) else {
                panic!("{name} with {mib} MiB");
            };
            let bounds = Bounds::of(segment, size);
            assert_eq!(bounds.from, "2/C0000000".parse().unwrap(), "{mib} MiB");
            assert_eq!(bounds.to.0 - bounds.from.0, size.bytes());
            assert_eq!(WalName::Segment { timeline: 3, segment }.shown(size), name);
            // The last one of an id, and the one that cannot be.
            let per_id = (1_u64 << 32) / size.bytes();
            let last = format!("0000000100000000{:08X}", per_id - 1);
            let next = WalName::parse("000000010000000100000000", size);
            let last_number = match WalName::parse(&last, size) {
                Some(WalName::Segment { segment, .. }) => segment,
                other => panic!("{other:?}"),
            };
            let after = WalName::Segment { timeline: 1, segment: last_number + 1 };
            assert_eq!(next, Some(after), "{mib} MiB");
            let beyond = format!("0000000100000000{per_id:08X}");
            assert_eq!(WalName::parse(&beyond, size), None, "{mib} MiB");
        }
    }

    #[test]
    fn every_kind_of_file_is_told_from_the_others() {
        let size = size(16);
        let parse = |name: &str| WalName::parse(name, size);
        assert_eq!(parse("0000000A.history"), Some(WalName::History { timeline: 10 }));
        let backup = WalName::Backup { timeline: 1, segment: 2, offset: 0x28 };
        assert_eq!(parse("000000010000000000000002.00000028.backup"), Some(backup));
        let partial = WalName::Partial { timeline: 1, segment: 0x1FF };
        assert_eq!(parse("0000000100000001000000FF.partial"), Some(partial));
        for name in [
            "0000000A.history",
            "000000010000000000000002.00000028.backup",
            "0000000100000001000000FF.partial",
        ] {
            assert_eq!(parse(name).unwrap().shown(size), name);
        }
        for bad in [
            "",
            ".",
            ".history",
            "A.history",
            "0000000a.history",
            "00000000.history",
            "0000000A.history.partial",
            "RECOVERYXLOG",
            "00000001000000000000000",
            "0000000100000000000000010",
            "00000001000000000000000g",
            "00000001000000000000000a",
            "000000000000000000000001",
            "0000000100000000000000010.partial",
            "000000010000000000000001.part",
            "000000010000000000000001.28.backup",
            "000000010000000000000001.01000000.backup",
            "000000010000000000000001.00000028.backup.partial",
            "../00000010000000000000001",
            "00000001FFFFFFFF000000FF",
            "0000000é000000000000001",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_an_answer(text: String, power in 0_u32..11) {
            let size = size(1 << power);
            if let Some(name) = WalName::parse(&text, size) {
                assert_eq!(name.shown(size), text);
            }
        }
    }
}
