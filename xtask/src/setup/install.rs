//! Carrying a plan out.

use std::{
    fs,
    path::Path,
    process::{self, Command},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    machine::Machine,
    plan::{Step, Words},
};

/// Does these steps, and goes on after one that fails: the others may be all that is needed.
pub(crate) fn carry_out(steps: &[Step], machine: &Machine) -> Vec<anyhow::Error> {
    let mut failures = Vec::new();
    for step in steps {
        println!("installing {}", step.purpose());
        let start = Instant::now();
        let outcome = match step {
            Step::Apt(packages) => apt(step, packages, machine),
            Step::Wheel
            | Step::Node(..)
            | Step::Moto
            | Step::Reader
            | Step::RedisStack
            | Step::RedisOld => into_home(step, machine),
        };
        match outcome {
            Ok(()) => println!("  done in {:.1} s", start.elapsed().as_secs_f64()),
            Err(error) => failures.push(error.context(format!("install {}", step.purpose()))),
        }
    }
    failures
}

/// Lists of packages are fetched only when they are missing or too old to be of use: it takes
/// longer than the installation.
fn apt(step: &Step, packages: &[&str], machine: &Machine) -> Result<()> {
    let update = || run(&Words(vec!["apt-get".to_owned(), "update".to_owned()]));
    let install = || step.commands(machine).iter().try_for_each(run);
    let known = Command::new("apt-cache").arg("show").args(packages).output();
    if !known.is_ok_and(|output| output.status.success()) {
        update()?;
        return install();
    }
    install().or_else(|_| {
        println!("  once more, with fresh lists of packages");
        update()?;
        install()
    })
}

/// Installs beside the final place and renames, so that what is there is complete, however often
/// setup was interrupted or is run twice at a time.
fn into_home(step: &Step, machine: &Machine) -> Result<()> {
    let name = step.directory().context("a step of the system's")?;
    let home = &machine.home;
    fs::create_dir_all(home).with_context(|| format!("make {}", home.display()))?;
    let partial = home.join(format!("{name}.{}.partial", process::id()));
    let complete = home.join(&name);
    let outcome = install_and_rename(step, machine, &partial, &complete);
    if outcome.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    outcome
}

fn install_and_rename(
    step: &Step,
    machine: &Machine,
    partial: &Path,
    complete: &Path,
) -> Result<()> {
    let target = partial.to_str().context("a path that is not UTF-8")?;
    fs::create_dir_all(partial).with_context(|| format!("make {target}"))?;
    for command in step.commands_into(target, machine) {
        run(&command)?;
    }
    if machine.root {
        // The servers will run under another account, and our umask may be anything.
        let mut open = Command::new("chmod");
        open.args(["-R", "a+rX"]).arg(&machine.home);
        ensure!(open.status().is_ok_and(|s| s.success()), "make {target} readable for everybody");
    }
    if let Err(error) = fs::rename(partial, complete) {
        ensure!(complete.exists(), "rename {target} to {}: {error}", complete.display());
        // Another setup was faster.
        fs::remove_dir_all(partial).with_context(|| format!("remove {target}"))?;
    }
    Ok(())
}

fn run(words: &Words) -> Result<()> {
    println!("  {words}");
    let (program, arguments) = words.0.split_first().context("an empty command")?;
    let output = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // What root installs goes into a directory of its own, which pip cannot know.
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .stdin(process::Stdio::null())
        .output()
        .with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n");
        bail!("`{words}` failed ({}):\n{last}", output.status);
    }
    Ok(())
}
