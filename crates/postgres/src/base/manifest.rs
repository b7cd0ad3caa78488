//! The manifest with which a server ends a base backup, held against what arrived.
//!
//! The server lists each file that it sent, in the order in which it sent them, with size and
//! checksum, then the WAL that belongs to the backup, and at last the SHA-256 of all that. So what
//! arrived is remembered as 16 bytes for each file, and compared line by line as the manifest
//! comes; nothing of it is kept. WAL segments are not in it: their own pages and records prove
//! those ([`proof`](super::proof)).

use aws_lc_rs::digest;
use serde::Deserialize;

use crate::lsn::Lsn;

/// No line of a manifest is longer: a path, escaped, and some numbers.
const LONGEST_LINE: usize = 64 << 10;

/// What is wrong with a manifest, or with what it says.
type Flaw = String;

/// The files that arrived, in their order.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    files: Vec<File>,
}

/// One file: its path, and its size and checksum, each as 64 bits of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct File {
    path: u64,
    content: u64,
}

impl File {
    fn new(path: &[u8], size: u64, crc: u32) -> Self {
        let path = short(&[path]);
        Self { path, content: short(&[&size.to_le_bytes(), &crc.to_le_bytes()]) }
    }
}

fn short(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    u64::from_le_bytes(std::array::from_fn(|byte| hasher.finalize().as_bytes()[byte]))
}

impl Arrived {
    /// A file arrived as a whole, with this path as the server names it.
    pub(super) fn push(&mut self, path: &[u8], size: u64, crc: u32) {
        self.files.push(File::new(path, size, crc));
    }
}

/// The WAL that a manifest says belongs to its backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WalRange {
    pub(super) timeline: u32,
    pub(super) start: Lsn,
    pub(super) end: Lsn,
}

/// Reads a manifest as it comes.
pub(super) struct Manifest {
    arrived: Arrived,
    /// How many of those it has named.
    named: usize,
    system_id: u64,
    hash: digest::Context,
    line: Vec<u8>,
    part: Section,
    ranges: Vec<WalRange>,
}

/// Which line may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Version,
    /// The system identifier, or the beginning of the files where it has none.
    Head,
    Files,
    BeforeRanges,
    Ranges,
    Checksum,
    End,
}

#[derive(Deserialize)]
struct FileLine {
    #[serde(rename = "Path")]
    path: Option<String>,
    /// In hexadecimal, for a path that is not UTF-8.
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: String,
    #[serde(rename = "Checksum")]
    checksum: String,
}

#[derive(Deserialize)]
struct RangeLine {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

impl Manifest {
    /// The manifest of a server with this system identifier, which sent these files.
    pub(super) fn new(system_id: u64, arrived: Arrived) -> Self {
        Self {
            arrived,
            named: 0,
            system_id,
            hash: digest::Context::new(&digest::SHA256),
            line: Vec::new(),
            part: Section::Version,
            ranges: Vec::new(),
        }
    }

    /// Takes the next piece.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), Flaw> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + piece.len() > LONGEST_LINE {
                return Err("it has a line that is too long".into());
            }
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take(&line)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Flaw> {
        let text = std::str::from_utf8(line).map_err(|_| "it is no text")?;
        let text = text.trim_end_matches('\n');
        if self.part != Section::Checksum {
            self.hash.update(line);
        }
        match (self.part, text) {
            (
                Section::Version,
                r#"{ "PostgreSQL-Backup-Manifest-Version": 1,"#
                | r#"{ "PostgreSQL-Backup-Manifest-Version": 2,"#,
            ) => self.part = Section::Head,
            (Section::Version, _) => return Err("it is of a version that is not known".into()),
            (Section::Head, r#""Files": ["#) => self.part = Section::Files,
            (Section::Head, line) => {
                let value = line.strip_prefix(r#""System-Identifier": "#);
                let value = value.and_then(|value| value.strip_suffix(','));
                if value.and_then(|value| value.parse().ok()) != Some(self.system_id) {
                    return Err("it is of another system".into());
                }
            }
            (Section::Files, "],") => {
                let extra = self.arrived.files.len() - self.named;
                if extra > 0 {
                    return Err(format!("it does not name {extra} of the files that arrived"));
                }
                self.part = Section::BeforeRanges;
            }
            (Section::Files, line) => self.file(line)?,
            (Section::BeforeRanges, r#""WAL-Ranges": ["#) => self.part = Section::Ranges,
            (Section::Ranges, "],") => self.part = Section::Checksum,
            (Section::Ranges, line) => {
                self.ranges.push(range(line)?);
                if self.ranges.len() > 1 {
                    return Err("the server changed its timeline during the backup".into());
                }
            }
            (Section::Checksum, line) => self.checksum(line)?,
            (Section::BeforeRanges | Section::End, _) => {
                return Err("it has a line where none belongs".into());
            }
        }
        Ok(())
    }

    fn file(&mut self, line: &str) -> Result<(), Flaw> {
        let bad = |_| "it has a file that cannot be understood".to_owned();
        let line: FileLine = serde_json::from_str(line.trim_end_matches(',')).map_err(bad)?;
        let path = match (line.path, line.encoded_path) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(encoded)) => from_hex(&encoded).ok_or("it has a path that is no path")?,
            _ => return Err("it has a file without a path".into()),
        };
        let shown = String::from_utf8_lossy(&path).into_owned();
        let crc = from_hex(&line.checksum).and_then(|crc| <[u8; 4]>::try_from(crc).ok());
        let (Some(crc), "CRC32C") = (crc, line.algorithm.as_str()) else {
            return Err(format!("it has no CRC-32C of {shown}"));
        };
        // The bytes of the number, as they lie in the server's memory.
        let named = File::new(&path, line.size, u32::from_le_bytes(crc));
        match self.arrived.files.get(self.named) {
            None => return Err(format!("it names {shown}, which did not arrive")),
            Some(arrived) if arrived.path != named.path => {
                return Err(format!("it names {shown} where another file arrived"));
            }
            Some(arrived) if *arrived != named => {
                return Err(format!("{shown} arrived with another size or checksum than it says"));
            }
            Some(_) => self.named += 1,
        }
        Ok(())
    }

    fn checksum(&mut self, line: &str) -> Result<(), Flaw> {
        let value = line.strip_prefix(r#""Manifest-Checksum": ""#);
        let value = value.and_then(|value| from_hex(value.strip_suffix(r#""}"#)?));
        if value.as_deref() != Some(self.hash.clone().finish().as_ref()) {
            return Err("its own checksum is wrong".into());
        }
        self.part = Section::End;
        Ok(())
    }

    /// The WAL of the backup, once all of the manifest has come.
    pub(super) fn finish(self) -> Result<WalRange, Flaw> {
        match (self.part, self.ranges.as_slice()) {
            (Section::End, [range]) if self.line.is_empty() => Ok(*range),
            (Section::End, []) => Err("it names no WAL".into()),
            _ => Err("it is cut short".into()),
        }
    }
}

fn range(line: &str) -> Result<WalRange, Flaw> {
    let bad = |_| "it has a range of WAL that cannot be understood".to_owned();
    let line: RangeLine = serde_json::from_str(line.trim_end_matches(',')).map_err(bad)?;
    Ok(WalRange { timeline: line.timeline, start: line.start.parse()?, end: line.end.parse()? })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crc::crc32c;
    use proptest::prelude::*;

    const SYSTEM: u64 = 7_564_391_862_205_101_977;

    /// As a server of version 17 writes it, up to the last line.
    const BODY: &str = r#"{ "PostgreSQL-Backup-Manifest-Version": 2,
"System-Identifier": 7564391862205101977,
"Files": [
{ "Path": "backup_label", "Size": 9, "Last-Modified": "2026-11-21 10:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "839206e3" },
{ "Encoded-Path": "6c6f672ff1", "Size": 0, "Last-Modified": "2026-11-21 10:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" }
],
"WAL-Ranges": [
{ "Timeline": 3, "Start-LSN": "0/2000028", "End-LSN": "0/2000120" }
],
"#;

    fn sealed(body: &str) -> String {
        let hash = digest::digest(&digest::SHA256, body.as_bytes());
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{body}\"Manifest-Checksum\": \"{hex}\"}}\n")
    }

    fn arrived() -> Arrived {
        let mut arrived = Arrived::default();
        arrived.push(b"backup_label", 9, crc32c(b"123456789"));
        arrived.push(b"log/\xf1", 0, crc32c(b""));
        arrived
    }

    fn read(text: &str, arrived: Arrived) -> Result<WalRange, Flaw> {
        let mut manifest = Manifest::new(SYSTEM, arrived);
        manifest.feed(text.as_bytes())?;
        manifest.finish()
    }

    #[test]
    fn a_manifest_is_held_against_what_arrived() {
        let expected = WalRange { timeline: 3, start: Lsn(0x200_0028), end: Lsn(0x200_0120) };
        assert_eq!(read(&sealed(BODY), arrived()), Ok(expected));
        let old = BODY
            .replace("Version\": 2,\n\"System-Identifier\": 7564391862205101977", "Version\": 1");
        assert_eq!(read(&sealed(&old), arrived()), Ok(expected));
    }

    #[test]
    fn what_does_not_agree_is_found() {
        let told = |body: &str| read(&sealed(body), arrived()).unwrap_err();
        for (from, to, what) in [
            ("\"Size\": 9", "\"Size\": 8", "another size or checksum"),
            ("839206e3", "839206e4", "another size or checksum"),
            ("839206e3", "e3069283", "another size or checksum"),
            ("backup_label", "backup_labe1", "where another file arrived"),
            ("839206e3", "8392", "no CRC-32C"),
            ("CRC32C", "SHA256", "no CRC-32C"),
            ("7564391862205101977", "1", "another system"),
            ("Version\": 2", "Version\": 3", "not known"),
            ("\"Path\"", "\"Pat\"", "without a path"),
            ("0/2000028", "2000028", "no WAL position"),
            (
                " }\n],\n\"WAL",
                " },\n{ \"Path\": \"x\", \"Size\": 0, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" }\n],\n\"WAL",
                "did not arrive",
            ),
            (
                "0/2000120\" }\n",
                "0/2000120\" },\n{ \"Timeline\": 4, \"Start-LSN\": \"0/2000120\", \"End-LSN\": \"0/2000130\" }\n",
                "timeline",
            ),
        ] {
            assert!(BODY.contains(from), "{from}");
            let found = told(&BODY.replacen(from, to, 1));
            assert!(found.contains(what), "{to}: {found}");
        }
        let mut more = arrived();
        more.push(b"base/5/1", 0, 0);
        assert!(read(&sealed(BODY), more).unwrap_err().contains("1 of the files"));
        assert!(read(&sealed(BODY), Arrived::default()).unwrap_err().contains("did not arrive"));
    }

    #[test]
    fn it_must_be_whole() {
        let good = sealed(BODY);
        for cut in 0..good.len() {
            assert!(read(&good[..cut], arrived()).is_err(), "{cut}");
        }
        assert!(read(&format!("{good}\n"), arrived()).is_err());
        let other = good.replace(
            "10:00:00 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"839",
            "10:00:01 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"839",
        );
        assert_ne!(other, good);
        assert!(read(&other, arrived()).unwrap_err().contains("its own checksum"));
        let endless = "x".repeat(LONGEST_LINE + 1);
        assert!(read(&endless, arrived()).unwrap_err().contains("too long"));
    }

    proptest! {
        #[test]
        fn pieces_are_as_good_as_the_whole(cuts in proptest::collection::vec(1..90_usize, 1..9)) {
            let text = sealed(BODY);
            let (mut manifest, mut rest) = (Manifest::new(SYSTEM, arrived()), text.as_bytes());
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                manifest.feed(piece).unwrap();
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(manifest.finish().is_ok());
        }

        /// A change of any byte is found, but for the hours at which files changed.
        #[test]
        fn any_change_is_found(at in 0..700_usize, by in 1..128_u8) {
            let mut bytes = sealed(BODY).into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= by;
            let mut manifest = Manifest::new(SYSTEM, arrived());
            let read = manifest.feed(&bytes).and_then(|()| manifest.finish().map(drop));
            // Hexadecimal digits are read in both cases.
            let same_digit = by == 32 && bytes[at].is_ascii_hexdigit();
            prop_assert!(read.is_err() || same_digit);
        }
    }
}
