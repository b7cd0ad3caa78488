//! For stores that live on the local file system: a directory that cannot be left, and file
//! content read and written as extents. Linux only.
//!
//! | what | where |
//! |---|---|
//! | everything beneath one directory, whatever a snapshot says | [`Root`] |
//! | what the file system says of a file | [`Status`], [`Listed`], [`xattrs_of`], [`xattrs_at`] |
//! | a file as a stream of extents, holes included | [`read_file`] |
//! | a stream of extents into a new file | [`write_file`], or [`Head`] where small files matter |
//! | the same into a file that has a former version of it | [`patch_file`], [`FormerFiles`] |
//! | a directory for a server that runs for a while, gone with this process | [`ScratchPlace`] |
//! | an operating-system error, with the next step | [`failed`] |
//!
//! # Which thread
//!
//! Everything that is not `async` here blocks: call it from
//! [`spawn_blocking`](tokio::task::spawn_blocking) or from a thread of your own, never from a
//! worker of the runtime. [`read_file`] and [`write_file`] see to that themselves.
//!
//! # What is durable when
//!
//! Nothing here is durable by itself. A sink that restores many files calls
//! [`Root::sync_file_system`] once, at its commit: one flush of the file system costs far less
//! than an `fsync` for each of them, and it reports write errors since the root was opened. A sink
//! that must have one file durable before the rest calls [`File::sync_all`](std::fs::File::sync_all)
//! on it and [`Root::sync_dir`] on its directory.

mod attributes;
mod error;
mod patch;
mod read;
mod root;
mod scratch;
mod status;
mod tree;
mod write;

pub use attributes::{set_modified, xattrs_at, xattrs_of};
pub use error::failed;
pub use patch::{FormerFiles, PATCH_GRAIN, Patched, patch_file};
pub use read::{HOLE_GRAIN, read_file};
pub use root::Root;
pub use scratch::{Ending, ScratchPlace, ScratchPlaceError, ScratchPlaceOptions};
pub use status::Status;
pub use tree::Listed;
pub use write::{Head, write_file};
