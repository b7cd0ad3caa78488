//! The archives in which a server sends its files: tar, as PostgreSQL writes it.
//!
//! That is ustar with names of up to 100 bytes, numbers in octal or, beyond eight digits, in base
//! 256, and of kinds only files, directories and symbolic links. Nothing else is accepted: an
//! archive that says something unknown is not a server's, or comes from a version that is not
//! known, and a guess would end up in a backup. Every number is bounded, every header's checksum
//! compared, and the archive must end as it should, with two empty blocks and nothing after them.
//!
//! The reader takes bytes as they come, and holds no more than one header.

use bytes::{Buf, Bytes};

/// Everything in an archive begins at a multiple of this.
const BLOCK: usize = 512;

/// No file is larger, in bytes.
const LARGEST: u64 = 1 << 50;

/// What is wrong with an archive.
type Flaw = String;

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name, without the slash that a directory's ends with.
    pub(super) name: Vec<u8>,
    pub(super) kind: MemberKind,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// What the account is called, where the server says it.
    pub(super) user: Vec<u8>,
    pub(super) group: Vec<u8>,
    /// Seconds since 1970.
    pub(super) modified: u64,
    /// How many bytes of content follow.
    pub(super) size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MemberKind {
    File,
    Directory,
    /// What it points to.
    Symlink(Vec<u8>),
}

/// A part of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A member begins.
    Member(Member),
    /// Some of its content; never empty.
    Content(Bytes),
    /// All of its content has come. Follows every member.
    End,
}

/// Reads one archive.
#[derive(Debug)]
pub(super) struct Tar {
    state: State,
    header: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// Collecting a header, after so many empty blocks.
    Header { empty: u32 },
    /// Within a member: so much content is left, and then so much filling.
    Member { content: u64, filling: u64 },
}

impl Tar {
    pub(super) fn new() -> Self {
        Self { state: State::Header { empty: 0 }, header: Vec::with_capacity(BLOCK) }
    }

    /// Takes the next part from the beginning of `input`; `None` when it needs more.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<Part>, Flaw> {
        loop {
            match &mut self.state {
                State::Header { empty } => {
                    if *empty == 2 && !input.is_empty() {
                        return Err("something follows its end".into());
                    }
                    let wanted = (BLOCK - self.header.len()).min(input.len());
                    self.header.extend_from_slice(&input.split_to(wanted));
                    if self.header.len() < BLOCK {
                        return Ok(None);
                    }
                    let is_empty = self.header.iter().all(|byte| *byte == 0);
                    if is_empty {
                        *empty += 1;
                        self.header.clear();
                        continue;
                    }
                    if *empty > 0 {
                        return Err("it ends with one empty block instead of two".into());
                    }
                    let member = read_header(&self.header)?;
                    self.header.clear();
                    let filling = member.size.next_multiple_of(BLOCK as u64) - member.size;
                    self.state = State::Member { content: member.size, filling };
                    return Ok(Some(Part::Member(member)));
                }
                State::Member { content: 0, filling: 0 } => {
                    self.state = State::Header { empty: 0 };
                    return Ok(Some(Part::End));
                }
                State::Member { content: 0, filling } => {
                    let skipped = within(input, *filling);
                    if skipped == 0 {
                        return Ok(None);
                    }
                    input.advance(skipped);
                    *filling -= skipped as u64;
                }
                State::Member { content, .. } => {
                    let taken = within(input, *content);
                    if taken == 0 {
                        return Ok(None);
                    }
                    *content -= taken as u64;
                    return Ok(Some(Part::Content(input.split_to(taken))));
                }
            }
        }
    }

    /// Whether the archive ended as it should.
    pub(super) fn finish(&self) -> Result<(), Flaw> {
        match self.state {
            State::Header { empty: 2 } => Ok(()),
            _ => Err("it is cut short".into()),
        }
    }
}

fn within(input: &Bytes, limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX).min(input.len())
}

fn read_header(header: &[u8]) -> Result<Member, Flaw> {
    let field = |at: usize, length: usize| &header[at..at + length];
    if field(257, 8) != b"ustar\x0000" {
        return Err("a header is not one of ustar".into());
    }
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = field(148, 8).iter().map(|byte| u64::from(*byte)).sum();
    // The checksum itself counts as spaces.
    if number(field(148, 8)).ok() != Some(sum - own + 8 * u64::from(b' ')) {
        return Err("the checksum of a header is wrong".into());
    }
    let mut name = text(field(0, 100)).to_vec();
    let shown = name.escape_ascii().to_string();
    let flaw = |why: &str| format!("its member \"{shown}\" {why}");
    if field(345, 155).iter().any(|byte| *byte != 0) {
        return Err(flaw("has a name in two parts"));
    }
    let small = |at: usize| {
        let found = number(field(at, 8)).map_err(&flaw)?;
        u32::try_from(found).map_err(|_| flaw("has a number that is too large"))
    };
    let large = |at: usize| number(field(at, 12)).map_err(&flaw);
    let target = text(field(157, 100));
    let kind = match header[156] {
        b'0' => MemberKind::File,
        b'5' => MemberKind::Directory,
        b'2' => MemberKind::Symlink(target.to_vec()),
        _ => return Err(flaw("is neither file, directory nor link")),
    };
    // Links of a server lead to directories, and are written like those.
    if kind != MemberKind::File && name.last() == Some(&b'/') {
        name.pop();
    }
    if name.is_empty() {
        return Err(flaw("has no name"));
    }
    let size = large(124)?;
    if size > LARGEST {
        return Err(flaw("claims a size that no file has"));
    }
    if kind != MemberKind::File && size > 0 {
        return Err(flaw("has content, and is no file"));
    }
    Ok(Member {
        mode: small(100)? & 0o7777,
        uid: small(108)?,
        gid: small(116)?,
        modified: large(136)?,
        user: text(field(265, 32)).to_vec(),
        group: text(field(297, 32)).to_vec(),
        name,
        kind,
        size,
    })
}

/// A field up to its first zero byte.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number in octal digits, or in base 256 where the first bit is set.
fn number(field: &[u8]) -> Result<u64, &'static str> {
    const BAD: &str = "has a field that is no number";
    match field {
        [0x80, rest @ ..] => {
            let fits = rest.len() <= 8 || rest[..rest.len() - 8].iter().all(|byte| *byte == 0);
            if !fits {
                return Err("has a number that is too large");
            }
            Ok(rest.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        }
        _ => {
            let end = field.iter().position(|byte| matches!(byte, 0 | b' '));
            let (digits, rest) = field.split_at(end.unwrap_or(field.len()));
            let octal = digits.iter().all(|byte| matches!(byte, b'0'..=b'7'));
            // No field has so many digits that they would not fit.
            if digits.is_empty() || !octal || rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
                return Err(BAD);
            }
            Ok(digits.iter().fold(0, |value, digit| value << 3 | u64::from(digit - b'0')))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header as the server writes it.
    pub(crate) fn header(name: &[u8], kind: u8, size: u64) -> Vec<u8> {
        let mut header = vec![0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name);
        put(100, b"0000600 ");
        put(108, b"0000032 ");
        put(116, b"0000033 ");
        match size {
            0..0o100_000_000_000 => put(124, format!("{size:011o} ").as_bytes()),
            _ => {
                put(124, &[0x80, 0, 0, 0]);
                put(128, &size.to_be_bytes());
            }
        }
        put(136, b"14712345670 ");
        put(156, &[kind]);
        put(257, b"ustar\x0000");
        put(265, b"postgres");
        put(297, b"postgres");
        seal(&mut header);
        header
    }

    /// Sets the checksum.
    fn seal(header: &mut [u8]) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:07o} ").as_bytes());
    }

    /// A file of an archive.
    pub(crate) fn file(name: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes = header(name.as_bytes(), b'0', content.len() as u64);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    type Found = Vec<(Member, Vec<u8>)>;

    /// Reads an archive that comes in pieces.
    fn read(pieces: impl IntoIterator<Item = Bytes>) -> Result<Found, Flaw> {
        let mut tar = Tar::new();
        let (mut found, mut open): (Found, bool) = (Vec::new(), false);
        for mut piece in pieces {
            while let Some(part) = tar.next(&mut piece)? {
                match part {
                    Part::Member(member) => {
                        assert!(!std::mem::replace(&mut open, true));
                        found.push((member, Vec::new()));
                    }
                    Part::Content(bytes) => found.last_mut().unwrap().1.extend_from_slice(&bytes),
                    Part::End => assert!(std::mem::replace(&mut open, false)),
                }
            }
            assert!(piece.is_empty());
        }
        tar.finish()?;
        Ok(found)
    }

    fn whole(bytes: Vec<u8>) -> Result<Found, Flaw> {
        read([Bytes::from(bytes)])
    }

    fn ended(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        bytes
    }

    fn sample() -> Vec<u8> {
        let mut bytes = file("backup_label", b"START");
        bytes.extend(header(b"base/", b'5', 0));
        bytes.extend(file("base/5/1249", &[7; 1024]));
        bytes.extend(file("empty", b""));
        ended(bytes)
    }

    #[test]
    fn members_are_read_as_a_server_writes_them() {
        let found = whole(sample()).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|(member, content)| {
                let name = String::from_utf8(member.name.clone()).unwrap();
                (name, member.kind == MemberKind::File, content.len())
            })
            .collect();
        let expected = [
            ("backup_label", true, 5),
            ("base", false, 0),
            ("base/5/1249", true, 1024),
            ("empty", true, 0),
        ];
        assert_eq!(shown, expected.map(|(name, file, size)| (name.to_owned(), file, size)));
        let (member, _) = &found[0];
        assert_eq!((member.mode, member.uid, member.gid), (0o600, 26, 27));
        assert_eq!(member.modified, 0o14_712_345_670);
        assert_eq!(member.user, b"postgres");
    }

    /// GNU tar wrote this, and knows nothing of ours.
    #[test]
    fn what_another_program_writes_is_read_the_same() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("base")).unwrap();
        std::fs::write(directory.path().join("base/1"), [5; 700]).unwrap();
        std::os::unix::fs::symlink("/srv/space", directory.path().join("link")).unwrap();
        let made = std::process::Command::new("tar")
            .args(["--format=ustar", "--sort=name", "--blocking-factor=1", "-cf", "-"])
            .args(["base", "link"])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(made.status.success());
        let found = whole(made.stdout).unwrap();
        let names: Vec<_> = found.iter().map(|(member, _)| member.name.clone()).collect();
        assert_eq!(names, [&b"base"[..], b"base/1", b"link"]);
        assert_eq!(found[1].1, [5; 700]);
        assert_eq!(found[2].0.kind, MemberKind::Symlink(b"/srv/space".to_vec()));
    }

    #[test]
    fn sizes_beyond_octal_are_read_and_bounded() {
        let large = header(b"x", b'0', 9 << 30);
        assert_eq!(read_header(&large).unwrap().size, 9 << 30);
        for size in [LARGEST + 1, u64::MAX] {
            assert!(read_header(&header(b"x", b'0', size)).is_err(), "{size}");
        }
        let mut wide = header(b"x", b'0', u64::MAX);
        wide[125] = 1;
        seal(&mut wide);
        assert!(read_header(&wide).is_err());
        wide[124] = 0xFF;
        seal(&mut wide);
        assert!(read_header(&wide).is_err(), "a negative size");
    }

    type Change = &'static dyn Fn(&mut Vec<u8>);

    #[test]
    fn what_no_server_writes_is_refused() {
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut header = header(b"base/5/1", b'0', 0);
            change(&mut header);
            seal(&mut header);
            whole(ended(header))
        };
        assert!(changed(&|_| {}).is_ok());
        let bad: [(&str, Change); 10] = [
            ("magic", &|header| header[257] = b'x'),
            ("version", &|header| header[263] = b' '),
            ("kind", &|header| header[156] = b'1'),
            ("long name of GNU", &|header| header[156] = b'L'),
            ("device", &|header| header[156] = b'3'),
            ("prefix", &|header| header[345] = b'x'),
            ("letters in the size", &|header| header[124] = b'x'),
            ("an empty mode", &|header| header[100..108].fill(b' ')),
            ("digits after the end", &|header| header[102] = b' '),
            ("no name", &|header| header[0] = 0),
        ];
        for (what, change) in bad {
            assert!(changed(change).is_err(), "{what}");
        }
        assert!(whole(ended(header(b"base/", b'5', 512))).is_err(), "a directory with content");
        assert!(whole(ended(header(b"/", b'5', 0))).is_err(), "a directory without a name");
        let mut flipped = header(b"base/5/1", b'0', 0);
        flipped[3] ^= 1;
        assert!(whole(ended(flipped)).unwrap_err().contains("checksum"));
    }

    #[test]
    fn an_archive_must_end() {
        let good = sample();
        for end in 0..good.len() {
            assert!(whole(good[..end].to_vec()).is_err(), "{end}");
        }
        let mut long = good.clone();
        long.push(0);
        assert!(whole(long).unwrap_err().contains("follows"));
        let mut half = file("a", b"1");
        half.extend([0; BLOCK]);
        half.extend(file("b", b"2"));
        assert!(whole(ended(half)).is_err());
    }

    proptest! {
        #[test]
        fn pieces_are_as_good_as_the_whole(cuts in proptest::collection::vec(1..700_usize, 1..20)) {
            let (mut rest, mut pieces) = (Bytes::from(sample()), Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                pieces.push(rest.split_to((*cut).min(rest.len())));
            }
            prop_assert_eq!(read(pieces), whole(sample()));
        }

        /// Whatever comes is an archive or a flaw, never a panic, and no content is made up.
        #[test]
        fn anything_can_come(
            at in 0..2048_usize, bytes in proptest::collection::vec(any::<u8>(), 0..600)
        ) {
            let mut archive = sample();
            for (place, byte) in archive.iter_mut().skip(at).zip(&bytes) {
                *place = *byte;
            }
            let length = archive.len();
            if let Ok(found) = whole(archive) {
                let content: usize = found.iter().map(|(_, content)| content.len()).sum();
                prop_assert!(content < length);
            }
        }
    }
}
