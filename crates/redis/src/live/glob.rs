//! Patterns of keys, as `KEYS` and `SCAN` have them.

/// A pattern: `*` any bytes, `?` one, `[a-z]` and `[^a]` one of some, `\` takes what follows as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPattern(Vec<u8>);

impl KeyPattern {
    /// A pattern. Every text is one.
    pub fn new(pattern: impl Into<Vec<u8>>) -> Self {
        Self(pattern.into())
    }

    /// Whether a key fits.
    pub fn matches(&self, key: &[u8]) -> bool {
        // Where to go on when what follows the last star does not fit: one byte further.
        let (mut at, mut from) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        loop {
            match self.0.get(at) {
                Some(b'*') => {
                    star = Some((at + 1, from));
                    at += 1;
                    continue;
                }
                None if from == key.len() => return true,
                Some(_) if from < key.len() => {
                    if let Some(next) = one(&self.0, at, key[from]) {
                        (at, from) = (next, from + 1);
                        continue;
                    }
                }
                _ => {}
            }
            match star {
                Some((after, tried)) if tried < key.len() => {
                    (at, from) = (after, tried + 1);
                    star = Some((after, tried + 1));
                }
                _ => return false,
            }
        }
    }
}

/// Whether a byte fits the part of the pattern at `at`; then where the next part begins.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match pattern[at] {
        b'?' => Some(at + 1),
        b'\\' if at + 1 < pattern.len() => (pattern[at + 1] == byte).then_some(at + 2),
        b'[' => {
            let mut next = at + 1;
            let not = pattern.get(next) == Some(&b'^');
            next += usize::from(not);
            let mut fits = false;
            loop {
                match pattern.get(next..).unwrap_or_default() {
                    // One that is not closed ends with the pattern, as at the server.
                    [] => break,
                    [b']', ..] => {
                        next += 1;
                        break;
                    }
                    [b'\\', literal, ..] => {
                        fits |= *literal == byte;
                        next += 2;
                    }
                    [low, b'-', high, ..] => {
                        fits |= (*low.min(high)..=*low.max(high)).contains(&byte);
                        next += 3;
                    }
                    [literal, ..] => {
                        fits |= *literal == byte;
                        next += 1;
                    }
                }
            }
            (fits != not).then_some(next)
        }
        literal => (literal == byte).then_some(at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of the documentation of `KEYS`, and what is odd. Servers are asked the same in tests/.
    #[test]
    fn patterns_are_those_of_the_server() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("*", &["", "a"], &[]),
            ("h?llo", &["hello", "hallo", "hxllo"], &["hllo", "heello"]),
            ("h*llo", &["hllo", "heeeello"], &["hell"]),
            ("h[ae]llo", &["hello", "hallo"], &["hillo"]),
            ("h[^e]llo", &["hallo", "hbllo"], &["hello"]),
            ("h[a-b]llo", &["hallo", "hbllo"], &["hcllo"]),
            ("h[b-a]llo", &["hallo"], &["hcllo"]),
            ("a\\*b", &["a*b"], &["axb"]),
            ("*:*:1", &["a:b:1", ":x:1:1"], &["a:1", "a:b:12"]),
            ("a**b", &["ab", "axxb"], &["abc"]),
            ("[a", &["a"], &["b", "aa"]),
            ("", &[""], &["a"]),
            ("[\\]]", &["]"], &["\\"]),
        ];
        for (pattern, fit, others) in cases {
            let parsed = KeyPattern::new(*pattern);
            for key in *fit {
                assert!(parsed.matches(key.as_bytes()), "{pattern} {key}");
            }
            for key in *others {
                assert!(!parsed.matches(key.as_bytes()), "{pattern} {key}");
            }
        }
    }
}
