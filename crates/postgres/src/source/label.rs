//! What the server says in `backup_label`.

use crate::lsn::Lsn;

/// The lines of a `backup_label` that are needed to find the WAL of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// Where recovery begins to read WAL.
    pub(crate) start: Lsn,
    /// Where the checkpoint is from which it recovers.
    pub(crate) checkpoint: Lsn,
    pub(crate) timeline: u32,
}

impl Label {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let line = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .ok_or_else(|| format!("backup_label has no line {name}"))
        };
        let start = line("START WAL LOCATION")?;
        let start = start.split_once(' ').map_or(start, |(lsn, _)| lsn);
        let timeline = line("START TIMELINE")?;
        Ok(Self {
            start: start.parse()?,
            checkpoint: line("CHECKPOINT LOCATION")?.parse()?,
            timeline: timeline
                .parse()
                .map_err(|_| format!("backup_label names the timeline {timeline:?}"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-20 15:00:00 UTC\nLABEL: START TIMELINE\nSTART TIMELINE: 7\n";

    #[test]
    fn a_label_is_read() {
        let label = Label::parse(SAMPLE).unwrap();
        assert_eq!(label.start, Lsn(0x200_0028));
        assert_eq!(label.checkpoint, Lsn(0x200_0060));
        assert_eq!(label.timeline, 7);
    }

    #[test]
    fn a_label_without_a_line_is_refused() {
        for missing in ["START WAL LOCATION", "CHECKPOINT LOCATION", "START TIMELINE: 7"] {
            let text = SAMPLE.replace(missing, "X");
            assert!(Label::parse(&text).is_err(), "{missing}");
        }
    }
}
