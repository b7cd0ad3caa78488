//! Which role a statement of `pg_dumpall --globals-only` is about.

use super::script::Statement;

/// The role that a statement makes, changes, or makes a member; `None` when it is about something
/// else.
pub(super) fn meant(statement: &Statement) -> Option<String> {
    let text = statement.0.as_str();
    let after = |prefix: &str| text.strip_prefix(prefix);
    let rest = after("CREATE ROLE ").or_else(|| after("ALTER ROLE ")).or_else(|| {
        // GRANT group TO member …: it is the member that changes.
        let rest = after("GRANT ")?;
        let (_, rest) = name(rest)?;
        rest.strip_prefix(" TO ")
    })?;
    name(rest).map(|(name, _)| name)
}

/// The identifier that a text begins with, and what follows it.
fn name(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$');
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        return (!name.is_empty()).then(|| (name.to_owned(), rest));
    };
    let mut found = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' if matches!(characters.peek(), Some((_, '"'))) => {
                characters.next();
                found.push('"');
            }
            '"' => return Some((found, &quoted[at + 1..])),
            _ => found.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_that_changes_is_found() {
        let meant = |text: &str| meant(&Statement(text.to_owned()));
        assert_eq!(meant("CREATE ROLE alice").as_deref(), Some("alice"));
        assert_eq!(meant("ALTER ROLE \"Al \"\"x\" WITH LOGIN").as_deref(), Some("Al \"x"));
        assert_eq!(meant("ALTER ROLE bob SET search_path TO 'x'").as_deref(), Some("bob"));
        assert_eq!(meant("GRANT \"my group\" TO bob GRANTED BY a").as_deref(), Some("bob"));
        assert_eq!(meant("CREATE TABLESPACE x OWNER y LOCATION 'z'"), None);
        assert_eq!(meant("GRANT ALL ON TABLESPACE x TO y"), None);
    }
}
