//! Patterns for names and paths of entries.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::path::EntryPath;

/// A pattern longer than this is a mistake.
const LONGEST: usize = 4096;

/// A pattern for paths of entries.
///
/// Without `/` it is compared with the name of an entry, wherever that is: `*.tmp`,
/// `node_modules`. With `/` it is compared with the whole path from the top: `/var/cache`,
/// `home/*/.cache`, `srv/**/core.*`. `*` stands for any bytes except `/`, `?` for one of them,
/// `**` as a component for any number of components, also none (at the end: for at least one, so
/// that `srv/**` is all that `srv` holds); `\` takes the meaning of the next character away. A `/`
/// at the end means nothing. Everything is compared byte by byte, upper and lower case apart.
///
/// ```
/// use lifeboat_core::{EntryPath, Pattern};
/// let pattern: Pattern = "etc/**/*.conf".parse()?;
/// assert!(pattern.matches(&EntryPath::new("etc/ssl/openssl.conf")?));
/// assert!(!pattern.matches(&EntryPath::new("srv/app.conf")?));
/// # Ok::<(), lifeboat_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    parts: Parts,
}

#[derive(Debug, Clone)]
enum Parts {
    Name(Glob),
    Path(Vec<Part>),
}

#[derive(Debug, Clone)]
enum Part {
    One(Glob),
    AnyNumber,
}

#[derive(Debug, Clone)]
struct Glob(Vec<Token>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    One,
    Any,
}

impl Pattern {
    /// A pattern from its text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is empty, longer than 4096 bytes, ends in a single `\`,
    /// or has a component that no path has.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        match parse(&text) {
            Ok(parts) => Ok(Self { text, parts }),
            Err(why) => {
                let shown: String = text.chars().take(200).collect();
                let message = format!("the pattern \"{shown}\" cannot be used: {why}");
                Err(Error::new(ErrorKind::InvalidInput, message).with_hint(HINT))
            }
        }
    }

    /// Whether it matches a path: the whole of it, or its last component.
    pub fn matches(&self, path: &EntryPath) -> bool {
        match &self.parts {
            Parts::Name(glob) => glob.matches(path.name()),
            Parts::Path(parts) => {
                let components: Vec<&[u8]> = path.components().collect();
                path_matches(parts, &components)
            }
        }
    }
}

const HINT: &str = "* and ? stand for what is within a name, ** for any number of directories, and \\ \
                    takes the meaning of the next character away";

impl FromStr for Pattern {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse(pattern: &str) -> Result<Parts, &'static str> {
    if pattern.len() > LONGEST {
        return Err("it is longer than 4096 bytes");
    }
    let path = pattern.strip_suffix('/').unwrap_or(pattern);
    if path.is_empty() {
        return Err("it is empty");
    }
    if !path.contains('/') {
        return Ok(Parts::Name(glob(path)?));
    }
    let components = path.strip_prefix('/').unwrap_or(path).split('/');
    let mut parts = Vec::new();
    for component in components {
        match component {
            "" | "." | ".." => return Err("a component is empty, . or .."),
            // Several in a row mean the same as one, and would take time for nothing.
            "**" if matches!(parts.last(), Some(Part::AnyNumber)) => {}
            "**" => parts.push(Part::AnyNumber),
            _ => parts.push(Part::One(glob(component)?)),
        }
    }
    // What lies in a directory is not the directory itself.
    if matches!(parts.last(), Some(Part::AnyNumber)) {
        parts.push(Part::One(Glob(vec![Token::Any])));
    }
    Ok(Parts::Path(parts))
}

fn glob(text: &str) -> Result<Glob, &'static str> {
    let mut tokens = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        tokens.push(match byte {
            b'*' if tokens.last() == Some(&Token::Any) => continue,
            b'*' => Token::Any,
            b'?' => Token::One,
            b'\\' => Token::Byte(bytes.next().ok_or("it ends in a single \\")?),
            byte => Token::Byte(byte),
        });
    }
    Ok(Glob(tokens))
}

impl Glob {
    fn matches(&self, name: &[u8]) -> bool {
        wild(
            &self.0,
            name,
            |token| *token == Token::Any,
            |token, byte| match token {
                Token::Byte(want) => want == byte,
                Token::One | Token::Any => true,
            },
        )
    }
}

fn path_matches(parts: &[Part], components: &[&[u8]]) -> bool {
    wild(
        parts,
        components,
        |part| matches!(part, Part::AnyNumber),
        |part, component| match part {
            Part::One(glob) => glob.matches(component),
            Part::AnyNumber => true,
        },
    )
}

/// Whether `pattern` matches all of `items`, where some parts of it stand for any number of them.
/// Goes back to the last of those only, so that no pattern takes more than quadratic time.
fn wild<P, I>(
    pattern: &[P],
    items: &[I],
    is_any: impl Fn(&P) -> bool,
    is_one: impl Fn(&P, &I) -> bool,
) -> bool {
    let (mut at, mut item) = (0, 0);
    let mut retry = None;
    while item < items.len() {
        match pattern.get(at) {
            Some(part) if is_any(part) => {
                at += 1;
                retry = Some((at, item));
            }
            Some(part) if is_one(part, &items[item]) => {
                at += 1;
                item += 1;
            }
            _ => {
                let Some((back_at, back_item)) = retry else {
                    return false;
                };
                at = back_at;
                item = back_item + 1;
                retry = Some((at, item));
            }
        }
    }
    pattern[at..].iter().all(is_any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_they_say() {
        let table = [
            ("*.tmp", "a/b.tmp", true),
            ("*.tmp", "a/b.tmpx", false),
            ("cache", "home/cache", true),
            ("cache/", "home/cache", true),
            ("/cache", "home/cache", false),
            ("/cache", "cache", true),
            ("home/*/.cache", "home/ann/.cache", true),
            ("home/*/.cache", "home/ann/b/.cache", false),
            ("srv/**/core.?", "srv/core.1", true),
            ("srv/**/core.?", "srv/a/b/core.1", true),
            ("srv/**/core.?", "srv/a/b/core.12", false),
            ("/srv/**", "srv/a", true),
            ("/srv/**", "srv/a/b", true),
            ("/srv/**", "srv", false),
            ("**/x/**/y", "a/x/b/c/y", true),
            ("**/x/**/y", "a/b/c/y", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c*", "xxaxxcxxbxx", false),
            ("?", "é", false),
        ];
        for (text, path, expected) in table {
            let pattern = Pattern::new(text).unwrap();
            let path = EntryPath::new(path).unwrap();
            assert_eq!(pattern.matches(&path), expected, "{text} on {path}");
            assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn senseless_patterns_are_refused() {
        for bad in ["", "/", "a//b", "../x", "a\\", &"x".repeat(5000)] {
            let error = Pattern::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad:?}");
            assert!(error.hint().is_some() && error.to_string().len() < 300);
        }
    }

    #[test]
    fn a_nasty_pattern_takes_no_time() {
        let pattern = Pattern::new("*a".repeat(1000) + "b").unwrap();
        let path = EntryPath::new("a".repeat(4000)).unwrap();
        assert!(!pattern.matches(&path));
    }
}
