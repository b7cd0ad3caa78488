//! What a restore has to do at its end: hard links, and the attributes of directories, which
//! must not be set while entries are still made in them.
//!
//! The notes lie in the marker file; in memory there are sixteen bytes for each.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use lifeboat_core::EntryPath;

use crate::attributes::Wanted;
use crate::marker::Marker;

/// So much is gathered before it is written.
const GATHERED: usize = 64 * 1024;

/// Something to be done at the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// `path` becomes another name of `target`.
    Link { path: EntryPath, target: EntryPath },
    /// The directory gets these attributes.
    Directory { path: EntryPath, wanted: Wanted },
}

/// Where a note lies, and the ordinal of the entry that it is of.
type Place = (u64, u64);

#[derive(Debug)]
pub(crate) struct Notes {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How much of the file is written; `pending` comes behind it.
    end: u64,
    pending: Vec<u8>,
    links: Vec<Place>,
    directories: Vec<Place>,
}

impl Notes {
    /// Notes behind what the marker says.
    pub(crate) fn new(marker: &Marker) -> std::io::Result<Self> {
        let state = State { end: marker.end, ..State::default() };
        Ok(Self { file: marker.file.try_clone()?, state: Mutex::new(state) })
    }

    /// Adds a note of the entry `ordinal`. Blocks now and then.
    pub(crate) fn add(&self, ordinal: u64, note: &Note) -> std::io::Result<()> {
        let record = encode(note);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (ordinal, state.end + state.pending.len() as u64);
        match note {
            Note::Link { .. } => state.links.push(place),
            Note::Directory { .. } => state.directories.push(place),
        }
        put_bytes(&mut state.pending, &record);
        if state.pending.len() >= GATHERED {
            self.flush(&mut state)?;
        }
        Ok(())
    }

    fn flush(&self, state: &mut State) -> std::io::Result<()> {
        self.file.write_all_at(&state.pending, state.end)?;
        state.end += state.pending.len() as u64;
        state.pending.clear();
        Ok(())
    }

    /// Ends the noting, and tells where the notes are: links in the order of their entries,
    /// directories in the opposite one, so that a directory comes after all that it holds.
    pub(crate) fn end(&self) -> std::io::Result<(Vec<u64>, Vec<u64>)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush(&mut state)?;
        let offsets = |mut places: Vec<Place>| {
            places.sort_unstable();
            places.into_iter().map(|(_, offset)| offset).collect()
        };
        let links: Vec<u64> = offsets(std::mem::take(&mut state.links));
        let mut directories: Vec<u64> = offsets(std::mem::take(&mut state.directories));
        directories.reverse();
        Ok((links, directories))
    }

    /// The note at `offset`, or `None` when the file was changed by somebody else.
    pub(crate) fn read(&self, offset: u64) -> std::io::Result<Option<Note>> {
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, offset)?;
        let left = self.file.metadata()?.len().saturating_sub(offset + 4);
        let length = u64::from(u32::from_le_bytes(length));
        if length > left {
            return Ok(None);
        }
        let mut record = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut record, offset + 4)?;
        Ok(decode(&record))
    }
}

const LINK: u8 = 1;
const DIRECTORY: u8 = 2;

fn encode(note: &Note) -> Vec<u8> {
    let mut record = Vec::with_capacity(128);
    match note {
        Note::Link { path, target } => {
            record.push(LINK);
            put_bytes(&mut record, path.as_bytes());
            put_bytes(&mut record, target.as_bytes());
        }
        Note::Directory { path, wanted } => {
            record.push(DIRECTORY);
            put_bytes(&mut record, path.as_bytes());
            put_number(&mut record, wanted.owner.map(|(uid, _)| uid.into()));
            put_number(&mut record, wanted.owner.map(|(_, gid)| gid.into()));
            put_number(&mut record, wanted.mode.map(i64::from));
            put_number(&mut record, wanted.modified);
            for (name, value) in &wanted.xattrs {
                put_bytes(&mut record, name);
                put_bytes(&mut record, value);
            }
        }
    }
    record
}

/// Lengths are those of paths and attributes, which are far below 4 GiB; a longer one is cut.
fn put_bytes(record: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&bytes[..bytes.len().min(length as usize)]);
}

fn put_number(record: &mut Vec<u8>, number: Option<i64>) {
    record.push(number.is_some().into());
    record.extend_from_slice(&number.unwrap_or(0).to_le_bytes());
}

fn decode(record: &[u8]) -> Option<Note> {
    let (kind, mut rest) = record.split_first()?;
    let rest = &mut rest;
    let path = EntryPath::new(take_bytes(rest)?).ok()?;
    match *kind {
        LINK => {
            let target = EntryPath::new(take_bytes(rest)?).ok()?;
            rest.is_empty().then_some(Note::Link { path, target })
        }
        DIRECTORY => {
            let small = |number: Option<i64>| number.map(u32::try_from).transpose().ok();
            let uid = small(take_number(rest)?)?;
            let gid = small(take_number(rest)?)?;
            let mode = small(take_number(rest)?)?;
            let modified = take_number(rest)?;
            let mut xattrs = Vec::new();
            while !rest.is_empty() {
                xattrs.push((take_bytes(rest)?.to_vec(), take_bytes(rest)?.to_vec()));
            }
            let owner = uid.zip(gid);
            let wanted = Wanted { owner, mode, modified, xattrs };
            Some(Note::Directory { path, wanted })
        }
        _ => None,
    }
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (bytes, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some(bytes)
}

/// A number that may be missing.
fn take_number(rest: &mut &[u8]) -> Option<Option<i64>> {
    let (present, behind) = rest.split_first()?;
    let (number, behind) = behind.split_first_chunk()?;
    *rest = behind;
    Some((*present == 1).then_some(i64::from_le_bytes(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text).unwrap()
    }

    fn directory(name: &str) -> Note {
        let wanted = Wanted {
            owner: Some((7, u32::MAX - 1)),
            mode: Some(0o2755),
            modified: Some(-3),
            xattrs: vec![(b"user.a".to_vec(), vec![0, 255])],
        };
        let path = path(name);
        Note::Directory { path, wanted }
    }

    #[test]
    fn notes_come_back_children_before_their_parents() {
        let marker = Marker { file: tempfile::tempfile().unwrap(), end: 100, was_there: false };
        let notes = Notes::new(&marker).unwrap();
        let link = || Note::Link { path: path("b"), target: path("a") };
        // Entries are put side by side, so a child may come first.
        notes.add(2, &directory("top/child")).unwrap();
        notes.add(9, &link()).unwrap();
        notes.add(1, &directory("top")).unwrap();
        for ordinal in 10..3000 {
            notes.add(ordinal, &directory("top/z")).unwrap();
        }
        let (links, directories) = notes.end().unwrap();
        assert_eq!(links.len(), 1);
        assert_eq!(notes.read(links[0]).unwrap(), Some(link()));
        let last = directories[directories.len() - 1];
        assert_eq!(notes.read(last).unwrap(), Some(directory("top")));
        let before = directories[directories.len() - 2];
        assert_eq!(notes.read(before).unwrap(), Some(directory("top/child")));
        assert_eq!(notes.read(directories[0]).unwrap(), Some(directory("top/z")));
    }

    #[test]
    fn damaged_notes_are_no_notes() {
        let record = encode(&directory("a"));
        for length in 0..record.len() {
            if let Some(Note::Directory { wanted, .. }) = decode(&record[..length]) {
                // Cut behind the numbers, before the extended attributes.
                assert!(wanted.xattrs.is_empty());
            }
        }
        assert_eq!(decode(&record), Some(directory("a")));
        assert_eq!(decode(&[3; 40]), None);
    }
}
