//! What is on this machine.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lifeboat_testbed::{
    home,
    postgres::{Installation, installations},
    redis, s3,
};

use super::plan::reader_directory;

/// The tools that benchmarks compare with: the Debian package, and the program in it.
const PEERS: [(&str, &str); 3] =
    [("pgbackrest", "pgbackrest"), ("restic", "restic"), ("borgbackup", "borg")];

/// What setup has to know to plan.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) root: bool,
    pub(crate) has_apt: bool,
    pub(crate) has_npm: bool,
    /// The Python that has pip.
    pub(crate) has_pip: bool,
    /// "x86_64" or "aarch64": the packages hold programs.
    pub(crate) architecture: &'static str,
    pub(crate) servers: Vec<Installation>,
    pub(crate) has_s3: bool,
    /// The Python packages of the second reader of repositories.
    pub(crate) has_reader: bool,
    /// Major and minor of the Redis servers that run.
    pub(crate) redis: Vec<(u32, u32)>,
    /// Whether the wheel with Redis 7.4 is there, which runs only beside a Node package.
    pub(crate) redis_stack: bool,
    /// The client and the checker of Redis.
    pub(crate) has_redis_tools: bool,
    /// The program age, with which key slots are compared.
    pub(crate) has_age: bool,
    /// Debian packages of peers that are not installed.
    pub(crate) missing_peers: Vec<&'static str>,
    /// Where wheels and Node packages go.
    pub(crate) home: PathBuf,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let missing = PEERS.iter().filter(|(_, program)| !has(program));
        Self {
            root: home::is_root(),
            has_apt: has("apt-get"),
            // Node runs the step that completes the package.
            has_npm: has("npm") && has("node"),
            has_pip: has_pip(),
            architecture: env::consts::ARCH,
            servers: installations(),
            has_s3: s3::installed().is_some(),
            has_reader: home::search_dirs()
                .iter()
                .any(|dir| dir.join(reader_directory()).join("cbor2").is_dir()),
            redis: redis::installations().iter().map(redis::Installation::number).collect(),
            redis_stack: home::search_dirs()
                .iter()
                .any(|dir| dir.join(redis::stack_directory()).is_dir()),
            has_redis_tools: has("redis-cli") && has("redis-check-rdb"),
            has_age: has("age") && has("age-keygen"),
            missing_peers: missing.map(|(package, _)| *package).collect(),
            home: home::install_dir(),
        }
    }

    pub(crate) fn has_major(&self, major: u32) -> bool {
        self.servers.iter().any(|server| server.major == major)
    }
}

fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| is_program(&dir.join(program)))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Debian splits pip from Python. Asked without starting pip, which takes half a second.
fn has_pip() -> bool {
    let question = "import importlib.util as u, sys; sys.exit(u.find_spec('pip') is None)";
    let mut python = Command::new("python3");
    python.args(["-c", question]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}
