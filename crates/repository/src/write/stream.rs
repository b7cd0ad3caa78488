//! Content whose bytes may shift: cut where the content says so, into pieces of the size that suits it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use lifeboat_core::{EntryPath, Extent};

use super::chunks::ChunkWriter;
use super::peeked::Peeked;
use super::pieces;
use crate::chunk::{ChunkKind, Chunker};
use crate::content::{ContentRecord, Piece, push, total};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::read::PieceCursor;
use crate::repository::Shared;

/// Content up to this size that is at hand is hashed where it is: a hop to another thread would
/// cost more.
const SMALL: usize = 64 << 10;

/// What a stream is made of, which says into how large pieces it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    /// Nothing is known of it.
    Coarse,
    /// Small records that change one by one.
    Fine,
}

impl Grain {
    fn chunker(self, shared: &Shared) -> &Chunker {
        match self {
            Self::Coarse => &shared.chunker,
            Self::Fine => &shared.record_chunker,
        }
    }
}

/// Stores content cut by the chunker; the result is its record and its length.
pub(crate) async fn store(
    chunks: &Arc<ChunkWriter>,
    path: &EntryPath,
    grain: Grain,
    mut content: Peeked,
    mut baseline: Option<PieceCursor>,
) -> Result<(ContentRecord, u64)> {
    let mut pieces = Vec::new();
    let mut buffer = BytesMut::new();
    let mut length = 0;
    let max = grain.chunker(chunks.shared()).max();
    while let Some(extent) = content.next().await? {
        length += extent.len();
        match extent {
            Extent::Data(data) => {
                skip(&mut baseline, data.len() as u64).await?;
                if length == data.len() as u64 && data.len() <= SMALL && content.is_exhausted() {
                    let id = chunks.shared().keys.chunk_id(ChunkKind::Data, &data);
                    push(&mut pieces, Piece::whole(id, data.len()));
                    chunks.store(ChunkKind::Data, id, data).await?;
                    continue;
                }
                if buffer.capacity() - buffer.len() < data.len() {
                    buffer.reserve(max.max(data.len()) + data.len());
                }
                buffer.extend_from_slice(&data);
                drop(data);
                if buffer.len() > max {
                    cut(chunks, grain, &mut buffer, More::Follows, &mut pieces).await?;
                }
            }
            Extent::Hole(hole) => {
                cut(chunks, grain, &mut buffer, More::Ends, &mut pieces).await?;
                skip(&mut baseline, hole).await?;
                push(&mut pieces, Piece::hole(hole));
            }
            Extent::Unchanged(same) => {
                cut(chunks, grain, &mut buffer, More::Ends, &mut pieces).await?;
                let missing = || Error::NothingUnchanged { path: path.to_string() };
                let taken = match baseline.as_mut().ok_or_else(missing)?.take(same).await {
                    Err(error) if error.is_damage() => return Err(missing()),
                    taken => taken?,
                };
                if !chunks.has_all(&taken) || total(&taken) != same {
                    return Err(missing());
                }
                taken.into_iter().for_each(|piece| push(&mut pieces, piece));
            }
        }
    }
    cut(chunks, grain, &mut buffer, More::Ends, &mut pieces).await?;
    Ok((pieces::record(chunks, pieces, None).await?, length))
}

/// Goes on in the baseline; there is none any more where it is damaged.
async fn skip(baseline: &mut Option<PieceCursor>, length: u64) -> Result<()> {
    let Some(cursor) = baseline else {
        return Ok(());
    };
    match cursor.skip(length).await {
        Err(error) if error.is_damage() => *baseline = None,
        skipped => skipped?,
    }
    Ok(())
}

/// Whether the buffer's content goes on.
#[derive(Clone, Copy, PartialEq)]
enum More {
    Follows,
    Ends,
}

/// Cuts the buffer into chunks and stores them. What may belong to a chunk whose end is not at
/// hand yet stays in the buffer.
async fn cut(
    chunks: &Arc<ChunkWriter>,
    grain: Grain,
    buffer: &mut BytesMut,
    more: More,
    pieces: &mut Vec<Piece>,
) -> Result<()> {
    if buffer.is_empty() {
        return Ok(());
    }
    let shared = Arc::clone(chunks.shared());
    let mut data = std::mem::take(buffer);
    let work = move || {
        let mut found: Vec<(ChunkId, Bytes)> = Vec::new();
        let chunker = grain.chunker(&shared);
        let least = if more == More::Ends { 1 } else { chunker.max() };
        while data.len() >= least {
            let chunk = data.split_to(chunker.cut(&data)).freeze();
            found.push((shared.keys.chunk_id(ChunkKind::Data, &chunk), chunk));
        }
        (found, data)
    };
    let (found, rest) = chunks.shared().pool.run("cut content", work).await?;
    *buffer = rest;
    for (id, chunk) in found {
        push(pieces, Piece::whole(id, chunk.len()));
        chunks.store(ChunkKind::Data, id, chunk).await?;
    }
    Ok(())
}
