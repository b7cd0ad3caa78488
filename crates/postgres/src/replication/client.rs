//! The commands of the replication protocol that are needed here.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, TargetSessionAttrs};

use super::base::{self, BaseBackup, Begun, MAX_TABLESPACES, SILENCE, Sent, Stopped};
use super::copy::{self, Received, Status};
use super::dial;
use super::error::{ReplicationError, Result};
use super::frame::{columns, row};
use super::link::{ANSWER_LIMIT, Link};
use super::slot::SlotName;
use super::startup::{self, unexpected};
use crate::connect::ConnectOptions;
use crate::lsn::{Lsn, SegmentSize};

/// No answer to a command of ours has more rows.
const MAX_ROWS: usize = 1000;

/// A connection on which a server is asked for WAL.
///
/// Every wait for an answer has a limit. After an error of the kind
/// [`Server`](ReplicationError::Server) the connection can be used further, unless it said
/// goodbye; after any other it must be dropped.
#[derive(Debug)]
pub(crate) struct Client {
    link: Link,
    target: String,
}

/// Who the server is, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) system_id: u64,
    pub(crate) timeline: u32,
    /// Up to here its WAL is flushed; at a standby, received or replayed.
    pub(crate) position: Lsn,
}

/// A physical replication slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// From here on it keeps WAL; unknown until it has been used or was made to reserve it.
    pub(crate) from: Option<Lsn>,
}

/// What a timeline ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NextTimeline {
    pub(crate) timeline: u32,
    pub(crate) from: Lsn,
}

/// What a request for WAL was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    /// WAL follows.
    Streaming,
    /// The timeline has no more, and goes on as another.
    Ended(NextTimeline),
}

/// The rows of one answer.
type Rows = Vec<Vec<Option<Bytes>>>;

impl Client {
    /// Connects to the first server among those named that answers and that
    /// `target_session_attrs` allows.
    pub(crate) async fn connect(options: &ConnectOptions) -> lifeboat_core::Result<Self> {
        let target = options.target();
        let config = options.complete()?;
        let tls = options.tls()?;
        if config.get_channel_binding() == ChannelBinding::Require {
            let why = "channel_binding=require is not supported here".into();
            let remedy = "leave it out, and use sslmode=verify-full";
            return Err(ReplicationError::Unsuitable { target, why, remedy }.into());
        }
        // As long as it may take to connect, and as long again for what the server asks.
        let limit = 2 * config.get_connect_timeout().copied().unwrap_or(Duration::from_secs(30));
        let mut failure = None;
        for way in dial::ways(&config) {
            let connecting = async {
                let stream = dial::open(&way, config.get_ssl_mode(), &tls, &target).await?;
                let mut link = Link::new(stream);
                startup::begin(&mut link, &config, &target).await?;
                suits(&link, config.get_target_session_attrs(), &target)?;
                Ok(Self { link, target: target.clone() })
            };
            let outcome = timeout(limit, connecting).await.unwrap_or_else(|_| {
                let what = format!("connect to PostgreSQL at {target} for replication");
                Err(ReplicationError::Silent { what, seconds: limit.as_secs() })
            });
            match outcome {
                Ok(client) => return Ok(client),
                Err(error) => failure = Some(error),
            }
        }
        let nowhere = || ReplicationError::Unsuitable {
            target: target.clone(),
            why: "no host is named".into(),
            remedy: "name one",
        };
        Err(failure.unwrap_or_else(nowhere).into())
    }

    /// Host, port and user, for messages.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// The server's major version.
    pub(crate) fn major(&self) -> Result<u32> {
        let what = "ask the server for its version";
        let text = self.link.parameter("server_version").unwrap_or_default();
        let digits = text.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().map_err(|_| ReplicationError::protocol(what, "it names none"))
    }

    /// What the server calls its version.
    pub(crate) fn version_text(&self) -> &str {
        self.link.parameter("server_version").unwrap_or_default()
    }

    /// Whether the server is a standby, by what it said last.
    pub(crate) fn is_standby(&self) -> bool {
        self.link.parameter("in_hot_standby") == Some("on")
    }

    pub(crate) async fn identify(&mut self) -> Result<Identity> {
        let what = "ask the server who it is";
        let rows = self.command("IDENTIFY_SYSTEM", what).await?;
        let row = only(what, &rows)?;
        Ok(Identity {
            system_id: value(what, row, 0)?,
            timeline: value(what, row, 1)?,
            position: value(what, row, 2)?,
        })
    }

    pub(crate) async fn segment_size(&mut self) -> Result<SegmentSize> {
        let what = "ask the server for the size of its WAL segments";
        let rows = self.command("SHOW wal_segment_size", what).await?;
        let text: String = value(what, only(what, &rows)?, 0)?;
        let size = in_bytes(&text).and_then(SegmentSize::new);
        size.ok_or_else(|| ReplicationError::protocol(what, "it is no size that there is"))
    }

    /// A setting as the server shows it; `None` when there is none, or the role may not see it.
    pub(crate) async fn setting(&mut self, name: &'static str) -> Result<Option<String>> {
        let what = format!("ask the server for {name}");
        match self.command(&format!("SHOW {name}"), &what).await {
            Ok(rows) => value(&what, only(&what, &rows)?, 0).map(Some),
            Err(error) if matches!(error.code(), Some("42704" | "42501")) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A setting that every server has, and shows as a number, or as a size with its unit.
    pub(crate) async fn size_setting(&mut self, name: &'static str) -> Result<u32> {
        let what = format!("ask the server for {name}");
        let text = self.setting(name).await?.unwrap_or_default();
        let size = text.parse().ok().or_else(|| in_bytes(&text));
        size.ok_or_else(|| ReplicationError::protocol(what, "it is no size that there is"))
    }

    /// Makes a slot that keeps WAL from now on, and ends with this connection. Whether there was
    /// one left to make.
    pub(crate) async fn keep_wal(&mut self, slot: &SlotName) -> Result<bool> {
        let command = format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY PHYSICAL RESERVE_WAL");
        match self.command(&command, "have the server keep its WAL").await {
            Ok(_) => Ok(true),
            // All are taken, or there may be none at all.
            Err(error) if matches!(error.code(), Some("53400" | "55000")) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins to send the manifest of an earlier backup.
    pub(crate) async fn begin_manifest(&mut self) -> Result<()> {
        self.ask("UPLOAD_MANIFEST", base::MANIFEST).await?;
        let frame = self.answer(base::MANIFEST).await?;
        if frame.tag == b'G' { Ok(()) } else { Err(unexpected(base::MANIFEST, frame.tag)) }
    }

    /// Sends a piece of it.
    pub(crate) async fn send_manifest(&mut self, piece: &[u8]) -> Result<()> {
        let data = frontend::CopyData::new(piece)
            .map_err(|error| ReplicationError::protocol(base::MANIFEST, error.to_string()))?;
        let mut message = BytesMut::new();
        data.write(&mut message);
        self.link.send(&message, base::MANIFEST).await
    }

    /// Ends it, and hears what the server says to it.
    pub(crate) async fn end_manifest(&mut self) -> Result<()> {
        let mut message = BytesMut::new();
        frontend::copy_done(&mut message);
        self.link.send(&message, base::MANIFEST).await?;
        self.rows(None, base::MANIFEST).await.map(drop)
    }

    /// Begins a base backup. What it consists of is then taken with
    /// [`next_sent`](Self::next_sent), to the end.
    pub(crate) async fn begin_backup(&mut self, backup: &BaseBackup) -> Result<Begun> {
        let what = "begin a base backup";
        let flaw = |why| ReplicationError::protocol(what, why);
        self.ask(&backup.command(), what).await?;
        let limit = backup.patience();
        let rows = self.result_set(limit, 1, what).await?;
        let row = only(what, &rows)?;
        let (start, timeline) = (value(what, row, 0)?, value(what, row, 1)?);
        let rows = self.result_set(limit, MAX_TABLESPACES, what).await?;
        let (tablespaces, size) = base::tablespaces(&rows).map_err(flaw)?;
        let frame = self.link.next_within(SILENCE, what).await?;
        if frame.tag != b'H' {
            return Err(unexpected(what, frame.tag));
        }
        Ok(Begun { start, timeline, tablespaces, size })
    }

    /// What comes next of a base backup.
    pub(crate) async fn next_sent(&mut self) -> Result<Sent> {
        loop {
            let next = timeout(SILENCE, self.link.next_or_notice(base::WHAT)).await;
            let frame = next.unwrap_or_else(|_| {
                let seconds = SILENCE.as_secs();
                Err(ReplicationError::Silent { what: base::WHAT.to_owned(), seconds })
            })?;
            if let Some(sent) = base::read(frame)? {
                return Ok(sent);
            }
        }
    }

    /// How a base backup ended, of which all has come.
    pub(crate) async fn end_backup(&mut self) -> Result<Stopped> {
        let what = "end the base backup";
        let rows = self.result_set(SILENCE, 1, what).await?;
        let row = only(what, &rows)?;
        let (stop, timeline) = (value(what, row, 0)?, value(what, row, 1)?);
        // Last of all the server says that it found damaged pages, as an error.
        let damaged = match self.rows(None, what).await {
            Ok(_) => None,
            Err(ReplicationError::Server { answer, .. }) if answer.code == "XX001" => Some(*answer),
            Err(error) => return Err(error),
        };
        Ok(Stopped { stop, timeline, damaged })
    }

    /// The history file of a timeline, byte for byte.
    pub(crate) async fn timeline_history(&mut self, timeline: u32) -> Result<Bytes> {
        let what = format!("ask the server for the history of timeline {timeline}");
        let rows = self.command(&format!("TIMELINE_HISTORY {timeline}"), &what).await?;
        let row = only(&what, &rows)?;
        let name: String = value(&what, row, 0)?;
        if name != format!("{timeline:08X}.history") {
            return Err(ReplicationError::protocol(what, "it is the history of another one"));
        }
        let content = row.get(1).cloned().flatten();
        content.ok_or_else(|| ReplicationError::protocol(what, "it has no content"))
    }

    /// Makes a slot that keeps WAL from now on, unless it is there already. Whether it was made.
    pub(crate) async fn make_slot(&mut self, slot: &SlotName) -> Result<bool> {
        let what = format!("make the replication slot {slot}");
        // The older spelling, which all versions take.
        let command = format!("CREATE_REPLICATION_SLOT {slot} PHYSICAL RESERVE_WAL");
        match self.command(&command, &what).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("42710") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the server knows of a slot; `None` when there is none. Versions before 15 cannot be
    /// asked, and give a slot without a position.
    pub(crate) async fn read_slot(&mut self, slot: &SlotName) -> Result<Option<Slot>> {
        if self.major()? < 15 {
            return Ok(Some(Slot { from: None }));
        }
        let what = format!("read the replication slot {slot}");
        let rows = self.command(&format!("READ_REPLICATION_SLOT {slot}"), &what).await?;
        let row = only(&what, &rows)?;
        if row.first().is_none_or(Option::is_none) {
            return Ok(None);
        }
        let kind: String = value(&what, row, 0)?;
        if kind != "physical" {
            return Err(ReplicationError::protocol(what, "it is not a physical one"));
        }
        let from = match row.get(1) {
            Some(Some(_)) => Some(value(&what, row, 1)?),
            _ => None,
        };
        Ok(Some(Slot { from }))
    }

    /// Drops a slot.
    pub(crate) async fn drop_slot(&mut self, slot: &SlotName) -> Result<()> {
        let what = format!("drop the replication slot {slot}");
        self.command(&format!("DROP_REPLICATION_SLOT {slot} WAIT"), &what).await.map(drop)
    }

    /// Asks for the WAL of a timeline, from a position on.
    pub(crate) async fn start(
        &mut self,
        slot: &SlotName,
        timeline: u32,
        from: Lsn,
    ) -> Result<Started> {
        let what = format!("stream WAL of timeline {timeline} from {from}");
        let command = format!("START_REPLICATION SLOT {slot} PHYSICAL {from} TIMELINE {timeline}");
        self.ask(&command, &what).await?;
        let frame = self.answer(&what).await?;
        match frame.tag {
            b'W' => Ok(Started::Streaming),
            b'T' => self.next_timeline(Some(frame.body), &what).await.map(Started::Ended),
            tag => Err(unexpected(&what, tag)),
        }
    }

    /// The next piece of a stream that was started. Nothing is lost when the future is dropped.
    pub(crate) async fn receive(&mut self) -> Result<Received> {
        copy::receive(&mut self.link).await
    }

    /// Tells the server how far we are.
    pub(crate) async fn report(&mut self, status: &Status) -> Result<()> {
        self.link.send(&status.message(), copy::WHAT).await
    }

    /// Ends a stream of which the server has said that its timeline ended, and asks how it goes on.
    pub(crate) async fn finish_timeline(&mut self) -> Result<NextTimeline> {
        let what = "end the stream of a timeline";
        let mut message = BytesMut::new();
        frontend::copy_done(&mut message);
        self.link.send(&message, what).await?;
        self.next_timeline(None, what).await
    }

    /// Ends a stream from our side, and says goodbye.
    pub(crate) async fn close(mut self) -> Result<()> {
        let what = "end the stream";
        let mut message = BytesMut::new();
        frontend::copy_done(&mut message);
        frontend::terminate(&mut message);
        self.link.send(&message, what).await
    }

    /// The row that says which timeline follows, up to the end of the command.
    async fn next_timeline(
        &mut self,
        columns_seen: Option<Bytes>,
        what: &str,
    ) -> Result<NextTimeline> {
        let rows = self.rows(columns_seen, what).await?;
        let row = only(what, &rows)?;
        Ok(NextTimeline { timeline: value(what, row, 0)?, from: value(what, row, 1)? })
    }

    async fn ask(&mut self, command: &str, what: &str) -> Result<()> {
        let mut message = BytesMut::new();
        frontend::query(command, &mut message)
            .map_err(|error| ReplicationError::protocol(what, error.to_string()))?;
        self.link.send(&message, what).await
    }

    /// One command, and all that it answers.
    async fn command(&mut self, command: &str, what: &str) -> Result<Rows> {
        self.ask(command, what).await?;
        self.rows(None, what).await
    }

    /// The next message; after an error, what follows up to the end of the command is skipped.
    async fn answer(&mut self, what: &str) -> Result<super::frame::Frame> {
        match self.link.next_within(ANSWER_LIMIT, what).await {
            Err(error @ ReplicationError::Server { .. }) => {
                while let Ok(frame) = self.link.next_within(ANSWER_LIMIT, what).await {
                    if frame.tag == b'Z' {
                        break;
                    }
                }
                Err(error)
            }
            other => other,
        }
    }

    /// One of several answers to a command.
    async fn result_set(&mut self, limit: Duration, most: usize, what: &str) -> Result<Rows> {
        let flaw = |why| ReplicationError::protocol(what, why);
        let mut width = None;
        let mut rows = Vec::new();
        loop {
            let frame = self.link.next_within(limit, what).await?;
            match (frame.tag, width) {
                (b'T', None) => width = Some(columns(frame.body).map_err(flaw)?),
                (b'D', Some(width)) => {
                    let row = row(frame.body).map_err(flaw)?;
                    if row.len() != width || rows.len() == most {
                        return Err(flaw("a row that does not belong".into()));
                    }
                    rows.push(row);
                }
                (b'C', Some(_)) => return Ok(rows),
                (tag, _) => return Err(unexpected(what, tag)),
            }
        }
    }

    /// The rows of an answer up to its end.
    async fn rows(&mut self, head: Option<Bytes>, what: &str) -> Result<Rows> {
        let flaw = |why| ReplicationError::protocol(what, why);
        let mut width = head.map(columns).transpose().map_err(flaw)?;
        let mut rows = Vec::new();
        loop {
            let frame = self.answer(what).await?;
            match frame.tag {
                b'T' => width = Some(columns(frame.body).map_err(flaw)?),
                b'D' => {
                    let row = row(frame.body).map_err(flaw)?;
                    if Some(row.len()) != width || rows.len() == MAX_ROWS {
                        return Err(flaw("a row that does not belong".into()));
                    }
                    rows.push(row);
                }
                // A command is complete, or there was none.
                b'C' | b'I' => {}
                b'Z' => return Ok(rows),
                tag => return Err(unexpected(what, tag)),
            }
        }
    }
}

/// Whether a server may be used, by what it says of itself. Versions before 14 do not say.
fn suits(link: &Link, wanted: TargetSessionAttrs, target: &str) -> Result<()> {
    let standby = link.parameter("in_hot_standby").map(|value| value == "on");
    let why = match (wanted, standby) {
        (TargetSessionAttrs::ReadWrite, Some(true)) => "the server is a standby",
        (TargetSessionAttrs::ReadOnly, Some(false)) => "the server is a primary",
        _ => return Ok(()),
    };
    Err(ReplicationError::Unsuitable {
        target: target.to_owned(),
        why: format!("{why}, and target_session_attrs asks for something else"),
        remedy: "name the other servers, too, or leave target_session_attrs out",
    })
}

/// The one row that an answer must have.
fn only<'a>(what: &str, rows: &'a Rows) -> Result<&'a [Option<Bytes>]> {
    match &rows[..] {
        [row] => Ok(row),
        _ => Err(ReplicationError::protocol(what, format!("{} rows instead of one", rows.len()))),
    }
}

/// A value that must be there.
fn value<T: std::str::FromStr>(what: &str, row: &[Option<Bytes>], at: usize) -> Result<T> {
    let bytes = row.get(at).and_then(Option::as_ref);
    let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let value = text.and_then(|text| text.parse().ok());
    value.ok_or_else(|| {
        ReplicationError::protocol(what, format!("the value {} is not what it must be", at + 1))
    })
}

/// A size as the server shows it: `16MB`.
fn in_bytes(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let factor: u32 = match unit {
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u32>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_server_shows_them() {
        assert_eq!(in_bytes("1MB"), Some(1 << 20));
        assert_eq!(in_bytes("1GB"), Some(1 << 30));
        for bad in ["", "16", "MB", "16TB", "99999MB", "-1MB", "16 MB"] {
            assert_eq!(in_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_answer_must_have_what_is_asked_of_it() {
        let row = vec![Some(Bytes::from_static(b"12")), None, Some(Bytes::from_static(b"\xff"))];
        assert_eq!(value::<u32>("x", &row, 0).unwrap(), 12);
        for at in 1..4 {
            assert!(value::<u32>("x", &row, at).is_err(), "{at}");
        }
        assert!(only("x", &vec![]).is_err() && only("x", &vec![vec![], vec![]]).is_err());
    }
}
