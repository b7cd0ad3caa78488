//! Connection strings: libpq's words, or a URL.
//!
//! `tokio-postgres` understands both but not every parameter. What it lacks is taken out here, and
//! it gets the rest.

use crate::error::{Error, Result};

/// A connection string, with the parameters taken out that are dealt with here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ConnInfo {
    /// What `tokio-postgres` reads.
    pub(super) rest: String,
    pub(super) sslmode: Option<String>,
    pub(super) sslrootcert: Option<String>,
    pub(super) passfile: Option<String>,
}

impl ConnInfo {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let url = ["postgres://", "postgresql://"];
        if url.iter().any(|scheme| text.starts_with(scheme)) {
            Self::from_url(text)
        } else {
            Self::from_words(text)
        }
    }

    /// Takes a parameter if it is one of ours.
    fn take(&mut self, name: &str, value: &str) -> bool {
        let field = match name {
            "sslmode" => &mut self.sslmode,
            "sslrootcert" => &mut self.sslrootcert,
            "passfile" => &mut self.passfile,
            _ => return false,
        };
        *field = Some(value.to_owned());
        true
    }

    fn from_url(text: &str) -> Result<Self> {
        let mut found = Self::default();
        let Some((base, query)) = text.split_once('?') else {
            text.clone_into(&mut found.rest);
            return Ok(found);
        };
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| bad("a parameter of the URL has no value"))?;
            if !found.take(name, &percent_decoded(value)?) {
                kept.push(pair);
            }
        }
        found.rest = base.to_owned();
        if !kept.is_empty() {
            found.rest = format!("{base}?{}", kept.join("&"));
        }
        Ok(found)
    }

    fn from_words(text: &str) -> Result<Self> {
        let mut found = Self::default();
        let mut left = text.trim_start();
        while !left.is_empty() {
            let (name, after) = left.split_once('=').ok_or_else(|| bad("a word without ="))?;
            let (value, after) = word(after.trim_start())?;
            if !found.take(name.trim(), &value) {
                let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
                found.rest += &format!("{}='{escaped}' ", name.trim());
            }
            left = after.trim_start();
        }
        Ok(found)
    }
}

fn bad(what: &str) -> Error {
    Error::BadConnection { what: what.to_owned() }
}

/// One value, quoted or not, and what follows it.
fn word(text: &str) -> Result<(String, &str)> {
    let (quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, escaped)) => value.push(escaped),
                None => break,
            },
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            _ if !quoted && character.is_whitespace() => return Ok((value, &body[at..])),
            _ => value.push(character),
        }
    }
    if quoted {
        return Err(bad("a quote is not closed"));
    }
    Ok((value, ""))
}

fn percent_decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.as_bytes();
    while let Some((first, rest)) = left.split_first() {
        left = rest;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| bad("a % in the URL is not followed by two digits"))?);
        left = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| bad("the URL is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_apart_as_libpq_does() {
        let found = ConnInfo::parse(
            r"host = /tmp user='o\'neil'  password='a b\\' sslmode=verify-full sslrootcert='/x y'",
        )
        .unwrap();
        assert_eq!(found.rest, r"host='/tmp' user='o\'neil' password='a b\\' ");
        assert_eq!(found.sslmode.as_deref(), Some("verify-full"));
        assert_eq!(found.sslrootcert.as_deref(), Some("/x y"));
        assert_eq!(ConnInfo::parse("").unwrap(), ConnInfo::default());
        for bad in ["host", "user='x", "a=b c"] {
            assert!(ConnInfo::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_url_keeps_what_is_not_ours() {
        let found = ConnInfo::parse(
            "postgresql://me@h/db?sslmode=require&application_name=x&passfile=%2Fp",
        )
        .unwrap();
        assert_eq!(found.rest, "postgresql://me@h/db?application_name=x");
        assert_eq!(found.sslmode.as_deref(), Some("require"));
        assert_eq!(found.passfile.as_deref(), Some("/p"));
        assert!(ConnInfo::parse("postgres://h?sslmode=%zz").is_err());
    }
}
