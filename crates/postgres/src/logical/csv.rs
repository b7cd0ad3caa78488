//! Rows from COPY's text form into CSV, as the server's own `COPY … (FORMAT csv, HEADER)` writes it.
//!
//! In the text form, columns stand between tabs, `\N` alone is NULL, and a backslash escapes what
//! would be taken for something else. In CSV, NULL is nothing, an empty text is `""`, and a value is
//! quoted when it has to be. Source: the page on COPY in PostgreSQL's documentation; a test compares
//! with the servers.

/// Converts the rows of one table as their bytes come by.
#[derive(Debug)]
pub(super) struct Csv {
    columns: usize,
    /// A row whose end has not come yet.
    begun: Vec<u8>,
}

impl Csv {
    /// Of rows with so many columns.
    pub(super) fn new(columns: usize) -> Self {
        Self { columns, begun: Vec::new() }
    }

    /// The line with the names of the columns.
    pub(super) fn header(names: &[String], into: &mut Vec<u8>) {
        for (number, name) in names.iter().enumerate() {
            if number > 0 {
                into.push(b',');
            }
            value(name.as_bytes(), names.len(), into);
        }
        into.push(b'\n');
    }

    /// Goes on with the next bytes. The result is `None` when a row cannot be understood.
    pub(super) fn feed(&mut self, mut bytes: &[u8], into: &mut Vec<u8>) -> Option<()> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.begun.is_empty() {
                self.row(line, into)?;
            } else {
                let mut whole = std::mem::take(&mut self.begun);
                whole.extend_from_slice(line);
                self.row(&whole, into)?;
            }
        }
        self.begun.extend_from_slice(bytes);
        Some(())
    }

    fn row(&self, line: &[u8], into: &mut Vec<u8>) -> Option<()> {
        let mut columns = 0;
        if self.columns > 0 {
            for field in line.split(|byte| *byte == b'\t') {
                if columns > 0 {
                    into.push(b',');
                }
                columns += 1;
                if field != b"\\N" {
                    value(&unescaped(field)?, self.columns, into);
                }
            }
        } else if !line.is_empty() {
            return None;
        }
        into.push(b'\n');
        (columns == self.columns).then_some(())
    }
}

/// A value of the text form as it is.
fn unescaped(field: &[u8]) -> Option<std::borrow::Cow<'_, [u8]>> {
    if !field.contains(&b'\\') {
        return Some(field.into());
    }
    let mut plain = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next()? {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                b'\\' => b'\\',
                // The server writes no others.
                _ => return None,
            },
            byte => *byte,
        });
    }
    Some(plain.into())
}

/// A value as it stands in CSV.
fn value(bytes: &[u8], columns: usize, into: &mut Vec<u8>) {
    let special = |byte: &u8| matches!(byte, b',' | b'"' | b'\n' | b'\r');
    // Alone on a line, `\.` would be taken for the end.
    let is_end = columns == 1 && bytes == b"\\.";
    if !bytes.is_empty() && !is_end && !bytes.iter().any(special) {
        into.extend_from_slice(bytes);
        return;
    }
    into.push(b'"');
    for byte in bytes {
        if *byte == b'"' {
            into.push(b'"');
        }
        into.push(*byte);
    }
    into.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn csv(columns: usize, rows: &[u8], piece: usize) -> Option<String> {
        let (mut csv, mut out) = (Csv::new(columns), Vec::new());
        for piece in rows.chunks(piece) {
            csv.feed(piece, &mut out)?;
        }
        String::from_utf8(out).ok()
    }

    #[test]
    fn values_are_quoted_when_they_must_be() {
        let rows = b"1\t\\N\t\t\\\\N\na,b\tq\"q\tl\\nl\tt\\tt\nx\\\\y\t\\r\t \t\\\\.\n";
        let expected = "1,,\"\",\\N\n\"a,b\",\"q\"\"q\",\"l\nl\",t\tt\nx\\y,\"\r\", ,\\.\n";
        for piece in 1..10 {
            assert_eq!(csv(4, rows, piece).as_deref(), Some(expected));
        }
        assert_eq!(csv(1, b"\\\\.\n\n\\N\n", 9).as_deref(), Some("\"\\.\"\n\"\"\n\n"));
        assert_eq!(csv(0, b"\n\n", 9).as_deref(), Some("\n\n"));
        for (columns, bad) in
            [(2, &b"1\n"[..]), (1, b"1\t2\n"), (0, b"1\n"), (1, b"\\x\n"), (1, b"\\\n")]
        {
            assert_eq!(csv(columns, bad, 9), None, "{bad:?}");
        }
    }

    #[test]
    fn the_names_of_columns_are_quoted_as_well() {
        let mut out = Vec::new();
        Csv::header(&["a".into(), "b \"c\", d".into()], &mut out);
        assert_eq!(out, b"a,\"b \"\"c\"\", d\"\n");
    }

    proptest! {
        #[test]
        fn nothing_panics(rows in "[a\\\\Nnt.\t\n\",]{0,30}", columns in 0usize..4, piece in 1usize..9) {
            prop_assert_eq!(csv(columns, rows.as_bytes(), piece).is_some(), csv(columns, rows.as_bytes(), 99).is_some());
        }
    }
}
