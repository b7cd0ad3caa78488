//! The content of one entry, compared with what it was in an earlier snapshot.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use lifeboat_core::{Content, Context, Extent};

use crate::content::{ContentRecord, Piece, total};
use crate::error::{Error, Result};
use crate::index::Reliance;
use crate::read::{self, ChunkReader, PieceCursor};
use crate::repository::Shared;
use crate::snapshot::Snapshot;
use crate::tree::EntryRecord;

/// How many chunks of one content are fetched ahead.
const AHEAD: usize = 4;

/// Asks the destination what it has.
pub(super) struct Held {
    shared: Arc<Shared>,
    reliance: Reliance,
}

impl Held {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, reliance: Reliance::default() }
    }

    /// Whether it has all chunks that a short content names.
    pub(super) fn has(&self, record: &ContentRecord) -> bool {
        let mut chunks = record.list.chunks().iter();
        chunks.all(|chunk| self.shared.index.rely(chunk, &self.reliance))
    }

    /// The pieces of a content of its copy.
    pub(super) fn pieces(self: &Arc<Self>, copy: &Snapshot, record: &ContentRecord) -> HeldPieces {
        let cursor = PieceCursor::new(Arc::clone(copy.chunks()), record);
        HeldPieces { held: Arc::clone(self), cursor: Some(cursor) }
    }
}

/// What the destination's copy has of a content, from the first byte to the last.
pub(super) struct HeldPieces {
    held: Arc<Held>,
    /// `None` when no more can be had of it.
    cursor: Option<PieceCursor>,
}

impl HeldPieces {
    /// Goes on by `length` bytes, and says whether the destination has them.
    async fn take(&mut self, length: u64) -> bool {
        let Some(cursor) = &mut self.cursor else {
            return false;
        };
        match cursor.take(length).await {
            Ok(pieces) => {
                let index = &self.held.shared.index;
                let mut chunks = pieces.iter().filter_map(|piece| piece.chunk);
                total(&pieces) == length
                    && chunks.all(|chunk| index.rely(&chunk, &self.held.reliance))
            }
            Err(_) => {
                self.cursor = None;
                false
            }
        }
    }

    async fn skip(&mut self, length: u64) {
        if let Some(cursor) = &mut self.cursor
            && cursor.skip(length).await.is_err()
        {
            self.cursor = None;
        }
    }
}

/// A stretch of the new content.
enum Stretch {
    /// It is what it was.
    Same(Piece),
    Changed(Piece),
}

/// A content, and what it was: where both name the same piece, they are the same.
pub(super) struct Compared {
    chunks: Arc<ChunkReader>,
    new: PieceCursor,
    /// `None` when no more is known of it.
    old: Option<PieceCursor>,
    /// Pieces of which a part was compared.
    waiting: (Option<Piece>, Option<Piece>),
    size: u64,
    done: u64,
}

impl Compared {
    pub(super) fn new(snapshot: &Snapshot, record: &EntryRecord, old: &EntryRecord) -> Self {
        let chunks = Arc::clone(snapshot.chunks());
        Self {
            new: PieceCursor::new(Arc::clone(&chunks), &record.content),
            old: Some(PieceCursor::new(Arc::clone(&chunks), &old.content)),
            chunks,
            waiting: (None, None),
            size: record.size,
            done: 0,
        }
    }

    /// How many bytes are what they were.
    pub(super) async fn unchanged(mut self) -> Result<u64> {
        let mut bytes = 0;
        while let Some(stretch) = self.next().await? {
            if let Stretch::Same(piece) = stretch {
                bytes += piece.length;
            }
        }
        Ok(bytes)
    }

    /// The content, of which `held` is left out as far as it is what it was.
    pub(super) fn content(self, held: HeldPieces, context: Context) -> Content {
        let chunks = Arc::clone(&self.chunks);
        let steps = stream::unfold(Some((self, held)), |state| async move {
            let (mut compared, mut held) = state?;
            match compared.step(&mut held).await {
                Ok(None) => None,
                Ok(Some(step)) => Some((Ok(step), Some((compared, held)))),
                Err(error) => Some((Err(error), None)),
            }
        });
        let extents = steps
            .map(move |step| {
                let (chunks, context) = (Arc::clone(&chunks), context.clone());
                async move {
                    match step? {
                        Step::Unchanged(length) => {
                            context.count_unchanged(length);
                            Ok(Extent::Unchanged(length))
                        }
                        Step::Read(piece) => {
                            let extent = read::fetch(&chunks, piece).await?;
                            context.count_read(extent.len());
                            Ok::<_, lifeboat_core::Error>(extent)
                        }
                    }
                }
            })
            .buffered(AHEAD);
        Content::stream(extents)
    }

    async fn step(&mut self, held: &mut HeldPieces) -> Result<Option<Step>> {
        Ok(match self.next().await? {
            None => None,
            Some(Stretch::Same(piece)) if held.take(piece.length).await => {
                Some(Step::Unchanged(piece.length))
            }
            Some(Stretch::Same(piece)) => Some(Step::Read(piece)),
            Some(Stretch::Changed(piece)) => {
                held.skip(piece.length).await;
                Some(Step::Read(piece))
            }
        })
    }

    /// The next stretch that is the same in all of its bytes, or in none.
    async fn next(&mut self) -> Result<Option<Stretch>> {
        let new = match self.waiting.0.take() {
            Some(piece) => Some(piece),
            None => self.new.next(u64::MAX).await?,
        };
        let Some(new) = new else {
            return if self.done == self.size {
                Ok(None)
            } else {
                let what = format!("its pieces have {} bytes, the entry {}", self.done, self.size);
                Err(Error::damaged("a list of pieces", what))
            };
        };
        let old = match self.waiting.1.take() {
            Some(piece) => Some(piece),
            None => self.old().await,
        };
        let length = old.map_or(new.length, |old| old.length.min(new.length));
        self.waiting = (rest(new, length), old.and_then(|old| rest(old, length)));
        self.done = self.done.saturating_add(length);
        let piece = Piece { length, ..new };
        // A hole costs nothing, and says more than that nothing changed.
        let same = new.chunk.is_some()
            && old.is_some_and(|old| (old.chunk, old.offset) == (new.chunk, new.offset));
        Ok(Some(if same { Stretch::Same(piece) } else { Stretch::Changed(piece) }))
    }

    async fn old(&mut self) -> Option<Piece> {
        let found = self.old.as_mut()?.next(u64::MAX).await;
        if !matches!(found, Ok(Some(_))) {
            self.old = None;
        }
        found.ok().flatten()
    }
}

/// What is left of a piece after its first `length` bytes.
fn rest(piece: Piece, length: u64) -> Option<Piece> {
    let left = piece.length.checked_sub(length).filter(|left| *left > 0)?;
    let offset = if piece.chunk.is_some() { piece.offset.saturating_add(length as u32) } else { 0 };
    Some(Piece { offset, length: left, ..piece })
}

/// What is done with a stretch.
enum Step {
    Unchanged(u64),
    Read(Piece),
}
