//! What a backup withstands: being killed, and data far larger than its memory.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lifeboat_testbed::process::{self, Finished};

const LIMIT: Duration = Duration::from_secs(300);
/// What a backup or a restore may hold in memory at most, whatever the size of the store.
const MEMORY: u64 = 256 << 20;

fn lifeboat(repository: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.env("LIFEBOAT_REPO", repository).env("LIFEBOAT_PASSPHRASE", "correct horse");
    command.env_remove("LIFEBOAT_PASSPHRASE_FILE").env_remove("LIFEBOAT_PASSPHRASE_COMMAND");
    command.args(arguments);
    command
}

fn run(repository: &Path, arguments: &[&str]) -> Finished {
    process::run(&mut lifeboat(repository, arguments), LIMIT).unwrap().success().unwrap()
}

/// Numbers that look random, the same for the same seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A file of bytes that do not compress.
    fn file(&mut self, path: &Path, bytes: usize) {
        let mut file = BufWriter::new(fs::File::create(path).unwrap());
        for _ in 0..bytes.div_ceil(8) {
            file.write_all(&self.next().to_le_bytes()).unwrap();
        }
        file.flush().unwrap();
    }
}

fn same(one: &Path, other: &Path) {
    let differs = Command::new("diff").arg("-r").args([one, other]).output().unwrap();
    assert!(differs.status.success(), "{}", String::from_utf8_lossy(&differs.stdout));
}

#[test]
fn a_backup_killed_at_any_moment_leaves_a_whole_repository() {
    let seed = std::env::var("LIFEBOAT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 2_654_435_761 + 1);
    println!("seed: LIFEBOAT_SEED={seed}");
    let mut noise = Noise(seed);
    let scene = tempfile::tempdir().unwrap();
    let (tree, repository) = (scene.path().join("tree"), scene.path().join("repository"));
    fs::create_dir(&tree).unwrap();
    run(&repository, &["init"]);
    for number in 0..200 {
        noise.file(&tree.join(format!("small-{number}")), number * 50);
    }
    let tree_text = tree.to_str().unwrap().to_owned();
    let back_up = ["backup", "files", tree_text.as_str(), "--name", "tree"];
    let whole = run(&repository, &back_up).wall;

    let mut killed = 0;
    for round in 0..10 {
        // New content each time, so that there is something to lose.
        for number in 0..3 {
            noise.file(&tree.join(format!("large-{number}")), 30_000_000);
        }
        let mut running = process::start(&mut lifeboat(&repository, &back_up)).unwrap();
        // From the first instant to well after an ordinary end, which is about a second.
        let most = whole + Duration::from_millis(1500);
        std::thread::sleep(most.mul_f64((noise.next() % 1000) as f64 / 1000.0));
        running.kill().unwrap();
        let ended = running.wait(LIMIT).unwrap();
        killed += u32::from(!ended.status.success());
        let verified = process::run(&mut lifeboat(&repository, &["verify", "--every-byte"]), LIMIT);
        let verified = verified.unwrap();
        assert!(verified.status.success(), "round {round}: {}", verified.stderr);
    }
    assert!(killed > 0, "no backup was still running when it was killed");

    run(&repository, &back_up);
    let restored = scene.path().join("restored");
    run(&repository, &["restore", "latest", "--to", restored.to_str().unwrap()]);
    same(&tree, &restored);
}

#[test]
fn a_killed_backup_leaves_what_it_stored_to_the_next_one() {
    let scene = tempfile::tempdir().unwrap();
    let (tree, repository) = (scene.path().join("tree"), scene.path().join("repository"));
    fs::create_dir(&tree).unwrap();
    run(&repository, &["init"]);
    Noise(7).file(&tree.join("large"), 400_000_000);
    let tree_text = tree.to_str().unwrap().to_owned();
    let back_up = ["--json", "backup", "files", tree_text.as_str(), "--name", "tree"];

    let mut running = process::start(&mut lifeboat(&repository, &back_up)).unwrap();
    // The first index object says that packs can be used by whoever comes next.
    let index = repository.join("index");
    // An object that is still being written has a longer name.
    let is_object = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().len() == 64;
    let known = || fs::read_dir(&index).is_ok_and(|mut objects| objects.any(is_object));
    let began = std::time::Instant::now();
    while !known() {
        assert!(began.elapsed() < LIMIT, "no index object was written");
        std::thread::sleep(Duration::from_millis(2));
    }
    running.kill().unwrap();
    let ended = running.wait(LIMIT).unwrap();
    assert!(!ended.status.success(), "the backup was done before it could be killed");

    let second = run(&repository, &back_up);
    let summary = second.stdout.lines().find(|line| line.contains("\"summary\"")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
    let new = summary["new"].as_u64().unwrap();
    // It was killed at the first index object, which names four packs of 16 MiB.
    assert!(new < 340_000_000, "{new} of 400000000 bytes were stored again");
}

#[test]
fn memory_does_not_grow_with_the_store() {
    let scene = tempfile::tempdir().unwrap();
    let (tree, repository) = (scene.path().join("tree"), scene.path().join("repository"));
    fs::create_dir(&tree).unwrap();
    run(&repository, &["init"]);
    Noise(11).file(&tree.join("large"), 1_200_000_000);
    let tree_text = tree.to_str().unwrap().to_owned();
    let backup = run(&repository, &["backup", "files", tree_text.as_str(), "--name", "tree"]);
    let restored = scene.path().join("restored");
    let restore = run(&repository, &["restore", "latest", "--to", restored.to_str().unwrap()]);
    let verify = run(&repository, &["verify", "--every-byte"]);
    for ended in [backup, restore, verify] {
        let peak = ended.peak_rss;
        assert!(peak < MEMORY, "{} took {} MiB", ended.command, peak >> 20);
    }
    same(&tree, &restored);
}
