//! Where the testbed keeps what it installs, and as whom its servers run.
//!
//! PostgreSQL refuses to run as root, and in containers tests are often run by root. The servers
//! are then run by an ordinary account, which must be able to reach their programs: root's own
//! cache directory would not do. Both decisions are made here, once, for `cargo xtask setup` and
//! for the tests.

use std::{env, fs, os::unix::fs::MetadataExt, path::PathBuf};

/// Names the directory to install into and to search, in place of the usual one.
pub const VARIABLE: &str = "LIFEBOAT_TESTBED";

/// Readable by every account, which a home directory is not.
const SHARED: &str = "/var/cache/lifeboat-testbed";

/// An account that servers run under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name in the account database.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // The standard library cannot ask for the user id; the kernel shows it as the owner of this
    // process's entry.
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The account to step down to: `postgres` where it exists, else `nobody`. `None` when this process
/// is not root, and so runs its servers itself.
pub fn server_account() -> Option<Account> {
    if !is_root() {
        return None;
    }
    let database = fs::read_to_string("/etc/passwd").unwrap_or_default();
    find_account(&database, "postgres").or_else(|| find_account(&database, "nobody"))
}

fn find_account(database: &str, name: &str) -> Option<Account> {
    database.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name: name.to_owned(), uid, gid })
    })
}

/// The directory that `cargo xtask setup` installs into.
pub fn install_dir() -> PathBuf {
    if let Some(chosen) = env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        return PathBuf::from(chosen);
    }
    if is_root() {
        return PathBuf::from(SHARED);
    }
    let absolute =
        |name: &str| env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("lifeboat-testbed")
}

/// The directories to look for installed servers in, the preferred one first: also what root
/// installed serves everybody.
pub fn search_dirs() -> Vec<PathBuf> {
    let mut dirs = vec![install_dir()];
    if env::var_os(VARIABLE).is_none() && dirs[0].as_path() != SHARED {
        dirs.push(PathBuf::from(SHARED));
    }
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_their_whole_name() {
        let database =
            "root:x:0:0::/root:/bin/sh\npostgres2:x:7:8::/:/x\npostgres:x:101:104:a:/:/x\n";
        let account = find_account(database, "postgres").unwrap();
        assert_eq!((account.uid, account.gid), (101, 104));
        assert_eq!(find_account(database, "nobody"), None);
    }
}
