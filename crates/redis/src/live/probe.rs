//! What a server takes: a serialised value, and a question that writes none.

use lifeboat_core::Timestamp;

use crate::connect::{Answer, Connection};
use crate::error::{Error, Result};
use crate::rdb::crc64;

const ASKING: &str = "ask whether the server takes the snapshot's values";
/// A number that is no type of value.
const NO_TYPE: u8 = 0xff;

/// What a server says to a value that is none.
pub(crate) enum Probed {
    /// That it is none: it takes values of this version.
    Takes,
    /// That it knows no such version.
    TooNew,
    /// That keys of that name go elsewhere.
    Elsewhere(String),
}

/// The beginning of a name that no key has.
pub(crate) fn probe_name() -> String {
    format!("lifeboat:no-key:{}", Timestamp::now().as_nanosecond())
}

/// Asks a server whether it takes values of this version of the format, and whether this user may
/// write them. Nothing is written.
pub(crate) async fn probe(connection: &mut Connection, name: &str, version: u16) -> Result<Probed> {
    let payload = [&[NO_TYPE][..], &footed(&[NO_TYPE], &[], version)].concat();
    let words: [&[u8]; 4] = [b"RESTORE", name.as_bytes(), b"0", &payload];
    match connection.ask(ASKING, &words).await? {
        Answer::Error(answer) if answer.contains("Bad data format") => Ok(Probed::Takes),
        Answer::Error(answer) if answer.contains("payload version or checksum") => {
            Ok(Probed::TooNew)
        }
        Answer::Error(answer)
            if ["MOVED", "ASK", "CLUSTERDOWN"].iter().any(|word| answer.starts_with(word)) =>
        {
            Ok(Probed::Elsewhere(answer))
        }
        Answer::Error(answer) => Err(may_not(connection, ASKING, answer)),
        other => {
            let what = format!("{other:?} to a value that is none");
            Err(connection.nonsense(ASKING, what))
        }
    }
}

/// What an error means to who writes keys.
pub(super) fn may_not(connection: &Connection, doing: &'static str, answer: String) -> Error {
    if answer.starts_with("NOPERM") {
        let target = connection.target().to_owned();
        return Error::MayNotWrite { target, answer };
    }
    connection.refused(doing, answer)
}

/// What stands behind a serialised value: the version of the format in two bytes, and the checksum
/// of all before it in eight.
pub(crate) fn footed(kind: &[u8], value: &[u8], version: u16) -> [u8; 10] {
    let version = version.to_le_bytes();
    let crc = crc64(crc64(crc64(0, kind), value), &version);
    let mut foot = [0; 10];
    foot[..2].copy_from_slice(&version);
    foot[2..].copy_from_slice(&crc.to_le_bytes());
    foot
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer of `DUMP` in the documentation of that command, for the value 10.
    #[test]
    fn a_value_is_footed_as_the_server_does() {
        let dumped = b"\x00\xc0\n\n\x00n\x9fWE\x0e\xaec\xbb";
        assert_eq!(footed(&dumped[..1], &dumped[1..3], 10), dumped[3..]);
    }
}
