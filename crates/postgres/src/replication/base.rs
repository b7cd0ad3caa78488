//! What is said around a base backup, and how what is sent in it is taken apart.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;

use super::error::{ReplicationError, Result, ServerAnswer};
use super::frame::{Fields, Flaw, Frame, Notice};
use super::startup::unexpected;
use crate::lsn::Lsn;

pub(super) const WHAT: &str = "receive the base backup";
pub(super) const MANIFEST: &str = "tell the server of the last snapshot";

/// How long the server may be silent in the middle of a backup: the disk that it reads may be slow,
/// but not so slow.
pub(super) const SILENCE: Duration = Duration::from_secs(600);

/// More tablespaces than this no server has.
pub(super) const MAX_TABLESPACES: usize = 100_000;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct BaseBackup {
    /// For people, in `backup_label`.
    pub(crate) label: String,
    /// Whether the checkpoint is done at once.
    pub(crate) at_once: bool,
    /// Whether the server looks at the checksums of pages.
    pub(crate) verify: bool,
    /// Whether links to tablespaces are in a `tablespace_map`, or links in the archive.
    pub(crate) tablespace_map: bool,
    /// Whether only what changed is sent, since the backup whose manifest was sent.
    pub(crate) incremental: bool,
}

impl BaseBackup {
    /// With the WAL that it needs, and a manifest with checksums; the server need not wait until
    /// that WAL is archived.
    pub(super) fn command(&self) -> String {
        let mut label: String = self.label.chars().filter(|c| !c.is_control()).collect();
        // The server takes up to 1023 bytes.
        while label.len() > 512 {
            label.pop();
        }
        let mut command = String::from("BASE_BACKUP (LABEL '");
        for character in label.chars() {
            // Quotes are doubled.
            let twice = if character == '\'' { "'" } else { "" };
            let _ = write!(command, "{character}{twice}");
        }
        let checkpoint = if self.at_once { "fast" } else { "spread" };
        let (verify, map) = (self.verify, self.tablespace_map);
        let _ = write!(
            command,
            "', PROGRESS true, CHECKPOINT '{checkpoint}', WAL true, WAIT false, \
             TABLESPACE_MAP {map}, VERIFY_CHECKSUMS {verify}, MANIFEST 'yes', \
             MANIFEST_CHECKSUMS 'CRC32C'"
        );
        command.push_str(if self.incremental { ", INCREMENTAL true)" } else { ")" });
        command
    }

    /// How long it may take until the first file comes: the checkpoint, and the sizes of all files.
    pub(super) fn patience(&self) -> Duration {
        // A checkpoint that is spread out takes up to checkpoint_timeout, which is a day at most.
        Duration::from_secs(if self.at_once { 3600 } else { 25 * 3600 })
    }
}

/// How a backup begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    /// Where recovery begins.
    pub(crate) start: Lsn,
    pub(crate) timeline: u32,
    pub(crate) tablespaces: Vec<SentTablespace>,
    /// How much all of it will be, in bytes, as the server estimates it.
    pub(crate) size: u64,
}

/// A tablespace that comes as an archive of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SentTablespace {
    pub(crate) oid: u32,
    /// Where it is at the server; relative to the data directory when it lies in it.
    pub(crate) location: Vec<u8>,
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    /// An archive begins.
    Archive(Vec<u8>),
    /// The manifest begins.
    Manifest,
    /// Bytes of what began last.
    Data(Bytes),
    /// Something that is worth a word, from the server.
    Notice(Notice),
    /// All has come.
    Copied,
}

/// How a backup ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// Up to here WAL belongs to it.
    pub(crate) stop: Lsn,
    pub(crate) timeline: u32,
    /// Pages with wrong checksums were found; all was sent all the same.
    pub(crate) damaged: Option<ServerAnswer>,
}

/// Takes a message apart; `None` for one that tells nothing.
pub(super) fn read(frame: Frame) -> Result<Option<Sent>> {
    let flaw = |why: Flaw| ReplicationError::protocol(WHAT, why);
    match frame.tag {
        b'd' => payload(frame.body).map_err(flaw),
        b'c' => Ok(Some(Sent::Copied)),
        b'N' => super::frame::notice(frame.body).map(Sent::Notice).map(Some).map_err(flaw),
        tag => Err(unexpected(WHAT, tag)),
    }
}

fn payload(body: Bytes) -> Result<Option<Sent>, Flaw> {
    let mut fields = Fields(body);
    Ok(match fields.byte()? {
        b'd' if fields.0.is_empty() => None,
        b'd' => Some(Sent::Data(fields.0)),
        b'n' => {
            let (name, _at_the_server) = (fields.cstring()?, fields.cstring()?);
            fields.end()?;
            Some(Sent::Archive(name.to_vec()))
        }
        b'm' => {
            fields.end()?;
            Some(Sent::Manifest)
        }
        b'p' => {
            fields.uint64()?;
            fields.end()?;
            None
        }
        tag => return Err(format!("data with the tag {tag} in a base backup")),
    })
}

/// The tablespaces of an answer: oid, location and size in KiB, the data directory itself without
/// the first two. With them, the size of all in bytes.
pub(super) fn tablespaces(rows: &[Vec<Option<Bytes>>]) -> Result<(Vec<SentTablespace>, u64), Flaw> {
    let mut found = Vec::new();
    let mut size: u64 = 0;
    for row in rows {
        let [oid, location, kib] = row.as_slice() else {
            return Err("a tablespace with another number of columns".into());
        };
        if let Some(kib) = number(kib.as_ref())? {
            size = size.saturating_add(kib.saturating_mul(1024));
        }
        match (number(oid.as_ref())?, location) {
            (Some(oid), Some(location)) => {
                let oid = u32::try_from(oid).map_err(|_| "a tablespace with a bad oid")?;
                found.push(SentTablespace { oid, location: location.to_vec() });
            }
            (None, None) => {}
            _ => return Err("a tablespace with an oid or a location, and not both".into()),
        }
    }
    Ok((found, size))
}

fn number(value: Option<&Bytes>) -> Result<Option<u64>, Flaw> {
    let Some(value) = value else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    text.map(Some).ok_or_else(|| "a number that is none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sent(body: &'static [u8]) -> Result<Option<Sent>> {
        read(Frame { tag: b'd', body: Bytes::from_static(body) })
    }

    #[test]
    fn what_is_sent_is_taken_apart() {
        let archive = Sent::Archive(b"base.tar".to_vec());
        assert_eq!(sent(b"nbase.tar\0\0").unwrap(), Some(archive));
        assert_eq!(sent(b"m").unwrap(), Some(Sent::Manifest));
        assert_eq!(sent(b"dabc").unwrap(), Some(Sent::Data(Bytes::from_static(b"abc"))));
        assert_eq!(sent(b"p\0\0\0\0\0\0\0\x01").unwrap(), None);
        assert_eq!(sent(b"d").unwrap(), None);
        for bad in [&b""[..], b"nbase.tar\0", b"nbase.tar\0\0x", b"mx", b"p123", b"x"] {
            assert!(sent(bad).is_err(), "{bad:?}");
        }
        assert!(read(Frame { tag: b'D', body: Bytes::new() }).is_err());
    }

    #[test]
    fn tablespaces_are_read() {
        let cell = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
        let rows =
            [vec![cell("16400"), cell("/srv/fast"), cell("12")], vec![None, None, cell("30000")]];
        let (found, size) = tablespaces(&rows).unwrap();
        assert_eq!(found, [SentTablespace { oid: 16400, location: b"/srv/fast".to_vec() }]);
        assert_eq!(size, 30012 * 1024);
        for bad in [
            vec![cell("x"), cell("/srv"), None],
            vec![cell("1"), None, None],
            vec![None, cell("/srv"), None],
            vec![cell("99999999999"), cell("/srv"), None],
            vec![None, None],
        ] {
            assert!(tablespaces(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_label_cannot_end_its_quotes() {
        let label = "it's\n'; DROP".to_owned();
        let (verify, incremental) = (false, true);
        let command =
            BaseBackup { label, at_once: true, verify, tablespace_map: true, incremental };
        let command = command.command();
        assert!(command.starts_with("BASE_BACKUP (LABEL 'it''s''; DROP', PROGRESS"), "{command}");
        assert!(command.ends_with(", INCREMENTAL true)"), "{command}");
        assert!(command.contains("CHECKPOINT 'fast'") && command.contains("CHECKSUMS false"));
    }

    proptest! {
        #[test]
        fn anything_can_come(tag: u8, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let length = body.len();
            if let Ok(Some(Sent::Data(bytes))) = read(Frame { tag, body: body.into() }) {
                prop_assert_eq!(bytes.len() + 1, length);
            }
        }
    }
}
