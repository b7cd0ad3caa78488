//! Real mounts, where this machine can make them.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lifeboat_core::{Collecting, Context, SnapshotId, TransferOptions, transfer};
use lifeboat_files::{FilesSource, SourceOptions};
use lifeboat_mount::{Access, Error, Mount, MountOptions, mount};
use lifeboat_repository::{InitOptions, KdfCost, Repository, Secret, WriteOptions};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

/// A repository in memory with a snapshot of a tree, and a place to mount it on.
struct Scene {
    store: Arc<InMemory>,
    repository: Repository,
    folder: tempfile::TempDir,
    observer: Arc<Collecting>,
    context: Context,
}

impl Scene {
    async fn new() -> Self {
        let store = Arc::new(InMemory::new());
        let mut options = InitOptions::default();
        options.cost = KdfCost { memory_kib: 64, passes: 1, lanes: 1 };
        let place: Arc<dyn ObjectStore> = store.clone();
        let secret = Secret::passphrase("correct horse battery staple");
        let repository = Repository::init(place, &secret, &options).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tree")).unwrap();
        fs::create_dir(folder.path().join("mount")).unwrap();
        let observer = Arc::new(Collecting::new());
        let context = Context::new(observer.clone());
        Self { store, repository, folder, observer, context }
    }

    fn tree(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join("tree").join(name)
    }

    fn mounted(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join("mount").join(name)
    }

    async fn back_up(&self) -> SnapshotId {
        let source = FilesSource::new("t", self.tree(""), &SourceOptions::default()).unwrap();
        let sink = self.repository.sink(&WriteOptions::default());
        let done = transfer(&source, &sink, &TransferOptions::default(), &Context::silent()).await;
        done.unwrap().receipt.snapshot.unwrap()
    }

    /// None, and a reason on standard error, where the machine cannot mount.
    async fn mount(&self) -> Option<Mount> {
        let options = MountOptions::default();
        match mount(&self.repository, &self.mounted(""), &options, &self.context).await {
            Ok(mount) => Some(mount),
            Err(error @ Error::Mount { .. }) if !can_mount() => {
                // Past what the test harness would hide.
                let reason = lifeboat_core::Error::from(error).one_line();
                let _ = writeln!(io::stderr(), "SKIPPED, nothing was mounted here: {reason}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Whether the machine has what a mount takes.
fn can_mount() -> bool {
    let device = fs::File::options().read(true).write(true).open("/dev/fuse");
    let helper = Command::new("fusermount3").arg("-V").output();
    let capable = fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        // CAP_SYS_ADMIN
        mask.is_some_and(|mask| mask >> 21 & 1 == 1)
    });
    device.is_ok() && (capable || helper.is_ok())
}

/// Runs what blocks on another thread: the mount is served by this runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn run(program: &str, arguments: &[&OsStr]) -> (String, String, Option<i32>) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mounted_snapshot_is_the_tree_that_was_backed_up() {
    let scene = Scene::new().await;
    fs::create_dir_all(scene.tree("many/deeper/still")).unwrap();
    for number in 0..700 {
        fs::write(scene.tree(format!("many/file-{number}")), number.to_string()).unwrap();
    }
    let large = noise(9_000_000);
    fs::write(scene.tree("large"), &large).unwrap();
    let sparse = fs::File::create(scene.tree("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    sparse.write_all_at(b"end", 49_999_990).unwrap();
    fs::write(scene.tree(OsStr::from_bytes(b"odd \xff\n")), "odd").unwrap();
    fs::set_permissions(scene.tree("large"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("nowhere/\u{e9}", scene.tree("link")).unwrap();
    fs::hard_link(scene.tree("large"), scene.tree("many/other-name")).unwrap();
    let id = scene.back_up().await;
    let Some(mounted) = scene.mount().await else { return };
    assert_eq!(mounted.snapshots(), 1);

    let (tree, latest) = (scene.tree(""), scene.mounted("files/t/latest"));
    // `diff` would compare the link.
    let top = blocking(move || fs::canonicalize(latest).unwrap()).await;
    let (original, shown) = (tree.clone(), top.clone());
    let list = |dir: PathBuf| {
        let mut names = Vec::new();
        let mut left = vec![dir.clone()];
        while let Some(at) = left.pop() {
            for entry in fs::read_dir(&at).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                }
                let meta = entry.path().symlink_metadata().unwrap();
                let (mode, owner) = (meta.mode(), (meta.uid(), meta.gid()));
                let size = if meta.is_dir() { 0 } else { meta.size() };
                let time = (meta.mtime(), meta.mtime_nsec());
                let name = entry.path().strip_prefix(&dir).unwrap().to_owned();
                names.push((name, mode, owner, size, time));
            }
        }
        names.sort();
        names
    };
    let (one, two) = blocking(move || (list(original), list(shown))).await;
    assert_eq!(one.len(), 708);
    assert_eq!(one, two);
    let (original, shown) = (tree.clone(), top.clone());
    let differences = blocking(move || {
        run(
            "diff",
            &["-r".as_ref(), "--no-dereference".as_ref(), original.as_ref(), shown.as_ref()],
        )
    })
    .await;
    assert_eq!(differences, (String::new(), String::new(), Some(0)));
    let shown = top.clone();
    let (found, _, _) = blocking(move || {
        run("find", &["-L".as_ref(), shown.as_ref(), "-name".as_ref(), "file-69*".as_ref()])
    })
    .await;
    assert_eq!(found.lines().count(), 11, "{found}");

    let (shown, whole) = (top.clone(), large.clone());
    blocking(move || {
        let file = fs::File::open(shown.join("large")).unwrap();
        for at in [8_000_000_usize, 12, 3_999_999, 8_999_990] {
            let mut part = vec![0; 5000.min(whole.len() - at)];
            file.read_exact_at(&mut part, at as u64).unwrap();
            assert!(part == whole[at..at + part.len()], "at {at}");
        }
        let link = fs::read_link(shown.join("link")).unwrap();
        assert_eq!(link, Path::new("nowhere/\u{e9}"));
        let same = |name: &str| shown.join(name).metadata().unwrap().ino();
        assert_eq!(same("large"), same("many/other-name"));
        assert!(fs::read(shown.join("many/other-name")).unwrap() == whole);
        let refused = fs::write(shown.join("new"), "x").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
        let missing = fs::metadata(shown.join("many/file-700")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let below = fs::metadata(shown.join("large/x")).unwrap_err();
        assert_eq!(below.kind(), io::ErrorKind::NotADirectory);
    })
    .await;
    let names = {
        let store = scene.mounted("files/t");
        blocking(move || {
            let names = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        })
        .await
    };
    assert_eq!(names.len(), 2);
    assert!(names[0].ends_with(&format!("Z-{}", id.short())), "{names:?}");
    assert_eq!(names[1], "latest");
    mounted.unmount().await.unwrap();
    let left = scene.mounted("");
    assert_eq!(blocking(move || fs::read_dir(left).unwrap().count()).await, 0);
    assert_eq!(scene.observer.warnings().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_is_an_error_with_a_name() {
    let scene = Scene::new().await;
    fs::write(scene.tree("lost"), noise(3_000_000)).unwrap();
    fs::write(scene.tree("kept"), "kept").unwrap();
    scene.back_up().await;
    let Some(mounted) = scene.mount().await else { return };
    let top = scene.mounted("files/t/latest");
    let kept = top.join("kept");
    assert_eq!(blocking(move || fs::read(kept).unwrap()).await, b"kept");
    // The large packs have the content, the small ones what describes it.
    let all = scene.store.list_with_delimiter(Some(&"packs".into())).await.unwrap();
    for area in all.common_prefixes {
        let packs = scene.store.list_with_delimiter(Some(&area)).await.unwrap();
        for pack in packs.objects.iter().filter(|pack| pack.size > 100_000) {
            scene.store.delete(&pack.location).await.unwrap();
        }
    }
    for _ in 0..2 {
        let lost = top.join("lost");
        let error = blocking(move || fs::read(lost).unwrap_err()).await;
        assert_eq!(error.raw_os_error(), Some(5), "{error}");
    }
    let told = scene.observer.warnings();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].0.ends_with(": lost") && told[0].1.contains("missing"), "{told:?}");
    // The mount outlives it.
    let names = blocking(move || fs::read_dir(top).unwrap().count()).await;
    assert_eq!(names, 2);
    drop(mounted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_ends_when_somebody_unmounts_it() {
    let scene = Scene::new().await;
    fs::write(scene.tree("a"), "a").unwrap();
    scene.back_up().await;
    let Some(mut mounted) = scene.mount().await else { return };
    let place = scene.mounted("");
    let status = blocking(move || Command::new("umount").arg(place).status().unwrap()).await;
    assert!(status.success());
    mounted.ended().await.unwrap();
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_that_is_in_use_goes_all_the_same() {
    let scene = Scene::new().await;
    fs::write(scene.tree("a"), "a").unwrap();
    scene.back_up().await;
    let Some(mounted) = scene.mount().await else { return };
    let inside = scene.mounted("files/t/latest/a");
    let open = blocking(move || fs::File::open(inside).unwrap()).await;
    mounted.unmount().await.unwrap();
    let left = scene.mounted("");
    assert_eq!(blocking(move || fs::read_dir(left).unwrap().count()).await, 0);
    blocking(move || drop(open)).await;
}

#[tokio::test]
async fn a_place_that_is_no_directory_is_refused() {
    let scene = Scene::new().await;
    let mut options = MountOptions::default();
    options.access = Access::Owner;
    let place = scene.folder.path().join("nothing");
    let error = mount(&scene.repository, &place, &options, &scene.context).await.unwrap_err();
    assert!(matches!(error, Error::NoDirectory { .. }), "{error}");
}
