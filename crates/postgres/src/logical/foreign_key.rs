//! Which tables a statement connects that adds a foreign key.
//!
//! Adding a foreign key locks both tables against writes, and against others who do the same. Two
//! that share a table would wait for each other, in the worst case until the server breaks one off;
//! two that share none can be checked side by side.

/// The two tables, as the statement names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ForeignKey<'a> {
    pub(super) from: &'a str,
    pub(super) to: &'a str,
}

impl<'a> ForeignKey<'a> {
    /// Reads `ALTER TABLE … ADD CONSTRAINT … FOREIGN KEY (…) REFERENCES …`, as pg_dump writes it;
    /// `None` when it is anything else.
    pub(super) fn of(statement: &'a str) -> Option<Self> {
        let rest = word(statement, "ALTER")?;
        let rest = word(rest, "TABLE")?;
        let rest = word(rest, "ONLY").unwrap_or(rest);
        let (from, rest) = qualified(rest)?;
        let rest = word(word(rest, "ADD")?, "CONSTRAINT")?;
        let rest = identifier(rest.trim_start())?;
        let rest = word(word(rest, "FOREIGN")?, "KEY")?;
        let rest = parenthesised(rest.trim_start())?;
        let (to, rest) = qualified(word(rest, "REFERENCES")?)?;
        rest.starts_with('(').then_some(Self { from, to })
    }
}

/// What follows a word.
fn word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.trim_start().strip_prefix(word)?;
    rest.starts_with(|c: char| c.is_ascii_whitespace() || c == '(').then_some(rest)
}

/// What follows an identifier.
fn identifier(text: &str) -> Option<&str> {
    let Some(inside) = text.strip_prefix('"') else {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$');
        let end = end.unwrap_or(text.len());
        return (end > 0).then(|| &text[end..]);
    };
    let mut rest = inside;
    loop {
        rest = &rest[rest.find('"')? + 1..];
        match rest.strip_prefix('"') {
            Some(doubled) => rest = doubled,
            None => return Some(rest),
        }
    }
}

/// A name with its schema, and what follows it.
fn qualified(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let rest = identifier(text)?.strip_prefix('.')?;
    let rest = identifier(rest)?;
    Some((&text[..text.len() - rest.len()], rest))
}

/// What follows a list of columns in parentheses.
fn parenthesised(text: &str) -> Option<&str> {
    let mut rest = text.strip_prefix('(')?;
    loop {
        let at = rest.find(['"', ')', '(', '\''])?;
        match rest.as_bytes()[at] {
            b'"' => rest = identifier(&rest[at..])?,
            b')' => return Some(&rest[at + 1..]),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_are_found() {
        let of = |text| ForeignKey::of(text).map(|key| (key.from, key.to));
        let plain = "ALTER TABLE ONLY shop.orders\n    ADD CONSTRAINT fk FOREIGN KEY (a, b) \
                     REFERENCES shop.customers(id) ON DELETE CASCADE NOT VALID";
        assert_eq!(of(plain), Some(("shop.orders", "shop.customers")));
        let odd = "ALTER TABLE \"a.b\".\"c \"\" REFERENCES x.y(\"\n    ADD CONSTRAINT \"f FOREIGN KEY (\" \
                   FOREIGN KEY (\"x)\", PERIOD z) REFERENCES \"Ü\".größe(a, PERIOD b)";
        assert_eq!(of(odd), Some(("\"a.b\".\"c \"\" REFERENCES x.y(\"", "\"Ü\".größe")));
    }

    #[test]
    fn what_is_none_is_not_taken_for_one() {
        for text in [
            "ALTER TABLE ONLY a.b ADD CONSTRAINT x PRIMARY KEY (a)",
            "ALTER TABLE ONLY a.b ADD CONSTRAINT x CHECK ((t = ' FOREIGN KEY (a) REFERENCES c.d(e)'::text))",
            "ALTER TABLE ONLY a.b ADD CONSTRAINT x FOREIGN KEY (a) REFERENCES d(e)",
            "ALTER TABLE ONLY a.b ADD CONSTRAINT \"x FOREIGN KEY (a) REFERENCES c.d(e)",
            "COMMENT ON TABLE a.b IS 'FOREIGN KEY (a) REFERENCES c.d(e)'",
            "ALTER TABLE",
            "",
        ] {
            assert_eq!(ForeignKey::of(text), None, "{text}");
        }
    }
}
