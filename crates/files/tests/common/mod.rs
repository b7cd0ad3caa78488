//! What the tests of this crate share: trees, and a look at them that does without the crate.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Collecting, Context, EntryPath, Result, Sink, Source, Summary, TransferOptions, transfer,
};
use lifeboat_files::{FilesSink, FilesSource, SinkOptions, SourceOptions};

pub(crate) fn path(text: &str) -> EntryPath {
    EntryPath::new(text).unwrap()
}

pub(crate) fn source(folder: &Path) -> FilesSource {
    FilesSource::new("tree", folder, &SourceOptions::default()).unwrap()
}

pub(crate) fn sink(folder: &Path) -> FilesSink {
    FilesSink::new(folder, SinkOptions::default())
}

/// A transfer, with the warnings that came.
pub(crate) async fn copy(
    from: &dyn Source,
    to: &dyn Sink,
) -> (Result<Summary>, Vec<(String, String)>) {
    let observer = Arc::new(Collecting::new());
    let context = Context::new(observer.clone());
    let summary = transfer(from, to, &TransferOptions::default(), &context).await;
    (summary, observer.warnings())
}

/// A transfer that has to work without a warning.
pub(crate) async fn clean_copy(from: &dyn Source, to: &dyn Sink) -> Summary {
    let (summary, warnings) = copy(from, to).await;
    let summary = summary.unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    summary
}

/// Reads a tree into memory.
pub(crate) async fn snapshot(folder: &Path) -> MemoryStore {
    let store = MemoryStore::new("snapshot");
    clean_copy(&source(folder), &store).await;
    store
}

/// Everything that can be seen of a file, by other means than those of the crate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: &'static str,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) modified: (i64, i64),
    pub(crate) content: Vec<u8>,
    pub(crate) node: u64,
    /// Which other path is the same file, if one that is seen before it is.
    pub(crate) same_as: Option<PathBuf>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Everything beneath a folder, and the folder itself.
pub(crate) fn look(folder: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut inodes: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(at) = todo.pop() {
        let metadata = at.symlink_metadata().unwrap();
        let kind = metadata.file_type();
        let name = at.strip_prefix(folder).unwrap().to_owned();
        if kind.is_dir() {
            let mut names: Vec<_> =
                std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort_by(|a, b| b.as_os_str().as_bytes().cmp(a.as_os_str().as_bytes()));
            todo.extend(names);
        }
        let (kind, content) = if kind.is_dir() {
            ("directory", Vec::new())
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&at).unwrap();
            ("symlink", target.as_os_str().as_bytes().to_vec())
        } else if kind.is_file() {
            ("file", std::fs::read(&at).unwrap())
        } else if kind.is_fifo() {
            ("fifo", Vec::new())
        } else if kind.is_socket() {
            ("socket", Vec::new())
        } else {
            ("device", Vec::new())
        };
        let same_as = match inodes.get(&metadata.ino()) {
            Some(first) => Some(first.clone()),
            None => {
                inodes.insert(metadata.ino(), name.clone());
                None
            }
        };
        let is_device = kind == "device";
        let this = Seen {
            kind,
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            content,
            node: if is_device { metadata.rdev() } else { 0 },
            same_as,
            xattrs: xattrs(&at),
        };
        seen.insert(name, this);
    }
    seen
}

fn xattrs(at: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 65_536];
    let Ok(length) = rustix::fs::llistxattr(at, &mut names[..]) else {
        return Vec::new();
    };
    let names = names[..length].split(|byte| *byte == 0);
    let mut xattrs: Vec<_> = names
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65_536];
            let length = rustix::fs::lgetxattr(at, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect();
    xattrs.sort();
    xattrs
}

/// Says which paths differ, without printing their content.
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (look(one), look(other));
    let names = |seen: &BTreeMap<PathBuf, Seen>| seen.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
    for (name, seen) in &one {
        let mut found = Vec::new();
        let got = &other[name];
        if seen.content != got.content {
            found.push("content".to_owned());
        }
        let rest = |seen: &Seen| {
            let same_as = seen.same_as.clone();
            (
                seen.kind,
                seen.mode,
                seen.owner,
                seen.modified,
                seen.node,
                same_as,
                seen.xattrs.clone(),
            )
        };
        if rest(seen) != rest(got) {
            found.push(format!("{:?} became {:?}", rest(seen), rest(got)));
        }
        assert!(found.is_empty(), "{}: {found:?}", name.display());
    }
}
