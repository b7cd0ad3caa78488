//! Which server a scratch server runs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ScratchError;

/// How servers are called.
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];
/// Where they are besides the `PATH`.
const USUAL: [&str; 4] =
    ["/usr/bin", "/usr/local/bin", "/opt/redis-stack/bin", "/opt/bitnami/redis/bin"];

/// A server that runs on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// As it says it: `7.0.15`.
    pub(super) version: String,
}

impl Program {
    /// The oldest that is as new as the snapshot's server: in the directory `named`, or else on the
    /// `PATH` and where distributions put it. Of a snapshot that does not say its version, the newest.
    /// Blocks.
    pub(super) fn find(needed: Option<&str>, named: Option<&Path>) -> Result<Self, ScratchError> {
        let directories = match named {
            Some(directory) => vec![directory.to_owned()],
            None => usual(std::env::var_os("PATH").as_deref()),
        };
        let paths = directories.iter().flat_map(|it| NAMES.map(|name| it.join(name)));
        let mut found: Vec<_> = paths.filter_map(Self::probe).collect();
        found.sort_by_key(|program| number(&program.version));
        let enough = match needed {
            Some(needed) => found.iter().find(|it| number(&it.version) >= number(needed)),
            None => found.last(),
        };
        match (enough, found.last()) {
            (Some(program), _) => Ok(program.clone()),
            (None, Some(newest)) => Err(ScratchError::TooOld {
                needed: needed.unwrap_or_default().to_owned(),
                found: newest.version.clone(),
                program: newest.path.clone(),
            }),
            (None, None) => Err(ScratchError::NoProgram { named: named.map(Path::to_owned) }),
        }
    }

    fn probe(path: PathBuf) -> Option<Self> {
        if !path.is_file() {
            return None;
        }
        let mut asking = Command::new(&path);
        let said = asking.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
        let text = String::from_utf8(said.ok()?.stdout).ok()?;
        let version = text.split(' ').find_map(|word| word.strip_prefix("v="))?.to_owned();
        Some(Self { path, version })
    }

    /// Major and minor.
    pub(super) fn number(&self) -> (u32, u32) {
        number(&self.version)
    }
}

fn usual(path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut directories: Vec<_> = path.map(std::env::split_paths).into_iter().flatten().collect();
    directories.extend(USUAL.map(PathBuf::from));
    directories
}

/// Major and minor: what a file can be read by depends on no more.
fn number(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fake(directory: &Path, name: &str, version: &str) {
        let path = directory.join(name);
        let said = format!("Redis server v={version} sha=00000000:0 malloc=libc bits=64");
        fs::write(&path, format!("#!/bin/sh\necho '{said}'\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_oldest_that_is_new_enough_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let here = Some(directory.path());
        let none = Program::find(Some("7.0.15"), here).unwrap_err();
        assert!(matches!(none, ScratchError::NoProgram { named: Some(_) }), "{none}");
        fake(directory.path(), "redis-server", "6.2.5");
        let old = Program::find(Some("7.0.15"), here).unwrap_err();
        assert!(old.to_string().contains("6.2.5"), "{old}");
        fake(directory.path(), "valkey-server", "7.2.1");
        assert_eq!(Program::find(Some("7.0.15"), here).unwrap().version, "7.2.1");
        assert_eq!(Program::find(Some("6.2.14"), here).unwrap().version, "6.2.5");
        assert_eq!(Program::find(None, here).unwrap().version, "7.2.1");
    }
}
