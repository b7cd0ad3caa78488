//! What reading key by key takes.

use crate::connect::{Answer, Connection};
use crate::error::{Error, Result};

const ASKING: &str = "ask for the rights to read every key";

/// Why the keys cannot be read, if they cannot: each command is tried on a key that is not there.
pub(in crate::source) async fn may(connection: &mut Connection) -> Result<Option<Error>> {
    let commands: [&[&[u8]]; 8] = [
        &[b"INFO", b"keyspace"],
        &[b"SELECT", b"0"],
        &[b"SCAN", b"0", b"COUNT", b"1"],
        &[b"MULTI"],
        &[b"TIME"],
        &[b"PTTL", b"lifeboat:no-key"],
        &[b"DUMP", b"lifeboat:no-key"],
        &[b"EXEC"],
    ];
    for command in commands {
        if let Answer::Error(answer) = connection.ask(ASKING, command).await? {
            return Ok(Some(refused(connection, answer)));
        }
    }
    Ok(None)
}

/// What an error of the server means to who reads key by key.
pub(super) fn refused(connection: &Connection, answer: String) -> Error {
    match connection.refused(ASKING, answer) {
        Error::MayNot { user, answer, .. } => {
            Error::MayNotScan { target: connection.target().to_owned(), user, answer }
        }
        other => other,
    }
}
