//! `cargo xtask demo`: a cluster is backed up, lost, restored and proved equal.
//!
//! The demo itself is an example program of the facade, since it needs what tests need; this task
//! only builds it, with the `lifeboat` command that it drives, and hands over.

use std::{
    env,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{cargo::cargo, setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// About how many megabytes the cluster has
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1000))]
    size: u32,
    /// Change one row after the restore, to see that the comparison notices: the demo must fail
    #[arg(long)]
    tamper: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    build()?;
    let own = env::current_exe().context("find this program")?;
    let profile = own.parent().context("find the programs that were built")?;
    let target = profile.parent().unwrap_or(profile);
    let mut demo = Command::new(profile.join("examples/demo"));
    demo.arg(profile.join("lifeboat"))
        .arg(arguments.size.to_string())
        .arg(target.join("demo.log"))
        .args(arguments.tamper.then_some("--tamper"));
    // In our place: so Ctrl-C reaches it alone, and the shell waits until it has cleaned up.
    let error = demo.exec();
    bail!("run {}: {error}", Path::new(demo.get_program()).display());
}

/// Builds as the tests do, with the same features: what one compiled, the other need not.
fn build() -> Result<()> {
    println!("\nBuilding the command and the demo; the first time, this takes minutes.");
    let status = cargo(&["build", "--workspace", "--all-features"])
        .args(["--bin", "lifeboat", "--example", "demo"])
        .status()
        .context("run cargo build")?;
    if !status.success() {
        bail!("the command and the demo could not be built: see above");
    }
    Ok(())
}
