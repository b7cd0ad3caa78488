//! Which entries stay out of a snapshot.

use lifeboat_core::EntryPath;

use crate::error::Error;

/// A pattern longer than this is a mistake.
const LONGEST: usize = 4096;

/// Patterns for paths that are left out; a directory with all that it holds.
///
/// A pattern without `/` is compared with the name of every entry: `*.tmp`, `node_modules`. One
/// with `/` is compared with the whole path from the top of the tree: `/var/cache`,
/// `home/*/.cache`, `srv/**/core.*`. `*` stands for any bytes except `/`, `?` for one of them,
/// `**` as a component for any number of components, also none (at the end: for all that a
/// directory holds, without the directory itself); `\` takes the meaning of the
/// next character away. Everything is compared byte by byte, upper and lower case apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exclude(Vec<Pattern>);

#[derive(Debug, Clone)]
enum Pattern {
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

impl Exclude {
    pub(crate) fn new(patterns: &[String]) -> Result<Self, Error> {
        patterns.iter().map(|pattern| parse(pattern)).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn matches(&self, path: &EntryPath) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Name(glob) => glob.matches(path.name()),
            Pattern::Path(parts) => {
                let components: Vec<&[u8]> = path.components().collect();
                path_matches(parts, &components)
            }
        })
    }
}

fn parse(pattern: &str) -> Result<Pattern, Error> {
    let bad = |why| Error::Pattern { pattern: pattern.to_owned(), why };
    if pattern.len() > LONGEST {
        return Err(bad("it is longer than 4096 bytes"));
    }
    let path = pattern.strip_suffix('/').unwrap_or(pattern);
    if path.is_empty() {
        return Err(bad("it is empty"));
    }
    if !path.contains('/') {
        return Ok(Pattern::Name(glob(path).map_err(bad)?));
    }
    let components = path.strip_prefix('/').unwrap_or(path).split('/');
    let mut parts = Vec::new();
    for component in components {
        match component {
            "" | "." | ".." => return Err(bad("a component is empty, . or ..")),
            // Several in a row mean the same as one, and would take time for nothing.
            "**" if matches!(parts.last(), Some(Part::AnyNumber)) => {}
            "**" => parts.push(Part::AnyNumber),
            _ => parts.push(Part::One(glob(component).map_err(bad)?)),
        }
    }
    // All that lies in a directory is its entries, with what they hold; not the directory itself.
    if let Some(last @ Part::AnyNumber) = parts.last_mut() {
        *last = Part::One(Glob(vec![Token::Any]));
    }
    Ok(Pattern::Path(parts))
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
            ("/srv/**", "srv", false),
            ("**/x/**/y", "a/x/b/c/y", true),
            ("**/x/**/y", "a/b/c/y", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c*", "xxaxxcxxbxx", false),
            ("?", "é", false),
        ];
        for (pattern, path, expected) in table {
            let exclude = Exclude::new(&[pattern.to_owned()]).unwrap();
            let path = EntryPath::new(path).unwrap();
            assert_eq!(exclude.matches(&path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn senseless_patterns_are_refused() {
        for bad in ["", "/", "a//b", "../x", "a\\", &"x".repeat(5000)] {
            assert!(Exclude::new(&[bad.to_owned()]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_nasty_pattern_takes_no_time() {
        let exclude = Exclude::new(&["*a".repeat(1000) + "b"]).unwrap();
        let path = EntryPath::new("a".repeat(4000)).unwrap();
        assert!(!exclude.matches(&path));
    }
}
