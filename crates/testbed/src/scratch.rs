//! Temporary directories that a server may live in.

use std::{
    env, fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::home::{self, Account};

/// A temporary directory that belongs to the account which servers run under, and goes with the
/// value.
///
/// As root, tests run their servers under another account; what those servers are to read, such as
/// the target of a restore, must lie where that account gets in. `tempfile::tempdir()` is closed to
/// it, this is not.
#[derive(Debug)]
pub struct Scratch {
    dir: tempfile::TempDir,
    account: Option<Account>,
}

impl Scratch {
    /// A new, empty directory.
    pub fn new() -> Result<Self> {
        let account = home::server_account();
        ensure!(
            account.is_some() || !home::is_root(),
            "running as root, and there is no account `postgres` or `nobody` to run servers under"
        );
        let dir = tempfile::Builder::new()
            .prefix("lifeboat-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(base(account.as_ref()))
            .context("make a temporary directory")?;
        let scratch = Self { dir, account };
        scratch.own(scratch.path())?;
        Ok(scratch)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a directory in it that belongs to the same account.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        self.own(&path)?;
        Ok(path)
    }

    pub(crate) fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    fn own(&self, path: &Path) -> Result<()> {
        if let Some(account) = &self.account {
            chown(path, Some(account.uid), Some(account.gid))
                .with_context(|| format!("give {} to {}", path.display(), account.name))?;
        }
        Ok(())
    }
}

/// Gives a directory, with all that is in it and in the tablespaces it links to, to the account that
/// servers run under, and lets that account through the directories above it that lie in the
/// system's temporary directory. Does nothing unless root calls it.
pub fn hand_over(dir: &Path) -> Result<()> {
    let Some(account) = home::server_account() else {
        return Ok(());
    };
    let dir = dir.canonicalize().with_context(|| format!("find {}", dir.display()))?;
    give(&dir, &account).with_context(|| format!("give {} to {}", dir.display(), account.name))?;
    for tablespace in fs::read_dir(dir.join("pg_tblspc")).into_iter().flatten().flatten() {
        if let Ok(target) = tablespace.path().canonicalize()
            && !target.starts_with(&dir)
        {
            give(&target, &account)?;
            open_way(&target)?;
        }
    }
    open_way(&dir)
}

fn give(path: &Path, account: &Account) -> io::Result<()> {
    lchown(path, Some(account.uid), Some(account.gid))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), account)?;
        }
    }
    Ok(())
}

fn open_way(path: &Path) -> Result<()> {
    let temporary = env::temp_dir();
    let below = |dir: &&Path| dir.starts_with(&temporary) && **dir != *temporary;
    for parent in path.ancestors().skip(1).take_while(below) {
        let mode = fs::metadata(parent)?.permissions().mode();
        if mode & 0o001 == 0 {
            fs::set_permissions(parent, fs::Permissions::from_mode(mode | 0o011))
                .with_context(|| format!("open the way through {}", parent.display()))?;
        }
    }
    Ok(())
}

/// The longest temporary directory that leaves room for a socket's name in 107 bytes.
const LONGEST: usize = 64;

/// The usual temporary directory, unless servers run under another account that cannot enter it, or
/// a socket's path would be too long.
fn base(account: Option<&Account>) -> PathBuf {
    let usual = env::temp_dir();
    let closed = |dir: &Path| fs::metadata(dir).is_ok_and(|m| m.mode() & 0o001 == 0);
    let unreachable = account.is_some() && usual.ancestors().any(closed);
    if unreachable || usual.as_os_str().len() > LONGEST { PathBuf::from("/tmp") } else { usual }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_the_value() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        let inner = scratch.subdir("inner").unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().mode() & 0o777, 0o700);
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_handed_over_can_be_reached_by_the_server() {
        let closed = tempfile::tempdir().unwrap();
        let data = closed.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("file"), "x").unwrap();
        hand_over(&data).unwrap();
        if let Some(account) = home::server_account() {
            assert_eq!(fs::metadata(data.join("file")).unwrap().uid(), account.uid);
            assert_eq!(fs::metadata(closed.path()).unwrap().mode() & 0o001, 0o001);
        }
    }
}
