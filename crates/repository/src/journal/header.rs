//! The first bytes of a segment: all that can be told without a key.

use lifeboat_core::journal::{Position, SegmentKind, Span};

use super::names::{ID, TimelineId};
use super::{FRAME, MAX_FRAMES, MAX_RECORD};
use crate::crypto::{Cipher, Keys, SALT, Seal, TAG};
use crate::error::{Error, Result};
use crate::id::RepositoryId;

const MAGIC: [u8; 8] = *b"LBJRNL\x00\x01";
/// Bytes of the header.
pub(super) const HEADER: usize = 160;

/// What an object of a journal is. The number is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// What is known of a timeline.
    Timeline = 1,
    /// A segment.
    Segment = 2,
    /// The record of a gap.
    Gap = 3,
}

impl From<SegmentKind> for Kind {
    fn from(kind: SegmentKind) -> Self {
        match kind {
            SegmentKind::Sealed => Self::Segment,
            SegmentKind::Gap => Self::Gap,
        }
    }
}

/// Which object it is meant to be: what its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) kind: Kind,
    pub(super) id: TimelineId,
    /// `None` of a timeline.
    pub(super) span: Option<Span>,
}

impl Identity {
    /// By which the same content in the same place is known again.
    pub(super) fn tag(&self, keys: &Keys, digest: &[u8; 32]) -> [u8; 32] {
        let mut bytes = vec![self.kind as u8];
        bytes.extend_from_slice(&self.id.journal);
        bytes.extend_from_slice(&self.id.timeline);
        for position in self.positions() {
            bytes.extend_from_slice(&position.to_le_bytes());
        }
        bytes.extend_from_slice(digest);
        keys.journal_tag(&bytes)
    }

    fn positions(&self) -> [u64; 2] {
        self.span.map_or([0; 2], |span| [span.from().0, span.to().0])
    }
}

/// The header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    kind: u8,
    cipher: u8,
    pub(super) epoch: u32,
    repository: RepositoryId,
    pub(super) salt: [u8; SALT],
    journal: [u8; ID],
    timeline: [u8; ID],
    from: u64,
    to: u64,
    pub(super) tag: [u8; 32],
    /// Stored bytes of the record.
    pub(super) record: u32,
    /// Stored bytes of all frames.
    pub(super) frames: u32,
    /// How the record is encoded.
    pub(super) encoding: u8,
    /// Plain bytes of the record.
    pub(super) plain: u32,
}

impl Header {
    pub(super) fn new(keys: &Keys, seal: &Seal, identity: &Identity, tag: [u8; 32]) -> Self {
        let [from, to] = identity.positions();
        Self {
            kind: identity.kind as u8,
            cipher: seal.cipher,
            epoch: seal.epoch,
            repository: keys.repository(),
            salt: seal.salt,
            journal: identity.id.journal,
            timeline: identity.id.timeline,
            from,
            to,
            tag,
            record: 0,
            frames: 0,
            encoding: 0,
            plain: 0,
        }
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = self.kind;
        bytes[9] = self.cipher;
        bytes[12..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..32].copy_from_slice(self.repository.as_bytes());
        bytes[32..64].copy_from_slice(&self.salt);
        bytes[64..80].copy_from_slice(&self.journal);
        bytes[80..96].copy_from_slice(&self.timeline);
        bytes[96..104].copy_from_slice(&self.from.to_le_bytes());
        bytes[104..112].copy_from_slice(&self.to.to_le_bytes());
        bytes[112..144].copy_from_slice(&self.tag);
        bytes[144..148].copy_from_slice(&self.record.to_le_bytes());
        bytes[148..152].copy_from_slice(&self.frames.to_le_bytes());
        bytes[152] = self.encoding;
        bytes[156..].copy_from_slice(&self.plain.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (&[kind, cipher, 0, 0], rest) = rest.split_first_chunk()? else {
            return None;
        };
        let (epoch, rest) = rest.split_first_chunk()?;
        let (repository, rest) = rest.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (journal, rest) = rest.split_first_chunk()?;
        let (timeline, rest) = rest.split_first_chunk()?;
        let (from, rest) = rest.split_first_chunk()?;
        let (to, rest) = rest.split_first_chunk()?;
        let (tag, rest) = rest.split_first_chunk()?;
        let (record, rest) = rest.split_first_chunk()?;
        let (frames, rest) = rest.split_first_chunk()?;
        let (&[encoding, 0, 0, 0], rest) = rest.split_first_chunk()? else {
            return None;
        };
        let plain = rest.first_chunk()?;
        Some(Self {
            kind,
            cipher,
            epoch: u32::from_le_bytes(*epoch),
            repository: RepositoryId::from_bytes(*repository),
            salt: *salt,
            journal: *journal,
            timeline: *timeline,
            from: u64::from_le_bytes(*from),
            to: u64::from_le_bytes(*to),
            tag: *tag,
            record: u32::from_le_bytes(*record),
            frames: u32::from_le_bytes(*frames),
            encoding,
            plain: u32::from_le_bytes(*plain),
        })
    }

    /// Reads the header of an object that may be anything, of `size` bytes.
    pub(super) fn parse(keys: &Keys, name: &str, size: u64, bytes: &[u8]) -> Result<Self> {
        Self::parse_without_key(Some(keys.repository()), name, size, bytes)
    }

    /// As [`Header::parse`], for whoever has no key; without `repository` it may be that of any.
    pub(super) fn parse_without_key(
        repository: Option<RepositoryId>,
        name: &str,
        size: u64,
        bytes: &[u8],
    ) -> Result<Self> {
        let damaged = |what: &str| Error::damaged(name, what);
        let header = Self::from_bytes(bytes).ok_or_else(|| damaged("it has no valid header"))?;
        if repository.is_some_and(|repository| repository != header.repository) {
            return Err(damaged("it belongs to another repository"));
        }
        let record = (TAG..=MAX_RECORD + TAG).contains(&(header.record as usize));
        let frames = header.frames as usize <= MAX_FRAMES * (FRAME + TAG);
        if !record || !frames || header.plain as usize > MAX_RECORD {
            return Err(damaged("its lengths are out of range"));
        }
        if header.length() != size {
            let told = header.length();
            return Err(damaged(&format!("it has {size} bytes instead of {told}")));
        }
        Ok(header)
    }

    /// Refuses another object than the one that was asked for.
    pub(super) fn expect(&self, name: &str, identity: &Identity) -> Result<()> {
        if self.identity(name)? == *identity {
            Ok(())
        } else {
            Err(Error::damaged(name, "it is another object than its name says"))
        }
    }

    /// Which object it says it is.
    pub(super) fn identity(&self, name: &str) -> Result<Identity> {
        let damaged = |what: &str| Error::damaged(name, what);
        let kinds = [Kind::Timeline, Kind::Segment, Kind::Gap];
        let kind = kinds.into_iter().find(|kind| *kind as u8 == self.kind);
        let kind = kind.ok_or_else(|| damaged("it is of an unknown kind"))?;
        let span = Span::checked(Position(self.from), Position(self.to));
        let none = (self.from, self.to) == (0, 0);
        if span.is_some() == (kind == Kind::Timeline) || (span.is_none() && !none) {
            return Err(damaged("its positions are out of range"));
        }
        let id = TimelineId { journal: self.journal, timeline: self.timeline };
        Ok(Identity { kind, id, span })
    }

    pub(super) fn cipher(&self, name: &str) -> Result<Cipher> {
        Cipher::from_number(self.cipher)
            .ok_or_else(|| Error::damaged(name, "its cipher is unknown"))
    }

    /// Bytes of the whole object.
    pub(super) fn length(&self) -> u64 {
        HEADER as u64 + u64::from(self.record) + u64::from(self.frames)
    }

    /// Where the first frame begins.
    pub(super) fn first_frame(&self) -> u64 {
        HEADER as u64 + u64::from(self.record)
    }
}
