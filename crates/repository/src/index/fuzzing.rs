//! The files of the local cache, for the fuzz targets.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, io};

use super::cache::{Cache, CacheDirectory};
use super::file::RunFile;
use super::load::take_over;
use super::scan::Scan;
use super::state::State;
use crate::fuzzing::{Outcome, finished, keys};
use crate::id::ObjectId;

/// The keyed hash at the end of a file.
const MAC: usize = 32;

/// Files as they are written, without the hash at their ends.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let packs: Vec<_> = finished().map(|pack| pack.record).into_iter().collect();
    let file = |objects: &[(&[u8], usize)]| -> Option<Vec<u8>> {
        let scratch = tempfile::tempdir().ok()?;
        let directory = CacheDirectory::new(&Cache::Directory(scratch.path().into()), keys())?;
        let mut state = State::default();
        for (name, count) in objects {
            state.add(ObjectId::of(name), &packs[..(*count).min(packs.len())]);
        }
        let runs: Vec<_> = state.runs().cloned().collect();
        let run = directory.write(&runs, &state.sources, |number| state.packs.get(number)).ok()?;
        let mut bytes = fs::read(run.file()?.path()).ok()?;
        bytes.truncate(bytes.len().saturating_sub(MAC));
        Some(bytes)
    };
    [file(&[(b"one", 1)]), file(&[(b"one", 1), (b"two", 1)]), file(&[])]
        .into_iter()
        .flatten()
        .collect()
}

thread_local! {
    /// Where the file of this thread lies.
    static SCRATCH: io::Result<tempfile::TempDir> = tempfile::tempdir();
}

/// A file behind its hash: what is in it is looked up, and gone through.
pub(crate) fn cached(bytes: &[u8]) -> Outcome {
    let said = |error: io::Error| error.kind().to_string();
    let path: PathBuf = SCRATCH.with(|scratch| {
        scratch.as_ref().map(|dir| dir.path().join("file")).map_err(ToString::to_string)
    })?;
    let mut hasher = keys().cache_hasher();
    hasher.update(bytes);
    let whole = [bytes, hasher.finalize().as_bytes()].concat();
    fs::write(&path, whole).map_err(said)?;
    let file = RunFile::open(&path, keys().repository(), keys().cache_hasher()).map_err(said)?;
    let file = file.ok_or("it is not right")?;
    let mut state = State::default();
    let listed: HashSet<_> = file.sources().map_err(said)?.into_iter().collect();
    let run = take_over(&mut state, file, &listed).map_err(said)?.ok_or("it is of no use")?;
    state.settled.push(Arc::new(run));
    let runs = state.runs().cloned().collect();
    let mut places = 0_usize;
    for found in Scan::new(runs, state.sources.clone()) {
        let (prefix, _) = found.map_err(|error| error.to_string())?;
        places += 1;
        for run in state.runs() {
            drop(run.find(&prefix).map_err(said)?);
        }
    }
    if places > bytes.len() { Err("more places than bytes".to_owned()) } else { Ok(()) }
}
