//! From an open connection to the first byte of the RDB.

use lifeboat_core::{Context, Timestamp};

use super::facts::Origin;
use super::payload::{Framing, MARK, Payload};
use crate::connect::{Answer, Connection, printable};
use crate::error::{Error, Result};

const ASKING: &str = "ask for a snapshot";
const WAITING: &str = "wait for the snapshot";

/// A snapshot that is about to come.
pub(crate) struct Started {
    pub(super) payload: Payload,
    /// Where in the server's history it is.
    pub(crate) origin: Origin,
}

/// What a server answers to who asks for its changes.
pub(crate) enum Synchronized {
    /// It begins anew: a snapshot comes first.
    Full(Origin),
    /// It goes on where it was asked to, under this replication id if it names one.
    Continued(Option<String>),
}

/// Asks for a snapshot alone.
pub(super) async fn start(mut connection: Connection, context: &Context) -> Result<Started> {
    context.phase("wait for the server to fork");
    let origin = snapshot_alone(&mut connection).await?;
    receive(connection, origin).await
}

/// Asks for a snapshot with nothing behind it, and says where it is once the server has forked.
pub(crate) async fn snapshot_alone(connection: &mut Connection) -> Result<Origin> {
    // A server before 7.0 does not know this; one that denies REPLCONF denies the next as well.
    let _ = connection.ask(ASKING, &[b"REPLCONF", b"rdb-only", b"1"]).await?;
    match synchronize(connection, None).await? {
        Synchronized::Full(origin) => Ok(origin),
        Synchronized::Continued(_) => {
            Err(connection.nonsense(ASKING, "it goes on where nothing was".to_owned()))
        }
    }
}

/// Asks for what follows a place in a history; without one, for everything.
pub(crate) async fn synchronize(
    connection: &mut Connection,
    from: Option<(&str, u64)>,
) -> Result<Synchronized> {
    let capabilities: [&[u8]; 5] = [b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"];
    connection.demand(ASKING, &capabilities).await?;
    // The place of the next byte, of which the first is 1.
    let next = from.map_or("-1".to_owned(), |(_, offset)| offset.saturating_add(1).to_string());
    let id = from.map_or("?", |(id, _)| id);
    connection.send(ASKING, &[b"PSYNC", id.as_bytes(), next.as_bytes()]).await?;
    let answer = not_empty(connection, ASKING).await?;
    let reached = Timestamp::now();
    if let Some((replication_id, offset)) = full_resync(&answer) {
        return Ok(Synchronized::Full(Origin {
            server: connection.known_as().to_owned(),
            replication_id,
            offset,
            reached,
        }));
    }
    match continued(&answer) {
        Some(id) if from.is_some() => Ok(Synchronized::Continued(id)),
        _ => Err(refused(connection, &answer)),
    }
}

/// What comes after a full synchronisation was promised.
pub(crate) async fn receive(mut connection: Connection, origin: Origin) -> Result<Started> {
    let preamble = not_empty(&mut connection, WAITING).await?;
    let framing = framing(&preamble).ok_or_else(|| match preamble.split_first() {
        Some((b'-', answer)) => connection.refused(WAITING, printable(answer)),
        _ => connection.nonsense(WAITING, format!("\"{}\"", printable(&preamble))),
    })?;
    tracing::debug!(target = connection.target(), ?origin, ?framing, "snapshot");
    Ok(Started { payload: Payload::new(connection, framing), origin })
}

/// The next line that is not one of those that keep the connection alive.
async fn not_empty(connection: &mut Connection, doing: &'static str) -> Result<Vec<u8>> {
    loop {
        let line = connection.line(doing).await?;
        if !line.is_empty() {
            return Ok(line);
        }
    }
}

/// `+FULLRESYNC <40 characters> <offset>`
fn full_resync(line: &[u8]) -> Option<(String, u64)> {
    let line = std::str::from_utf8(line).ok()?;
    let (id, offset) = line.strip_prefix("+FULLRESYNC ")?.split_once(' ')?;
    is_id(id).then_some((id.to_owned(), offset.parse().ok()?))
}

/// `+CONTINUE`, and the replication id from there on where the server names it
fn continued(line: &[u8]) -> Option<Option<String>> {
    let rest = std::str::from_utf8(line).ok()?.strip_prefix("+CONTINUE")?;
    match rest.strip_prefix(' ').map(str::trim_end) {
        None | Some("") => rest.trim_end().is_empty().then_some(None),
        Some(id) => is_id(id).then(|| Some(id.to_owned())),
    }
}

pub(super) fn is_id(id: &str) -> bool {
    id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn refused(connection: &Connection, answer: &[u8]) -> Error {
    match answer.split_first() {
        Some((b'-', answer)) => connection.refused(ASKING, printable(answer)),
        _ => connection.nonsense(ASKING, format!("\"{}\"", printable(answer))),
    }
}

/// `$<length>`, or `$EOF:<mark>`
fn framing(line: &[u8]) -> Option<Framing> {
    let rest = line.strip_prefix(b"$")?;
    if let Some(mark) = rest.strip_prefix(b"EOF:") {
        let mark: [u8; MARK] = mark.try_into().ok()?;
        return Some(Framing::Mark(mark));
    }
    let digits = std::str::from_utf8(rest).ok()?;
    Some(Framing::Length(digits.parse().ok()?))
}

/// Whether the server would let this user do what a snapshot needs; `None` when it does not say.
pub(super) async fn may(connection: &mut Connection) -> Result<Option<Error>> {
    const DOING: &str = "ask for the user's rights";
    let capabilities: [&[u8]; 3] = [b"REPLCONF", b"capa", b"eof"];
    match connection.ask(ASKING, &capabilities).await? {
        Answer::Error(answer) => return Ok(Some(connection.refused(ASKING, answer))),
        Answer::Text(_) | Answer::Nil | Answer::List(_) => {}
    }
    let Answer::Text(user) = connection.ask(DOING, &[b"ACL", b"WHOAMI"]).await? else {
        return Ok(None);
    };
    let dry: [&[u8]; 6] = [b"ACL", b"DRYRUN", &user, b"PSYNC", b"?", b"-1"];
    match connection.ask(DOING, &dry).await? {
        // It answers OK, or says in a string what is missing. An error says that it cannot tell.
        Answer::Text(answer) if answer != b"OK" => {
            Ok(Some(connection.refused(ASKING, format!("NOPERM {}", printable(&answer)))))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_synchronisation_is_taken() {
        let id = "8de1787ba490483314a4d30f1c628bc5025eb761";
        let line = format!("+FULLRESYNC {id} 42");
        assert_eq!(full_resync(line.as_bytes()), Some((id.to_owned(), 42)));
        let continued = format!("+CONTINUE {id}");
        for bad in ["+FULLRESYNC x 42", continued.as_str(), "+FULLRESYNC", "-ERR"] {
            assert_eq!(full_resync(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_continuation_names_its_history_or_not() {
        let id = "8de1787ba490483314a4d30f1c628bc5025eb761";
        assert_eq!(continued(format!("+CONTINUE {id}").as_bytes()), Some(Some(id.to_owned())));
        assert_eq!(continued(b"+CONTINUE"), Some(None));
        for bad in ["+CONTINUE x", "+CONTINUED", "+FULLRESYNC", "-ERR", "+CONTINUE 1 2"] {
            assert_eq!(continued(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn both_forms_of_the_preamble_are_read() {
        assert_eq!(framing(b"$176"), Some(Framing::Length(176)));
        let mark = [b'm'; MARK];
        let line = [b"$EOF:", &mark[..]].concat();
        assert_eq!(framing(&line), Some(Framing::Mark(mark)));
        for bad in [&b"$EOF:short"[..], b"$-1", b"$", b"$12x", b"+OK"] {
            assert_eq!(framing(bad), None, "{}", bad.escape_ascii());
        }
    }
}
