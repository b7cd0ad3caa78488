//! What a killed server leaves behind: children that are about to notice, and shared memory.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// The state and the parent of a process.
fn stat(pid: &str) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold spaces and brackets.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The living children of a process.
pub(super) fn children_of(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (_, parent) = stat(&name)?;
            (parent == pid).then(|| name.parse().ok())?
        })
        .collect()
}

/// Whether a process has ended, or only waits for its parent to notice.
pub(super) fn is_gone(pid: u32) -> bool {
    stat(&pid.to_string()).is_none_or(|(state, _)| state == 'Z')
}

/// The shared memory a server holds, which outlives a server that is killed.
pub(super) struct SharedMemory {
    files: BTreeSet<PathBuf>,
    segments: BTreeSet<String>,
}

impl SharedMemory {
    /// What these processes have mapped: statistics, for one, are only with the children.
    pub(super) fn of(pids: impl Iterator<Item = u32>) -> Self {
        let maps: String =
            pids.filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/maps")).ok()).collect();
        let mut found = Self { files: BTreeSet::new(), segments: BTreeSet::new() };
        for line in maps.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields.get(4..) {
                Some([_, path, ..]) if path.starts_with("/dev/shm/PostgreSQL.") => {
                    found.files.insert(PathBuf::from(path));
                }
                // The kernel shows a System V segment's id as its inode.
                Some([id, path, ..]) if path.starts_with("/SYSV") => {
                    found.segments.insert((*id).to_owned());
                }
                _ => {}
            }
        }
        found
    }

    /// Removes it: only once all that used it are gone.
    pub(super) fn remove(&self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        for id in &self.segments {
            let quiet = Stdio::null;
            let mut command = Command::new("ipcrm");
            let _ = command.args(["-m", id]).stdout(quiet()).stderr(quiet()).status();
        }
    }
}
