//! Numbers, times and names, as people read them.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::{Timestamp, tz::TimeZone};
use lifeboat_core::{Attributes, EntryInfo, EntryKind, EntryPath, Value, names};
use serde_json::{Map, json};

/// Bytes in a unit that fits.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// So many of something.
pub(crate) fn number(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// A moment, in this host's time zone, to the second.
pub(crate) fn time(moment: Timestamp) -> String {
    let zoned = moment.to_zoned(TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A moment as `--to-time` takes it, to the last digit that is known of it.
pub(crate) fn moment(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.f%:z").to_string()
}

/// A stretch of time.
pub(crate) fn duration(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", elapsed.as_secs_f32()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Text from elsewhere, without anything that a terminal would obey.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Attributes or facts as JSON: bytes as text where they are text, and in hexadecimal otherwise.
pub(crate) fn facts_to_json(facts: &Attributes) -> serde_json::Value {
    let mut map = Map::new();
    for (name, value) in facts.iter() {
        map.insert(name.to_owned(), value_to_json(value));
    }
    map.into()
}

fn value_to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Unsigned(number) => json!(number),
        Value::Signed(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Bytes(bytes) => bytes_to_json(bytes),
        Value::Pairs(pairs) => {
            let pairs = pairs.iter().map(|(name, value)| {
                json!({ "name": bytes_to_json(name), "value": bytes_to_json(value) })
            });
            pairs.collect()
        }
    }
}

fn bytes_to_json(bytes: &[u8]) -> serde_json::Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": hex })
        }
    }
}

/// One entry as `ls -l` shows it.
pub(crate) fn long_entry(entry: &EntryInfo, shown: &EntryPath) -> String {
    let attributes = &entry.attributes;
    let owner = |name: &str, number: &str| {
        let number = || attributes.unsigned(number).map(|number| number.to_string());
        attributes.text(name).map(one_line).or_else(number).unwrap_or_else(|| "-".to_owned())
    };
    let (user, group) = (owner(names::USER, names::UID), owner(names::GROUP, names::GID));
    let modified = attributes.modified().map_or_else(|| "-".to_owned(), time);
    let mode = mode(entry);
    let size = entry.size;
    let mut line = format!("{mode} {user:<8} {group:<8} {size:>12} {modified:>19} {shown}");
    if let Some(target) = attributes.bytes(names::TARGET) {
        let arrow = if entry.kind == EntryKind::HardLink { " => " } else { " -> " };
        line += arrow;
        line += &escaped(target);
    }
    line
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text += &one_line(chunk.valid());
        text += &chunk.invalid().escape_ascii().to_string();
    }
    text
}

fn mode(entry: &EntryInfo) -> String {
    let kind = match entry.kind {
        EntryKind::Directory => 'd',
        EntryKind::File => '-',
        EntryKind::Symlink => 'l',
        EntryKind::HardLink => 'h',
        EntryKind::Fifo => 'p',
        EntryKind::CharDevice => 'c',
        EntryKind::BlockDevice => 'b',
        EntryKind::Socket => 's',
    };
    let Some(bits) = entry.attributes.unsigned(names::MODE) else {
        return format!("{kind}---------");
    };
    let bit = |bit: u64, letter: char| if bits & bit == 0 { '-' } else { letter };
    let run = |run: u64, set: u64, letter: char| match (bits & set != 0, bits & run != 0) {
        (true, true) => letter,
        (true, false) => letter.to_ascii_uppercase(),
        (false, true) => 'x',
        (false, false) => '-',
    };
    [
        kind,
        bit(0o400, 'r'),
        bit(0o200, 'w'),
        run(0o100, 0o4000, 's'),
        bit(0o040, 'r'),
        bit(0o020, 'w'),
        run(0o010, 0o2000, 's'),
        bit(0o004, 'r'),
        bit(0o002, 'w'),
        run(0o001, 0o1000, 't'),
    ]
    .iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifeboat_core::Layout;

    fn entry(kind: EntryKind, mode: u32) -> EntryInfo {
        EntryInfo {
            path: EntryPath::new("a").unwrap(),
            kind,
            attributes: Attributes::new().with(names::MODE, mode),
            layout: Layout::Stream,
            size: 5,
        }
    }

    #[test]
    fn a_moment_is_written_as_it_is_read() {
        for text in ["2026-11-22T02:00:00.123456789Z", "2026-11-22T02:00:00Z"] {
            let at: Timestamp = text.parse().unwrap();
            assert_eq!(moment(at).parse::<Timestamp>().unwrap(), at);
        }
    }

    #[test]
    fn modes_look_as_in_ls() {
        assert_eq!(mode(&entry(EntryKind::File, 0o644)), "-rw-r--r--");
        assert_eq!(mode(&entry(EntryKind::Directory, 0o1777)), "drwxrwxrwt");
        assert_eq!(mode(&entry(EntryKind::File, 0o6750)), "-rwsr-s---");
        assert_eq!(mode(&entry(EntryKind::File, 0o4644)), "-rwSr--r--");
    }

    #[test]
    fn nothing_reaches_the_terminal_unescaped() {
        let mut link = entry(EntryKind::Symlink, 0o777);
        link.attributes.set(names::TARGET, b"x\x1b[2J\xff".to_vec());
        link.attributes.set(names::USER, "a\nb");
        let line = long_entry(&link, &link.path);
        assert!(line.ends_with(" a -> x [2J\\xff"), "{line:?}");
        assert!(!line.contains(['\n', '\x1b']));
    }

    #[test]
    fn one_is_not_many() {
        let told = [0, 1, 2].map(|count| number(count, "entry", "entries"));
        assert_eq!(told, ["0 entries", "1 entry", "2 entries"]);
    }

    #[test]
    fn durations_are_told_in_two_units() {
        assert_eq!(duration(Duration::from_millis(1250)), "1.2 s");
        assert_eq!(duration(Duration::from_secs(61)), "1 min 1 s");
        assert_eq!(duration(Duration::from_secs(7260)), "2 h 1 min");
    }
}
