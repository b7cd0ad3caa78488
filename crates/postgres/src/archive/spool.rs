//! Segments that were fetched before the server asked for them.
//!
//! A server that recovers asks for one segment after the other, and waits for each. So a call
//! fetches what comes next as well, and leaves it in a directory outside `pg_wal`; the calls for
//! that end without asking the repository. What lies there is believed no more than what a
//! repository holds: it ends with a hash of its name and content, and its first page must be of
//! this cluster and this place. What is not so is removed, and fetched. The directory never tells
//! that a segment does not exist.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, stream};
use lifeboat_core::{Content, Extent, Result};

use super::get::write;
use super::local::{Local, blocking};
use super::name::{Bounds, WalName};
use super::{ArchiveError, WalArchive, WalLine};
use crate::wal::PAGE;

/// How many segments are fetched at once.
const AT_ONCE: usize = 4;
/// No more than these are fetched ahead, whatever their size.
const MOST_AHEAD: u64 = 64;
/// Bytes of the hash behind the content.
const HASH: u64 = 32;

/// A directory for segments that were fetched ahead, of one cluster and from one archive.
#[derive(Debug, Clone)]
pub struct Spool {
    directory: PathBuf,
    bytes: u64,
}

impl Spool {
    /// A directory, which is made when it is not there, and how many bytes of segments it may hold.
    /// What else lies in it is removed.
    pub fn new(directory: impl Into<PathBuf>, bytes: u64) -> Self {
        Self { directory: directory.into(), bytes }
    }

    /// Gives a segment to the server if it was fetched before: `false` says nothing but that it was
    /// not. `to` is beneath the data directory.
    ///
    /// # Errors
    /// When the segment is there, and cannot be written where it is wanted; when the data directory
    /// cannot be read.
    pub async fn give(&self, name: &str, to: &Path, data_directory: &Path) -> Result<bool> {
        let (spool, name) = (self.clone(), name.to_owned());
        let (to, directory) = (data_directory.join(to), data_directory.to_owned());
        blocking(move || {
            let path = spool.directory.join(&name);
            if !path.exists() {
                return Ok(false);
            }
            let local = Local::read(&directory)?;
            let Some(WalName::Segment { timeline, segment }) = WalName::parse(&name, local.size)
            else {
                return Ok(false);
            };
            let good = spool.check(&local, &path, &name, timeline, segment);
            if let Err(why) = good {
                tracing::warn!(path = %path.display(), why, "a segment that was fetched ahead is not used");
                let _ = fs::remove_file(&path);
                return Ok(false);
            }
            hand_out(&path, local.size.bytes(), &to)?;
            Ok::<_, lifeboat_core::Error>(true)
        })
        .await
    }

    /// Whether a file is what it must be; if not, why.
    fn check(
        &self,
        local: &Local,
        path: &Path,
        name: &str,
        timeline: u32,
        segment: u64,
    ) -> Result<(), String> {
        let told = |error: std::io::Error| error.to_string();
        let mut file = File::open(path).map_err(told)?;
        let length = file.metadata().map_err(told)?.len();
        if length != local.size.bytes() + HASH {
            return Err(format!("it has {length} bytes"));
        }
        let mut hasher = hasher(local.system_id, name);
        let mut buffer = vec![0; 1 << 20];
        let mut left = local.size.bytes();
        while left > 0 {
            // Segments are multiples of a MiB.
            file.read_exact(&mut buffer).map_err(told)?;
            if left == local.size.bytes() {
                local
                    .check_page(&buffer[..PAGE], timeline, segment)
                    .map_err(|error| error.to_string())?;
            }
            hasher.update(&buffer);
            left -= buffer.len() as u64;
        }
        let mut hash = [0; HASH as usize];
        file.read_exact(&mut hash).map_err(told)?;
        if hasher.finalize() != hash {
            return Err("its content was changed".to_owned());
        }
        Ok(())
    }

    /// Removes all but these.
    pub(super) async fn keep_only(&self, names: Vec<String>) {
        let directory = self.directory.clone();
        let work = move || {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let keep = |name: &str| names.iter().any(|kept| kept == name);
                // Notes of what was archived lie beside segments.
                let segment = |name: &str| name.len() >= 24 && !keep(name);
                if entry.file_name().to_str().is_some_and(segment) {
                    let _ = fs::remove_file(entry.path());
                }
            }
            Ok::<_, ArchiveError>(())
        };
        let _ = blocking(work).await;
    }
}

impl WalArchive {
    /// Fetches the segments that come after one, as far as they are there as a whole and the spool
    /// has room. That one cannot be had is told by its own call.
    pub(super) async fn fetch_ahead(
        &self,
        local: &Local,
        line: WalLine,
        segment: u64,
        spool: &Spool,
    ) {
        let count = (spool.bytes / local.size.bytes()).min(MOST_AHEAD);
        let next = segment.saturating_add(1)..segment.saturating_add(1).saturating_add(count);
        let name = |segment| local.size.name(line.timeline, segment);
        spool.keep_only(next.clone().map(name).collect()).await;
        if count == 0 {
            return;
        }
        let directory = spool.directory.clone();
        let made = blocking(move || {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(&directory).map_err(|source| {
                ArchiveError::File { what: "make", path: directory.clone(), source }
            })
        });
        if let Err(error) = made.await {
            tracing::debug!(error = error.one_line(), "nothing is fetched ahead");
            return;
        }
        let fetching = stream::iter(next).map(|segment| async move {
            let name = local.size.name(line.timeline, segment);
            let path = spool.directory.join(&name);
            if path.exists() {
                return Ok(true);
            }
            let Bounds { from, to } = Bounds::of(segment, local.size);
            let Some(content) = self.read(line, from, to).await? else {
                return Ok(false);
            };
            let content = hashed(content, hasher(local.system_id, &name));
            write(content, local.size.bytes() + HASH, &name, &path).await.map(|()| true)
        });
        let mut fetching = fetching.buffered(AT_ONCE);
        while let Some(fetched) = fetching.next().await {
            match fetched {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let error: lifeboat_core::Error = error;
                    tracing::debug!(error = error.one_line(), "no more is fetched ahead");
                    break;
                }
            }
        }
    }
}

/// A hash that knows whose segment it is.
fn hasher(system_id: u64, name: &str) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&system_id.to_le_bytes()).update(name.as_bytes());
    hasher
}

/// Content with its hash behind it.
fn hashed(content: Content, hasher: blake3::Hasher) -> Content {
    let state = (content, Some(hasher));
    Content::stream(stream::try_unfold(state, async |(mut content, hasher)| {
        let Some(mut hasher) = hasher else {
            return Ok(None);
        };
        Ok(match content.next().await? {
            Some(extent) => {
                match &extent {
                    Extent::Data(bytes) => {
                        hasher.update(bytes);
                    }
                    Extent::Hole(zeros) | Extent::Unchanged(zeros) => {
                        for at in (0..*zeros).step_by(PAGE) {
                            hasher.update(&[0; PAGE][..PAGE.min((*zeros - at) as usize)]);
                        }
                    }
                }
                Some((extent, (content, Some(hasher))))
            }
            None => {
                let hash = hasher.finalize().as_bytes().to_vec();
                Some((Extent::Data(hash.into()), (content, None)))
            }
        })
    }))
}

/// Moves a checked file to the place where it is wanted, without the hash.
fn hand_out(path: &Path, length: u64, to: &Path) -> Result<(), ArchiveError> {
    let failed = |source| ArchiveError::File {
        what: "move what was fetched ahead to",
        path: to.to_owned(),
        source,
    };
    let file = File::options().write(true).open(path).map_err(failed)?;
    file.set_len(length).and_then(|()| file.sync_all()).map_err(failed)?;
    match fs::rename(path, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            let mut beside = to.as_os_str().to_owned();
            beside.push(".lifeboat");
            let beside = PathBuf::from(beside);
            fs::copy(path, &beside)
                .and_then(|_| File::open(&beside)?.sync_all())
                .and_then(|()| fs::rename(&beside, to))
                .and_then(|()| fs::remove_file(path))
                .map_err(failed)
        }
        moved => moved.map_err(failed),
    }
}
