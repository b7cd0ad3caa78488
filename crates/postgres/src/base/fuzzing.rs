//! What a server sends of a base backup, for the fuzz targets.

use aws_lc_rs::digest;
use bytes::Bytes;
use lifeboat_core::Extent;

use super::changes::Changes;
use super::manifest::{Arrived, Manifest};
use super::tar::{MemberKind, Part, Tar};

type Outcome = Result<(), String>;

const BLOCK: usize = 512;

/// The first byte says in pieces of which length the rest comes.
fn pieces(bytes: &[u8]) -> (usize, &[u8]) {
    match bytes.split_first() {
        Some((length, rest)) => (usize::from(*length) * 5 + 1, rest),
        None => (1, bytes),
    }
}

/// Sets the checksums of all headers.
fn sealed(archive: &[u8]) -> Vec<u8> {
    let mut archive = archive.to_vec();
    for header in archive.chunks_exact_mut(BLOCK) {
        if &header[257..262] == b"ustar" {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:07o} ").as_bytes());
        }
    }
    archive
}

pub(crate) fn tar_seeds() -> Vec<Vec<u8>> {
    let member = |name: &[u8], kind: u8, link: &[u8], content: &[u8]| {
        let mut bytes = vec![0; BLOCK];
        let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
        put(0, name);
        put(100, b"0000600 ");
        put(108, b"0000032 ");
        put(116, b"0000033 ");
        put(124, format!("{:011o} ", content.len()).as_bytes());
        put(136, b"14712345670 ");
        put(156, &[kind]);
        put(157, link);
        put(257, b"ustar\x0000");
        put(265, b"postgres");
        put(297, b"postgres");
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    };
    let end = vec![0; 2 * BLOCK];
    vec![
        [&[9][..], &member(b"base/", b'5', b"", b""), &member(b"base/1", b'0', b"", b"x"), &end]
            .concat(),
        [&[200][..], &member(b"pg_tblspc/1", b'2', b"/srv/x", b""), &end].concat(),
        [&[0][..], &member(b"a", b'0', b"", &[7; 700]), &end].concat(),
    ]
}

/// Members with the lengths of their contents, and how the archive ended.
fn members(archive: &[u8], length: usize) -> (Vec<(Vec<u8>, u64)>, Outcome) {
    let mut tar = Tar::new();
    let mut found: Vec<(Vec<u8>, u64)> = Vec::new();
    let (mut size, mut open) = (0, false);
    let mut read = || {
        for piece in archive.chunks(length) {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(part) = tar.next(&mut piece)? {
                match part {
                    Part::Member(member) => {
                        assert!(!open, "a member begins in another");
                        assert!(!member.name.is_empty() && member.name.len() <= 100);
                        assert!(member.kind == MemberKind::File || member.size == 0);
                        (size, open) = (member.size, true);
                        found.push((member.name, 0));
                    }
                    Part::Content(bytes) => {
                        let (_, come) = found.last_mut().ok_or("content without a member")?;
                        *come += bytes.len() as u64;
                        assert!(open && *come <= size && !bytes.is_empty(), "too much content");
                    }
                    Part::End => {
                        let come = found.last().map(|(_, come)| *come);
                        assert!(open && come == Some(size), "it ends before its content");
                        open = false;
                    }
                }
            }
            assert!(piece.is_empty(), "a piece is left over");
        }
        Ok(())
    };
    let outcome = read().and_then(|()| tar.finish());
    (found, outcome)
}

pub(crate) fn tar(bytes: &[u8]) -> Outcome {
    let (length, archive) = pieces(bytes);
    let archive = sealed(archive);
    let whole = members(&archive, archive.len().max(1));
    let cut = members(&archive, length);
    // After a failure, how much of a content came depends on the pieces.
    assert_eq!((whole.0.len(), &whole.1), (cut.0.len(), &cut.1), "pieces make a difference");
    whole.1.map_err(|why| crate::fuzzing::without_quoted(&why))
}

const SYSTEM: u64 = 7_664_812_345_678_901_234;

pub(crate) fn manifest_seeds() -> Vec<Vec<u8>> {
    let rest = "{ \"Path\": \"PG_VERSION\", \"Size\": 3, \"Last-Modified\": \"2026-11-22 03:00:00 GMT\", \
                \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"01000000\" },\n\
                { \"Encoded-Path\": \"62617365ff\", \"Size\": 8192, \"Last-Modified\": \"2026-11-22 03:00:00 GMT\", \
                \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"02000000\" }\n],\n\
                \"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n\
                \"Manifest-Checksum\": \"00\"}\n";
    let old = format!("\x05{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{rest}");
    let new = format!(
        "\u{7f}{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {SYSTEM},\n\"Files\": [\n{rest}"
    );
    vec![old.into_bytes(), new.into_bytes()]
}

pub(crate) fn manifest(bytes: &[u8]) -> Outcome {
    const CHECKSUM: &[u8] = b"\"Manifest-Checksum\": \"";
    let (length, text) = pieces(bytes);
    let mut text = text.to_vec();
    let at = text.windows(CHECKSUM.len()).rposition(|window| window == CHECKSUM);
    if let Some(at) = at {
        let after = at + CHECKSUM.len();
        let end = text[after..].iter().position(|byte| *byte == b'"').unwrap_or(0);
        let hash = digest::digest(&digest::SHA256, &text[..at]);
        let digits: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        text.splice(after..after + end, digits.into_bytes());
    }
    let read = |length: usize| {
        let mut arrived = Arrived::default();
        arrived.push(b"PG_VERSION", 3, 1);
        arrived.push(b"base\xff", 8192, 2);
        let mut manifest = Manifest::new(SYSTEM, arrived);
        text.chunks(length).try_for_each(|piece| manifest.feed(piece))?;
        manifest.finish()
    };
    let whole = read(text.len().max(1));
    assert_eq!(read(length), whole, "pieces make a difference");
    // Names of files stand in the middle, and once at the end.
    let words = |why: String| match why.find("CRC-32C of ") {
        Some(at) => why[..at].to_owned(),
        None => {
            let why = crate::fuzzing::without_quoted(&why);
            why.split(' ').rev().take(3).collect::<Vec<_>>().join(" ")
        }
    };
    whole.map(drop).map_err(words)
}

const PAGE: u32 = 512;
const IN_FILE: u32 = 64;

pub(crate) fn changes_seeds() -> Vec<Vec<u8>> {
    let file = |former: u8, limit: u32, pages: &[u32]| {
        let mut bytes = Vec::new();
        let head = [0xd3ae_1f0d, pages.len() as u32, limit];
        for number in head.iter().chain(pages) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        if !pages.is_empty() {
            bytes.resize(BLOCK * (1 + pages.len()), 0);
        }
        [&[former][..], &bytes].concat()
    };
    vec![file(3, 5, &[]), file(9, 5, &[0, 1, 4]), file(0, 2, &[7, 63])]
}

pub(crate) fn changes(bytes: &[u8]) -> Outcome {
    let Some((former, file)) = bytes.split_first() else {
        return Err("nothing".into());
    };
    let former = u64::from(*former) * u64::from(PAGE);
    let mut file = Bytes::copy_from_slice(file);
    let size = file.len() as u64;
    let mut changes = Changes::begin(&mut file, size, PAGE, IN_FILE, former)?;
    let mut extents = Vec::new();
    while !file.is_empty() {
        let piece = file.split_to(file.len().min(3 * PAGE as usize));
        changes.feed(piece, &mut extents)?;
    }
    changes.finish(&mut extents)?;
    let mut length = 0;
    for extent in &extents {
        length += match extent {
            Extent::Data(bytes) => bytes.len() as u64,
            Extent::Unchanged(count) => {
                assert!(length + count <= former, "it takes what the former file does not have");
                *count
            }
            Extent::Hole(count) => *count,
        };
    }
    assert_eq!(length, changes.size(), "it is not as long as it says");
    Ok(())
}
