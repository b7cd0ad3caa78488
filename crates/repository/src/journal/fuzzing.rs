//! The decoders of journals, for the fuzz targets.

use lifeboat_core::journal::{
    JournalName, Position, SegmentInfo, SegmentKind, Span, Timeline, TimelineInfo,
};
use lifeboat_core::{Attributes, StoreRef, Timestamp};

use super::header::{HEADER, Header, Identity, Kind};
use super::names::{TimelineId, parse};
use super::record::Record;
use super::seal::{open_frames, open_record, seal, seal_encoded};
use crate::chunk::{Encoding, compress};
use crate::error::Result;
use crate::fuzzing::{Outcome, keys, said};

fn name_of() -> Result<(JournalName, Timeline, TimelineId)> {
    let journal = JournalName::new(StoreRef::new("postgres", "main"), "wal")?;
    let timeline = Timeline::new("1")?;
    let id = TimelineId::new(keys(), &journal, &timeline)?;
    Ok((journal, timeline, id))
}

fn records() -> Result<Vec<(Identity, Record)>> {
    let (journal, timeline, id) = name_of()?;
    let span = Some(Span::new(Position(0x3000), Position(0x4000))?);
    let facts = Attributes::new().with("postgres.history", vec![7_u8; 40]);
    let at = Timestamp::UNIX_EPOCH;
    let info = SegmentInfo::default().with_times(at, at).with_facts(facts.clone());
    let mut segment = Record::segment(&journal, &timeline, &info);
    let content = b"content";
    (segment.size, segment.digest) = (content.len() as u64, *blake3::hash(content).as_bytes());
    let forked = TimelineInfo::forked(timeline.clone(), Timeline::new("0")?, Position(9));
    Ok(vec![
        (Identity { kind: Kind::Segment, id, span }, segment),
        (Identity { kind: Kind::Gap, id, span }, Record::gap(&journal, &timeline, "lost", at)),
        (
            Identity { kind: Kind::Timeline, id, span: None },
            Record::timeline(&journal, &forked.with_facts(facts))?,
        ),
    ])
}

fn objects() -> Result<Vec<Vec<u8>>> {
    let seal = |(identity, record): (Identity, Record)| {
        let frames = match identity.kind {
            Kind::Segment => vec![compress(b"content", 1)],
            Kind::Gap | Kind::Timeline => Vec::new(),
        };
        let sealed = seal(keys(), &identity, record, frames)?;
        Ok(sealed.payload.iter().flat_map(|part| part.to_vec()).collect())
    };
    records()?.into_iter().map(seal).collect()
}

pub(crate) fn header_seeds() -> Vec<Vec<u8>> {
    objects().unwrap_or_default()
}

/// A whole object as a store gives it.
pub(crate) fn header(bytes: &[u8]) -> Outcome {
    let run = || {
        let header = Header::parse(keys(), "object", bytes.len() as u64, bytes)?;
        header.identity("object")?;
        let record = open_record(keys(), "object", &header, &bytes[HEADER.min(bytes.len())..])?;
        let places = record.places("object", header.first_frame(), header.frames)?;
        let first = (header.first_frame() as usize).min(bytes.len());
        open_frames(keys(), "object", &header, &places, &bytes[first..])
    };
    said(run())
}

pub(crate) fn record_seeds() -> Vec<Vec<u8>> {
    let records = records().unwrap_or_default();
    // Without their frames, whose table is filled in when they are sealed.
    records.iter().skip(1).filter_map(|(_, record)| minicbor::to_vec(record).ok()).collect()
}

/// A record behind the seal, as each of the three kinds.
pub(crate) fn record(bytes: &[u8]) -> Outcome {
    let run = || {
        let mut last = Ok(());
        for (identity, known) in records()? {
            let sealed = seal_encoded(keys(), &identity, &known.digest, bytes, 0, Vec::new())?;
            let object: Vec<u8> = sealed.payload.iter().flat_map(|part| part.to_vec()).collect();
            let header = Header::parse(keys(), "object", object.len() as u64, &object)?;
            match open_record(keys(), "object", &header, &object[HEADER..]) {
                Ok(record) => {
                    let (_, timeline, _) = name_of()?;
                    let span = Span::new(Position(0x3000), Position(0x4000))?;
                    let place = lifeboat_core::journal::Place::sealed(&timeline, span);
                    drop(record.to_segment(place));
                    record.journal("object")?;
                    record.to_timeline("object")?;
                    return Ok(());
                }
                Err(error) => last = Err(error),
            }
        }
        last
    };
    said(run())
}

pub(crate) fn frame_seeds() -> Vec<Vec<u8>> {
    let seed = |plain: &[u8]| {
        let (encoding, stored) = compress(plain, 1);
        let mut bytes = vec![encoding as u8, plain.len() as u8, (plain.len() >> 8) as u8, 0];
        bytes.extend_from_slice(&stored);
        bytes
    };
    vec![seed(b"short"), seed(&[7; 5000])]
}

/// One frame behind the seal. The first byte is its encoding, the next three its plain length.
pub(crate) fn frame(bytes: &[u8]) -> Outcome {
    let Some((&[encoding, a, b, c], rest)) = bytes.split_first_chunk() else {
        return Err("too short".to_owned());
    };
    let size = u64::from(u32::from_le_bytes([a, b, c, 0])).clamp(1, super::FRAME as u64);
    let encoding = if encoding == 0 { Encoding::Raw } else { Encoding::Zstd };
    let run = || {
        let (identity, mut record) = records()?.swap_remove(0);
        record.size = size;
        let sealed = seal(keys(), &identity, record, vec![(encoding, rest.to_vec())])?;
        let object: Vec<u8> = sealed.payload.iter().flat_map(|part| part.to_vec()).collect();
        let header = Header::parse(keys(), "object", object.len() as u64, &object)?;
        let record = open_record(keys(), "object", &header, &object[HEADER..])?;
        let places = record.places("object", header.first_frame(), header.frames)?;
        let frames = &object[header.first_frame() as usize..];
        open_frames(keys(), "object", &header, &places, frames)
    };
    said(run())
}

pub(crate) fn name_seeds() -> Vec<Vec<u8>> {
    let names = || {
        let (_, _, id) = name_of()?;
        let span = Span::new(Position(0x3000), Position(0x4000))?;
        let kinds = [SegmentKind::Sealed, SegmentKind::Gap];
        Ok::<_, crate::Error>(kinds.map(|kind| id.segment(span, kind).into_bytes()).to_vec())
    };
    names().unwrap_or_default()
}

/// An object's name.
pub(crate) fn name(bytes: &[u8]) -> Outcome {
    let text = std::str::from_utf8(bytes).map_err(|_| "no text".to_owned())?;
    let (span, kind) = parse(text).ok_or("no segment")?;
    let again = if kind == SegmentKind::Gap { format!("{span}.gap") } else { span.to_string() };
    if text.ends_with(&again) { Ok(()) } else { Err("it is read as another name".to_owned()) }
}
