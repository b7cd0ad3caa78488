//! The kernel's requests.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fuser::{
    Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyXattr, Request,
};
use lifeboat_core::names;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::directory::{Detail, Listed, OpenDirectory};
use crate::file::OpenFile;
use crate::node::Node;
use crate::view::View;

/// How long the kernel may believe what it was told: nothing here changes.
const VALID: Duration = Duration::from_secs(3600);

/// Takes the kernel's requests on a thread of its own, and answers them on the runtime.
pub(crate) struct SnapshotFilesystem {
    view: Arc<View>,
    runtime: Handle,
    files: Arc<Handles<OpenFile>>,
    directories: Arc<Handles<OpenDirectory>>,
}

impl SnapshotFilesystem {
    pub(crate) fn new(view: View, runtime: Handle) -> Self {
        let (files, directories) = (Arc::default(), Arc::default());
        Self { view: Arc::new(view), runtime, files, directories }
    }

    /// Answers on the runtime, with what `answer` makes of the view.
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, answer: impl FnOnce(Arc<View>) -> F) {
        self.runtime.spawn(answer(Arc::clone(&self.view)));
    }
}

/// What is open, by number.
struct Handles<T> {
    last: AtomicU64,
    open: Mutex<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { last: AtomicU64::new(0), open: Mutex::default() }
    }
}

impl<T> Handles<T> {
    fn add(&self, what: T) -> FileHandle {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.lock().insert(number, Arc::new(what));
        FileHandle(number)
    }

    fn get(&self, handle: FileHandle) -> Result<Arc<T>, Errno> {
        self.open.lock().get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn remove(&self, handle: FileHandle) {
        self.open.lock().remove(&handle.0);
    }
}

fn node(inode: INodeNo) -> Result<Node, Errno> {
    Node::of(inode.0).ok_or(Errno::ENOENT)
}

impl Filesystem for SnapshotFilesystem {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each saves requests, where the kernel knows it.
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ] {
            let _ = config.add_capabilities(wanted);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        self.spawn(async move |view| {
            let found = match node(parent) {
                Ok(parent) => view.lookup(parent, &name).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(attributes) => reply.entry(&VALID, &attributes, Generation(0)),
                Err(error) => reply.error(error),
            }
        });
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.spawn(async move |view| {
            let found = match node(inode) {
                Ok(node) => view.attributes(node).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(attributes) => reply.attr(&VALID, &attributes),
                Err(error) => reply.error(error),
            }
        });
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        self.spawn(async move |view| {
            let found = match node(inode) {
                Ok(node) => view.link(node).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(error),
            }
        });
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let files = Arc::clone(&self.files);
        self.spawn(async move |view| {
            let found = match node(inode) {
                Ok(node) => view.file(node).await,
                Err(error) => Err(error),
            };
            match found {
                Ok((snapshot, file)) => {
                    let handle = files.add(OpenFile::new(snapshot, file));
                    reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE);
                }
                Err(error) => reply.error(error),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file = match self.files.get(handle) {
            Ok(file) => file,
            Err(error) => return reply.error(error),
        };
        self.spawn(async move |view| {
            let end = offset.saturating_add(size.into());
            match file.read(offset..end).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => {
                    let path = &file.file().info().path;
                    reply.error(view.failed(file.snapshot(), Some(path), &error));
                }
            }
        });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.files.remove(handle);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match node(inode) {
            Ok(node) => {
                let handle = self.directories.add(OpenDirectory::new(node));
                reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let directory = match self.directories.get(handle) {
            Ok(directory) => directory,
            Err(error) => return reply.error(error),
        };
        self.spawn(async move |view| {
            let add = |member: &Listed, next: u64| {
                let name = OsStr::from_bytes(&member.name);
                reply.add(INodeNo(member.inode), next, member.kind, name)
            };
            match directory.list(&view, offset, Detail::Names, add).await {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(error),
            }
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let directory = match self.directories.get(handle) {
            Ok(directory) => directory,
            Err(error) => return reply.error(error),
        };
        self.spawn(async move |view| {
            let add = |member: &Listed, next: u64| {
                let name = OsStr::from_bytes(&member.name);
                member.attributes.as_ref().is_some_and(|shown| {
                    reply.add(INodeNo(member.inode), next, name, &VALID, shown, Generation(0))
                })
            };
            match directory.list(&view, offset, Detail::Attributes, add).await {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(error),
            }
        });
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.directories.remove(handle);
        reply.ok();
    }

    fn getxattr(&self, _: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.as_bytes().to_vec();
        self.spawn(async move |view| {
            let found = xattrs(&view, inode).await.and_then(|pairs| {
                let found = pairs.into_iter().find(|(has, _)| *has == name);
                found.map(|(_, value)| value).ok_or(Errno::NO_XATTR)
            });
            answer(found, size, reply);
        });
    }

    fn listxattr(&self, _: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        self.spawn(async move |view| {
            let found = xattrs(&view, inode).await.map(|pairs| {
                pairs.into_iter().flat_map(|(name, _)| name.into_iter().chain([0])).collect()
            });
            answer(found, size, reply);
        });
    }
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

async fn xattrs(view: &View, inode: INodeNo) -> Result<Pairs, Errno> {
    match node(inode)? {
        node @ Node::Entry { .. } => {
            let entry = view.entry(node).await?;
            Ok(entry.attributes.pairs(names::XATTRS).map(<[_]>::to_vec).unwrap_or_default())
        }
        _ => Ok(Pairs::new()),
    }
}

/// Who asks with a size of 0 wants to know how much room it takes.
fn answer(found: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match (found, size) {
        (Err(error), _) => reply.error(error),
        (Ok(value), 0) => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        (Ok(value), size) if value.len() > size as usize => reply.error(Errno::ERANGE),
        (Ok(value), _) => reply.data(&value),
    }
}
