//! `cargo xtask ci`: what must pass before a change goes in.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::cargo::cargo;

/// In the order in which mistakes are found soonest.
fn steps() -> [(&'static str, Command); 6] {
    let mut doc = cargo(&["doc", "--workspace", "--all-features", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    let clippy =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    [
        ("format", cargo(&["fmt", "--all", "--", "--check"])),
        ("lints", cargo(&clippy)),
        ("documentation", doc),
        // Small, so that it costs little: what newcomers see first must not rot.
        ("demo", cargo(&["xtask", "demo", "--size", "20"])),
        ("fuzz targets", cargo(&["xtask", "fuzz", "--seconds", "10"])),
        // As a person would, so that the command in the README is what is proved.
        ("tests", cargo(&["xtask", "test"])),
    ]
}

pub(crate) fn run() -> Result<()> {
    let mut done: Vec<(&str, Duration)> = Vec::new();
    let mut failed = None;
    for (name, mut command) in steps() {
        println!("== {name}");
        let start = Instant::now();
        let status = command.status().with_context(|| format!("run the step `{name}`"))?;
        done.push((name, start.elapsed()));
        if !status.success() {
            failed = Some(name);
            break;
        }
    }
    println!("\n== summary");
    for (name, time) in done {
        let outcome = if failed == Some(name) { "FAILED" } else { "passed" };
        println!("{name:<16} {outcome} {:>7.1} s", time.as_secs_f64());
    }
    match failed {
        Some(name) => bail!("the step `{name}` failed; those after it were not run"),
        None => Ok(()),
    }
}
