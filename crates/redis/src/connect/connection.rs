//! A connection: commands go out as arrays of strings, answers come back as RESP2 writes them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{ConnectOptions, Place, tls};
use crate::error::{Error, Result};

/// An answer's line has no more bytes than this.
const LONGEST_LINE: usize = 64 << 10;
/// A string in an answer has no more bytes than this. `INFO` has some 10 KiB.
const LONGEST_STRING: usize = 8 << 20;
/// An answer has no more parts than this.
const MOST_PARTS: usize = 1 << 16;
/// Lists are not nested deeper than this.
const DEEPEST: usize = 4;

/// What carries bytes.
trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// What a server answers to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A status, a string or a number.
    Text(Vec<u8>),
    /// An error, without its minus.
    Error(String),
    /// Nothing.
    Nil,
    /// Several.
    List(Vec<Answer>),
}

pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    /// What came and was not taken yet.
    buffer: BytesMut,
    target: String,
    /// The service of Sentinels by which it was found.
    service: Option<String>,
    user: String,
    patience: Duration,
    /// Our address and the server's, where it is one of a network.
    ends: Option<(SocketAddr, SocketAddr)>,
}

impl Connection {
    pub(super) async fn open(options: &ConnectOptions) -> Result<Self> {
        let target = options.target();
        let patience = options.patience;
        let opening = timeout(patience, open(options)).await;
        let (stream, ends) = opening.map_err(|_| Error::NoAnswer {
            doing: "connect",
            target: target.clone(),
            seconds: patience.as_secs(),
        })??;
        let user = options.user.clone().unwrap_or_else(|| "default".to_owned());
        let buffer = BytesMut::new();
        let service = None;
        let mut connection = Self { stream, buffer, target, service, user, patience, ends };
        let password = options.password.as_ref().map(ExposeSecret::expose_secret);
        // Who is named and has no password must not be taken for another: a user without one
        // (`nopass`) may log in with any.
        if let Some(password) = password.or_else(|| options.user.as_ref().map(|_| "")) {
            let mut command = vec![&b"AUTH"[..]];
            command.extend(options.user.as_ref().map(String::as_bytes));
            command.push(password.as_bytes());
            let answer = connection.ask("log in", &command).await?;
            if let Answer::Error(answer) = answer {
                return Err(Error::Login { target: connection.target, answer });
            }
        }
        Ok(connection)
    }

    /// The server, for people.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// By which name the server is known: that of the service, where Sentinels say where it is.
    pub(crate) fn known_as(&self) -> &str {
        self.service.as_deref().unwrap_or(&self.target)
    }

    /// It was found as this service.
    pub(super) fn found_as(mut self, service: String) -> Self {
        self.service = Some(service);
        self
    }

    /// Our address and the server's, where it is one of a network.
    pub(crate) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.ends
    }

    /// Sends a command.
    pub(crate) async fn send(&mut self, doing: &'static str, words: &[&[u8]]) -> Result<()> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            command.extend_from_slice(word);
            command.extend_from_slice(b"\r\n");
        }
        let sending = async {
            self.stream.write_all(&command).await?;
            self.stream.flush().await
        };
        let sent = timeout(self.patience, sending).await;
        sent.map_err(|_| self.no_answer(doing))?.map_err(|source| self.lost(doing, source))
    }

    /// Sends a command and reads what is answered.
    pub(crate) async fn ask(&mut self, doing: &'static str, words: &[&[u8]]) -> Result<Answer> {
        self.send(doing, words).await?;
        self.answer(doing).await
    }

    /// As [`Connection::ask`], with the server's refusal as an error.
    pub(crate) async fn demand(&mut self, doing: &'static str, words: &[&[u8]]) -> Result<Answer> {
        match self.ask(doing, words).await? {
            Answer::Error(answer) => Err(self.refused(doing, answer)),
            answer => Ok(answer),
        }
    }

    /// Sends what are commands already, piece by piece, each within the limit of time.
    pub(crate) async fn send_raw(&mut self, doing: &'static str, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(1 << 20) {
            let sent = timeout(self.patience, self.stream.write_all(piece)).await;
            sent.map_err(|_| self.no_answer(doing))?.map_err(|source| self.lost(doing, source))?;
        }
        let flushed = timeout(self.patience, self.stream.flush()).await;
        flushed.map_err(|_| self.no_answer(doing))?.map_err(|source| self.lost(doing, source))
    }

    /// Reads what is answered to a command.
    pub(crate) async fn answer(&mut self, doing: &'static str) -> Result<Answer> {
        // The lists that are not whole yet, each with how many parts it still lacks.
        let mut open: Vec<(Vec<Answer>, usize)> = Vec::new();
        let mut parts = 0;
        loop {
            let line = self.line(doing).await?;
            let mut found = match line.split_first() {
                Some((b'*', count)) => match self.number(doing, count)? {
                    None => Answer::Nil,
                    Some(0) => Answer::List(Vec::new()),
                    Some(count) => {
                        if open.len() == DEEPEST {
                            return Err(self.nonsense(doing, "lists in lists".to_owned()));
                        }
                        open.push((Vec::new(), count));
                        continue;
                    }
                },
                _ => self.simple(doing, &line).await?,
            };
            parts += 1;
            if parts > MOST_PARTS {
                return Err(self.nonsense(doing, "a list without end".to_owned()));
            }
            loop {
                let Some((list, missing)) = open.last_mut() else {
                    return Ok(found);
                };
                list.push(found);
                *missing -= 1;
                if *missing > 0 {
                    break;
                }
                found = Answer::List(open.pop().map(|(list, _)| list).unwrap_or_default());
            }
        }
    }

    async fn simple(&mut self, doing: &'static str, line: &[u8]) -> Result<Answer> {
        match line.split_first() {
            Some((b'+' | b':', text)) => Ok(Answer::Text(text.to_vec())),
            Some((b'-', text)) => Ok(Answer::Error(printable(text))),
            Some((b'$', length)) => match self.number(doing, length)? {
                None => Ok(Answer::Nil),
                Some(length) if length > LONGEST_STRING => {
                    Err(self.nonsense(doing, format!("a string of {length} bytes")))
                }
                Some(length) => {
                    while self.buffer.len() < length + 2 {
                        self.read(doing).await?;
                    }
                    let text = self.buffer.split_to(length).to_vec();
                    self.buffer.advance(2);
                    Ok(Answer::Text(text))
                }
            },
            Some((b'_', _)) => Ok(Answer::Nil),
            _ => Err(self.nonsense(doing, format!("\"{}\"", printable(line)))),
        }
    }

    fn number(&self, doing: &'static str, digits: &[u8]) -> Result<Option<usize>> {
        if digits == b"-1" {
            return Ok(None);
        }
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let wrong = || self.nonsense(doing, format!("a length of \"{}\"", printable(digits)));
        number.map(Some).ok_or_else(wrong)
    }

    /// The next line, without its end.
    pub(crate) async fn line(&mut self, doing: &'static str) -> Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let found = self.buffer[searched..].iter().position(|byte| *byte == b'\n');
            if let Some(at) = found {
                let mut line = self.buffer.split_to(searched + at + 1).to_vec();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            searched = self.buffer.len();
            if searched > LONGEST_LINE {
                return Err(self.nonsense(doing, "a line without end".to_owned()));
            }
            self.read(doing).await?;
        }
    }

    /// Waits for more bytes. The end of the connection is an error.
    async fn read(&mut self, doing: &'static str) -> Result<()> {
        self.buffer.reserve(16 << 10);
        let reading = timeout(self.patience, self.stream.read_buf(&mut self.buffer)).await;
        let read = reading.map_err(|_| self.no_answer(doing))?;
        match read {
            Ok(0) => Err(self.lost(doing, io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(source) => Err(self.lost(doing, source)),
        }
    }

    /// Waits for more bytes and appends them to `data`, which has `most` bytes at most afterwards.
    /// The end of the connection is an error.
    pub(crate) async fn receive(
        &mut self,
        doing: &'static str,
        data: &mut Vec<u8>,
        most: usize,
    ) -> Result<()> {
        let room = most.saturating_sub(data.len());
        if !self.buffer.is_empty() {
            let here = self.buffer.len().min(room);
            data.extend_from_slice(&self.buffer.split_to(here));
            return Ok(());
        }
        data.reserve(room);
        let mut limited = (&mut *self.stream).take(room as u64);
        let reading = timeout(self.patience, limited.read_buf(data)).await;
        match reading.map_err(|_| self.no_answer(doing))? {
            Ok(0) => Err(self.lost(doing, io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(source) => Err(self.lost(doing, source)),
        }
    }

    /// Waits for more bytes without a limit of time and appends them to `data`, `most` of them at
    /// most. The end of the connection is an error. Nothing is lost when the future is dropped.
    pub(crate) async fn hear(
        &mut self,
        doing: &'static str,
        data: &mut BytesMut,
        most: usize,
    ) -> Result<usize> {
        if !self.buffer.is_empty() {
            let here = self.buffer.len().min(most);
            data.extend_from_slice(&self.buffer.split_to(here));
            return Ok(here);
        }
        data.reserve(most.min(64 << 10));
        let mut limited = (&mut *self.stream).take(most as u64);
        match limited.read_buf(data).await {
            Ok(0) => Err(self.lost(doing, io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => Ok(count),
            Err(source) => Err(self.lost(doing, source)),
        }
    }

    /// What an error of the server means.
    pub(crate) fn refused(&self, doing: &'static str, answer: String) -> Error {
        let target = self.target.clone();
        let word = answer.split(' ').next().unwrap_or_default();
        match word {
            "NOAUTH" | "WRONGPASS" => Error::Login { target, answer },
            "NOPERM" => Error::MayNot { doing, user: self.user.clone(), answer },
            "LOADING" | "NOMASTERLINK" | "MASTERDOWN" | "BUSY" => {
                Error::NotNow { doing, target, answer }
            }
            _ if answer.contains("unknown command") => Error::NotOffered { doing, target, answer },
            _ => Error::Answered { doing, target, answer },
        }
    }

    /// How long the server may say nothing.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn nonsense(&self, doing: &'static str, what: String) -> Error {
        Error::Nonsense { doing, target: self.target.clone(), what }
    }

    pub(crate) fn no_answer(&self, doing: &'static str) -> Error {
        let seconds = self.patience.as_secs();
        Error::NoAnswer { doing, target: self.target.clone(), seconds }
    }

    pub(crate) fn lost(&self, doing: &'static str, source: io::Error) -> Error {
        Error::Lost { doing, target: self.target.clone(), source }
    }
}

/// A stream to a server; of a network, with our address and the server's.
type Opened = (Box<dyn Stream>, Option<(SocketAddr, SocketAddr)>);

async fn open(options: &ConnectOptions) -> Result<Opened> {
    let target = options.target();
    let refused = |source| Error::Connect { target: target.clone(), source };
    match &options.place {
        Place::Socket(path) => {
            let stream = UnixStream::connect(path).await.map_err(refused)?;
            Ok((Box::new(stream), None))
        }
        // They are asked before, for one of a network.
        Place::Sentinels { .. } => Err(refused(io::ErrorKind::Unsupported.into())),
        Place::Network { host, port, tls } => {
            let connector = if *tls { Some(tls::connector(options)?) } else { None };
            let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(refused)?;
            tcp.set_nodelay(true).map_err(refused)?;
            let local = tcp.local_addr().map_err(refused)?;
            let ends = Some((local, tcp.peer_addr().map_err(refused)?));
            let Some(connector) = connector else {
                return Ok((Box::new(tcp), ends));
            };
            let failed = |source| Error::Tls { target: target.clone(), source };
            let name = ServerName::try_from(host.clone())
                .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
            Ok((Box::new(connector.connect(name, tcp).await.map_err(failed)?), ends))
        }
    }
}

/// What a server said, without tricks for terminals, and not without end.
pub(crate) fn printable(text: &[u8]) -> String {
    let shown = &text[..text.len().min(300)];
    let clean = |c: char| if c.is_control() { '?' } else { c };
    String::from_utf8_lossy(shown).chars().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Answer> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(bytes).await.unwrap();
        drop(theirs);
        let mut connection = Connection {
            stream: Box::new(ours),
            buffer: BytesMut::new(),
            target: String::new(),
            service: None,
            user: String::new(),
            patience: Duration::from_secs(60),
            ends: None,
        };
        connection.answer("ask").await
    }

    #[tokio::test]
    async fn lists_in_lists_are_read_and_not_without_end() {
        let text = |text: &str| Answer::Text(text.into());
        let answer = read(b"*3\r\n+a\r\n*2\r\n$1\r\nb\r\n*0\r\n:7\r\n").await.unwrap();
        let inner = Answer::List(vec![text("b"), Answer::List(Vec::new())]);
        assert_eq!(answer, Answer::List(vec![text("a"), inner, text("7")]));
        assert_eq!(read(b"*-1\r\n").await.unwrap(), Answer::Nil);
        let deep = b"*1\r\n".repeat(9);
        assert!(matches!(read(&deep).await, Err(Error::Nonsense { .. })));
        let long = [&b"*99999999\r\n"[..], &b"+\r\n".repeat(MOST_PARTS + 1)].concat();
        assert!(matches!(read(&long).await, Err(Error::Nonsense { .. })));
        assert!(matches!(read(b"*2\r\n+a\r\n").await, Err(Error::Lost { .. })));
    }
}
