//! Sealing a segment, and opening it again.

use bytes::Bytes;
use object_store::PutPayload;

use super::header::{HEADER, Header, Identity};
use super::record::{Frame, Record};
use super::{FRAME, MAX_RECORD};
use crate::chunk::{Encoding, compress, decompress};
use crate::crypto::{Cipher, Keys, Purpose, SALT, Sealer, TAG};
use crate::error::{Error, Result};

/// Bytes of what is bound to a frame.
const BOUND: usize = HEADER + 9;

/// An object ready to be stored.
pub(super) struct Sealed {
    pub(super) salt: [u8; SALT],
    pub(super) tag: [u8; 32],
    pub(super) payload: PutPayload,
}

/// Seals a record and frames that are compressed already. The table of frames is filled in here.
pub(super) fn seal(
    keys: &Keys,
    identity: &Identity,
    mut record: Record,
    frames: Vec<(Encoding, Vec<u8>)>,
) -> Result<Sealed> {
    for (encoding, frame) in &frames {
        record.frames.push((stored(frame)?, *encoding as u8));
    }
    let what = |_| Error::Crypto { doing: "encode a segment" };
    let plain = minicbor::to_vec(&record).map_err(what)?;
    if plain.len() > MAX_RECORD {
        return Err(Error::ObjectTooLarge { kind: "record of a journal" });
    }
    seal_encoded(keys, identity, &record.digest, &plain, record.size, frames)
}

fn stored(part: &[u8]) -> Result<u32> {
    let too_large = |_| Error::ObjectTooLarge { kind: "segment of a journal" };
    u32::try_from(part.len() + TAG).map_err(too_large)
}

/// Seals a record that is encoded already, of content of `size` bytes.
pub(super) fn seal_encoded(
    keys: &Keys,
    identity: &Identity,
    digest: &[u8; 32],
    plain: &[u8],
    size: u64,
    mut frames: Vec<(Encoding, Vec<u8>)>,
) -> Result<Sealed> {
    let (encoding, mut sealed) = compress(plain, 3);
    // A salt of its own gives the object a key of its own, in which every nonce is used once: 0 for
    // the record, and for each frame its number from 1 on.
    let new = keys.seal(Purpose::Journals)?;
    let tag = identity.tag(keys, digest);
    let mut header = Header::new(keys, &new, identity, tag);
    header.record = stored(&sealed)?;
    for (_, frame) in &frames {
        header.frames += stored(frame)?;
    }
    header.encoding = encoding as u8;
    header.plain = stored(plain)? - TAG as u32;
    let clear = header.to_bytes();
    new.sealer.seal(0, &clear, &mut sealed)?;
    let mut left = size;
    for (number, (encoding, frame)) in (0..).zip(&mut frames) {
        let plain = left.min(FRAME as u64) as u32;
        let bound = bound(&clear, number, *encoding as u8, plain);
        new.sealer.seal(u64::from(number) + 1, &bound, frame)?;
        left -= u64::from(plain);
    }
    let head = [Bytes::copy_from_slice(&clear), sealed.into()];
    let payload = head.into_iter().chain(frames.into_iter().map(|(_, frame)| frame.into()));
    Ok(Sealed { salt: new.salt, tag, payload: payload.collect() })
}

fn sealer(keys: &Keys, cipher: Cipher, header: &Header) -> Result<Sealer> {
    keys.sealer(cipher, header.epoch, Purpose::Journals, &header.salt)
}

/// What binds a frame to its object and its place in it.
fn bound(header: &[u8; HEADER], number: u32, encoding: u8, plain: u32) -> [u8; BOUND] {
    let mut bound = [0; BOUND];
    bound[..HEADER].copy_from_slice(header);
    bound[HEADER..HEADER + 4].copy_from_slice(&number.to_le_bytes());
    bound[HEADER + 4] = encoding;
    bound[HEADER + 5..].copy_from_slice(&plain.to_le_bytes());
    bound
}

/// Opens the record of an object whose header was read; `sealed` are the bytes after that.
pub(super) fn open_record(
    keys: &Keys,
    name: &str,
    header: &Header,
    sealed: &[u8],
) -> Result<Record> {
    let damaged = |what: &str| Error::damaged(name, what);
    let identity = header.identity(name)?;
    let sealed = sealed.get(..header.record as usize);
    let mut sealed = sealed.ok_or_else(|| damaged("its record is missing"))?.to_vec();
    let sealer = sealer(keys, header.cipher(name)?, header)?;
    let opened = sealer.open(0, &header.to_bytes(), &mut sealed);
    let opened = opened.ok_or_else(|| damaged("it is not authentic"))?;
    let plain = decompress(header.encoding, opened, header.plain as usize)
        .ok_or_else(|| damaged("it does not decompress"))?;
    let record: Record = minicbor::decode(&plain)
        .map_err(|error| damaged(&format!("it does not decode: {error}")))?;
    record.check(keys, name, &identity)?;
    if identity.tag(keys, &record.digest) != header.tag {
        return Err(damaged("its tag is that of another content"));
    }
    record.places(name, header.first_frame(), header.frames)?;
    Ok(record)
}

/// Opens frames that follow one another in `bytes`.
pub(super) fn open_frames(
    keys: &Keys,
    name: &str,
    header: &Header,
    frames: &[Frame],
    bytes: &[u8],
) -> Result<Vec<Bytes>> {
    let clear = header.to_bytes();
    let sealer = sealer(keys, header.cipher(name)?, header)?;
    let first = frames.first().map_or(0, |frame| frame.offset);
    let open = |frame: &Frame| {
        let damaged = |what: &str| Error::damaged(name, format!("frame {}: {what}", frame.number));
        let start = (frame.offset - first) as usize;
        let sealed = bytes.get(start..start + frame.stored as usize);
        let mut sealed = sealed.ok_or_else(|| damaged("it is missing"))?.to_vec();
        let bound = bound(&clear, frame.number, frame.encoding, frame.plain);
        let opened = sealer.open(u64::from(frame.number) + 1, &bound, &mut sealed);
        let opened = opened.ok_or_else(|| damaged("it is not authentic"))?;
        let plain = decompress(frame.encoding, opened, frame.plain as usize)
            .ok_or_else(|| damaged("it does not decompress"))?;
        Ok(Bytes::from(plain))
    };
    frames.iter().map(open).collect()
}
