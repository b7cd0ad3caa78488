//! A stream of extents into a file that has a former version of them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::error::failed;
use crate::content::{Content, Extent};
use crate::error::{Error, ErrorKind, Result};
use crate::path::EntryPath;

/// Bytes are compared in blocks of this size, on its grid, and written where they differ: the page
/// size of most databases and a multiple of that of most file systems.
pub const PATCH_GRAIN: usize = 8192;

/// How much is gathered for one step, so that many small extents are not as many tasks.
const BATCH: u64 = 1 << 20;

/// Zeros are written in pieces of this size.
const ZEROS: usize = 256 * PATCH_GRAIN;

/// Files that the target of a restore has from before. A source that can tell what is the same in
/// them gives that as [`Extent::Unchanged`], and need not bring it.
pub trait FormerFiles: Send + Sync + std::fmt::Debug {
    /// Opens the file that the content of the entry at `path` will be written into, when it is
    /// there from before. Blocks.
    fn open(&self, path: &EntryPath) -> Option<File>;
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Patched {
    /// How many bytes it has.
    pub length: u64,
    /// How many of them were written.
    pub written: u64,
}

/// Makes `file`, which is open for reading and writing, hold just `content`. Only blocks of
/// [`PATCH_GRAIN`] bytes that differ are written. `name` is what people know the file by.
///
/// [`Extent::Unchanged`] stands for what the file holds there. The next extents are pulled while
/// the last ones are written; nothing is durable yet, see the [module](super).
///
/// # Errors
/// Those of the content, as they are; those of the file, with its name;
/// [`ErrorKind::InvalidInput`] when the content refers to bytes that the file does not have.
pub async fn patch_file(
    file: impl Into<Arc<File>>,
    name: impl Into<Arc<str>>,
    mut content: Content,
) -> Result<Patched> {
    let mut patch =
        Patch { file: file.into(), name: name.into(), at: 0, written: 0, working: None };
    let former = patch.run(|file| Ok(file.metadata()?.len())).await?;
    loop {
        let (extents, whole) = pull(&mut content).await?;
        patch.settle().await?;
        let mut at = patch.at;
        let begin = at;
        for extent in &extents {
            at = at
                .checked_add(extent.len())
                .filter(|end| i64::try_from(*end).is_ok())
                .ok_or_else(|| {
                    Error::new(ErrorKind::InvalidInput, "the content is longer than a file can be")
                })?;
            if matches!(extent, Extent::Unchanged(_)) && at > former {
                let what = format!("the content refers to bytes that {} does not have", patch.name);
                return Err(Error::new(ErrorKind::InvalidInput, what));
            }
        }
        patch.at = at;
        let file = Arc::clone(&patch.file);
        patch.working =
            Some(tokio::task::spawn_blocking(move || apply(&file, begin, former, &extents)));
        if whole {
            patch.settle().await?;
            let length = patch.at;
            patch.run(move |file| file.set_len(length)).await?;
            return Ok(Patched { length, written: patch.written });
        }
    }
}

/// The next extents, and whether they are the last ones.
async fn pull(content: &mut Content) -> Result<(Vec<Extent>, bool)> {
    let (mut extents, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH {
        let Some(extent) = content.next().await? else {
            return Ok((extents, true));
        };
        // What is the same costs nothing, but its source may have all of it at hand.
        bytes += match &extent {
            Extent::Data(data) => data.len() as u64,
            Extent::Hole(_) | Extent::Unchanged(_) => BATCH / 64,
        };
        extents.push(extent);
    }
    Ok((extents, false))
}

struct Patch {
    file: Arc<File>,
    name: Arc<str>,
    at: u64,
    written: u64,
    working: Option<JoinHandle<std::io::Result<u64>>>,
}

impl Patch {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let file = Arc::clone(&self.file);
        let done = tokio::task::spawn_blocking(move || work(&file)).await.map_err(panicked)?;
        done.map_err(|error| failed("write", &*self.name, error))
    }

    /// Waits for the step under way.
    async fn settle(&mut self) -> Result<()> {
        if let Some(working) = self.working.take() {
            let done = working.await.map_err(panicked)?;
            self.written += done.map_err(|error| failed("write", &*self.name, error))?;
        }
        Ok(())
    }
}

fn panicked(panic: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Other, "the writing of a file panicked").with_source(panic)
}

/// Writes what differs, and says how much that was. Blocks.
fn apply(file: &File, mut at: u64, former: u64, extents: &[Extent]) -> std::io::Result<u64> {
    let mut written = 0;
    for extent in extents {
        match extent {
            Extent::Data(bytes) => written += differing(file, at, former, bytes)?,
            Extent::Hole(length) => {
                // Beyond the former end there is nothing but zeros.
                let mut from = at;
                let end = at.saturating_add(*length).min(former);
                let zeros = vec![0; ZEROS];
                while from < end {
                    let part = usize::try_from(end - from).unwrap_or(ZEROS).min(ZEROS);
                    written += differing(file, from, former, &zeros[..part])?;
                    from += part as u64;
                }
            }
            Extent::Unchanged(_) => {}
        }
        at += extent.len();
    }
    Ok(written)
}

/// Writes the blocks of `bytes` that the file does not have at `at`. Blocks.
fn differing(file: &File, at: u64, former: u64, bytes: &[u8]) -> std::io::Result<u64> {
    let there = usize::try_from(former.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
    let mut old = vec![0; there];
    // Shorter than it was is possible only when somebody else is at work on it.
    file.read_exact_at(&mut old, at)?;
    let mut written = 0;
    let mut run: Option<usize> = None;
    let mut from = 0;
    while from < bytes.len() {
        let grid = PATCH_GRAIN - (at as usize + from) % PATCH_GRAIN;
        let to = (from + grid).min(bytes.len());
        let same = old.get(from..to).is_some_and(|old| *old == bytes[from..to]);
        match (same, run) {
            (true, Some(begin)) => {
                file.write_all_at(&bytes[begin..from], at + begin as u64)?;
                written += (from - begin) as u64;
                run = None;
            }
            (false, None) => run = Some(from),
            _ => {}
        }
        from = to;
    }
    if let Some(begin) = run {
        file.write_all_at(&bytes[begin..], at + begin as u64)?;
        written += (bytes.len() - begin) as u64;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bytes;
    use proptest::prelude::*;

    fn read(file: &File) -> Vec<u8> {
        let mut all = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut all, 0).unwrap();
        all
    }

    #[tokio::test]
    async fn only_blocks_that_differ_are_written() {
        let former: Vec<u8> = (0..100 * PATCH_GRAIN).map(|at| (at / 7) as u8).collect();
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&former, 0).unwrap();
        let mut wanted = former.clone();
        wanted[5 * PATCH_GRAIN + 17] ^= 1;
        wanted[99 * PATCH_GRAIN] ^= 1;
        let content = Content::bytes(Bytes::from(wanted.clone()));
        let done = patch_file(Arc::clone(&file), "x", content).await.unwrap();
        assert_eq!(done.written, 2 * PATCH_GRAIN as u64);
        assert_eq!(done.length, wanted.len() as u64);
        assert!(read(&file) == wanted);
    }

    #[tokio::test]
    async fn what_is_not_there_cannot_be_unchanged() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 10], 0).unwrap();
        let extents =
            Content::extents([Extent::Data(Bytes::from(vec![2; 20])), Extent::Unchanged(1)]);
        let error = patch_file(file, "x", extents).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_file_becomes_the_content(
            former in 0_usize..60_000,
            parts in proptest::collection::vec((0_u8..3, 1_u64..20_000), 0..8),
        ) {
            let old: Vec<u8> = (0..former).map(|at| (at % 251) as u8 + 1).collect();
            let mut wanted = Vec::new();
            let mut extents = Vec::new();
            for (kind, length) in parts {
                let (from, length) = (wanted.len(), length as usize);
                match kind {
                    0 if from + length <= former => {
                        wanted.extend_from_slice(&old[from..from + length]);
                        extents.push(Extent::Unchanged(length as u64));
                    }
                    1 => {
                        wanted.resize(from + length, 0);
                        extents.push(Extent::Hole(length as u64));
                    }
                    _ => {
                        let bytes: Vec<u8> = (0..length).map(|at| (at % 13) as u8).collect();
                        wanted.extend_from_slice(&bytes);
                        extents.push(Extent::Data(bytes.into()));
                    }
                }
            }
            let file = Arc::new(tempfile::tempfile().unwrap());
            file.write_all_at(&old, 0).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let content = Content::extents(extents);
            let done = runtime.block_on(patch_file(Arc::clone(&file), "x", content)).unwrap();
            prop_assert_eq!(done.length, wanted.len() as u64);
            prop_assert!(read(&file) == wanted);
        }
    }
}
