//! Names of replication slots.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// No name is longer.
const MAX_NAME: usize = 63;

/// The name of a replication slot: 1 to 63 lower-case letters, digits and underscores.
///
/// ```
/// use lifeboat_postgres::SlotName;
/// let slot: SlotName = "lifeboat".parse()?;
/// assert_eq!(slot.to_string(), "lifeboat");
/// assert!("Not a slot".parse::<SlotName>().is_err());
/// # Ok::<(), lifeboat_postgres::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotName(String);

impl FromStr for SlotName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(fits) {
            let what = format!(
                "\"{}\" cannot name a replication slot: 1 to 63 lower-case letters, digits and underscores can",
                text.escape_default()
            );
            return Err(Error::BadConnection { what });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_need_quotes_is_refused() {
        for bad in ["", "A", "a b", "a;drop", "a\"", "a-b", "\u{e9}", &"x".repeat(64)] {
            assert!(bad.parse::<SlotName>().is_err(), "{bad}");
        }
        assert!("x".repeat(63).parse::<SlotName>().is_ok());
    }
}
