//! What `pg_dump` and the server give of a database, for the fuzz targets.

use super::contents::Contents;
use super::csv::Csv;
use super::foreign_key::ForeignKey;
use super::large_objects;
use super::name::TableName;
use super::script::{Statement, Statements};
use super::{roles, toc};

type Outcome = Result<(), String>;

/// The first byte says in pieces of which length the rest comes.
fn pieces(bytes: &[u8]) -> (usize, &[u8]) {
    match bytes.split_first() {
        Some((length, rest)) => (usize::from(*length) + 1, rest),
        None => (1, bytes),
    }
}

pub(crate) fn contents_seeds() -> Vec<Vec<u8>> {
    let number =
        |value: i32| [&[u8::from(value < 0)][..], &value.unsigned_abs().to_le_bytes()].concat();
    let text = |text: &str| [&number(text.len() as i32)[..], text.as_bytes()].concat();
    let none = number(-1);
    let seed = |minor: u8| {
        let is_new = minor >= 15;
        let mut bytes = [&b"PGDMP\x01"[..], &[minor, 0, 4, 8, 1]].concat();
        bytes.extend(if is_new { vec![0] } else { number(0) });
        (0..7).for_each(|part| bytes.extend(number(part)));
        ["shop", "15.18", "15.18"].iter().for_each(|part| bytes.extend(text(part)));
        bytes.extend(number(2));
        for (id, kind, section) in [(7, "TABLE", 2), (8, "INDEX", 4)] {
            bytes.extend([number(id), number(0)].concat());
            ["1259", "16403", "orders", kind].iter().for_each(|part| bytes.extend(text(part)));
            bytes.extend(number(section));
            let texts = [text("CREATE;\n"), text("DROP;\n"), none.clone(), text("shop")];
            bytes.extend([&texts.concat()[..], &none, &text("heap")].concat());
            if minor >= 16 {
                bytes.extend(number(0));
            }
            bytes.extend([text("owner"), text("false"), text("7"), none.clone()].concat());
            bytes.extend([3, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        bytes
    };
    vec![seed(14), seed(15), seed(16)]
}

pub(crate) fn contents(bytes: &[u8]) -> Outcome {
    let mut undated = bytes.to_vec();
    toc::undate(&mut undated);
    let read = |bytes: &[u8]| Contents::parse(bytes).map_err(|error| error.to_string());
    let mut contents = read(bytes)?;
    let sequence = Statement("SELECT pg_catalog.setval('shop.orders', 8, true)".to_owned());
    contents.sequence(&sequence).map_err(|error| error.to_string())?;
    contents.large_objects().map_err(|error| error.to_string())?;
    assert!(!contents.finish(jiff::Timestamp::UNIX_EPOCH).is_empty());
    // The time is of no matter.
    read(&undated).map(drop)
}

pub(crate) fn script_seeds() -> Vec<Vec<u8>> {
    [
        "\x05-- c\nSET a = 'x';\nCREATE TABLE \"a;b\".c (d int);\n/* /* ; */ */ SELECT $q$;$q$, E'\\';';\n",
        "\x40CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; END;\n",
        "\x01ALTER TABLE ONLY a.b ADD CONSTRAINT \"c\"\"\" FOREIGN KEY (d) REFERENCES e.\"f\"(g);\n",
        "\x02\\restrict abc\nGRANT x TO \"y\"\"\";\nALTER ROLE z OWNER TO q;\n\\unrestrict abc\n",
        "\x09SELECT pg_catalog.lo_create('7');\nCREATE RULE r AS ON DELETE TO t DO (SELECT 1; SELECT 2);\n",
    ]
    .iter()
    .map(|seed| seed.as_bytes().to_vec())
    .collect()
}

pub(crate) fn script(bytes: &[u8]) -> Outcome {
    let (length, script) = pieces(bytes);
    let read = |length: usize| -> Result<Vec<Statement>, String> {
        let mut statements = Statements::new("a script");
        let mut found = Vec::new();
        // A command of psql is shown at the end.
        let told = |error: super::error::DatabaseError| {
            error.to_string().split(' ').take(7).collect::<Vec<_>>().join(" ")
        };
        for piece in script.chunks(length) {
            statements.feed(piece).map_err(told)?;
            while let Some(statement) = statements.next().map_err(told)? {
                found.push(statement);
            }
        }
        while let Some(statement) = statements.rest().map_err(told)? {
            found.push(statement);
        }
        Ok(found)
    };
    let whole = read(script.len().max(1));
    match (&whole, read(length)) {
        (Ok(whole), Ok(cut)) => assert_eq!(*whole, cut, "pieces make a difference"),
        (Err(_), Err(_)) => {}
        (whole, cut) => panic!("pieces make a difference: {whole:?}, {cut:?}"),
    }
    let table = TableName::new("a;b", "c");
    for statement in &whole? {
        statement.purpose();
        statement.setting();
        statement.makes_table(&table);
        roles::meant(statement);
        assert!(statement.shown().chars().count() <= 161);
        if let Some(key) = ForeignKey::of(&statement.0) {
            assert!(key.from.contains('.') && key.to.contains('.'), "{key:?}");
        }
    }
    Ok(())
}

pub(crate) fn rows_seeds() -> Vec<Vec<u8>> {
    vec![
        b"\x031\tx\\ty\t\\N\n\\\\\t\\x41\t\\101\n".to_vec(),
        b"\x50a,\"b\tc\t\xc3\xa9\n\t\t\n".to_vec(),
        b"\x0216440\t65536\t\\\\x00ff41\n".to_vec(),
    ]
}

/// Rows of three columns as CSV, and lines as pieces of large objects.
pub(crate) fn rows(bytes: &[u8]) -> Outcome {
    let (length, rows) = pieces(bytes);
    let read = |length: usize| {
        let (mut csv, mut out) = (Csv::new(3), Vec::new());
        let taken = rows.chunks(length).all(|piece| csv.feed(piece, &mut out).is_some());
        taken.then_some(out)
    };
    let whole = read(rows.len().max(1));
    assert_eq!(whole, read(length), "pieces make a difference");
    for line in rows.split(|byte| *byte == b'\n') {
        if let Some((_, _, bytes)) = large_objects::piece(line) {
            assert!(2 * bytes.len() < line.len());
        }
    }
    whole.map(drop).ok_or_else(|| "no rows of three columns".to_owned())
}
