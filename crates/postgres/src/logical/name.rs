//! Names of the server's objects: in SQL, as components of paths, and as people write them.

use std::fmt;

use lifeboat_core::EntryPath;

use super::layout;

/// An identifier as it stands in SQL, always in double quotes.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The longest name that a server takes, in bytes.
pub(crate) const LONGEST: usize = 63;

/// A name with something after it, and as much of it left out as does not fit.
pub(crate) fn cut(name: &str, suffix: &str) -> String {
    let mut cut = name.len().min(LONGEST.saturating_sub(suffix.len()));
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{suffix}", &name[..cut])
}

/// A text as it stands in SQL, whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// The schema and the name of a table or a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The schema, as the server has it, without quotes.
    pub schema: String,
    /// The name in it, as the server has it, without quotes.
    pub name: String,
}

impl TableName {
    /// A name in a schema.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// Reads `schema.table`. What holds a dot, or a double quote, stands in double quotes, as in
    /// SQL; unlike there, letters are never made small. Without a schema, `public` is meant.
    ///
    /// # Errors
    /// When there are not one or two parts, or one is empty, as a sentence for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = vec![String::new()];
        let mut quoted = false;
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let last = parts.len() - 1;
            match character {
                '"' if quoted && characters.peek() == Some(&'"') => {
                    characters.next();
                    parts[last].push('"');
                }
                '"' => quoted = !quoted,
                '.' if !quoted => parts.push(String::new()),
                '\0' => return Err("a name holds no NUL".to_owned()),
                _ => parts[last].push(character),
            }
        }
        match <[String; 2]>::try_from(parts) {
            _ if quoted => Err("a double quote is not closed".to_owned()),
            Ok([schema, name]) if !schema.is_empty() && !name.is_empty() => {
                Ok(Self { schema, name })
            }
            Err(one) if one.len() == 1 && !one[0].is_empty() => {
                Ok(Self { schema: "public".to_owned(), name: one[0].clone() })
            }
            _ => Err("write SCHEMA.TABLE, such as shop.orders".to_owned()),
        }
    }

    /// As it stands in SQL.
    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }

    /// Where the rows of this table are in a snapshot.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](lifeboat_core::ErrorKind::InvalidInput) when a name is empty or
    /// too long for a path.
    pub fn path(&self) -> lifeboat_core::Result<EntryPath> {
        EntryPath::new(layout::ROWS)?.join(component(&self.schema))?.join(component(&self.name))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |name: &str| !name.contains(['.', '"']);
        for (number, part) in [&self.schema, &self.name].into_iter().enumerate() {
            if number > 0 {
                f.write_str(".")?;
            }
            if plain(part) {
                f.write_str(part)?;
            } else {
                f.write_str(&identifier(part))?;
            }
        }
        Ok(())
    }
}

/// An identifier as a component of a path: `%` and two hexadecimal digits stand for each byte that
/// a path may not hold, for control characters, and for `%` itself.
pub(crate) fn component(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    let dots = matches!(name, "." | "..");
    for character in name.chars() {
        let is_plain = !matches!(character, '/' | '%') && !character.is_control();
        if is_plain && !(dots && character == '.') {
            escaped.push(character);
            continue;
        }
        let mut bytes = [0; 4];
        for byte in character.encode_utf8(&mut bytes).bytes() {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// A name in which `*` stands for any characters and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob(Vec<char>);

impl Glob {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.chars().collect())
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut in_name) = (0, 0);
        // Where to go on when what came after the last star does not fit.
        let mut star = None;
        while in_name < name.len() {
            match self.0.get(at) {
                Some('*') => {
                    star = Some((at, in_name));
                    at += 1;
                }
                Some(wanted) if *wanted == '?' || *wanted == name[in_name] => {
                    at += 1;
                    in_name += 1;
                }
                _ => match &mut star {
                    Some((of_star, from)) => {
                        *from += 1;
                        at = *of_star + 1;
                        in_name = *from;
                    }
                    None => return false,
                },
            }
        }
        self.0[at..].iter().all(|rest| *rest == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_as_people_write_them() {
        let name = |text: &str| TableName::parse(text);
        assert_eq!(name("shop.orders"), Ok(TableName::new("shop", "orders")));
        assert_eq!(name("orders"), Ok(TableName::new("public", "orders")));
        assert_eq!(name("Shop.\"a.b\""), Ok(TableName::new("Shop", "a.b")));
        assert_eq!(name("\"q\"\"q\".x"), Ok(TableName::new("q\"q", "x")));
        for bad in ["", ".", "a.", ".a", "a.b.c", "\"a", "a\0"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn any_identifier_is_one_component() {
        assert_eq!(component("orders"), "orders");
        assert_eq!(component("a/b%c"), "a%2Fb%25c");
        assert_eq!((component("."), component("..")), ("%2E".to_owned(), "%2E%2E".to_owned()));
        assert_eq!(component("..."), "...");
        assert_eq!(component("tab\there"), "tab%09here");
        assert_eq!(component("größe"), "größe");
        let path = TableName::new("..", "a/../b").path().unwrap();
        assert_eq!(path.to_string(), "4-rows/%2E%2E/a%2F..%2Fb");
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (glob, name, fits) in [
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("or*", "orders", true),
            ("*", "", true),
            ("*s*r*", "oorders", false),
            ("*d*s", "orders", true),
            ("?rders", "orders", true),
            ("?", "", false),
        ] {
            assert_eq!(Glob::new(glob).matches(name), fits, "{glob} {name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(schema in "[a-zA-Z.\" é]{1,8}", name in "[a-zA-Z.\" é]{1,8}") {
            let name = TableName::new(schema, name);
            prop_assert_eq!(TableName::parse(&name.to_string()), Ok(name));
        }

        #[test]
        fn different_names_have_different_components(a in "[./%A-F0-9\t]{1,4}", b in "[./%A-F0-9\t]{1,4}") {
            prop_assert_eq!(a == b, component(&a) == component(&b));
        }
    }
}
