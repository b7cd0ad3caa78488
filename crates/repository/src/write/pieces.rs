//! From a list of pieces to what an entry holds.

use std::sync::Arc;

use super::chunks::ChunkWriter;
use crate::chunk::ChunkKind;
use crate::content::{ContentRecord, Piece, PieceList};
use crate::error::{Error, Result};

/// Longer lists become pages of their own.
const INLINE: usize = 48;
/// A page of a list ends at one in so many chunks, but has at least a fourth and at most four
/// times as many pieces.
const PAGE: u32 = 256;

/// Stores what is too long for an entry.
pub(crate) async fn record(
    chunks: &Arc<ChunkWriter>,
    pieces: Vec<Piece>,
    fingerprints: Option<Box<ContentRecord>>,
) -> Result<ContentRecord> {
    let mut pieces = pieces;
    let mut depth = 0;
    while pieces.len() > INLINE {
        pieces = fold(chunks, &pieces).await?;
        depth += 1;
    }
    Ok(ContentRecord { depth, list: PieceList::encode(&pieces), fingerprints })
}

/// Cuts a list into pages and stores them; the result is the list of the pages.
async fn fold(chunks: &Arc<ChunkWriter>, pieces: &[Piece]) -> Result<Vec<Piece>> {
    let mut above = Vec::new();
    let mut rest = pieces;
    while !rest.is_empty() {
        let (page, after) = rest.split_at(page_end(rest));
        rest = after;
        let list = PieceList::encode(page);
        let length = page.iter().map(|piece| piece.length).sum();
        let what = Error::Crypto { doing: "encode a list of pieces" };
        let bytes = minicbor::to_vec(&list).map_err(|_| what)?;
        let id = chunks.shared().keys.chunk_id(ChunkKind::List, &bytes);
        chunks.store(ChunkKind::List, id, bytes.into()).await?;
        // Pages are never joined: each stands for a stretch of content, not for bytes of itself.
        above.push(Piece { chunk: Some(id), offset: 0, length });
    }
    Ok(above)
}

fn page_end(pieces: &[Piece]) -> usize {
    let (least, most) = (PAGE as usize / 4, PAGE as usize * 4);
    let ends = |piece: &Piece| {
        let id = piece.chunk.map_or([0xff; 32], |chunk| *chunk.as_bytes());
        u32::from_le_bytes([id[0], id[1], id[2], id[3]]).is_multiple_of(PAGE)
    };
    let found = pieces.iter().take(most).skip(least).position(ends);
    found.map_or(pieces.len().min(most), |at| least + at + 1)
}
