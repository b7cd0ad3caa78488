//! Content of pages for a target that has a former version of it: what is the same is not read.
//!
//! The snapshot knows a fingerprint of each page, 128 bits of a keyed hash. A page of the target
//! that has just that one is the same, and is said to be unchanged; only the others are fetched.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use lifeboat_core::{Content, Context, EntryPath, Extent, local::FormerFiles};

use super::chunks::ChunkReader;
use super::pieces::{FingerprintCursor, PieceCursor};
use super::source::{fetch, read};
use crate::content::{ContentRecord, Piece, total};
use crate::error::{Error, Result};

/// How many pages are compared at once: a MiB of those of 8 KiB.
const STEP: u64 = 128;
/// How many pieces of one content are fetched ahead.
const AHEAD: usize = 4;
/// Tells that the content of a page is not known.
const UNKNOWN: [u8; 16] = [0; 16];

/// The content of an entry, and the former version of it.
pub(super) struct Sparing {
    chunks: Arc<ChunkReader>,
    pieces: PieceCursor,
    fingerprints: FingerprintCursor,
    file: Arc<File>,
    page: u64,
    at: u64,
    size: u64,
}

/// What comes next.
enum Part {
    Unchanged(u64),
    Piece(Piece),
}

/// As [`read`], with what `former` has of it left out. It is looked for when the content is first
/// asked for.
pub(super) fn read_sparing(
    chunks: Arc<ChunkReader>,
    record: &ContentRecord,
    (size, page): (u64, u32),
    (former, path): (Arc<dyn FormerFiles>, EntryPath),
    context: Context,
) -> Content {
    let Some(fingerprints) = record.fingerprints.as_deref().filter(|_| page > 0 && size > 0) else {
        return read(chunks, record, size, context);
    };
    let record = record.clone();
    let fingerprints = FingerprintCursor::new(Arc::clone(&chunks), fingerprints);
    let opened = async move {
        let file = tokio::task::spawn_blocking(move || former.open(&path)).await.ok().flatten();
        let Some(file) = file else {
            return read(chunks, &record, size, context);
        };
        let pieces = PieceCursor::new(Arc::clone(&chunks), &record);
        let file = Arc::new(file);
        let page = u64::from(page);
        Sparing { chunks, pieces, fingerprints, file, page, at: 0, size }.content(context)
    };
    // Nothing is opened before somebody asks.
    let extents = stream::once(opened).flat_map(|content| {
        stream::try_unfold(content, |mut content| async move {
            Ok::<_, lifeboat_core::Error>(content.next().await?.map(|extent| (extent, content)))
        })
    });
    Content::stream(extents)
}

impl Sparing {
    fn content(self, context: Context) -> Content {
        let chunks = Arc::clone(&self.chunks);
        let steps = stream::unfold(Some(self), |sparing| async move {
            let mut sparing = sparing?;
            match sparing.step().await {
                Ok(Some(parts)) => Some((Ok(parts), Some(sparing))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        let parts = steps.flat_map(|step| match step {
            Ok(parts) => stream::iter(parts.into_iter().map(Ok)).left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        });
        let extents = parts
            .map(move |part: Result<Part>| {
                let (chunks, context) = (Arc::clone(&chunks), context.clone());
                async move {
                    let extent = match part? {
                        Part::Unchanged(length) => Extent::Unchanged(length),
                        Part::Piece(piece) => fetch(&chunks, piece).await?,
                    };
                    context.count_read(extent.len());
                    Ok::<_, lifeboat_core::Error>(extent)
                }
            })
            .buffered(AHEAD);
        Content::stream(extents)
    }

    /// The next parts; `None` at the end.
    async fn step(&mut self) -> Result<Option<Vec<Part>>> {
        let length = (self.size - self.at).min(STEP * self.page);
        if length == 0 {
            return match self.pieces.next(1).await? {
                None => Ok(None),
                Some(_) => Err(wrong(format!("its pieces have more than {} bytes", self.size))),
            };
        }
        let known = self.fingerprints.take(length.div_ceil(self.page) as usize).await;
        let found = self.found(length).await?;
        let same = |at: usize| match (known.get(at), found.get(at)) {
            (Some(known), Some(found)) => known == found && *known != UNKNOWN,
            _ => false,
        };
        let pages = length.div_ceil(self.page) as usize;
        let mut parts = Vec::new();
        let mut at = 0;
        while at < pages {
            let first = same(at);
            let run = (at..pages).take_while(|at| same(*at) == first).count();
            let to = ((at + run) as u64 * self.page).min(length);
            let bytes = to - at as u64 * self.page;
            if first {
                self.pieces.skip(bytes).await?;
                parts.push(Part::Unchanged(bytes));
            } else {
                let pieces = self.pieces.take(bytes).await?;
                if total(&pieces) != bytes {
                    return Err(wrong(format!("its pieces have fewer than {} bytes", self.size)));
                }
                parts.extend(pieces.into_iter().map(Part::Piece));
            }
            at += run;
        }
        self.at += length;
        Ok(Some(parts))
    }

    /// The fingerprints of the pages that the former version has in the next `length` bytes.
    async fn found(&self, length: u64) -> Result<Vec<[u8; 16]>> {
        let (file, chunks, at) = (Arc::clone(&self.file), Arc::clone(&self.chunks), self.at);
        let (page, length) = (self.page as usize, length as usize);
        let work = move || {
            let mut bytes = vec![0; length];
            let there = read_up_to(&file, &mut bytes, at)?;
            // Of a page that is cut short by the end of the file, nothing is said.
            let whole = if there < length { there - there % page } else { there };
            let pages = bytes[..whole].chunks(page);
            Ok::<_, io::Error>(pages.map(|page| chunks.fingerprint(page)).collect())
        };
        let worked = tokio::task::spawn_blocking(work).await;
        let worked =
            worked.map_err(|_| Error::Worker { doing: "compare pages with the target" })?;
        // What cannot be read is not the same; whoever writes it will say why.
        Ok(worked.unwrap_or_default())
    }
}

/// Fills `bytes` as far as the file goes. Blocks.
fn read_up_to(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], at + done as u64) {
            Ok(0) => break,
            Ok(more) => done += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn wrong(what: String) -> Error {
    Error::damaged("a list of pieces", what)
}
