//! A file as a stream of extents.

use std::fs::File;
use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::stream;
use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, SeekFrom};
use rustix::io::Errno;
use tokio::task::JoinHandle;

use super::error::failed;
use super::status::Status;
use crate::budget::Buffer;
use crate::content::{Content, Extent};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};

/// Holes begin and end at multiples of this many bytes: what a file system leaves out in smaller
/// pieces is given as zeros. All extents but the last therefore hold whole database pages.
pub const HOLE_GRAIN: u64 = 32 * 1024;

/// One buffer.
const PIECE: u64 = 1 << 20;

/// The content of an open file: its first `size` bytes, or fewer when the file ends before that.
/// `name` is what people know it by.
///
/// Data comes in extents of up to 1 MiB (a quarter of a smaller budget) that begin at multiples of [`HOLE_GRAIN`]; holes come as
/// [`Extent::Hole`]. Buffers are taken from the context's budget; the next piece is read while the
/// last one is worked on, as long as that leaves others a part of the budget. Bytes are counted
/// by [`Context::count_read`]. The position of the descriptor is not used for reading, but moved.
///
/// A file that shrank ends early, without an error: a caller that must know compares the length.
/// Bytes beyond `size` are left alone.
pub fn read_file(
    file: impl Into<Arc<File>>,
    name: impl Into<Arc<str>>,
    size: u64,
    context: &Context,
) -> Content {
    let cursor = Cursor {
        file: file.into(),
        name: name.into(),
        at: 0,
        end: size,
        // What is held ahead of its turn is half of the budget at most, so that this always fits.
        piece: PIECE.min(context.budget().total() as u64 / 4 / HOLE_GRAIN * HOLE_GRAIN),
        holes: Holes::Unknown,
    };
    let context = context.clone();
    let state = State { next: Next::Idle(Some(cursor)), ready: None, context };
    Content::stream(stream::try_unfold(state, |mut state| async move {
        Ok(state.next().await?.map(|extent| (extent, state)))
    }))
}

struct State {
    next: Next,
    /// The data that follows a hole just given.
    ready: Option<Extent>,
    context: Context,
}

enum Next {
    /// Nothing is being read. The cursor is gone after the end or an error.
    Idle(Option<Cursor>),
    Reading(JoinHandle<(Cursor, Result<Piece>)>),
}

/// What one step found: a hole, data, both in this order, or neither at the end.
struct Piece {
    hole: u64,
    data: Option<bytes::Bytes>,
}

impl State {
    async fn next(&mut self) -> Result<Option<Extent>> {
        if let Some(extent) = self.ready.take() {
            return Ok(Some(extent));
        }
        if let Next::Idle(cursor) = &mut self.next {
            let Some(cursor) = cursor.take() else {
                return Ok(None);
            };
            let Some(capacity) = cursor.capacity() else {
                return Ok(None);
            };
            let buffer = self.context.budget().buffer(capacity).await;
            self.next = Next::Reading(cursor.start(buffer));
        }
        let Next::Reading(task) = &mut self.next else {
            return Ok(None);
        };
        let done = task.await;
        self.next = Next::Idle(None);
        let (cursor, piece) = done.map_err(|panic| {
            Error::new(ErrorKind::Other, "the reading of a file panicked").with_source(panic)
        })?;
        let Piece { hole, data } = piece?;
        if hole == 0 && data.is_none() {
            return Ok(None);
        }
        self.read_ahead(cursor);
        let data = data.map(|bytes| {
            self.context.count_read(bytes.len() as u64);
            Extent::Data(bytes)
        });
        if hole > 0 {
            self.ready = data;
            return Ok(Some(Extent::Hole(hole)));
        }
        Ok(data)
    }

    /// Begins the next piece when the budget has room to spare: what is read ahead must never
    /// hold the memory that somebody needs to go on.
    fn read_ahead(&mut self, cursor: Cursor) {
        self.next = match cursor
            .capacity()
            .and_then(|capacity| self.context.budget().spare_buffer(capacity))
        {
            Some(buffer) => Next::Reading(cursor.start(buffer)),
            None => Next::Idle(Some(cursor)),
        };
    }
}

struct Cursor {
    file: Arc<File>,
    name: Arc<str>,
    at: u64,
    end: u64,
    piece: u64,
    holes: Holes,
}

#[derive(Clone, Copy)]
enum Holes {
    /// Nothing was looked at yet.
    Unknown,
    /// It has none, or the file system cannot tell.
    None,
    /// Up to here there is data; beyond it has to be asked again.
    After(u64),
}

impl Cursor {
    /// How large a buffer the next piece needs at most, or `None` at the end.
    fn capacity(&self) -> Option<usize> {
        let left = self.end.saturating_sub(self.at).min(self.piece);
        usize::try_from(left).ok().filter(|left| *left > 0)
    }

    fn start(mut self, buffer: Buffer) -> JoinHandle<(Self, Result<Piece>)> {
        tokio::task::spawn_blocking(move || {
            let piece = self.fill(buffer).map_err(|error| failed("read", &*self.name, error));
            (self, piece)
        })
    }

    fn fill(&mut self, mut buffer: Buffer) -> Result<Piece, Errno> {
        if matches!(self.holes, Holes::Unknown) {
            self.first_look()?;
        }
        let hole = match self.skip_hole()? {
            ControlFlow::Break(hole) => return Ok(Piece { hole, data: None }),
            ControlFlow::Continue(hole) => hole,
        };
        let until = match self.holes {
            Holes::After(data_end) => data_end.min(self.end),
            Holes::None | Holes::Unknown => self.end,
        };
        let capacity = self.capacity().unwrap_or(0);
        let want = usize::try_from(until - self.at).map_or(capacity, |left| left.min(capacity));
        self.read(&mut buffer, want)?;
        let bytes = buffer.freeze();
        self.at += bytes.len() as u64;
        if bytes.len() < want {
            self.end = self.at;
        }
        Ok(Piece { hole, data: Some(bytes).filter(|bytes| !bytes.is_empty()) })
    }

    fn read(&self, buffer: &mut Buffer, want: usize) -> Result<(), Errno> {
        let data = buffer.data_mut();
        data.clear();
        while data.len() < want {
            // An allocator may give more room than was asked for; what is too much is cut off.
            let at = self.at + data.len() as u64;
            match rustix::io::pread(&*self.file, spare_capacity(data), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        data.truncate(want);
        Ok(())
    }

    fn first_look(&mut self) -> Result<(), Errno> {
        let status = Status::of(&*self.file)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        self.holes = if status.allocated < status.size { Holes::After(0) } else { Holes::None };
        if self.end > PIECE {
            // Widens the kernel's own read-ahead. It is advice: it may fail.
            let _ = rustix::fs::fadvise(&*self.file, 0, None, Advice::Sequential);
        }
        Ok(())
    }

    /// Moves over a hole, and says how long it is: `Break` when nothing follows it.
    fn skip_hole(&mut self) -> Result<ControlFlow<u64, u64>, Errno> {
        let Holes::After(data_end) = self.holes else {
            return Ok(ControlFlow::Continue(0));
        };
        if self.at < data_end {
            return Ok(ControlFlow::Continue(0));
        }
        let data = match rustix::fs::seek(&*self.file, SeekFrom::Data(self.at)) {
            Ok(data) => data,
            // No data behind this place: a hole up to the end of the file as it is now.
            Err(Errno::NXIO) => {
                let status = Status::of(&*self.file).map_err(|_| Errno::IO)?;
                self.end = self.end.min(status.size).max(self.at);
                let hole = self.end - self.at;
                self.at = self.end;
                return Ok(ControlFlow::Break(hole));
            }
            Err(Errno::INVAL | Errno::NOTSUP) => {
                self.holes = Holes::None;
                return Ok(ControlFlow::Continue(0));
            }
            Err(error) => return Err(error),
        };
        let data = (data / HOLE_GRAIN * HOLE_GRAIN).clamp(self.at, self.end);
        let hole = data - self.at;
        self.at = data;
        if self.at == self.end {
            return Ok(ControlFlow::Break(hole));
        }
        self.holes = Holes::After(self.data_end()?);
        Ok(ControlFlow::Continue(hole))
    }

    /// Where the data that holds `self.at` ends, rounded up; holes too small to tell are data.
    fn data_end(&self) -> Result<u64, Errno> {
        let mut at = self.at;
        loop {
            // A place in the rounding before the data may lie in a hole itself.
            let data = match rustix::fs::seek(&*self.file, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(Errno::NXIO) => return Ok(at.max(self.at + 1).next_multiple_of(HOLE_GRAIN)),
                Err(error) => return Err(error),
            };
            let hole = match rustix::fs::seek(&*self.file, SeekFrom::Hole(data)) {
                Ok(hole) => hole,
                // The file was cut off in between: reading finds its end.
                Err(Errno::NXIO) => return Ok(self.end),
                Err(error) => return Err(error),
            };
            let rounded = hole.next_multiple_of(HOLE_GRAIN);
            if rounded >= self.end {
                return Ok(self.end);
            }
            if rounded >= self.at + PIECE {
                return Ok(rounded);
            }
            match rustix::fs::seek(&*self.file, SeekFrom::Data(hole)) {
                Ok(next) if next / HOLE_GRAIN * HOLE_GRAIN <= rounded => at = next,
                Ok(_) | Err(Errno::NXIO) => return Ok(rounded),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::ByteBudget;
    use std::os::unix::fs::FileExt;

    async fn extents(mut content: Content) -> Vec<Extent> {
        let mut all = Vec::new();
        while let Some(extent) = content.next().await.unwrap() {
            all.push(extent);
        }
        all
    }

    fn joined(extents: &[Extent]) -> Vec<u8> {
        let mut all = Vec::new();
        for extent in extents {
            match extent {
                Extent::Data(bytes) => all.extend_from_slice(bytes),
                Extent::Hole(length) => all.resize(all.len() + *length as usize, 0),
                Extent::Unchanged(_) => panic!("there is no baseline"),
            }
        }
        all
    }

    #[tokio::test]
    async fn a_large_file_comes_in_pieces_within_the_budget() {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
        file.write_all_at(&bytes, 0).unwrap();
        let context = Context::silent().with_budget(ByteBudget::new(1 << 20));
        let mut content = read_file(file, "large", bytes.len() as u64, &context);
        let mut got = Vec::new();
        while let Some(extent) = content.next().await.unwrap() {
            assert!(extent.len() <= 1 << 20);
            got.extend_from_slice(&joined(&[extent]));
        }
        assert!(got == bytes);
        assert_eq!(context.progress().read, bytes.len() as u64);
        assert_eq!(context.budget().available(), 1 << 20);
    }

    #[tokio::test]
    async fn holes_are_found_and_small_ones_are_data() {
        let file = tempfile::tempfile().unwrap();
        let size = 4 << 20;
        file.set_len(size).unwrap();
        let mut expected = vec![0; size as usize];
        for at in [8192, 100_000, 140_000, 3 << 20] {
            file.write_all_at(b"data", at).unwrap();
            expected[at as usize..at as usize + 4].copy_from_slice(b"data");
        }
        let context = Context::silent();
        let extents = extents(read_file(file, "sparse", size, &context)).await;
        assert!(joined(&extents) == expected);
        let mut at = 0;
        let mut holes = 0;
        for extent in &extents {
            assert_eq!(at % HOLE_GRAIN, 0);
            at += extent.len();
            if let Extent::Hole(length) = extent {
                holes += length;
            }
        }
        assert!(holes > 3 << 20, "{extents:?}");
        assert!(context.progress().read < 512 * 1024);
    }

    #[tokio::test]
    async fn only_a_hole() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(5_000_000).unwrap();
        let context = Context::silent();
        let extents = extents(read_file(file, "hole", 5_000_000, &context)).await;
        assert_eq!(extents, [Extent::Hole(5_000_000)]);
    }

    #[tokio::test]
    async fn a_file_that_shrank_ends_early_and_a_grown_one_where_it_was_said() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 10_000], 0).unwrap();
        let context = Context::silent();
        let file = Arc::new(file);
        let short = extents(read_file(Arc::clone(&file), "short", 20_000, &context)).await;
        assert_eq!(joined(&short).len(), 10_000);
        let long = extents(read_file(file, "long", 5_000, &context)).await;
        assert_eq!(joined(&long).len(), 5_000);
    }

    #[tokio::test]
    async fn many_files_at_once_do_not_starve_each_other() {
        let bytes = vec![3; 3 << 20];
        let context = Context::silent().with_budget(ByteBudget::new(2 << 20));
        let all = (0..16).map(|_| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            let mut content = read_file(file, "one of many", 3 << 20, &context);
            tokio::spawn(async move {
                let mut length = 0;
                while let Some(extent) = content.next().await.unwrap() {
                    length += extent.len();
                }
                length
            })
        });
        for task in all.collect::<Vec<_>>() {
            assert_eq!(task.await.unwrap(), 3 << 20);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_says_so() {
        let directory = File::open("/").unwrap();
        let context = Context::silent();
        let error = read_file(directory, "/", 100, &context).next().await.unwrap_err();
        assert!(error.one_line().starts_with("read /: "), "{error:?}");
    }
}
