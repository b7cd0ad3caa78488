//! The content of files, read when it is asked for.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream;
use lifeboat_core::{Bytes, Content, Context, EntryPath, Extent};
use rustix::buffer::spare_capacity;
use rustix::fs::Advice;

use super::cluster::blocking;
use super::damage::{Damage, Pages};
use crate::error::{Error, Result};
use crate::gate::Ticket;
use crate::wal::Expected;

/// How much is read at once: a multiple of every page size.
const PIECE: u64 = 1 << 20;

/// A file that is opened, and how it is looked at while it is read.
pub(super) struct FileContent {
    pub(super) file: File,
    pub(super) path: EntryPath,
    pub(super) on_disk: PathBuf,
    /// No more than this is read: what the file grows by is in the WAL.
    pub(super) size: u64,
    /// Which bytes are read, in order; the baseline has the others. Without, all are.
    pub(super) ranges: Option<VecDeque<Range<u64>>>,
    pub(super) check: Check,
    pub(super) context: Context,
    pub(super) ticket: Ticket,
}

/// What the bytes of a file are held against.
pub(super) enum Check {
    /// Nothing.
    Nothing,
    /// The checksums of its pages; damage is reported, and the reading goes on.
    Pages(Pages, Arc<Damage>),
    /// The position in every page of a WAL segment; anything else is an error.
    Wal(Expected),
}

struct State {
    file: Arc<File>,
    offset: u64,
    ranges: Option<VecDeque<Range<u64>>>,
    of: FileContentRest,
}

struct FileContentRest {
    path: EntryPath,
    on_disk: PathBuf,
    size: u64,
    check: Check,
    context: Context,
    /// Nothing of it was read yet.
    unread: bool,
    _ticket: Ticket,
}

impl FileContent {
    /// The content. A file that shrinks meanwhile is given as far as it goes, except a WAL segment.
    pub(super) fn into_content(self) -> Content {
        let state = State {
            file: Arc::new(self.file),
            offset: 0,
            ranges: self.ranges,
            of: FileContentRest {
                path: self.path,
                on_disk: self.on_disk,
                size: self.size,
                check: self.check,
                context: self.context,
                unread: true,
                _ticket: self.ticket,
            },
        };
        Content::stream(stream::try_unfold(state, |state| async { Ok(state.step().await?) }))
    }
}

/// What comes next of a file.
enum Next {
    /// At most so many bytes of it, and of a piece.
    Read(u64),
    /// So many that the baseline has.
    Unchanged(u64),
    End,
}

impl State {
    fn next(&mut self) -> Next {
        let left = self.of.size - self.offset;
        if left == 0 {
            return Next::End;
        }
        let Some(ranges) = &mut self.ranges else {
            return Next::Read(PIECE.min(left));
        };
        while ranges.front().is_some_and(|range| range.end <= self.offset) {
            ranges.pop_front();
        }
        match ranges.front() {
            Some(range) if range.start <= self.offset => {
                Next::Read(PIECE.min(range.end - self.offset).min(left))
            }
            Some(range) => Next::Unchanged((range.start - self.offset).min(left)),
            None => Next::Unchanged(left),
        }
    }

    async fn step(mut self) -> Result<Option<(Extent, Self)>> {
        let wanted = match self.next() {
            Next::Read(wanted) => wanted,
            Next::Unchanged(length) => {
                self.of.context.count_unchanged(length);
                self.offset += length;
                return Ok(Some((Extent::Unchanged(length), self)));
            }
            Next::End => return Ok(None),
        };
        // At most a MiB.
        let capacity = usize::try_from(wanted).unwrap_or(usize::MAX);
        let mut buffer = self.of.context.budget().buffer(capacity).await;
        let (file, offset, size) = (Arc::clone(&self.file), self.offset, self.of.size);
        let on_disk = self.of.on_disk.clone();
        let pages = match &self.of.check {
            Check::Pages(pages, _) => Some(*pages),
            Check::Nothing | Check::Wal(_) => None,
        };
        let advice = match &self.ranges {
            Some(_) => Advice::Random,
            None => Advice::Sequential,
        };
        let first = std::mem::take(&mut self.of.unread);
        let (bytes, damaged) = blocking(move || {
            if first && size > PIECE {
                // Only advice: how much it helps is up to the file system.
                let _ = rustix::fs::fadvise(&*file, 0, None, advice);
            }
            fill(&file, buffer.data_mut(), capacity, offset).map_err(|source| Error::File {
                what: "read",
                path: on_disk,
                source,
            })?;
            let damaged = pages.map(|pages| pages.damaged_in(&file, buffer.data_mut(), offset));
            Ok((buffer.freeze(), damaged.unwrap_or_default()))
        })
        .await?;
        self.look_at(&bytes, &damaged).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let length = bytes.len() as u64;
        self.of.context.count_read(length);
        self.offset += length;
        Ok(Some((Extent::Data(bytes), self)))
    }

    async fn look_at(&self, bytes: &Bytes, damaged: &[u32]) -> Result<()> {
        match &self.of.check {
            Check::Nothing => {}
            Check::Pages(pages, damage) => {
                damage.report(&self.of.path, pages, damaged, &self.of.context).await;
            }
            Check::Wal(expected) => {
                let damaged = |why| Error::WalDamaged { segment: expected.name(), why };
                if bytes.is_empty() {
                    return Err(damaged("it is cut short".into()));
                }
                expected.check(self.offset, bytes).map_err(damaged)?;
            }
        }
        Ok(())
    }
}

/// Reads until `capacity` bytes are there or the file ends.
fn fill(file: &File, into: &mut Vec<u8>, capacity: usize, offset: u64) -> std::io::Result<()> {
    into.clear();
    while into.len() < capacity {
        let at = offset + into.len() as u64;
        match rustix::io::pread(file, spare_capacity(into), at) {
            Ok(0) => break,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocation may be larger than what was asked for.
    into.truncate(capacity);
    Ok(())
}
