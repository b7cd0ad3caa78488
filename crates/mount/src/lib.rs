//! Snapshots as a read-only file system.
//!
//! [`mount()`] shows a repository's snapshots in a directory, through FUSE:
//!
//! ```text
//! files/etc/2026-11-20T15-30-00Z-3f2a91bc/ssh/sshd_config
//! files/etc/latest -> 2026-11-20T15-30-00Z-3f2a91bc
//! ```
//!
//! # How it works
//!
//! Nothing is read before somebody asks. An inode number *is* the place of an entry: the number of
//! its snapshot, and the number of the entry within it, which the counts in the pages of the tree
//! lead to (`Node`). So no table of inodes grows with what was looked at, and a
//! number means the same as long as the mount lives. A directory is listed by seeking from member
//! to member. Files are read chunk by chunk, every byte checked; whoever reads on where he stopped
//! gets the next chunks fetched ahead.
//!
//! Memory: about 30 MiB for each of the last eight snapshots that were looked into, and the chunks
//! that open files are ahead.
//!
//! # What is shown
//!
//! Modes, owners, times, link targets and extended attributes as they were recorded; set-id bits
//! are shown and have no effect, device nodes are shown and cannot be opened. Hard links are the
//! file that they name. Only who mounts can look into it, as he holds the key;
//! [`Access::Everybody`] lets others in, and then modes and owners decide.
//!
//! What is damaged gives `EIO`, and a warning with the path.
//!
//! The snapshots are those there were at the time of the mount.

mod attributes;
mod directory;
mod error;
mod file;
mod filesystem;
mod layout;
mod mount;
mod node;
mod view;

pub use error::{Error, Result};
pub use mount::{Access, Mount, MountOptions, mount};
