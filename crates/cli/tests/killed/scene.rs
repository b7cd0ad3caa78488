//! A directory with repositories and trees, the program to run on them, and the hand that kills it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_testbed::process::{self, Finished};
use serde_json::Value;

/// Long: the machine may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(300);

/// Numbers that look random, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 8) as usize % end
    }

    /// Bytes that do not compress.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(count).collect()
    }
}

/// The scene of one test.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
    pub(crate) random: Random,
    tally: BTreeMap<String, Tally>,
}

/// How often one kind of command was started to be killed, and was killed before its end.
#[derive(Default)]
struct Tally {
    started: u64,
    killed: u64,
    /// About how long it takes that is let run to its end.
    whole: u64,
}

/// How often something is to be killed in each test: a few times, unless `LIFEBOAT_KILLS` says.
pub(crate) fn kills(usually: u64) -> u64 {
    given("LIFEBOAT_KILLS").unwrap_or(usually)
}

fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

impl Scene {
    /// With an identity `<name>.identity` for each of these names. The first one is whose key
    /// opens all repositories here: stretching a passphrase would take longer than most commands,
    /// and most of them would be killed doing that.
    pub(crate) fn new(identities: &[&str]) -> Self {
        let seed = given("LIFEBOAT_SEED");
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 2_654_435_761 + 1);
        println!("seed: LIFEBOAT_SEED={seed}");
        let dir = tempfile::tempdir().unwrap();
        for name in identities {
            let made = Command::new("age-keygen").output().expect("age-keygen, of the package age");
            assert!(made.status.success());
            fs::write(dir.path().join(format!("{name}.identity")), made.stdout).unwrap();
        }
        fs::rename(
            dir.path().join(format!("{}.identity", identities[0])),
            dir.path().join("own.identity"),
        )
        .unwrap();
        Self { dir, random: Random(seed | 1), tally: BTreeMap::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The recipient of an identity.
    pub(crate) fn recipient(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path(&format!("{name}.identity"))).unwrap();
        text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned()
    }

    pub(crate) fn init(&self, repository: &str) {
        let recipient = self.recipient("own");
        self.done(repository, &["init", "--recipient", &recipient]);
    }

    /// The program on a repository, with nothing in its environment but what is here.
    fn command(&self, identity: &str, repository: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("LIFEBOAT_REPO", self.path(repository));
        command.env("LIFEBOAT_IDENTITY_FILE", self.path(&format!("{identity}.identity")));
        command.env("LIFEBOAT_OTHER_IDENTITY_FILE", self.path("own.identity"));
        command.env("LIFEBOAT_CACHE_DIR", self.path("cache"));
        command.args(arguments);
        command
    }

    /// Runs it to its end, however that is.
    pub(crate) fn run(&self, repository: &str, arguments: &[&str]) -> Finished {
        self.run_as("own", repository, arguments)
    }

    pub(crate) fn run_as(&self, who: &str, repository: &str, arguments: &[&str]) -> Finished {
        process::run(&mut self.command(who, repository, arguments), LIMIT).unwrap()
    }

    /// Runs it, and all of it must work.
    #[track_caller]
    pub(crate) fn done(&self, repository: &str, arguments: &[&str]) -> Finished {
        let ended = self.run(repository, arguments);
        assert!(ended.status.success(), "{}: {}\n{}", ended.command, ended.status, ended.stderr);
        ended
    }

    /// Lets it run to its end, so that it is known how long that takes; and all of it must work.
    #[track_caller]
    pub(crate) fn timed(&mut self, kind: &str, repository: &str, arguments: &[&str]) {
        let moved = self.done(repository, arguments).moved;
        self.takes(kind, moved);
    }

    /// Notes how many bytes a kind of command moves: unlike the time it takes, that is the same on a
    /// busy machine.
    pub(crate) fn takes(&mut self, kind: &str, moved: u64) {
        let tally = self.tally.entry(kind.to_owned()).or_default();
        tally.whole = tally.whole.max(moved);
    }

    /// Starts it, and kills it at some moment. It may have come to its end before; then, that was
    /// a good one, or one that needs attention.
    pub(crate) fn kill(&mut self, kind: &str, repository: &str, arguments: &[&str]) {
        let whole = self.tally.entry(kind.to_owned()).or_default().whole;
        assert!(whole > 0, "how much `{kind}` moves is not known");
        let moment = self.random.next() % whole;
        // What it does last moves no bytes: it gives names and removes.
        let then = Duration::from_millis(self.random.next() % 20);
        let mut running = process::start(&mut self.command("own", repository, arguments)).unwrap();
        running.moves(moment, LIMIT).unwrap();
        std::thread::sleep(then);
        running.kill().unwrap();
        let ended = running.wait(LIMIT).unwrap();
        if let Some(code) = ended.status.code() {
            // A repair of snapshots may end with a snapshot that is beyond repair.
            let told = matches!(code, 0 | 3) || kind == "repair snapshots" && code == 1;
            assert!(told, "{}: {code}\n{}", ended.command, ended.stderr);
        }
        let tally = self.tally.entry(kind.to_owned()).or_default();
        tally.started += 1;
        // How much there is to do differs from time to time.
        if ended.status.code().is_some() {
            tally.whole = tally.whole.min(ended.moved.max(1));
        } else {
            tally.killed += 1;
            tally.whole += tally.whole / 10;
        }
    }

    /// What dead processes hold is theirs for minutes: so long nobody wants to wait here.
    pub(crate) fn let_time_pass(&self, repository: &str) {
        for area in ["leases", "sessions", "trash", "packs"] {
            let area = self.path(repository).join(area);
            if area.exists() {
                let mut touch = Command::new("find");
                touch.arg(area).args(["-type", "f", "-exec", "touch", "-d", "-3 hours", "{}", "+"]);
                assert!(touch.status().unwrap().success());
            }
        }
    }

    /// Puts a copy of a directory where another one is.
    pub(crate) fn replace(&self, to: &str, from: &str) {
        let _ = fs::remove_dir_all(self.path(to));
        let copied =
            Command::new("cp").arg("-a").args([self.path(from), self.path(to)]).status().unwrap();
        assert!(copied.success());
    }

    /// Every byte of the repository is read, and sound.
    #[track_caller]
    pub(crate) fn assert_sound(&self, repository: &str, what: &str) {
        let ended = self.run(repository, &["verify", "--every-byte"]);
        assert!(ended.status.success(), "{what}: {}: {}", ended.status, ended.stderr);
    }

    /// The snapshot brings back just what is in the tree.
    #[track_caller]
    pub(crate) fn assert_restores(&self, repository: &str, snapshot: &[&str], tree: &str) {
        let _ = fs::remove_dir_all(self.path("restored"));
        let to = self.text("restored");
        self.done(repository, &[&["restore"], snapshot, &["--to", &to]].concat());
        same(&self.path(tree), &self.path("restored"));
    }

    /// Says how often what was killed. A good part must have been at work: else it is the quiet
    /// after the end that was tried.
    pub(crate) fn tell(&self) {
        for (kind, Tally { started, killed, whole }) in &self.tally {
            println!(
                "{kind}: {killed} of {started} were killed at work; whole, it moves {whole} bytes"
            );
            assert!(killed * 6 >= *started || *started < 4, "{kind}: {killed} of {started}");
        }
    }
}

/// The events of one name in what a command with `--json` said.
pub(crate) fn events(ended: &Finished, name: &str) -> Vec<Value> {
    let events = ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == name).collect()
}

#[track_caller]
pub(crate) fn same(one: &Path, other: &Path) {
    let differs = Command::new("diff").arg("-r").args([one, other]).output().unwrap();
    assert!(differs.status.success(), "{}", String::from_utf8_lossy(&differs.stdout));
}
