//! Whether two contents have the same bytes.
//!
//! Equal names prove equal bytes. Different names prove different bytes only of whole chunks:
//! a stretch may have been regrouped, cut elsewhere, or be a hole here and zeros there. So the
//! lists of pieces are walked side by side, equal pages of them are passed over, and what names
//! do not decide is read.

use std::sync::Arc;

use crate::chunk::ChunkKind;
use crate::content::{ContentRecord, MAX_DEPTH, Piece};
use crate::error::{Error, Result};
use crate::read::{ChunkReader, list_page};

/// Whether the contents have the same bytes. What is damaged is not the same as anything else.
pub(super) async fn same_content(
    chunks: &Arc<ChunkReader>,
    one: &ContentRecord,
    two: &ContentRecord,
) -> Result<bool> {
    if (one.depth, &one.list) == (two.depth, &two.list) {
        return Ok(true);
    }
    match compare(chunks, one, two).await {
        Err(Error::Damaged { .. } | Error::MissingChunk { .. }) => Ok(false),
        other => other,
    }
}

async fn compare(
    chunks: &Arc<ChunkReader>,
    one: &ContentRecord,
    two: &ContentRecord,
) -> Result<bool> {
    let (mut one, mut two) = (Walk::new(one)?, Walk::new(two)?);
    loop {
        let (Some((a, a_depth)), Some((b, b_depth))) = (one.peek(), two.peek()) else {
            // Contents of the same size end together.
            return Ok(one.peek().is_none() && two.peek().is_none());
        };
        if a_depth == b_depth && a == b {
            one.skip(a.length);
            two.skip(b.length);
        } else if a_depth > 0 || b_depth > 0 {
            let deepest = a_depth.max(b_depth);
            if a_depth == deepest {
                one.enter(chunks).await?;
            }
            if b_depth == deepest {
                two.enter(chunks).await?;
            }
        } else {
            let length = a.length.min(b.length);
            if !same_bytes(chunks, &a, &b, length).await? {
                return Ok(false);
            }
            one.skip(length);
            two.skip(length);
        }
    }
}

/// Whether two pieces begin with the same `length` bytes.
async fn same_bytes(chunks: &ChunkReader, a: &Piece, b: &Piece, length: u64) -> Result<bool> {
    let is_whole = |piece: &Piece| {
        let plain = piece.chunk.and_then(|chunk| chunks.plain_length(&chunk));
        piece.offset == 0 && piece.length == length && plain.map(u64::from) == Some(length)
    };
    if a.chunk == b.chunk && (a.chunk.is_none() || a.offset == b.offset) {
        return Ok(true);
    }
    if is_whole(a) && is_whole(b) {
        return Ok(false);
    }
    let (a, b) = (bytes(chunks, a, length).await?, bytes(chunks, b, length).await?);
    Ok(match (a, b) {
        (Some(a), Some(b)) => a == b,
        (Some(bytes), None) | (None, Some(bytes)) => bytes.iter().all(|byte| *byte == 0),
        (None, None) => true,
    })
}

/// The first bytes of a piece; nothing of a hole.
async fn bytes(chunks: &ChunkReader, piece: &Piece, length: u64) -> Result<Option<bytes::Bytes>> {
    let Some(id) = piece.chunk else { return Ok(None) };
    let plain = chunks.read(ChunkKind::Data, id).await?;
    let start = piece.offset as usize;
    let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
    match end {
        Some(end) if end <= plain.len() => Ok(Some(plain.slice(start..end))),
        _ => Err(Error::damaged(format!("chunk {id}"), "a piece of it lies beyond its end")),
    }
}

/// A list of pieces, and how far it has been walked.
struct Walk {
    /// From the top of the list down, the next piece last; and how deep the lists below go.
    stack: Vec<(Vec<Piece>, u8)>,
}

impl Walk {
    fn new(record: &ContentRecord) -> Result<Self> {
        let pieces = record.list.decode().filter(|_| record.depth <= MAX_DEPTH);
        let pieces = pieces.ok_or_else(|| {
            Error::damaged("a list of pieces", "it names a chunk that it does not have")
        })?;
        let mut walk = Self { stack: Vec::new() };
        walk.push(pieces, record.depth);
        Ok(walk)
    }

    fn push(&mut self, mut pieces: Vec<Piece>, depth: u8) {
        pieces.retain(|piece| piece.length > 0);
        pieces.reverse();
        if !pieces.is_empty() {
            self.stack.push((pieces, depth));
        }
    }

    fn peek(&self) -> Option<(Piece, u8)> {
        let (pieces, depth) = self.stack.last()?;
        pieces.last().map(|piece| (*piece, *depth))
    }

    /// Goes on by `length` bytes, which the next piece has at least.
    fn skip(&mut self, length: u64) {
        let Some((pieces, _)) = self.stack.last_mut() else { return };
        if let Some(piece) = pieces.pop()
            && piece.length > length
        {
            let offset = piece.chunk.map_or(0, |_| piece.offset.wrapping_add(length as u32));
            pieces.push(Piece { offset, length: piece.length - length, ..piece });
        }
        self.stack.pop_if(|(pieces, _)| pieces.is_empty());
    }

    /// Puts what a page of the list holds in its place.
    async fn enter(&mut self, chunks: &ChunkReader) -> Result<()> {
        let Some((piece, depth)) = self.peek() else { return Ok(()) };
        let page = list_page(chunks, &piece).await?;
        self.skip(piece.length);
        self.push(page, depth.saturating_sub(1));
        Ok(())
    }
}
