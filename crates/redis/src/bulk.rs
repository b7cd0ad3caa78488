//! Answers that are one string, however long: what `DUMP` gives.

use crate::connect::{Connection, printable};
use crate::error::Result;

/// So much is taken at a time of what is passed over.
const PIECE: usize = 64 << 10;

/// What stands before the bytes of a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Head {
    /// There is none.
    Nil,
    /// The server's error, without its minus.
    Refused(String),
    /// So many bytes follow.
    Length(u64),
}

/// Reads what stands before the bytes of the next answer.
pub(crate) async fn head(connection: &mut Connection, doing: &'static str) -> Result<Head> {
    let line = connection.line(doing).await?;
    let number = |digits: &[u8]| str::from_utf8(digits).ok()?.parse::<i64>().ok();
    match line.split_first() {
        Some((b'-', answer)) => Ok(Head::Refused(printable(answer))),
        Some((b'_', _)) => Ok(Head::Nil),
        Some((b'$', digits)) => match number(digits) {
            Some(-1) => Ok(Head::Nil),
            Some(length @ 0..) => Ok(Head::Length(length.unsigned_abs())),
            _ => Err(connection.nonsense(doing, format!("\"{}\"", printable(&line)))),
        },
        _ => Err(connection.nonsense(doing, format!("\"{}\"", printable(&line)))),
    }
}

/// Takes the end of the line behind a string.
pub(crate) async fn end(connection: &mut Connection, doing: &'static str) -> Result<()> {
    match connection.line(doing).await?.is_empty() {
        true => Ok(()),
        false => Err(connection.nonsense(doing, "a string longer than it said".to_owned())),
    }
}

/// All of a string of `length` bytes, when it has `most` at most; it is passed over when it has more.
pub(crate) async fn whole(
    connection: &mut Connection,
    doing: &'static str,
    length: u64,
    most: usize,
) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let Some(wanted) = usize::try_from(length).ok().filter(|length| *length <= most) else {
        let mut left = length;
        while left > 0 {
            bytes.clear();
            let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            connection.receive(doing, &mut bytes, piece).await?;
            left -= bytes.len() as u64;
        }
        end(connection, doing).await?;
        return Ok(None);
    };
    while bytes.len() < wanted {
        // Grows with what comes, not with what was announced.
        let next = (bytes.len() + (1 << 20)).min(wanted);
        connection.receive(doing, &mut bytes, next).await?;
    }
    end(connection, doing).await?;
    Ok(Some(bytes))
}

/// Writes a command, whose words are given in parts, behind others that are sent together.
pub(crate) fn write_command(buffer: &mut Vec<u8>, words: &[&[&[u8]]]) {
    buffer.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for parts in words {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        buffer.extend_from_slice(format!("${length}\r\n").as_bytes());
        for part in *parts {
            buffer.extend_from_slice(part);
        }
        buffer.extend_from_slice(b"\r\n");
    }
}
