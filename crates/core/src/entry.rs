//! A named item of a snapshot.

use crate::attributes::Attributes;
use crate::content::Content;
use crate::path::EntryPath;

/// What an entry is. Stores that are not file systems use [`EntryKind::Directory`] for what
/// contains and [`EntryKind::File`] for what has content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Contains other entries; has no content.
    Directory,
    /// Has content.
    File,
    /// A symbolic link; its target is an attribute.
    Symlink,
    /// Another name of an entry that comes earlier in the same snapshot; which one is an
    /// attribute.
    HardLink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A Unix socket.
    Socket,
}

impl EntryKind {
    /// A stable lower-case word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File => "file",
            Self::Symlink => "symlink",
            Self::HardLink => "hardlink",
            Self::Fifo => "fifo",
            Self::CharDevice => "char_device",
            Self::BlockDevice => "block_device",
            Self::Socket => "socket",
        }
    }
}

/// How content changes from one snapshot to the next, so that it can be cut to deduplicate well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// Bytes may be inserted anywhere: cut where the content says so.
    #[default]
    Stream,
    /// A stream of small records, of which some are changed, added or removed from one snapshot to
    /// the next, all over: cut where the content says so, into far smaller pieces.
    Records,
    /// Pages of this many bytes (a power of two from 512 to 1 MiB) are rewritten in place and
    /// never shift: cut on that grid, and compare page by page.
    Pages(u32),
}

/// An entry on its way from a source to a sink.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub path: EntryPath,
    /// What it is.
    pub kind: EntryKind,
    /// What is known of it.
    pub attributes: Attributes,
    /// How its content changes.
    pub layout: Layout,
    /// How many bytes the content is expected to have. The content itself has the last word.
    pub size: u64,
    /// Its content; empty for everything but [`EntryKind::File`].
    pub content: Content,
}

impl Entry {
    /// An entry without content.
    pub fn new(path: EntryPath, kind: EntryKind, attributes: Attributes) -> Self {
        let (layout, content) = (Layout::Stream, Content::empty());
        Self { path, kind, attributes, layout, size: 0, content }
    }

    /// A directory without attributes.
    pub fn directory(path: EntryPath) -> Self {
        Self::new(path, EntryKind::Directory, Attributes::new())
    }

    /// A file whose content is at hand.
    pub fn file(path: EntryPath, attributes: Attributes, bytes: impl Into<bytes::Bytes>) -> Self {
        let bytes = bytes.into();
        let size = bytes.len() as u64;
        Self::new(path, EntryKind::File, attributes).with_content(size, Content::bytes(bytes))
    }

    /// Sets the content, expected to have `size` bytes.
    #[must_use]
    pub fn with_content(mut self, size: u64, content: Content) -> Self {
        self.size = size;
        self.content = content;
        self
    }

    /// Sets how the content changes.
    #[must_use]
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }
}

/// An entry without its content: what a listing shows and what a baseline answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryInfo {
    /// Its name.
    pub path: EntryPath,
    /// What it is.
    pub kind: EntryKind,
    /// What is known of it.
    pub attributes: Attributes,
    /// How its content changes.
    pub layout: Layout,
    /// How many bytes its content has.
    pub size: u64,
}
