//! Content made of pages that are rewritten in place: compared page by page with the baseline.
//!
//! Content is cut into stretches on a fixed grid. Where few pages of a stretch changed, only those
//! are stored, grouped with the changed pages of other stretches of the same content, and the
//! chunks of the baseline go on serving the rest. A stretch of which half has changed, or that
//! hangs together from too many chunks, is stored anew: so fragmentation stays bounded.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use lifeboat_core::{EntryPath, Extent};

use super::chunks::ChunkWriter;
use super::peeked::Peeked;
use super::pieces;
use crate::chunk::ChunkKind;
use crate::content::{ContentRecord, Piece, push, total};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::read::{FingerprintCursor, PieceCursor};

/// Content of so few pages is stored whole when it changes; fingerprints would cost more.
const FEW_PAGES: u64 = 64;
/// A stretch that takes its pages from more chunks than this is stored anew when it changes.
const MOST_CHUNKS: usize = 16;
/// Bytes of fingerprints in a chunk: those of 4096 pages.
const FINGERPRINTS: usize = 64 << 10;
/// Holes and unchanged content are gone through by so many pages at a time, so that memory does
/// not grow with their length.
const STEP: u64 = 4096;
/// Tells that the content of a page is not known.
const UNKNOWN: [u8; 16] = [0; 16];

/// What the baseline has of the content.
pub(crate) struct PageBaseline {
    pub(crate) pieces: PieceCursor,
    pub(crate) fingerprints: Option<FingerprintCursor>,
}

/// A piece, perhaps of a chunk that is still being filled.
enum Pending {
    Ready(Piece),
    Grouped { group: usize, offset: usize, length: usize },
}

/// What comes after bytes.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    /// More of them, a hole, or the end.
    Content,
    /// What the source says is unchanged.
    Unchanged,
}

/// Stores the content of one entry.
pub(crate) struct PageStorer<'a> {
    chunks: &'a Arc<ChunkWriter>,
    path: &'a EntryPath,
    page: usize,
    stretch: usize,
    baseline: Option<PageBaseline>,
    pieces: Vec<Pending>,
    /// Changed pages on their way into a chunk.
    group: BytesMut,
    groups: Vec<ChunkId>,
    /// Of the last pages, one for each that has begun before `length`.
    fingerprints: Vec<u8>,
    fingerprint_pieces: Vec<Piece>,
    length: u64,
    /// Whether what came last was unchanged.
    after_unchanged: bool,
}

impl<'a> PageStorer<'a> {
    pub(crate) fn new(
        chunks: &'a Arc<ChunkWriter>,
        path: &'a EntryPath,
        page: usize,
        baseline: Option<PageBaseline>,
    ) -> Self {
        Self {
            chunks,
            path,
            page,
            stretch: chunks.shared().config.parameters.stretch as usize,
            baseline,
            pieces: Vec::new(),
            group: BytesMut::new(),
            groups: Vec::new(),
            fingerprints: Vec::new(),
            fingerprint_pieces: Vec::new(),
            length: 0,
            after_unchanged: false,
        }
    }

    /// Stores all of it; the result is its record and its length.
    pub(crate) async fn store(mut self, mut content: Peeked) -> Result<(ContentRecord, u64)> {
        let mut waiting = BytesMut::new();
        while let Some(extent) = content.next().await? {
            match extent {
                Extent::Data(mut data) => {
                    while !data.is_empty() {
                        let room = self.room(waiting.len());
                        let part = data.split_to(room.min(data.len()));
                        if waiting.is_empty() && part.len() == room {
                            self.data(part, Next::Content).await?;
                            continue;
                        }
                        waiting.extend_from_slice(&part);
                        if part.len() == room {
                            self.data(waiting.split().freeze(), Next::Content).await?;
                        }
                    }
                }
                Extent::Unchanged(same) => {
                    self.data(waiting.split().freeze(), Next::Unchanged).await?;
                    let mut left = same;
                    while left > 0 {
                        let step = left.min(self.step());
                        self.unchanged(step).await?;
                        left -= step;
                    }
                }
                Extent::Hole(hole) => {
                    self.data(waiting.split().freeze(), Next::Content).await?;
                    let mut left = hole;
                    while left > 0 {
                        let step = left.min(self.step());
                        self.hole(step).await?;
                        left -= step;
                    }
                }
            }
        }
        self.data(waiting.split().freeze(), Next::Content).await?;
        self.finish().await
    }

    /// Bytes up to the end of the stretch, when `waiting` are at hand already.
    fn room(&self, waiting: usize) -> usize {
        let within = (self.length % self.stretch as u64) as usize;
        self.stretch - (within + waiting) % self.stretch
    }

    fn missing(&self) -> Error {
        Error::NothingUnchanged { path: self.path.to_string() }
    }

    /// Bytes to the end of the next [`STEP`] pages.
    fn step(&self) -> u64 {
        let page = self.page as u64;
        STEP * page - self.length % page
    }

    /// How many pages begin within the next `length` bytes.
    fn beginning(&self, length: u64) -> u64 {
        let page = self.page as u64;
        (self.length + length).div_ceil(page) - self.length.div_ceil(page)
    }

    /// What the baseline has of the next `length` bytes: the pieces, and the fingerprints of the
    /// pages that begin within them.
    async fn old(&mut self, length: u64) -> Result<(Vec<Piece>, Vec<[u8; 16]>)> {
        let pages = self.beginning(length);
        let Some(baseline) = &mut self.baseline else {
            return Ok((Vec::new(), Vec::new()));
        };
        let pieces = baseline.pieces.take(length).await?;
        let fingerprints = match &mut baseline.fingerprints {
            Some(cursor) => cursor.take(pages as usize).await,
            None => Vec::new(),
        };
        Ok((pieces, fingerprints))
    }

    fn is_aligned(&self) -> bool {
        self.length.is_multiple_of(self.page as u64)
    }

    /// Bytes of one stretch, or of what is left of it beside unchanged content.
    async fn data(&mut self, data: Bytes, next: Next) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        // The source compared for us: what it gives are changed pages among others.
        let is_part = next == Next::Unchanged || self.after_unchanged;
        let are_few = is_part && data.len() * 2 < self.stretch;
        self.after_unchanged = false;
        let aligned = self.is_aligned();
        let (old, known) = self.old(data.len() as u64).await?;
        let (shared, page, bytes) = (Arc::clone(self.chunks.shared()), self.page, data.clone());
        let hash = move || -> Vec<_> {
            bytes.chunks(page).map(|page| shared.keys.fingerprint(page)).collect()
        };
        let found = self.chunks.shared().pool.run("compare pages", hash).await?;
        let usable = aligned && total(&old) == data.len() as u64 && known.len() == found.len();
        let same: Vec<_> = found
            .iter()
            .enumerate()
            .map(|(at, new)| usable && known[at] == *new && known[at] != UNKNOWN)
            .collect();
        let changed = same.iter().filter(|same| !**same).count();
        let from: HashSet<_> = old.iter().filter_map(|piece| piece.chunk).collect();
        let reuse = usable && self.chunks.has_all(&old);
        if reuse && changed == 0 {
            old.into_iter().for_each(|piece| self.push(piece));
        } else if reuse && (changed * 2 < same.len() || are_few) && from.len() <= MOST_CHUNKS {
            self.patch(&data, &same, &old).await?;
        } else if are_few {
            self.add_to_group(&data).await?;
        } else {
            self.whole(data.clone()).await?;
        }
        self.remember(data.len() as u64, if aligned { &found } else { &[] }).await
    }

    /// Appends a piece, joined to the last one where that is the same stretch.
    fn push(&mut self, piece: Piece) {
        match self.pieces.last_mut() {
            Some(Pending::Ready(last)) if last.continues(&piece) => last.length += piece.length,
            _ => self.pieces.push(Pending::Ready(piece)),
        }
    }

    /// Stores a stretch as a chunk of its own.
    async fn whole(&mut self, data: Bytes) -> Result<()> {
        let (shared, bytes) = (Arc::clone(self.chunks.shared()), data.clone());
        let hash = move || shared.keys.chunk_id(ChunkKind::Data, &bytes);
        let id = self.chunks.shared().pool.run("hash content", hash).await?;
        self.pieces.push(Pending::Ready(Piece::whole(id, data.len())));
        self.chunks.store(ChunkKind::Data, id, data).await
    }

    /// Takes from the baseline what is the same, and groups what is not.
    async fn patch(&mut self, data: &Bytes, same: &[bool], old: &[Piece]) -> Result<()> {
        let mut at = 0;
        for run in same.chunk_by(|a, b| a == b) {
            let end = (at + run.len() * self.page).min(data.len());
            if run[0] {
                let kept = within(old, at as u64, end as u64);
                kept.into_iter().for_each(|piece| self.push(piece));
            } else {
                self.add_to_group(&data[at..end]).await?;
            }
            at = end;
        }
        Ok(())
    }

    async fn add_to_group(&mut self, changed: &[u8]) -> Result<()> {
        let mut rest = changed;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(self.stretch - self.group.len()));
            let (group, offset) = (self.groups.len(), self.group.len());
            self.pieces.push(Pending::Grouped { group, offset, length: part.len() });
            self.group.extend_from_slice(part);
            if self.group.len() == self.stretch {
                self.close_group().await?;
            }
            rest = after;
        }
        Ok(())
    }

    async fn close_group(&mut self) -> Result<()> {
        let data = self.group.split().freeze();
        let (shared, bytes) = (Arc::clone(self.chunks.shared()), data.clone());
        let hash = move || shared.keys.chunk_id(ChunkKind::Data, &bytes);
        let id = self.chunks.shared().pool.run("hash content", hash).await?;
        self.groups.push(id);
        self.chunks.store(ChunkKind::Data, id, data).await
    }

    async fn unchanged(&mut self, length: u64) -> Result<()> {
        let aligned = self.is_aligned();
        let (old, mut known) = self.old(length).await?;
        if total(&old) != length || !self.chunks.has_all(&old) {
            return Err(self.missing());
        }
        old.into_iter().for_each(|piece| self.push(piece));
        self.after_unchanged = true;
        if !(self.length + length).is_multiple_of(self.page as u64) {
            // The old page may have gone on where this content ends or changes.
            known.truncate(self.beginning(length).saturating_sub(1) as usize);
        }
        self.remember(length, if aligned { &known } else { &[] }).await
    }

    async fn hole(&mut self, length: u64) -> Result<()> {
        if let Some(baseline) = &mut self.baseline {
            baseline.pieces.skip(length).await?;
        }
        let pages = self.beginning(length);
        if let Some(cursor) = self.baseline.as_mut().and_then(|old| old.fingerprints.as_mut()) {
            cursor.take(pages as usize).await;
        }
        self.push(Piece::hole(length));
        self.after_unchanged = false;
        self.remember(length, &[]).await
    }

    /// Goes on by `length` bytes, and notes the fingerprints of the pages that begin there, as far
    /// as they are given: there is one for each page, always, and it is of all of the page, or
    /// [`UNKNOWN`].
    async fn remember(&mut self, length: u64, fingerprints: &[[u8; 16]]) -> Result<()> {
        if !self.is_aligned()
            && let Some(last) = self.fingerprints.last_chunk_mut::<16>()
        {
            // What was noted was of the part of the page that came before.
            *last = UNKNOWN;
        }
        let pages = self.beginning(length) as usize;
        self.length += length;
        let rest = std::iter::repeat(&UNKNOWN);
        for fingerprint in fingerprints.iter().chain(rest).take(pages) {
            // Not before the next page begins: it may have to be taken back.
            if self.fingerprints.len() == FINGERPRINTS {
                self.close_fingerprints().await?;
            }
            self.fingerprints.extend_from_slice(fingerprint);
        }
        Ok(())
    }

    async fn close_fingerprints(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.fingerprints);
        let id = self.chunks.shared().keys.chunk_id(ChunkKind::Fingerprints, &bytes);
        self.fingerprint_pieces.push(Piece::whole(id, bytes.len()));
        self.chunks.store(ChunkKind::Fingerprints, id, bytes.into()).await
    }

    async fn finish(mut self) -> Result<(ContentRecord, u64)> {
        if !self.group.is_empty() {
            self.close_group().await?;
        }
        let mut pieces = Vec::new();
        for pending in &self.pieces {
            let piece = match *pending {
                Pending::Ready(piece) => piece,
                Pending::Grouped { group, offset, length } => Piece {
                    chunk: Some(self.groups[group]),
                    offset: offset as u32,
                    length: length as u64,
                },
            };
            push(&mut pieces, piece);
        }
        let fingerprints = if self.length.div_ceil(self.page as u64) > FEW_PAGES {
            if !self.fingerprints.is_empty() {
                self.close_fingerprints().await?;
            }
            let pieces = std::mem::take(&mut self.fingerprint_pieces);
            Some(Box::new(pieces::record(self.chunks, pieces, None).await?))
        } else {
            None
        };
        Ok((pieces::record(self.chunks, pieces, fingerprints).await?, self.length))
    }
}

/// The part of the pieces from byte `start` to byte `end` of what they stand for.
fn within(pieces: &[Piece], start: u64, end: u64) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut at = 0;
    for piece in pieces {
        let (from, to) = (start.max(at), end.min(at + piece.length));
        if from < to {
            let offset = piece.offset + (from - at) as u32;
            found.push(Piece { chunk: piece.chunk, offset, length: to - from });
        }
        at += piece.length;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_out_of_pieces() {
        let a = Piece::whole(ChunkId::from_bytes([1; 32]), 10);
        let b = Piece { offset: 5, ..Piece::whole(ChunkId::from_bytes([2; 32]), 10) };
        let cut = within(&[a, b], 8, 13);
        assert_eq!(cut, [Piece { offset: 8, length: 2, ..a }, Piece { offset: 5, length: 3, ..b }]);
        assert!(within(&[a, b], 20, 30).is_empty());
    }
}
