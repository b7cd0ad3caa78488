//! The table of contents of an archive of `pg_dump`: what `pg_restore` reads first.
//!
//! Only `pg_dump` knows what every object depends on, so its own table of contents is kept with a
//! snapshot: that of an archive in custom format without data (`pg_dump --format=custom`), which is
//! little more than that. A directory archive begins with the same table, in which entries with
//! data name their files.
//!
//! The form is that of PostgreSQL's `src/bin/pg_dump/pg_backup_archiver.c` (`WriteHead`, `WriteToc`),
//! versions 1.14 (`pg_dump` 12 to 15), 1.15 (16) and 1.16 (17 and 18):
//!
//! ```text
//! "PGDMP", version (3 bytes), size of integers (4), size of offsets, format (1 custom, 3 tar and
//! directory), compression (an integer; from 1.15 a byte), time of creation (7 integers: seconds to
//! years since 1900, and whether it is summer), database, version of the server, of pg_dump
//! number of entries; of each: id, whether it has data, class and oid (as text), tag, kind, section,
//! definition, removal, COPY, schema, tablespace, access method, from 1.16 the kind of relation,
//! owner, "false", the ids that it depends on (as text) and no text after them; and then in custom
//! format where the data is (a byte and an offset), in a directory the name of the file
//! ```
//!
//! An integer is a byte for the sign and four bytes, the lowest first; a text its length and its
//! bytes, and no text the length -1.

use jiff::{Timestamp, tz::TimeZone};

/// What every archive begins with.
const MAGIC: &[u8] = b"PGDMP";
/// Where the compression is said.
const COMPRESSION: usize = 11;
/// An integer takes so many bytes.
const INTEGER: usize = 5;
/// The time of creation is so many integers.
const TIMES: usize = 7;
/// Custom format, and what a directory says that it is.
const CUSTOM: u8 = 1;
const DIRECTORY: u8 = 3;
/// No table of contents that is larger is read, in bytes.
pub(crate) const LARGEST: usize = 512 << 20;

/// A text, or none.
pub(crate) type Text = Option<Vec<u8>>;

/// In which part of a restore an entry has its place.
pub(crate) mod section {
    pub(crate) const NONE: i32 = 1;
    pub(crate) const BEFORE: i32 = 2;
    pub(crate) const DATA: i32 = 3;
    pub(crate) const AFTER: i32 = 4;
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TocEntry {
    /// From 1 on, and different for each.
    pub(crate) id: i32,
    pub(crate) has_data: bool,
    /// The oid of the catalogue that has it, as text.
    pub(crate) class: Text,
    pub(crate) oid: Text,
    /// Its name, without the schema.
    pub(crate) tag: Text,
    /// `TABLE`, `TABLE DATA`, …
    pub(crate) kind: Text,
    pub(crate) section: i32,
    pub(crate) definition: Text,
    pub(crate) removal: Text,
    pub(crate) copy: Text,
    pub(crate) schema: Text,
    pub(crate) tablespace: Text,
    pub(crate) access_method: Text,
    /// As a number of one character; 0 when it is not said.
    pub(crate) relation_kind: i32,
    pub(crate) owner: Text,
    pub(crate) depends_on: Vec<i32>,
    /// Where its data is, in a directory.
    pub(crate) file: Text,
}

/// A table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toc {
    version: [u8; 3],
    offset_size: u8,
    database: Text,
    server: Text,
    program: Text,
    pub(crate) entries: Vec<TocEntry>,
}

/// Why bytes are no table of contents, for people.
pub(crate) type Wrong = &'static str;

impl Toc {
    /// Reads an archive in custom format. What follows the table is not looked at.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        let mut reader = Reader(bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err("it is no archive of pg_dump");
        }
        let version = [reader.byte()?, reader.byte()?, reader.byte()?];
        if version[0] != 1 || !(14..=16).contains(&version[1]) {
            return Err("it is of a version that is not known");
        }
        let (integer_size, offset_size, format) = (reader.byte()?, reader.byte()?, reader.byte()?);
        if integer_size != 4 || !(1..=8).contains(&offset_size) || format != CUSTOM {
            return Err("it is not in the form that is kept in snapshots");
        }
        if version[1] >= 15 {
            reader.byte()?;
        } else {
            reader.integer()?;
        }
        for _ in 0..TIMES {
            reader.integer()?;
        }
        let (database, server, program) = (reader.text()?, reader.text()?, reader.text()?);
        let count = reader.integer()?;
        let mut entries = Vec::new();
        let mut ids = std::collections::HashSet::new();
        for _ in 0..count {
            let entry = reader.entry(version[1] >= 16, offset_size)?;
            if entry.id < 1 || !ids.insert(entry.id) {
                return Err("it has an entry without a number of its own");
            }
            entries.push(entry);
        }
        Ok(Self { version, offset_size, database, server, program, entries })
    }

    /// A number that no entry has.
    pub(crate) fn next_id(&self) -> Result<i32, Wrong> {
        let most = self.entries.iter().map(|entry| entry.id).max().unwrap_or_default();
        most.checked_add(1).ok_or("its numbers are used up")
    }

    /// As the table of a directory, which was made at that time.
    pub(crate) fn to_directory(&self, taken: Timestamp) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version);
        out.extend_from_slice(&[4, self.offset_size, DIRECTORY]);
        // Nothing is compressed; files that are, pg_restore knows by their names.
        if self.version[1] >= 15 {
            out.push(0);
        } else {
            integer(&mut out, 0);
        }
        out.extend_from_slice(&moment(taken));
        for one in [&self.database, &self.server, &self.program] {
            text(&mut out, one.as_deref());
        }
        // As many as were read and made, which fit an integer.
        integer(&mut out, i32::try_from(self.entries.len()).unwrap_or(i32::MAX));
        for entry in &self.entries {
            entry.write(self.version[1] >= 16, &mut out);
        }
        out
    }
}

impl TocEntry {
    fn write(&self, has_relation_kind: bool, out: &mut Vec<u8>) {
        integer(out, self.id);
        integer(out, i32::from(self.has_data));
        for one in [&self.class, &self.oid, &self.tag, &self.kind] {
            text(out, one.as_deref());
        }
        integer(out, self.section);
        let texts = [
            &self.definition,
            &self.removal,
            &self.copy,
            &self.schema,
            &self.tablespace,
            &self.access_method,
        ];
        for one in texts {
            text(out, one.as_deref());
        }
        if has_relation_kind {
            integer(out, self.relation_kind);
        }
        text(out, self.owner.as_deref());
        text(out, Some(b"false"));
        for id in &self.depends_on {
            text(out, Some(id.to_string().as_bytes()));
        }
        text(out, None);
        text(out, Some(self.file.as_deref().unwrap_or_default()));
    }
}

/// 2000-01-01.
const NO_TIME: Timestamp = Timestamp::constant(946_684_800, 0);

/// Takes the time of creation out of the beginning of an archive, so that the same schema is the
/// same bytes each time.
pub(crate) fn undate(head: &mut [u8]) {
    if !head.starts_with(MAGIC) {
        return;
    }
    let is_byte = head.get(6).is_some_and(|minor| *minor >= 15);
    let from = COMPRESSION + if is_byte { 1 } else { INTEGER };
    if let Some(times) = head.get_mut(from..from + TIMES * INTEGER) {
        times.copy_from_slice(&moment(NO_TIME));
    }
}

/// So many bytes hold all that [`undate`] changes.
pub(crate) const DATED: usize = COMPRESSION + INTEGER + TIMES * INTEGER;

fn moment(at: Timestamp) -> Vec<u8> {
    let at = at.to_zoned(TimeZone::UTC);
    let mut out = Vec::with_capacity(TIMES * INTEGER);
    let times = [at.second(), at.minute(), at.hour(), at.day(), at.month() - 1];
    for value in times {
        integer(&mut out, value.into());
    }
    integer(&mut out, i32::from(at.year()) - 1900);
    integer(&mut out, 0);
    out
}

fn integer(out: &mut Vec<u8>, value: i32) {
    out.push(u8::from(value < 0));
    out.extend_from_slice(&value.unsigned_abs().to_le_bytes());
}

fn text(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => integer(out, -1),
        Some(bytes) => {
            // What is written here was read as such, or is far shorter.
            integer(out, i32::try_from(bytes.len()).unwrap_or(i32::MAX));
            out.extend_from_slice(bytes);
        }
    }
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Wrong> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("it is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Wrong> {
        Ok(self.take(1)?[0])
    }

    fn integer(&mut self) -> Result<i32, Wrong> {
        let sign = self.byte()?;
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        let value =
            i32::try_from(u32::from_le_bytes(bytes)).map_err(|_| "a number is too large")?;
        Ok(if sign == 0 { value } else { -value })
    }

    fn text(&mut self) -> Result<Text, Wrong> {
        match usize::try_from(self.integer()?) {
            Ok(length) => Ok(Some(self.take(length)?.to_vec())),
            Err(_) => Ok(None),
        }
    }

    fn entry(&mut self, has_relation_kind: bool, offset_size: u8) -> Result<TocEntry, Wrong> {
        let mut entry = TocEntry {
            id: self.integer()?,
            has_data: self.integer()? != 0,
            class: self.text()?,
            oid: self.text()?,
            tag: self.text()?,
            kind: self.text()?,
            section: self.integer()?,
            definition: self.text()?,
            removal: self.text()?,
            copy: self.text()?,
            schema: self.text()?,
            tablespace: self.text()?,
            access_method: self.text()?,
            relation_kind: if has_relation_kind { self.integer()? } else { 0 },
            owner: self.text()?,
            ..TocEntry::default()
        };
        if self.text()?.as_deref() != Some(b"false") {
            return Err("it has a table with oids, which no server has any more");
        }
        while let Some(id) = self.text()? {
            let id = std::str::from_utf8(&id).ok().and_then(|id| id.parse().ok());
            entry.depends_on.push(id.ok_or("an entry depends on what is no number")?);
        }
        self.take(1 + usize::from(offset_size))?;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of what pg_dump 15 and 18 write, by their hexadecimal dumps.
    const OLD: &[u8] = b"PGDMP\x01\x0e\x00\x04\x08\x01\x00\x00\x00\x00\x00\x00\x2b\x00\x00\x00\x00\
        \x3a\x00\x00\x00\x00\x06\x00\x00\x00\x00\x16\x00\x00\x00\x00\x0a\x00\x00\x00\x00\x7e\x00\
        \x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00shop\x00\x05\x00\x00\x0015.18\x00\x05\x00\
        \x00\x0015.18\x00\x01\x00\x00\x00";
    const NEW: &[u8] = b"PGDMP\x01\x10\x00\x04\x08\x01\x00\x00\x2e\x00\x00\x00\x00\x3a\x00\x00\x00\
        \x00\x06\x00\x00\x00\x00\x16\x00\x00\x00\x00\x0a\x00\x00\x00\x00\x7e\x00\x00\x00\x00\x00\
        \x00\x00\x00\x00\x04\x00\x00\x00shop\x00\x04\x00\x00\x0018.4\x00\x04\x00\x00\x0018.4\x00\
        \x01\x00\x00\x00";

    /// `ENCODING`, of version 1.14 without the kind of relation.
    fn encoding(has_relation_kind: bool) -> Vec<u8> {
        let none = b"\x01\x01\x00\x00\x00";
        [
            &b"\x00\x7c\x0d\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x000\x00\x01\x00\x00\x000"
                [..],
            b"\x00\x08\x00\x00\x00ENCODING\x00\x08\x00\x00\x00ENCODING\x00\x02\x00\x00\x00",
            b"\x00\x1e\x00\x00\x00SET client_encoding = 'UTF8';\n",
            &none.repeat(5),
            if has_relation_kind { &[0; 5] } else { &[] },
            if has_relation_kind { &b"\x00\x00\x00\x00\x00"[..] } else { none },
            b"\x00\x05\x00\x00\x00false",
            b"\x00\x01\x00\x00\x007",
            none,
            b"\x03\x00\x00\x00\x00\x00\x00\x00\x00",
        ]
        .concat()
    }

    #[test]
    fn tables_of_every_version_are_read_and_written() {
        for (head, is_new) in [(OLD, false), (NEW, true)] {
            let bytes = [head, &encoding(is_new)].concat();
            let toc = Toc::parse(&bytes).unwrap();
            let [entry] = &toc.entries[..] else { panic!("{toc:?}") };
            assert_eq!((entry.id, entry.has_data, entry.section), (3452, false, section::BEFORE));
            assert_eq!(entry.definition.as_deref(), Some(&b"SET client_encoding = 'UTF8';\n"[..]));
            assert_eq!((&entry.schema, &entry.depends_on[..]), (&None, &[7][..]));
            assert_eq!(toc.next_id(), Ok(3453));
            // The same again as a directory: the format, the time, and a file in place of an offset.
            let at = "2026-11-22T06:58:43Z".parse().unwrap();
            let written = toc.to_directory(at);
            let mut expected = bytes.clone();
            expected[10] = DIRECTORY;
            let end = expected.len() - 9;
            expected.truncate(end);
            expected.extend_from_slice(&[0; 5]);
            if is_new {
                // The time of the one differs from the other by three seconds.
                expected[13] = 0x2b;
            }
            assert_eq!(written, expected, "{is_new}");
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let whole = [OLD, &encoding(false)].concat();
        for end in 0..whole.len() {
            assert!(Toc::parse(&whole[..end]).is_err(), "{end}");
        }
        for (at, byte) in [(0, b'Q'), (5, 2), (6, 17), (6, 13), (8, 8), (9, 9), (10, 3)] {
            let mut other = whole.clone();
            other[at] = byte;
            assert!(Toc::parse(&other).is_err(), "{at}");
        }
        // Two entries with one number, and one without any.
        let mut twice = [&whole[..], &encoding(false)].concat();
        twice[OLD.len() - 4] = 2;
        assert!(Toc::parse(&twice).is_err());
        let mut none = whole.clone();
        none[OLD.len() + 1] = 0;
        none[OLD.len() + 2] = 0;
        assert!(Toc::parse(&none).is_err());
    }

    #[test]
    fn the_time_is_taken_out() {
        for head in [OLD, NEW] {
            let (mut one, mut two) = (head.to_vec(), head.to_vec());
            let at = if head == OLD { 17 } else { 13 };
            two[at] += 1;
            undate(&mut one);
            undate(&mut two);
            assert!(one == two && one != head && DATED <= head.len());
            // Only the time.
            assert!(one.ends_with(&head[at + 34..]) && one.starts_with(&head[..at - 1]));
        }
        let mut text = b"-- a script".to_vec();
        undate(&mut text);
        assert_eq!(text, b"-- a script");
    }
}
