//! Walking the list of pieces of an entry, forwards.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunks::ChunkReader;
use crate::chunk::ChunkKind;
use crate::content::{ContentRecord, MAX_DEPTH, Piece, PieceList, total};
use crate::error::{Error, Result};
use crate::id::ChunkId;

/// Goes through the pieces of a content, reading pages of the list when it comes to them.
pub(crate) struct PieceCursor {
    chunks: Arc<ChunkReader>,
    /// From the top of the list down: what is left there, and how deep the lists below go.
    stack: Vec<(VecDeque<Piece>, u8)>,
    broken: bool,
}

impl PieceCursor {
    pub(crate) fn new(chunks: Arc<ChunkReader>, record: &ContentRecord) -> Self {
        let pieces = record.list.decode().filter(|_| record.depth <= MAX_DEPTH);
        let broken = pieces.is_none();
        let stack = vec![(pieces.unwrap_or_default().into(), record.depth)];
        Self { chunks, stack, broken }
    }

    /// The next piece, with at most `most` bytes.
    pub(crate) async fn next(&mut self, most: u64) -> Result<Option<Piece>> {
        self.advance(most, Pages::Read).await
    }

    /// The next pieces, `length` bytes together; fewer when the content ends.
    pub(crate) async fn take(&mut self, length: u64) -> Result<Vec<Piece>> {
        let mut taken = Vec::new();
        let mut left = length;
        while left > 0 {
            let Some(piece) = self.next(left).await? else {
                break;
            };
            left -= piece.length;
            taken.push(piece);
        }
        Ok(taken)
    }

    /// Goes on by `length` bytes, without reading pages of the list that lie within.
    pub(crate) async fn skip(&mut self, length: u64) -> Result<()> {
        let mut left = length;
        while left > 0 {
            let Some(piece) = self.advance(left, Pages::Skip).await? else {
                break;
            };
            left -= piece.length;
        }
        Ok(())
    }

    async fn advance(&mut self, most: u64, pages: Pages) -> Result<Option<Piece>> {
        if self.broken {
            return Err(Error::damaged(
                "a list of pieces",
                "it names a chunk that it does not have",
            ));
        }
        while let Some((pieces, depth)) = self.stack.last_mut() {
            let Some(mut piece) = pieces.pop_front() else {
                self.stack.pop();
                continue;
            };
            let is_page = *depth > 0;
            if is_page && !(pages == Pages::Skip && piece.length <= most) {
                let below = *depth - 1;
                let page = list_page(&self.chunks, &piece).await?;
                self.stack.push((page.into(), below));
                continue;
            }
            if piece.length > most {
                let offset = piece.chunk.map_or(0, |_| piece.offset.wrapping_add(most as u32));
                pieces.push_front(Piece { offset, length: piece.length - most, ..piece });
                piece.length = most;
            }
            return Ok(Some(piece));
        }
        Ok(None)
    }
}

/// The pieces of a page of the list.
pub(crate) async fn list_page(chunks: &ChunkReader, piece: &Piece) -> Result<Vec<Piece>> {
    let damaged = |what| Error::damaged("a list of pieces", what);
    let id = piece.chunk.ok_or_else(|| damaged("a page of it is a hole"))?;
    let bytes = chunks.read(ChunkKind::List, id).await?;
    let list: PieceList =
        minicbor::decode(&bytes).map_err(|_| damaged("a page of it does not decode"))?;
    if list.length() != Some(piece.length) || list.len() == 0 {
        return Err(damaged("a page of it stands for another length"));
    }
    list.decode().ok_or_else(|| damaged("a page of it names a chunk that it does not have"))
}

#[derive(Clone, Copy, PartialEq)]
enum Pages {
    Read,
    Skip,
}

/// Whether every chunk that a content consists of is one that `has` says is there.
///
/// The pages of a long list are read for it, a few KiB for a GiB. Where one cannot be read, what
/// is listed there cannot be either.
pub(crate) async fn is_there(
    chunks: &Arc<ChunkReader>,
    record: &ContentRecord,
    has: impl Fn(&ChunkId) -> bool,
) -> bool {
    if !record.list.chunks().iter().all(&has) {
        return false;
    }
    if record.depth == 0 {
        return true;
    }
    let mut pieces = PieceCursor::new(Arc::clone(chunks), record);
    loop {
        match pieces.next(u64::MAX).await {
            Ok(Some(piece)) if piece.chunk.as_ref().is_none_or(&has) => {}
            Ok(None) => return true,
            Ok(Some(_)) | Err(_) => return false,
        }
    }
}

/// Goes through the fingerprints of a content's pages.
pub(crate) struct FingerprintCursor {
    chunks: Arc<ChunkReader>,
    pieces: PieceCursor,
    lost: bool,
}

impl FingerprintCursor {
    pub(crate) fn new(chunks: Arc<ChunkReader>, record: &ContentRecord) -> Self {
        let pieces = PieceCursor::new(Arc::clone(&chunks), record);
        Self { chunks, pieces, lost: false }
    }

    /// The fingerprints of the next `pages` pages; fewer when there are no more.
    ///
    /// They only save work: where they cannot be read, pages count as changed.
    pub(crate) async fn take(&mut self, pages: usize) -> Vec<[u8; 16]> {
        if self.lost {
            return Vec::new();
        }
        match self.read(pages).await {
            Ok(found) => found,
            Err(_) => {
                self.lost = true;
                Vec::new()
            }
        }
    }

    async fn read(&mut self, pages: usize) -> Result<Vec<[u8; 16]>> {
        let pieces = self.pieces.take(pages as u64 * 16).await?;
        let mut bytes = Vec::with_capacity(total(&pieces) as usize);
        for piece in pieces {
            let damaged = || Error::damaged("fingerprints of pages", "they are out of range");
            let chunk = piece.chunk.ok_or_else(damaged)?;
            let chunk = self.chunks.read(ChunkKind::Fingerprints, chunk).await?;
            let (start, end) =
                (piece.offset as usize, piece.offset as usize + piece.length as usize);
            bytes.extend_from_slice(chunk.get(start..end).ok_or_else(damaged)?);
        }
        Ok(bytes.as_chunks::<16>().0.to_vec())
    }
}
