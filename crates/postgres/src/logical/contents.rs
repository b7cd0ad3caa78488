//! The entries that an archive of `pg_dump` has for data, made from what a snapshot has.
//!
//! A snapshot keeps the table of contents of the schema, as `pg_dump` wrote it. What is missing in
//! it are the entries that `pg_dump` would have made for rows, for sequences and for large objects;
//! they depend on the entries of their tables and sequences, which are found by their names. Places
//! in the order are those that `pg_dump` gives: large objects and data come before the first entry
//! of what comes after the rows.

use std::collections::HashMap;

use jiff::Timestamp;

use super::error::{DatabaseError, Result};
use super::name::{TableName, identifier, literal};
use super::script::Statement;
use super::taken::Known;
use super::toc::{Text, Toc, TocEntry, section};

/// The file with the names of the files of large objects.
pub(super) const LARGE_OBJECTS: &str = "blobs.toc";

const TABLE: &str = "TABLE";
const SEQUENCE: &str = "SEQUENCE";

/// A table of contents that is made.
#[derive(Debug)]
pub(super) struct Contents {
    toc: Toc,
    next: i32,
    /// Where the tables and the sequences are in it.
    places: HashMap<(&'static str, Vec<u8>, Vec<u8>), usize>,
    /// Large objects, with comments and privileges.
    large: Vec<TocEntry>,
    data: Vec<TocEntry>,
}

fn text(text: impl Into<String>) -> Text {
    Some(text.into().into_bytes())
}

fn wrong(what: impl Into<String>) -> DatabaseError {
    DatabaseError::NotASnapshot { what: what.into() }
}

impl Contents {
    /// From the table of contents of the schema, as a snapshot has it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let named = |why| wrong(format!("{}: {why}", super::layout::CONTENTS));
        let toc = Toc::parse(bytes).map_err(named)?;
        let next = toc.next_id().map_err(named)?;
        let mut places = HashMap::new();
        for (place, entry) in toc.entries.iter().enumerate() {
            for kind in [TABLE, SEQUENCE] {
                if entry.kind.as_deref() == Some(kind.as_bytes())
                    && let (Some(schema), Some(tag)) = (&entry.schema, &entry.tag)
                {
                    places.insert((kind, schema.clone(), tag.clone()), place);
                }
            }
        }
        Ok(Self { toc, next, places, large: Vec::new(), data: Vec::new() })
    }

    fn of(&self, kind: &'static str, name: &TableName) -> Option<&TocEntry> {
        let key = (kind, name.schema.clone().into_bytes(), name.name.clone().into_bytes());
        self.toc.entries.get(*self.places.get(&key)?)
    }

    /// An entry of this kind, without an object of a catalogue.
    fn entry(&mut self, kind: &str, section: i32) -> Result<TocEntry> {
        let id = self.next;
        self.next = id.checked_add(1).ok_or_else(|| wrong("it has too many entries"))?;
        let zero = text("0");
        Ok(TocEntry {
            id,
            section,
            class: zero.clone(),
            oid: zero,
            kind: text(kind),
            ..TocEntry::default()
        })
    }

    /// The rows of a table, in the encoding of the database; the result is the file for them.
    pub(super) fn table(&mut self, known: &Known, encoding: &str) -> Result<String> {
        let name = &known.name;
        let mut entry = self.entry("TABLE DATA", section::DATA)?;
        // An extension's table of settings has no entry: the extension makes it.
        if let Some(of) = self.of(TABLE, name) {
            entry.oid.clone_from(&of.oid);
            entry.owner.clone_from(&of.owner);
            entry.depends_on = vec![of.id];
        }
        let columns: Vec<_> = known.columns().iter().map(|column| identifier(column)).collect();
        let list = match columns.is_empty() {
            true => String::new(),
            false => format!(" ({})", columns.join(", ")),
        };
        // The table of contents is UTF-8, whatever the rows are.
        let with = match encoding {
            "UTF8" => String::new(),
            other => format!(" WITH (ENCODING {})", literal(other)),
        };
        entry.copy = text(format!("COPY {}{list} FROM stdin{with};\n", name.quoted()));
        entry.schema = text(&name.schema);
        entry.tag = text(&name.name);
        entry.has_data = true;
        let file = format!("{}.dat", entry.id);
        entry.file = text(&file);
        self.data.push(entry);
        Ok(file)
    }

    /// A statement that puts a sequence where it stands.
    pub(super) fn sequence(&mut self, statement: &Statement) -> Result<()> {
        let name = sequence_of(&statement.0)
            .ok_or_else(|| wrong(format!("\"{}\" moves no sequence", statement.shown())))?;
        let mut entry = self.entry("SEQUENCE SET", section::DATA)?;
        if let Some(of) = self.of(SEQUENCE, &name) {
            entry.owner.clone_from(&of.owner);
            entry.depends_on = vec![of.id];
        }
        entry.definition = text(format!("{};\n", statement.0));
        entry.schema = text(name.schema);
        entry.tag = text(name.name);
        self.data.push(entry);
        Ok(())
    }

    /// A statement that makes a large object, or says something of the one made last. The result is
    /// the oid of one that is made.
    pub(super) fn large_object(&mut self, statement: &Statement) -> Result<Option<u32>> {
        let unknown = || wrong(format!("\"{}\" makes no large object", statement.shown()));
        let (about, oid, rest) = about_large(&statement.0).ok_or_else(unknown)?;
        let number = oid.to_string();
        if about == About::Made {
            let mut entry = self.entry("BLOB", section::BEFORE)?;
            entry.class = text("2613");
            entry.oid = text(&number);
            entry.tag = text(&number);
            entry.definition = text(format!("{};\n", statement.0));
            entry.removal = text(format!("SELECT pg_catalog.lo_unlink('{number}');\n"));
            self.large.push(entry);
            return Ok(Some(oid));
        }
        let is_blob = |entry: &&mut TocEntry| entry.kind.as_deref() == Some(b"BLOB");
        let last = self.large.iter_mut().rev().find(is_blob).ok_or_else(unknown)?;
        if last.tag.as_deref() != Some(number.as_bytes()) {
            return Err(unknown());
        }
        let (id, owner) = (last.id, last.owner.clone());
        let kind = match about {
            About::Owned => {
                last.owner = text(unquoted(rest).ok_or_else(unknown)?);
                return Ok(None);
            }
            About::Granted => "ACL",
            About::Made | About::Comment => "COMMENT",
        };
        let mut entry = self.entry(kind, section::NONE)?;
        entry.tag = text(format!("LARGE OBJECT {number}"));
        entry.definition = text(format!("{};\n", statement.0));
        entry.owner = owner;
        entry.depends_on = vec![id];
        self.large.push(entry);
        Ok(None)
    }

    /// The content of the large objects, whose files are named in [`LARGE_OBJECTS`].
    pub(super) fn large_objects(&mut self) -> Result<()> {
        let mut entry = self.entry("BLOBS", section::DATA)?;
        entry.tag = text("BLOBS");
        entry.has_data = true;
        entry.file = text(LARGE_OBJECTS);
        self.data.push(entry);
        Ok(())
    }

    /// The table of contents of a directory, as of the moment of the snapshot.
    pub(super) fn finish(mut self, taken: Timestamp) -> Vec<u8> {
        let is_after = |entry: &TocEntry| entry.section == section::AFTER;
        let before = self.toc.entries.iter().position(is_after);
        let after = self.toc.entries.split_off(before.unwrap_or(self.toc.entries.len()));
        self.toc.entries.extend(self.large.into_iter().chain(self.data).chain(after));
        self.toc.to_directory(taken)
    }
}

/// The sequence of `SELECT pg_catalog.setval('…', …, …)`, as a snapshot has it.
fn sequence_of(statement: &str) -> Option<TableName> {
    let inside = statement.strip_prefix("SELECT pg_catalog.setval(")?.strip_suffix(')')?;
    let (rest, _called) = inside.rsplit_once(", ")?;
    let (quoted, _value) = rest.rsplit_once(", ")?;
    let (inside, is_escaped) = match quoted.strip_prefix('E') {
        Some(rest) => (rest, true),
        None => (quoted, false),
    };
    let inside = inside.strip_prefix('\'')?.strip_suffix('\'')?;
    let plain = if is_escaped { inside.replace("\\\\", "\\") } else { inside.to_owned() };
    TableName::parse(&plain.replace("''", "'")).ok()
}

/// What a statement about a large object says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Made,
    Owned,
    Comment,
    Granted,
}

/// What a statement says, of which large object, and what follows.
fn about_large(statement: &str) -> Option<(About, u32, &str)> {
    let (about, rest) = if let Some(rest) = statement.strip_prefix("SELECT pg_catalog.lo_create('")
    {
        (About::Made, rest)
    } else if let Some(rest) = statement.strip_prefix("ALTER LARGE OBJECT ") {
        (About::Owned, rest)
    } else if let Some(rest) = statement.strip_prefix("COMMENT ON LARGE OBJECT ") {
        (About::Comment, rest)
    } else {
        let rest = statement.strip_prefix("GRANT ")?;
        (About::Granted, rest.split_once(" ON LARGE OBJECT ")?.1)
    };
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let (oid, rest) = rest.split_at(end);
    let rest = match about {
        About::Made => rest.strip_prefix("')").filter(|rest| rest.is_empty())?,
        About::Owned => rest.strip_prefix(" OWNER TO ")?,
        About::Comment | About::Granted => rest,
    };
    Some((about, oid.parse().ok()?, rest))
}

/// What stands in double quotes.
fn unquoted(text: &str) -> Option<String> {
    Some(text.strip_prefix('"')?.strip_suffix('"')?.replace("\"\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_statements() {
        for name in ["free", "it's", "a\\b", "x, 1", "\"q\".\"", "ö"] {
            let name = TableName::new("Odd, '\\ schema", name);
            let quoted = literal(&name.quoted());
            let statement = format!("SELECT pg_catalog.setval({quoted}, 8, true)");
            assert_eq!(sequence_of(&statement), Some(name), "{statement}");
        }
        assert_eq!(sequence_of("SELECT pg_catalog.setval(x, 8, true)"), None);
        assert_eq!(unquoted("\"a\"\"b\"").as_deref(), Some("a\"b"));
    }

    #[test]
    fn what_is_said_of_large_objects_is_told_apart() {
        let cases = [
            ("SELECT pg_catalog.lo_create('7')", Some((About::Made, 7, ""))),
            ("ALTER LARGE OBJECT 7 OWNER TO \"x\"", Some((About::Owned, 7, "\"x\""))),
            ("COMMENT ON LARGE OBJECT 7 IS 'x'", Some((About::Comment, 7, " IS 'x'"))),
            ("GRANT SELECT ON LARGE OBJECT 7 TO \"x\"", Some((About::Granted, 7, " TO \"x\""))),
            ("SELECT pg_catalog.lo_create('7'); DROP TABLE x", None),
            ("ALTER LARGE OBJECT x OWNER TO \"x\"", None),
            ("DROP TABLE x", None),
        ];
        for (statement, expected) in cases {
            assert_eq!(about_large(statement), expected, "{statement}");
        }
    }
}
