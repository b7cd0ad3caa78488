//! Whatever is killed, at whatever moment: the repository is whole, and the next run goes on.
//!
//! `LIFEBOAT_KILLS` sets how often something is killed; `LIFEBOAT_SEED` repeats a run as far as
//! moments can be repeated.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_testbed::process::{self, Finished};

const LIMIT: Duration = Duration::from_secs(120);

struct Scene {
    dir: tempfile::TempDir,
    random: u64,
}

impl Scene {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn command(&self, repository: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.env("LIFEBOAT_REPO", self.path(repository));
        command.env("LIFEBOAT_PASSPHRASE", "correct horse");
        command.env("LIFEBOAT_TO_PASSPHRASE", "battery staple");
        command.env("XDG_CACHE_HOME", self.path("cache"));
        command.args(arguments);
        command
    }

    fn run(&self, repository: &str, arguments: &[&str]) -> Finished {
        process::run(&mut self.command(repository, arguments), LIMIT).unwrap()
    }

    /// Changes a third of the tree, so that there is something to save and something to forget.
    fn change(&mut self) {
        let tree = self.path("tree");
        fs::create_dir_all(&tree).unwrap();
        for _ in 0..6 {
            let (name, seed) = (self.next() % 20, self.next());
            let mut bytes = Vec::with_capacity(900_000);
            let mut state = seed | 1;
            while bytes.len() < 900_000 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.extend_from_slice(&state.to_le_bytes());
            }
            fs::write(tree.join(format!("file-{name}")), bytes).unwrap();
        }
    }

    /// What dead processes hold is theirs for minutes: so long nobody wants to wait here.
    fn let_time_pass(&self, repository: &str) {
        for area in ["leases", "sessions", "trash", "packs"] {
            let area = self.path(repository).join(area);
            if area.exists() {
                let mut touch = Command::new("find");
                touch.arg(area).args(["-type", "f", "-exec", "touch", "-d", "-3 hours", "{}", "+"]);
                assert!(touch.status().unwrap().success());
            }
        }
    }
}

fn same(one: &Path, other: &Path) {
    let differs = Command::new("diff").arg("-r").args([one, other]).output().unwrap();
    assert!(differs.status.success(), "{}", String::from_utf8_lossy(&differs.stdout));
}

#[test]
fn whatever_is_killed_the_repository_is_whole_and_the_next_run_goes_on() {
    let given = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = given("LIFEBOAT_SEED");
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 2_654_435_761 + 1);
    let kills = given("LIFEBOAT_KILLS").unwrap_or(16);
    println!("seed: LIFEBOAT_SEED={seed}");
    let mut scene = Scene { dir: tempfile::tempdir().unwrap(), random: seed };
    scene.run("repository", &["init"]).success().unwrap();
    let tree = scene.text("tree");
    let backup = vec!["backup", "files", tree.as_str(), "--name", "tree"];
    let forget = vec!["forget", "--keep-last", "2"];
    let prune = vec!["prune", "--keep-marked", "0s", "--max-waste", "0"];
    let works = [backup.clone(), prune.clone(), forget.clone(), backup.clone(), prune.clone()];

    scene.change();
    let whole = scene.run("repository", &backup).success().unwrap().wall;
    let mut killed = 0;
    for round in 0..kills {
        scene.change();
        let work = &works[(scene.next() % works.len() as u64) as usize];
        if work[0] != "backup" {
            // There is something to forget, and something to prune.
            scene.run("repository", &backup).success().unwrap();
        }
        if work[0] == "prune" {
            scene.run("repository", &forget).success().unwrap();
        }
        scene.let_time_pass("repository");
        let mut running = process::start(&mut scene.command("repository", work)).unwrap();
        // From the first instant to shortly after an ordinary end.
        let most = whole.mul_f64(1.5);
        std::thread::sleep(most.mul_f64((scene.next() % 1000) as f64 / 1000.0));
        running.kill().unwrap();
        killed += u64::from(!running.wait(LIMIT).unwrap().status.success());
        let verified = scene.run("repository", &["verify", "--every-byte"]);
        assert!(verified.status.success(), "{work:?}, round {round}: {}", verified.stderr);
    }
    println!("{killed} of {kills} were still running");
    assert!(killed * 4 > kills, "only {killed} of {kills} were still running");

    // Whatever they left, the next ones end well, and nothing is left behind.
    scene.let_time_pass("repository");
    scene.run("repository", &backup).success().unwrap();
    scene.run("repository", &forget).success().unwrap();
    scene.run("repository", &prune).success().unwrap();
    let left =
        |area: &str| fs::read_dir(scene.path("repository").join(area)).map_or(0, Iterator::count);
    assert_eq!((left("sessions"), left("trash"), left("checkpoints")), (0, 0, 0));
    scene
        .run("repository", &["restore", "latest", "--to", &scene.text("restored")])
        .success()
        .unwrap();
    same(&scene.path("tree"), &scene.path("restored"));
}
