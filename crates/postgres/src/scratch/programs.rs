//! Where the programs of a server are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ScratchError;

/// The programs of one installation.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    directory: PathBuf,
    pub(crate) major: u32,
}

impl Programs {
    /// Finds those of a major version: in `named`, or else on the `PATH` and where distributions
    /// put them. Blocks.
    pub(crate) fn find(major: u32, named: Option<&Path>) -> Result<Self, ScratchError> {
        let candidates = match named {
            Some(directory) => vec![directory.to_owned()],
            None => usual(major, std::env::var_os("PATH").as_deref()),
        };
        let found = candidates.iter().find(|directory| version(directory) == Some(major));
        match found {
            Some(directory) => Ok(Self { directory: directory.clone(), major }),
            None => {
                let looked_in = named.map(Path::to_owned).into_iter().collect();
                Err(ScratchError::NoPrograms { major, looked_in })
            }
        }
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Debian's place, that of PostgreSQL's own packages for others, and that of its sources.
fn usual(major: u32, path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut directories: Vec<_> = path.map(std::env::split_paths).into_iter().flatten().collect();
    directories.extend(
        [
            format!("/usr/lib/postgresql/{major}/bin"),
            format!("/usr/pgsql-{major}/bin"),
            format!("/usr/local/pgsql-{major}/bin"),
            "/usr/local/pgsql/bin".to_owned(),
            format!("/opt/postgresql/{major}/bin"),
        ]
        .map(PathBuf::from),
    );
    directories
}

/// The major version of the server in a directory, if there is one that runs.
fn version(directory: &Path) -> Option<u32> {
    let program = directory.join("postgres");
    if !program.is_file() {
        return None;
    }
    let mut asking = Command::new(program);
    let said = asking.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    let number = text.trim().strip_prefix("postgres (PostgreSQL) ")?;
    number.split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok()
}
