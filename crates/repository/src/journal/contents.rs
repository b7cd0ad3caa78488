//! The content of a segment: cut and compressed on its way in, opened and checked on its way out.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, FuturesOrdered};
use futures_util::{StreamExt, TryStreamExt};
use lifeboat_core::journal::MAX_SEGMENT;
use lifeboat_core::{Content, ErrorKind, Extent};

use super::FRAME;
use super::header::Header;
use super::record::{Frame, Record};
use super::seal::open_frames;
use crate::chunk::{Encoding, compress};
use crate::error::{Error, Result};
use crate::pool::Pool;
use crate::repository::Shared;

/// How many frames are compressed at once, or wait for it.
const AHEAD: usize = 8;
/// About how many stored bytes are read by one request.
const PART: u64 = 4 << 20;
/// How many requests are under way at once.
const REQUESTS: usize = 3;

/// Content that is ready to be sealed.
pub(super) struct Gathered {
    pub(super) frames: Vec<(Encoding, Vec<u8>)>,
    pub(super) size: u64,
    pub(super) digest: [u8; 32],
}

/// Reads `content` to its end: cuts it into frames, compresses them, and hashes the whole.
pub(super) async fn gather(pool: &Pool, mut content: Content, level: i32) -> Result<Gathered> {
    let mut gathered = Gathered { frames: Vec::new(), size: 0, digest: [0; 32] };
    let mut hasher = blake3::Hasher::new();
    let mut work = FuturesOrdered::new();
    let mut frame = Vec::new();
    loop {
        let extent = content.next().await?;
        let ended = extent.is_none();
        let mut rest = match extent {
            Some(Extent::Unchanged(_)) => {
                let what = "append to a journal: the content refers to a snapshot";
                return Err(lifeboat_core::Error::new(ErrorKind::InvalidInput, what).into());
            }
            Some(extent) => extent,
            None => Extent::Hole(0),
        };
        gathered.size = gathered.size.saturating_add(rest.len());
        if gathered.size > MAX_SEGMENT {
            return Err(Error::ObjectTooLarge { kind: "segment of a journal" });
        }
        while !rest.is_empty() || (ended && !frame.is_empty()) {
            let room = FRAME - frame.len();
            match &mut rest {
                Extent::Data(data) => frame.extend_from_slice(&data.split_to(room.min(data.len()))),
                Extent::Hole(length) | Extent::Unchanged(length) => {
                    let taken = (*length).min(room as u64);
                    frame.resize(frame.len() + taken as usize, 0);
                    *length -= taken;
                }
            }
            if frame.len() == FRAME || ended {
                let full = Bytes::from(std::mem::take(&mut frame));
                let plain = full.clone();
                work.push_back(pool.start("compress a segment", move || compress(&plain, level)));
                let hash = move || {
                    hasher.update(&full);
                    hasher
                };
                hasher = pool.run("hash a segment", hash).await?;
            }
            while work.len() > AHEAD {
                gathered.frames.extend(work.next().await.transpose()?);
            }
        }
        if ended {
            gathered.frames.extend(work.try_collect::<Vec<_>>().await?);
            gathered.digest = *hasher.finalize().as_bytes();
            return Ok(gathered);
        }
    }
}

/// What is left to be read of a segment.
struct Left {
    shared: Arc<Shared>,
    name: String,
    ready: VecDeque<Bytes>,
    hasher: blake3::Hasher,
    digest: [u8; 32],
}

/// The content of a segment whose record was opened. Each frame is authenticated before any of it
/// is given out, and the whole is hashed.
pub(super) fn content(
    shared: &Arc<Shared>,
    name: &str,
    header: Header,
    record: &Record,
) -> Result<Content> {
    let frames = record.places(name, header.first_frame(), header.frames)?;
    let (worker, object) = (Arc::clone(shared), name.to_owned());
    let parts = stream::iter(parts(frames))
        .map(move |part| {
            let (shared, name) = (Arc::clone(&worker), object.clone());
            async move { fetch(&shared, &name, header, part).await }
        })
        .buffered(REQUESTS)
        .boxed();
    let left = Left {
        shared: Arc::clone(shared),
        name: name.to_owned(),
        ready: VecDeque::new(),
        hasher: blake3::Hasher::new(),
        digest: record.digest,
    };
    let extents = stream::try_unfold((parts, left), async |(mut parts, mut left)| {
        while left.ready.is_empty() {
            let Some(part) = parts.next().await else {
                if *left.hasher.finalize().as_bytes() != left.digest {
                    let what = "its content does not give its digest";
                    return Err(Error::damaged(&left.name, what).into());
                }
                return Ok(None);
            };
            let part = part?;
            let (mut hasher, hashed) = (left.hasher.clone(), part.clone());
            let hash = move || {
                for frame in &hashed {
                    hasher.update(frame);
                }
                hasher
            };
            left.hasher = left.shared.pool.run("hash a segment", hash).await?;
            left.ready.extend(part);
        }
        let next = left.ready.pop_front();
        Ok::<_, lifeboat_core::Error>(next.map(|frame| (Extent::Data(frame), (parts, left))))
    });
    Ok(Content::stream(extents))
}

/// Runs of frames of about [`PART`] bytes.
fn parts(frames: Vec<Frame>) -> Vec<Vec<Frame>> {
    let mut parts: Vec<Vec<Frame>> = Vec::new();
    for frame in frames {
        match parts.last_mut() {
            Some(part) if frame.offset - part[0].offset < PART => part.push(frame),
            _ => parts.push(vec![frame]),
        }
    }
    parts
}

async fn fetch(
    shared: &Arc<Shared>,
    name: &str,
    header: Header,
    part: Vec<Frame>,
) -> Result<Vec<Bytes>> {
    let (Some(first), Some(last)) = (part.first(), part.last()) else {
        return Ok(Vec::new());
    };
    let range = first.offset..last.offset + u64::from(last.stored);
    let bytes = shared.objects.range(name, range).await?;
    let (worker, name) = (Arc::clone(shared), name.to_owned());
    let open = move || open_frames(&worker.keys, &name, &header, &part, &bytes);
    shared.pool.run("open a segment", open).await?
}
