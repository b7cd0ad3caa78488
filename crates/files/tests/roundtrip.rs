//! A tree comes back as it was, whatever it holds.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{assert_same, clean_copy, look, sink, snapshot};
use lifeboat_core::local::Root;
use lifeboat_core::{EntryKind, EntryPath};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Kind {
    Directory,
    File(Vec<Piece>),
    Symlink(Vec<u8>),
    /// Another name of the file made last.
    HardLink,
    Fifo,
    Socket,
}

#[derive(Debug, Clone)]
enum Piece {
    Bytes(u8, usize),
    Hole(u64),
}

#[derive(Debug, Clone)]
struct Node {
    /// Which of the directories made so far holds it.
    above: prop::sample::Index,
    name: Vec<u8>,
    kind: Kind,
    mode: u32,
    modified: i64,
    xattrs: Vec<(String, Vec<u8>)>,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let odd = prop::sample::select(vec![
        b"-".to_vec(),
        b"...".to_vec(),
        b"a b\n\t".to_vec(),
        b"\xff\xfe".to_vec(),
        "日本".into(),
        b"\\".to_vec(),
        b"*?".to_vec(),
        vec![b'x'; 255],
    ]);
    let plain = prop::collection::vec(1_u8.., 1..12).prop_map(|mut bytes| {
        bytes.retain(|byte| *byte != b'/');
        if bytes.iter().all(|byte| *byte == b'.') {
            bytes.push(b'x');
        }
        bytes
    });
    prop_oneof![1 => odd, 3 => plain, 2 => "[a-c!-]{1,3}".prop_map(String::into_bytes)]
}

fn kind() -> impl Strategy<Value = Kind> {
    let piece = prop_oneof![
        (any::<u8>(), 0..200_000_usize).prop_map(|(byte, length)| Piece::Bytes(byte, length)),
        (any::<u8>(), 0..100_usize).prop_map(|(byte, length)| Piece::Bytes(byte, length)),
        (0..3_000_000_u64).prop_map(Piece::Hole),
    ];
    prop_oneof![
        3 => Just(Kind::Directory),
        5 => prop::collection::vec(piece, 0..4).prop_map(Kind::File),
        1 => name().prop_map(Kind::Symlink),
        1 => Just(Kind::HardLink),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Socket),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    let xattrs = prop::collection::vec(
        ("user\\.[a-z]{1,8}", prop::collection::vec(any::<u8>(), 0..300)),
        0..3,
    );
    (
        any::<prop::sample::Index>(),
        name(),
        kind(),
        0..0o10_000_u32,
        -2_000_000_000_000_000_000_i64..4_000_000_000_000_000_000,
        xattrs,
    )
        .prop_map(|(above, name, kind, mode, modified, xattrs)| Node {
            above,
            name,
            kind,
            mode,
            modified,
            xattrs,
        })
}

/// Makes the nodes; those whose name is taken are left out.
fn plant(folder: &Path, nodes: &[Node]) {
    let root = Root::open(folder).unwrap();
    let mut directories = vec![PathBuf::new()];
    let mut last_file: Option<PathBuf> = None;
    let mut made = Vec::new();
    for node in nodes {
        let at = directories[node.above.index(directories.len())]
            .join(std::ffi::OsStr::from_bytes(&node.name));
        let full = folder.join(&at);
        if full.symlink_metadata().is_ok() {
            continue;
        }
        let entry = EntryPath::new(at.as_os_str().as_bytes()).unwrap();
        match &node.kind {
            Kind::Directory => {
                std::fs::create_dir(&full).unwrap();
                directories.push(at.clone());
            }
            Kind::File(pieces) => {
                write(&full, pieces);
                last_file = Some(full);
            }
            Kind::Symlink(target) => {
                symlink(std::ffi::OsStr::from_bytes(target), &full).unwrap();
            }
            Kind::HardLink => match &last_file {
                Some(existing) => std::fs::hard_link(existing, &full).unwrap(),
                None => continue,
            },
            Kind::Fifo => root.make_node(&entry, EntryKind::Fifo, 0o600, 0).unwrap(),
            Kind::Socket => root.make_node(&entry, EntryKind::Socket, 0o600, 0).unwrap(),
        }
        made.push((entry, node));
    }
    // Children first, so that modes and times stay.
    for (entry, node) in made.iter().rev() {
        if matches!(node.kind, Kind::Directory | Kind::File(_)) {
            for (name, value) in &node.xattrs {
                // A test may run on a file system without them.
                let _ = root.set_xattr(entry, name.as_bytes(), value);
            }
        }
        if !matches!(node.kind, Kind::Symlink(_)) {
            let all = if matches!(node.kind, Kind::Directory) { 0o700 } else { 0o400 };
            root.set_mode(entry, node.mode | all).unwrap();
        }
        root.set_modified(entry, node.modified).unwrap();
    }
}

fn write(at: &Path, pieces: &[Piece]) {
    let mut file = File::create_new(at).unwrap();
    let mut end = 0;
    for piece in pieces {
        match piece {
            Piece::Bytes(byte, length) => {
                file.write_all(&vec![*byte; *length]).unwrap();
                end += *length as u64;
            }
            Piece::Hole(length) => {
                end += length;
                file.seek(SeekFrom::Start(end)).unwrap();
            }
        }
    }
    file.set_len(end).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_tree_comes_back(nodes in prop::collection::vec(node(), 0..40)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let (tree, target) = (folder.path().join("tree"), folder.path().join("target"));
            std::fs::create_dir(&tree).unwrap();
            plant(&tree, &nodes);
            let store = snapshot(&tree).await;
            let restore = clean_copy(&store, &sink(&target)).await;
            assert_eq!(restore.progress.entries + 1, look(&target).len() as u64);
            // A memory store gives its own completion: the top's attributes need a real one.
            clean_top(&tree, &target);
            assert_same(&tree, &target);
        });
    }
}

/// Makes the tops alike, where the snapshot does not say what the top was like.
fn clean_top(tree: &Path, target: &Path) {
    let metadata = tree.metadata().unwrap();
    std::fs::set_permissions(target, std::fs::Permissions::from_mode(metadata.mode() & 0o7777))
        .unwrap();
    let modified = metadata.modified().unwrap();
    File::open(target).unwrap().set_modified(modified).unwrap();
}

#[tokio::test]
async fn straight_from_tree_to_tree_the_top_comes_too() {
    let folder = tempfile::tempdir().unwrap();
    let (tree, target) = (folder.path().join("tree"), folder.path().join("target"));
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), "content").unwrap();
    std::fs::set_permissions(&tree, std::fs::Permissions::from_mode(0o2751)).unwrap();
    let root = Root::open(&tree).unwrap();
    root.set_top_modified(1_234_567_890_123_456_789).unwrap();
    clean_copy(&common::source(&tree), &sink(&target)).await;
    assert_same(&tree, &target);
}

#[tokio::test]
async fn a_sparse_file_stays_sparse() {
    let folder = tempfile::tempdir().unwrap();
    let (tree, target) = (folder.path().join("tree"), folder.path().join("target"));
    std::fs::create_dir(&tree).unwrap();
    let pieces = [Piece::Hole(1 << 30), Piece::Bytes(7, 100_000), Piece::Hole(1 << 30)];
    write(&tree.join("image"), &pieces);
    let summary = clean_copy(&common::source(&tree), &sink(&target)).await;
    assert!(summary.progress.read < 1 << 20);
    let metadata = target.join("image").metadata().unwrap();
    assert_eq!(metadata.len(), (2 << 30) + 100_000);
    assert!(metadata.blocks() * 512 < 1 << 20, "{}", metadata.blocks());
}

#[tokio::test]
async fn device_nodes_come_back_for_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (tree, target) = (folder.path().join("tree"), folder.path().join("target"));
    std::fs::create_dir(&tree).unwrap();
    let root = Root::open(&tree).unwrap();
    let null = rustix::fs::makedev(1, 3);
    let name = common::path("null");
    if root.make_node(&name, EntryKind::CharDevice, 0o666, null).is_err() {
        // A container without the right to make them.
        return;
    }
    root.set_owner(&name, 12_345, 54_321).unwrap();
    clean_copy(&common::source(&tree), &sink(&target)).await;
    assert_same(&tree, &target);
}
