//! The connection that the server makes to us, as a replica makes one to its primary.
//!
//! The server sends commands and waits for an answer to each: `PING`, `AUTH` and `REPLCONF` with
//! what it can do, and `PSYNC`. To that we say that everything comes (`+FULLRESYNC`, an id of our own
//! and the place 0), then a mark, the RDB, and the mark again. Behind it the server takes what comes
//! as commands, and says each second how far it is (`REPLCONF ACK`); while it loads, it sends empty
//! lines as a sign of life.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::MasterError;
use crate::connect::{printable, random_id};
use crate::error::Result;

/// So long is the mark before and behind the RDB.
const MARK: usize = 40;
/// A command of a replica has no more words, and they are no longer.
const MOST_WORDS: usize = 64;
const LONGEST: usize = 64 << 10;

/// What was heard of the replica.
#[derive(Debug, Clone)]
struct Heard {
    /// Up to where it has carried out what was sent.
    acknowledged: Option<u64>,
    at: Instant,
    /// The connection is over, and why.
    broken: Option<(io::ErrorKind, String)>,
}

/// A server that takes us for its primary.
pub(super) struct Replica {
    target: String,
    writer: OwnedWriteHalf,
    heard: watch::Receiver<Heard>,
    listening: AbortHandle,
    mark: [u8; MARK],
    patience: Duration,
}

impl Replica {
    /// Waits for the server to come, and goes through the handshake with it.
    pub(super) async fn accept(
        listener: TcpListener,
        from: Option<IpAddr>,
        target: &str,
        patience: Duration,
    ) -> lifeboat_core::Result<Self> {
        let address = listener.local_addr().map(|it| it.to_string()).unwrap_or_default();
        let coming = async {
            loop {
                let Ok((stream, peer)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                if from.is_none_or(|from| from.to_canonical() == peer.ip().to_canonical()) {
                    return stream;
                }
                tracing::warn!(%peer, "turned away: it is not the server");
            }
        };
        let seconds = patience.as_secs();
        let (name, not_come) = (target.to_owned(), address.clone());
        let stream = timeout(patience, coming).await.map_err(|_| MasterError::NotCome {
            target: name,
            address: not_come,
            seconds,
        })?;
        let mut handshake = Handshake { stream, buffer: BytesMut::new(), target, can_end: false };
        let shaking = timeout(patience, handshake.run());
        shaking.await.map_err(|_| MasterError::Stuck {
            target: target.to_owned(),
            doing: "it asked for the data",
            seconds,
        })??;
        let Handshake { stream, buffer, .. } = handshake;
        let (reader, writer) = stream.into_split();
        let first = Heard { acknowledged: None, at: Instant::now(), broken: None };
        let (tell, heard) = watch::channel(first);
        let listening = tokio::spawn(listen(reader, buffer, tell)).abort_handle();
        let id = random_id()?;
        let mark = <[u8; MARK]>::try_from(random_id()?.as_bytes()).unwrap_or([b'm'; MARK]);
        let mut replica =
            Self { target: target.to_owned(), writer, heard, listening, mark, patience };
        let begin = [format!("+FULLRESYNC {id} 0\r\n$EOF:").as_bytes(), &mark, b"\r\n"].concat();
        replica.send("it was sent the data", &begin).await?;
        Ok(replica)
    }

    /// Sends what comes next. Waits as long as the server takes anything.
    pub(super) async fn send(
        &mut self,
        doing: &'static str,
        mut bytes: &[u8],
    ) -> Result<(), MasterError> {
        while !bytes.is_empty() {
            match timeout(self.patience, self.writer.write(bytes)).await {
                Ok(Ok(0)) => return Err(self.broke(doing, io::ErrorKind::WriteZero.into())),
                Ok(Ok(count)) => bytes = &bytes[count..],
                Ok(Err(source)) => return Err(self.broke(doing, source)),
                // It may be loading, and says that it lives.
                Err(_) if self.silence() < self.patience => {}
                Err(_) => return Err(self.stuck(doing)),
            }
        }
        Ok(())
    }

    /// Ends the RDB. Before this, the server has not taken anything.
    pub(super) async fn end_data(&mut self) -> Result<(), MasterError> {
        let mark = self.mark;
        self.send("it was sent the data", &mark).await
    }

    /// How long nothing was heard.
    pub(super) fn silence(&self) -> Duration {
        self.heard.borrow().at.elapsed()
    }

    /// An error when the connection is over.
    pub(super) fn check(&self, doing: &'static str) -> Result<(), MasterError> {
        match &self.heard.borrow().broken {
            Some((kind, why)) => Err(self.broke(doing, io::Error::new(*kind, why.clone()))),
            None => Ok(()),
        }
    }

    /// Waits until the server has carried out all of `sent` bytes.
    pub(super) async fn acknowledged(
        &mut self,
        doing: &'static str,
        sent: u64,
    ) -> Result<(), MasterError> {
        let mut last = (None, Instant::now());
        loop {
            self.check(doing)?;
            let so_far = self.heard.borrow_and_update().acknowledged;
            if so_far.is_some_and(|so_far| so_far >= sent) {
                return Ok(());
            }
            if so_far != last.0 {
                last = (so_far, Instant::now());
            }
            // It goes on saying the same when it does not get on.
            if last.1.elapsed() >= self.patience {
                return Err(self.stuck(doing));
            }
            let _ = timeout(Duration::from_millis(500), self.heard.changed()).await;
        }
    }

    fn broke(&self, doing: &'static str, source: io::Error) -> MasterError {
        MasterError::Broke { target: self.target.clone(), doing, source }
    }

    pub(super) fn stuck(&self, doing: &'static str) -> MasterError {
        let seconds = self.patience.as_secs();
        MasterError::Stuck { target: self.target.clone(), doing, seconds }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

struct Handshake<'a> {
    stream: TcpStream,
    buffer: BytesMut,
    target: &'a str,
    /// It knows an RDB that ends with a mark.
    can_end: bool,
}

impl Handshake<'_> {
    /// Answers until the server asks for the data.
    async fn run(&mut self) -> Result<(), MasterError> {
        const DOING: &str = "it asked for the data";
        let target = self.target.to_owned();
        let strange = |what: String| MasterError::Strange { target: target.clone(), what };
        let broke = |source| MasterError::Broke { target: target.clone(), doing: DOING, source };
        loop {
            let words = loop {
                match command(&mut self.buffer).map_err(strange)? {
                    Some(words) => break words,
                    None => read(&mut self.stream, &mut self.buffer).await.map_err(broke)?,
                }
            };
            let [word, rest @ ..] = &words[..] else { continue };
            let answer: &[u8] = match &word.to_ascii_uppercase()[..] {
                b"PING" => b"+PONG\r\n",
                b"AUTH" => b"+OK\r\n",
                b"REPLCONF" => {
                    self.can_end |= rest.chunks(2).any(|pair| pair == [&b"capa"[..], b"eof"]);
                    b"+OK\r\n"
                }
                b"PSYNC" if self.can_end => return Ok(()),
                b"PSYNC" => return Err(strange("it cannot take an RDB as it comes".to_owned())),
                _ => return Err(strange(format!("\"{}\"", printable(word)))),
            };
            self.stream.write_all(answer).await.map_err(broke)?;
        }
    }
}

async fn read(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut BytesMut) -> io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Takes a command from what has come, if all of it has; empty lines are none. The error says what
/// came in its place.
fn command(buffer: &mut BytesMut) -> Result<Option<Vec<Vec<u8>>>, String> {
    while buffer.first().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        buffer.advance(1);
    }
    let mut rest = &buffer[..];
    let Some(count) = number(&mut rest, b'*')? else { return Ok(None) };
    if count > MOST_WORDS {
        return Err(format!("a command of {count} words"));
    }
    let mut words = Vec::new();
    for _ in 0..count {
        let Some(length) = number(&mut rest, b'$')? else { return Ok(None) };
        if length > LONGEST {
            return Err(format!("a word of {length} bytes"));
        }
        let Some((word, more)) = rest.split_at_checked(length) else { return Ok(None) };
        let Some((_, more)) = more.split_at_checked(2) else { return Ok(None) };
        words.push(word.to_vec());
        rest = more;
    }
    let taken = buffer.len() - rest.len();
    buffer.advance(taken);
    Ok(Some(words))
}

/// `*3\r\n`: the number behind a byte; `None` while it has not come.
fn number(rest: &mut &[u8], first: u8) -> Result<Option<usize>, String> {
    let Some((byte, digits)) = rest.split_first() else { return Ok(None) };
    let shown = || format!("\"{}\"", printable(&rest[..rest.len().min(40)]));
    if *byte == 0x16 {
        return Err("it speaks TLS (tls-replication)".to_owned());
    }
    if *byte != first {
        return Err(shown());
    }
    let Some(end) = digits.iter().take(12).position(|byte| *byte == b'\r') else {
        return if digits.len() < 12 { Ok(None) } else { Err(shown()) };
    };
    let number = std::str::from_utf8(&digits[..end]).ok().and_then(|digits| digits.parse().ok());
    let number = number.ok_or_else(shown)?;
    let Some(more) = digits.get(end + 2..) else { return Ok(None) };
    *rest = more;
    Ok(Some(number))
}

/// Hears what the server says while data and changes are sent to it.
async fn listen(mut reader: OwnedReadHalf, mut buffer: BytesMut, tell: watch::Sender<Heard>) {
    let broken = loop {
        let heard = loop {
            match command(&mut buffer) {
                Ok(Some(words)) => break Ok(Some(words)),
                Ok(None) => {}
                Err(what) => break Err((io::ErrorKind::InvalidData, what)),
            }
            match read(&mut reader, &mut buffer).await {
                Ok(()) => tell.send_modify(|heard| heard.at = Instant::now()),
                Err(error) => break Err((error.kind(), error.to_string())),
            }
        };
        match heard {
            Ok(Some(words)) => {
                let acknowledged = acknowledgement(&words);
                tell.send_modify(|heard| {
                    heard.at = Instant::now();
                    heard.acknowledged = acknowledged.or(heard.acknowledged);
                });
            }
            Ok(None) => {}
            Err(broken) => break broken,
        }
    };
    tell.send_modify(|heard| heard.broken = Some(broken));
}

/// `REPLCONF ACK <place>`
fn acknowledgement(words: &[Vec<u8>]) -> Option<u64> {
    let [replconf, ack, place, ..] = words else { return None };
    let is = |word: &[u8], name: &[u8]| word.eq_ignore_ascii_case(name);
    let place = std::str::from_utf8(place).ok()?;
    (is(replconf, b"REPLCONF") && is(ack, b"ACK")).then(|| place.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_when_they_are_whole() {
        let all = b"\n\n*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$2\r\n42\r\n*1\r\n$4\r\nPING\r\n";
        for cut in 0..all.len() {
            let mut buffer = BytesMut::new();
            let mut found = Vec::new();
            for part in [&all[..cut], &all[cut..]] {
                buffer.extend_from_slice(part);
                while let Some(words) = command(&mut buffer).unwrap() {
                    found.push(words);
                }
            }
            assert_eq!(found.len(), 2, "{cut}");
            assert_eq!(acknowledgement(&found[0]), Some(42));
            assert_eq!((acknowledgement(&found[1]), &found[1][0][..]), (None, &b"PING"[..]));
        }
    }

    #[test]
    fn what_no_replica_says_is_told_and_not_waited_for() {
        for bad in [
            &b"GET / HTTP/1.1"[..],
            b"\x16\x03\x01",
            b"*99\r\n",
            b"*1\r\n+x",
            b"*1\r\n$99999999\r\n",
            b"*1234567890123456",
            b"*x\r\n",
        ] {
            let mut buffer = BytesMut::from(bad);
            assert!(command(&mut buffer).is_err(), "{}", bad.escape_ascii());
        }
    }
}
