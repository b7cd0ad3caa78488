//! From the names of keys to an RDB.

use std::collections::VecDeque;

use bytes::Bytes;
use lifeboat_core::{Context, Timestamp};
use tokio::sync::mpsc;

use super::Scanned;
use super::names::{Names, Sorted};
use super::rights::{may, refused};
use crate::bulk::{self, Head, write_command};
use crate::connect::{Answer, Connection, printable};
use crate::error::{Error, Result};
use crate::rdb::{Dialect, RdbWriter, crc64};
use crate::source::Info;

const ASKING: &str = "ask the server about itself";
const SCANNING: &str = "ask for the names of keys";
const DUMPING: &str = "ask for the values of keys";
/// So many names are asked for at a time.
const NAMES: &[u8] = b"1000";
/// Commands are sent ahead until this many bytes of answers are to be expected.
const AHEAD: u64 = 4 << 20;
/// But for no more keys than this.
const MOST_AHEAD: u64 = 256;
/// Names are taken from the sorted ones so many at a time.
const BATCH: usize = 1024;
/// A value passes in pieces of so many bytes.
const PIECE: usize = 256 << 10;
/// What `DUMP` puts behind a value: the version in two bytes, a checksum in eight.
const FOOT: usize = 10;
/// All functions together are held up to so many bytes.
const MOST_FUNCTIONS: usize = 64 << 20;

/// Reads all keys, and gives the RDB that is made of them.
pub(super) async fn make(
    mut connection: Connection,
    give: mpsc::Sender<Bytes>,
    began: Timestamp,
    context: Context,
) -> Result<Scanned> {
    if let Some(error) = may(&mut connection).await? {
        return Err(error);
    }
    let server = Server::ask(&mut connection).await?;
    let functions = server.functions(&mut connection, &context).await?;
    let mut making = Making {
        connection,
        give,
        context,
        server,
        began,
        functions,
        out: None,
        version: 0,
        vanished: 0,
        expected: 64 << 10,
    };
    for database in making.server.databases.clone() {
        let names = making.names(database).await?;
        making.values(database, names).await?;
    }
    making.end().await
}

/// What the server says of itself.
struct Server {
    name: &'static str,
    version: String,
    /// Those that hold keys.
    databases: Vec<u64>,
}

impl Server {
    async fn ask(connection: &mut Connection) -> Result<Self> {
        let info = match connection.demand(ASKING, &[b"INFO"]).await? {
            Answer::Text(text) => text,
            other => return Err(connection.nonsense(ASKING, format!("{other:?}"))),
        };
        let text = String::from_utf8_lossy(&info);
        let held = text.lines().filter_map(|line| {
            let (number, counts) = line.strip_prefix("db")?.split_once(':')?;
            counts.starts_with("keys=").then(|| number.parse::<u64>().ok())?
        });
        let databases = held.collect();
        let info = Info::parse(&info);
        let valkey = info.text("valkey_version").map(|version| ("valkey-ver", version));
        let redis = || info.text("redis_version").map(|version| ("redis-ver", version));
        let (name, version) = valkey.or_else(redis).unwrap_or(("redis-ver", ""));
        Ok(Self { name, version: version.trim().to_owned(), databases })
    }

    /// Major and minor.
    fn number(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// Since 7.0 it can be asked when a key expires, and it has functions.
    fn is_new(&self) -> bool {
        self.number() >= (7, 0)
    }

    /// The version of the format, of a server that gives no value in which it stands.
    fn format(&self) -> u16 {
        match (self.name, self.number()) {
            ("valkey-ver", (9.., _)) => 80,
            ("valkey-ver", _) | (_, (7, 2..4)) => 11,
            (_, (..7, _)) => 9,
            (_, (7, ..2)) => 10,
            _ => 12,
        }
    }

    /// The payload of `FUNCTION DUMP`.
    async fn functions(
        &self,
        connection: &mut Connection,
        context: &Context,
    ) -> Result<Option<Vec<u8>>> {
        if !self.is_new() {
            return Ok(None);
        }
        connection.send(ASKING, &[b"FUNCTION", b"DUMP"]).await?;
        let payload = match bulk::head(connection, ASKING).await? {
            Head::Length(length) => bulk::whole(connection, ASKING, length, MOST_FUNCTIONS).await?,
            Head::Nil => None,
            Head::Refused(answer) => {
                let missed = "functions are not in the snapshot: the user may not ask for them";
                context.warn("functions", format!("{missed} (+function|dump): {answer}"));
                return Ok(None);
            }
        };
        match payload.as_deref().map(footed) {
            Some(Some(_)) => Ok(payload),
            _ => Err(connection.nonsense(ASKING, "no functions".to_owned())),
        }
    }
}

/// What stands before the foot of a payload, and the version in it; nothing when its checksum is
/// wrong.
fn footed(payload: &[u8]) -> Option<(&[u8], u16)> {
    let (body, foot) = payload.split_at_checked(payload.len().checked_sub(FOOT)?)?;
    let (version, sum) = foot.split_at(2);
    let computed = crc64(crc64(0, body), version);
    (computed.to_le_bytes() == *sum).then(|| (body, u16::from_le_bytes([version[0], version[1]])))
}

struct Making {
    connection: Connection,
    give: mpsc::Sender<Bytes>,
    context: Context,
    server: Server,
    began: Timestamp,
    functions: Option<Vec<u8>>,
    /// Once the version is known.
    out: Option<RdbWriter<Vec<u8>>>,
    version: u16,
    vanished: u64,
    /// How many bytes a value has, as the last ones had.
    expected: u64,
}

impl Making {
    /// The names of the keys of a database, which is selected.
    async fn names(&mut self, database: u64) -> Result<Sorted> {
        let number = database.to_string();
        self.demand(SCANNING, &[b"SELECT", number.as_bytes()]).await?;
        let mut names = Names::new(std::env::temp_dir());
        let mut cursor = b"0".to_vec();
        loop {
            let answer = self.demand(SCANNING, &[b"SCAN", &cursor, b"COUNT", NAMES]).await?;
            let Answer::List(parts) = answer else { return Err(self.strange(&answer)) };
            let Ok([Answer::Text(next), Answer::List(found)]) = <[Answer; 2]>::try_from(parts)
            else {
                return Err(self.connection.nonsense(SCANNING, "no names".to_owned()));
            };
            cursor = next;
            names = blocking(move || {
                for name in &found {
                    if let Answer::Text(name) = name {
                        names.push(name)?;
                    }
                }
                Ok(names)
            })
            .await?;
            if cursor == b"0" {
                return blocking(|| names.sorted()).await;
            }
        }
    }

    async fn demand(&mut self, doing: &'static str, words: &[&[u8]]) -> Result<Answer> {
        match self.connection.ask(doing, words).await? {
            Answer::Error(answer) => Err(refused(&self.connection, answer)),
            answer => Ok(answer),
        }
    }

    fn strange(&self, answer: &Answer) -> Error {
        let shown = printable(format!("{answer:?}").as_bytes());
        self.connection.nonsense(SCANNING, shown)
    }

    /// Asks for the values of keys, and writes them.
    async fn values(&mut self, database: u64, mut names: Sorted) -> Result<()> {
        let mut waiting: VecDeque<Vec<u8>> = VecDeque::new();
        let mut ready: VecDeque<Vec<u8>> = VecDeque::new();
        let mut more = true;
        loop {
            if more && ready.len() < BATCH / 2 {
                let batch;
                (names, batch) = blocking(move || {
                    let mut batch = Vec::new();
                    while batch.len() < BATCH
                        && let Some(name) = names.next()?
                    {
                        batch.push(name);
                    }
                    Ok((names, batch))
                })
                .await?;
                more = batch.len() == BATCH;
                ready.extend(batch);
            }
            if self.out.is_none() && !ready.is_empty() {
                self.begin(&mut ready).await?;
                continue;
            }
            let window = (AHEAD / self.expected.max(1)).clamp(1, MOST_AHEAD);
            if (waiting.len() as u64) <= window / 2 {
                let mut buffer = Vec::new();
                while (waiting.len() as u64) < window
                    && let Some(name) = ready.pop_front()
                {
                    self.write_question(&mut buffer, &name);
                    waiting.push_back(name);
                }
                if !buffer.is_empty() {
                    self.connection.send_raw(DUMPING, &buffer).await?;
                }
            }
            match waiting.pop_front() {
                Some(name) => self.value(database, &name).await?,
                None if ready.is_empty() && !more => return Ok(()),
                None => {}
            }
        }
    }

    /// Finds out the version of the format, from the first value there is, and writes what stands
    /// before all keys. Keys that are gone are left out.
    async fn begin(&mut self, ready: &mut VecDeque<Vec<u8>>) -> Result<()> {
        while let Some(name) = ready.front() {
            self.connection.send(DUMPING, &[b"DUMP", name]).await?;
            match bulk::head(&mut self.connection, DUMPING).await? {
                Head::Refused(answer) => return Err(refused(&self.connection, answer)),
                Head::Nil => {
                    self.vanished += 1;
                    ready.pop_front();
                }
                Head::Length(length) => {
                    let mut foot = Foot::default();
                    self.pass(length, |_, bytes| {
                        foot.see(bytes);
                        Ok(())
                    })
                    .await?;
                    return self.write_head(foot.version());
                }
            }
        }
        Ok(())
    }

    fn write_head(&mut self, version: u16) -> Result<()> {
        self.version = version;
        let dialect = if version >= 80 { Dialect::Valkey } else { Dialect::Redis };
        let mut out = RdbWriter::begin(Vec::new(), dialect, version.into());
        let seconds = self.began.as_second().to_string();
        let said = [
            (self.server.name.as_bytes(), self.server.version.as_bytes()),
            (b"redis-bits", b"64"),
            (b"ctime", seconds.as_bytes()),
        ];
        for (name, value) in said {
            out.aux(name, value).map_err(in_memory)?;
        }
        if let Some((libraries, _)) = self.functions.as_deref().and_then(footed) {
            out.raw(libraries).map_err(in_memory)?;
        }
        self.out = Some(out);
        Ok(())
    }

    /// Value and expiry together: nobody writes between the two.
    fn write_question(&self, buffer: &mut Vec<u8>, name: &[u8]) {
        let name: [&[u8]; 1] = [name];
        write_command(buffer, &[&[b"MULTI"]]);
        if self.server.is_new() {
            write_command(buffer, &[&[b"PEXPIRETIME"], &name]);
        } else {
            write_command(buffer, &[&[b"TIME"]]);
            write_command(buffer, &[&[b"PTTL"], &name]);
        }
        write_command(buffer, &[&[b"DUMP"], &name]);
        write_command(buffer, &[&[b"EXEC"]]);
    }

    /// Takes what was answered for a key, and writes the key.
    async fn value(&mut self, database: u64, name: &[u8]) -> Result<()> {
        let is_new = self.server.is_new();
        let commands = if is_new { 3 } else { 4 };
        for _ in 0..commands {
            self.line(b'+').await?;
        }
        self.line(b'*').await?;
        let mut now = 0;
        if !is_new {
            self.line(b'*').await?;
            let mut parts = [0_i64; 2];
            for part in &mut parts {
                self.line(b'$').await?;
                let digits = self.connection.line(DUMPING).await?;
                *part = self.number(&digits)?;
            }
            now = parts[0].saturating_mul(1000).saturating_add(parts[1] / 1000);
        }
        let digits = self.line(b':').await?;
        let expires = match self.number(&digits)? {
            at @ 0.. => Some(at.saturating_add(now)),
            _ => None,
        };
        let length = match bulk::head(&mut self.connection, DUMPING).await? {
            Head::Length(length) => length,
            Head::Nil => {
                self.vanished += 1;
                return Ok(());
            }
            Head::Refused(answer) => return Err(refused(&self.connection, answer)),
        };
        self.expected = (self.expected * 7 + length) / 8;
        let (mut kind, mut foot) = (None, Foot::default());
        self.pass(length, |out, bytes| {
            let mut settled = foot.see(bytes);
            if kind.is_none()
                && let Some((first, rest)) = settled.split_first()
            {
                kind = Some(*first);
                out.database(database);
                out.key(expires, *first, name);
                settled = rest.to_vec();
            }
            out.raw(&settled)
        })
        .await?;
        if kind.is_none() || !foot.is_right() {
            let name = printable(&name[..name.len().min(100)]);
            let what = format!("a value with a wrong checksum for {name}");
            return Err(self.connection.nonsense(DUMPING, what));
        }
        if foot.version() != self.version {
            let what = "values of another version than the first: it was replaced meanwhile";
            return Err(self.connection.nonsense(DUMPING, what.to_owned()));
        }
        Ok(())
    }

    /// The next line, which begins so; without that.
    async fn line(&mut self, first: u8) -> Result<Vec<u8>> {
        let line = self.connection.line(DUMPING).await?;
        match line.split_first() {
            Some((found, rest)) if *found == first => Ok(rest.to_vec()),
            Some((b'-', answer)) => Err(refused(&self.connection, printable(answer))),
            _ => Err(self.connection.nonsense(DUMPING, format!("\"{}\"", printable(&line)))),
        }
    }

    fn number(&self, digits: &[u8]) -> Result<i64> {
        let number = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| self.connection.nonsense(DUMPING, printable(digits)))
    }

    /// Takes a string of so many bytes piece by piece, and gives on what is ready.
    async fn pass(
        &mut self,
        length: u64,
        mut take: impl FnMut(&mut RdbWriter<Vec<u8>>, &[u8]) -> std::io::Result<()>,
    ) -> Result<()> {
        let mut nowhere = RdbWriter::begin(Vec::new(), Dialect::Redis, 0);
        let mut left = length;
        let mut piece = Vec::new();
        while left > 0 {
            piece.clear();
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            self.connection.receive(DUMPING, &mut piece, most).await?;
            left -= piece.len() as u64;
            take(self.out.as_mut().unwrap_or(&mut nowhere), &piece).map_err(in_memory)?;
            self.give().await?;
        }
        bulk::end(&mut self.connection, DUMPING).await
    }

    /// Gives on what is ready.
    async fn give(&mut self) -> Result<()> {
        let Some(ready) = self.out.as_mut().and_then(RdbWriter::ready) else { return Ok(()) };
        self.send(&ready).await
    }

    async fn send(&self, ready: &[u8]) -> Result<()> {
        let mut buffer = self.context.budget().buffer(ready.len()).await;
        buffer.data_mut().extend_from_slice(ready);
        self.give.send(buffer.freeze()).await.map_err(|_| Error::Unfinished)
    }

    async fn end(mut self) -> Result<Scanned> {
        if self.out.is_none() {
            // No key: then functions say it, or the server's version.
            let said = self.functions.as_deref().and_then(footed).map(|(_, version)| version);
            self.write_head(said.unwrap_or_else(|| self.server.format()))?;
        }
        let out = self.out.take().ok_or(Error::Unfinished)?;
        let last = out.end().map_err(in_memory)?;
        self.send(&last).await?;
        Ok(Scanned { ended: Timestamp::now(), vanished: self.vanished })
    }
}

/// The last bytes of a payload, kept back from what goes on, and the checksum of what is before them.
#[derive(Default)]
struct Foot {
    last: Vec<u8>,
    crc: u64,
}

impl Foot {
    /// Sees the bytes that follow; gives those that are no part of the foot.
    fn see(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.last.extend_from_slice(bytes);
        let settled = self.last.len().saturating_sub(FOOT);
        let settled: Vec<u8> = self.last.drain(..settled).collect();
        self.crc = crc64(self.crc, &settled);
        settled
    }

    fn version(&self) -> u16 {
        self.last.first_chunk::<2>().map_or(0, |version| u16::from_le_bytes(*version))
    }

    fn is_right(&self) -> bool {
        let sum = self.last.get(2..).and_then(<[u8]>::first_chunk::<8>);
        let computed = crc64(self.crc, self.last.get(..2).unwrap_or_default());
        sum.is_some_and(|sum| u64::from_le_bytes(*sum) == computed)
    }
}

/// Writing to memory does not fail.
fn in_memory(_: std::io::Error) -> Error {
    Error::Unfinished
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| Error::Panicked { source })?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer of `DUMP` in the documentation of that command, for the value 10.
    const DUMPED: &[u8] = b"\x00\xc0\n\n\x00n\x9fWE\x0e\xaec\xbb";

    #[test]
    fn the_foot_of_a_payload_is_checked_however_it_comes() {
        assert_eq!(footed(DUMPED), Some((&DUMPED[..3], 10)));
        for piece in 1..=DUMPED.len() {
            let mut foot = Foot::default();
            let body: Vec<u8> = DUMPED.chunks(piece).flat_map(|bytes| foot.see(bytes)).collect();
            assert_eq!((&body[..], foot.version(), foot.is_right()), (&DUMPED[..3], 10, true));
        }
        for at in 0..DUMPED.len() {
            let mut damaged = DUMPED.to_vec();
            damaged[at] ^= 1;
            assert_eq!(footed(&damaged), None);
            let mut foot = Foot::default();
            foot.see(&damaged);
            assert!(!foot.is_right());
        }
        assert_eq!(footed(&DUMPED[..9]), None);
    }
}
