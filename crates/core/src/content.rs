//! The content of an entry: a stream of extents.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use crate::error::Result;

/// A stretch of content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// These bytes. Best between 256 KiB and 4 MiB; never empty.
    Data(Bytes),
    /// The same bytes as in the baseline, at this path and this offset: `n` of them.
    ///
    /// Only a reading that was opened with a baseline may say so.
    Unchanged(u64),
    /// A hole of a sparse file: reads as `n` zero bytes, and takes no room.
    Hole(u64),
}

impl Extent {
    /// How many bytes of content it stands for.
    pub fn len(&self) -> u64 {
        match self {
            Self::Data(bytes) => bytes.len() as u64,
            Self::Unchanged(length) | Self::Hole(length) => *length,
        }
    }

    /// Whether it stands for nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The content of an entry, read once, from the first byte to the last.
///
/// Nothing is read before the first [`Content::next`]; dropping it stops the reading.
pub struct Content(Inner);

enum Inner {
    Ready(VecDeque<Extent>),
    Stream(Pin<Box<dyn Stream<Item = Result<Extent>> + Send>>),
}

impl Content {
    /// No bytes.
    pub fn empty() -> Self {
        Self(Inner::Ready(VecDeque::new()))
    }

    /// Bytes at hand.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::extents([Extent::Data(bytes.into())])
    }

    /// The first `length` bytes of the baseline's content at this path.
    pub fn unchanged(length: u64) -> Self {
        Self::extents([Extent::Unchanged(length)])
    }

    /// Extents at hand. Empty ones are left out.
    pub fn extents(extents: impl IntoIterator<Item = Extent>) -> Self {
        Self(Inner::Ready(extents.into_iter().filter(|extent| !extent.is_empty()).collect()))
    }

    /// Extents as they come.
    pub fn stream(stream: impl Stream<Item = Result<Extent>> + Send + 'static) -> Self {
        Self(Inner::Stream(Box::pin(stream)))
    }

    /// Whether all of it is in memory already, so that reading it waits for nothing.
    pub fn is_ready(&self) -> bool {
        matches!(self.0, Inner::Ready(_))
    }

    /// Whether it is known, without reading, that nothing follows.
    pub fn is_exhausted(&self) -> bool {
        matches!(&self.0, Inner::Ready(extents) if extents.is_empty())
    }

    /// The next extent, or `None` after the last one.
    ///
    /// # Errors
    /// What the source met while reading. After an error the content must not be used.
    pub async fn next(&mut self) -> Result<Option<Extent>> {
        match &mut self.0 {
            Inner::Ready(extents) => Ok(extents.pop_front()),
            Inner::Stream(stream) => loop {
                match stream.next().await.transpose()? {
                    Some(extent) if extent.is_empty() => {}
                    other => return Ok(other),
                }
            },
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Ready(extents) => write!(f, "Content({} extents)", extents.len()),
            Inner::Stream(_) => f.write_str("Content(stream)"),
        }
    }
}
