//! All programs in turn, several times over.
//!
//! Within a round, each step is done by all programs one after the other, so that what they are
//! compared by was measured within seconds of each other; the one that begins is another one in
//! each round. Each round begins with empty repositories.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lifeboat_testbed::Scratch;

use crate::go_on;
use crate::measure::{Sample, measure};
use crate::tool::{Scene, Step, Tool};

/// All that came out for one kind of data.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What was backed up, in words.
    pub(crate) title: String,
    /// Of each step and program, one sample a round; programs by their place in `names`.
    pub(crate) samples: BTreeMap<(Step, usize), Vec<Sample>>,
    /// The programs; the first is Lifeboat.
    pub(crate) names: Vec<&'static str>,
    pub(crate) versions: Vec<String>,
    /// Programs that are not there or did not work, and why.
    pub(crate) left_out: Vec<String>,
}

/// Measures the programs. The first one must work; another that does not is left out.
pub(crate) fn measure_all(
    title: String,
    scratch: &Scratch,
    scene: &Scene,
    tools: &[Tool],
    runs: usize,
) -> Result<Outcome> {
    let mut outcome = Outcome { title, ..Outcome::default() };
    let mut working = Vec::new();
    for tool in tools {
        match scene.prepare(tool.version, scratch.path()) {
            Ok(said) => {
                outcome.versions.push(said.lines().next().unwrap_or_default().trim().to_owned());
                outcome.names.push(tool.name);
                working.push(tool);
            }
            Err(error) if working.is_empty() => return Err(error),
            Err(_) => outcome.left_out.push(format!("{} (not installed)", tool.name)),
        }
    }
    warm_up(&scene.source)?;
    let expected = counted(scene, &scene.source)?;
    let mut failed = vec![false; working.len()];
    for round in 0..runs {
        for tool in &working {
            let dir = scratch.subdir(&tool.directory())?;
            scene.prepare(tool.init, &dir).with_context(|| format!("begin with {}", tool.name))?;
        }
        for step in Step::ALL {
            for turn in 0..working.len() {
                let at = (turn + round) % working.len();
                let tool = working[at];
                if failed[at] || tool.line(step).is_empty() {
                    continue;
                }
                go_on()?;
                eprintln!("round {} of {runs}: {}, {}", round + 1, step.name(), tool.name);
                let dir = scratch.path().join(tool.directory());
                match run(scene, tool, step, &dir, expected) {
                    Ok(sample) => outcome.samples.entry((step, at)).or_default().push(sample),
                    Err(error) if at == 0 => return Err(error),
                    Err(error) => {
                        failed[at] = true;
                        eprintln!("left out: {error:#}");
                        outcome.left_out.push(format!("{} (failed: {})", tool.name, step.name()));
                    }
                }
            }
        }
        for tool in &working {
            let dir = scratch.path().join(tool.directory());
            fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        }
    }
    outcome.samples.retain(|(_, at), _| !failed[*at]);
    Ok(outcome)
}

/// `expected` is how many files and bytes a restore has to bring.
fn run(scene: &Scene, tool: &Tool, step: Step, dir: &Path, expected: (u64, u64)) -> Result<Sample> {
    let (repository, target) = (dir.join("repo"), dir.join("out"));
    if step == Step::Restore {
        scene.prepare("mkdir -m 700 \"$OUT\"", dir)?;
    }
    scene.prepare(tool.before, dir)?;
    // What the one before has written shall not be written back on this one's time.
    let synced = Command::new("sync").status().context("run sync")?;
    ensure!(synced.success(), "sync failed");
    let before = extent(&repository)?.1;
    let mut sample = measure(&mut scene.shell(tool.line(step), dir), scene.server)?;
    sample.stored = extent(&repository)?.1.saturating_sub(before);
    scene.prepare(tool.after, dir)?;
    if step == Step::Restore {
        let restored = counted(scene, &target)?;
        // A server's data directory has files that no backup holds, such as unlogged tables.
        let whole = match scene.server {
            Some(_) => restored.1 >= expected.1 / 10 * 9,
            None => restored == expected,
        };
        ensure!(
            whole,
            "{} restored {restored:?} files and bytes of {expected:?}: what it took means nothing",
            tool.name
        );
        fs::remove_dir_all(&target).with_context(|| format!("remove {}", target.display()))?;
    }
    Ok(sample)
}

/// How many files are in a directory, and how many bytes they have in all. Nothing when it is not
/// there.
pub(crate) fn extent(dir: &Path) -> Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    each_file(dir, &mut |_, length| {
        files += 1;
        bytes += length;
        Ok(())
    })?;
    Ok((files, bytes))
}

/// Reads everything once, so that the first program does not alone wait for the disk.
fn warm_up(source: &Path) -> Result<()> {
    each_file(source, &mut |path, _| {
        let Ok(mut file) = fs::File::open(path) else { return Ok(()) };
        std::io::copy(&mut file, &mut std::io::sink())
            .map(drop)
            .with_context(|| format!("read {}", path.display()))
    })
}

/// How many files and bytes a restore is expected to bring: of a live server, without its WAL.
fn counted(scene: &Scene, dir: &Path) -> Result<(u64, u64)> {
    if scene.server.is_some() { without_wal(dir) } else { extent(dir) }
}

/// How many files and bytes are in a directory, apart from those of a server's WAL: they come and go.
pub(crate) fn without_wal(dir: &Path) -> Result<(u64, u64)> {
    let (all, wal) = (extent(dir)?, extent(&dir.join("pg_wal"))?);
    Ok((all.0.saturating_sub(wal.0), all.1.saturating_sub(wal.1)))
}

fn each_file(dir: &Path, visit: &mut dyn FnMut(&Path, u64) -> Result<()>) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", dir.display()))?;
        // A live server removes files at any moment.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            each_file(&entry.path(), visit)?;
        } else if metadata.is_file() {
            visit(&entry.path(), metadata.len())?;
        }
    }
    Ok(())
}
