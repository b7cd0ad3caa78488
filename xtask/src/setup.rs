//! `cargo xtask setup`: installs what the tests need and the machine lacks.
//!
//! Looks at the machine, plans, and carries the plan out: three modules, of which only the last
//! changes anything. When nothing is missing it only looks, which takes a fraction of a second, so
//! that `cargo xtask test` can begin with it each time.

mod install;
mod machine;
mod plan;

use anyhow::{Result, bail};
use lifeboat_testbed::{
    postgres::{Installation, Origin},
    s3,
};

use self::{machine::Machine, plan::Plan};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Say what would be run, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Also install the tools that benchmarks compare Lifeboat with
    #[arg(long)]
    peers: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut machine = Machine::look();
    let mut plan = Plan::make(&machine, arguments.peers);
    if arguments.dry_run {
        return rehearse(&machine, &plan);
    }
    // What the system's packages bring shows only when they are there, and may change the plan.
    let mut tried = Vec::new();
    loop {
        plan.steps.retain(|step| !tried.contains(step));
        if plan.steps.is_empty() {
            break;
        }
        for failure in install::carry_out(&plan.steps, &machine) {
            eprintln!("warning: {failure:#}");
        }
        tried.append(&mut plan.steps);
        machine = Machine::look();
        plan = Plan::make(&machine, arguments.peers);
    }
    report(&machine);
    conclude(&machine, &plan)?;
    if arguments.peers && !machine.missing_peers.is_empty() {
        bail!("not installed: {}", machine.missing_peers.join(", "));
    }
    Ok(())
}

fn rehearse(machine: &Machine, plan: &Plan) -> Result<()> {
    report(machine);
    for step in &plan.steps {
        println!("would install {}:", step.purpose());
        for command in step.commands(machine) {
            println!("  {command}");
        }
    }
    if plan.steps.is_empty() {
        println!("nothing would be installed");
    }
    conclude(machine, plan)
}

/// What `cargo xtask test` begins with. Returns the servers that tests will run on.
pub(crate) fn ensure() -> Result<Vec<Installation>> {
    run(&Arguments { dry_run: false, peers: false })?;
    Ok(lifeboat_testbed::postgres::installations())
}

fn report(machine: &Machine) {
    for server in &machine.servers {
        let origin = match server.origin {
            Origin::Distribution => "the system's packages",
            Origin::Wheel => "a Python wheel",
            Origin::Node => "a Node package, server only",
        };
        let at = server.bin_dir.display();
        println!("PostgreSQL {:<6} {origin:<28} {at}", server.version);
    }
    for (major, minor) in &machine.redis {
        println!("Redis {major}.{minor}");
    }
    if machine.has_s3 {
        println!("S3 server  {:<6} a Python package", s3::MOTO);
    }
    if machine.has_reader {
        println!("second reader of repositories: Python packages");
    }
    if machine.has_age {
        println!("age: the system's packages");
    }
}

/// Says what is still missing and what follows from it; an error when no test could run.
fn conclude(machine: &Machine, plan: &Plan) -> Result<()> {
    for lack in &plan.lacks {
        eprintln!("note: {lack}");
    }
    if machine.servers.is_empty() && plan.steps.is_empty() {
        bail!(
            "no PostgreSQL is here and none can be installed: do what a note above says, then again"
        );
    }
    Ok(())
}
