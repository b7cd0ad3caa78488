//! Pieces of one content, fetched ahead of who takes them.
//!
//! How far ahead is a matter of bytes: a stream of small records is cut into pieces of some KiB, of
//! which many lie in one block, and four of those would keep one request under way. They are handed on
//! in buffers of a good size, however small the pieces are.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, FuturesOrdered};
use futures_util::{Stream, StreamExt, stream};
use lifeboat_core::{Context, Extent};

use super::chunks::ChunkReader;
use super::source::fetch;
use crate::content::Piece;
use crate::error::Result;

/// So many pieces are fetched ahead, whatever their size.
const LEAST: usize = 4;
/// Small ones until they have so many bytes, or are so many.
const AHEAD: u64 = 4 << 20;
const MOST: usize = 256;
/// Smaller buffers are joined.
const GOOD: usize = 256 << 10;

type Fetched = (u64, lifeboat_core::Result<Extent>);

/// The bytes of `pieces`, which are counted as read.
pub(super) fn fetched_ahead(
    chunks: Arc<ChunkReader>,
    pieces: impl Stream<Item = Result<Piece>> + Send + 'static,
    context: Context,
) -> impl Stream<Item = lifeboat_core::Result<Extent>> + Send + 'static {
    let ahead = Ahead {
        chunks,
        context,
        pieces: Some(pieces.boxed()),
        under_way: FuturesOrdered::new(),
        bytes: 0,
        next: None,
    };
    stream::unfold(Some(ahead), |ahead| async move {
        let mut ahead = ahead?;
        match ahead.joined().await? {
            Ok(extent) => Some((Ok(extent), Some(ahead))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

struct Ahead {
    chunks: Arc<ChunkReader>,
    context: Context,
    /// Until the last was taken.
    pieces: Option<BoxStream<'static, Result<Piece>>>,
    under_way: FuturesOrdered<Pin<Box<dyn Future<Output = Fetched> + Send>>>,
    /// What the pieces under way have.
    bytes: u64,
    /// What came and could not be joined with what was before it.
    next: Option<lifeboat_core::Result<Extent>>,
}

impl Ahead {
    /// The next extent of a good size.
    async fn joined(&mut self) -> Option<lifeboat_core::Result<Extent>> {
        let mut first = match self.one().await? {
            Ok(Extent::Data(bytes)) if bytes.len() < GOOD => bytes,
            other => return Some(other),
        };
        let mut joined = BytesMut::new();
        loop {
            let bytes = match self.one().await {
                Some(Ok(Extent::Data(bytes))) if bytes.len() < GOOD => bytes,
                other => {
                    self.next = other;
                    break;
                }
            };
            if joined.is_empty() {
                joined.reserve(2 * GOOD);
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&bytes);
            if joined.len() >= GOOD {
                break;
            }
        }
        let bytes: Bytes = if joined.is_empty() { first } else { joined.freeze() };
        Some(Ok(Extent::Data(bytes)))
    }

    /// The next piece.
    async fn one(&mut self) -> Option<lifeboat_core::Result<Extent>> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        loop {
            let count = self.under_way.len();
            let room = count < LEAST || (self.bytes < AHEAD && count < MOST);
            let asking = self.pieces.as_mut().filter(|_| room);
            if asking.is_none() && count == 0 {
                return None;
            }
            tokio::select! {
                biased;
                piece = next_of(asking) => match piece {
                    Some(piece) => self.fetch(piece),
                    None => self.pieces = None,
                },
                Some((length, extent)) = self.under_way.next() => {
                    self.bytes -= length;
                    return Some(extent);
                }
            }
        }
    }

    fn fetch(&mut self, piece: Result<Piece>) {
        let length = match &piece {
            Ok(piece) if piece.chunk.is_some() => piece.length,
            _ => 0,
        };
        self.bytes += length;
        let (chunks, context) = (Arc::clone(&self.chunks), self.context.clone());
        self.under_way.push_back(Box::pin(async move {
            let fetching = async {
                let extent = fetch(&chunks, piece?).await?;
                context.count_read(extent.len());
                Ok(extent)
            };
            (length, fetching.await)
        }));
    }
}

/// The next of a stream; never, where there is none.
async fn next_of(pieces: Option<&mut BoxStream<'static, Result<Piece>>>) -> Option<Result<Piece>> {
    match pieces {
        Some(pieces) => pieces.next().await,
        None => std::future::pending().await,
    }
}
