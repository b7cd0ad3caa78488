//! `cargo xtask fuzz`: the fuzz targets, side by side on all processors.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cargo::cargo;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the targets of these names
    targets: Vec<String>,
    /// How long each target is tried
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Which run; the same one gives the same inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Make `fuzz/corpus` anew: an input of every answer, as small as it can be
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut command = cargo(&["run", "--quiet", "--package", "lifeboat-fuzz", "--"]);
    command.args(["--seconds", &arguments.seconds.to_string()]);
    command.args(["--seed", &arguments.seed.to_string()]);
    command.args(arguments.keep.then_some("--keep")).args(&arguments.targets);
    let status = command.status().context("run the fuzz targets")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
