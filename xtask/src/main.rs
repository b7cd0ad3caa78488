//! The tasks of Lifeboat's developers: `cargo xtask setup | demo | test | fuzz | ci | bench`.
//!
//! One module for each task; this one only parses and calls.

mod bench;
mod cargo;
mod ci;
mod demo;
mod fuzz;
mod setup;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The tasks of Lifeboat's developers")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install the servers that tests run on, with the system's package clients
    Setup(setup::Arguments),
    /// See a PostgreSQL cluster backed up, lost, restored and proved equal
    Demo(demo::Arguments),
    /// Run all tests, on real servers
    Test(test::Arguments),
    /// Give every decoder inputs that nobody would write
    Fuzz(fuzz::Arguments),
    /// What must pass before a change goes in: format, lints, documentation, tests
    Ci,
    /// Measure Lifeboat and its peers side by side
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let done = |()| ExitCode::SUCCESS;
    let outcome = match Arguments::parse().task {
        Task::Setup(arguments) => setup::run(&arguments).map(done),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Ci => ci::run().map(done),
        Task::Bench(arguments) => bench::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
