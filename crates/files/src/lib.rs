//! File trees, volumes and configuration as a store of Lifeboat.
//!
//! [`FilesSource`] reads a tree with every attribute that a file system keeps; [`FilesSink`]
//! restores one. Both are used through [`lifeboat_core::transfer()`]. Linux only.
//!
//! ```
//! use lifeboat_core::memory::MemoryStore;
//! use lifeboat_core::{Context, TransferOptions, transfer};
//! use lifeboat_files::{FilesSink, FilesSource, SinkOptions, SourceOptions};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let (site, restored) = (folder.path().join("site"), folder.path().join("restored"));
//! std::fs::create_dir(&site)?;
//! std::fs::write(site.join("index.html"), "welcome")?;
//! std::fs::write(site.join("draft.tmp"), "not this one")?;
//!
//! // Here the snapshot is kept in memory; a repository takes its place.
//! let snapshot = MemoryStore::new("snapshot");
//! let options = TransferOptions::default();
//!
//! let mut what = SourceOptions::default();
//! what.exclude = vec!["*.tmp".into()];
//! let source = FilesSource::new("site", &site, &what)?;
//! transfer(&source, &snapshot, &options, &Context::silent()).await?;
//!
//! let sink = FilesSink::new(&restored, SinkOptions::default());
//! let summary = transfer(&snapshot, &sink, &options, &Context::silent()).await?;
//! assert_eq!(summary.progress.entries, 1);
//! assert_eq!(std::fs::read(restored.join("index.html"))?, b"welcome");
//! # Ok(()) }
//! ```
//!
//! # What is kept
//!
//! | what | how |
//! |---|---|
//! | regular files | content, holes of 32 KiB and more as holes |
//! | directories, symbolic links, named pipes, sockets, device nodes | as they are; what a link points to is never followed |
//! | hard links | the first name in the order of paths has the content, the others name it |
//! | owner and group | number, and name where `/etc/passwd` and `/etc/group` have it |
//! | mode with set-id bits, time of last change to the nanosecond | |
//! | extended attributes | all that the user may read: access control lists and capabilities are among them |
//! | names | byte for byte; they need not be UTF-8 |
//! | the top of the tree | its owner, mode, time and extended attributes, as facts of the snapshot |
//!
//! Not kept: access and birth times, flags set by `chattr`, and quotas.
//!
//! # What is not read again
//!
//! A file whose size, time of last change, change time and inode are those of the last snapshot is
//! not opened. Nobody can set a change time back; but two changes within one tick of the clock
//! leave the same one, so a file that changed less than two seconds before the last backup began
//! is read again.
//!
//! # Files that move while they are read
//!
//! A tree is read while people work in it. What happens then, is said by
//! [`Context::warn`](lifeboat_core::Context::warn), and the command line ends with 3:
//!
//! - A file that changed between the first and the last look at it: what was read is in the
//!   snapshot, as long as it was when read. Small files are read again, up to three times, first.
//! - A file or directory that vanished, or cannot be read: it is left out.
//! - A large file of which a part cannot be read (a fault of the disk): the backup fails, since
//!   a part must not pass for the whole. Exclude the file, or mend the disk.
//! - Extended attributes that cannot be read are left out.
//!
//! # What is promised of a restore
//!
//! - It stays beneath its target, whatever the snapshot says: no link is ever followed, nothing
//!   is opened but beneath the target's descriptor, and nothing that is there is written to.
//! - It refuses a target that is not empty, unless told to replace what is there.
//! - A target that is not whole says so: the file `.lifeboat-incomplete` lies at its top from
//!   before the first entry until all of them are durable (one flush of the file system). A
//!   restore that fails removes what it made; one that is killed leaves the file. A tree with that
//!   file is neither backed up nor restored into.
//! - Attributes that cannot be set are warnings: the content is there. Who is not root cannot give
//!   files to others; then set-id bits are left out as well.
//!
//! # Memory
//!
//! The walk keeps the names of the directories it is in, the path of one name of each file with
//! several names until the last of them, and a few hundred entries ahead of the sink. Content
//! comes from the transfer's budget. A restore keeps 16 bytes for each directory and hard link;
//! the rest of what it has to remember lies in the marker file.

#![cfg(target_os = "linux")]

mod accounts;
mod attributes;
mod error;
mod exclude;
mod gather;
mod known;
mod marker;
mod notes;
mod restorer;
mod sink;
mod source;
mod target;
mod walk;
mod writing;

pub use error::Error;
pub use sink::{Existing, FilesSink, Owners, SinkOptions, State};
pub use source::{FileSystems, FilesSource, KIND, SourceOptions};
